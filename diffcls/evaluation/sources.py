"""Data sets as a stream of named, labelled, not yet decoded images, whatever they come as."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import shown
from ..errors import DiffclsError, DTypeError, InputError, ShapeError
from ..images import decode, is_picture

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""Files that an image folder counts as pictures; others are passed over."""

UNREADABLE = (DiffclsError, OSError, ValueError, SyntaxError, EOFError)
"""What an image that can not be read or used raises, here, in Pillow and in data sets' own code."""

Columns = Mapping[str, str]


class Item(NamedTuple):
    """One image.  `load` gives what `Classifier` takes, and is called only when the image is wanted.

    `own`: the id is the data set's own, and could stand twice.

    Parameters
    ----------
    id : str
    label : int, str, None or callable
        As the data set has it; None: not known.  A callable, without arguments, gives it where the picture must be read to
        know it: it is asked for this shard's images only, and may fail as `load` may.
    load : callable
        Without arguments.
    own : bool
    """

    id: str
    label: Any
    load: Callable[[], Any]
    own: bool = False


@dataclass(frozen=True)
class Source:
    """A data set that is read from the front, as often as `items` is called (once, where it is an iterator).

    Attributes
    ----------
    items : callable
        Gives an iterator of `Item`, in the same order every time.
    n_images : int or None
        None: not known before the end.
    class_names : list of str or None
        What label 0, 1, ... is called, or all the names that labels can have; None: not known.
    """

    items: Callable[[], Iterator[Item]]
    n_images: int | None
    class_names: list[str] | None = None


def open_source(dataset: Any, columns: Columns | None = None) -> Source:
    """See `diffcls.evaluate` for what a data set may be.

    Parameters
    ----------
    dataset : path, array, pair of arrays, mapping, data set of Hugging Face or torchvision, iterable, or Source
    columns : mapping or None
        Names of a table's columns by "id", "image" and "label"; None: found by their names.

    Returns
    -------
    Source

    Raises
    ------
    TypeError, ValueError
        It is none, or one that could be read in two ways.
    """
    columns = _check_columns(columns)
    if isinstance(dataset, Source):
        return dataset
    if isinstance(dataset, (str, os.PathLike)):
        return _open_path(Path(dataset), columns)
    module = type(dataset).__module__.partition(".")[0]
    if module == "datasets":
        from .tables import hugging_face

        return hugging_face(dataset, columns)
    if isinstance(dataset, Mapping):
        return _of_mapping(dataset, columns)
    if _is_pair_of_arrays(dataset):
        return arrays(*dataset)
    if module in ("pandas", "polars", "pyarrow"):
        raise DTypeError(
            f"dataset is a {type(dataset).__name__} of {module}: give it as a mapping of arrays, as a file of Parquet, or by "
            "datasets.Dataset.from_pandas"
        )
    if hasattr(dataset, "shape") and hasattr(dataset, "__getitem__"):
        return arrays(dataset, None)
    if isinstance(dataset, (list, tuple)):
        return Source(lambda: _listed(dataset), len(dataset))
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return indexed(dataset)
    if isinstance(dataset, Iterable):
        return Source(lambda: _listed(dataset), None)
    raise DTypeError(
        f"dataset is {type(dataset).__name__}, must be a folder or file, an array, a pair of arrays, a Hugging Face or "
        "torchvision data set, or an iterable of images"
    )


def _is_pair_of_arrays(dataset: Any) -> bool:
    """(images, labels); the labels may be a list."""
    if not isinstance(dataset, tuple) or len(dataset) != 2 or not hasattr(dataset[0], "shape"):
        return False
    return hasattr(dataset[1], "shape") or isinstance(dataset[1], list)


def _check_columns(columns: Columns | None) -> Columns:
    given = {} if columns is None else columns
    if not isinstance(given, Mapping) or not set(given) <= {"id", "image", "label"}:
        raise InputError(f"columns is {shown(columns)}, must be a mapping with any of 'id', 'image', 'label'")
    return given


def _open_path(path: Path, columns: Columns) -> Source:
    from .archives import tar_files
    from .tables import parquet_files

    if not path.exists():
        raise InputError(f"dataset is {str(path)!r}, and there is no such file or folder")
    if path.is_dir():
        for suffix, read in ((".parquet", partial(parquet_files, columns=columns)), (".tar", tar_files)):
            found = sorted(entry for entry in path.iterdir() if entry.suffix == suffix)
            if found:
                return read(found)
        return image_folder(path)
    if path.suffix == ".parquet":
        return parquet_files([path], columns)
    if path.suffix == ".tar" or path.name.endswith((".tar.gz", ".tgz", ".tar.xz")):
        return tar_files([path])
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as content:
            return _of_mapping(dict(content), columns)
    raise InputError(f"dataset is {str(path)!r}, must be a folder, or a file .parquet, .tar or .npz")


# ---- folders ---------------------------------------------------------------------------------------------------------


