"""Are the probabilities true?  Reliability diagram and expected calibration error of the answers' own probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments
from .errors import InputError
from .intervals import Interval, bootstrap, interval, wilson
from .labels import check_labels
from .result import Floats
from .temperature import as_array, as_results


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """What `reliability_curve` found: B bins of the answers' probability.

    Attributes
    ----------
    edges : (B + 1,) float64
        Bin b holds probabilities in (edges[b], edges[b + 1]]; the first one its lower edge too.
    count : (B,) int64
    confidence, accuracy : (B,) float64
        Mean probability of the answers, and share of them that is right; NaN in an empty bin.
    accuracy_low, accuracy_high : (B,) float64
        Wilson's interval of each share.
    ece : float
        Expected calibration error: ``sum_b count_b / N |accuracy_b - confidence_b|`` (Naeini et al., AAAI 2015).
    ece_interval : (float, float)
        Bootstrap over pictures, percentiles; the bins stay.
    ece_if_calibrated : float
        Mean ece of labels drawn from these very probabilities: what chance alone gives at this N and these bins
        (consistency resampling, Broecker and Smith, Weather and Forecasting 2007).  An ece near it is no evidence of
        miscalibration; the ece itself is biased upward by as much.
    strategy : {"uniform", "quantile"}
    confidence_level : float
    """

    edges: Floats
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    accuracy_low: Floats
    accuracy_high: Floats
    ece: float
    ece_interval: Interval
    ece_if_calibrated: float
    strategy: str
    confidence_level: float


def reliability_curve(
    results: Any,
    labels: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    confidence_level: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> ReliabilityCurve:
    """How often the answers are right, by the probability that they claim (top-label calibration; Guo et al., ICML 2017).

    Bins are those of ``sklearn.calibration.calibration_curve``.

    Parameters
    ----------
    results : Results, sequence of Result, or (N, K) array of probabilities
        Of pictures that the temperature was not fitted to.  The answer of a row of an array is its largest.
    labels : (N,) of int or str
    n_bins : int
    strategy : {"uniform", "quantile"}
        Bins of equal width, or of equal mass: edges at quantiles of the probabilities (equal values share a bin).
    confidence_level : float
        Of the intervals.
    n_bootstrap : int
    seed : int
        Of the resampling.

    Returns
    -------
    ReliabilityCurve

    Raises
    ------
    ValueError
        Labels that do not go with the results, rows that are no probabilities, an impossible option.
    TypeError
        An array that is not of numbers.
    """
    confidence, right = answers(results, labels)
    return curve_of(
        confidence,
        right,
        n_bins=n_bins,
        strategy=strategy,
        confidence_level=confidence_level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def curve_of(
    confidence: Floats,
    right: NDArray[np.bool_],
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    confidence_level: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> ReliabilityCurve:
    """`reliability_curve` of the answers' probabilities and whether they are right, (N,) each."""
    n_bins = arguments.integer("n_bins", n_bins, at_least=1)
    if strategy == "uniform":
        edges = np.linspace(0.0, 1.0, n_bins + 1)
    elif strategy == "quantile":
        edges = np.quantile(confidence, np.linspace(0.0, 1.0, n_bins + 1))
    else:
        raise InputError(f"strategy is {strategy!r}, must be 'uniform' or 'quantile'")
    bins = np.searchsorted(edges[1:-1], confidence)

    def sums(values: Floats) -> Floats:
        return np.asarray(np.bincount(bins, values, minlength=n_bins), np.float64)

    count = np.bincount(bins, minlength=n_bins)
    n_right = sums(right.astype(np.float64))
    some = np.where(count > 0, count, np.nan)
    low, high = wilson(n_right, some, confidence_level)
    gap = right - confidence
    resampled = [
        float(np.abs(np.bincount(bins[rows], gap[rows], minlength=n_bins)).sum()) / len(gap)
        for rows in bootstrap(len(gap), n_bootstrap, seed)
    ]
    rng = np.random.default_rng(seed)
    by_chance = [
        float(np.abs(sums((rng.random(len(gap)) < confidence) - confidence)).sum()) / len(gap)
        for _ in range(n_bootstrap)
    ]
    return ReliabilityCurve(
        edges=edges,
        count=count,
        confidence=sums(confidence) / some,
        accuracy=n_right / some,
        accuracy_low=low,
        accuracy_high=high,
        ece=float(np.abs(sums(gap)).sum()) / len(gap),
        ece_interval=interval(resampled, confidence_level),
        ece_if_calibrated=float(np.mean(by_chance)),
        strategy=strategy,
        confidence_level=confidence_level,
    )


def answers(results: Any, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """(probability of each answer, is it right), (N,) each."""
    listed = as_results(results)
    if listed is not None:
        classes = listed[0].classes
        index = np.array([result.index for result in listed], np.int64)
        confidence = np.array([result.probabilities[result.index] for result in listed], np.float64)
        return confidence, index == check_labels(labels, len(index), classes)
    probabilities = as_array(results)
    if not ((probabilities >= 0) & (probabilities <= 1)).all() or not np.allclose(
        probabilities.sum(axis=1), 1, atol=1e-3
    ):
        raise InputError("results must be probabilities: rows from 0 to 1 that sum to 1")
    index = probabilities.argmax(axis=1)
    return probabilities.max(axis=1), index == check_labels(labels, len(index), probabilities.shape[1])
