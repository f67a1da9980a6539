"""One image's row: as a line of a journal, and as a row of Parquet."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..fingerprint import check_same
from ..packages import package
from ..result import Result

PER_CLASS = ("losses", "stderr", "excess", "probabilities", "n_trials", "alive")
KEY = b"diffcls.evaluation"
"""Of a file's metadata: json with the version, the classes and the fingerprint."""
VERSION = 1


class Row(NamedTuple):
    """What is kept of one image.  Classes are positions; an image that could not be judged has an error and nothing else.

    `full_prediction` is the full pool's answer, where the image was audited.
    """

    position: int
    id: str
    label: int | None
    prediction: int | None = None
    losses: list[float] | None = None
    stderr: list[float] | None = None
    excess: list[float] | None = None
    probabilities: list[float] | None = None
    n_trials: list[int] | None = None
    alive: list[bool] | None = None
    n_evals: int = 0
    status: str | None = None
    p_disagree: float | None = None
    unlike_training: bool | None = None
    warnings: list[str] | None = None
    full_prediction: int | None = None
    error: str | None = None


def row_of(position: int, id: str, label: int | None, result: Result, full_prediction: int | None) -> Row:
    return Row(
        position,
        id,
        label,
        result.index,
        result.losses.tolist(),
        result.stderr.tolist(),
        result.excess.tolist(),
        result.probabilities.tolist(),
        result.n_trials.tolist(),
        result.alive.tolist(),
        result.n_evals,
        result.status,
        result.p_disagree,
        result.unlike_training,
        list(result.warnings),
        full_prediction,
    )


def storable(text: str) -> str:
    """As UTF-8 can hold it: a name of a file need not be."""
    return text.encode("utf-8", "backslashreplace").decode()


# ---- lines of a journal ----------------------------------------------------------------------------------------------


def to_line(row: Row, key: int) -> bytes:
    """Eight digits of CRC-32, a blank, json, a line's end; floats as their shortest exact text.

    `key` starts the CRC: a line of another journal, which a file system may show after a cut of power, is a damaged one.
    """
    text = json.dumps(row, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text, key), text)


def from_line(line: bytes, key: int) -> Row | None:
    """None: the line is damaged or cut short."""
    text = line[9:-1]
    if line[-1:] != b"\n" or line[:9] != b"%08x " % zlib.crc32(text, key):
        return None
    return Row(*json.loads(text))


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def pyarrow() -> Any:
    """With its submodule for Parquet."""
    need = "results are Parquet files, which need pyarrow"
    package("pyarrow.parquet", need, "results")
    return package("pyarrow", need, "results")


def schema(classes: Sequence[str], fingerprint: dict[str, str]) -> Any:
    """Columns are those of `Row`; label and predictions hold the classes' names."""
    pa, k = pyarrow(), len(classes)
    name = pa.dictionary(pa.int32(), pa.string())
    kinds = {
        "position": pa.int64(),
        "id": pa.string(),
        "label": name,
        "prediction": name,
        **{column: pa.list_(pa.float64(), k) for column in PER_CLASS[:4]},
        "n_trials": pa.list_(pa.int32(), k),
        "alive": pa.list_(pa.bool_(), k),
        "n_evals": pa.int64(),
        "status": pa.string(),
        "p_disagree": pa.float64(),
        "unlike_training": pa.bool_(),
        "warnings": pa.list_(pa.string()),
        "full_prediction": name,
        "error": pa.string(),
    }
    content = {"version": VERSION, "classes": list(classes), "fingerprint": fingerprint}
    return pa.schema(list(kinds.items()), metadata={KEY: json.dumps(content)})


def check_own(kinds: Any, mine: Any, name: str) -> None:
    """`kinds`: the schema of a file; `mine`: that of the run.

    Raises
    ------
    FingerprintMismatchError
        The file is of another run, as one that was copied can be; the message says what differs.
    """
    if (kinds.metadata or {}).get(KEY) != mine.metadata[KEY]:
        contents = [json.loads((one.metadata or {}).get(KEY, b"{}")) for one in (kinds, mine)]
        prints = [{"version": str(one.get("version")), **one.get("fingerprint", {})} for one in contents]
        check_same(prints[0], prints[1], f"{name} is of another run than this folder")


def to_table(rows: Sequence[Row], kinds: Any, classes: Sequence[str]) -> Any:
    pa = pyarrow()
    names, columns = pa.array(classes, pa.string()), []
    for field, values in zip(kinds, zip(*rows, strict=True), strict=True):
        if pa.types.is_dictionary(field.type):
            columns.append(pa.DictionaryArray.from_arrays(pa.array(values, pa.int32()), names))
        elif pa.types.is_fixed_size_list(field.type):
            columns.append(_lists(values, field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=kinds)


def _lists(values: Sequence[Any], kind: Any) -> Any:
    """Through NumPy where no list is missing: ten times as fast."""
    pa = pyarrow()
    if any(value is None for value in values):
        return pa.array(values, kind)
    flat = np.array(values, kind.value_type.to_pandas_dtype()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), kind.list_size)


def from_table(table: Any, classes: Sequence[str]) -> list[Row]:
    at = {name: i for i, name in enumerate(classes)}
    columns = []
    for name in Row._fields:
        values = table.column(name).to_pylist()
        if name in ("label", "prediction", "full_prediction"):
            values = [None if value is None else at[value] for value in values]
        columns.append(values)
    return [Row(*values) for values in zip(*columns, strict=True)]


def to_bytes(table: Any) -> Any:
    """A Parquet file of one row group, in memory."""
    pa = pyarrow()
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink, row_group_size=max(1, len(table)), **OPTIONS)
    return sink.getvalue()


OPTIONS: dict[str, Any] = {"compression": "zstd", "write_statistics": False}
"""Of every Parquet file here: the same rows are the same bytes."""

ALONE: dict[str, Any] = {"use_threads": False}
"""Of every reading here: files are small, and Arrow's threads, if still there when a process ends at once, can abort it."""
