"""An evaluation at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import InputError
from .confusion import ConfusionMatrixDisplay
from .display import BLUE, VERMILION, Display, pyplot
from .reliability import ReliabilityDisplay

if TYPE_CHECKING:
    from ..evaluation.report import Report


class ReportDisplay(Display):
    """An evaluation at a glance: confusion, reliability, and how many evaluations images cost.

    Parameters
    ----------
    report : Report

    Attributes
    ----------
    axes_, figure_ : after `plot`
    """

    axes_: Any = None

    def __init__(self, report: Report) -> None:
        self.report = report

    def plot(self, axes: Any = None) -> Self:
        """Draws what the report has: without labels only the evaluations.

        Parameters
        ----------
        axes : sequence of three matplotlib axes or None
            None: a new figure.

        Returns
        -------
        ReportDisplay

        Raises
        ------
        ValueError
            Not three axes.
        """
        if axes is None:
            _, axes = pyplot().subplots(1, 3, figsize=(15, 4.5), layout="constrained")
        axes = list(np.ravel(axes))
        if len(axes) != 3:
            raise InputError(f"axes has {len(axes)} axes, must have three")
        if self.report.n_judged:
            ConfusionMatrixDisplay(self.report.confusion, self.report.classes).plot(ax=axes[0])
            low, high = self.report.accuracy_interval
            axes[0].set_title(f"accuracy {self.report.accuracy:.4f} ({low:.4f} to {high:.4f})", fontsize=9)
            ReliabilityDisplay(self.report.reliability()).plot(ax=axes[1])
        else:
            for ax in axes[:2]:
                ax.text(0.5, 0.5, "no labels", ha="center", va="center")
                ax.set_axis_off()
        spent = self.report.n_evals[self.report.prediction >= 0]
        axes[2].hist(spent, bins=50, color=BLUE)
        if len(spent):
            axes[2].axvline(spent.mean(), color=VERMILION, linestyle="--", label=f"mean {spent.mean():.0f}")
            axes[2].legend(fontsize=7, frameon=False)
        axes[2].set(xlabel="denoiser evaluations of an image", ylabel="images")
        self.axes_, self.figure_ = axes, axes[0].figure
        return self
