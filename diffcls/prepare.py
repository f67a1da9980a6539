"""From a picture to the embedded model's input: one function, NumPy only, the same for training, tests and users.

The model knows one centred, light object on black, 28 x 28.  Real pictures are inverted, framed, off-centre and of any
size, so the object is brought into one canonical position instead of teaching a small model all of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 28
"""Side of the model's input."""
CONTENT = 26
"""Longest side of the object after preparation."""
_FOREGROUND = 0.15
"""A pixel belongs to the object when it exceeds this part of the brightest one (JPEG's ringing stays below)."""


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did to one picture: reported in the result, so that nothing happens behind the user's back."""

    size: tuple[int, int]
    """(height, width) of the picture as given."""
    inverted: bool
    """The background was light, so the picture was turned into its negative."""
    background: float
    """Level of the background in [0, 1], before it was subtracted."""
    box: tuple[int, int, int, int]
    """(top, left, bottom, right) of the object in the picture as given."""


def prepare(grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], Preparation]:
    """Bring the object of a grey picture into the model's canonical position.

    Background level from the four corners; a light background is inverted; the background is subtracted; the box around
    what is left is scaled (area-weighted, so any size goes) until its longer side has 26 pixels, and centred.

    Parameters
    ----------
    grey : (H, W) float32 in [0, 1]

    Returns
    -------
    x_start : (1, 28, 28) float32 in [-1, 1]
    preparation : Preparation
    """
    height, width = grey.shape
    background = _background(grey)
    inverted = background > 0.5
    light = 1.0 - grey if inverted else grey
    level = 1.0 - background if inverted else background
    light = np.clip((light - level) / (1.0 - level), 0.0, 1.0)
    top, left, bottom, right = _box(light)
    h, w = bottom - top, right - left
    scale = CONTENT / max(h, w)
    out_h, out_w = max(1, round(h * scale)), max(1, round(w * scale))
    content = resize(light[top:bottom, left:right], out_h, out_w)
    canvas = np.full((SIZE, SIZE), -1.0, np.float32)
    y, x = (SIZE - out_h) // 2, (SIZE - out_w) // 2
    canvas[y : y + out_h, x : x + out_w] = 2.0 * content - 1.0
    return canvas[None], Preparation((height, width), bool(inverted), float(background), (top, left, bottom, right))


def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Separable triangle filter whose support grows with the reduction (antialiased bilinear): (H, W) to (height, width)."""
    rows, columns = _triangle(image.shape[0], height), _triangle(image.shape[1], width)
    return np.asarray(rows @ image @ columns.T, np.float32)


def _triangle(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Weights (n_out, n_in), rows sum to one."""
    ratio = n_in / n_out
    support = max(1.0, ratio)
    centres = (np.arange(n_out) + 0.5) * ratio - 0.5
    distance = np.abs(np.arange(n_in)[None, :] - centres[:, None]) / support
    weights = np.maximum(0.0, 1.0 - distance)
    rows: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def _background(grey: NDArray[np.float32]) -> float:
    """Median over the corners: an object may touch every side of its frame, but seldom a corner."""
    n = max(1, min(grey.shape) // 9)
    corners = (grey[:n, :n], grey[:n, -n:], grey[-n:, :n], grey[-n:, -n:])
    return float(np.median([float(np.median(corner)) for corner in corners]))


def _box(light: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Smallest box around the foreground; the whole picture when it is blank."""
    brightest = float(light.max(initial=0.0))
    mask = light > _FOREGROUND * brightest
    if brightest <= 0.0 or not mask.any():
        return 0, 0, light.shape[0], light.shape[1]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
