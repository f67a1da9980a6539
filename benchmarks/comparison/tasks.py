"""Pictures and the question asked of each: what every system is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import diffcls
from diffcls.fingerprint import digest
from diffcls.models import data, demo_pictures
from diffcls.models.train import N_HELD_OUT, training_pictures

from .settings import Setting

Picture = NDArray[np.uint8]
TEMPLATES = {"mnist": "a photo of the number: '{}'.", "fashion-mnist": "a photo of a {}.", "shapes": "{}"}
"""How a contrastive model is asked; of MNIST the paper's own."""


@dataclass(frozen=True, eq=False)
class Task:
    """N pictures, each with its own candidates.

    Attributes
    ----------
    name : str
    group : {"mnist", "fashion-mnist", "shapes"}
    images : list of (H, W) or (H, W, 3) uint8, N of them
    candidates : list of tuple of str, N of them
        Names of classes, or captions.
    labels : (N,) int64
        Place of the right one among the candidates.
    """

    name: str
    group: str
    images: list[Picture]
    candidates: Sequence[tuple[str, ...]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """Of pictures, candidates and labels: answers of equal digests may be compared picture by picture."""
        return digest(*self.images, np.array(["|".join(asked) for asked in self.candidates]), self.labels)

    def groups(self) -> Iterator[tuple[tuple[str, ...], NDArray[np.int64]]]:
        """Candidates, and the places of all pictures that are asked among them, in the order of their first picture."""
        places: dict[tuple[str, ...], list[int]] = {}
        for i, asked in enumerate(self.candidates):
            places.setdefault(asked, []).append(i)
        for asked, rows in places.items():
            yield asked, np.array(rows)

    def prompts(self, candidates: tuple[str, ...]) -> list[str]:
        """Texts for a contrastive model."""
        return [TEMPLATES[self.group].format(name.removeprefix("digit ")) for name in candidates]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures (N, 28, 28) uint8 and their class ids (N,) 0 to 19."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def class_names() -> list[str]:
    """The embedded model's twenty."""
    return list(diffcls.load().class_names)


def own_ten(group: str) -> tuple[str, ...]:
    family = data.DATASETS.index(group)
    return tuple(class_names()[10 * family : 10 * family + 10])


def clean(setting: Setting) -> list[Task]:
    """Test pictures of both data sets, each asked among its own ten classes."""
    tasks = []
    for family, group in enumerate(data.DATASETS):
        if setting.bundled:
            images, labels = demo_pictures.load()
            rows = np.flatnonzero(labels // 10 == family)[1::2]
        else:
            images, labels = data.load(group, train=False)
            rows = np.random.default_rng(setting.seed).permutation(len(labels))
        rows = rows[: setting.n_test]
        tasks.append(Task(group, group, list(images[rows]), [own_ten(group)] * len(rows), labels[rows] % 10))
    return tasks


def training(setting: Setting, n: int | None = None) -> Labelled:
    """What the diffusion model was trained on; of a setting with bundled pictures, every other one of these.

    Parameters
    ----------
    setting : Setting
    n : int or None
        So many of them, drawn by the setting's seed.
    """
    if setting.bundled:
        images, labels = (part[::2] for part in demo_pictures.load())
    else:
        images, labels = training_pictures()
    if n is not None:
        rows = np.random.default_rng(setting.seed).permutation(len(labels))[:n]
        images, labels = images[rows], labels[rows]
    return Labelled(images, labels)


def validation(setting: Setting, n: int) -> Labelled:
    """`n` training pictures of each data set that neither the diffusion model nor a network here was fitted to.

    Of a setting with bundled pictures they are training pictures again.
    """
    if setting.bundled:
        return training(setting)
    splits = [data.load(name, train=True) for name in data.DATASETS]
    images = [images[-N_HELD_OUT:][:n] for images, _ in splits]
    labels = [labels[-N_HELD_OUT:][:n] + 10 * family for family, (_, labels) in enumerate(splits)]
    return Labelled(np.concatenate(images), np.concatenate(labels))


def prepared(images: list[Picture] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """x_start (N, 1, 28, 28) in [-1, 1] as the embedded model makes it: what the networks and the probe see too."""
    encode = diffcls.load().encode
    assert encode is not None
    return np.stack([encode(image)[0] for image in images])
