"""Is a picture like those a model was trained on?  An absolute score, from what a race has computed anyway.

The loss alone does not tell: a picture that is mostly black is easy to predict, whatever it shows.  What tells is the
loss *for a picture like this*: flat or detailed, faint or bright, wide or tall.  So a picture is described by six
logarithms (`FEATURES`); each class of the model has a density over them, an equal mixture of Gaussians that were fitted
to held-out training pictures; and the score is the log density under the class that won (class-conditional Gaussians, as
Lee et al., NeurIPS 2018, section 2, put on a network's activations).  No label and no further evaluation is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WeightsError

Floats = NDArray[np.float64]

FEATURES = ("loss", "level", "slope", "steepness", "curvature", "elongation")
"""Order of a picture's numbers.  With light = (x_start + 1) / 2 and the small `FLOOR` that keeps blank pictures finite:
mean log of the winner's error relative to the usual one; log of the mean of light^2, of |gradient|, of gradient^2, of
laplacian^2; log of the light's standard deviation downwards over that across."""
FLOOR = 0.01


@dataclass(frozen=True, eq=False)
class World:
    """What is usual for the K classes of a model.

    Attributes
    ----------
    timesteps, log_errors : (n,) float64
        Ascending, and the mean log error of training pictures there; straight lines between.  A winner's first n trials
        up to the last timestep are looked at and no others: more of them would be less noisy than those of the fit, and
        a score must not depend on how long a race took.
    mean : (K, M, 6) float64
        Of M Gaussians a class, mixed equally.
    covariance : (K, M, 6, 6) float64
    threshold : float
        Scores below it are warned of.
    quantile : float
        Share of training pictures, held out of the fit, that stay above it.
    """

    timesteps: Floats
    log_errors: Floats
    mean: Floats
    covariance: Floats
    threshold: float
    quantile: float

    @classmethod
    def from_json(cls, description: Mapping[str, Any], n_classes: int) -> World:
        """Of what `to_json` gave.

        Raises
        ------
        WeightsError
            Something is missing, of another shape or not finite.
        """
        names = ("timesteps", "log_errors", "mean", "covariance", "threshold", "quantile")
        missing = [name for name in names if name not in description]
        if missing:
            raise WeightsError(f"the model's world lacks {', '.join(missing)}; export the model again")
        try:
            arrays = {name: np.asarray(description[name], np.float64) for name in names}
        except (TypeError, ValueError):
            raise WeightsError("the model's world has what is no array of numbers; export the model again") from None
        n, f = arrays["timesteps"].size, len(FEATURES)
        m = arrays["mean"].shape[1] if arrays["mean"].ndim == 3 else 1
        shapes = ((n,), (n,), (n_classes, m, f), (n_classes, m, f, f), (), ())
        for (name, array), shape in zip(arrays.items(), shapes, strict=True):
            if array.shape != shape or not np.isfinite(array).all():
                raise WeightsError(f"the model's world has {name} of shape {array.shape}, must be finite of {shape}")
        if n < 1 or (np.diff(arrays["timesteps"]) <= 0).any():
            raise WeightsError("the model's world must have timesteps that ascend")
        threshold, quantile = float(arrays.pop("threshold")), float(arrays.pop("quantile"))
        return cls(**arrays, threshold=threshold, quantile=quantile)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, of six digits."""
        return {
            name: np.vectorize(lambda number: float(f"{number:.6g}"))(getattr(self, name)).tolist()
            for name in ("timesteps", "log_errors", "mean", "covariance", "threshold", "quantile")
        }

    def score(
        self, errors: Floats, timesteps: NDArray[np.integer], x_start: NDArray[np.float32], condition: int
    ) -> float | None:
        """Log density of the picture as one of class `condition`; None when the trials are too few to say.

        Parameters
        ----------
        errors : (S,) float64
            L2 error of each trial of the winner, NaN where there was none.
        timesteps : (S,) int
        x_start : (C, H, W) float32 in [-1, 1]
        condition : int
            The winner among the model's own classes.
        """
        made = np.flatnonzero(np.isfinite(errors) & (timesteps <= self.timesteps[-1]))[: len(self.timesteps)]
        if len(made) < len(self.timesteps):
            return None
        usual = np.interp(timesteps[made], self.timesteps, self.log_errors)
        found = np.array([log_error(errors[made] / np.exp(usual)), *look(x_start)])
        return float(log_density(found[None], self.mean[condition][None], self.covariance[condition][None])[0])


def log_error(errors: Floats) -> float:
    """Mean of log errors (S,), 0 taken for very small."""
    return float(np.log(np.maximum(errors, 1e-12)).mean())


def look(x_start: NDArray[np.float32]) -> list[float]:
    """`FEATURES` without the loss, of x_start (C, H, W)."""
    light = (np.asarray(x_start, np.float64) + 1.0) / 2.0
    down, right = np.diff(light, axis=-2), np.diff(light, axis=-1)
    laplacian = np.diff(down, axis=-2)[..., 1:-1] + np.diff(right, axis=-1)[..., 1:-1, :]
    squares = (np.square(light).mean(), np.square(down).mean() + np.square(right).mean(), np.square(laplacian).mean())
    level, steepness, curvature = (float(np.log(square + FLOOR**2)) for square in squares)
    slope = float(np.log(np.abs(down).mean() + np.abs(right).mean() + FLOOR))
    elongation = float(np.log(_spread(light.sum(axis=(0, 2))) / _spread(light.sum(axis=(0, 1)))))
    return [level, slope, steepness, curvature, elongation]


def _spread(profile: Floats) -> float:
    """Standard deviation of the place in a profile (L,) of light."""
    weight = profile + FLOOR**2 * len(profile)
    place = np.arange(len(profile))
    centre = np.average(place, weights=weight)
    return float(np.sqrt(np.average(np.square(place - centre), weights=weight)))


def log_density(rows: Floats, mean: Floats, covariance: Floats) -> Floats:
    """(N,): of each row (N, F) under its own equal mixture of M Gaussians, mean (N, M, F), covariance (N, M, F, F)."""
    away = rows[:, None] - mean
    squared = (away * np.linalg.solve(covariance, away[..., None])[..., 0]).sum(axis=-1)
    log_each = -0.5 * (squared + np.linalg.slogdet(2 * np.pi * covariance)[1]) - np.log(mean.shape[1])
    return np.asarray(np.logaddexp.reduce(log_each, axis=1), np.float64)