def image_folder(root: Path) -> Source:
    """Pictures in one folder a class, as torchvision's ImageFolder orders them; or pictures alone, without labels."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    loose = any(_is_picture_file(entry.name) for entry in os.scandir(root))
    if classes and loose:
        raise InputError(f"{root} has pictures beside folders: one folder a class, or pictures alone, is wanted")
    parts: list[tuple[str | None, Path]] = [(name, root / name) for name in classes] if classes else [(None, root)]
    n_images = sum(1 for _, folder in parts for _ in _pictures(folder))

    def items() -> Iterator[Item]:
        for label, folder in parts:
            for path in _pictures(folder):
                id = path.relative_to(root).as_posix()
                yield Item(id, label, partial(decode, path, id))

    return Source(items, n_images, classes or None)


def _pictures(folder: Path) -> Iterator[Path]:
    """One level is in memory at a time."""
    for where, below, names in os.walk(folder):
        below.sort()
        yield from (Path(where, name) for name in sorted(names) if _is_picture_file(name))


def _is_picture_file(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


# ---- arrays and other things with an index -----------------------------------------------------------------------------


def arrays(images: Any, labels: Any) -> Source:
    """(N, ...) images and (N,) labels or None; ids are positions."""
    n = len(images)
    if labels is not None and (getattr(labels, "ndim", 1) != 1 or len(labels) != n):
        raise ShapeError(f"dataset has {n} images and labels of shape {np.shape(labels)}, must be one label an image")

    def items() -> Iterator[Item]:
        for i in range(n):
            yield Item(str(i), None if labels is None else labels[i], partial(images.__getitem__, i))

    return Source(items, n)


def _of_mapping(dataset: Mapping[str, Any], columns: Columns) -> Source:
    image = columns.get("image") or _one_of(dataset, ("image", "images", "x"), "images")
    label = columns.get("label") or _one_of(dataset, ("label", "labels", "y"), None)
    missing = [name for name in (image, label) if name is not None and name not in dataset]
    if missing:
        raise InputError(f"dataset has {', '.join(map(str, dataset))}, and no {', '.join(missing)}")
    return arrays(dataset[image], None if label is None else dataset[label])


def _one_of(names: Iterable[str], wanted: tuple[str, ...], what: str | None) -> Any:
    found = [name for name in names if name in wanted]
    if len(found) == 1 or (not found and what is None):
        return found[0] if found else None
    raise InputError(
        f"dataset has {', '.join(map(str, names))}: which are the {what or 'labels'}?  columns={{'image': ..., 'label': ...}} says it"
    )


def indexed(dataset: Any) -> Source:
    """``dataset[i]`` is (image, target), as torchvision has it; ids are positions.

    Where `targets` tells the labels, an image is decoded only when it is wanted; else when its label is.
    """
    names, targets = _class_names(dataset), getattr(dataset, "targets", None)
    if targets is not None and (len(targets) != len(dataset) or getattr(dataset, "target_transform", None) is not None):
        targets = None

    def items() -> Iterator[Item]:
        for i in range(len(dataset)):
            if targets is not None:
                yield Item(str(i), targets[i], partial(_image, dataset, i))
                continue
            entry = _Entry(dataset, i)
            yield Item(str(i), entry.target, entry.image)

    return Source(items, len(dataset), names)


def _class_names(dataset: Any) -> list[str] | None:
    """Of itself, or of what it is a subset or a concatenation of, as PyTorch has them."""
    names = getattr(dataset, "classes", None)
    if names is not None:
        return [_class_name(name) for name in names]
    parts = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    found = [None if part is None else _class_names(part) for part in parts]
    if found[1:] and any(one != found[0] for one in found):
        raise InputError(f"dataset is joined of parts that name their classes in different ways: {shown(found)}")
    return found[0]


def _image(dataset: Any, position: int) -> Any:
    return _pair(dataset, position)[0]


class _Entry:
    """A pair that is read when half of it is wanted, and once."""

    def __init__(self, dataset: Any, position: int) -> None:
        self._dataset, self._position = dataset, position

    @cached_property
    def _both(self) -> tuple[Any, Any]:
        return _pair(self._dataset, self._position)

    def image(self) -> Any:
        return self._both[0]

    def target(self) -> Any:
        return self._both[1]


def _class_name(name: Any) -> str:
    """ImageNet's are tuples of synonyms: the first counts."""
    return str(name[0] if isinstance(name, tuple) else name)


def _pair(dataset: Any, position: int) -> tuple[Any, Any]:
    entry = dataset[position]
    if not isinstance(entry, tuple) or len(entry) != 2:
        raise DTypeError(f"dataset[{position}] is {shown(entry)}, must be a pair of image and target")
    return entry


# ---- iterables -------------------------------------------------------------------------------------------------------


def _listed(dataset: Iterable[Any]) -> Iterator[Item]:
    """Of images, (image, label), (id, image, label), or mappings with "image" and perhaps "id" and "label"."""
    for position, entry in enumerate(dataset):
        if isinstance(entry, Item):
            yield entry
        elif isinstance(entry, Mapping):
            if "image" not in entry:
                raise InputError(f"image {position} of dataset has {', '.join(map(str, entry))}, must have 'image'")
            id, own = _name(entry.get("id"), entry["image"], position)
            yield Item(id, entry.get("label"), partial(_itself, entry["image"]), own)
        elif isinstance(entry, (tuple, list)):
            if len(entry) not in (2, 3):
                raise InputError(
                    f"image {position} of dataset is a {type(entry).__name__} of {len(entry)}, must be (image, label) or "
                    "(id, image, label)"
                )
            given, image, label = (None, *entry) if len(entry) == 2 else entry
            id, own = _name(given, image, position)
            yield Item(id, label, partial(_itself, image), own)
        elif is_picture(entry):
            id, own = _name(None, entry, position)
            yield Item(id, None, partial(_itself, entry), own)
        else:
            raise DTypeError(f"image {position} of dataset is {shown(entry)}, must be an image or a tuple with one")


def _name(given: Any, image: Any, position: int) -> tuple[str, bool]:
    """(id, is it the data set's own): as given, else a file's path, else the position."""
    if given is None and isinstance(image, (str, os.PathLike)):
        given = os.fspath(image)
    return (str(position), False) if given is None else (str(given), True)


def _itself(value: Any) -> Any:
    return value
