"""Plots in scikit-learn's Display style: data in, `plot(ax=)` draws and returns the Display.  Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError, MissingExtraError
from .reliability import ReliabilityCurve, reliability_curve
from .result import Result
from .selective import RiskCoverageCurve, risk_coverage_curve

if TYPE_CHECKING:
    from .evaluation.report import Report

# Okabe and Ito's colours: told apart by the colour-blind and in print
WINNER, OTHERS, DROPPED = "#0072B2", "#E69F00", "#999999"


class EliminationDisplay:
    """How the race went: each class's loss above the winner's, and where it was dropped.

    Parameters
    ----------
    classes : (K,) list of str
    excess, stderr : (K,) float64
        Mean loss above the winner's and its standard error, at the class's last trial.
    n_trials : (K,) int64
    alive : (K,) bool
    index : int
        The winner.
    trace : list of dict
        Rounds: n_trials, n_alive, n_evals.

    Attributes
    ----------
    ax_, figure_ : after `plot`
    """

    def __init__(
        self,
        *,
        classes: list[str],
        excess: NDArray[np.float64],
        stderr: NDArray[np.float64],
        n_trials: NDArray[np.int64],
        alive: NDArray[np.bool_],
        index: int,
        trace: list[dict[str, int]],
    ) -> None:
        self.classes, self.index, self.trace = classes, index, trace
        self.excess, self.stderr, self.n_trials, self.alive = excess, stderr, n_trials, alive
        self.ax_: Any = None
        self.figure_: Any = None

    @classmethod
    def from_result(cls, result: Result, *, ax: Any = None, **kwargs: Any) -> EliminationDisplay:
        """Of one `Result`, drawn."""
        display = cls(
            classes=result.classes,
            excess=result.excess,
            stderr=result.stderr,
            n_trials=result.n_trials,
            alive=result.alive,
            index=result.index,
            trace=result.trace,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, *, names: bool = True) -> EliminationDisplay:
        """Classes alive against evaluations spent; names stand where a class left.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        names : bool
            Write the names of the last few classes at the step where they left.
        """
        if ax is None:
            _, ax = _pyplot().subplots(figsize=(6, 3.5), layout="constrained")
        k = len(self.classes)
        evals = [0, *(step["n_evals"] for step in self.trace)]
        alive = [k, *(step["n_alive"] for step in self.trace)]
        ax.step(evals, alive, where="post", color=WINNER, linewidth=2)
        ax.plot(evals[-1:], alive[-1:], "o", color=WINNER)
        ax.set(
            xlabel="denoiser evaluations", ylabel="classes alive", ylim=(0, k * 1.08), xlim=(0, evals[-1] * 1.25 + 1)
        )
        if names:
            self._write_names(ax, evals, alive)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _write_names(self, ax: Any, evals: list[int], alive: list[int]) -> None:
        """The winner at the end of the curve, and what each later round dropped."""
        ax.annotate(
            self.classes[self.index], (evals[-1], alive[-1]), textcoords="offset points", xytext=(6, 4),
            color=WINNER, fontweight="bold", fontsize=8,
        )  # fmt: skip
        left = {step["n_trials"]: (step["n_evals"], step["n_alive"]) for step in self.trace}
        for n, (at, still) in left.items():
            gone = [self.classes[i] for i in np.flatnonzero((self.n_trials == n) & ~self.alive)]
            if 0 < len(gone) <= 3:
                ax.annotate(
                    "without " + ", ".join(gone), (at, still), textcoords="offset points", xytext=(4, 14),
                    color=DROPPED, fontsize=7,
                )  # fmt: skip


def contact_sheet(pictures: Any, results: Any, truth: list[str], path: Any) -> None:
    """A PNG of every picture with its answer and its elimination curve; wrong answers in orange."""
    pyplot = _pyplot()
    columns, n = 6, len(results)
    rows = -(-n // columns)
    figure, axes = pyplot.subplots(
        rows, 2 * columns, figsize=(3.2 * columns, 1.9 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for i, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        image, curve = axes[i // columns][2 * (i % columns)], axes[i // columns][2 * (i % columns) + 1]
        right = result.label == truth[i]
        image.imshow(picture, cmap="gray", interpolation="nearest")
        text = result.label if right else f"{result.label}\n(is {truth[i]})"
        image.set_title(
            text, fontsize=8, color="black" if right else "#D55E00", fontweight="normal" if right else "bold"
        )
        curve.axis("on")
        EliminationDisplay.from_result(result, ax=curve, names=False)
        curve.set(xlabel="", ylabel="")
        curve.set_title(f"p {result.probabilities[result.index]:.2f}, {result.n_evals} evals", fontsize=7)
        curve.tick_params(labelsize=6)
    figure.suptitle("classes alive against denoiser evaluations; a wrong answer is orange", fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


class ReliabilityDisplay:
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
        self.ax_: Any = None
        self.figure_: Any = None

    @classmethod
    def from_results(
        cls, results: Any, labels: ArrayLike, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> ReliabilityDisplay:
        """Of labelled results, drawn; `options` are those of `reliability_curve`."""
        return cls(reliability_curve(results, labels, **options)).plot(ax=ax, name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, histogram: bool = True) -> ReliabilityDisplay:
        """Share of right answers with its interval in each bin; a calibrated classifier's points lie on the diagonal.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        name : str or None
            Put before the calibration error in the legend.
        histogram : bool
            Share of pictures in each bin, as grey bars from the lower border (same axis: their heights sum to 1).
        """
        if ax is None:
            _, ax = _pyplot().subplots(figsize=(4.5, 4.5), layout="constrained")
        curve, full = self.curve, self.curve.count > 0
        if histogram:
            share, width = curve.count / curve.count.sum(), np.diff(curve.edges)
            ax.bar(
                curve.edges[:-1],
                share,
                width,
                align="edge",
                color="#DDDDDD",
                edgecolor="white",
                label="share of pictures",
            )
        ax.plot([0, 1], [0, 1], ":", color=DROPPED, label="calibrated")
        spread = [curve.accuracy - curve.accuracy_low, curve.accuracy_high - curve.accuracy]
        low, high = curve.ece_interval
        bins = {"uniform": "equal width", "quantile": "equal mass"}[curve.strategy]
        label = f"{name}: " if name else ""
        label += f"ECE {curve.ece:.3f} ({low:.3f} to {high:.3f}; {curve.ece_if_calibrated:.3f} by chance)\n"
        label += f"{len(curve.count)} bins of {bins}"
        ax.errorbar(
            curve.confidence[full], curve.accuracy[full], [np.maximum(side[full], 0) for side in spread],
            fmt="o-", color=WINNER, markersize=4, capsize=2, linewidth=1, label=label,
        )  # fmt: skip
        ax.set(xlabel="probability of the answer", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)  # above: it hides no point
        self.ax_, self.figure_ = ax, ax.figure
        return self


class RiskCoverageDisplay:
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
        self.ax_: Any = None
        self.figure_: Any = None

    @classmethod
    def from_results(
        cls, results: Any, labels: ArrayLike, *, ax: Any = None, name: str | None = None, **options: Any
    ) -> RiskCoverageDisplay:
        """Of labelled results, drawn; `options` are those of `risk_coverage_curve`."""
        return cls(risk_coverage_curve(results, labels, **options)).plot(ax=ax, name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, references: bool = True) -> RiskCoverageDisplay:
        """The curve; with `references` also that of a random order and of the best one.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        name : str or None
            Put before the area in the legend.
        references : bool
        """
        if ax is None:
            _, ax = _pyplot().subplots(figsize=(5, 3.5), layout="constrained")
        curve = self.curve
        low, high = curve.aurc_interval
        label = f"{name}: " if name else ""
        ax.plot(
            curve.coverage, curve.risk, color=WINNER, linewidth=2,
            label=label + f"AURC {curve.aurc:.4f} ({low:.4f} to {high:.4f})",
        )  # fmt: skip
        if references:
            ax.plot([0, 1], [curve.risk[-1]] * 2, ":", color=DROPPED, label="random order")
            ax.plot(curve.coverage, curve.best_risk, "--", color=OTHERS, label="best order")
        ax.set(xlabel="coverage: share of pictures answered", ylabel="risk: share of wrong answers", xlim=(0, 1))
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)  # above: it hides no point
        self.ax_, self.figure_ = ax, ax.figure
        return self


class ReportDisplay:
    """An evaluation at a glance: confusion, reliability, and how many evaluations images cost.

    Parameters
    ----------
    report : Report

    Attributes
    ----------
    axes_, figure_ : after `plot`
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.axes_: Any = None
        self.figure_: Any = None

    def plot(self, axes: Any = None) -> ReportDisplay:
        """Draws what the report has: without labels only the evaluations.

        Parameters
        ----------
        axes : sequence of three matplotlib axes or None
            None: a new figure.

        Raises
        ------
        ValueError
            Not three axes.
        """
        if axes is None:
            _, axes = _pyplot().subplots(1, 3, figsize=(15, 4.5), layout="constrained")
        axes = list(np.ravel(axes))
        if len(axes) != 3:
            raise InputError(f"axes has {len(axes)} axes, must have three")
        if self.report.n_judged:
            self._draw_confusion(axes[0])
            ReliabilityDisplay(self.report.reliability()).plot(ax=axes[1])
        else:
            for ax in axes[:2]:
                ax.text(0.5, 0.5, "no labels", ha="center", va="center")
                ax.set_axis_off()
        spent = self.report.n_evals[self.report.prediction >= 0]
        axes[2].hist(spent, bins=50, color=WINNER)
        if len(spent):
            axes[2].axvline(spent.mean(), color=OTHERS, label=f"mean {spent.mean():.0f}")
            axes[2].legend(fontsize=7, frameon=False)
        axes[2].set(xlabel="denoiser evaluations of an image", ylabel="images")
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _draw_confusion(self, ax: Any) -> None:
        """Shares of each label's images; numbers and names where there is room."""
        counts, classes = self.report.confusion, self.report.classes
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if len(classes) <= 20:
            ax.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
            ax.set_yticks(range(len(classes)), classes, fontsize=7)
            for i, j in np.argwhere(counts > 0).tolist():
                colour = "white" if share[i, j] > 0.5 else "black"
                ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=6, color=colour)
        low, high = self.report.accuracy_interval
        ax.set(xlabel="answer", ylabel="label")
        ax.set_title(f"accuracy {self.report.accuracy:.4f} ({low:.4f} to {high:.4f})", fontsize=9)


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingExtraError("plots need matplotlib: pip install 'diffcls[plot]'") from None
    return pyplot
