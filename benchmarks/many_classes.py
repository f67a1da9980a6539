"""Pictures of a thousand classes: 20 objects x 5 views x 10 places of a mark, all three told at a glance.

The object is a prepared MNIST digit or a piece of clothing (Fashion-MNIST), 28 x 28, a light object on black.  Views: as it
is; negative; at half its size in the middle; behind three horizontal bars; behind three vertical bars.  No view turns the
picture, so that a six stays a six.  The mark, a white square ring on black, 7 x 7, lies in one of ten places at the border:
never on an object at half size, and over a corner or a margin of one at full size.

Class ids run over objects first, then views, then marks: the first 20 are objects as they are with the mark in its first
place, the first 100 have all views and the mark in its first place, 1000 are all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffcls.models import data
from diffcls.models.vocabulary import synonyms
from diffcls.prepare import prepare, resize

NAME = "many-classes"
OBJECTS = tuple(synonyms())
VIEWS = ("", "negative", "half size", "behind horizontal bars", "behind vertical bars")
MARKS = (
    "top left", "top, left of the middle", "top, right of the middle", "top right", "right, above the middle",
    "right, below the middle", "bottom right", "bottom, right of the middle", "bottom, left of the middle", "bottom left",
)  # fmt: skip
SHAPE = (len(MARKS), len(VIEWS), len(OBJECTS))
"""Of ``np.ravel_multi_index((mark, view, object), SHAPE)``."""
_PLACES = ((0, 0), (0, 7), (0, 14), (0, 21), (7, 21), (14, 21), (21, 21), (21, 14), (21, 7), (21, 0))
_RING = np.full((7, 7), -1.0, np.float32)
_RING[1:6, 1:6] = 1.0
_RING[2:5, 2:5] = -1.0
_BAR = 0.4
"""Grey level of the bars in [-1, 1]: opaque, lighter than the background and darker than most objects."""


def names(n_classes: int) -> list[str]:
    """The first `n_classes` classes in words."""
    marks, views, objects = np.unravel_index(np.arange(n_classes), SHAPE)
    return [
        ", ".join(filter(None, (OBJECTS[o], VIEWS[v], f"mark {MARKS[m]}")))
        for m, v, o in zip(marks, views, objects, strict=True)
    ]


def seen(x_start: NDArray[np.float32], view: int, mark: int) -> NDArray[np.float32]:
    """(1, 28, 28) in [-1, 1] of a prepared object: in this view, with the mark in this place."""
    picture = x_start[0].copy()
    if VIEWS[view] == "negative":
        picture = -picture
    elif VIEWS[view] == "half size":
        small = resize(picture, 14, 14)
        picture = np.full_like(picture, -1.0)
        picture[7:21, 7:21] = small
    elif VIEWS[view].startswith("behind"):
        bars = picture if "horizontal" in VIEWS[view] else picture.T
        for middle in (5, 14, 22):
            bars[middle - 1 : middle + 1] = _BAR
    top, left = _PLACES[mark]
    picture[top : top + 7, left : left + 7] = _RING
    return picture[None]


def pictures(
    n: int, n_classes: int, *, train: bool, first: int = 0
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """`n` grey pictures (28, 28) in [0, 1] and their class ids, half of each data set; view and mark are drawn evenly.

    Those of the test sets from `first` on, or the last training pictures, which are never fitted, counted from the end.
    """
    rng = np.random.default_rng((n_classes, train, first))
    chosen, classes = [], []
    for family, name in enumerate(data.DATASETS):
        images, labels = data.load(name, train=train)
        step = -1 if train else 1
        for image, label in zip(images[::step][first:][: n // 2], labels[::step][first:][: n // 2], strict=True):
            mark, view = divmod(int(rng.integers(n_classes // len(OBJECTS))), len(VIEWS))
            x_start, _ = prepare(image.astype(np.float32) / 255.0)
            chosen.append((seen(x_start, view, mark)[0] + 1.0) / 2.0)
            classes.append(int(np.ravel_multi_index((mark, view, label + 10 * family), SHAPE)))
    return chosen, np.array(classes)
