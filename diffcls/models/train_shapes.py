"""Train the model ``shapes``: ``python -m diffcls.models.train_shapes --out RUN`` (extras ``train`` and ``diffusers``).

Pictures are drawn as they are needed (`shape_pictures`), of training kinds only, and no caption names another kind, be it
true or false.  Phases as in `diffcls.models.train`; in the second one the true caption is compared with the one whose
things are swapped and with one that is false in another way.

A killed run resumes from its last checkpoint to the same bits.  The defaults are those of the model that is shipped.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import shape_pictures as shapes
from .shape_pictures import KINDS, RELATIONS, Caption, Kind
from .shapes_model import ShapesModel, read, scheduler, tokenizer
from .train import Trainer, parse_options, train

ALONE = 0.15
"""Share of pictures with one thing only."""
WITHOUT_CAPTION = 0.08
"""Share of the first phase's pictures whose caption is empty: the model knows the unconditional prediction too."""
POWER = 0.75
"""t = T u^POWER: more of the noisy levels, where a caption tells most."""
N_WATCHED, WATCHED_TIMESTEPS = 256, (500, 600, 700, 800, 900, 950)
"""Validation pictures and timesteps of the log's accuracy."""
TRAINING_KINDS = [KINDS[i] for i in shapes.kinds("training")]


def to_x_start(pictures: np.ndarray) -> Tensor:
    """(N, 3, SIZE, SIZE) in [-1, 1] of (N, SIZE, SIZE, 3) uint8."""
    return torch.from_numpy(pictures.astype(np.float32) / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()


class Batches:
    """An endless stream of (x_start, captions), a pure function of seed and step."""

    def __init__(self, seed: int, split: str = "training") -> None:
        self.seed, self.split = seed, split

    def take(self, step: int, size: int) -> tuple[Tensor, list[Caption]]:
        rng = np.random.default_rng((self.seed, step))
        scenes = shapes.sample(rng, size, self.split, alone=ALONE, alike=True)
        captions = [reworded(caption, rng) for caption in scenes.captions()]
        return to_x_start(shapes.draw(scenes)), captions


def reworded(caption: Caption, rng: np.random.Generator) -> Caption:
    """Said from either thing."""
    return caption.reversed() if caption.second is not None and rng.random() < 0.5 else caption


def false_captions(caption: Caption, rng: np.random.Generator) -> list[Caption]:
    """Two captions that are not true of the picture; of training kinds alone when `caption` is."""
    if caption.second is None:
        return [Caption(kind) for kind in other_kinds([caption.first], 2, rng)]
    exchanged = caption.colours_exchanged()
    ways = ["relation", "first", "second"]
    if exchanged != caption and {exchanged.first, exchanged.second} <= set(TRAINING_KINDS):
        ways.append("colours")
    way = ways[rng.integers(len(ways))]
    if way == "colours":
        return [caption.swapped(), exchanged]
    if way == "relation":  # across, in either direction
        across = (RELATIONS.index(caption.relation) + 1 + 2 * int(rng.integers(2))) % 4
        return [caption.swapped(), caption._replace(relation=RELATIONS[across])]
    (kind,) = other_kinds([caption.first, caption.second], 1, rng)
    return [caption.swapped(), caption._replace(**{way: kind})]


def other_kinds(not_these: list[Kind], n: int, rng: np.random.Generator) -> list[Kind]:
    others = [kind for kind in TRAINING_KINDS if kind not in not_these]
    return [others[i] for i in rng.choice(len(others), n, replace=False)]


class ShapesTrainer(Trainer):
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        self.config = {name: getattr(options, name) for name in ("width", "depth", "patch", "text_width")}
        self.adopt(ShapesModel(**self.config), scheduler().alphas_cumprod.double().numpy())
        self.tokenizer = tokenizer()

    def predict_captions(self, x_t: Tensor, t: Tensor, captions: list[str], model: torch.nn.Module) -> Tensor:
        """x_start's estimate in bfloat16; see `Trainer.predict` for the attention."""
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            return model(x_t, t, *read(self.tokenizer, captions)).float()

    def generative_loss(self, x_start: Tensor, captions: list[Caption], generator: torch.Generator) -> Tensor:
        x_t, t = self.noised(x_start, generator, POWER)
        empty = torch.rand(len(captions), generator=generator) < WITHOUT_CAPTION
        texts = ["" if without else str(caption) for caption, without in zip(captions, empty, strict=True)]
        return F.mse_loss(self.predict_captions(x_t, t, texts, self.forward), x_start)

    def discriminative_loss(
        self, x_start: Tensor, captions: list[Caption], generator: torch.Generator
    ) -> tuple[Tensor, float]:
        """The true caption's mean squared error plus the cross-entropy of the decision in one trial; share decided right."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        asked = [[caption, *false_captions(caption, rng)] for caption in captions]
        k = len(asked[0])
        x_t, t = self.noised(x_start, generator, POWER)
        texts = [str(caption) for row in asked for caption in row]
        predicted = self.predict_captions(x_t.repeat_interleave(k, 0), t.repeat_interleave(k), texts, self.forward)
        errors = (predicted - x_start.repeat_interleave(k, 0)).square().mean((1, 2, 3)).reshape(-1, k)
        logits = -(self.log_gain @ self.hats)[t, None].exp() * errors
        cross_entropy = F.cross_entropy(logits, torch.zeros(len(asked), dtype=torch.long))
        right = float((logits.argmax(1) == 0).float().mean())
        return errors[:, 0].mean() + self.options.discriminative * cross_entropy, right

    @torch.no_grad()
    def notes(self) -> dict[str, object]:
        """Share of validation pictures of which the averaged model prefers the true caption to the swapped one."""
        rng = np.random.default_rng(0)
        scenes = shapes.sample(rng, N_WATCHED, "validation")
        x_start, captions = to_x_start(shapes.draw(scenes)), scenes.captions()
        generator = torch.Generator().manual_seed(0)
        errors = torch.zeros(2, N_WATCHED)
        each = []
        for timestep in WATCHED_TIMESTEPS:
            t = torch.full((N_WATCHED,), timestep)
            eps = torch.randn(x_start.shape, generator=generator)
            x_t = self.alpha[timestep] * x_start + self.sigma[timestep] * eps
            asked = [[str(c) for c in captions], [str(c.swapped()) for c in captions]]
            now = torch.stack(
                [(self.predict_captions(x_t, t, c, self.ema) - x_start).square().mean((1, 2, 3)) for c in asked]
            )
            each.append(round(float((now[0] < now[1]).float().mean()), 3))
            errors += now
        return {"validation": round(float((errors[0] < errors[1]).float().mean()), 4), "each": each}

    def state(self, step: int) -> dict[str, object]:
        return {
            "step": step,
            "config": self.config,
            "options": vars(self.options),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log_gain": self.log_gain.detach(),
        }

    def load(self, state: dict) -> int:
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.log_gain.data.copy_(state["log_gain"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["step"]


def main() -> None:
    options = parse_options(
        __doc__.splitlines()[0],
        generative_steps=12000,
        discriminative_steps=2400,
        lr=1.5e-3,
        width=128,
        depth=6,
        patch=8,
        text_width=64,
    )
    train(options, ShapesTrainer(options), Batches(options.seed))


if __name__ == "__main__":
    main()
