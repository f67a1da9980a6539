"""What can be checked without a picture: shapes, dtypes, numbers, repeatability, rows, conditions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ops import _to_numpy
from .probe import Floats, Probe, Rows, rms
from .report import Finding

SAME = 1e-3  # of the predictions' root mean square: above half precision's and a device's reordering of sums


def output(probe: Probe, x_start: Floats, classes: Rows, rng: np.random.Generator) -> Finding | None:
    """Shape, dtype and finiteness at both ends of the schedule and in the middle, for every class."""
    n = len(probe.schedule)
    ends = np.unique([0, n // 2, n - 1])
    rows = np.repeat(ends, len(classes))
    conds = np.tile(classes, len(ends))
    x = x_start[np.arange(len(rows)) % len(x_start)]
    x_t = probe.noised(x, rng.standard_normal(x.shape), rows).astype(np.float32)
    try:
        answer = probe.raw(x_t, rows, conds)
        prediction = _to_numpy(answer, "prediction")
    except Exception as error:  # whatever the user's code raises is the finding
        return Finding(
            "raises",
            f"predict raised {type(error).__name__}: {error}",
            f"It is given x_t {x_t.shape} float32, t and cond ({len(rows)},): rows may mix pictures, classes and times.",
        )
    if prediction.shape != x_t.shape:
        return _wrong_shape(prediction.shape, x_t.shape)
    if prediction.dtype.kind != "f":
        return Finding(
            "output_dtype",
            f"the prediction is of dtype {prediction.dtype}",
            "Return real floating-point numbers; float32 costs no conversion.",
        )
    bad = ~np.isfinite(prediction.reshape(len(rows), -1)).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        return Finding(
            "non_finite",
            f"NaN or infinity in {int(bad.sum())} of {len(rows)} rows, first at row {rows[first]} of {n} of the schedule, "
            f"class {conds[first]}",
            "Look for a division by sigma or alpha, which vanish at the ends, and for overflow in half precision.",
        )
    return None


def _wrong_shape(got: tuple[int, ...], wanted: tuple[int, ...]) -> Finding:
    advice = "Return one prediction a row, shaped like x_t."
    if len(got) == len(wanted) > 1 and got[1] == 2 * wanted[1] and got[2:] == wanted[2:]:
        advice = "Twice the channels: a model with learned variance; return the first half only."
    return Finding("output_shape", f"the prediction has shape {got} for x_t of shape {wanted}", advice)


def deterministic(probe: Probe, x_t: Floats, rows: Rows, classes: Rows) -> Finding | None:
    first, second = (probe.ask(x_t, rows, classes) for _ in range(2))
    change = rms(first - second) / max(rms(first), 1e-30)
    if change <= SAME:
        return None
    return Finding(
        "not_deterministic",
        f"asked the same twice, the predictions differ by {change:.1%} of their size",
        "Switch off dropout and sampling (model.eval()), and draw no noise inside predict.",
    )


def rows_apart(probe: Probe, x_t: Floats, rows: Rows, classes: Rows) -> Finding | None:
    """Every row alone, and all in another order, against all together."""
    together = probe.ask(x_t, rows, classes)
    scale = max(rms(together), 1e-30)
    turned = probe.ask(x_t[::-1], rows[::-1], classes[::-1])[::-1]
    try:
        alone = np.concatenate(
            [probe.ask(x_t[i : i + 1], rows[i : i + 1], classes[i : i + 1]) for i in range(len(rows))]
        )
    except Exception as error:
        return Finding(
            "rows_influence",
            f"a batch of one row raised {type(error).__name__}: {error}",
            "Batches have any number of rows, one included.",
        )
    change = max(rms(together - turned), rms(together - alone)) / scale
    if change <= SAME:
        return None
    return Finding(
        "rows_influence",
        f"a row's prediction changes by {change:.1%} of its size with the rows beside it",
        "Use each row's own t and cond (not t[0]), and nothing computed over the batch (BatchNorm in training mode).",
    )


def conditions(probe: Probe, x_t: Floats, rows: Rows, classes: Rows) -> Finding | None:
    """One x_t under every class."""
    n, k = len(rows), len(classes)
    predictions = probe.ask(np.repeat(x_t, k, axis=0), np.repeat(rows, k), np.tile(classes, n))
    table = predictions.reshape(n, k, -1)
    scale = max(rms(table), 1e-30)
    alike = [
        (int(classes[i]), int(classes[j]))
        for i in range(k)
        for j in range(i)
        if np.abs(table[:, i] - table[:, j]).max() <= 1e-6 * scale
    ]
    if not alike:
        return None
    if len(alike) == k * (k - 1) // 2:
        return Finding(
            "condition_ignored",
            f"the prediction is the same for all of {k} classes",
            "Pass cond on to the model; look for a null label, a dropped keyword, or label dropout that is always on.",
        )
    pairs = ", ".join(f"{j} and {i}" for i, j in alike[:3])
    return Finding(
        "same_condition",
        f"the prediction is the same for the classes {pairs}{' and more' if len(alike) > 3 else ''}",
        "Give these classes different conditions: they can only tie.",
    )


def time_used(probe: Probe, x_t: Floats, classes: Rows) -> Finding | None:
    """One x_t with the times of five rows."""
    rows = np.unique(np.linspace(0, len(probe.schedule) - 1, 5).astype(np.int64))
    if len(rows) < 2:
        return None
    shape = (len(rows), *x_t.shape[1:])
    predictions = probe.ask(np.broadcast_to(x_t[:1], shape), rows, np.repeat(classes[:1], len(rows)))
    if np.abs(predictions - predictions[0]).max() > 1e-6 * max(rms(predictions), 1e-30):
        return None
    return Finding(
        "time_ignored",
        "the prediction is the same whatever t is fed",
        "Pass t on to the model; a model that needs no time is fine without.",
    )


def mixed_rows(probe: Probe, x_start: Floats, classes: Rows, rng: np.random.Generator) -> tuple[Floats, Rows, Rows]:
    """(x_t, rows, classes) of eight rows that have different pictures, times and classes."""
    rows = probe.rows_between(-3.0, 4.0, 8)
    rows = rows if len(rows) else np.zeros(1, np.int64)
    rows = rows[np.arange(8) % len(rows)]
    x = x_start[np.arange(8) % len(x_start)]
    x_t: NDArray[np.float64] = probe.noised(x, rng.standard_normal(x.shape), rows)
    return x_t, rows, classes[np.arange(8) % len(classes)]
