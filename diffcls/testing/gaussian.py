"""Classes that are Gaussians: the best denoiser, its errors and the posterior are closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..denoiser import Denoiser
from ..errors import InputError, ShapeError
from ..schedule import PredictionType, Schedule

Floats = NDArray[np.float64]


class GaussianMixture:
    """x_start of class k is ``N(mean_k, covariance_k)``.

    Parameters
    ----------
    means : (K, *shape) array_like
    covariance : array_like
        A number v, for v I in every class; (K,), v_k I; (K, D), diagonals; or (K, D, D), full.  D elements of `shape`.
        Positive definite.
    priors : (K,) array_like or None
        Positive; None: all alike.

    Attributes
    ----------
    means : (K, *shape) float64
    log_prior : (K,) float64, sums to one when raised

    Raises
    ------
    ValueError
        Wrong shapes, or a covariance that is not symmetric and positive definite.
    """

    def __init__(self, means: ArrayLike, covariance: ArrayLike = 1.0, *, priors: ArrayLike | None = None) -> None:
        self.means = np.array(means, np.float64)
        if self.means.ndim < 2:
            raise ShapeError(f"means has shape {self.means.shape}, must be (K, *shape)")
        self.shape = self.means.shape[1:]
        k = len(self.means)
        self._mean = self.means.reshape(k, -1)
        self._values, self._vectors = _spectrum(np.array(covariance, np.float64), k, self._mean.shape[1])
        weights = np.ones(k) if priors is None else np.array(priors, np.float64)
        if weights.shape != (k,) or not np.isfinite(weights).all() or (weights <= 0).any():
            raise InputError(f"priors must be {k} positive numbers, one a class")
        self.log_prior: Floats = np.log(weights / weights.sum())

    def __repr__(self) -> str:
        return f"GaussianMixture({len(self.means)} classes, shape={self.shape})"

    def sample(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draws, the classes by their priors.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        x_start : (n, *shape) float32
        classes : (n,) int64

        Raises
        ------
        ValueError
            `n` is negative.
        """
        classes = rng.choice(len(self.means), n, p=np.exp(self.log_prior))
        noise = np.sqrt(self._values[classes]) * rng.standard_normal((n, self._mean.shape[1]))
        x_start = self._mean[classes] + self._out(noise, classes)
        return x_start.reshape(n, *self.shape).astype(np.float32), classes.astype(np.int64)

    def log_likelihood(self, x_start: ArrayLike) -> Floats:
        """ln p(x_start | class).

        Parameters
        ----------
        x_start : (N, *shape) array_like

        Returns
        -------
        (N, K) float64

        Raises
        ------
        ValueError
            Not of the mixture's shape.
        """
        x = self._rows(x_start)
        columns = []
        for k in range(len(self.means)):
            classes = np.full(len(x), k)
            z = self._in(x - self._mean[k], classes)
            quadratic = np.sum(z**2 / self._values[k], axis=1)
            columns.append(-0.5 * (quadratic + np.sum(np.log(2.0 * np.pi * self._values[k]))))
        return np.stack(columns, axis=1)

    def posterior(self, x_start: ArrayLike) -> Floats:
        """p(class | x_start), exact.

        Parameters
        ----------
        x_start : (N, *shape) array_like

        Returns
        -------
        (N, K) float64
            Rows sum to 1.

        Raises
        ------
        ValueError
            Not of the mixture's shape.
        """
        logits = self.log_likelihood(x_start) + self.log_prior
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))

    def denoise(self, x_t: ArrayLike, alpha: ArrayLike, sigma: ArrayLike, classes: ArrayLike) -> tuple[Floats, Floats]:
        """(E[x_start | x_t, class], E[eps | x_t, class]).

        ``x_start = mean + alpha C r`` and ``eps = sigma r`` with ``r = (alpha^2 C + sigma^2 I)^-1 (x_t - alpha mean)``.

        Parameters
        ----------
        x_t : (B, *shape)
        alpha, sigma : (B,)
        classes : (B,) integers

        Returns
        -------
        x_start, eps : pair of (B, *shape) float64

        Raises
        ------
        ValueError
            Not of the mixture's shape.
        """
        x, k = self._rows(x_t), np.asarray(classes, np.int64)
        a, s = (np.asarray(value, np.float64).reshape(-1, 1) for value in (alpha, sigma))
        residual = self._in(x - a * self._mean[k], k) / (a * a * self._values[k] + s * s)
        x_start = self._mean[k] + self._out(a * self._values[k] * residual, k)
        eps = self._out(s * residual, k)
        return x_start.reshape(len(x), *self.shape), eps.reshape(len(x), *self.shape)

    def expected_errors(
        self, x_start: ArrayLike, schedule: Schedule, prediction_type: PredictionType = "epsilon"
    ) -> Floats:
        """Mean over eps of every class's squared error, exactly.

        With l an eigenvalue of C and z the element of ``x_start - mean`` along its eigenvector, ``(x_start - prediction of
        it) / sigma`` is a Gaussian in eps of mean ``sigma z / (alpha^2 l + sigma^2)`` and standard deviation
        ``alpha l / (alpha^2 l + sigma^2)``; the error is the schedule's `error_factor` squared times the mean of its square.

        Parameters
        ----------
        x_start : (N, *shape) array_like
        schedule : Schedule
        prediction_type : str or (p, q)

        Returns
        -------
        (N, K, T) float64

        Raises
        ------
        ValueError
            Not of the mixture's shape, or no such prediction type.
        """
        x = self._rows(x_start)
        a, s = schedule.alpha[:, None], schedule.sigma[:, None]
        factor = schedule.error_factor(prediction_type) ** 2
        columns = []
        for k in range(len(self.means)):
            z2 = self._in(x - self._mean[k], np.full(len(x), k)) ** 2
            total = (a * a * self._values[k] + s * s) ** 2
            u2 = (z2 @ (s * s / total).T + np.sum((a * self._values[k]) ** 2 / total, axis=1)) / x.shape[1]
            columns.append(factor * u2)
        return np.stack(columns, axis=1)

    def denoiser(
        self, schedule: Schedule | None = None, prediction_type: PredictionType | None = None, **options: Any
    ) -> Denoiser:
        """The best denoiser there is, as the model: NumPy, float32 out.

        Parameters
        ----------
        schedule : Schedule or None
            None: ``Schedule.linear(1000)``.
        prediction_type : str, (p, q) or None
            None: the schedule's, else "epsilon".
        **options
            Of `Denoiser`.

        Returns
        -------
        Denoiser

        Raises
        ------
        ValueError, TypeError
            No such prediction type, or what `Denoiser` raises.
        """
        schedule = Schedule.linear(1000) if schedule is None else schedule
        if prediction_type is None:
            prediction_type = schedule.prediction_type or "epsilon"
        facts: dict[str, Any] = {"shape": self.shape, "n_classes": len(self.means), "name": "gaussian mixture"}
        predict = _Predict(self, schedule, *schedule.target(prediction_type))
        return Denoiser(predict, schedule=schedule, prediction_type=prediction_type, **{**facts, **options})

    # ---- below the surface -------------------------------------------------------------------------------------------

    def _rows(self, values: ArrayLike) -> Floats:
        array = np.asarray(values, np.float64)
        if array.shape[1:] != self.shape or array.ndim != len(self.shape) + 1:
            raise ShapeError(f"x has shape {array.shape}, must be (N, {', '.join(map(str, self.shape))})")
        return array.reshape(len(array), -1)

    def _in(self, rows: Floats, classes: NDArray[np.int64]) -> Floats:
        """Rows in the eigenvectors of their classes."""
        return self._turn(rows, classes, "bd,dj->bj")

    def _out(self, rows: Floats, classes: NDArray[np.int64]) -> Floats:
        return self._turn(rows, classes, "bj,dj->bd")

    def _turn(self, rows: Floats, classes: NDArray[np.int64], how: str) -> Floats:
        if self._vectors is None:
            return rows
        turned = np.empty_like(rows)
        for k in np.unique(classes):
            turned[classes == k] = np.einsum(how, rows[classes == k], self._vectors[k])
        return turned


