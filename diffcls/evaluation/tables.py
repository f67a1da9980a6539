"""Data sets that are tables: Parquet with the bytes of images, and Hugging Face's."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
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
    features = [_features(file.schema_arrow) for file in files]
    kinds = {name: feature.get("_type") for name, feature in features[0].items()}
    image, label, id = _roles(names[0], kinds, columns, str(paths[0]))
    named = [None if label is None else told.get(label, {}).get("names") for told in features]
    class_names = named[0]
    for path, other in zip(paths, named, strict=True):
        if other != class_names:
            raise InputError(f"{path} and {paths[0]} name the classes of {label!r} in different ways")
    wanted = [name for name in (image, label, id) if name is not None]

    def items() -> Iterator[Item]:
        position = 0
        for path, file in zip(paths, files, strict=True):
            try:
                for batch in file.iter_batches(BATCH, columns=wanted):
                    for row in batch.to_pylist():
                        name = str(position) if id is None else str(row[id])
                        load = partial(load_bytes, row[image], f"image {name} of {path}")
                        yield Item(name, _label(row, label, class_names), load, id is not None)
                        position += 1
            except (pa.ArrowException, OSError) as error:
                said = str(error).splitlines()[0]
                raise InputError(f"{path} is damaged after {position} images of the data set ({said})") from None

    return Source(items, sum(file.metadata.num_rows for file in files), class_names)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """By column, what Hugging Face's writer says of it in a file's metadata, as "_type" and the "names" of classes."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in told.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):  # written by others
        return {}


def _label(row: Mapping[str, Any], label: str | None, class_names: list[str] | None) -> Any:
    """None: there is none, which Hugging Face writes as class -1."""
    value = None if label is None else row[label]
    is_none = class_names is not None and not isinstance(value, str) and value == -1
    return None if is_none else value


def _roles(
    names: Sequence[str], kinds: Mapping[str, str | None], columns: Columns, where: str
) -> tuple[str, str | None, str | None]:
    """The columns of images, labels and ids; `kinds`: what is known of a column, "Image" or "ClassLabel"."""
    image = _which(names, columns, "image") or _only(kinds, "Image", "image")
    if image is None:
        raise InputError(f"{where} has columns {', '.join(names)}: columns={{'image': ...}} must say which has images")
    return image, _which(names, columns, "label") or _only(kinds, "ClassLabel", "label"), _which(names, columns, "id")


def _only(kinds: Mapping[str, str | None], kind: str, role: str) -> str | None:
    found = [name for name, one in kinds.items() if one == kind]
    if len(found) > 1:
        raise InputError(f"dataset has {role}s in {shown(found)}: columns={{'{role}': ...}} must say which")
    return found[0] if found else None


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
    """A `datasets.Dataset` or `IterableDataset`; its one Image and its one ClassLabel column, unless `columns` says others.

    One with a transform, or that does not know its features, has the columns of its first row.
    """
    import datasets

    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise InputError(f"dataset has the splits {', '.join(map(repr, dataset))}: give one of them, dataset['test']")
    features = dataset.features or {}
    transformed = (getattr(dataset, "format", None) or {}).get("type") == "custom"
    names = list(next(iter(dataset), {"image": None})) if transformed or not features else list(features)
    kinds = {name: type(features[name]).__name__ for name in names if name in features}
    image, label, id = _roles(names, kinds, columns, "dataset")
    if kinds.get(image) == "Image" and not transformed:  # bytes are decoded when an image is wanted, and not before
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    class_names = list(features[label].names) if label is not None and kinds.get(label) == "ClassLabel" else None

    def items() -> Iterator[Item]:
        for position, row in enumerate(dataset):
            name = str(position) if id is None else str(row[id])
            load = partial(load_bytes, row[image], f"image {name} of the data set")
            yield Item(name, _label(row, label, class_names), load, id is not None)

    return Source(items, len(dataset) if hasattr(dataset, "__len__") else None, class_names)
