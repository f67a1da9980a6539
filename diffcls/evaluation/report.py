"""What an evaluation found, as numbers with their intervals."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import arguments
from ..audit import Audit
from ..errors import InputError
from ..intervals import Interval, clopper_pearson, interval, wilson
from ..reliability import ReliabilityCurve, curve_of
from . import rows as row_files
from .merging import RESULTS, shard_tables
from .store import Run, load_run

if TYPE_CHECKING:
    from ..plotting import ReportDisplay
    from .comparison import Comparison

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NONE = -1
"""Label of an image without one, prediction of one that could not be judged."""


@dataclass(frozen=True, eq=False)
class Report:
    """Of N images and K classes.

    Shares are of the images that have a label and an answer; an image with an error is counted in `n_errors` and nowhere
    else.  Without a label anywhere they are NaN.

    Attributes
    ----------
    classes : list of str, (K,)
    ids : (N,) pyarrow array of str
    label, prediction : (N,) int64
        Positions in `classes`; -1: no label, no answer.
    rank : (N,) int64
        Place of the label in `Result.ranking`, 0: the answer is right; -1: no label or no answer.
    confidence : (N,) float64
        Probability of the answer; NaN without one.
    n_evals : (N,) int64
    status : (N,) of str or None
    p_disagree : (N,) float64
    full_prediction : (N,) int64
        The full pool's answer where the image was audited, else -1.
    errors : list of (id, sentence)
    run : dict
        The run record, and "fingerprint": all that changes numbers.
    """

    classes: list[str]
    ids: Any = field(repr=False)
    label: Ints = field(repr=False)
    prediction: Ints = field(repr=False)
    rank: Ints = field(repr=False)
    confidence: Floats = field(repr=False)
    n_evals: Ints = field(repr=False)
    status: NDArray[np.object_] = field(repr=False)
    p_disagree: Floats = field(repr=False)
    full_prediction: Ints = field(repr=False)
    errors: list[tuple[str, str]] = field(repr=False)
    run: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, out: str | os.PathLike[str]) -> Report:
        """Of a folder of `evaluate`, all its shards (`merge_shards`).

        Parameters
        ----------
        out : str or path

        Returns
        -------
        Report

        Raises
        ------
        ValueError
            It holds no results, shards are not done, or the table is damaged.
        """
        out = Path(out)
        run, pa = load_run(out), row_files.pyarrow()
        if not (out / RESULTS).exists():
            raise InputError(f"{out} has no {RESULTS}: its shards are not done, or not merged (merge_shards)")
        try:
            file = pa.parquet.ParquetFile(out / RESULTS)
            return cls._of(run, (file.read_row_group(i, **row_files.ALONE) for i in range(file.num_row_groups)))
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{out / RESULTS} is damaged ({str(error).splitlines()[0]}): merge_shards makes it anew"
            ) from None

    @classmethod
    def of_shard(cls, out: str | os.PathLike[str], index: int) -> Report:
        """Of what one shard has in whole parts so far: nothing, where it has not begun.

        Parameters
        ----------
        out : str or path
        index : int
            The shard's number, from 0.

        Returns
        -------
        Report

        Raises
        ------
        ValueError, TypeError
            `out` holds no results, or `index` is no integer of 0 or more.
        """
        run = load_run(Path(out))
        return cls._of(run, shard_tables(Path(out), run, arguments.integer("index", index, at_least=0)))

    @classmethod
    def _of(cls, run: Run, tables: Iterable[Any]) -> Report:
        pa = row_files.pyarrow()
        pieces = [_columns(table, run.classes) for table in tables]
        if not pieces:
            pieces = [_columns(row_files.schema(run.classes, run.fingerprint).empty_table(), run.classes)]
        joined = {
            name: np.concatenate([piece[name] for piece in pieces])
            for name in pieces[0]
            if name not in ("ids", "errors")
        }
        return cls(
            classes=run.classes,
            ids=pa.chunked_array([piece["ids"] for piece in pieces], pa.string()),
            errors=[pair for piece in pieces for pair in piece["errors"]],
            run={**run.record, "fingerprint": run.fingerprint},
            **joined,
        )

    # ---- counts ------------------------------------------------------------------------------------------------------

    @property
    def n_images(self) -> int:
        """N, with those that could not be judged."""
        return len(self.label)

    @property
    def n_errors(self) -> int:
        """Images that could not be judged."""
        return len(self.errors)

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """(N,): the image has a label and an answer."""
        return np.asarray(self.rank != NONE)

    @property
    def n_judged(self) -> int:
        """Images with a label and an answer."""
        return int(self.judged.sum())

    # ---- accuracy ----------------------------------------------------------------------------------------------------

    @property
    def accuracy(self) -> float:
        """Top-1, of the images that have a label and an answer; NaN: there are none."""
        return self.top_k_accuracy(1)

    @property
    def accuracy_interval(self) -> Interval:
        """Wilson's interval of `accuracy`, 95 %."""
        return _wilson(int((self.rank == 0).sum()), self.n_judged)

    def top_k_accuracy(self, k: int) -> float:
        """Share of images whose label is among the `k` best classes of `Result.ranking`.

        Parameters
        ----------
        k : int
            1 or more.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            `k` is no integer of 1 or more.
        """
        k = arguments.integer("k", k, at_least=1)
        return float((self.rank[self.judged] < k).mean()) if self.n_judged else float("nan")

    @cached_property
    def confusion(self) -> Ints:
        """(K, K) counts: rows are labels, columns answers."""
        k, judged = len(self.classes), self.judged
        return np.bincount(self.label[judged] * k + self.prediction[judged], minlength=k * k).reshape(k, k)

    def per_class(self) -> list[dict[str, Any]]:
        """Accuracy of each class.

        Returns
        -------
        list of dict
            "class", "n" (its images), "right", "accuracy", and "low" and "high", the ends of Wilson's 95 % interval; NaN without
            images.
        """
        n, right = self.confusion.sum(axis=1), self.confusion.diagonal()
        rows = []
        for name, of, count in zip(self.classes, n.tolist(), right.tolist(), strict=True):
            low, high = _wilson(count, of)
            share = count / of if of else float("nan")
            rows.append({"class": name, "n": of, "right": count, "accuracy": share, "low": low, "high": high})
        return rows

    @property
    def mean_per_class_accuracy(self) -> float:
        """Mean over the classes that have images: the measure of Pets, Flowers, Aircraft and Caltech101."""
        n = self.confusion.sum(axis=1)
        some = n > 0
        return float((self.confusion.diagonal()[some] / n[some]).mean()) if some.any() else float("nan")

    def mean_per_class_interval(
        self, confidence_level: float = 0.95, n_bootstrap: int = 2000, seed: int = 0
    ) -> Interval:
        """Percentile interval of `mean_per_class_accuracy`, by a bootstrap over the images of each class.

        Parameters
        ----------
        confidence_level : float
        n_bootstrap : int
            Resamples.
        seed : int
            Of the resamples.

        Returns
        -------
        (low, high) : pair of float
            NaN without labels.

        Raises
        ------
        ValueError
            An impossible number.
        """
        arguments.integer("n_bootstrap", n_bootstrap, at_least=1)
        rng = np.random.default_rng(arguments.integer("seed", seed, at_least=0))
        n = self.confusion.sum(axis=1)
        some = n > 0
        if not some.any():
            return float("nan"), float("nan")
        n, right = n[some], self.confusion.diagonal()[some]
        draws = rng.binomial(n, right / n, size=(n_bootstrap, len(n)))  # resampling bits, counted
        return interval((draws / n).mean(axis=1).tolist(), confidence_level)

    # ---- probabilities and costs -------------------------------------------------------------------------------------

    def reliability(self, **options: Any) -> ReliabilityCurve:
        """How probable answers were, and how often they were right.

        Parameters
        ----------
        **options
            Of `reliability_curve`.

        Returns
        -------
        ReliabilityCurve

        Raises
        ------
        ValueError
            No image has a label and an answer.
        """
        if not self.n_judged:
            raise InputError("no image has a label and an answer: there is nothing to calibrate against")
        return curve_of(self.confidence[self.judged], self.rank[self.judged] == 0, **options)

    @property
    def evaluations(self) -> dict[str, float]:
        """Denoiser evaluations of an image that has an answer: mean, median, percentiles 5, 95 and 99, maximum, and the sum."""
        spent = self.n_evals[self.prediction != NONE]
        if not len(spent):
            return {}
        low, median, high, top = np.percentile(spent, [5, 50, 95, 99]).tolist()
        return {
            "mean": float(spent.mean()), "p5": low, "median": median, "p95": high, "p99": top,
            "max": float(spent.max()), "total": float(spent.sum()),
        }  # fmt: skip

    @property
    def status_counts(self) -> dict[str, int]:
        """How many races ended how."""
        told = [status for status in self.status if status is not None]
        return {status: told.count(status) for status in sorted(set(told))}

    @property
    def audit(self) -> Audit | None:
        """Of the images that were run to the full pool too (``evaluate(audit=)``); None: of none."""
        rows = np.flatnonzero(self.full_prediction != NONE)
        if not len(rows):
            return None
        differ = rows[self.full_prediction[rows] != self.prediction[rows]]
        return Audit(
            n_images=len(rows),
            n_disagree=len(differ),
            disagreement=len(differ) / len(rows),
            interval=clopper_pearson(len(differ), len(rows)),
            confidence=0.95,
            stated=float(self.p_disagree[rows].mean()),
            n_evals=int(self.n_evals[rows].sum()),
            n_evals_full=int(self.run["max_evals"]) * len(rows),
            indices=rows.tolist(),
            disagreeing=differ.tolist(),
            run=self.run,
        )

    # ---- views -------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects: the figures, not the images' rows.  What is not known is None.

        Returns
        -------
        dict
        """
        from .report_text import summary

        return summary(self)

    def to_markdown(self) -> str:
        """The figures as tables.

        Returns
        -------
        str
        """
        from .report_text import markdown

        return markdown(self)

    def to_html(self) -> str:
        """A page that needs nothing else.

        Returns
        -------
        str
        """
        from .report_text import page

        return page(self)

    def _repr_html_(self) -> str:
        from .report_text import fragment

        return fragment(self)

    def plot(self, **options: Any) -> ReportDisplay:
        """Confusion, reliability and evaluations side by side: a `plotting.ReportDisplay` (needs matplotlib).

        Parameters
        ----------
        **options
            Of `plotting.ReportDisplay.plot`.

        Returns
        -------
        ReportDisplay

        Raises
        ------
        ValueError
            Not three axes.
        MissingExtraError
            matplotlib is not installed.
        """
        from ..plotting import ReportDisplay

        return ReportDisplay(self).plot(**options)

    def compare(self, other: Report, **options: Any) -> Comparison:
        """With another report on the same images.

        Parameters
        ----------
        other : Report
        **options
            Of `compare`.

        Returns
        -------
        Comparison

        Raises
        ------
        ValueError
            The images differ, or their labels do.
        """
        from .comparison import compare

        return compare(self, other, **options)

    def __repr__(self) -> str:
        low, high = self.accuracy_interval
        right = f"accuracy {self.accuracy:.4f} ({low:.4f} to {high:.4f})" if self.n_judged else "no labels"
        return f"Report({self.n_images} images, {len(self.classes)} classes, {right}, {self.n_errors} errors)"


def _wilson(right: int, n: int) -> Interval:
    if not n:
        return float("nan"), float("nan")
    low, high = wilson(right, n)
    return float(low), float(high)


def _columns(table: Any, classes: list[str]) -> dict[str, Any]:
    """Of one table: what a report keeps of an image."""
    pa = row_files.pyarrow()
    import pyarrow.compute

    names = pa.array(classes, pa.string())

    def index(name: str) -> Ints:
        column = pyarrow.compute.index_in(table.column(name).cast(pa.string()).combine_chunks(), value_set=names)
        return np.asarray(column.fill_null(NONE).to_numpy(zero_copy_only=False), np.int64)

    def number(name: str) -> Floats:
        return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)  # null is NaN

    label, prediction = index("label"), index("prediction")
    rank, confidence = _places(table, label, prediction, len(classes))
    failed = table.filter(pyarrow.compute.is_valid(table.column("error")))
    return {
        "ids": table.column("id").combine_chunks(),
        "label": label,
        "prediction": prediction,
        "rank": rank,
        "confidence": confidence,
        "n_evals": np.asarray(table.column("n_evals").to_numpy(), np.int64),
        "status": _texts(table.column("status")),
        "p_disagree": number("p_disagree"),
        "full_prediction": index("full_prediction"),
        "errors": list(zip(failed.column("id").to_pylist(), failed.column("error").to_pylist(), strict=True)),
    }


def _texts(column: Any) -> NDArray[np.object_]:
    """One Python object a text, however many rows have it."""
    coded = column.combine_chunks().dictionary_encode()
    words = np.array([*coded.dictionary.to_pylist(), None], object)
    return np.asarray(words[coded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)], object)


def _places(table: Any, label: Ints, prediction: Ints, k: int) -> tuple[Ints, Floats]:
    """(rank, confidence), as `Result.ranking` has it: the winner, then by probability, ties in the classes' order."""
    lists = table.column("probabilities").combine_chunks()
    answered = np.flatnonzero(prediction != NONE)
    probabilities = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float64).reshape(len(answered), k)
    rank, confidence = np.full(len(label), NONE, np.int64), np.full(len(label), np.nan)
    rows, winner, asked = np.arange(len(answered)), prediction[answered], label[answered]
    confidence[answered] = probabilities[rows, winner]
    with_label = asked != NONE
    mine = probabilities[rows, asked][:, None]
    before = (probabilities > mine) | ((probabilities == mine) & (np.arange(k) < asked[:, None]))
    ahead = before.sum(axis=1) + 1 - before[rows, winner]
    rank[answered[with_label]] = np.where(asked == winner, 0, ahead)[with_label]
    return rank, confidence
