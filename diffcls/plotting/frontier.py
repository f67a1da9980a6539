"""What accuracy costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from ..ablation import sweep
from ..errors import InputError
from ..policies import Policy
from ..tables import ErrorTable
from .display import SERIES, Display

LABELS = {"accuracy": "accuracy", "agreement": "agreement with the full pool"}


class FrontierDisplay(Display):
    """Accuracy, or agreement with the full pool, against denoiser evaluations of an image: a point a policy.

    Parameters
    ----------
    rows : sequence of dict
        As `diffcls.ablation.sweep` gives them.

    Attributes
    ----------
    ax_, figure_ : after `plot`

    Raises
    ------
    ValueError
        There is no row.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = [dict(row) for row in rows]
        if not self.rows:
            raise InputError("rows is empty; a frontier needs a policy at least")

    @classmethod
    def from_table(
        cls,
        table: ErrorTable,
        policies: Mapping[str, Policy | None],
        *,
        labels: ArrayLike | None = None,
        weighting: Any = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Of policies replayed from an error table, drawn (see `diffcls.ablation.sweep`).

        Parameters
        ----------
        table : ErrorTable
        policies : mapping of name to policy
            None for a policy: every trial.
        labels : (N,) array_like or None
            None: the table's own.
        weighting
            As of `diffcls.replay`.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plot`.

        Returns
        -------
        FrontierDisplay

        Raises
        ------
        ValueError
            A policy that the table can not give, no such weighting, or labels that do not fit.
        MissingExtraError
            matplotlib is not installed.
        """
        return cls(sweep(table, policies, labels=labels, weighting=weighting)).plot(ax=ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        y: Literal["accuracy", "agreement"] | None = None,
        lines: Mapping[str, str] | None = None,
    ) -> Self:
        """Draw it.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        y : {"accuracy", "agreement"} or None
            None: accuracy where labels are known.
        lines : mapping of policy to family, or None
            Policies of one family are joined by a line and share marker and colour; None: each is its own.

        Returns
        -------
        FrontierDisplay

        Raises
        ------
        ValueError
            No such `y`, or accuracy without labels.
        """
        known = self.rows[0]["accuracy"] is not None
        y = ("accuracy" if known else "agreement") if y is None else y
        if y not in LABELS:
            raise InputError(f"y is {y!r}, must be 'accuracy' or 'agreement'")
        if y == "accuracy" and not known:
            raise InputError("y is 'accuracy', and the rows have none: give labels")
        ax = self._open(ax, (7, 3.6))
        families: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(self.rows, key=lambda row: float(row["evals_mean"])):
            families.setdefault((lines or {}).get(row["policy"], row["policy"]), []).append(row)
        for place, (family, rows) in enumerate(families.items()):
            colour, line, marker = SERIES[place % len(SERIES)]
            x = [row["evals_mean"] for row in rows]
            middle, low, high = (np.array([row[y + end] for row in rows]) for end in ("", "_low", "_high"))
            style = {"color": colour, "linestyle": line if len(rows) > 1 else "none", "marker": marker}
            told = _told(family, rows)
            spread = np.maximum(
                [middle - low, high - middle], 0.0
            )  # an interval's end may be its share, but for rounding
            ax.errorbar(x, middle, spread, capsize=2, linewidth=1.2, label=told, **style)
        ax.set(xscale="log", xlabel="denoiser evaluations of an image, mean", ylabel=LABELS[y])
        _plain_ticks(ax.xaxis)
        ax.margins(x=0.12, y=0.12)
        ax.set_title(f"{self.rows[0]['n']} images; bars: 95 % intervals", fontsize=8, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return self


def _told(family: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The name and what it saves."""
    factors = sorted(row["factor"] for row in rows)
    if factors == [1.0]:
        return family
    between = f"{factors[0]:.3g}" if len(factors) == 1 else f"{factors[0]:.3g} to {factors[-1]:.3g}"
    return f"{family} ({between} times fewer)"


def _plain_ticks(axis: Any) -> None:
    """1, 2 and 5 of each power of ten, as numbers: often there is less than one power to be seen."""
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(ticker.NullFormatter())
