"""Fit a model's `World` to held-out training pictures: what is usual for each class, and from where on to warn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..world import World, log_density, log_error, look

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRIOR = 20.0
"""Pictures that the covariance common to all classes counts for in each class's own."""
FOLDS = 5


def fit_world(
    errors: Floats,
    timesteps: NDArray[np.integer],
    x_starts: Sequence[NDArray[np.float32]],
    conditions: Ints,
    group: Ints,
    *,
    n_classes: int,
    false_alarm: float,
) -> World:
    """One Gaussian a class and group of pictures; warns of `false_alarm` of the first group's.

    The threshold is a quantile of scores that each fifth of the pictures gets from a fit to the other four.

    Parameters
    ----------
    errors : (N, S) float64
        Of each picture's winner at trials that all have made.
    timesteps : (S,) int
    x_starts : N arrays (C, H, W) float32
    conditions : (N,) int64
        The winners among the model's `n_classes`.
    group : (N,) int64
        0: pictures as they are; 1 and so on: changed in some way.

    Raises
    ------
    ValueError
        A class won fewer than two pictures of a group: its covariance can not be told.
    """
    n_groups = int(group.max()) + 1
    cell = conditions * n_groups + group
    counts = np.bincount(cell, minlength=n_classes * n_groups)
    if counts.min() < 2:
        c, g = divmod(int(counts.argmin()), n_groups)
        raise ValueError(f"class {c} won {counts.min()} pictures of group {g}, needs two")
    order = np.argsort(timesteps)
    usual = np.log(errors).mean(axis=0)
    rows = np.array([
        [log_error(row / np.exp(usual)), *look(x_start)] for row, x_start in zip(errors, x_starts, strict=True)
    ])  # fmt: skip

    def fit(chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        return _gaussians(rows[chosen], cell[chosen], group[chosen], n_classes, n_groups)

    fold = np.empty(len(rows), np.int64)
    for k in range(len(counts)):
        fold[cell == k] = np.arange(counts[k]) % FOLDS
    scores = np.empty(len(rows))
    for left_out in range(FOLDS):
        out = fold == left_out
        mean, covariance = fit(~out)
        scores[out] = log_density(rows[out], mean[conditions[out]], covariance[conditions[out]])
    return World(
        np.asarray(timesteps, np.float64)[order],
        usual[order],
        *fit(np.ones(len(rows), np.bool_)),
        threshold=float(np.quantile(scores[group == 0], false_alarm)),
        quantile=1.0 - false_alarm,
    )


def _gaussians(rows: Floats, cell: Ints, group: Ints, n_classes: int, n_groups: int) -> tuple[Floats, Floats]:
    """Means (K, G, F) and covariances (K, G, F, F), each shrunk to its group's common one."""
    n_features = rows.shape[1]
    mean = np.empty((n_classes * n_groups, n_features))
    for k in range(len(mean)):
        mean[k] = rows[cell == k].mean(axis=0)
    away = rows - mean[cell]
    common = [
        away[group == g].T @ away[group == g] / ((group == g).sum() - n_classes) for g in range(n_groups)
    ]  # fmt: skip
    covariance = [
        (away[cell == k].T @ away[cell == k] + PRIOR * common[k % n_groups]) / ((cell == k).sum() - 1 + PRIOR)
        for k in range(len(mean))
    ]  # fmt: skip
    shape = (n_classes, n_groups, n_features)
    return mean.reshape(shape), np.stack(covariance).reshape(*shape, n_features)
