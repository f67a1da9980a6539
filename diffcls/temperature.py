"""Probabilities that mean what they say: a temperature, and a bias for each class, fitted to held-out pictures.

``p(class k | x) = softmax_k(log prior_k + bias_k - excess_k / temperature)``: temperature scaling (Guo et al., On
calibration of modern neural networks, ICML 2017, equation 9) of the race's excess losses, and its bias-corrected form
(Alexandari et al., ICML 2020).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import floats
from .errors import DTypeError, FingerprintMismatchError, InputError, ShapeError
from .labels import check_labels
from .packages import package
from .result import Floats, Result, logits, probabilities
from .stored import Saved, as_json, damaged, read_json

FORMAT = "diffcls calibration 1"

SETTINGS = (
    "model", "weights", "prediction_type", "schedule", "templates", "pool", "pool_temperature", "policy", "loss",
    "weighting",
)  # fmt: skip
"""Of a run's record: what an excess loss depends on, beside the picture and the seed."""


@dataclass(frozen=True, eq=False)
class Calibration(Saved):
    """What `fit_temperature` found; ``classify(..., temperature=calibration)`` uses it.

    Attributes
    ----------
    temperature : float
        In the losses' own unit.
    bias : (K,) float64 or None
        Added to the log prior of each class.
    classes : list of str or None
        What it was fitted for, the order of `bias`; None when it was fitted to a bare array.
    n_images : int
    stderr : float
        Standard error of log(temperature): 0.1 means ten per cent either way.  It counts wrong answers more than pictures,
        and is the robust one (Huber's sandwich), since a softmax of losses is never quite the truth.
    negative_log_likelihood : float
        Mean over those pictures, in nats, with what was fitted.
    fingerprint : dict or None
        `SETTINGS` of the run that gave the losses: the calibration holds for these and no others.
    """

    temperature: float
    bias: Floats | None
    classes: list[str] | None
    n_images: int
    stderr: float
    negative_log_likelihood: float
    fingerprint: dict[str, Any] | None

    def log_bias(self, classes: Sequence[str]) -> Floats:
        """Bias of `classes`, in their order; zeros where none was fitted.

        Parameters
        ----------
        classes : (K,) sequence of str

        Returns
        -------
        (K,) float64

        Raises
        ------
        FingerprintMismatchError
            A class that the calibration was not fitted for.
        """
        if self.classes is None:
            if self.bias is not None and len(self.bias) != len(classes):
                raise FingerprintMismatchError(
                    f"the calibration has a bias of {len(self.bias)} classes, {len(classes)} are asked"
                )
            return np.zeros(len(classes)) if self.bias is None else self.bias
        foreign = [name for name in classes if name not in self.classes]
        if foreign:
            raise FingerprintMismatchError(f"the calibration was not fitted for class {foreign[0]!r}; fit it again")
        if self.bias is None:
            return np.zeros(len(classes))
        return self.bias[[self.classes.index(name) for name in classes]]

    def check(self, run: Mapping[str, Any]) -> None:
        """Hold the settings of a run against those that it was fitted under.

        Parameters
        ----------
        run : mapping
            `Result.run`.

        Raises
        ------
        FingerprintMismatchError
            They differ; the message names the first that does.
        """
        if self.fingerprint is None:
            return
        now = _settings(run)
        for name, was in self.fingerprint.items():
            if now.get(name) != was:
                raise FingerprintMismatchError(
                    f"the calibration was fitted with {name} {_short(was)}, this run has {_short(now.get(name))}: fit it "
                    "again, or give temperature=calibration.temperature, which counts as uncalibrated"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects: what `save` writes.

        Returns
        -------
        dict
        """
        return {
            "format": FORMAT,
            "temperature": self.temperature,
            "bias": None if self.bias is None else self.bias.tolist(),
            "classes": self.classes,
            "n_images": self.n_images,
            "stderr": self.stderr,
            "negative_log_likelihood": self.negative_log_likelihood,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Calibration

        Raises
        ------
        ValueError
            Not a calibration, of a newer version, or damaged.
        """
        names = tuple(field.name for field in fields(cls))
        stored = read_json(path, FORMAT, names)
        bias, classes = stored["bias"], stored["classes"]
        with damaged(path):
            calibration = cls(
                float(stored["temperature"]),
                None if bias is None else floats("bias", bias, "a list of numbers"),
                None if classes is None else [str(name) for name in classes],
                int(stored["n_images"]),
                float(stored["stderr"]),
                float(stored["negative_log_likelihood"]),
                None if stored["fingerprint"] is None else dict(stored["fingerprint"]),
            )
            shapes = {np.shape(part) for part in (calibration.bias, calibration.classes) if part is not None}
            whole = calibration.bias is None or (calibration.bias.ndim == 1 and np.isfinite(calibration.bias).all())
            if not 0 < calibration.temperature < np.inf or len(shapes) > 1 or not whole:
                raise InputError("temperature, bias and classes do not go together")
        return calibration


def fit_temperature(results: Any, labels: ArrayLike, *, bias: bool = False) -> Calibration:
    """Temperature, and a bias for each class, of greatest likelihood on labelled pictures that no weight was fitted to.

    The likelihood is concave in (1 / temperature, bias), so there is one answer; SciPy finds it.  The biases have a prior of
    unit variance (in log odds) around zero, which keeps those of classes with few pictures finite and their sum at zero.

    A race drops classes early: the excess of a dropped class is its mean over the few trials that it saw, noisier than full
    evaluation would have it.  What is fitted is the temperature of *these* numbers.  So give results of the policy that will
    be used; a calibration is refused elsewhere.  `replay` makes them from an error table without asking the model.

    Parameters
    ----------
    results : Results, sequence of Result, or (N, K) array
        Of held-out pictures, all of one run.  An array: losses or excess losses (only differences within a row count); NaN
        for a class without a trial.
    labels : (N,) of int or str
        The truth: positions in the results' classes, or their names.
    bias : bool
        Fit a bias for each class too: for classes whose prompts fit them unequally well.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        No temperature has the greatest likelihood: every picture is answered rightly (a smaller one is always likelier), or
        the losses say nothing about the labels.  Labels that do not go with the results.
    TypeError
        An array that is not of numbers.
    MissingExtraError
        Without SciPy.
    """
    excess, classes, log_prior, fingerprint = _unpack(results)
    truth = check_labels(labels, len(excess), excess.shape[1] if classes is None else classes)
    rows = np.arange(len(truth))
    if np.isnan(excess[rows, truth]).any():
        raise InputError("a picture's true class has no trial: give results of a policy that tries every class")
    differences = excess - excess[rows, truth, None]
    if not np.nan_to_num(differences).any():
        raise InputError("every class has the same loss in every picture, which says nothing about the labels")
    if not (np.nan_to_num(differences) < 0).any():
        raise InputError(
            f"all {len(truth)} pictures are answered rightly, which any small temperature explains: give more, or harder ones"
        )
    temperature, fitted = _greatest_likelihood(excess, truth, log_prior, bias=bias)
    stderr = _stderr(excess, truth, log_prior + fitted, temperature, bias=bias)
    nll = negative_log_likelihood(excess, truth, temperature, log_prior=log_prior + fitted)
    return Calibration(temperature, fitted if bias else None, classes, len(truth), stderr, nll, fingerprint)


def negative_log_likelihood(
    losses: ArrayLike, labels: ArrayLike, temperature: float, *, log_prior: ArrayLike = 0.0
) -> float:
    """Mean over pictures of ``-log softmax(log_prior - losses / temperature)`` at the label, in nats.

    Parameters
    ----------
    losses : (N, K) array
        Losses or excess losses; NaN for a class without a trial, whose probability is 0.
    labels : (N,) array of int
    temperature : float
    log_prior : (K,) array or 0
    """
    scores = logits(np.asarray(losses, np.float64), log_prior, temperature)
    scores -= scores.max(axis=1, keepdims=True)
    truth = np.asarray(labels)
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(truth)), truth]))


