"""`fit_weighting`: which timesteps to trust, from an error table, with labels or without."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments
from .errors import FingerprintMismatchError, InputError, ShapeError
from .labels import check_labels
from .profile import schedule_fingerprint
from .stored import Saved, damaged, read_json
from .tables import ErrorTable

if TYPE_CHECKING:
    from .schedule import Schedule

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

FORMAT = "diffcls weighting 1"
N_KNOTS = 11
FEWEST = 20
"""Images below which nothing is fitted."""
N_ROUNDS = 4
CAUTION = 0.25
"""Without labels, the share of the way to the weights that independent knots would deserve."""
SHARES = (0.0, 0.5, 1.0)
"""With labels, the shares of that way that candidates go."""
WRONG = 0.05
"""Share of labels, or of images beyond the model, that no weighting has to explain."""


@dataclass(frozen=True, eq=False)
class Weighting(Saved):
    """Weights over timesteps, fitted: what ``weighting=`` takes beside a name or an array.

    It makes another classifier than the published one: results say so in their run record.

    Attributes
    ----------
    weights : (T,) float64
        Not negative, largest 1.
    schedule : str
        Fingerprint of the schedule that it belongs to.
    model : str
    loss : str
    prediction_type : str
        Of the errors that it was fitted to and weighs: other ones need another weighting.
    run : dict
        How it was fitted: images, labels or none, and with labels the best candidate and the default's share of the mean.

    Raises
    ------
    ValueError
        `weights` is not (T,), or not finite, negative somewhere or zero everywhere.
    TypeError
        `weights` is no array of numbers.
    """

    weights: Floats
    schedule: str
    model: str
    loss: str
    prediction_type: str
    run: dict[str, Any]

    def __post_init__(self) -> None:
        weights = arguments.floats("weights", self.weights, "an array of numbers over timesteps")
        if weights.ndim != 1 or not len(weights):
            raise ShapeError(f"weights has shape {weights.shape}, must be (T,)")
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise InputError("weights must be finite, not negative, and not zero everywhere")
        weights = weights / weights.max()
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)

    def __repr__(self) -> str:
        return f"Weighting({self.model!r}, {len(self.weights)} timesteps, largest at {int(self.weights.argmax())})"

    def check(self, schedule: Schedule, loss: str, prediction_type: str) -> None:
        """Hold the run against what the weighting was fitted to.

        Parameters
        ----------
        schedule : Schedule
        loss : str
        prediction_type : str
            Of the run.

        Raises
        ------
        FingerprintMismatchError
            The weighting was fitted on another schedule, or to errors of another kind.
        """
        if schedule_fingerprint(schedule) != self.schedule:
            raise FingerprintMismatchError(
                f"the weighting was fitted on another noise schedule ({self.model!r}, {len(self.weights)} timesteps)"
            )
        for name, was, now in (
            ("loss", self.loss, loss),
            ("prediction_type", self.prediction_type, prediction_type),
        ):
            if was != now:
                raise FingerprintMismatchError(
                    f"the weighting was fitted with {name} {was!r}, this run has {now!r}: fit one to errors of this kind"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects: what `save` writes, and what a result's run record holds.

        Returns
        -------
        dict
        """
        return {
            "format": FORMAT,
            "model": self.model,
            "schedule": self.schedule,
            "loss": self.loss,
            "prediction_type": self.prediction_type,
            "weights": self.weights.tolist(),
            "run": self.run,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Weighting:
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Weighting

        Raises
        ------
        ValueError
            The file is not a weighting.
        """
        names = tuple(field.name for field in fields(cls))
        content = read_json(path, FORMAT, names)
        with damaged(path):
            return cls(**{name: content[name] for name in names})


def fit_weighting(
    table: ErrorTable, labels: ArrayLike | Literal[False] | None = None, *, n_knots: int = N_KNOTS
) -> Weighting:
    """Fit weights over timesteps to an error table.

    Weights are linear between `n_knots` timesteps and multiply the table's own weighting, the model's default.

    Without labels, knots judge one another.  The answers of all other knots stand for the labels of knot j; its temperature
    1 / beta_j is the one under which its own softmax explains them best, so that a knot which is noisy, or contradicts the
    rest, has a small beta.  Four rounds, each with the answers of the last, and log beta smoothed: this is the consensus, and
    were knots independent, beta would weigh them as evidence.  They are not: neighbours make the same mistakes.  So the
    weights go a quarter of the way, ``exp((log beta - its mean) / 4)``.  It needs images of several classes, follows the
    majority of the schedule even where that is wrong, and gives a part of what labels give.  (Answers of the whole table as
    labels would find the default; agreement between halves of the trials measures noise and not bias.)

    With labels, candidates are averaged.  There is one for every range of two or more knots, zero outside, and for none, half
    and all of the way to the consensus inside; the default is among them.  With L_ic the loss of image i and class c under
    candidate m and y_i the label, a candidate's evidence is, at the best temperature 1 / beta,

        S_m = sum_i log(0.95 softmax(-beta L_i)[y_i] + 0.05 / K)

    and the weighting is the mean of candidates, each scaled to the same mean loss, with shares in proportion to exp(S_m): of
    the default a half beforehand, of the others the rest.  One number is fitted a candidate, and few images leave many in the
    mean, so it can hardly overfit.

    Parameters
    ----------
    table : ErrorTable
        Of some dozens of images or more; 50 trials are enough.
    labels : (N,) sequence of int or str, None or False
        True class of each image: positions in ``table.classes``, or names.  None: the table's own, where it has them.
        False: none are used, even where the table has them.
    n_knots : int
        At least 3.

    Returns
    -------
    Weighting

    Raises
    ------
    ValueError
        Fewer than 20 images, one class, an error that is not finite, or impossible labels.
    TypeError
        `table` is no `ErrorTable`.
    """
    arguments.instance("table", table, ErrorTable)
    n_knots = arguments.integer("n_knots", n_knots, at_least=3)
    n, k, _ = table.errors.shape
    if n < FEWEST:
        raise InputError(f"the table has {n} images, a weighting needs {FEWEST} or more")
    if k < 2:
        raise InputError("the table has one class; a weighting needs two or more")
    truth = _truth(table, labels)
    features = _features(table, n_knots)
    consensus = _fit_consensus(features)
    found: dict[str, Any] = {}
    if truth is None:
        at_knots = np.exp(CAUTION * (consensus - consensus.max()))
    else:
        at_knots, found = _average(features, truth, consensus)
    timesteps = np.arange(len(table.schedule))
    curve = np.interp(timesteps, np.linspace(0, len(timesteps) - 1, n_knots), at_knots)
    weights = curve * (1.0 if table.weighting is None else table.weighting)
    run = {"n_images": n, "n_trials": table.errors.shape[2], "labelled": truth is not None, **found}
    return Weighting(
        weights,
        schedule_fingerprint(table.schedule),
        str(table.run["model"]),
        str(table.run.get("loss", "l2")),
        table.prediction_type,
        run,
    )


def _truth(table: ErrorTable, labels: ArrayLike | Literal[False] | None) -> Labels | None:
    """(N,) true classes; None: to be fitted without."""
    if labels is False:
        return None
    return table.labels if labels is None else check_labels(labels, len(table.errors), table.classes)


def _features(table: ErrorTable, n_knots: int) -> Floats:
    """(N, K, knots): the loss under the table's weighting, split among the knots; relative to the mean over classes."""
    knots = np.linspace(0, len(table.schedule) - 1, n_knots)
    hats = np.stack([np.interp(table.timesteps, knots, row) for row in np.eye(n_knots)])  # (knots, S), sums to one
    with np.errstate(invalid="ignore"):  # named below
        losses = table.errors @ (hats * table.trials["weight"]).T / len(table.timesteps)
    finite = np.isfinite(losses).all(axis=(1, 2))
    if not finite.all():
        image = int(finite.argmin())
        holes = np.argwhere(~np.isfinite(table.errors[image]))
        c, trial = holes[0].tolist()
        raise InputError(
            f"the table's error is {table.errors[image, c, trial]} for class {table.classes[c]!r} at trial {trial} of image "
            f"{image} ({len(holes)} of that image are not finite, and {np.sum(~finite)} images have such); a weighting needs them all"
        )
    return np.asarray(losses - losses.mean(axis=1, keepdims=True), np.float64)


def _average(features: Floats, labels: Labels, consensus: Floats) -> tuple[Floats, dict[str, Any]]:
    """Weights at knots, the mean of all candidates; and what was found on the way."""
    n_knots = features.shape[2]
    rows = np.arange(len(labels))
    told, weights, evidence = [], [], []
    for share in SHARES:
        for low in range(n_knots - 1):
            for high in range(low + 2, n_knots + 1):
                candidate = np.zeros(n_knots)
                candidate[low:high] = np.exp(share * (consensus[low:high] - consensus.max()))
                losses = features @ candidate
                size = np.abs(losses).mean()
                if size == 0.0 and high - low < n_knots:  # nothing of the table lies there
                    continue
                p = np.exp(_log_softmax(-np.exp(_fit_level(losses, labels)) * losses)[rows, labels])
                told.append((share, low, high))
                weights.append(candidate / (size or 1.0))
                evidence.append(np.log((1.0 - WRONG) * p + WRONG / features.shape[1]).sum())
    default = told.index((0.0, 0, n_knots))
    shares = np.exp(np.array(evidence) - max(evidence))
    shares[default] *= max(1, len(told) - 1)
    shares /= shares.sum()
    best = int(shares.argmax())
    share, low, high = told[best]
    return np.asarray(shares @ np.array(weights), np.float64), {
        "best": {"consensus": share, "knots": [low, high - 1], "evidence": float(evidence[best])},
        "default": {"share": float(shares[default]), "evidence": float(evidence[default])},
    }


def _fit_consensus(features: Floats) -> Floats:
    """log beta at knots, less its mean: see `fit_weighting`."""
    n_knots = features.shape[2]
    known = np.abs(features).max(axis=(0, 1)) > 0.0  # the table's weighting may be zero at a knot
    bends = np.diff(np.eye(n_knots), 2, axis=0)
    theta: Floats = np.zeros(n_knots)
    for _ in range(N_ROUNDS):
        level = np.zeros(n_knots)
        for knot in np.flatnonzero(known):
            others = np.exp(theta) * (np.arange(n_knots) != knot)
            level[knot] = _fit_level(features[:, :, knot], (features @ others).argmin(axis=1))
        theta = np.asarray(np.linalg.solve(np.diag(known.astype(float)) + bends.T @ bends, level), np.float64)
        theta = theta - theta.mean()
    return theta


def _fit_level(losses: Floats, labels: Labels) -> float:
    """log beta, one over the temperature under which (N, K) losses explain labels best: golden-section search."""
    size = np.abs(losses).mean()
    centre = -np.log(size) if size > 0.0 else 0.0
    low, high, golden = centre - 5.0, centre + 6.0, (np.sqrt(5.0) - 1.0) / 2.0
    rows = np.arange(len(labels))

    def score(level: float) -> float:
        return float(_log_softmax(-np.exp(level) * losses)[rows, labels].mean())

    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if score(left) > score(right) else (left, high)
    return float(low + high) / 2.0


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)
