"""WebDataset: tar files in which neighbours of one name, but for the ending, are one example."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..images import decode
from .sources import EXTENSIONS, Item, Source

IMAGES = tuple(extension[1:] for extension in EXTENSIONS)


def tar_files(paths: list[Path]) -> Source:
    """Examples of ``key.jpg`` with ``key.cls`` (a number or a name) or ``key.json`` (with "label"), read as they stream by."""

    def items() -> Iterator[Item]:
        for path in paths:
            yield from _examples(path)

    return Source(items, None)


def _examples(path: Path) -> Iterator[Item]:
    key, parts, n_read = None, dict[str, bytes](), 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isfile() or not stem or not dot:
                    continue
                if folder + slash + stem != key:
                    if parts:
                        yield from _example(path, str(key), parts)
                    key, parts = folder + slash + stem, {}
                stream = archive.extractfile(member)
                content = b"" if stream is None else stream.read()
                if len(content) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                parts[ending.lower()] = content
                n_read += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{path} is cut short or no tar file, after {n_read} files of it ({error})") from None
    if parts:
        yield from _example(path, str(key), parts)


def _example(path: Path, key: str, parts: dict[str, bytes]) -> Iterator[Item]:
    """None where there is no picture among the parts."""
    pictures = [ending for ending in parts if ending.rpartition(".")[2] in IMAGES]
    if len(pictures) > 1:
        raise InputError(f"{path} has {len(pictures)} pictures named {key}: {', '.join(pictures)}; one is wanted")
    if pictures:
        yield Item(
            key,
            _label(path, key, parts),
            partial(_decode, parts[pictures[0]], f"{key}.{pictures[0]} in {path}"),
            own=True,
        )


def _decode(content: bytes, name: str) -> Any:
    return decode(io.BytesIO(content), name)


def _label(path: Path, key: str, parts: dict[str, bytes]) -> Any:
    try:
        if "cls" in parts:
            text = parts["cls"].decode().strip()
            return int(text) if text.lstrip("-").isdigit() else text
        return json.loads(parts["json"]).get("label") if "json" in parts else None
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} has a label of {key} that can not be read ({error})") from None
