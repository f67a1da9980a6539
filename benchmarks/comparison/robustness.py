"""Shares under a shift with their intervals, and effective robustness (Taori et al., 2020).

Standard systems, trained on the data set and nothing else, lie near a line when logit(accuracy under the shift) is drawn against
logit(clean accuracy).  What a system has above that line is its effective robustness: robustness that its clean accuracy does
not explain.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffcls.intervals import bootstrap

Floats = NDArray[np.float64]
Right = NDArray[np.bool_]
N_BOOTSTRAP = 1000
LEAST = 3
"""Standard systems of unlike clean accuracy that a line needs."""


class Robustness(NamedTuple):
    """Of S systems, each (S,); lower and higher ends are of 95 % intervals.  `expected` and `effective` are NaN without a line."""

    clean: Floats
    shifted: Floats
    shifted_low: Floats
    shifted_high: Floats
    expected: Floats
    effective: Floats
    effective_low: Floats
    effective_high: Floats


def logit(share: Floats, n: int) -> Floats:
    """Of a share of `n`; 0 and 1 count as half a picture away from them."""
    inside = np.clip(share, 0.5 / n, 1.0 - 0.5 / n)
    return np.asarray(np.log(inside / (1.0 - inside)))


def expected(clean: Floats, shifted: Floats, standard: NDArray[np.bool_], n: int, *, least: int = LEAST) -> Floats:
    """(S,) accuracy under the shift that the line through the standard systems gives each clean accuracy; NaN without one."""
    x = logit(clean, n)
    if len(np.unique(x[standard])) < least:
        return np.full(len(clean), np.nan)
    slope, intercept = np.polyfit(x[standard], logit(shifted, n)[standard], 1)
    return np.asarray(1.0 / (1.0 + np.exp(-(slope * x + intercept))))


def robustness(clean: Right, shifted: Right, standard: NDArray[np.bool_], *, paired: bool, seed: int) -> Robustness:
    """Accuracy clean and under a shift, what the line gives for the first, and how far the second is above it.

    Parameters
    ----------
    clean : (S, N) bool
        Which answers of each system are right.
    shifted : (S, M, N') bool
        The same under M shifts of the same kind, over which it is averaged.
    standard : (S,) bool
        The line is through these.
    paired : bool
        Picture i of every shift is picture i of the clean ones, so N' = N, and a resample takes them together.
    seed : int
        Of the bootstrap over pictures; each resample has its own line, and the few that have none are left out.
    """
    n, n_shifted = clean.shape[1], shifted.shape[2]
    of_picture = shifted.mean(axis=1)  # (S, N')

    def look(rows: NDArray[np.int64], other_rows: NDArray[np.int64], least: int) -> tuple[Floats, Floats, Floats]:
        clean_share, shifted_share = clean[:, rows].mean(axis=1), of_picture[:, other_rows].mean(axis=1)
        return clean_share, shifted_share, expected(clean_share, shifted_share, standard, n, least=least)

    clean_share, shifted_share, line = look(np.arange(n), np.arange(n_shifted), LEAST)
    again = bootstrap(n_shifted, N_BOOTSTRAP, seed + 1)
    samples = [
        look(rows, rows if paired else other, 2)
        for rows, other in zip(bootstrap(n, N_BOOTSTRAP, seed), again, strict=True)
    ]
    shares = np.array([share for _, share, _ in samples])
    effects = np.array([share - of_line for _, share, of_line in samples])
    effects[:, np.isnan(line)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of systems without a line all are NaN
        ends = [np.nanquantile(values, [0.025, 0.975], axis=0) for values in (shares, effects)]
    return Robustness(clean_share, shifted_share, *ends[0], line, shifted_share - line, *ends[1])
