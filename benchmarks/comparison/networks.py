"""ResNet and ViT (transformers' classes, from a config, without weights) and how they are trained.

They see what the diffusion model saw: the same training pictures, changed and prepared in the same way.  transformers has
both architectures and needs PyTorch alone; torchvision's wheels, which timm needs too, refuse a PyTorch that was built
otherwise ("operator torchvision::nms does not exist" beside one for the CPU).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diffcls.models.train import save

from .cells import Answers, among
from .tasks import Picture, Task

CHECKPOINT_SECONDS = 30.0
RATE, WARM_UP, WEIGHT_DECAY = 1e-3, 0.05, 0.05


class Stream(Protocol):
    """Training pictures, a pure function of the step."""

    def take(self, step: int, size: int) -> tuple[Tensor, Tensor]: ...


def resnet(width: int, n_classes: int, channels: int) -> nn.Module:
    """Four stages of one basic block (He et al., 2016)."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=channels,
            embedding_size=width,
            hidden_sizes=[width, 2 * width, 4 * width, 8 * width],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            num_labels=n_classes,
        )
    )


def vit(width: int, depth: int, n_classes: int, channels: int, side: int, patch: int) -> nn.Module:
    """A vision transformer (Dosovitskiy et al., 2021)."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=max(1, width // 32),
            intermediate_size=4 * width,
            image_size=side,
            patch_size=patch,
            num_channels=channels,
            num_labels=n_classes,
            attn_implementation="eager",  # at 17 tokens the fused kernel's backward is slower
        )
    )


def train(model: nn.Module, stream: Stream, steps: int, batch: int, checkpoint: Path) -> nn.Module:
    """AdamW, warm-up and cosine; a run that was cut goes on from its checkpoint and ends on the same bits.

    Parameters
    ----------
    model : Module
        Freshly made, from the same seed each time.
    stream : Stream
    steps, batch : int
    checkpoint : path
        Written every half a minute and at the end; one that has `steps` steps is only read.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    step, saved = 0, time.monotonic()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    model.train()
    while step < steps:
        u = (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, u / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * u)))
        x_start, labels = stream.take(step, batch)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(pixel_values=x_start).logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step == steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, checkpoint)
            saved = time.monotonic()
    return model.eval()


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network as a system.

    Attributes
    ----------
    model : Module
    names : sequence of str
        Of its outputs; it can be asked among these only.
    see : callable
        Pictures to x_start (N, C, H, W).
    facts : dict
        Of the record.
    """

    model: nn.Module
    names: Sequence[str]
    see: Any
    facts: dict[str, Any]

    @torch.no_grad()
    def logits(self, images: list[Picture]) -> NDArray[np.float32]:
        x_start = torch.from_numpy(np.asarray(self.see(images)))
        return torch.cat([self.model(pixel_values=part).logits for part in x_start.split(256)]).numpy()

    def answer(self, task: Task, folder: Path) -> Answers:
        return Answers(among(self.logits(task.images), self.names, task))


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
