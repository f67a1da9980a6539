"""Pictures of what the embedded model does not know, and a few of what it arguably does: for measuring its warning.

Every maker takes a generator and returns a grey uint8 picture (H, W).  `LOOKED_AT` are the kinds that were looked at when
the score of `diffcls.world` was chosen, `NEW` those that were made afterwards and changed nothing, `ARGUABLE` those where
neither a warning nor its absence is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from . import data

Picture = NDArray[np.uint8]
Maker = Callable[[np.random.Generator], Picture]

LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _sheet(height: int, width: int, level: int = 0) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (width, height), level)
    return image, ImageDraw.Draw(image)


def _stretched(values: NDArray[np.float64]) -> Picture:
    """To 0 ... 255."""
    levels: Picture = np.round(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)
    return levels


def _words(rng: np.random.Generator, n: int) -> str:
    return " ".join("".join(rng.choice(LETTERS, rng.integers(3, 8))) for _ in range(n))


# ---- looked at -------------------------------------------------------------------------------------------------------


def text(rng: np.random.Generator) -> Picture:
    """A few words in black on white."""
    image, draw = _sheet(40, 160, 255)
    draw.text((8, 10), _words(rng, int(rng.integers(2, 5))), fill=0, font=ImageFont.load_default(size=16))
    return np.asarray(image)


def page(rng: np.random.Generator) -> Picture:
    """Eight lines of words."""
    image, draw = _sheet(200, 240, 255)
    for line in range(8):
        draw.text((10, 8 + 22 * line), _words(rng, 5), fill=0, font=ImageFont.load_default(size=14))
    return np.asarray(image)


def noise(rng: np.random.Generator) -> Picture:
    """Independent pixels."""
    return rng.integers(0, 256, (28, 28), dtype=np.uint8)


def blobs(rng: np.random.Generator) -> Picture:
    """Smooth noise."""
    rough = Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8))
    return _stretched(np.asarray(rough.filter(ImageFilter.GaussianBlur(rng.uniform(2, 8))), np.float64))


def stripes(rng: np.random.Generator) -> Picture:
    """A sine grating of random direction and period."""
    y, x = np.mgrid[0:64, 0:64]
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 20)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return _stretched(wave)


def checks(rng: np.random.Generator) -> Picture:
    """A chessboard of 2 to 8 squares a side."""
    n = int(rng.integers(2, 9))
    return np.kron(np.indices((n, n)).sum(axis=0) % 2 * 255, np.ones((8, 8))).astype(np.uint8)


def ramp(rng: np.random.Generator) -> Picture:
    """From black to white in a random direction."""
    y, x = np.mgrid[0:48, 0:48]
    angle = rng.uniform(0, 2 * np.pi)
    return _stretched(x * np.cos(angle) + y * np.sin(angle))


def blank(rng: np.random.Generator) -> Picture:
    """One level."""
    return np.full((40, 40), rng.integers(0, 256), np.uint8)


def shapes(rng: np.random.Generator) -> Picture:
    """Two to four rectangles, discs, rings and lines."""
    image, draw = _sheet(64, 64)
    for _ in range(rng.integers(2, 5)):
        x, y = (int(v) for v in rng.integers(0, 44, 2))
        w, h = (int(v) for v in rng.integers(8, 30, 2))
        box, level = (x, y, x + w, y + h), int(rng.integers(100, 256))
        kind = rng.integers(4)
        if kind == 0:
            draw.rectangle(box, fill=level)
        elif kind == 1:
            draw.ellipse(box, fill=level)
        elif kind == 2:
            draw.ellipse(box, outline=level, width=2)
        else:
            draw.line(box, fill=level, width=3)
    return np.asarray(image)


def polygon(rng: np.random.Generator) -> Picture:
    """One polygon of 3 to 7 corners, filled or in outline."""
    image, draw = _sheet(64, 64)
    n = int(rng.integers(3, 8))
    corners = _around(np.sort(rng.uniform(0, 2 * np.pi, n)), rng.uniform(15, 28, n))
    if rng.random() < 0.5:
        draw.polygon(corners, fill=255)
    else:
        draw.polygon(corners, outline=255, width=3)
    return np.asarray(image)


def _around(angles: NDArray[np.float64], radii: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Points about (32, 32)."""
    return [(32 + r * np.cos(a), 32 + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]


def scribble(rng: np.random.Generator) -> Picture:
    """A pen line through 5 to 11 random points."""
    image, draw = _sheet(64, 64)
    points = rng.uniform(6, 58, (rng.integers(5, 12), 2))
    draw.line([(float(x), float(y)) for x, y in points], fill=255, width=3, joint="curve")
    return np.asarray(image)


def digits(rng: np.random.Generator) -> Picture:
    """Two to four test digits side by side."""
    return np.concatenate([_one(rng, "mnist") for _ in range(rng.integers(2, 5))], axis=1)


def pair(rng: np.random.Generator) -> Picture:
    """Two test garments side by side."""
    return np.concatenate([_one(rng, "fashion-mnist") for _ in range(2)], axis=1)


def four(rng: np.random.Generator) -> Picture:
    """Four test pictures in a square."""
    a, b, c, d = (_one(rng, str(rng.choice(data.DATASETS))) for _ in range(4))
    return np.block([[a, b], [c, d]])


def _one(rng: np.random.Generator, name: str) -> Picture:
    """A picture of a test set's second half (the first is measured as it is)."""
    picture: Picture = _second_half(name)[rng.integers(5000)]
    return picture


@cache
def _second_half(name: str) -> Picture:
    return data.load(name, train=False)[0][5000:]


# ---- made afterwards -------------------------------------------------------------------------------------------------


def blocks(rng: np.random.Generator) -> Picture:
    """Black and white squares at random, like a two-dimensional barcode."""
    n = int(rng.integers(6, 22))
    return np.kron(rng.integers(0, 2, (n, n)) * 255, np.ones((6, 6))).astype(np.uint8)


def bars(rng: np.random.Generator) -> Picture:
    """Upright bars of random widths, like a barcode."""
    widths = rng.integers(1, 5, 30)
    return np.tile(np.repeat(np.arange(30) % 2 * 255, widths).astype(np.uint8), (50, 1))


def face(rng: np.random.Generator) -> Picture:
    """A smiling face in outline."""
    image, draw = _sheet(64, 64)
    draw.ellipse((6, 6, 58, 58), outline=255, width=3)
    gap, size, mouth = int(rng.integers(6, 13)), int(rng.integers(2, 5)), int(rng.integers(10, 18))
    for x in (32 - gap, 32 + gap):
        draw.ellipse((x - size, 24 - size, x + size, 24 + size), fill=255)
    draw.arc((32 - mouth, 36 - mouth // 2, 32 + mouth, 36 + mouth), 20, 160, fill=255, width=3)
    return np.asarray(image)


def star(rng: np.random.Generator) -> Picture:
    """A filled star of 4 to 8 points."""
    image, draw = _sheet(64, 64)
    n = int(rng.integers(4, 9))
    angles = rng.uniform(0, 2 * np.pi) + np.arange(2 * n) * np.pi / n
    draw.polygon(_around(angles, np.tile([28.0, rng.uniform(8, 18)], n)), fill=255)
    return np.asarray(image)


def spiral(rng: np.random.Generator) -> Picture:
    """A pen line of 2 to 4 turns outwards."""
    image, draw = _sheet(64, 64)
    u = np.linspace(0, 1, 120)
    turns = rng.uniform(2, 4) * rng.choice([-1, 1])
    draw.line(_around(rng.uniform(0, 2 * np.pi) + 2 * np.pi * turns * u, 28 * u), fill=255, width=2)
    return np.asarray(image)


def chart(rng: np.random.Generator) -> Picture:
    """Axes and a jagged curve, black on white."""
    image, draw = _sheet(90, 120, 255)
    draw.line([(12, 6), (12, 78), (114, 78)], fill=0, width=2)
    heights = np.cumsum(rng.normal(0, 8, 20))
    heights = 12 + 60 * (heights - heights.min()) / np.ptp(heights)
    draw.line([(16 + 5 * i, float(h)) for i, h in enumerate(heights)], fill=0, width=2)
    return np.asarray(image)


# ---- arguably known --------------------------------------------------------------------------------------------------


def letter(rng: np.random.Generator) -> Picture:
    """One printed letter: several are digits to the eye."""
    image, draw = _sheet(64, 64, 255)
    draw.text((32, 32), str(rng.choice(LETTERS)), fill=0, anchor="mm", font=ImageFont.load_default(size=48))
    return np.asarray(image)


def printed_digit(rng: np.random.Generator) -> Picture:
    """One printed digit."""
    image, draw = _sheet(64, 64, 255)
    draw.text((32, 32), str(rng.integers(10)), fill=0, anchor="mm", font=ImageFont.load_default(size=48))
    return np.asarray(image)


def digit_on_its_head(rng: np.random.Generator) -> Picture:
    return _one(rng, "mnist")[::-1, ::-1]


def garment_on_its_head(rng: np.random.Generator) -> Picture:
    return _one(rng, "fashion-mnist")[::-1, ::-1]


def garment_on_its_side(rng: np.random.Generator) -> Picture:
    return np.rot90(_one(rng, "fashion-mnist"))


def busy_ground(rng: np.random.Generator) -> Picture:
    """A test garment before large dim squares."""
    garment = _one(rng, "fashion-mnist")
    ground = np.kron(rng.integers(0, 160, (7, 7)), np.ones((4, 4)))
    return np.where(garment > 20, garment, ground).astype(np.uint8)


LOOKED_AT: dict[str, Maker] = {
    "a line of text": text,
    "a page of text": page,
    "noise": noise,
    "smooth noise": blobs,
    "stripes": stripes,
    "chessboard": checks,
    "ramp": ramp,
    "blank": blank,
    "several shapes": shapes,
    "one polygon": polygon,
    "scribble": scribble,
    "two to four digits side by side": digits,
    "two garments side by side": pair,
    "four pictures in a square": four,
}
NEW: dict[str, Maker] = {
    "random blocks": blocks,
    "upright bars": bars,
    "smiling face": face,
    "star": star,
    "spiral": spiral,
    "chart": chart,
}
ARGUABLE: dict[str, Maker] = {
    "one printed letter": letter,
    "one printed digit": printed_digit,
    "digit on its head": digit_on_its_head,
    "garment on its head": garment_on_its_head,
    "garment on its side": garment_on_its_side,
    "garment before squares": busy_ground,
}
