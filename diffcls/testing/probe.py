"""Asks a denoiser for predictions, row by row as the loop would, and measures its errors on one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..denoiser import Denoiser
from ..framework_calls import numpy_call
from ..ops import _to_numpy

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

BATCH = 64


class Probe:
    """A denoiser, and how often it was asked."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.n_evals = 0
        entry = denoiser.entry()
        self._call = entry if callable(entry) else numpy_call(denoiser)

    def raw(self, x_t: NDArray[np.float32], rows: Rows, classes: Rows) -> Any:
        """The denoiser's own answer to one batch."""
        self.n_evals += len(rows)
        x = np.ascontiguousarray(x_t, np.float32).copy()
        return self._call(x, rows.copy(), self.schedule.time[rows], classes.copy())

    def ask(self, x_t: Floats, rows: Rows, classes: Rows) -> Floats:
        """Predictions (B, *shape) float64 for x_t, fed the time of `rows`."""
        parts = []
        for first in range(0, len(rows), BATCH):
            part = slice(first, first + BATCH)
            parts.append(_to_numpy(self.raw(x_t[part].astype(np.float32), rows[part], classes[part]), "prediction"))
        return np.concatenate(parts).astype(np.float64)

    def noised(self, x_start: Floats, eps: Floats, rows: Rows) -> Floats:
        return self.of(self.schedule.alpha[rows]) * x_start + self.of(self.schedule.sigma[rows]) * eps

    def target(self, x_start: Floats, eps: Floats, rows: Rows) -> Floats:
        return self.of(self.denoiser.p[rows]) * x_start + self.of(self.denoiser.q[rows]) * eps

    def of(self, values: Floats) -> Floats:
        """(B,) against (B, *shape)."""
        return values.reshape(-1, *(1 for _ in self.denoiser.shape))

    def error(self, prediction: Floats, target: Floats, rows: Rows) -> Floats:
        """(B,): squared error as part of the target's power on that row; 1 for a model that predicts zero."""
        axes = tuple(range(1, prediction.ndim))
        power = np.mean(target**2, axis=axes)
        scale = np.bincount(rows, power, len(self.schedule)) / np.maximum(
            np.bincount(rows, minlength=len(self.schedule)), 1
        )
        return np.asarray(np.mean((prediction - target) ** 2, axis=axes) / np.maximum(scale[rows], 1e-12))

    def mistake(self, prediction: Floats, target: Floats, p: Floats, q: Floats, rows: Rows) -> Floats:
        """(B,): mean square of u, the mistake about x_t, under the reading (p, q)."""
        factor = np.abs(self.schedule.alpha[rows] * q[rows] - self.schedule.sigma[rows] * p[rows])
        mean = np.mean((prediction - target) ** 2, axis=tuple(range(1, prediction.ndim)))
        return np.asarray(mean / np.maximum(factor, 1e-30) ** 2)

    def picture_error(self, prediction: Floats, target: Floats, rows: Rows) -> Floats:
        """(B,): squared error of x_start as part of the noise on it, (sigma / alpha)^2: the same in every unit of x_start."""
        mistake = self.mistake(prediction, target, self.denoiser.p, self.denoiser.q, rows)
        return np.asarray(np.maximum(self.schedule.alpha[rows] ** 2 * mistake, 1e-12))

    def log_snr(self) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(2.0 * (np.log(self.schedule.alpha) - np.log(self.schedule.sigma)))

    def rows_between(self, low: float, high: float, n: int) -> Rows:
        """Up to n rows, evenly over ln SNR from `low` to `high`, as far as the schedule goes."""
        level = self.log_snr()
        inside = np.flatnonzero(np.isfinite(level) & (level >= low) & (level <= high))
        if len(inside) == 0:
            return inside.astype(np.int64)
        wanted = np.linspace(level[inside[0]], level[inside[-1]], n)
        return np.unique(inside[np.argmin(np.abs(level[inside][:, None] - wanted), axis=0)])


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
