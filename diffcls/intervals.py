"""Intervals: of a share that was counted (Wilson's, Clopper and Pearson's), and of whatever a bootstrap repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments
from .errors import InputError

Interval = tuple[float, float]


def wilson(right: ArrayLike, n: ArrayLike, confidence_level: float = 0.95) -> tuple[Any, Any]:
    """Wilson's interval of the shares ``right / n`` (Wilson, JASA 1927)."""
    arguments.between_0_and_1("confidence_level", confidence_level)
    z, n = NormalDist().inv_cdf((1 + confidence_level) / 2), np.asarray(n, np.float64)
    share = np.asarray(right, np.float64) / n
    centre, spread = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a share of which `count` of `n` were seen (Clopper and Pearson, 1934).

    The ends are the shares at which so few, or so many, have a chance of ``(1 - confidence) / 2``; found by bisection.
    """
    if not 0 <= count <= n or n < 1:
        raise InputError(f"count is {count} of {n}, must be 0 to {n}, of at least one")
    confidence = arguments.between_0_and_1("confidence", confidence)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else _bisect(lambda p: binomial_tail(count, n, p) - tail)
    high = 1.0 if count == n else _bisect(lambda p: tail - (1.0 - binomial_tail(count + 1, n, p)))
    return low, high


def bootstrap(n: int, n_bootstrap: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows of `n_bootstrap` resamples of `n` pictures, one after the other."""
    n_bootstrap = arguments.integer("n_bootstrap", n_bootstrap, at_least=1)
    rng = np.random.default_rng(arguments.integer("seed", seed, at_least=0))
    return (rng.integers(n, size=n) for _ in range(n_bootstrap))


def interval(values: list[float], confidence_level: float) -> Interval:
    """Percentiles that hold `confidence_level` of the values between them."""
    arguments.between_0_and_1("confidence_level", confidence_level)
    low, high = np.quantile(values, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return float(low), float(high)


def binomial_tail(count: int, n: int, p: float) -> float:
    """P(X >= count) of a binomial X, `n` tosses with chance `p`."""
    k = np.arange(count, n + 1)
    log_factorial: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choices = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    return float(np.exp(log_choices + k * math.log(p) + (n - k) * math.log1p(-p)).sum())


def _bisect(rising: Callable[[float], float]) -> float:
    """Where a rising function of (0, 1) crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if rising(middle) > 0.0 else (middle, high)
    return 0.5 * (low + high)
