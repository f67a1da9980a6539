"""What a classification says, in several forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core_types import RaceResult
from .errors import MissingExtraError
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
    status : {"decided", "pool_exhausted", "budget"}
        One class alive; the pool was read and several are alive, never separated; `max_evals` allows no further trial.
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
        """Of what the core says of one picture, live or replayed."""
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
        """Class indices, best first: the winner, then by probability; ties in the caller's order."""
        order = np.argsort(-self.probabilities, kind="stable")
        return np.concatenate([[self.index], order[order != self.index]])

    def to_list(self, top_k: int | None = None) -> list[dict[str, Any]]:
        """``[{"label": ..., "score": ...}, ...]``, best first, as Hugging Face pipelines give it."""
        return [{"label": self.classes[i], "score": float(self.probabilities[i])} for i in self.ranking()[:top_k]]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects, ready for json (NaN stays NaN)."""
        return {
            "label": self.label,
            "index": self.index,
            "classes": list(self.classes),
            **{name: getattr(self, name).tolist() for name in _COLUMNS},
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
        """A pyarrow table, one row a class; `unlike_training` is the picture's, in each."""
        pa = _pyarrow()
        columns: dict[str, Any] = {"class": self.classes, **{name: getattr(self, name) for name in _COLUMNS}}
        columns["unlike_training"] = pa.array([self.unlike_training] * len(self.classes), pa.bool_())
        return pa.table(columns)

    def plot(self, ax: Any = None, **kwargs: Any) -> Any:
        """The elimination curve: an `EliminationDisplay` (needs matplotlib)."""
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


_COLUMNS = ("losses", "stderr", "excess", "n_trials", "alive", "probabilities")


class Results(Sequence[Result]):
    """Several pictures' classifications: a sequence of `Result`, and the same attributes stacked, pictures first.

    Parameters
    ----------
    results : sequence of Result
        One a picture, all of the same classes.
    classes : (K,) sequence of str
    stacked : mapping of name to array, or None
        Attributes of all pictures at once, where they are at hand (a replay's); None: taken from `results`.

    Attributes
    ----------
    classes : list of str, (K,)
    label : (N,) list of str
    index : (N,) int64
    losses, stderr, excess, probabilities : (N, K) float64
    n_trials, alive : (N, K) int64, bool
    n_evals : (N,) int64
    p_disagree : (N,) float64
    status, trace, errors, unlike_training, warnings : (N,) list
        Of what a `Result` has.
    calibrated : bool
        All of them are; False of none.
    run : dict
        The first picture's.
    """

    def __init__(
        self, results: Sequence[Result], classes: Sequence[str], *, stacked: Mapping[str, Any] | None = None
    ) -> None:
        self._results = list(results) if stacked is None else results
        self.classes = list(classes)
        self._stacked = stacked or {}

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Result | Results:
        if isinstance(index, slice):
            return Results(self._results[index], self.classes)
        return self._results[index]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def _stack(self, name: str, dtype: Any, *, by_class: bool = True) -> NDArray[Any]:
        """(N, K), or (N,) of what an image has one of."""
        rows = self._stacked[name] if name in self._stacked else [getattr(result, name) for result in self._results]
        shape = (len(self), len(self.classes)) if by_class else (len(self),)
        return np.array(rows, dtype).reshape(shape)

    @property
    def label(self) -> list[str]:
        return [self.classes[i] for i in self.index.tolist()]

    @property
    def index(self) -> NDArray[np.int64]:  # type: ignore[override]  # the winners, as in Result; not a search
        return self._stack("index", np.int64, by_class=False)

    @property
    def losses(self) -> Floats:
        return self._stack("losses", np.float64)

    @property
    def stderr(self) -> Floats:
        return self._stack("stderr", np.float64)

    @property
    def excess(self) -> Floats:
        return self._stack("excess", np.float64)

    @property
    def n_trials(self) -> NDArray[np.int64]:
        return self._stack("n_trials", np.int64)

    @property
    def alive(self) -> NDArray[np.bool_]:
        return self._stack("alive", np.bool_)

    @property
    def probabilities(self) -> Floats:
        return self._stack("probabilities", np.float64)

    @property
    def n_evals(self) -> NDArray[np.int64]:
        return self._stack("n_evals", np.int64, by_class=False)

    @property
    def p_disagree(self) -> Floats:
        return self._stack("p_disagree", np.float64, by_class=False)

    @property
    def status(self) -> list[str]:
        return list(self._stacked["status"]) if self._stacked else [result.status for result in self._results]

    @property
    def calibrated(self) -> bool:
        return bool(self._results) and all(result.calibrated for result in self._results)

    @property
    def trace(self) -> list[list[dict[str, int]]]:
        return [result.trace for result in self._results]

    @property
    def errors(self) -> list[Floats | None]:
        return [result.errors for result in self._results]

    @property
    def unlike_training(self) -> list[bool | None]:
        return [result.unlike_training for result in self._results]

    @property
    def warnings(self) -> list[list[str]]:
        return [result.warnings for result in self._results]

    @property
    def run(self) -> dict[str, Any]:
        return dict(self._results[0].run) if self._results else {}

    def to_list(self, top_k: int | None = None) -> list[list[dict[str, Any]]]:
        return [result.to_list(top_k) for result in self._results]

    def to_dict(self) -> dict[str, Any]:
        return {"classes": self.classes, "results": [result.to_dict() for result in self._results]}

    def to_arrow(self) -> Any:
        """A pyarrow table, one row a picture; arrays are lists."""
        pa = _pyarrow()
        columns: Mapping[str, Any] = {
            "label": self.label,
            **{name: list(getattr(self, name)) for name in _COLUMNS},
            "n_evals": self.n_evals,
            "status": self.status,
            "p_disagree": self.p_disagree,
            "unlike_training": pa.array(self.unlike_training, pa.bool_()),
        }
        return pa.table(dict(columns))

    def _repr_html_(self) -> str:
        """A row a picture, for notebooks."""
        from .result_html import of_results

        return of_results(self)

    def __repr__(self) -> str:
        mean = float(self.n_evals.mean()) if self._results else 0.0
        return f"Results({len(self)} pictures, {len(self.classes)} classes, {mean:.0f} evaluations each)"


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("to_arrow needs pyarrow: pip install 'diffcls[results]'") from None
    return pyarrow


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
