"""What is wrong with a denoiser that predicts badly: the error under every hypothesis, on pictures it should know.

The mean of x_start given x_t has the smallest squared error there is, so of several readings of a good model's output (or
ways to feed it) the right one has the smallest error.  Readings are compared on the same pictures, noise and rows; a
reading is reported when it at least halves the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .probe import Floats, Probe, Rows
from .report import Finding

BETTER = 0.5
"""A reading must bring the error down to this part to be reported."""

TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction", "edm")
SCALES = (0.13025, 0.18215, 0.25, 0.5, 2.0, 4.0, 1 / 0.18215, 1 / 0.13025, 127.5, 1 / 127.5)


@dataclass
class Trials:
    """Pictures under noise, the class of each, and what the denoiser said."""

    x_start: Floats
    eps: Floats
    rows: Rows
    classes: Rows
    prediction: Floats
    error: float
    """Mean error as declared, part of the target's power."""


def baseline(probe: Probe, x_start: Floats, candidates: list[Rows], rng: np.random.Generator) -> Trials | None:
    """Every picture at eight noise levels; of several candidate classes the one that explains it best."""
    rows = probe.rows_between(-3.0, 4.0, 8)
    if len(rows) == 0:
        return None
    parts = []
    for picture, classes in zip(x_start, candidates, strict=True):
        eps = rng.standard_normal((len(rows), *picture.shape))
        x = np.broadcast_to(picture, eps.shape)
        x_t = probe.noised(x, eps, rows)
        n, k = len(rows), len(classes)
        predictions = probe.ask(np.tile(x_t, (k, *(1 for _ in picture.shape))), np.tile(rows, k), np.repeat(classes, n))
        predictions = predictions.reshape(k, *x.shape)
        target = probe.target(x, eps, rows)
        errors = [np.mean(probe.error(prediction, target, rows)) for prediction in predictions]
        best = int(np.argmin(errors))
        parts.append((x, eps, rows, np.repeat(classes[best], n), predictions[best]))
    x, eps, rows, classes, prediction = (np.concatenate(part) for part in zip(*parts, strict=True))
    error = float(np.mean(probe.error(prediction, probe.target(x, eps, rows), rows)))
    return Trials(x, eps, rows, classes, prediction, error)


def best_classes(probe: Probe, x_start: Floats, candidates: list[Rows], rng: np.random.Generator) -> Rows:
    """(N,): of every picture's candidates the class with the smallest error, on a few noise levels."""
    rows = probe.rows_between(-1.0, 2.0, 2)
    found = []
    for picture, classes in zip(x_start, candidates, strict=True):
        if len(classes) == 1 or len(rows) == 0:
            found.append(classes[0])
            continue
        n, k = len(rows), len(classes)
        eps = rng.standard_normal((n, *picture.shape))
        x = np.broadcast_to(picture, eps.shape)
        x_t, target = probe.noised(x, eps, rows), probe.target(x, eps, rows)
        predictions = probe.ask(np.tile(x_t, (k, *(1 for _ in picture.shape))), np.tile(rows, k), np.repeat(classes, n))
        errors = probe.error(predictions, np.tile(target, (k, *(1 for _ in picture.shape))), np.tile(rows, k))
        found.append(classes[int(errors.reshape(k, n).mean(axis=1).argmin())])
    return np.array(found, np.int64)


def explain(probe: Probe, trials: Trials) -> Finding | None:
    """The reading that brings the error down most, where one halves it."""
    readings = [*_types(probe, trials), *_gains(probe, trials), *_times(probe, trials)]
    readings += [*_inputs(probe, trials), *_pictures(probe, trials)]
    ratio, finding = min(readings, key=lambda reading: reading[0], default=(1.0, None))
    return finding if ratio < BETTER else None


Reading = tuple[float, Finding]


def _types(probe: Probe, trials: Trials) -> list[Reading]:
    """Another prediction type, or one with its sign turned round."""
    declared, readings = probe.denoiser, []
    for name in TYPES:
        try:
            p, q = probe.schedule.target(name)
        except InputError:  # edm without sigma_data
            continue
        for sign, told in ((1.0, repr(name)), (-1.0, f"minus {name!r}")):
            if np.allclose(sign * p, declared.p, atol=0.05) and np.allclose(sign * q, declared.q, atol=0.05):
                continue
            target = sign * (probe.of(p[trials.rows]) * trials.x_start + probe.of(q[trials.rows]) * trials.eps)
            ratio = float(np.mean(probe.error(trials.prediction, target, trials.rows))) / trials.error
            wanted = repr(name) if sign > 0 else "(p, q) = " + {
                "epsilon": "(0, -1)", "sample": "(-1, 0)", "flow_prediction": "(1, -1)"
            }.get(name, f"the negatives of Schedule.target({name!r})")  # fmt: skip
            finding = Finding(
                "prediction_type",
                f"read as {told} the prediction's error is {ratio:.2g} of what it is as {declared.prediction_type!r}",
                f"Set prediction_type={wanted}.",
            )
            readings.append((ratio, finding))
    return readings


