"""What people do to pictures: inputs for measuring and training.

Every function takes a grey uint8 picture (H, W) and a generator, and returns a grey uint8 picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]


def enlarged(picture: Picture, rng: np.random.Generator, largest: float = 20.0) -> Picture:
    """2 to `largest` times, bicubic."""
    factor = rng.uniform(2.0, largest)
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def inverted(picture: Picture, rng: np.random.Generator) -> Picture:
    """Dark on light."""
    return (255 - picture).astype(np.uint8)


def framed(picture: Picture, rng: np.random.Generator) -> Picture:
    """A margin of 2 to 20 pixels on each side, each its own width."""
    top, bottom, left, right = rng.integers(2, 21, 4)
    return np.pad(picture, ((top, bottom), (left, right)))


def off_centre(picture: Picture, rng: np.random.Generator) -> Picture:
    """Moved by up to three pixels each way; what leaves the frame is lost."""
    y, x = rng.integers(0, 7, 2)
    return np.pad(picture, 3)[y : y + picture.shape[0], x : x + picture.shape[1]]


def jpeg(picture: Picture, rng: np.random.Generator, quality: int = 50) -> Picture:
    """Through JPEG at `quality`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def coloured(picture: Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """White paper, coloured ink: RGB (H, W, 3)."""
    ink = rng.integers(0, 120, 3)
    share = picture[..., None] / 255.0
    return np.round(255 * (1 - share) + ink * share).astype(np.uint8)


VARIANTS: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "enlarged": enlarged,
    "inverted": inverted,
    "framed": framed,
    "off_centre": off_centre,
    "jpeg": jpeg,
    "coloured": coloured,
}
