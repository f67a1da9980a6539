"""The rows of the paper (Li et al., ICCV 2023) as data: which policy, loss, template and facts make a data set's number.

    protocol = diffcls.protocol("cifar10")
    classifier = diffcls.Classifier(model, class_names, **protocol.options())

Positions on the published code's defects: docs/published-defects.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError
from .policies import Staged, Terms, lower, paper
from .schedule import Schedule

N_TIMESTEPS = 1000
METRICS = ("top-1 accuracy", "mean per-class accuracy")
"""The published script prints both and does not say which of them a column of the paper is; report both."""


@dataclass(frozen=True, kw_only=True)
class PublishedProtocol:
    """One row of the paper.

    Attributes
    ----------
    name : str
        As `diffcls.policies.paper` takes it.
    policy : Staged
        The published grids, in the published order.
    loss : {"l1", "l2"}
        The published commands': L2 where they name none.
    template : str or None
        One prompt a class; ``{}`` is replaced by the class's word, and nothing else: "a airplane" is the published prompt.
        The model must know the whole prompt.  None: it takes class ids.
    n_classes : int
    model : str
    resolution : int
        Side of the square picture in pixels: short side resized (bicubic), centre cropped, scaled to [-1, 1].
    latent_shape : tuple of int
        Of x_start: the VAE posterior's mean times 0.18215.
    dtype : {"float16", "float32"}
        In which the published runs asked the denoiser.
    images : str
        Which pictures were classified.
    notes : tuple of str
        What a reader must know before comparing a number with the paper's.
    """

    name: str
    policy: Staged
    loss: str
    template: str | None
    n_classes: int
    model: str
    resolution: int
    latent_shape: tuple[int, ...]
    dtype: str
    images: str
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what the paper tells of a row."""
        return METRICS

    @property
    def n_evals(self) -> int:
        """Denoiser evaluations that one image costs with `n_classes` prompts."""
        lowered = lower(self.policy, Terms(self.n_classes, N_TIMESTEPS, None))
        ends, keep = lowered.policy["caps"].T
        alive = np.minimum.accumulate([self.n_classes, *keep[:-1]])
        return int(np.diff(ends, prepend=0) @ alive)

    def schedule(self, *, half_precision: bool = False) -> Schedule:
        """The noise schedule that the model was trained with, 1,000 timesteps; the model predicts eps.

        Parameters
        ----------
        half_precision : bool
            With the rounded coefficients of the published float16 runs (`Schedule.half_precision`): a fault, for parity.

        Returns
        -------
        Schedule

        Raises
        ------
        ValueError
            `half_precision` of a row that was run in float32.
        """
        schedule = Schedule.linear(N_TIMESTEPS) if self.name == "dit" else Schedule.scaled_linear(N_TIMESTEPS)
        if half_precision and self.dtype != "float16":
            raise InputError(
                f"the paper's row {self.name!r} was run in {self.dtype}: it has no half-precision schedule"
            )
        return schedule.half_precision() if half_precision else schedule

    def options(self) -> dict[str, Any]:
        """Options of `Classifier` and `classify` that make this row; any of them may be overridden in the dict.

        Returns
        -------
        dict
        """
        return {"policy": self.policy, "loss": self.loss, "templates": self.template, "weighting": "uniform"}


def protocol(name: str) -> PublishedProtocol:
    """The paper's row for a data set (Li et al., ICCV 2023).

    Parameters
    ----------
    name : str
        "cifar10", "stl10", "pets", "flowers", "food", "aircraft", "objectnet", "imagenet" with Stable Diffusion 2.0, "dit" for
        ImageNet with DiT-XL/2.

    Returns
    -------
    PublishedProtocol

    Raises
    ------
    ValueError
        No such row.
    """
    policy = paper(name)
    return PublishedProtocol(name=name, policy=policy, **(_DIT if name == "dit" else _STABLE_DIFFUSION | _ROWS[name]))


_STABLE_DIFFUSION: dict[str, Any] = {
    "template": "a photo of a {}.",
    "model": "Stable Diffusion 2.0-base",
    "resolution": 512,
    "latent_shape": (4, 64, 64),
    "dtype": "float16",
    "images": "test split",
}

_ROWS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "loss": "l1",
        "n_classes": 10,
        "template": "a blurry photo of a {}.",
        "notes": ("'blurry' is in the published prompts: the pictures are 32 x 32, resized to 512 x 512.",),
    },
    "stl10": {"loss": "l1", "n_classes": 10},
    "pets": {
        "loss": "l1",
        "n_classes": 37,
        "template": "a photo of a {}, a type of pet.",
        "notes": (
            "the word is the breed in capitals with its species: 'Abyssinian cat', 'Basset Hound dog'; 'American Bulldog' "
            "alone has nothing appended.  Give a mapping of label to word.",
        ),
    },
    "flowers": {"loss": "l1", "n_classes": 102, "template": "a photo of a {}, a type of flower."},
    "food": {
        "loss": "l2",
        "n_classes": 101,
        "template": "a photo of {}, a type of food.",
        "notes": ("no article before the class.", "the word has spaces where the data set's label has underscores."),
    },
    "aircraft": {
        "loss": "l2",
        "n_classes": 100,
        "template": "a photo of a {}, a type of aircraft.",
        "notes": ("the word has slashes: 'F-16A/B' and 'F/A-18'.",),
    },
    "objectnet": {
        "loss": "l2",
        "n_classes": 113,
        "images": "the 113 classes that overlap ImageNet's, a border of 2 pixels cut off before resizing",
        "notes": (
            "words are written out: 'binder (closed)', 'drying rack for plates'; 51 of 113 differ from the file's label.",
        ),
    },
    "imagenet": {
        "loss": "l2",
        "n_classes": 1000,
        "images": "4 validation pictures a class, 4,000 in all; which ones is not published",
        "notes": (
            "'missile' and 'sunglasses' are the words of two classes each.  Their prompts can not be told apart; the lower "
            "class id wins.  Name classes by id to have both, or merge them.",
        ),
    },
}

_DIT: dict[str, Any] = {
    "loss": "l2",
    "template": None,
    "n_classes": 1000,
    "model": "DiT-XL/2, 256 x 256",
    "resolution": 256,
    "latent_shape": (4, 32, 32),
    "dtype": "float32",
    "images": "a subset of ImageNet's validation pictures that the published code does not fix",
    "notes": (
        "noise is one file for all pictures and classes; row i belongs to timestep 2 + 4 i.",
        "four scores are published: L2, L1, the VLB, L2 + VLB.  L2 and L1 are `loss`; the VLB needs the model's variance "
        "and is not computed here.",
        "the crop halves the picture by boxes while its short side is twice the target or more, then resizes.",
        "ImageNet-A asks 200 of the classes; ObjectNet asks 125 that are merged to 113 labels (a mapping of label to ids).",
    ),
}
