"""Several pictures' results, stacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .packages import package
from .result import COLUMNS, Floats, Result


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
        """(N,) winners."""
        return [self.classes[i] for i in self.index.tolist()]

    @property
    def index(self) -> NDArray[np.int64]:  # type: ignore[override]  # the winners, as in Result; not a search
        """(N,) winners' positions in `classes`."""
        return self._stack("index", np.int64, by_class=False)

    @property
    def losses(self) -> Floats:
        """(N, K) weighted mean losses."""
        return self._stack("losses", np.float64)

    @property
    def stderr(self) -> Floats:
        """(N, K) standard errors of `losses`."""
        return self._stack("stderr", np.float64)

    @property
    def excess(self) -> Floats:
        """(N, K) losses above the winner's, over the trials that both have."""
        return self._stack("excess", np.float64)

    @property
    def n_trials(self) -> NDArray[np.int64]:
        """(N, K) trials evaluated."""
        return self._stack("n_trials", np.int64)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """(N, K): still in the race at the end."""
        return self._stack("alive", np.bool_)

    @property
    def probabilities(self) -> Floats:
        """(N, K), rows sum to 1."""
        return self._stack("probabilities", np.float64)

    @property
    def n_evals(self) -> NDArray[np.int64]:
        """(N,) denoiser evaluations spent."""
        return self._stack("n_evals", np.int64, by_class=False)

    @property
    def p_disagree(self) -> Floats:
        """(N,) estimated chance that the full pool would decide otherwise."""
        return self._stack("p_disagree", np.float64, by_class=False)

    @property
    def status(self) -> list[str]:
        """(N,) how each race ended, as `Result.status`."""
        return list(self._stacked["status"]) if self._stacked else [result.status for result in self._results]

    @property
    def calibrated(self) -> bool:
        """All of them are; False of none."""
        return bool(self._results) and all(result.calibrated for result in self._results)

    @property
    def trace(self) -> list[list[dict[str, int]]]:
        """(N,) races' rounds, as `Result.trace`."""
        return [result.trace for result in self._results]

    @property
    def errors(self) -> list[Floats | None]:
        """(N,) of (K, S) float64, or of None where errors were not kept."""
        return [result.errors for result in self._results]

    @property
    def unlike_training(self) -> list[bool | None]:
        """(N,) as `Result.unlike_training`."""
        return [result.unlike_training for result in self._results]

    @property
    def warnings(self) -> list[list[str]]:
        """(N,) lists of sentences."""
        return [result.warnings for result in self._results]

    @property
    def run(self) -> dict[str, Any]:
        """The first picture's run record; empty of no picture."""
        return dict(self._results[0].run) if self._results else {}

    def to_list(self, top_k: int | None = None) -> list[list[dict[str, Any]]]:
        """Of each picture what `Result.to_list` gives.

        Parameters
        ----------
        top_k : int or None
            So many of the best; None: all.

        Returns
        -------
        list of list of dict

        Raises
        ------
        TypeError
            `top_k` is no integer.
        """
        return [result.to_list(top_k) for result in self._results]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects, ready for json (NaN stays NaN): "classes", and "results" as of `Result.to_dict`.

        Returns
        -------
        dict
        """
        return {"classes": self.classes, "results": [result.to_dict() for result in self._results]}

    def to_arrow(self) -> Any:
        """A pyarrow table, one row a picture; arrays are lists.

        Returns
        -------
        pyarrow.Table

        Raises
        ------
        MissingExtraError
            pyarrow is not installed.
        """
        pa = package("pyarrow", "to_arrow needs pyarrow", "results")
        columns: Mapping[str, Any] = {
            "label": self.label,
            **{name: list(getattr(self, name)) for name in COLUMNS},
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
