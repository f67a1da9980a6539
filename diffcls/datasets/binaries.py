"""Readers of data sets that come as blocks of bytes: CIFAR-10, STL-10, MNIST and Fashion-MNIST."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..images import decode
from ..models.data import read_idx
from .files import Entry, Listing, Ways, folders_in, lines, picture, pictures_in

Bytes = NDArray[np.uint8]

# ---- CIFAR-10 --------------------------------------------------------------------------------------------------------

CIFAR_FILES = {"test": ("test_batch.bin",), "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6))}
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
JPEG_ARCHIVE = "cifar10-jpeg.tar.xz"


def cifar10_needs(split: str) -> Ways:
    """What `cifar10` reads, the binary version first."""
    first = CIFAR_FILES[split][0]
    return (first,), (Path(first).stem,), (split,), (JPEG_ARCHIVE,)


def cifar10(root: Path, split: str) -> Listing:
    """The binary version, ``test_batch.bin``: a byte of class, 3,072 of colours plane by plane; Python's, ``test_batch``; one
    folder a class in ``test/``; or those in an archive, ``cifar10-jpeg.tar.xz``.
    """
    if (root / CIFAR_FILES[split][0]).exists():
        return _cifar_binary(root, split)
    if (root / Path(CIFAR_FILES[split][0]).stem).exists():
        return _cifar_python(root, split)
    if (root / split).is_dir():
        return _cifar_folders(root, split)
    return _cifar_archive(root / JPEG_ARCHIVE, split)


def _cifar_binary(root: Path, split: str) -> Listing:
    names = lines(root / "batches.meta.txt") if (root / "batches.meta.txt").exists() else CIFAR_CLASSES
    blocks = [_rows(root / name, 3073) for name in CIFAR_FILES[split]]
    rows = np.concatenate(blocks)
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _of_arrays(names, images, rows[:, 0].astype(np.int64), split)


def _cifar_python(root: Path, split: str) -> Listing:
    """Pickles, of which nothing but NumPy's arrays is taken: others could run code."""
    batches = [_unpickle(root / Path(name).stem) for name in CIFAR_FILES[split]]
    rows = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
    labels = np.concatenate([np.asarray(batch["labels"], np.int64) for batch in batches])
    return _of_arrays(CIFAR_CLASSES, rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, split)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "_reconstruct": np.empty(0).__reduce__()[0],
            "ndarray": np.ndarray,
            "dtype": np.dtype,
            "encode": codecs.encode,
        }
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs") and name in allowed:
            return allowed[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return dict(_ArraysOnly(file, encoding="latin1").load())
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{path} is no batch of CIFAR-10 ({error})") from None


def _cifar_folders(root: Path, split: str) -> Listing:
    entries = []
    for folder in folders_in(root / split):
        if folder not in CIFAR_CLASSES:
            raise InputError(f"{root / split} has folder {folder!r}, classes are {', '.join(CIFAR_CLASSES)}")
        for name in pictures_in(root / split / folder):
            path = f"{split}/{folder}/{name}"
            entries.append(Entry(path, CIFAR_CLASSES.index(folder), picture(root, path)))
    return Listing(CIFAR_CLASSES, CIFAR_CLASSES, entries)


def _cifar_archive(path: Path, split: str) -> Listing:
    """All pictures' files in memory, some 20 MB: an archive can not be read in any order."""
    import tarfile

    found: list[tuple[str, bytes]] = []
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if f"/{split}/" in member.name and member.isfile() else None
            if stream is not None:
                found.append((member.name, stream.read()))
    entries = [
        Entry(name, CIFAR_CLASSES.index(name.split("/")[-2]), partial(_decode, content, name))
        for name, content in sorted(found)
    ]
    return Listing(CIFAR_CLASSES, CIFAR_CLASSES, entries)


def _decode(content: bytes, name: str) -> Any:
    return decode(BytesIO(content), name)


# ---- STL-10 ----------------------------------------------------------------------------------------------------------


def stl10(root: Path, split: str) -> Listing:
    """``test_X.bin``: 96 x 96 pixels plane by plane, column by column; ``test_y.bin``: classes from 1; ``class_names.txt``."""
    names = lines(root / "class_names.txt")
    images = _rows(root / f"{split}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    labels = _rows(root / f"{split}_y.bin", 1)[:, 0].astype(np.int64) - 1
    return _of_arrays(names, images, labels, split)


# ---- MNIST and Fashion-MNIST -----------------------------------------------------------------------------------------


_STEMS = {"test": "t10k", "train": "train"}
_PARTS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def idx_needs(split: str) -> Ways:
    """What `mnist` and `fashion_mnist` read."""
    packed = tuple(f"{_STEMS[split]}-{part}.gz" for part in _PARTS)
    return packed, tuple(name.removesuffix(".gz") for name in packed)


def mnist(root: Path, split: str) -> Listing:
    """The idx files, packed or not; a word is the digit."""
    return _idx(root, split, [str(digit) for digit in range(10)])


def fashion_mnist(root: Path, split: str) -> Listing:
    """As `mnist`; the ten names are those of the data set's authors."""
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    return _idx(root, split, names)


def _idx(root: Path, split: str, names: list[str]) -> Listing:
    names_of = next(way for way in idx_needs(split) if all((root / name).exists() for name in way))
    images, labels = (read_idx(root / name) for name in names_of)
    return _of_arrays(names, images, labels.astype(np.int64), split)


# ---- below -----------------------------------------------------------------------------------------------------------


def _rows(path: Path, size: int) -> Bytes:
    """(N, size), mapped into memory."""
    n_bytes = path.stat().st_size
    if not n_bytes or n_bytes % size:
        raise InputError(f"{path} has {n_bytes} bytes, must be a multiple of {size}: it is cut short, or another file")
    return np.memmap(path, np.uint8, mode="r", shape=(n_bytes // size, size))


def _of_arrays(names: list[str], images: Bytes, labels: NDArray[np.int64], split: str) -> Listing:
    if len(images) != len(labels):
        raise InputError(f"{split} has {len(images)} images and {len(labels)} labels")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise InputError(f"{split} has labels from {labels.min()} to {labels.max()}, classes are 0 to {len(names) - 1}")
    return Listing(names, names, _Arrays(images, labels, split))


class _Arrays(Sequence[Entry]):
    """Entries that are made when they are looked at."""

    def __init__(self, images: Bytes, labels: NDArray[np.int64], split: str) -> None:
        self._images, self._labels, self._split = images, labels, split

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return Entry(f"{self._split}/{i}", int(self._labels[i]), partial(np.array, self._images[i]))
