"""What is wrong with a denoiser that predicts badly: the error under every hypothesis, on pictures it should know.

The mean of x_start given x_t has the smallest squared error there is, so of several readings of a good model's output (or
ways to feed it) the right one has the smallest error.  Readings are compared on the same pictures, noise and rows; a
reading is reported when it brings the error down by a quarter or more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .probe import Floats, Probe, Rows
from .report import Finding

BETTER = 0.75
"""A reading must bring the error down to this part to be reported: a perfect denoiser has none below 1."""

CLEARLY = 0.5
"""The same where one of many is chosen."""

WORSE = 1.1
"""A conditional mean is never worse than zero, 1 on average."""

TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction", "edm")
HUGE = 30.0
"""No model is trained on numbers like that: pixels from 0 to 255."""
MIDDLING = 2.5
"""Of ln SNR, either way."""
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
    every: list[NDArray[np.float32]]
    """Of each picture the predictions of all candidate classes, (k, rows, *shape): another reading may find another class."""


def baseline(probe: Probe, x_start: Floats, candidates: list[Rows], rng: np.random.Generator) -> Trials | None:
    """Every picture at eight noise levels; of several candidate classes the one that explains it best."""
    rows = probe.rows_between(-3.0, 4.0, 8)
    if len(rows) == 0:
        return None
    parts, every = [], []
    for picture, classes in zip(x_start, candidates, strict=True):
        eps = rng.standard_normal((len(rows), *picture.shape))
        x = np.broadcast_to(picture, eps.shape)
        x_t = probe.noised(x, eps, rows)
        n, k = len(rows), len(classes)
        predictions = probe.ask(np.tile(x_t, (k, *(1 for _ in picture.shape))), np.tile(rows, k), np.repeat(classes, n))
        predictions = predictions.reshape(k, *x.shape)
        every.append(predictions.astype(np.float32))
        target = probe.target(x, eps, rows)
        errors = [np.mean(probe.error(prediction, target, rows)) for prediction in predictions]
        best = int(np.argmin(errors))
        parts.append((x, eps, rows, np.repeat(classes[best], n), predictions[best]))
    x, eps, rows, classes, prediction = (np.concatenate(part) for part in zip(*parts, strict=True))
    error = float(np.mean(probe.error(prediction, probe.target(x, eps, rows), rows)))
    return Trials(x, eps, rows, classes, prediction, error, every)


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
    readings = _pictures(probe, trials)
    if np.abs(trials.x_start).max() < HUGE or not readings:  # else nothing but the unit need be looked at
        readings += [*_types(probe, trials), *_gains(probe, trials), *_times(probe, trials), *_inputs(probe, trials)]
    ratio, finding = min(readings, key=lambda reading: reading[0], default=(1.0, None))
    if ratio < BETTER:
        return finding
    if trials.error > WORSE:
        return Finding(
            "large_error",
            f"the error is {trials.error:.2g} of the target's power, worse than predicting zero, and no other reading explains it",
            "Check the unit of the time that the model is fed, the conditions, and whether x_start is of the model's kind.",
        )
    return None


Reading = tuple[float, Finding]


def _types(probe: Probe, trials: Trials) -> list[Reading]:
    """Another prediction type, or one with its sign turned round.

    Errors of different targets are compared by the mistake u about x_t that they stand for (`Schedule.error_factor`), on
    middling noise, where none of the targets says nothing.
    """
    declared, readings = probe.denoiser, []
    if not (np.abs(probe.log_snr()[trials.rows]) <= MIDDLING).any():
        return []
    own, _ = _mistake(probe, trials, declared.p, declared.q)
    for name in TYPES:
        try:
            p, q = probe.schedule.target(name)
        except InputError:  # edm without sigma_data
            continue
        for sign, told in ((1.0, repr(name)), (-1.0, f"minus {name!r}")):
            if np.allclose(sign * p, declared.p, atol=0.05) and np.allclose(sign * q, declared.q, atol=0.05):
                continue
            mistake, error = _mistake(probe, trials, sign * p, sign * q)
            if error > 1.0:  # no better than zero: not that either
                continue
            ratio = mistake / own
            wanted = repr(name) if sign > 0 else f"the pair of negatives of Schedule.target({name!r})"
            finding = Finding(
                "prediction_type",
                f"read as {told} the prediction's error is {ratio:.2g} of what it is as {declared.prediction_type!r}",
                f"Set prediction_type={wanted}.",
            )
            readings.append((ratio, finding))
    return readings


def _mistake(probe: Probe, trials: Trials, p: Floats, q: Floats, gain: float = 1.0) -> tuple[float, float]:
    """(mean mistake on middling noise, mean error) under the reading (p, q), each picture as the class that explains it best."""
    n = len(trials.rows) // len(trials.every)
    mistakes, errors = [], []
    for i, predictions in enumerate(trials.every):
        part = slice(i * n, (i + 1) * n)
        rows = trials.rows[part]
        use = np.abs(probe.log_snr()[rows]) <= MIDDLING
        target = probe.of(p[rows]) * trials.x_start[part] + probe.of(q[rows]) * trials.eps[part]
        each = [gain * prediction.astype(np.float64) for prediction in predictions]
        found = [float(np.mean(probe.mistake(one[use], target[use], p, q, rows[use]))) for one in each]
        best = int(np.argmin(found))
        mistakes.append(found[best])
        errors.append(float(np.mean(probe.error(each[best], target, rows))))
    return float(np.mean(mistakes)), float(np.mean(errors))


def _gains(probe: Probe, trials: Trials) -> list[Reading]:
    """A constant factor on the output: the same at every noise level."""
    target = probe.target(trials.x_start, trials.eps, trials.rows)
    axes = tuple(range(1, target.ndim))
    product, power = (np.sum(trials.prediction * other, axis=axes) for other in (target, trials.prediction))
    levels = [trials.rows == row for row in np.unique(trials.rows)]
    gains = np.array([product[here].sum() / max(power[here].sum(), 1e-30) for here in levels])
    gain = float(np.median(gains))
    if 0.8 < gain < 1.25 or gain <= 0.0 or np.median(np.abs(gains / gain - 1.0)) > 0.2:
        return []
    declared = probe.denoiser
    ratio = (
        _mistake(probe, trials, declared.p, declared.q, gain)[0] / _mistake(probe, trials, declared.p, declared.q)[0]
    )
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
    return [(ratio, finding)] if ratio < CLEARLY else []


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
        ratio = _ratio(probe, trials, prediction, target)
        finding = Finding(
            "scaling",
            f"fed {told} the prediction's error is {ratio:.2g} of what it is",
            "The model expects that input: scale x_t in predict, or give the schedule that makes it.",
        )
        if ratio < CLEARLY:
            readings.append((ratio, finding))
    return readings


def _ratio(probe: Probe, trials: Trials, prediction: Floats, target: Floats) -> float:
    """Mean mistake of other predictions of the same trials, as part of what it is; on middling noise."""
    p, q = probe.denoiser.p, probe.denoiser.q
    use = np.abs(probe.log_snr()[trials.rows]) <= MIDDLING
    if not use.any():
        return 1.0
    changed, own = (probe.mistake(f[use], target[use], p, q, trials.rows[use]) for f in (prediction, trials.prediction))
    return float(changed.mean() / own.mean())


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
        if np.mean(use) < 0.25:
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
        if ratio < CLEARLY:
            readings.append((ratio, finding))
    return readings
