"""Train what ``shapes`` is compared with: ``python -m diffcls.models.train_shapes_baseline --out FOLDER``.

A CLIP of transformers' classes with as many parameters, on the same stream of pictures and captions: a vision transformer
of the same width, depth and patch, a text transformer over the same words, and the symmetric contrastive loss within the
batch (Radford et al., 2021).  With ``--swapped`` each picture's swapped caption is among the negatives too, as in NegCLIP
(Yuksekgonul et al., 2023), which is the second phase of ``shapes`` in contrastive form.

A killed run resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from . import shape_pictures as shapes
from .shape_pictures import SIZE, Caption
from .shapes_model import N_TOKENS, read, tokenizer
from .train import save
from .train_shapes import N_WATCHED, Batches, to_x_start

WARM_UP = 200


def baseline() -> CLIPModel:
    words = tokenizer()
    tower = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "projection_dim": 128}
    ends = {"pad_token_id": words.pad_token_id, "bos_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
    text = {**tower, **ends, "vocab_size": len(words), "max_position_embeddings": N_TOKENS, "num_hidden_layers": 3}
    vision = {**tower, "image_size": SIZE, "patch_size": 8, "num_hidden_layers": 6}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


class Contrast:
    """A `baseline` with its words: similarities of pictures and captions."""

    def __init__(self, model: CLIPModel) -> None:
        self.model, self.tokenizer = model, tokenizer()

    def pictures(self, x_start: Tensor) -> Tensor:
        hidden = self.model.vision_model(pixel_values=x_start).pooler_output
        return F.normalize(self.model.visual_projection(hidden).float(), dim=-1)

    def captions(self, texts: list[str]) -> Tensor:
        ids, mask = read(self.tokenizer, texts)
        hidden = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(self.model.text_projection(hidden).float(), dim=-1)

    def loss(self, x_start: Tensor, captions: list[Caption], swapped: bool) -> Tensor:
        negatives = [str(caption.swapped()) for caption in captions if swapped and caption.second is not None]
        with torch.autocast("cpu", torch.bfloat16):
            pictured = self.pictures(x_start)
            said = self.captions([*map(str, captions), *negatives])
        logits = self.model.logit_scale.exp().clamp(max=100) * pictured @ said.T
        own = torch.arange(len(captions))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(own)].T, own)) / 2

    @torch.no_grad()
    def prefers(self, x_start: Tensor, first: list[Caption], second: list[Caption]) -> np.ndarray:
        """(N,) bool: of each picture, its first caption is more similar than its second."""
        pictured = self.pictures(x_start)
        one, other = ((pictured * self.captions([*map(str, texts)])).sum(-1) for texts in (first, second))
        return (one > other).numpy()


def train(options: argparse.Namespace) -> CLIPModel:
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    contrast, batches = Contrast(baseline()), Batches(options.seed)
    optimizer = torch.optim.AdamW(contrast.model.parameters(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.05)
    checkpoint, step = options.out / "checkpoint.pt", 0
    options.out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        contrast.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    scenes = shapes.sample(np.random.default_rng(0), N_WATCHED, "validation")
    x_watched, watched = to_x_start(shapes.draw(scenes)), scenes.captions()
    last_save = time.monotonic()

    def keep() -> None:
        state = {"model": contrast.model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        save({**state, "batch": options.batch, "swapped": options.swapped, "seed": options.seed}, checkpoint)

    while step < options.steps:
        rate = min(1.0, step / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))
        for group in optimizer.param_groups:
            group["lr"] = options.lr * rate
        loss = contrast.loss(*batches.take(step, options.batch), options.swapped)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(contrast.model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % options.log_every == 0:
            right = contrast.prefers(x_watched, watched, [caption.swapped() for caption in watched]).mean()
            print({"step": step, "loss": round(float(loss.detach()), 4), "validation": float(right)}, flush=True)
        if time.monotonic() - last_save > options.checkpoint_every:
            keep()
            last_save = time.monotonic()
    keep()
    return contrast.model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--swapped", action="store_true", help="swapped captions are negatives too")
    parser.add_argument("--log-every", type=int, default=200, help="steps")
    parser.add_argument("--checkpoint-every", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    model = train(options)
    model.save_pretrained(options.out / "clip")


if __name__ == "__main__":
    main()
