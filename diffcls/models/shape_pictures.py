"""Pictures of coloured shapes with captions such as "a red circle left of a blue square", drawn, not collected.

A kind of thing is a colour and a shape.  The 48 kinds are split once and for all: 8 are for tests, 8 for validation, and
training sees the other 32, in pictures and in captions; every colour and every shape is among those 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

SIZE = 32
"""Side of a picture in pixels."""
COLOURS = {
    "red": (225, 40, 40),
    "orange": (245, 145, 30),
    "yellow": (240, 225, 60),
    "green": (45, 170, 60),
    "cyan": (60, 205, 215),
    "blue": (45, 75, 225),
    "purple": (150, 55, 190),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
RELATIONS = ("left of", "above", "right of", "below")
"""The first two are of the thing that is farther left or higher; their opposites follow in the same order."""
N_KINDS = len(COLOURS) * len(SHAPES)
SPLITS = ("training", "validation", "test")
RADIUS = (4.0, 6.0)
"""Smallest and largest, in pixels."""
GAP = 1.0
"""Pixels that stay between two things, and between a thing and the border at least half of it."""


class Kind(NamedTuple):
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


KINDS = tuple(Kind(colour, shape) for colour in COLOURS for shape in SHAPES)


def kinds(split: str) -> NDArray[np.int64]:
    """Places in `KINDS` of a split's kinds: a diagonal of the table of colours and shapes is held out for each purpose."""
    if split not in SPLITS:
        raise InputError(f"split is {split!r}, must be one of {', '.join(SPLITS)}")
    colour, shape = np.divmod(np.arange(N_KINDS), len(SHAPES))
    diagonal = (shape - colour) % len(SHAPES)
    held_out = {"test": diagonal == 0, "validation": diagonal == 3}
    chosen = held_out.get(split, ~(held_out["test"] | held_out["validation"]))
    return np.flatnonzero(chosen)


class Caption(NamedTuple):
    """What a caption says; without a second thing it has no relation either."""

    first: Kind
    relation: str | None = None
    second: Kind | None = None

    def __str__(self) -> str:
        return str(self.first) if self.second is None else f"{self.first} {self.relation} {self.second}"

    def swapped(self) -> Caption:
        """The two things change places: never true of the same picture."""
        assert self.second is not None
        return Caption(self.second, self.relation, self.first)

    def reversed(self) -> Caption:
        """The same said from the other thing: true of the same pictures."""
        assert self.second is not None and self.relation is not None
        opposite = RELATIONS[(RELATIONS.index(self.relation) + 2) % 4]
        return Caption(self.second, opposite, self.first)

    def colours_exchanged(self) -> Caption:
        """The shapes stay in their places, the colours change theirs."""
        assert self.second is not None
        first, second = Kind(self.second.colour, self.first.shape), Kind(self.first.colour, self.second.shape)
        return Caption(first, self.relation, second)


def parse(text: str) -> Caption:
    """The caption that a text is.

    Raises
    ------
    ValueError
        It is none.
    """
    for relation in RELATIONS:
        first, found, second = text.partition(f" {relation} ")
        if found:
            return Caption(_kind(first, text), relation, _kind(second, text))
    return Caption(_kind(text, text))


def _kind(phrase: str, text: str) -> Kind:
    for kind in KINDS:
        if str(kind) == phrase:
            return kind
    raise InputError(f"{text!r} is no caption: {phrase!r} is not an article, a colour and a shape")


@dataclass(frozen=True)
class Scenes:
    """N pictures before they are drawn.  Thing 0 is the one farther left or higher; `n_things` is 1 or 2.

    Attributes
    ----------
    kind : (N, 2) int
        Places in `KINDS`.
    vertical : (N,) bool
        The things are one above the other.
    centre : (N, 2, 2) float
        x and y of each thing in pixels, from the left upper corner.
    radius : (N, 2) float
    light : (N, 2) float
        What the colour is multiplied with.
    background : (N,) float
        Grey level, 0 to 255.
    n_things : (N,) int
    """

    kind: NDArray[np.int64]
    vertical: NDArray[np.bool_]
    centre: NDArray[np.float64]
    radius: NDArray[np.float64]
    light: NDArray[np.float64]
    background: NDArray[np.float64]
    n_things: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)

    def captions(self) -> list[Caption]:
        """Of each picture, said from thing 0."""
        said = []
        for (first, second), vertical, n in zip(self.kind, self.vertical, self.n_things, strict=True):
            relation = RELATIONS[int(vertical)]
            said.append(Caption(KINDS[first]) if n == 1 else Caption(KINDS[first], relation, KINDS[second]))
        return said


