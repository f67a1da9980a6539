"""What a classification says, in several forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core_types import RaceResult
from .packages import package
from .stored import as_json

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One picture's classification.  Losses are the data; probabilities are a view of them.

    Attributes
    ----------
    classes : list of str, (K,)
        In the caller's order.
    label, index : str, int
        The winner; ties go to the lowest index.
    losses, stderr : (K,) float64
        Weighted mean loss and its standard error, as of the class's last trial.
    excess : (K,) float64
        Mean loss above the winner's over the trials that both have.
    n_trials, alive : (K,) int64, bool
        Trials evaluated; still in the race at the end.
    probabilities : (K,) float64
        ``softmax(log prior - excess / temperature)``: uncalibrated unless the temperature was fitted.
    calibrated : bool
        It was, to losses of this kind: see the property's own text for what counts.
    n_evals : int
        Denoiser evaluations spent.
    status : {"decided", "pool_exhausted", "budget", "running"}
        One class alive; the pool was read and several are alive, never separated; `max_evals` allows no further trial; the
        race goes on (`watch`).
    p_disagree : float
        Estimated chance that the full pool would decide otherwise.
    trace : list of dict
        A round: n_trials, n_alive, n_evals, cumulative.
    errors : (K, S) float64 or None
        With ``keep_errors=True``: unweighted error of each trial, NaN where not evaluated.
    unlike_training : bool or None
        The picture is unlike those that the model was trained on as the winner; None: not judged.
    warnings : list of str
        Whole sentences about this picture; empty when there is nothing to say: that it is unlike the training pictures
        (an `OutOfWorldWarning` is issued too), that there were too few trials to tell, that others tie with the winner.
        No sentence is no proof: a picture is judged only by a model that knows its training pictures (the embedded
        one), from L2 errors, when the winner is one class of the model's own (not several pooled) and made as many
        trials as the model's judgement was fitted to (8), within its timesteps.  Replayed results are not judged.
    run : dict
        Enough to repeat it.
    picture : path, PIL.Image, small array or None
        What was classified, to be shown in a notebook; kept by a call of `classify` or a `Classifier`, not by streams.
    """

    classes: list[str]
    index: int
    losses: Floats
    stderr: Floats
    excess: Floats
    n_trials: NDArray[np.int64]
    alive: NDArray[np.bool_]
    probabilities: Floats
    n_evals: int
    status: str
    p_disagree: float
    trace: list[dict[str, int]]
    errors: Floats | None
    run: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    unlike_training: bool | None = None
    picture: Any = None

    @classmethod
    def from_race(
        cls,
        race: RaceResult,
        *,
        classes: list[str],
        log_prior: Floats,
        temperature: float,
        run: dict[str, Any],
        errors: Floats | None = None,
        warnings: Sequence[str] = (),
        unlike_training: bool | None = None,
    ) -> Result:
        """Of what the core says of one picture, live or replayed.

        Parameters
        ----------
        race : dict
            The core's own: index, losses, stderr, excess, n_trials, alive, n_evals, status, p_disagree, trace.
        classes : list of str, (K,)
        log_prior : (K,) float64
        temperature : float
            In the unit of the losses.
        run : dict
        errors : (K, S) float64 or None
        warnings : sequence of str
        unlike_training : bool or None
            As of the attributes.

        Returns
        -------
        Result

        Raises
        ------
        KeyError
            `race` lacks something.
        """
        return cls(
            classes=classes,
            index=race["index"],
            losses=race["losses"],
            stderr=race["stderr"],
            excess=race["excess"],
            n_trials=race["n_trials"],
            alive=race["alive"],
            probabilities=probabilities(race["excess"], log_prior, temperature),
            n_evals=race["n_evals"],
            status=race["status"],
            p_disagree=race["p_disagree"],
            trace=[dict(zip(("n_trials", "n_alive", "n_evals"), row, strict=True)) for row in race["trace"].tolist()],
            errors=errors,
            run=run,
            warnings=[*warnings, *_ties(race, classes)],
            unlike_training=unlike_training,
        )

    @property
    def label(self) -> str:
        """The winner."""
        return self.classes[self.index]

    @property
    def calibrated(self) -> bool:
        """Whether the temperature was fitted to losses of this kind.

        That is, by `fit_temperature` under this very policy: a race's losses are noisier than those of full evaluation.  The
        embedded model's temperature was fitted to its own policy, L2 errors under the model's own weighting, one prompt a
        class; it counts with these and no others.
        """
        fitted, policy = self.run.get("calibration"), as_json(self.run.get("policy"))
        if fitted is None or "shortlist" in self.run:  # a loss among k classes, by another number of trials
            return False
        return as_json(fitted.get("policy")) in (None, policy)

    def ranking(self) -> NDArray[np.int64]:
        """Class indices, best first: the winner, then by probability; ties in the caller's order.

        Returns
        -------
        (K,) int64
        """
        order = np.argsort(-self.probabilities, kind="stable")
        return np.concatenate([[self.index], order[order != self.index]])

    def to_list(self, top_k: int | None = None) -> list[dict[str, Any]]:
        """``[{"label": ..., "score": ...}, ...]``, best first, as Hugging Face pipelines give it.

        Parameters
        ----------
        top_k : int or None
            So many of the best; None: all.

        Returns
        -------
        list of dict

        Raises
        ------
        TypeError
            `top_k` is no integer.
        """
        return [{"label": self.classes[i], "score": float(self.probabilities[i])} for i in self.ranking()[:top_k]]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects, ready for json (NaN stays NaN).

        Returns
        -------
        dict
        """
        return {
            "label": self.label,
            "index": self.index,
            "classes": list(self.classes),
            **{name: getattr(self, name).tolist() for name in COLUMNS},
            "n_evals": self.n_evals,
            "calibrated": self.calibrated,
            "status": self.status,
            "p_disagree": self.p_disagree,
            "trace": self.trace,
            "unlike_training": self.unlike_training,
            "warnings": list(self.warnings),
            "run": self.run,
        }

    def to_arrow(self) -> Any:
        """A pyarrow table, one row a class; `unlike_training` is the picture's, in each.

        Returns
        -------
        pyarrow.Table

        Raises
        ------
        MissingExtraError
            pyarrow is not installed.
        """
        pa = package("pyarrow", "to_arrow needs pyarrow", "results")
        columns: dict[str, Any] = {"class": self.classes, **{name: getattr(self, name) for name in COLUMNS}}
        columns["unlike_training"] = pa.array([self.unlike_training] * len(self.classes), pa.bool_())
        return pa.table(columns)

    def plot(self, ax: Any = None, **kwargs: Any) -> Any:
        """The elimination curve.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        **kwargs
            Of `plotting.EliminationDisplay.plot`.

        Returns
        -------
        EliminationDisplay

        Raises
        ------
        ValueError
            An impossible option.
        MissingExtraError
            matplotlib is not installed.
        """
        from .plotting import EliminationDisplay

        return EliminationDisplay.from_result(self, ax=ax, **kwargs)

    def __repr__(self) -> str:
        return (
            f"Result({self.label!r}, {self.kind_of_probability} {self.probabilities[self.index]:.3f}, "
            f"{self.n_evals} evaluations, {self.status})"
        )

    @property
    def kind_of_probability(self) -> str:
        """ "probability", or "uncalibrated probability"."""
        return "probability" if self.calibrated else "uncalibrated probability"

    def _repr_html_(self) -> str:
        """Picture, bars and evaluations, for notebooks: no script, nothing from elsewhere."""
        from .result_html import of_result

        return of_result(self)


COLUMNS = ("losses", "stderr", "excess", "n_trials", "alive", "probabilities")
"""What a picture has one of for each class."""


def _ties(race: RaceResult, classes: Sequence[str]) -> list[str]:
    """A sentence when others have the very loss of the winner over all that it was asked."""
    n = race["n_trials"]
    tied = np.flatnonzero((race["excess"] == 0.0) & (n == n[race["index"]]))
    if len(tied) < 2:
        return []
    names = ", ".join(repr(classes[i]) for i in tied[:5]) + (", ..." if len(tied) > 5 else "")
    why = "; the denoiser seems to ignore its condition" if len(tied) == len(classes) else ""
    return [f"{names} tie: equal losses over {n[race['index']]} trials, the first of them is the answer{why}"]


def probabilities(excess: Floats, log_prior: Floats, temperature: float) -> Floats:
    """``softmax(log_prior - excess / temperature)``, (..., K); a class without a trial gets 0.

    Through long doubles: NumPy's exp of doubles has other last bits on processors with AVX-512 than on those without.
    """
    scores = logits(excess, log_prior, temperature)
    weights = np.exp((scores - scores.max(axis=-1, keepdims=True)).astype(np.longdouble))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float64)


def logits(excess: Floats, log_prior: ArrayLike, temperature: float) -> Floats:
    """``log_prior - excess / temperature``, (..., K); -inf for a class without a trial."""
    with np.errstate(over="ignore"):
        return np.where(np.isnan(excess), -np.inf, np.asarray(log_prior, np.float64) - excess / temperature)
