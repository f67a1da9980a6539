"""What the Displays share: axes, colours, line styles."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike

from ..packages import package

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
"""Okabe and Ito's: told apart by the colour-blind, on white and on black."""

MUTED = "#7A7A7A"
"""For what stands back; text of it can be read on white and on black."""

SERIES = (
    (BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"), (ORANGE, (0, (6, 2, 1, 2, 1, 2)), "v"),
    (SKY, (0, (1, 3)), "P"),
)  # fmt: skip
"""(colour, line style, marker) of one series after the other: in print without colours the styles tell them apart."""


class Display:
    """The base: `ax_` and `figure_` are None until `plot`."""

    ax_: Any = None
    figure_: Any = None

    def _open(self, ax: Any, size: tuple[float, float]) -> Any:
        """The axes to draw on: those given, or those of a new figure of `size` inches."""
        if ax is None:
            _, ax = pyplot().subplots(figsize=size, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        return ax


class LabelledDisplay(Display):
    """Of answers held against labels."""

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
            Of the display.

        Returns
        -------
        Display

        Raises
        ------
        NotImplementedError
            Each display has its own.
        MissingExtraError
            matplotlib is not installed.
        """
        raise NotImplementedError

    @classmethod
    def from_estimator(cls, classifier: Any, images: Any, labels: ArrayLike, *, ax: Any = None, **options: Any) -> Self:
        """`from_results` of what the classifier answers to `images`.

        Parameters
        ----------
        classifier : Classifier
        images : sequence of N pictures
        labels : (N,) array_like
            True classes, names or positions.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `from_results`.

        Returns
        -------
        Display

        Raises
        ------
        ValueError
            Pictures that the model does not take, not as many labels, or a label that is no class.
        MissingExtraError
            matplotlib is not installed.
        """
        return cls.from_results(classifier(images), labels, ax=ax, **options)


def legend_above(ax: Any) -> None:
    """A legend that hides no point."""
    ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)


def pyplot() -> Any:
    return package("matplotlib.pyplot", "plots need matplotlib", "plot")
