"""Scores of image-text matching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .display import BLUE, Display

if TYPE_CHECKING:
    from ..matching.winoground import WinogroundReport


class WinogroundDisplay(Display):
    """Text, image and group score of all pairs, with Wilson's 95 % intervals.

    Parameters
    ----------
    report : WinogroundReport

    Attributes
    ----------
    ax_, figure_ : after `plot`
    """

    def __init__(self, report: WinogroundReport) -> None:
        self.report = report

    def plot(self, ax: Any = None) -> Self:
        """Bars of the scores of all pairs with their 95 % intervals.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.

        Returns
        -------
        WinogroundDisplay

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from ..matching.winoground import ALL

        ax = self._open(ax, (5, 3.5))
        rows = [row for row in self.report.scores() if row["tag"] == ALL]
        names = [row["kind"] + (",\nnormalised" if row["normalised"] else "") for row in rows]
        shares = np.array([row["score"] for row in rows])
        ends = np.array([[row["score"] - row["low"], row["high"] - row["score"]] for row in rows]).T
        ax.bar(names, shares, yerr=np.maximum(ends, 0.0), capsize=3, color=BLUE)
        ax.set(ylabel=f"share of {self.report.n_pairs} pairs", ylim=(0, 1))
        return self