class _Predict:
    """``predict(x_t, t, cond)`` of a mixture: the row of the schedule is found by the time that is fed."""

    def __init__(self, mixture: GaussianMixture, schedule: Schedule, p: Floats, q: Floats) -> None:
        self.mixture, self.schedule, self.p, self.q = mixture, schedule, p, q
        fed = schedule.time.astype(np.int64 if schedule.is_discrete else np.float32)
        self.order = np.argsort(fed, kind="stable")
        self.fed = fed[self.order]

    def __call__(self, x_t: Any, t: Any, cond: Any) -> NDArray[np.float32]:
        place = np.searchsorted(self.fed, np.asarray(t))
        if (place >= len(self.fed)).any() or (self.fed[place] != t).any():
            raise InputError(f"t is {t}, must be times of the schedule")
        row = self.order[place]
        schedule, broadcast = self.schedule, (-1, *(1 for _ in self.mixture.shape))
        x_start, eps = self.mixture.denoise(x_t, schedule.alpha[row], schedule.sigma[row], cond)
        target = self.p[row].reshape(broadcast) * x_start + self.q[row].reshape(broadcast) * eps
        return target.astype(np.float32)


def _spectrum(covariance: Floats, k: int, d: int) -> tuple[Floats, Floats | None]:
    """(eigenvalues (K, D), eigenvectors (K, D, D) or None where they are the axes)."""
    if not np.isfinite(covariance).all():
        raise InputError("covariance must be finite")
    vectors = None
    if covariance.ndim == 0:
        values = np.full((k, d), covariance)
    elif covariance.shape == (k,):
        values = np.repeat(covariance[:, None], d, axis=1)
    elif covariance.shape == (k, d):
        values = covariance
    elif covariance.shape == (k, d, d):
        if not np.allclose(covariance, covariance.transpose(0, 2, 1)):
            raise InputError("covariance must be symmetric")
        values, vectors = np.linalg.eigh(covariance)
    else:
        raise ShapeError(
            f"covariance has shape {covariance.shape}, must be a number, ({k},), ({k}, {d}) or ({k}, {d}, {d})"
        )
    if (values <= 0.0).any():
        raise InputError("covariance must be positive definite")
    return values, vectors


__all__: Sequence[str] = ["GaussianMixture"]
