"""Files that survive a cut: written beside, flushed to the disk, renamed, and the rename flushed too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PathLike = str | os.PathLike[str]


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A file beside `path` that takes its place at the end, or vanishes when something went wrong.

    A reader sees the old file or the whole new one, after a cut of power too: the content is on the disk before the name
    is, and the name before this returns.
    """
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: PathLike, content: bytes) -> None:
    """The whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sync(path: PathLike) -> None:
    """What was written to a file, or renamed in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