def as_results(results: Any) -> list[Result] | None:
    """A list of `Result`, one or more and of the same classes; None: something else, an array."""
    if isinstance(results, Result):
        return [results]
    if not isinstance(results, Sequence) or not all(isinstance(result, Result) for result in results):
        return None
    if len(results) == 0:
        raise InputError("results is empty")
    if any(result.classes != results[0].classes for result in results):
        raise InputError("results are of different classes")
    return list(results)


def as_array(results: Any) -> Floats:
    """(N, K) float64 of what is no list of `Result`."""
    try:
        array = np.array(results, np.float64)
    except (TypeError, ValueError):
        raise DTypeError(
            f"results is {type(results).__name__}, must be Results, a list of Result or an (N, K) array; an error table is "
            "replayed first"
        ) from None
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ShapeError(f"results has shape {array.shape}, must be (N, K) with one picture and two classes or more")
    return array


# ---- below the surface -----------------------------------------------------------------------------------------------


def _unpack(results: Any) -> tuple[Floats, list[str] | None, Floats, dict[str, Any] | None]:
    """(excess, classes, log prior, fingerprint)."""
    listed = as_results(results)
    if listed is None:
        excess = as_array(results)
        if np.isinf(excess).any():
            raise InputError("results has infinite losses")
        return excess, None, np.zeros(excess.shape[1]), None
    classes, run = list(listed[0].classes), listed[0].run
    if len(classes) < 2:
        raise InputError("results are of one class, a temperature needs two or more")
    fingerprint = _settings(run)
    if any(_settings(result.run) != fingerprint for result in listed if result.run is not run):
        raise FingerprintMismatchError("results are of runs with different settings")
    priors = run.get("priors")
    log_prior = np.zeros(len(classes)) if priors is None else np.log(np.array(priors, np.float64))
    return np.array([result.excess for result in listed], np.float64), classes, log_prior, fingerprint


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """As they read back from json."""
    return dict(as_json({name: run.get(name) for name in SETTINGS}))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _greatest_likelihood(
    excess: Floats, truth: NDArray[np.int64], log_prior: Floats, *, bias: bool
) -> tuple[float, Floats]:
    """(temperature, (K,) bias): the minimum of mean -log p + |bias|^2 / 2N, convex in (1 / temperature, bias)."""
    minimize = package("scipy.optimize", "fit_temperature needs SciPy", "sklearn").minimize
    (n, k), rows = excess.shape, np.arange(len(truth))
    base = np.where(np.isnan(excess), -np.inf, log_prior)
    energy = np.nan_to_num(excess - np.nanmin(excess, axis=1, keepdims=True))
    rivals = np.where(energy > 0, energy, np.inf).min(axis=1)  # the closest ones tell; far ones may be anywhere
    scale = float(np.median(rivals[np.isfinite(rivals)]))  # so that the unknowns are of the order of one
    energy /= scale

    def objective(unknowns: Floats) -> tuple[float, Floats]:
        beta, shift = unknowns[0], (unknowns[1:] if bias else np.zeros(k))
        scores = base + shift - beta * energy
        scores -= scores.max(axis=1, keepdims=True)
        weights = np.exp(scores)
        total = weights.sum(axis=1, keepdims=True)
        value = float(np.mean(np.log(total[:, 0]) - scores[rows, truth])) + float(shift @ shift) / (2 * n)
        residual = weights / total
        residual[rows, truth] -= 1.0
        slope = [-float((residual * energy).sum()) / n]
        return value, np.append(slope, residual.mean(axis=0) + shift / n if bias else [])

    start = np.append([1.0], np.zeros(k if bias else 0))
    bounds = [(0.0, None), *([(None, None)] * (len(start) - 1))]
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    )  # fmt: skip
    beta = float(found.x[0])
    if beta < 1e-9:
        raise InputError("the losses say nothing about the labels: no finite temperature fits them")
    return scale / beta, np.asarray(found.x[1:] if bias else np.zeros(k), np.float64)


