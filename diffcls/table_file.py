"""Error tables on disk: an Arrow file of one record batch, so that the errors of all images are one block of memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .core_types import Trials
from .durable import PathLike, replacing
from .errors import DiffclsError, InputError
from .packages import package
from .profile import Profile
from .schedule import Schedule
from .stored import as_json
from .tables import ErrorTable

VERSION = 1
KEY = b"diffcls.error_table"
"""Of the schema's metadata: json with everything but errors and labels, and `version`."""


def _pyarrow() -> Any:
    return package("pyarrow", "an error table's file needs pyarrow", "results")


# ---- writing ---------------------------------------------------------------------------------------------------------


def save(table: ErrorTable, path: PathLike) -> None:
    """See `ErrorTable.save`."""
    with replacing(path) as temporary:
        _write(table, temporary)


@contextmanager
def filling(table: ErrorTable, path: PathLike) -> Iterator[NDArray[np.float64]]:
    """Lends the errors (N, K, S) of a new file, memory-mapped and writable; the file gets its name when all went well.

    `table` says everything but the errors, which are not looked at.
    """
    with replacing(path) as temporary:
        shape = table.errors.shape
        _write(
            replace(table, errors=np.zeros(shape)), temporary
        )  # memory that is only read stays the system's one zero page
        if not shape[0]:
            yield np.zeros(shape)
            return
        errors = np.memmap(temporary, np.float64, mode="r+", offset=_errors_offset(temporary), shape=shape)
        yield errors
        errors.flush()


def _write(table: ErrorTable, path: Path) -> None:
    pa = _pyarrow()
    n, k, s = table.errors.shape
    if k * s >= 2**31:
        raise InputError(f"an image's {k} x {s} errors are too many for one row of an Arrow file, at most 2**31 - 1")
    values = pa.Array.from_buffers(pa.float64(), n * k * s, [None, pa.py_buffer(np.ascontiguousarray(table.errors))])
    storage = pa.FixedSizeListArray.from_arrays(values, k * s)
    kind = pa.fixed_shape_tensor(pa.float64(), (k, s), dim_names=["class", "trial"])
    label = pa.nulls(n, pa.int64()) if table.labels is None else pa.array(table.labels, pa.int64())
    content = json.dumps(as_json({"version": VERSION, **_describe(table)}))
    schema = pa.schema([("errors", kind), ("label", pa.int64())], metadata={KEY: content})
    batch = pa.record_batch([pa.ExtensionArray.from_storage(kind, storage), label], schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def _describe(table: ErrorTable) -> dict[str, Any]:
    schedule = table.schedule
    return {
        "classes": table.classes,
        "trials": {name: cast("NDArray[Any]", column).tolist() for name, column in table.trials.items()},
        "schedule": {
            **schedule.to_dict(),
            "discrete": schedule.is_discrete,
            "sigma_data": schedule.sigma_data,
        },
        "weighting": None if table.weighting is None else table.weighting.tolist(),
        "cost": table.cost.tolist(),
        "log_prior": table.log_prior.tolist(),
        "temperature": table.temperature,
        "antithetic": table.antithetic,
        "n_noise": table.n_noise,
        "listed": table.listed,
        "run": table.run,
        "profile": None if table.profile is None else table.profile.to_dict(),
    }


# ---- reading ---------------------------------------------------------------------------------------------------------


def load(path: PathLike) -> ErrorTable:
    """See `ErrorTable.load`."""
    name, content, batch, _ = _open(path)
    try:
        shape = (batch.num_rows, len(content["classes"]), len(content["trials"]["timestep"]))
        values, label = batch.column("errors").storage.values, batch.column("label")
        if len(values) != np.prod(shape) or values.null_count:
            raise InputError(f"it has {len(values)} errors, must have {' x '.join(map(str, shape))} and no null")
        return _build(content, values.to_numpy(zero_copy_only=True).reshape(shape), label)
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        why = str(error) if isinstance(error, DiffclsError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{name} is a damaged error table ({why})") from None


def _build(content: dict[str, Any], errors: NDArray[np.float64], label: Any) -> ErrorTable:
    trials, schedule = content["trials"], content["schedule"]
    columns: Trials = {
        "timestep": np.array(trials["timestep"], np.uint32),
        "noise_index": np.array(trials["noise_index"], np.uint32),
        "eps_sign": np.array(trials["eps_sign"], np.float32),
        "weight": np.array(trials["weight"], np.float64),
    }
    weighting, profile = content["weighting"], content.get("profile")  # older files have no profile
    return ErrorTable(
        errors=errors,
        trials=columns,
        classes=[str(name) for name in content["classes"]],
        run=dict(content["run"]),
        schedule=Schedule(
            schedule["alpha"],
            schedule["sigma"],
            schedule["time"],
            discrete=schedule["discrete"],
            sigma_data=schedule["sigma_data"],
        ),
        weighting=None if weighting is None else np.array(weighting, np.float64),
        cost=np.array(content["cost"], np.int64),
        log_prior=np.array(content["log_prior"], np.float64),
        temperature=float(content["temperature"]),
        antithetic=bool(content["antithetic"]),
        n_noise=content["n_noise"],
        listed=bool(content["listed"]),
        labels=None if label.null_count == len(label) else label.to_numpy(zero_copy_only=True),
        profile=None if profile is None else Profile.from_dict(profile),
    )


def _errors_offset(path: Path) -> int:
    """Where the errors lie in the file, in bytes."""
    _, _, batch, source = _open(path)
    source.seek(0)
    return int(batch.column("errors").storage.values.buffers()[1].address - source.read_buffer(1).address)


def _open(path: PathLike) -> tuple[str, dict[str, Any], Any, Any]:
    """(path as text, metadata, record batch, the file)."""
    pa, name = _pyarrow(), os.fspath(path)
    with open(name, "rb") as file:  # a missing file, a folder: the system's own words
        head = file.read(6)
    if head != b"ARROW1":
        raise InputError(f"{name} is not an error table: it is no Arrow file")
    try:
        source = pa.memory_map(str(name), "r")
        reader = pa.ipc.open_file(source)
        content = _metadata(reader.schema.metadata or {}, str(name))
        if reader.num_record_batches != 1:
            raise InputError(f"{name} has {reader.num_record_batches} record batches, an error table has one")
        batch = reader.get_batch(0)
        batch.validate()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} is cut short or damaged ({str(error).splitlines()[0]})") from None
    return str(name), content, batch, source


def _metadata(metadata: dict[bytes, bytes], name: str) -> dict[str, Any]:
    if KEY not in metadata:
        raise InputError(f"{name} is an Arrow file, but not an error table")
    try:
        content = json.loads(metadata[KEY])
        version = int(content["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{name} is a damaged error table ({type(error).__name__}: {error})") from None
    if version > VERSION:
        raise InputError(
            f"{name} is an error table of version {version}, this diffcls reads version {VERSION}: a newer diffcls is needed"
        )
    return dict(content)
