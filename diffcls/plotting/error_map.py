"""Where in the picture the evidence lies."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from .. import arguments
from ..error_maps import ErrorMap, error_map
from .display import BLUE, VERMILION, Display, pyplot


class ErrorMapDisplay(Display):
    """Evidence for one class against another, over the picture: blue speaks for a, vermilion for b.

    Without colours the contours tell: solid around what speaks for a, dashed around what speaks for b.

    Parameters
    ----------
    error_map : ErrorMap

    Attributes
    ----------
    image_ : the map's artist, after `plot`
    ax_, figure_ : after `plot`
    """

    image_: Any = None

    def __init__(self, error_map: ErrorMap) -> None:
        self.error_map = error_map

    @classmethod
    def from_estimator(
        cls,
        classifier: Any,
        image: Any,
        a: str | int,
        b: str | int,
        *,
        n_samples: int = 200,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Computed by `diffcls.error_map`, drawn.

        Parameters
        ----------
        classifier : Classifier
        image : one picture
        a, b : str or int
            Classes, as of `diffcls.error_map`.
        n_samples : int
            Trials.
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plot`.

        Returns
        -------
        ErrorMapDisplay

        Raises
        ------
        ValueError
            No such class, x_start is no picture, or an impossible number.
        MissingExtraError
            matplotlib is not installed.
        """
        return cls(error_map(classifier, image, a, b, n_samples=n_samples)).plot(ax=ax, **options)

    def plot(
        self,
        ax: Any = None,
        *,
        smoothing: float = 1.0,
        picture: bool = True,
        contours: bool = True,
        colorbar: bool = True,
        limit: float | None = None,
    ) -> Self:
        """Draw it.

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        smoothing : float
            See `ErrorMap.spatial`.
        picture : bool
            Lay the map over the picture, where there is one: the fainter the evidence, the more of it is seen.
        contours : bool
            At half the limit either way.
        colorbar : bool
        limit : float or None
            Value of the ends of the colour map; zero is its middle.  None: the largest magnitude.

        Returns
        -------
        ErrorMapDisplay

        Raises
        ------
        ValueError
            x_start is no picture, or an impossible number.
        """
        values = self.error_map.spatial(smoothing)
        if limit is None:
            limit = float(np.abs(values).max()) or 1.0
        limit = arguments.number("limit", limit, "a positive number", lambda x: 0.0 < x < np.inf)
        ax = self._open(ax, (4.6, 3.8))
        height, width = values.shape
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        shown = self.error_map.picture if picture else None
        if shown is not None:
            ax.imshow(_pale(shown), extent=extent, vmin=0, vmax=1, cmap="gray", interpolation="nearest")
        alpha = 1.0 if shown is None else 0.9 * np.minimum(np.abs(values) / limit, 1.0)
        self.image_ = ax.imshow(
            values, extent=extent, cmap=_colours(), vmin=-limit, vmax=limit, alpha=alpha, interpolation="nearest"
        )
        if contours:
            levels = [level for level in (-limit / 2, limit / 2) if values.min() < level < values.max()]
            if levels:
                styles = ["--" if level < 0 else "-" for level in levels]
                ax.contour(values, levels=levels, colors="black", linewidths=0.9, linestyles=styles)
        ax.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
        ax.set_title(
            f"loss of {self.error_map.b} above that of {self.error_map.a}: {self.error_map.mean:+.3g}", fontsize=8
        )
        if colorbar:
            self._draw_colorbar(ax, limit)
        return self

    def _draw_colorbar(self, ax: Any, limit: float) -> None:
        mappable = pyplot().cm.ScalarMappable(pyplot().Normalize(-limit, limit), _colours())
        bar = ax.figure.colorbar(mappable, ax=ax, shrink=0.85)
        bar.set_ticks([-limit, 0.0, limit], labels=[f"for {self.error_map.b}", "0", f"for {self.error_map.a}"])
        bar.ax.tick_params(labelsize=8, length=0)
        bar.outline.set_visible(False)


def _pale(picture: Any) -> Any:
    """In light grey, dark on light: the map is what is looked at."""
    grey = picture if picture.ndim == 2 else picture[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    return 0.6 + 0.4 * (1.0 - grey if grey.mean() < 0.5 else grey)


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("evidence", [VERMILION, "#F7F7F7", BLUE])
