"""Two reports on the same images: which answers differ, and whether that is chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..errors import InputError
from ..intervals import Interval, binomial_tail, interval
from . import rows as row_files
from .report import Report


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, over the images that have a label and an answer in both reports.

    Attributes
    ----------
    n_images : int
    both, only_first, only_second, neither : int
        Images on which so many of the two are right.
    accuracy_first, accuracy_second : float
    difference : float
        First minus second.
    interval : (float, float)
        Of the difference: bootstrap over images, percentiles.
    p_value : float
        Exact McNemar test (McNemar, Psychometrika 1947), two-sided: were both right equally often, how often would
        `only_first` and `only_second` differ as much or more?
    agreement : float
        Share of images with the same answer, right or wrong.
    evaluations_factor : float
        Mean evaluations of the second per evaluation of the first.
    confidence_level : float
    n_left_out : int
        Images that only one report has, or without label or answer in either.
    """

    n_images: int
    both: int
    only_first: int
    only_second: int
    neither: int
    accuracy_first: float
    accuracy_second: float
    difference: float
    interval: Interval
    p_value: float
    agreement: float
    evaluations_factor: float
    confidence_level: float
    n_left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects.

        Returns
        -------
        dict
        """
        return asdict(self)

    def __str__(self) -> str:
        low, high = (100 * bound for bound in self.interval)
        return (
            f"{100 * self.accuracy_first:.2f} % against {100 * self.accuracy_second:.2f} % of {self.n_images} images: "
            f"{100 * self.difference:+.2f} points ({100 * self.confidence_level:g} % interval {low:+.2f} to {high:+.2f}), "
            f"McNemar p = {self.p_value:.3g}; the same answer on {100 * self.agreement:.2f} %, "
            f"{self.evaluations_factor:.2f} times the evaluations"
        )


def compare(
    first: Report, second: Report, *, confidence_level: float = 0.95, n_bootstrap: int = 10_000, seed: int = 0
) -> Comparison:
    """Pairs two reports by the images' ids.

    Parameters
    ----------
    first, second : Report
    confidence_level : float
        Of the interval.
    n_bootstrap : int
        Resamples of the images, 1 or more.
    seed : int
        Of the resampling.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        They have no image in common that has a label and an answer in both, one has an id twice, an image has another label
        in the other, or an impossible option.
    TypeError
        `first` or `second` is no `Report`.
    ImportError
        pyarrow is not installed.
    """
    arguments.instance("first", first, Report)
    arguments.instance("second", second, Report)
    n_bootstrap = arguments.integer("n_bootstrap", n_bootstrap, at_least=1)
    a, b = _pairs(first, second)
    names = [np.array(report.classes, object) for report in (first, second)]
    judged = first.judged[a] & second.judged[b]
    if not judged.any():
        raise InputError("the reports have no image in common with a label and an answer in both")
    left_out = first.n_images + second.n_images - len(a) - int(judged.sum())
    a, b = a[judged], b[judged]
    labels = names[0][first.label[a]], names[1][second.label[b]]
    if (labels[0] != labels[1]).any():
        i = int(np.flatnonzero(labels[0] != labels[1])[0])
        id = first.ids[int(a[i])].as_py()
        raise InputError(f"image {id!r} has label {labels[0][i]!r} in one report, {labels[1][i]!r} in the other")
    right = first.rank[a] == 0, second.rank[b] == 0
    n, only = len(a), (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    both = int((right[0] & right[1]).sum())
    cells = np.array([only[0], only[1], n - sum(only)]) / n
    draws = np.random.default_rng(seed).multinomial(n, cells, size=n_bootstrap)  # resampled images, counted
    return Comparison(
        n_images=n,
        both=both,
        only_first=only[0],
        only_second=only[1],
        neither=n - both - sum(only),
        accuracy_first=float(right[0].mean()),
        accuracy_second=float(right[1].mean()),
        difference=(only[0] - only[1]) / n,
        interval=interval(((draws[:, 0] - draws[:, 1]) / n).tolist(), confidence_level),
        p_value=mcnemar(*only),
        agreement=float((names[0][first.prediction[a]] == names[1][second.prediction[b]]).mean()),
        evaluations_factor=float(second.n_evals[b].sum() / first.n_evals[a].sum()),
        confidence_level=confidence_level,
        n_left_out=left_out,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value: of n coin tosses, as uneven as this or more."""
    n = only_first + only_second
    return min(1.0, 2.0 * binomial_tail(max(only_first, only_second), n, 0.5)) if n else 1.0


def _pairs(first: Report, second: Report) -> tuple[Any, Any]:
    """Rows of the images that both have."""
    pa = row_files.pyarrow()
    import pyarrow.compute

    for name, report in (("first", first), ("second", second)):
        if len(pyarrow.compute.unique(report.ids)) < report.n_images:
            raise InputError(f"the {name} report has an id twice: images can not be paired by their ids")
    place = pyarrow.compute.index_in(first.ids, value_set=pa.concat_arrays(second.ids.chunks))
    place = np.asarray(place.fill_null(-1).to_numpy(), np.int64)
    found = np.flatnonzero(place >= 0)
    return found, place[found]
