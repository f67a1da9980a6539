"""Where along the schedule classes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import arguments
from ..errors import InputError, ShapeError
from ..labels import class_index
from ..result import Result
from ..tables import ErrorTable
from .display import MUTED, SERIES, Display

Floats = NDArray[np.float64]


class LossCurveDisplay(Display):
    """Error against timestep, one picture: each class's, or its difference to one class's with the paired standard error.

    All classes see the same (timestep, noise), so the difference of two errors varies far less than either.  Trials are
    gathered in bins of the schedule; in a bin and for a class count the trials that both it and the reference have::

        difference = mean (e_class - e_reference)      stderr = std (e_class - e_reference) / sqrt(n)

    Errors are unweighted: how the loss weighs the timesteps is another matter.

    Parameters
    ----------
    classes : (K,) list of str
    errors : (K, S) array_like
        Unweighted error of each class at each trial; NaN where it was not evaluated.
    timesteps : (S,) array_like of int
        Row of the schedule of each trial.
    reference : str, int or None
        The class that the others are compared with; None: the one of smallest mean error among those with most trials.
    n_bins : int
        Of equal width, from the first to the last timestep.

    Attributes
    ----------
    reference : int
    timestep : (B,) float64
        Mean timestep of the trials of each bin; NaN in an empty one.
    n_trials : (K, B) int64
        That class and reference share.
    error, difference, stderr : (K, B) float64
        Mean error over the class's trials; the rest as above.  NaN without a trial, stderr NaN with less than two.
    ax_, figure_ : after `plot`

    Raises
    ------
    ValueError
        Shapes that do not go together, or no such class.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        errors: ArrayLike,
        timesteps: ArrayLike,
        reference: str | int | None = None,
        n_bins: int = 10,
    ) -> None:
        e, t = np.asarray(errors, np.float64), np.asarray(timesteps)
        if e.shape != (len(classes), t.size) or t.ndim != 1 or not t.size:
            raise ShapeError(f"errors has shape {e.shape}, must be ({len(classes)}, {t.size}): classes, timesteps")
        n_bins = arguments.integer("n_bins", n_bins, at_least=1)
        has = np.isfinite(e)
        self.classes, self.errors, self.timesteps = list(classes), e, t
        self.reference = _best(e, has) if reference is None else class_index(reference, self.classes, "reference")
        bins = np.minimum(((t - t.min()) * n_bins) // max(int(t.max() - t.min()), 1), n_bins - 1).astype(np.int64)
        member = bins == np.arange(n_bins)[:, None]  # (B, S)
        paired = has & has[self.reference]
        difference = np.where(paired, e - np.where(has[self.reference], e[self.reference], 0.0), 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.timestep = (member @ t) / member.sum(axis=1)
            self.error = (np.where(has, e, 0.0) @ member.T) / (has @ member.T.astype(np.int64))
            self.n_trials = paired @ member.T.astype(np.int64)
            self.difference = (difference @ member.T) / self.n_trials
            residual = np.where(paired, difference - self.difference[:, bins], 0.0)
            variance = (residual**2 @ member.T) / (self.n_trials - 1)
            self.stderr = np.where(self.n_trials > 1, np.sqrt(variance / self.n_trials), np.nan)

    @classmethod
    def from_table(cls, table: ErrorTable, image: int = 0, *, ax: Any = None, **options: Any) -> Self:
        """Of one image of an error table, drawn.

        Parameters
        ----------
        table : ErrorTable
        image : int
            Its position in the table.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of the constructor and of `plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError, TypeError
            No such image, or `table` is none.
        MissingExtraError
            matplotlib is not installed.
        """
        arguments.instance("table", table, ErrorTable)
        image = class_index(image, len(table), "image")
        return cls._drawn(table.classes, table.errors[image], table.timesteps, ax, options)

    @classmethod
    def from_result(cls, result: Result, timesteps: ArrayLike, *, ax: Any = None, **options: Any) -> Self:
        """Of a `Result` that kept its errors, drawn: what the race saw of each class before it was dropped.

        Parameters
        ----------
        result : Result
            Made with ``keep_errors=True``.
        timesteps : (S,) array_like of int
            ``classifier.trials["timestep"]``.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of the constructor and of `plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError
            It kept none.
        """
        if result.errors is None:
            raise InputError("the result has no errors: classify with keep_errors=True")
        options.setdefault("reference", result.index)
        return cls._drawn(result.classes, result.errors, timesteps, ax, options)

    @classmethod
    def from_estimator(
        cls, classifier: Any, image: Any, *, n_samples: int = 200, ax: Any = None, **options: Any
    ) -> Self:
        """Of one picture, every class at `n_samples` trials, drawn.

        Parameters
        ----------
        classifier : Classifier
        image : one picture
        n_samples : int
            Trials.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of the constructor and of `plot`.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError
            Several pictures, or an impossible number.
        MissingExtraError
            matplotlib is not installed.
        """
        table = classifier.error_table(image, n_samples=n_samples)
        if len(table) != 1:
            raise InputError(f"image is {len(table)} pictures, must be one")
        return cls.from_table(table, ax=ax, **options)

    @classmethod
    def _drawn(cls, classes: Sequence[str], errors: Any, timesteps: Any, ax: Any, options: dict[str, Any]) -> Self:
        made = {name: options.pop(name) for name in ("reference", "n_bins") if name in options}
        return cls(classes=classes, errors=errors, timesteps=timesteps, **made).plot(ax=ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["difference", "error"] = "difference",
        shown: int | Sequence[str | int] = 4,
        n_stderr: float = 2.0,
    ) -> Self:
        """Draw it.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        kind : {"difference", "error"}
            To the reference, with a band of `n_stderr` paired standard errors; or the errors themselves, on a logarithmic
            axis.
        shown : int or sequence of classes
            So many of the closest rivals, or these classes, are told apart; the others are thin grey lines.
        n_stderr : float
            Half the width of a band.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        ValueError
            No such kind or class.
        """
        if kind not in ("difference", "error"):
            raise InputError(f"kind is {kind!r}, must be 'difference' or 'error'")
        rivals = self._rivals(shown)
        ax = self._open(ax, (6, 3.8))
        values, has = (self.difference if kind == "difference" else self.error), np.isfinite(self.timestep)
        for i in range(len(self.classes)):
            if i not in rivals and i != self.reference:
                ax.plot(self.timestep[has], values[i, has], color=MUTED, alpha=0.35, linewidth=0.8, zorder=1)
        told = [self.reference, *rivals] if kind == "error" else rivals
        styles = SERIES if kind == "error" else SERIES[1:] + SERIES[:1]  # blue is the reference's
        if kind == "difference":
            ax.axhline(0.0, color=SERIES[0][0], linewidth=2, label=self.classes[self.reference])
        for place, i in enumerate(told):
            colour, line, marker = styles[place % len(styles)]
            style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 3.5, "linewidth": 1.6}
            ax.plot(self.timestep[has], values[i, has], label=self.classes[i], **style)
            if kind == "difference":
                half = n_stderr * self.stderr[i, has]
                low, high = values[i, has] - half, values[i, has] + half
                ax.fill_between(self.timestep[has], low, high, color=colour, alpha=0.18, linewidth=0)
        if kind == "difference":
            ax.set_ylabel(f"error above that of {self.classes[self.reference]}")
            self._look_at(ax, rivals, n_stderr)
        else:
            ax.set(ylabel="mean error", yscale="log")
        grey = len(self.classes) - len(set(told) | {self.reference})
        title = f"bands: {n_stderr:g} paired standard errors" if kind == "difference" else ""
        title += ("; " if title and grey else "") + (f"grey: {grey} other classes" if grey else "")
        ax.set_xlabel("timestep (clean to noisy)")
        ax.set_title(title, fontsize=8, loc="left")
        ax.legend(fontsize=8, frameon=False, loc="upper left", ncols=2, handlelength=3.2)
        ax.spines[["top", "right"]].set_visible(False)
        return self

    def _look_at(self, ax: Any, rivals: list[int], n_stderr: float) -> None:
        """At those that are told apart, with room for the legend above; the grey ones may leave."""
        half = n_stderr * np.nan_to_num(self.stderr[rivals])
        ends = np.stack([self.difference[rivals] - half, self.difference[rivals] + half])
        if np.isfinite(ends).any():
            low, high = min(float(np.nanmin(ends)), 0.0), max(float(np.nanmax(ends)), 0.0)
            ax.set_ylim(low - 0.08 * (high - low), high + 0.35 * (high - low))

    def _rivals(self, shown: int | Sequence[str | int]) -> list[int]:
        if not isinstance(shown, int):
            named = [class_index(entry, self.classes, "shown") for entry in shown]
            return [i for i in named if i != self.reference]
        with np.errstate(invalid="ignore"):
            n = self.n_trials.sum(axis=1)
            mean = np.nansum(np.where(self.n_trials > 0, self.difference * self.n_trials, 0.0), axis=1) / n
        order = np.lexsort((mean, -n))  # those that stayed longest, of them the closest
        return [int(i) for i in order if i != self.reference][: arguments.integer("shown", shown, at_least=0)]


def _best(errors: Floats, has: NDArray[np.bool_]) -> int:
    n = has.sum(axis=1)
    mean = np.where(has, errors, 0.0).sum(axis=1) / np.maximum(n, 1)
    return int(np.where(n == n.max(), mean, np.inf).argmin())
