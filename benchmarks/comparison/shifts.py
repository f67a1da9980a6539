"""Test pictures under a shift: corruptions in the manner of MNIST-C (Mu and Gilmer, 2019), and digits of another collection.

Corruptions are scikit-image's and are applied to the picture as it was collected, before any system's preparation.  Of the
candidates it is the one that is kept up with NumPy, seeds its noise by argument, and is what MNIST-C was made with in part:
imagecorruptions has not been released since 2020, albumentations has ended, and its successor is under another licence.

"optical digits" are those that scikit-learn brings (Alpaydin and Kaynak, 1998): other writers, another scanner, 8 x 8 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .settings import Setting
from .tasks import Picture, Task, own_ten

Grey = NDArray[np.float64]
Corruption = Callable[[Grey, np.random.Generator], Grey]


def shot_noise(picture: Grey, rng: np.random.Generator) -> Grey:
    """Poisson noise of at most 16 counts a pixel."""
    from skimage.util import random_noise

    levels = np.round(picture * 15.0) / 15.0  # random_noise counts in as many levels as it finds
    return random_noise(levels, mode="poisson", rng=rng)


def impulse_noise(picture: Grey, rng: np.random.Generator) -> Grey:
    """Every tenth pixel black or white."""
    from skimage.util import random_noise

    return random_noise(picture, mode="s&p", amount=0.1, rng=rng)


def blur(picture: Grey, rng: np.random.Generator) -> Grey:
    """Gaussian, one and a half pixels."""
    from skimage.filters import gaussian

    return gaussian(picture, sigma=1.5)


def rotation(picture: Grey, rng: np.random.Generator) -> Grey:
    """Thirty degrees to either side."""
    from skimage.transform import rotate

    return rotate(picture, angle=30.0 * rng.choice([-1.0, 1.0]))


def shear(picture: Grey, rng: np.random.Generator) -> Grey:
    """By half of the height, to either side, about the middle."""
    from skimage.transform import AffineTransform, warp

    slope, middle = 0.5 * rng.choice([-1.0, 1.0]), (picture.shape[0] - 1) / 2
    return warp(picture, AffineTransform(np.array([[1.0, slope, -slope * middle], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])))


def edges(picture: Grey, rng: np.random.Generator) -> Grey:
    """Canny's edges in place of the picture."""
    from skimage.feature import canny

    return canny(picture, sigma=1.0).astype(np.float64)


SHIFTS: dict[str, Corruption] = {
    "shot noise": shot_noise, "impulse noise": impulse_noise, "blur": blur, "rotation": rotation, "shear": shear, "edges": edges,
}  # fmt: skip
OPTICAL = "optical digits"


def corrupted(task: Task, name: str, seed: int) -> Task:
    """The same pictures after a corruption; picture i has a generator of its own."""
    change = SHIFTS[name]
    images: list[Picture] = []
    for i, image in enumerate(task.images):
        changed = change(image / 255.0, np.random.default_rng((seed, i)))
        images.append(np.round(255.0 * np.clip(changed, 0.0, 1.0)).astype(np.uint8))
    return Task(f"{task.group}, {name}", task.group, images, task.candidates, task.labels)


def optical_digits(setting: Setting) -> Task:
    """Digits of scikit-learn's collection."""
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = np.random.default_rng(setting.seed).permutation(len(found.target))[: setting.n_test]
    images = list(np.round(found.images[rows] / 16.0 * 255.0).astype(np.uint8))
    labels = found.target[rows].astype(np.int64)
    return Task(f"mnist, {OPTICAL}", "mnist", images, [own_ten("mnist")] * len(rows), labels)


def shifted(task: Task, setting: Setting) -> list[Task]:
    """All of a clean task's shifts that the setting names."""
    tasks = [corrupted(task, name, setting.seed) for name in setting.shifts if name in SHIFTS]
    return [*tasks, optical_digits(setting)] if task.group == "mnist" and OPTICAL in setting.shifts else tasks
