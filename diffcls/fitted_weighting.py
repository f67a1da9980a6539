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
from .stored import damaged, read_json, write_json
from .tables import ErrorTable

if TYPE_CHECKING:
    from .schedule import Schedule

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

FORMAT = "diffcls weighting 1"
N_KNOTS = 11
FEWEST = 20
"""Images below which nothing is fitted."""
N_FOLDS = 5
N_ROUNDS = 4
PRIOR_IMAGES = 50
"""With labels, the images that the default weighting counts for."""
CAUTION = 0.25
"""Without labels, the share of the way to the weights that independent knots would deserve."""
STRENGTHS = tuple(10.0**power for power in range(-3, 4))
"""Of the penalty; beside them the model's own weighting, an infinite strength."""
RIDGE = 0.01
"""Of the curve's level against its bends: a straight tilt is penalised little, and not for nothing."""


@dataclass(frozen=True, eq=False)
class Weighting:
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
        How it was fitted: images, labels or none, strengths and their share, cross-validated scores.
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
        """
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
        """Plain Python objects: what `save` writes, and what a result's run record holds."""
        return {
            "format": FORMAT,
            "model": self.model,
            "schedule": self.schedule,
            "loss": self.loss,
            "prediction_type": self.prediction_type,
            "weights": self.weights.tolist(),
            "run": self.run,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as json, at once or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Weighting:
        """
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

    The weighting is ``w(t) = w_0(t) exp(theta(t))`` with w_0 the table's own (the model's default) and theta linear between
    `n_knots` timesteps.  It minimises, with L_ic the weighted loss of image i and class c and y_i its label,

        mean_i -log softmax(-L_i)[y_i]  +  strength / 2 (sum of squared second differences of theta
                                                         + 0.01 sum of squared deviations from its mean)

    whose level, exp(mean theta), is the temperature and is not penalised.  Strengths from 0.001 to 1,000 and infinity (the
    default itself, with a temperature) are judged by five-fold cross-validation and averaged with the weights of their
    held-out likelihoods.  The likelihood of few images asks for more than accuracy repays: of the average's theta only the
    step ``n / (n + 50)`` is taken, n images, unless the whole step makes fewer errors on held-out images by more than one
    standard error.  Where no strength beats the default there, or the step makes more errors than the default, the default
    is returned as it is.

    Without labels, knots judge one another.  The answers of all other knots stand for the labels of knot j; its temperature
    1 / beta_j is the one under which its own softmax explains them best, so that a knot which is noisy, or contradicts the
    rest, has a small beta.  Four rounds, each with the answers of the last, and log beta smoothed; were knots independent,
    w_0 beta would weigh them as evidence.  They are not: neighbours make the same mistakes, and all the way is too far.  So
    theta goes a quarter of the way, ``theta = (log beta - its mean) / 4``.  It needs images of several classes, follows the
    majority of the schedule even where that is wrong, and gives a part of what labels give.  (Answers of the whole table as labels would find the default; agreement between halves of
    the trials measures noise and not bias.)

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
    found: dict[str, Any] = {}
    if truth is None:
        theta = _fit_consensus(features)
    else:
        theta, found = _fit_averaged(features, truth)
    timesteps = np.arange(len(table.schedule))
    curve = np.interp(timesteps, np.linspace(0, len(timesteps) - 1, n_knots), theta)
    weights = np.exp(curve - curve.max()) * (1.0 if table.weighting is None else table.weighting)
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


def _fit_averaged(features: Floats, labels: Labels) -> tuple[Floats, dict[str, Any]]:
    """theta averaged over strengths, zero when the default is as good; and what was found on the way."""
    n = len(labels)
    fold = np.arange(n) % N_FOLDS
    strengths = (*STRENGTHS, np.inf)
    paths = [_path(features[fold != part], labels[fold != part], strengths) for part in range(N_FOLDS)]
    held_out = np.zeros((len(strengths), n))
    for part, path in enumerate(paths):
        for i, theta in enumerate(path):
            log_p = _log_softmax(-(features[fold == part] @ np.exp(theta)))
            held_out[i, fold == part] = log_p[np.arange(len(log_p)), labels[fold == part]]
    score = held_out.mean(axis=1)
    share = np.exp(n * (score - score.max()))
    share /= share.sum()
    steps = (0.0, n / (n + PRIOR_IMAGES), 1.0)
    right = np.zeros((len(steps), n))  # on held-out images, for the default, the cautious and the whole step
    for part, path in enumerate(paths):
        average = _average(path, share)
        for i, step in enumerate(steps):
            losses = features[fold == part] @ np.exp(step * average)
            right[i, fold == part] = losses.argmin(axis=1) == labels[fold == part]
    gain = right[2] - right[1]
    chosen = 2 if gain.mean() > gain.std(ddof=1) / np.sqrt(n) else 1
    if np.isinf(strengths[score.argmax()]) or right[chosen].mean() < right[0].mean():
        chosen = 0
    return steps[chosen] * _average(_path(features, labels, strengths), share), {
        "step": steps[chosen],
        "strengths": [float(strength) for strength in STRENGTHS],
        "shares": share.tolist(),
        "held_out_log_likelihood": {"default": float(score[-1]), "best": float(score.max())},
        "held_out_accuracy": {"default": float(right[0].mean()), "fitted": float(right[chosen].mean())},
    }


def _average(path: list[Floats], share: Floats) -> Floats:
    return np.asarray(share @ np.array([theta - theta.mean() for theta in path]), np.float64)


def _fit_consensus(features: Floats) -> Floats:
    """theta without labels: see `fit_weighting`."""
    n_knots = features.shape[2]
    known = np.abs(features).max(axis=(0, 1)) > 0.0  # the table's weighting may be zero at a knot
    bends = np.diff(np.eye(n_knots), 2, axis=0)
    theta: Floats = np.zeros(n_knots)
    for _ in range(N_ROUNDS):
        level = np.zeros(n_knots)
        for knot in np.flatnonzero(known):
            others = np.exp(theta) * (np.arange(n_knots) != knot)
            level[knot] = _fit_level(features[:, :, knot : knot + 1], (features @ others).argmin(axis=1))[0]
        theta = np.asarray(np.linalg.solve(np.diag(known.astype(float)) + bends.T @ bends, level), np.float64)
        theta = theta - theta.mean()
    return CAUTION * theta


def _path(features: Floats, labels: Labels, strengths: tuple[float, ...]) -> list[Floats]:
    """theta of each strength, each fit starting from the next stronger one's."""
    theta = _fit_level(features, labels)
    found = []
    for strength in reversed(strengths):
        theta = theta if np.isinf(strength) else _fit(features, labels, strength, theta)
        found.append(theta)
    return found[::-1]


def _fit_level(features: Floats, labels: Labels) -> Floats:
    """The default weighting with the best temperature: golden-section search of the level, in logarithms."""
    losses = features.sum(axis=2)
    size = np.abs(losses).mean()
    centre = -np.log(size) if size > 0.0 else 0.0
    low, high, golden = centre - 5.0, centre + 6.0, (np.sqrt(5.0) - 1.0) / 2.0

    def score(level: float) -> float:
        return float(_log_softmax(-np.exp(level) * losses)[np.arange(len(labels)), labels].mean())

    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if score(left) > score(right) else (left, high)
    return np.full(features.shape[2], (low + high) / 2.0)


def _fit(features: Floats, labels: Labels, strength: float, theta: Floats) -> Floats:
    """Levenberg-Marquardt on the penalised likelihood, with Fisher's information in place of the second derivatives."""
    n, _, n_knots = features.shape
    bends, level = np.diff(np.eye(n_knots), 2, axis=0), np.eye(n_knots) - 1.0 / n_knots
    penalty = strength * (bends.T @ bends + RIDGE * level)
    rows = np.arange(n)

    def objective(theta: Floats) -> float:
        log_p = _log_softmax(-(features @ np.exp(theta)))
        return float(-log_p[rows, labels].mean() + 0.5 * theta @ penalty @ theta)

    value, damping = objective(theta), 1e-3
    for _ in range(60):
        slopes = features * np.exp(theta)  # -d logit / d theta
        p = np.exp(_log_softmax(-slopes.sum(axis=2)))
        mean = np.einsum("nk,nkj->nj", p, slopes)
        gradient = (slopes[rows, labels] - mean).mean(axis=0) + penalty @ theta
        centred = (slopes - mean[:, None]) * np.sqrt(p)[:, :, None]
        centred = centred.reshape(-1, n_knots)
        information = centred.T @ centred / n + penalty
        scale = np.trace(information) / n_knots
        while damping < 1e9:
            step = np.linalg.solve(information + damping * scale * np.eye(n_knots), gradient)
            moved = theta - np.clip(step, -2.0, 2.0)
            reached = objective(moved)
            if reached < value:
                break
            damping *= 4.0
        else:
            break
        gained, theta, value, damping = value - reached, moved, reached, max(damping / 4.0, 1e-7)
        if gained < 1e-9 * max(1.0, abs(value)):
            break
    return theta


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float64)
