"""Are the probabilities true?"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ..reliability import ReliabilityCurve, reliability_curve
from .display import BLUE, MUTED, LabelledDisplay, legend_above


class ReliabilityDisplay(LabelledDisplay):
    """Reliability diagram: how often answers are right, by the probability that they claim.

    Parameters
    ----------
    curve : ReliabilityCurve

    Attributes
    ----------
    ax_, figure_ : after `plot`
    """

    def __init__(self, curve: ReliabilityCurve) -> None:
        self.curve = curve

    @classmethod
    def from_results(
        cls, results: Any, labels: ArrayLike, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> Self:
        """Of labelled results, drawn.

        Parameters
        ----------
        results : Results or list of N Result
        labels : (N,) array_like
            True classes, names or positions.
        ax : matplotlib axes or None
            None: a new figure.
        name : str or None
            Put before the calibration error in the legend.
        **options
            Of `reliability_curve`.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        ValueError
            No results, not as many labels, or a label that is no class.
        MissingExtraError
            matplotlib is not installed.
        """
        return cls(reliability_curve(results, labels, **options)).plot(ax=ax, name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, histogram: bool = True) -> Self:
        """Share of right answers with its interval in each bin; a calibrated classifier's points lie on the diagonal.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        name : str or None
            Put before the calibration error in the legend.
        histogram : bool
            Share of pictures in each bin, as grey bars from the lower border (same axis: their heights sum to 1).

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        ax = self._open(ax, (4.5, 4.5))
        curve, full = self.curve, self.curve.count > 0
        if histogram:
            share, width = curve.count / curve.count.sum(), np.diff(curve.edges)
            bars = {"color": MUTED, "alpha": 0.35, "linewidth": 0, "label": "share of pictures"}
            ax.bar(curve.edges[:-1], share, 0.96 * width, align="edge", **bars)
        ax.plot([0, 1], [0, 1], ":", color=MUTED, label="calibrated")
        spread = [curve.accuracy - curve.accuracy_low, curve.accuracy_high - curve.accuracy]
        low, high = curve.ece_interval
        bins = {"uniform": "equal width", "quantile": "equal mass"}[curve.strategy]
        label = f"{name}: " if name else ""
        label += f"ECE {curve.ece:.3f} ({low:.3f} to {high:.3f}; {curve.ece_if_calibrated:.3f} by chance)\n"
        label += f"{len(curve.count)} bins of {bins}"
        ax.errorbar(
            curve.confidence[full], curve.accuracy[full], [np.maximum(side[full], 0) for side in spread],
            fmt="o-", color=BLUE, markersize=4, capsize=2, linewidth=1, label=label,
        )  # fmt: skip
        ax.set(xlabel="probability of the answer", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        legend_above(ax)
        return self
