"""What people do to pictures, and pictures of nothing the model knows: inputs for measuring and training.

Every function takes a grey uint8 picture (H, W) and a generator, and returns a grey uint8 picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

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


def text(rng: np.random.Generator) -> Picture:
    """A few words in black on white."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ"
    words = " ".join("".join(rng.choice(list(letters), rng.integers(3, 8))) for _ in range(rng.integers(2, 5)))
    image = Image.new("L", (160, 40), 255)
    ImageDraw.Draw(image).text((8, 10), words, fill=0, font=ImageFont.load_default(size=16))
    return np.asarray(image)


def noise(rng: np.random.Generator) -> Picture:
    """Independent pixels."""
    return rng.integers(0, 256, (28, 28), dtype=np.uint8)


def stripes(rng: np.random.Generator) -> Picture:
    """A sine grating of random direction and period."""
    y, x = np.mgrid[0:64, 0:64]
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 20)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return np.round(127.5 * (1 + wave)).astype(np.uint8)
