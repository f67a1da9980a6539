"""How a race went."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..result import Result
from .display import BLUE, MUTED, Display


class EliminationDisplay(Display):
    """How the race went: how many classes were left after so many evaluations, or how far each one got.

    Parameters
    ----------
    classes : (K,) list of str
    excess, stderr : (K,) float64
        Mean loss above the winner's and its loss's standard error, at the class's last trial.
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

    @classmethod
    def from_result(cls, result: Result, *, ax: Any = None, **options: Any) -> Self:
        """Of one result, drawn.

        Parameters
        ----------
        result : Result
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plot`.

        Returns
        -------
        EliminationDisplay

        Raises
        ------
        ValueError
            An impossible option.
        MissingExtraError
            matplotlib is not installed.
        """
        return cls(
            classes=result.classes,
            excess=result.excess,
            stderr=result.stderr,
            n_trials=result.n_trials,
            alive=result.alive,
            index=result.index,
            trace=result.trace,
        ).plot(ax=ax, **options)

    @classmethod
    def from_estimator(cls, classifier: Any, image: Any, *, ax: Any = None, **options: Any) -> Self:
        """Of the race that the classifier runs on one picture.

        Parameters
        ----------
        classifier : Classifier
        image : one picture
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plot`.

        Returns
        -------
        EliminationDisplay

        Raises
        ------
        ValueError
            Several pictures, or an impossible option.
        MissingExtraError
            matplotlib is not installed.
        """
        result = classifier(image)
        if not isinstance(result, Result):
            raise InputError(f"image is {len(result)} pictures, must be one")
        return cls.from_result(result, ax=ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["count", "classes"] = "count",
        names: bool = True,
        max_classes: int = 20,
    ) -> Self:
        """Draw it.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        kind : {"count", "classes"}
            Classes alive against evaluations spent; or a line a class, as long as its trials, the winner on top.
        names : bool
            Of "count": names stand where a class left, as far as there is room.
        max_classes : int
            Of "classes": the last ones to leave; how many more there were is said.

        Returns
        -------
        EliminationDisplay

        Raises
        ------
        ValueError
            No such kind.
        """
        if kind == "count":
            return self._plot_count(ax, names)
        if kind == "classes":
            return self._plot_classes(ax, max_classes)
        raise InputError(f"kind is {kind!r}, must be 'count' or 'classes'")

    # ---- classes alive ----

    def _plot_count(self, ax: Any, names: bool) -> Self:
        ax = self._open(ax, (6, 3.5))
        k = len(self.classes)
        evals = [0, *(step["n_evals"] for step in self.trace)]
        alive = [k, *(step["n_alive"] for step in self.trace)]
        ax.step(evals, alive, where="post", color=BLUE, linewidth=2)
        ax.fill_between(evals, alive, step="post", color=BLUE, alpha=0.12, linewidth=0)
        ax.plot(evals[-1:], alive[-1:], "o", color=BLUE)
        ax.set(xlabel="denoiser evaluations", ylabel="classes alive", ylim=(0, k * 1.1), xlim=(0, evals[-1] * 1.3 + 1))
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        if names:
            self._write_names(ax, evals, alive)
        return self

    def _write_names(self, ax: Any, evals: list[int], alive: list[int]) -> None:
        """The winner at the end of the curve, and what each round dropped, where it dropped few."""
        self._note(
            ax, self.classes[self.index], evals[-1], alive[-1], (7, -3), color=BLUE, fontweight="bold", fontsize=9
        )
        was = alive[0]
        for step in self.trace:
            gone = [self.classes[i] for i in np.flatnonzero((self.n_trials == step["n_trials"]) & ~self.alive)]
            if 0 < len(gone) <= 3 and was - step["n_alive"] == len(gone):
                self._note(ax, "without " + ", ".join(gone), step["n_evals"], was, (4, 3), color=MUTED, fontsize=7)
            was = step["n_alive"]

    @staticmethod
    def _note(ax: Any, text: str, x: float, y: float, offset: tuple[int, int], **style: Any) -> None:
        ax.annotate(text, (x, y), textcoords="offset points", xytext=offset, **style)

    # ---- a line a class ----

    def _plot_classes(self, ax: Any, max_classes: int) -> Self:
        order = np.lexsort((np.nan_to_num(self.excess, nan=np.inf), -self.n_trials))  # the last to leave first
        order = np.concatenate([[self.index], order[order != self.index]])[:max_classes]
        ax = self._open(ax, (6, 0.9 + 0.24 * len(order)))
        longest = int(self.n_trials.max())
        for y, i in enumerate(order.tolist()):
            wins = i == self.index
            colour = BLUE if wins or self.alive[i] else MUTED
            marker = "o" if self.alive[i] else "x"
            ax.plot([0, self.n_trials[i]], [y, y], color=colour, linewidth=3 if wins else 1.5, solid_capstyle="butt")
            ax.plot(self.n_trials[i], y, marker, color=colour, markersize=6, markeredgewidth=1.5)
            told = f"{self.classes[i]}" if wins else f"{self.excess[i]:+.2g}" if self.n_trials[i] else "no trial"
            weight = "bold" if wins else "normal"
            self._note(ax, told, self.n_trials[i], y, (8, 0), color=colour, fontsize=8, fontweight=weight, va="center")
        ax.set_yticks(range(len(order)), [self.classes[i] for i in order], fontsize=8)
        ax.set(xlabel="trials", xlim=(0, longest * 1.25 + 1), ylim=(len(order) - 0.4, -0.6))
        ax.set_title("x where a class was dropped; its mean loss above the winner's", fontsize=8, loc="left")
        if len(order) < len(self.classes):
            ax.set_ylabel(f"the last {len(order)} of {len(self.classes)} classes", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        return self