def _gains(probe: Probe, trials: Trials) -> list[Reading]:
    """A constant factor on the output."""
    target = probe.target(trials.x_start, trials.eps, trials.rows)
    power = float(np.sum(trials.prediction**2))
    gain = float(np.sum(trials.prediction * target)) / power if power > 0.0 else 0.0
    if 0.8 < gain < 1.25 or gain <= 0.0:
        return []
    ratio = float(np.mean(probe.error(gain * trials.prediction, target, trials.rows))) / trials.error
    finding = Finding(
        "scaling",
        f"multiplied by {gain:.3g} the prediction's error is {ratio:.2g} of what it is",
        "The output is scaled: undo a scaling factor in predict.",
    )
    return [(ratio, finding)]


def _times(probe: Probe, trials: Trials) -> list[Reading]:
    """The time of another row of the schedule, for every noise level the one that suits it best."""
    rows = np.unique(trials.rows)
    use = np.flatnonzero(np.isin(trials.rows, rows))[: 4 * len(rows)]
    x, eps, here, classes = trials.x_start[use], trials.eps[use], trials.rows[use], trials.classes[use]
    x_t, target = probe.noised(x, eps, here), probe.target(x, eps, here)
    fed = np.unique([0, *rows, *(len(probe.schedule) - 1 - rows), len(probe.schedule) - 1])
    table = np.empty((len(rows), len(fed)))
    for j, row in enumerate(fed):
        prediction = probe.ask(x_t, np.full(len(use), row), classes)
        errors = probe.error(prediction, target, here)
        table[:, j] = [errors[here == level].mean() for level in rows]
    own = table[np.arange(len(rows)), np.searchsorted(fed, rows)]
    best = table.argmin(axis=1)
    ratio = float(table.min(axis=1).mean() / own.mean())
    told = ", ".join(f"{rows[i]} like {fed[best[i]]}" for i in range(0, len(rows), max(1, len(rows) // 3)))
    turned = len(rows) > 2 and np.corrcoef(rows, fed[best])[0, 1] < -0.5 if np.ptp(fed[best]) > 0 else False
    finding = Finding(
        "time_convention",
        f"fed the times of other rows of the schedule the error is {ratio:.2g} of what it is (row {told})",
        "The model's time runs the other way: reverse it in predict."
        if turned
        else "Check what time the model is fed: its unit (0 to 1, 0 to n), its direction, a logarithm.",
    )
    return [(ratio, finding)]


def _inputs(probe: Probe, trials: Trials) -> list[Reading]:
    """x_t scaled otherwise: x_start + s eps, or unit variance."""
    a, s = probe.schedule.alpha[trials.rows], probe.schedule.sigma[trials.rows]
    target = probe.target(trials.x_start, trials.eps, trials.rows)
    x_t = probe.noised(trials.x_start, trials.eps, trials.rows)
    readings = []
    for factor, told in (
        (1.0 / a, "x_start + (sigma / alpha) eps"),
        (1.0 / np.sqrt(a * a + s * s), "x_t divided by sqrt(alpha^2 + sigma^2)"),
        (1.0 / (a + s), "x_t divided by alpha + sigma"),
    ):
        if np.allclose(factor, 1.0, atol=0.05):
            continue
        prediction = probe.ask(probe.of(factor) * x_t, trials.rows, trials.classes)
        ratio = float(np.mean(probe.error(prediction, target, trials.rows))) / trials.error
        finding = Finding(
            "scaling",
            f"fed {told} the prediction's error is {ratio:.2g} of what it is",
            "The model expects that input: scale x_t in predict, or give the schedule that makes it.",
        )
        readings.append((ratio, finding))
    return readings


def _pictures(probe: Probe, trials: Trials) -> list[Reading]:
    """x_start in another unit, with the noise scaled alike: the same noisy picture, so errors compare as they are."""
    level = probe.schedule.sigma / np.where(probe.schedule.alpha > 0.0, probe.schedule.alpha, np.nan)
    here = level[trials.rows]
    readings = []
    changes = [(scale, 0.0, f"multiplied by {scale:.4g}") for scale in SCALES]
    changes += [(2.0, -1.0, "turned from [0, 1] to [-1, 1]"), (0.5, 0.5, "turned from [-1, 1] to [0, 1]")]
    changes += [(1 / 127.5, -1.0, "turned from [0, 255] to [-1, 1]"), (1 / 255, 0.0, "divided by 255")]
    order = np.arange(len(level))[np.isfinite(level)]
    for scale, shift, told in changes:
        wanted = scale * here
        place = np.clip(np.searchsorted(level[order], wanted), 0, len(order) - 1)
        rows = order[place]
        use = np.abs(np.log(level[rows] / wanted)) < 0.2
        if np.mean(use) < 0.4:
            continue
        rows, x = rows[use], scale * trials.x_start[use] + shift
        # the same noisy picture: what noise is left to fit the row is less than the rows' spacing
        prediction = probe.ask(probe.noised(x, trials.eps[use], rows), rows, trials.classes[use])
        changed = probe.picture_error(prediction, probe.target(x, trials.eps[use], rows), rows)
        target = probe.target(trials.x_start, trials.eps, trials.rows)
        own = probe.picture_error(trials.prediction, target, trials.rows)[use]
        ratio = float(np.exp(np.mean(np.log(changed) - np.log(own))))
        finding = Finding(
            "scaling",
            f"with x_start {told} the error, as part of the noise, is {ratio:.2g} of what it is",
            "x_start is in another unit than the model's: scale it in encode (a latent's scaling factor, [-1, 1] for pixels).",
        )
        readings.append((ratio, finding))
    return readings