def _stderr(excess: Floats, truth: NDArray[np.int64], log_prior: Floats, temperature: float, *, bias: bool) -> float:
    """Of log(temperature): ``H^-1 G H^-1``, H the second derivative of the summed objective, G the sum of squared slopes."""
    p, energy = (
        probabilities(excess, log_prior, temperature),
        np.nan_to_num(excess - np.nanmin(excess, axis=1)[:, None]),
    )
    energy /= temperature  # the unknown is then log(beta), at beta = 1 / temperature
    mean = (p * energy).sum(axis=1)
    slopes = energy[np.arange(len(truth)), truth] - mean
    curvature = (p * energy**2).sum() - (mean**2).sum()
    if not bias:
        return float(np.sqrt((slopes**2).sum()) / curvature)
    k = p.shape[1]
    cross = (p * mean[:, None] - p * energy).sum(axis=0)
    inner = np.diag(p.sum(axis=0)) - p.T @ p + np.eye(k)  # the prior's unit variance
    hessian = np.block([[np.full((1, 1), curvature), cross[None]], [cross[:, None], inner]])
    all_slopes = np.column_stack([slopes, p - np.eye(k)[truth]])
    row = np.linalg.solve(hessian, np.eye(k + 1)[0])
    return float(np.sqrt(row @ (all_slopes.T @ all_slopes) @ row))
