"""Which systems there are, and which tasks each is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

import diffcls
import diffcls.models
from diffcls import policies
from diffcls.models.train import Batches
from diffcls.models.train_shapes import to_x_start

from . import contrastive, features, questions, shifts, synthetic, tasks
from .cells import Answers
from .diffusion import Diffusion
from .networks import Network, n_parameters, resnet, train, vit
from .settings import Setting
from .tasks import Labelled, Task

RACE, STAGES, FIXED = (
    "diffusion classifier, race",
    "diffusion classifier, the paper's stages",
    "diffusion classifier, all of {}",
)
RESNET, VIT, SYNTHETIC, PROBE, SMALL_CLIP = (
    "ResNet",
    "ViT",
    "ResNet on synthetic data",
    "diffusion features",
    "small CLIP",
)
TRAINED = {
    "digits": {"training pictures": 116_000, "pictures seen": 4_000 * 128 + 7_500 * 64},
    "shapes": {"training pictures": 12_000 * 128 + 2_400 * 64, "pictures seen": 12_000 * 128 + 2_400 * 64},
}
"""Of the two diffusion models, by their cards: different pictures, and how many were shown; those of shapes are drawn anew."""


class System(Protocol):
    """What answers tasks."""

    @property
    def facts(self) -> dict[str, Any]:
        """Of the record."""

    def answer(self, task: Task, folder: Path) -> Answers: ...


@dataclass(frozen=True, eq=False)
class Planned:
    """A system that is made when one of its tasks is not done yet."""

    name: str
    tasks: Sequence[Task]
    make: Callable[[], System]


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a table is made of, cheap systems first.

    Attributes
    ----------
    setting : Setting
    out : path
        Networks, samples and cells go there.
    clip : sequence of str
        Folders or ids of transformers' contrastive models to be asked too.
    open_clip : sequence of str
        ``name`` or ``name:pretrained`` of OpenCLIP's.
    """

    setting: Setting
    out: Path
    clip: Sequence[str] = ()
    open_clip: Sequence[str] = ()

    def systems(self) -> Iterator[Planned]:
        setting = self.setting
        clean = tasks.clean(setting)
        digits = [task for each in clean for task in (each, *shifts.shifted(each, setting))]
        shapes = questions.tasks(setting)
        known = [task for task in shapes if task.name in (questions.KNOWN, questions.CUES)]
        yield Planned(RACE, digits, partial(self._diffusion, policies.quick()))
        yield Planned(RACE, shapes, self._shapes_diffusion)
        yield Planned(RESNET, known, partial(self._shapes_network, RESNET))
        yield Planned(VIT, known, partial(self._shapes_network, VIT))
        yield Planned(SMALL_CLIP, shapes, partial(contrastive.of_shapes, setting, self.out / "networks" / "clip"))
        yield Planned(RESNET, digits, partial(self._network, RESNET, setting.width))
        for size in setting.other_sizes:
            name = f"{RESNET}, {size} pictures"
            yield Planned(name, digits, partial(self._network, name, setting.width, size))
        for width in setting.other_widths:
            name = f"{RESNET}, width {width}"
            yield Planned(name, digits, partial(self._network, name, width))
        yield Planned(VIT, digits, partial(self._network, VIT, None))
        yield Planned(SYNTHETIC, digits, self._synthetic)
        yield Planned(PROBE, digits, partial(features.fit, setting))
        for model in self.clip:
            yield Planned(f"CLIP {model}", [*digits, *shapes], partial(contrastive.of_transformers, model))
        for model in self.open_clip:
            name, _, weights = model.partition(":")
            make = partial(contrastive.of_open_clip, name, weights or None)
            yield Planned(f"OpenCLIP {model}", [*digits, *shapes], make)
        for n in setting.fixed:
            yield Planned(FIXED.format(n), clean, partial(self._diffusion, diffcls.Fixed(n)))
        yield Planned(STAGES, clean, partial(self._diffusion, policies.paper(setting.stages)))

    def _diffusion(self, policy: policies.Policy) -> System:
        return Diffusion(diffcls.load(), policy, diffusion_facts("digits-and-clothes.safetensors", "digits"))

    def _shapes_diffusion(self) -> System:
        return Diffusion(diffcls.load("shapes"), diffcls.Race(), diffusion_facts("shapes/*/*.safetensors", "shapes"))

    def _network(self, name: str, width: int | None, n: int | None = None) -> System:
        return self._trained(name, width, tasks.training(self.setting, n), "standard")

    def _synthetic(self) -> System:
        drawn = synthetic.pictures(self.setting, self.out / "synthetic")
        return self._trained(SYNTHETIC, self.setting.width, drawn, "synthetic")

    def _trained(self, name: str, width: int | None, pictures: Labelled, kind: str) -> System:
        torch.manual_seed(self.setting.seed)
        names = tasks.class_names()
        model = (
            vit(self.setting.vit_width, self.setting.vit_depth, len(names), 1, 28, 7)
            if width is None
            else resnet(width, len(names), 1)
        )
        stream = Batches(pictures.images, pictures.labels, self.setting.seed)
        return self._finished(name, model, stream, names, tasks.prepared, kind, len(pictures.labels))

    def _shapes_network(self, kind: str) -> System:
        torch.manual_seed(self.setting.seed)
        names = questions.TRAINING_KINDS
        model = (
            resnet(self.setting.width, len(names), 3)
            if kind == RESNET
            else vit(self.setting.vit_width, self.setting.vit_depth, len(names), 3, 32, 8)
        )
        stream = questions.KindStream(self.setting.seed)
        n = self.setting.steps * self.setting.batch
        return self._finished(f"{kind} of shapes", model, stream, names, colours, "standard", n)

    def _finished(
        self, name: str, model: nn.Module, stream: Any, names: Sequence[str], see: Any, kind: str, n: int
    ) -> System:
        path = self.out / "networks" / f"{name.replace(',', '').replace(' ', '-')}.pt"
        facts = {"kind": kind, "parameters": n_parameters(model), "training pictures": n}
        facts["pictures seen"] = self.setting.steps * self.setting.batch
        return Network(train(model, stream, self.setting.steps, self.setting.batch, path), names, see, facts)


def diffusion_facts(files: str, which: str) -> dict[str, Any]:
    """Of an embedded model, whose parameters are counted in its files."""
    n = 0
    for path in sorted(Path(diffcls.models.__file__).parent.glob(files)):
        with safe_open(path, "pt") as stored:
            n += sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())
    return {"kind": "diffusion", "parameters": n, **TRAINED[which]}


def colours(images: list[tasks.Picture]) -> Any:
    """x_start (N, 3, 32, 32) of pictures of shapes."""
    return to_x_start(np.stack(images)).numpy()
