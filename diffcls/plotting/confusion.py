"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, ShapeError
from ..labels import check_labels
from ..temperature import as_results
from .display import LabelledDisplay

ROOM = 20
"""Classes up to which names and numbers can be read."""


class ConfusionMatrixDisplay(LabelledDisplay):
    """Confusion matrix: rows are labels, columns answers; a colour is the share of its row.

    Parameters
    ----------
    counts : (K, K) array_like of int
    classes : (K,) sequence of str

    Attributes
    ----------
    image_ : the matrix's artist, after `plot`
    ax_, figure_ : after `plot`

    Raises
    ------
    ValueError
        `counts` is no square of the classes.
    """

    image_: Any = None

    def __init__(self, counts: ArrayLike, classes: Sequence[str]) -> None:
        self.counts, self.classes = np.asarray(counts), list(classes)
        if self.counts.shape != (len(self.classes),) * 2:
            raise ShapeError(f"counts has shape {self.counts.shape}, must be {(len(self.classes),) * 2}")

    @classmethod
    def from_predictions(
        cls, labels: ArrayLike, answers: ArrayLike, classes: Sequence[str], *, ax: Any = None, **options: Any
    ) -> Self:
        """Of labels and answers, drawn.

        Parameters
        ----------
        labels, answers : (N,) array_like
            Names of `classes` or positions in them.
        classes : (K,) sequence of str
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plot`.

        Returns
        -------
        ConfusionMatrixDisplay

        Raises
        ------
        ValueError
            Not as many labels as answers, or one that is no class.
        MissingExtraError
            matplotlib is not installed.
        """
        truth = check_labels(labels, len(np.asarray(answers)), classes)
        answered = check_labels(answers, len(truth), classes)
        k = len(classes)
        counts = np.bincount(truth * k + answered, minlength=k * k).reshape(k, k)
        return cls(counts, classes).plot(ax=ax, **options)

    @classmethod
    def from_results(cls, results: Any, labels: ArrayLike, *, ax: Any = None, **options: Any) -> Self:
        """Of labelled results, drawn.

        Parameters
        ----------
        results : Results or list of N Result
        labels : (N,) array_like
            True classes, names or positions.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plot`.

        Returns
        -------
        ConfusionMatrixDisplay

        Raises
        ------
        ValueError
            No results, not as many labels, or a label that is no class.
        MissingExtraError
            matplotlib is not installed.
        """
        listed = as_results(results)
        if listed is None:
            raise InputError(f"results is {type(results).__name__}, must be Results or a list of Result")
        answers = [result.index for result in listed]
        return cls.from_predictions(labels, answers, listed[0].classes, ax=ax, **options)

    def plot(self, ax: Any = None, *, numbers: bool | None = None) -> Self:
        """Draw it.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        numbers : bool or None
            Write counts and names; None: of up to 20 classes.

        Returns
        -------
        ConfusionMatrixDisplay

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        k = len(self.classes)
        ax = self._open(ax, (1.6 + 0.3 * min(k, ROOM), 1.5 + 0.3 * min(k, ROOM)))
        share = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        self.image_ = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if k <= ROOM if numbers is None else numbers:
            style = {"fontsize": 7, "parse_math": False}  # a name may have dollars
            ax.set_xticks(range(k), self.classes, rotation=90, **style)
            ax.set_yticks(range(k), self.classes, **style)
            for i, j in np.argwhere(self.counts > 0).tolist():
                colour = "white" if share[i, j] > 0.5 else "black"
                ax.text(j, i, str(self.counts[i, j]), ha="center", va="center", fontsize=6, color=colour)
        ax.tick_params(length=0)
        ax.set(xlabel="answer", ylabel="label")
        return self
