"""Contrastive models as zero-shot classifiers: CLIP and SigLIP of transformers, OpenCLIP, and the small one of ``shapes``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diffcls.errors import MissingExtraError
from diffcls.models.train_shapes import to_x_start
from diffcls.models.train_shapes_baseline import Contrast, train

from .cells import Answers
from .networks import n_parameters
from .settings import Setting
from .tasks import Picture, Task

BATCH = 64


class Similarities(Protocol):
    """What such a model is asked."""

    def __call__(self, images: list[Picture], texts: list[str]) -> NDArray[Any]:
        """(N, K) of N pictures and K texts."""


@dataclass(frozen=True, eq=False)
class Contrastive:
    """A contrastive model as a system: of a picture's candidates the most similar is the answer."""

    similarities: Similarities
    facts: dict[str, Any]

    def answer(self, task: Task, folder: Path) -> Answers:
        prediction = np.empty(len(task), np.int64)
        for candidates, rows in task.groups():
            scores = self.similarities([task.images[i] for i in rows], task.prompts(candidates))
            prediction[rows] = scores.argmax(axis=1)
        return Answers(prediction)


def facts(model: torch.nn.Module, n_pictures: int | None) -> dict[str, Any]:
    """Of the record; nobody says here how many pictures published weights were trained on."""
    return {
        "kind": "contrastive",
        "parameters": n_parameters(model),
        "training pictures": n_pictures,
        "pictures seen": n_pictures,
    }


def rgb(image: Picture) -> Any:
    """A Pillow image of three channels, whatever the picture has."""
    from PIL import Image

    return Image.fromarray(image).convert("RGB")


def of_transformers(model: str) -> Contrastive:
    """CLIP or SigLIP by the parts of transformers' own zero-shot pipeline.

    Parameters
    ----------
    model : str
        A folder or a hub id with the model, its tokenizer and its image processor.
    """
    from transformers import pipeline

    ask = pipeline("zero-shot-image-classification", model=model, device="cpu")

    def similarities(images: list[Picture], texts: list[str]) -> NDArray[Any]:
        """Logits: the pipeline's own probabilities of SigLIP are all 1 where logits are large."""
        asked = (ask.preprocess(rgb(image), candidate_labels=texts, hypothesis_template="{}") for image in images)
        return torch.cat([ask.forward(inputs)["logits"] for inputs in asked]).numpy()

    return Contrastive(similarities, facts(ask.model, None))


def of_open_clip(name: str, pretrained: str | None) -> Contrastive:
    """A model of open_clip (Ilharco et al., 2021).

    Parameters
    ----------
    name, pretrained : str
        As ``open_clip.create_model_and_transforms`` takes them: "ViT-H-14" and a tag or a file of weights.

    Raises
    ------
    ImportError
        open_clip is not installed, or its torchvision does not fit the PyTorch that is here.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another PyTorch
        raise MissingExtraError(
            f"OpenCLIP needs open_clip_torch and a torchvision that fits PyTorch ({error})"
        ) from None
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained)
    model, tokenize = model.eval(), open_clip.get_tokenizer(name)

    @torch.no_grad()
    def similarities(images: list[Picture], texts: list[str]) -> NDArray[Any]:
        said = model.encode_text(tokenize(texts), normalize=True)
        pictures = torch.stack([preprocess(rgb(image)) for image in images])
        return torch.cat([model.encode_image(part, normalize=True) @ said.T for part in pictures.split(BATCH)]).numpy()

    return Contrastive(similarities, facts(model, None))


def of_shapes(setting: Setting, folder: Path) -> Contrastive:
    """The small CLIP of ``diffcls.models.train_shapes_baseline``, trained on the pictures and captions of ``shapes``.

    Each picture's swapped caption is among its negatives, as it was in the second phase of the diffusion model.

    Parameters
    ----------
    setting : Setting
    folder : path
        Of the training run; one that was cut goes on, one that is done is only read.
    """
    steps, batch = setting.contrastive_steps, setting.contrastive_batch
    model = train(
        argparse.Namespace(
            out=folder, steps=steps, batch=batch, lr=1e-3, seed=setting.seed, swapped=True, log_every=500, checkpoint_every=60.0
        )
    )  # fmt: skip
    contrast = Contrast(model.eval())

    @torch.no_grad()
    def similarities(images: list[Picture], texts: list[str]) -> NDArray[Any]:
        return (contrast.pictures(to_x_start(np.stack(images))) @ contrast.captions(texts).T).numpy()

    return Contrastive(similarities, facts(model, steps * batch))
