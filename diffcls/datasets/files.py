"""What every layout's reader gives, and how a missing file is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..evaluation.sources import Item
from ..images import decode

SUFFIXES = (".jpg", ".jpeg", ".png")


class Entry(NamedTuple):
    """One image: its name, the position of its class, and how to get the picture."""

    id: str
    label: int
    load: Callable[[], Any]


@dataclass(frozen=True)
class Listing:
    """One split of a data set.

    Attributes
    ----------
    classes : list of str
        As the data set names them.
    words : list of str
        Of each class, what stands in a prompt.
    entries : sequence of Entry
        In an order that is the same everywhere.
    ids : list of list of int, or None
        Of each class, the ImageNet ids that mean it, for models that know ids.
    """

    classes: list[str]
    words: list[str]
    entries: Sequence[Entry]
    ids: list[list[int]] | None = None

    def items(self) -> Iterator[Item]:
        """As `diffcls.evaluate` reads them."""
        for entry in self.entries:
            yield Item(entry.id, self.classes[entry.label], entry.load)


def picture(root: Path, name: str) -> Callable[[], Any]:
    """Reads the picture `root`/`name` when called."""
    return partial(decode, root / name, name)


def pictures_in(folder: Path) -> list[str]:
    """Names of the picture files of one folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in one, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty, without their ends."""
    return [line.rstrip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


Ways = tuple[tuple[str, ...], ...]
"""Files and folders that must all exist, in one of several ways."""


def find(root: Path, ways: Ways, inner: Sequence[str], home: str) -> Path:
    """The folder, `root` or one that an archive made in it, that has all of one way.

    Raises
    ------
    ValueError
        There is none; the message says what is missing and where it is to be had.
    """
    candidates = [root, *(root / name for name in inner)]
    for way in ways:
        for candidate in candidates:
            if all((candidate / name).exists() for name in way):
                return candidate
    closest = max(candidates, key=lambda candidate: sum((candidate / name).exists() for name in ways[0]))
    missing = ", ".join(name for name in ways[0] if not (closest / name).exists())
    other = "".join(f", nor {' and '.join(way)}" for way in ways[1:])
    raise InputError(f"{closest} has no {missing}{other}. {home}")


def packaged(name: str) -> list[str]:
    """Lines of a text file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
