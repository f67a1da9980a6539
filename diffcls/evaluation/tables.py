"""Data sets that are tables: Parquet with the bytes of images, and Hugging Face's."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import shown
from ..errors import ImageError, InputError
from ..images import decode
from .rows import pyarrow
from .sources import Columns, Item, Source

BATCH = 64
"""Rows of a Parquet file that are in memory at a time."""


def parquet_files(paths: Sequence[Path], columns: Columns) -> Source:
    """Columns "image" (bytes, or {bytes, path} as Hugging Face writes it) and, where present, "label" and "id"."""
    pa = pyarrow()
    files, names = [], []
    for path in paths:
        try:
            files.append(pa.parquet.ParquetFile(path))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is no Parquet file, or cut short ({str(error).splitlines()[0]})") from None
        names.append(files[-1].schema_arrow.names)
    for path, present in zip(paths, names, strict=True):
        if present != names[0]:
            raise InputError(f"{path} has columns {present}, {paths[0]} has {names[0]}: one data set has the same")
    image, label, id = (
        _which(names[0], columns, "image"),
        _which(names[0], columns, "label"),
        _which(names[0], columns, "id"),
    )
    if image is None:
        raise InputError(
            f"{paths[0]} has columns {', '.join(names[0])}: columns={{'image': ...}} must say which has images"
        )
    wanted = [name for name in (image, label, id) if name is not None]

    def items() -> Iterator[Item]:
        position = 0
        for path, file in zip(paths, files, strict=True):
            try:
                for batch in file.iter_batches(BATCH, columns=wanted):
                    for row in batch.to_pylist():
                        name = str(position) if id is None else str(row[id])
                        load = partial(load_bytes, row[image], f"image {name} of {path}")
                        yield Item(name, None if label is None else row[label], load, id is not None)
                        position += 1
            except (pa.ArrowException, OSError) as error:
                said = str(error).splitlines()[0]
                raise InputError(f"{path} is damaged after {position} images of the data set ({said})") from None

    return Source(items, sum(file.metadata.num_rows for file in files))


def _which(names: Sequence[str], columns: Columns, role: str) -> str | None:
    """The column for a role: as given, else of that name."""
    name = columns.get(role)
    if name is not None and name not in names:
        raise InputError(f"columns says {role} is {name!r}, and the data set has {', '.join(names)}")
    return name if name is not None else (role if role in names else None)


def load_bytes(value: Any, name: str) -> Any:
    """A picture from its file's bytes, alone or as {"bytes", "path"}; what is an array stays one."""
    if isinstance(value, dict):
        inner = value.get("bytes")
        value = Path(value["path"]) if inner is None and value.get("path") else inner
    if isinstance(value, (bytes, bytearray)):
        return decode(io.BytesIO(value), name)
    if value is None:
        raise ImageError(f"{name} is missing")
    return np.asarray(value) if isinstance(value, list) else value


# ---- Hugging Face ----------------------------------------------------------------------------------------------------


def hugging_face(dataset: Any, columns: Columns) -> Source:
    """A `datasets.Dataset` or `IterableDataset`; its one Image and its one ClassLabel column, unless `columns` says others."""
    import datasets

    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise InputError(f"dataset has the splits {', '.join(map(repr, dataset))}: give one of them, dataset['test']")
    if dataset.features is None:
        raise InputError("dataset does not say what its columns are; it has no features")
    features, names = dataset.features, list(dataset.features)
    image = _which(names, columns, "image") or _only(features, datasets.Image, "image")
    if image is None:
        raise InputError(f"dataset has columns {', '.join(names)}: columns={{'image': ...}} must say which has images")
    label = _which(names, columns, "label") or _only(features, datasets.ClassLabel, "label")
    id = _which(names, columns, "id")
    coded = features.get(label)
    if isinstance(features[image], datasets.Image):  # bytes are decoded when an image is wanted, and not before
        dataset = dataset.cast_column(image, datasets.Image(decode=False))

    def items() -> Iterator[Item]:
        for position, row in enumerate(dataset):
            name = str(position) if id is None else str(row[id])
            load = partial(load_bytes, row[image], f"image {name} of the data set")
            value = None if label is None else row[label]
            yield Item(
                name, None if isinstance(coded, datasets.ClassLabel) and value == -1 else value, load, id is not None
            )

    n_images = len(dataset) if hasattr(dataset, "__len__") else None
    class_names = list(coded.names) if isinstance(coded, datasets.ClassLabel) else None
    return Source(items, n_images, class_names)


def _only(features: Any, kind: type, role: str) -> str | None:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) > 1:
        raise InputError(f"dataset has {role}s in {shown(found)}: columns={{'{role}': ...}} must say which")
    return found[0] if found else None