def couples(split: str, *, alike: bool) -> NDArray[np.int64]:
    """(M, 2) ordered pairs of kinds that one picture may show.

    Parameters
    ----------
    split : {"training", "validation", "test"}
    alike : bool
        Also those that have the colour or the shape in common.
    """
    chosen = kinds(split)
    both = np.stack(np.meshgrid(chosen, chosen, indexing="ij"), -1).reshape(-1, 2)
    colour, shape = np.divmod(both, len(SHAPES))
    same_colour, same_shape = colour[:, 0] == colour[:, 1], shape[:, 0] == shape[:, 1]
    allowed: NDArray[np.int64] = both[~(same_colour & same_shape) if alike else ~(same_colour | same_shape)]
    return allowed


def sample(
    rng: np.random.Generator, n: int, split: str = "training", *, alone: float = 0.0, alike: bool = False
) -> Scenes:
    """`n` scenes of a split's kinds.

    Two things never touch.  Along their relation they are at least as far apart as twice their distance across it, so that
    no other relation is true.

    Parameters
    ----------
    rng : numpy Generator
    n : int
    split : {"training", "validation", "test"}
    alone : float
        Share of pictures with one thing only.
    alike : bool
        See `couples`.
    """
    allowed = couples(split, alike=alike)
    kind = allowed[rng.integers(0, len(allowed), n)]
    radius = rng.uniform(*RADIUS, (n, 2))
    margin = radius + GAP / 2
    nearest = margin.sum(1)
    along = rng.uniform(nearest, SIZE - nearest)
    across = along / 2 * rng.uniform(-1, 1, n)
    low = np.maximum(margin[:, 0], margin[:, 1] - across)
    high = np.minimum(SIZE - margin[:, 0], SIZE - margin[:, 1] - across)
    start, side = rng.uniform(margin[:, 0], SIZE - margin[:, 1] - along), rng.uniform(low, high)
    centre = np.stack([np.stack([start, side], -1), np.stack([start + along, side + across], -1)], 1)
    n_things = np.where(rng.random(n) < alone, 1, 2)
    anywhere = rng.uniform(margin[:, :1], SIZE - margin[:, :1], (n, 2))
    centre[n_things == 1, 0] = anywhere[n_things == 1]
    vertical = rng.random(n) < 0.5
    centre[vertical] = centre[vertical][..., ::-1]
    light, background = rng.uniform(0.8, 1.0, (n, 2)), rng.uniform(0.0, 60.0, n)
    return Scenes(kind, vertical, centre, radius, light, background, n_things)


def draw(scenes: Scenes) -> NDArray[np.uint8]:
    """(N, SIZE, SIZE, 3) pictures, edges smoothed over one pixel."""
    background, centre = scenes.background.astype(np.float32), scenes.centre.astype(np.float32)
    canvas = np.broadcast_to(background[:, None, None, None], (len(scenes), SIZE, SIZE, 3)).copy()
    palette = np.array(list(COLOURS.values()), np.float32)
    pixel = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    for thing in (0, 1):
        colour, shape = np.divmod(scenes.kind[:, thing], len(SHAPES))
        for number, name in enumerate(SHAPES):
            rows = np.flatnonzero((shape == number) & (scenes.n_things > thing))
            radius = scenes.radius[rows, thing, None, None].astype(np.float32)
            x, y = centre[rows, thing].T[..., None, None]
            distance = radius * _distance(name, (pixel - x) / radius, (pixel[:, None] - y) / radius)
            cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
            light = scenes.light[rows, thing, None].astype(np.float32)
            ink = (palette[colour[rows]] * light)[:, None, None]
            canvas[rows] += cover * (ink - canvas[rows])
    return np.round(canvas).astype(np.uint8)


def _distance(shape: str, u: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """Signed distance to the outline of a shape of radius 1 (negative inside), exact near straight edges; v points down."""
    a, b = np.abs(u), np.abs(v)
    distance: NDArray[Any]
    if shape == "circle":
        distance = np.hypot(u, v) - 1.0
    elif shape == "square":
        distance = np.maximum(a, b) - 0.85
    elif shape == "triangle":
        distance = np.maximum(v - 0.8, (1.8 * a - 0.95 * v - 0.95) / np.float32(np.hypot(1.8, 0.95)))
    elif shape == "diamond":
        distance = (a + b - 1.0) / np.float32(np.sqrt(2.0))
    elif shape == "cross":
        distance = np.minimum(np.maximum(a - 0.95, b - 0.33), np.maximum(a - 0.33, b - 0.95))
    else:  # a ring
        distance = np.abs(np.hypot(u, v) - 0.75) - 0.25
    return distance
