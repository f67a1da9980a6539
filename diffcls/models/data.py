"""MNIST and Fashion-MNIST on this machine: one place that finds them and says what to install when they are missing.

The embedded model is trained and measured on both.  Nothing is downloaded.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATASETS = ("mnist", "fashion-mnist")
"""Both have ten classes; ``fashion-mnist`` labels follow the digits in the embedded model's twenty."""

_HINTS = {
    "mnist": "put the four files of MNIST (train-images-idx3-ubyte.gz, ...) into a folder 'mnist'",
    "fashion-mnist": "on Debian and Ubuntu: apt-get install dataset-fashion-mnist",
    "cifar10": "put cifar10-jpeg.tar.xz (CIFAR-10 as JPEG files, train/ and test/) into a folder 'cifar10'",
}


def roots() -> list[Path]:
    """Folders searched, in this order: ``$DIFFCLS_DATA``, ``data/`` and ``../shared/data/`` of the checkout, Debian's."""
    checkout = Path(__file__).resolve().parents[2]
    named = os.environ.get("DIFFCLS_DATA")
    return [
        *([Path(named)] if named else []),
        checkout / "data",
        checkout.parent / "shared" / "data",
        Path("/usr/share/datasets"),
    ]


def folder(name: str) -> Path:
    """Folder that holds data set `name`.

    Raises
    ------
    FileNotFoundError
        It is in none of `roots`; the message says how to get it.
    """
    for root in roots():
        if (root / name).is_dir():
            return root / name
    looked = ", ".join(str(root) for root in roots())
    raise FileNotFoundError(
        f"data set {name!r} was not found in {looked}; {_HINTS.get(name, 'it is not known here')}, "
        f"or set DIFFCLS_DATA to the folder that holds {name!r}"
    )


def load(name: str, *, train: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 28, 28) uint8 and labels (N,) 0 to 9 of one split, in canonical order."""
    stem = "train" if train else "t10k"
    where = folder(name)
    images = read_idx(where / f"{stem}-images-idx3-ubyte.gz")
    labels = read_idx(where / f"{stem}-labels-idx1-ubyte.gz")
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The idx format, gzipped or not: two zero bytes, dtype code 8 (uint8), number of axes, big-endian sizes, data."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    shape = np.frombuffer(raw, ">u4", raw[3], 4)
    content = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if content.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} has {content.size} bytes of data, its head says {' x '.join(map(str, shape))}")
    return content.reshape(shape)


def photos(n: int) -> list[NDArray[np.uint8]]:
    """`n` test photos of CIFAR-10 (a JPEG re-encoding) spread over its classes, grey, (32, 32) uint8."""
    import tarfile

    from PIL import Image

    found: list[NDArray[np.uint8]] = []
    step, seen = 10000 // n, 0
    with tarfile.open(folder("cifar10") / "cifar10-jpeg.tar.xz", "r|xz") as archive:
        for member in archive:
            if "/test/" not in member.name or not member.name.endswith(".jpg"):
                continue
            stream = archive.extractfile(member) if seen % step == 0 else None
            if stream is not None and len(found) < n:
                found.append(np.asarray(Image.open(stream).convert("L")))
            seen += 1
    return found
