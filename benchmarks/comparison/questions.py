"""Questions about pictures of coloured shapes: captions to choose from, binding, and cues in conflict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffcls.models import shape_pictures as shapes
from diffcls.models.measure_shapes import FALSE, pictures
from diffcls.models.shape_pictures import KINDS, Caption, Kind
from diffcls.models.train_shapes import to_x_start

from .settings import Setting
from .tasks import Task

TRAINING_KINDS = [str(KINDS[i]) for i in shapes.kinds("training")]
TEST_KINDS = [str(KINDS[i]) for i in shapes.kinds("test")]
KNOWN, HELD_OUT, CUES = "one thing, known kinds", "one thing, held-out kinds", "colour against shape"


def binding(name: str, make_false: Callable[[Caption], Caption], n: int) -> Task:
    """The true caption against a false one, both things of held-out kinds; the false one stands first, so a tie is wrong."""
    images, captions = pictures("test", n)
    candidates = [(str(make_false(caption)), str(caption)) for caption in captions]
    return Task(name, "shapes", list(images), candidates, np.ones(n, np.int64))


def one_thing(name: str, split: str, names: list[str], n: int, seed: int) -> Task:
    """A thing alone, among the names of its split's kinds."""
    scenes = shapes.sample(np.random.default_rng((seed, 11)), n, split, alone=1.0)
    labels = np.array([names.index(str(caption)) for caption in scenes.captions()])
    return Task(name, "shapes", list(shapes.draw(scenes)), [tuple(names)] * n, labels)


def cue_conflict(n: int, seed: int) -> Task:
    """A thing of a held-out kind; of one candidate it has the colour, of the other one the shape, of neither both.

    Geirhos et al. (2019) set texture against shape; things here have no texture, so it is colour.  Both candidates are
    kinds that every system was trained on.  The label is the one of the same shape: "accuracy" is the shape bias, and there
    is no right answer.
    """
    rng = np.random.default_rng((seed, 13))
    scenes = shapes.sample(rng, n, "test", alone=1.0)
    candidates, labels = [], rng.integers(0, 2, n)
    for caption, label in zip(scenes.captions(), labels, strict=True):
        colour, shape = caption.first
        same_colour = [name for name in TRAINING_KINDS if name.split()[1] == colour and name.split()[2] != shape]
        same_shape = [name for name in TRAINING_KINDS if name.split()[2] == shape and name.split()[1] != colour]
        pair = [same_colour[rng.integers(len(same_colour))], same_shape[rng.integers(len(same_shape))]]
        candidates.append(tuple(pair if label == 1 else reversed(pair)))
    return Task(CUES, "shapes", list(shapes.draw(scenes)), candidates, labels.astype(np.int64))


def tasks(setting: Setting) -> list[Task]:
    """All questions of a setting."""
    return [
        one_thing(KNOWN, "training", TRAINING_KINDS, setting.n_kinds, setting.seed),
        one_thing(HELD_OUT, "test", TEST_KINDS, setting.n_kinds, setting.seed),
        *(binding(name, make_false, setting.n_shapes) for name, make_false in FALSE.items()),
        cue_conflict(setting.n_shapes, setting.seed),
    ]


class KindStream:
    """Training pictures of one thing and the places of their kinds among the training kinds, drawn as they are needed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.place = {kind: i for i, kind in enumerate(map(_kind_of, TRAINING_KINDS))}

    def take(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        scenes = shapes.sample(np.random.default_rng((self.seed, 17, step)), size, "training", alone=1.0)
        labels = torch.tensor([self.place[caption.first] for caption in scenes.captions()])
        return to_x_start(shapes.draw(scenes)), labels


def _kind_of(name: str) -> Kind:
    return shapes.parse(name).first
