"""Answer only when sure: error against the share that is answered."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike

from ..selective import RiskCoverageCurve, risk_coverage_curve
from .display import BLUE, MUTED, ORANGE, LabelledDisplay, legend_above


class RiskCoverageDisplay(LabelledDisplay):
    """Selective prediction: error among the surest answers, against the share that is answered.

    Parameters
    ----------
    curve : RiskCoverageCurve

    Attributes
    ----------
    ax_, figure_ : after `plot`
    """

    def __init__(self, curve: RiskCoverageCurve) -> None:
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
            Put before the area in the legend.
        **options
            Of `risk_coverage_curve`.

        Returns
        -------
        RiskCoverageDisplay

        Raises
        ------
        ValueError
            No results, not as many labels, or a label that is no class.
        MissingExtraError
            matplotlib is not installed.
        """
        return cls(risk_coverage_curve(results, labels, **options)).plot(ax=ax, name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, references: bool = True) -> Self:
        """The curve; with `references` also that of a random order and of the best one.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        name : str or None
            Put before the area in the legend.
        references : bool

        Returns
        -------
        RiskCoverageDisplay

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        ax = self._open(ax, (5, 3.5))
        curve = self.curve
        low, high = curve.aurc_interval
        label = f"{name}: " if name else ""
        ax.plot(
            curve.coverage, curve.risk, color=BLUE, linewidth=2,
            label=label + f"AURC {curve.aurc:.4f} ({low:.4f} to {high:.4f})",
        )  # fmt: skip
        if references:
            ax.plot([0, 1], [curve.risk[-1]] * 2, ":", color=MUTED, label="random order")
            ax.plot(curve.coverage, curve.best_risk, "--", color=ORANGE, label="best order")
        ax.set(xlabel="coverage: share of pictures answered", ylabel="risk: share of wrong answers", xlim=(0, 1))
        ax.set_ylim(bottom=0)
        legend_above(ax)
        return self
