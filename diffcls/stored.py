"""Records as json: plain Python objects, and small files that say what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import durable
from .errors import DiffclsError, InputError


def as_json(value: Any) -> Any:
    """As it reads back from json: tuples, ranges and arrays are lists, so that records compare equal to their stored selves."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, ranges; what else is no json is a mistake."""
    plain = np.asarray(value).tolist()
    if plain is value:
        raise InputError(f"a record holds {value!r}, which is no number, text, list or array")
    return plain


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """A reader sees the whole file or none."""
    durable.write(path, json.dumps(content, indent=1).encode())


class Saved:
    """What `save` writes: the plain Python objects of its own `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects.

        Returns
        -------
        dict
        """
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as json, at once or not at all.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        OSError
            The file can not be written.
        """
        write_json(path, self.to_dict())


def read_json(path: str | os.PathLike[str], format: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """A file of `write_json` that says it is of `format` and has all `keys`.

    Raises
    ------
    ValueError
        It is not.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InputError(f"{os.fspath(path)} can not be read as json ({error})") from None
    kind = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or kind != format:
        raise InputError(f"{os.fspath(path)} is of format {kind!r}, must be {format!r}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"{os.fspath(path)} is a {format!r} without {', '.join(missing)}: make it again and save it")
    return content


@contextmanager
def damaged(path: str | os.PathLike[str]) -> Iterator[None]:
    """What is wrong with the content, said with the file's name.

    Raises
    ------
    ValueError
    """
    try:
        yield
    except (DiffclsError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"{os.fspath(path)} is damaged: {error}") from None
