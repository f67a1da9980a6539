"""Is the model's time one row off?  Where the error is smallest as the fed time is moved.

At a fixed x_t the error of a good denoiser, as a function of the noise level that its time stands for, has its minimum at
the true level.  Three fed times, the row's own and one on either side, give a parabola and so a minimum, in rows.
A trained model's minimum is off by a few hundredths in ln SNR of its own accord, which is less than a row at the clean
end of most schedules and many rows in the middle; so levels are combined with that much doubt added.  Where the doubt is
too large to tell one row, an offset counts only if all levels agree on it to their statistical error.
"""

from __future__ import annotations

import numpy as np

from .probe import Floats, Probe, Rows
from .report import Finding

DOUBT = 0.05
"""Of a trained model's own minimum, in ln SNR."""
ELEMENTS = 100_000
"""Looked at on a level, where there are fewer with several noises a picture."""
PICTURES = 8
FLOOR = 0.1
"""Of a level's standard error, in rows: three points are a parabola only nearly."""
CLEAR = 0.2
"""Standard error, in rows, from which on one row can be told."""
STEP = 0.1
"""Change of ln SNR between the three fed times, where a row changes it by less."""


def time_offset(
    probe: Probe, x_start: Floats, classes: Rows, rng: np.random.Generator
) -> tuple[Finding | None, str | None]:
    """(finding or None, why it could not be told or None)."""
    levels = _levels(probe)
    if len(levels) == 0:
        return None, "the schedule has no three rows with noise and picture"
    if len(x_start) < PICTURES:
        return None, f"it needs {PICTURES} pictures or more"
    found = [_minima(probe, row, step, x_start, classes, rng) for row, step in levels]
    kept = [(minima, doubt) for minima, doubt in found if minima is not None]
    if not kept:
        return None, "the error does not depend on the time that is fed"
    minima, doubt = np.stack([minima for minima, _ in kept]), np.array([doubt for _, doubt in kept])
    error = _jackknife(minima)
    offset, spread, _ = _combine(minima, error, doubt)
    if spread > CLEAR:  # a trained model's own bias would drown one row: statistics alone, if all levels agree
        offset, spread, misfit = _combine(minima, error, np.zeros_like(doubt))
        if spread > CLEAR or (abs(offset) > 0.5 and misfit > 2.0 * len(minima) + 8.0):
            return (
                None,
                f"one row can not be told on these pictures (standard error {spread:.2g} rows); more would help",
            )
    if abs(offset) < 0.5 or abs(offset) < 4.0 * spread:
        return None, None
    more, n = ("more", "add") if offset > 0 else ("less", "subtract"), max(1, round(abs(offset)))
    return Finding(
        "time_offset",
        f"the error is smallest when the time of {abs(offset):.2f} (+- {spread:.2f}) rows {more[0]} noise is fed",
        f"The model's time is {n} row{'s' if n > 1 else ''} off: {more[1]} {n} in predict, or in the schedule's time.",
    ), None


def _combine(minima: Floats, error: Floats, doubt: Floats) -> tuple[float, float, float]:
    """(offset, its standard error, chi square of the levels around the nearest whole row); minima (levels, pictures + 1)."""
    weight = 1.0 / (error**2 + doubt**2)
    combined = weight @ minima / weight.sum()
    bias = float(weight @ doubt / weight.sum())  # the doubts may all have one sign
    offset = float(combined[0])
    misfit = float(np.sum((minima[:, 0] - np.rint(offset)) ** 2 / (error**2 + CLEAR**2)))
    return offset, float(np.hypot(_jackknife(combined[None])[0], bias)), misfit


def _jackknife(values: Floats) -> Floats:
    """Standard errors (n,) of values (n, pictures + 1): of all pictures first, then without each.

    Pictures count, not noises: averaged over pictures a good denoiser's error is smallest at the true time, on one picture it
    need not be.
    """
    without = values[:, 1:]
    n = without.shape[1]
    spread = np.sum((without - without.mean(axis=1, keepdims=True)) ** 2, axis=1)
    return np.asarray(np.maximum(np.sqrt((n - 1) / n * spread), FLOOR))


def _levels(probe: Probe) -> list[tuple[int, int]]:
    """(row, step to the other two), from the clean end to the noisy one."""
    level, n = probe.log_snr(), len(probe.schedule)
    usable = np.flatnonzero(np.isfinite(level))
    if len(usable) < 3:
        return []
    low, high = int(usable[0]), int(usable[-1])
    rows = {low + 1, low + 2, low + 4, low + 8, low + (high - low) // 8, low + (high - low) // 4}
    rows |= {low + (high - low) // 2, low + 3 * (high - low) // 4}
    found = []
    for row in sorted(row for row in rows if low < row < high):
        slope = abs(level[row + 1] - level[row - 1]) / 2.0
        step = max(1, min(round(STEP / slope), row - low, high - row, n // 4))
        found.append((row, step))
    return found


def _minima(
    probe: Probe, row: int, step: int, x_start: Floats, classes: Rows, rng: np.random.Generator
) -> tuple[Floats | None, float]:
    """(rows from `row` to the minimum, of all pictures and without each, or None where there is none; its doubt in rows)."""
    n = len(x_start)
    repeats = int(np.clip(ELEMENTS // x_start.size, 1, max(1, 4096 // n)))
    x, conds = np.repeat(x_start, repeats, axis=0), np.repeat(classes, repeats)
    eps = rng.standard_normal(x.shape)
    here = np.full(len(x), row)
    x_t, target = probe.noised(x, eps, here), probe.target(x, eps, here)
    fed = [row - step, row, row + step]
    axes = tuple(range(1, x.ndim))
    errors = np.stack([np.mean((probe.ask(x_t, np.full(len(x), r), conds) - target) ** 2, axis=axes) for r in fed])
    errors = errors.reshape(3, n, repeats).mean(axis=2)
    level = -probe.log_snr()[fed]
    below, above = level[0] - level[1], level[2] - level[1]
    # e(z) = e0 + b z + c z^2 through the three points, z = ln SNR below the row's own; the minimum is at -b / 2c
    down, up = errors[0] - errors[1], errors[2] - errors[1]
    scale = below * above * (below - above)
    b = (up * below**2 - down * above**2) / scale
    c = (down * above - up * below) / scale
    slope = (above - below) / (2.0 * step)
    if not float(c.mean()) > 3.0 * float(c.std(ddof=1)) / np.sqrt(n):
        return None, np.nan
    sums_b = np.concatenate([[b.sum()], b.sum() - b])
    sums_c = np.concatenate([[c.sum()], c.sum() - c])
    return -sums_b / (2.0 * sums_c) / slope, DOUBT / slope
