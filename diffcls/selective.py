"""Selective prediction: answer only when sure.  Risk against coverage, and the area under that curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import floats
from .errors import InputError, ShapeError
from .intervals import Interval, bootstrap, interval
from .reliability import answers
from .result import Floats


@dataclass(frozen=True, eq=False)
class RiskCoverageCurve:
    """What `risk_coverage_curve` found.

    Attributes
    ----------
    coverage : (N,) float64
        1 / N to 1: share of the pictures that is answered, the surest first.
    risk : (N,) float64
        Share of wrong answers among them.  Pictures of equal score stand in random order: the expectation over it.
    threshold : (N,) float64
        The lowest score that is answered.
    aurc : float
        Mean risk over all coverages (Geifman, Uziel and El-Yaniv, Bias-reduced uncertainty estimation, ICLR 2019).
    aurc_interval : (float, float)
        Bootstrap over pictures, percentiles.
    confidence_level : float
    """

    coverage: Floats
    risk: Floats
    threshold: Floats
    aurc: float
    aurc_interval: Interval
    confidence_level: float

    @property
    def best_risk(self) -> Floats:
        """(N,) risk of the best order: all wrong answers last."""
        n = len(self.risk)
        n_wrong = round(float(self.risk[-1]) * n)
        return np.asarray(np.maximum(np.arange(1, n + 1) - (n - n_wrong), 0) / np.arange(1, n + 1))

    @property
    def e_aurc(self) -> float:
        """aurc above that of the best order (same source): 0 is perfect."""
        return self.aurc - float(self.best_risk.mean())

    def coverage_at(self, risk: float) -> float:
        """Largest coverage at which the risk of these pictures is at most `risk`.

        A figure of the pictures at hand, not a bound for others.  Only coverages that a threshold can give count.

        Parameters
        ----------
        risk : float
            Share of wrong answers.

        Returns
        -------
        float
            0 when there is none.
        """
        ends = np.append(self.threshold[1:] != self.threshold[:-1], True)
        fits = np.flatnonzero(ends & (self.risk <= risk))
        return float(self.coverage[fits[-1]]) if len(fits) else 0.0


def risk_coverage_curve(
    results: Any,
    labels: ArrayLike,
    *,
    score: ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> RiskCoverageCurve:
    """Error among the surest answers, for every share of answered pictures (El-Yaniv and Wiener, JMLR 2010).

    Parameters
    ----------
    results : Results, sequence of Result, or (N, K) array of probabilities
    labels : (N,) of int or str
    score : (N,) array or None
        Higher is surer.  None: the answer's probability.
    confidence_level : float
    n_bootstrap : int
    seed : int
        Of the resampling.

    Returns
    -------
    RiskCoverageCurve

    Raises
    ------
    ValueError
        Labels or scores that do not go with the results, rows that are no probabilities, an impossible option.
    TypeError
        An array that is not of numbers.
    """
    sure, right = answers(results, labels)
    if score is not None:
        sure = floats("score", score, "an array of numbers, one a picture")
    if sure.shape != right.shape:
        raise ShapeError(f"score has shape {sure.shape}, must be ({len(right)},): one a picture")
    if np.isnan(sure).any():
        raise InputError("score has NaN")
    order = np.argsort(-sure, kind="stable")
    threshold, wrong = sure[order], ~right[order]
    risk, n = _risk(threshold, wrong), len(wrong)
    resampled = [
        float(_risk(threshold[rows], wrong[rows]).mean())
        for rows in (np.sort(drawn) for drawn in bootstrap(n, n_bootstrap, seed))
    ]
    return RiskCoverageCurve(
        coverage=np.arange(1, n + 1) / n,
        risk=risk,
        threshold=threshold,
        aurc=float(risk.mean()),
        aurc_interval=interval(resampled, confidence_level),
        confidence_level=confidence_level,
    )


def _risk(score: Floats, wrong: NDArray[np.bool_]) -> Floats:
    """Risk of the first k, k = 1 to N; `score` falls.  Among equal scores wrong answers are spread evenly."""
    n = len(score)
    start = np.flatnonzero(np.append(True, score[1:] != score[:-1]))
    size = np.diff(np.append(start, n))
    share = np.repeat(np.add.reduceat(wrong.astype(np.float64), start) / size, size)
    return np.asarray(np.cumsum(share) / np.arange(1, n + 1))
