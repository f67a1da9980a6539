"""Pictures to begin with: some of the bundled test pictures, and scenes that are drawn for the model of shapes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models import demo_pictures, shape_pictures
from ..models.registry import DEFAULT
from ..models.vocabulary import synonyms

BUNDLED = (8, 3, 13, 4, 26, 31, 34, 30)
"""Places among the bundled pictures: chosen by what they show, not by what a model says."""
N_SCENES, SEED = 6, 5
"""Scenes of kinds that the model never saw, two things each."""


@dataclass(frozen=True)
class Example:
    """`prompts`: that make sense of it; None: all of the model's classes."""

    model: str
    name: str
    shows: str
    png: bytes
    prompts: list[str] | None = None


def examples() -> list[Example]:
    """Of both embedded models."""
    pictures, labels = demo_pictures.load()
    classes = list(synonyms())
    found = [Example(DEFAULT, f"example-{i}.png", classes[labels[i]], _png(pictures[i])) for i in BUNDLED]
    scenes = shape_pictures.sample(np.random.default_rng(SEED), N_SCENES, "test")
    for i, (picture, caption) in enumerate(zip(shape_pictures.draw(scenes), scenes.captions(), strict=True)):
        captions = [caption.swapped(), caption, caption.colours_exchanged(), caption.swapped().colours_exchanged()]
        prompts = [str(said) for said in captions]
        found.append(Example("shapes", f"scene-{i}.png", str(caption), _png(picture), prompts))
    return found


def _png(picture: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()
