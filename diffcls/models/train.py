"""Train the embedded model: ``python -m diffcls.models.train --out RUN`` (needs the extra ``train``).

A DiT predicts x_start of prepared MNIST and Fashion-MNIST pictures on a cosine schedule.  Two phases:

1. generative: mean squared error of the true class's prediction;
2. the same plus a discriminative term: the errors of the true and of a few confusable classes, averaged over a few shared
   (t, eps), are compared by cross-entropy, which is the classifier's own decision on so many trials.

A killed run resumes from its last checkpoint, written by atomic rename.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import durable
from ..prepare import prepare
from . import data, pictures
from .torch_dit import Config, DiT

N_TIMESTEPS = 1000
N_HELD_OUT = 2000
"""Last training pictures of each data set: never fitted; weighting, temperature and thresholds are chosen on them."""
N_NEGATIVES = 3
N_TRIALS = 2
"""Trials over which the discriminative phase averages errors before it compares classes, as the race does."""
KNOTS = np.linspace(0, N_TIMESTEPS - 1, 11)
"""Timesteps at which curves over the schedule are given: straight lines between them."""
CLEAN = 0.5
"""Share of pictures that are trained on as they are."""


def training_pictures() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 28, 28) uint8 and their class ids (N,) 0 to 19, without the held-out ones."""
    splits = [data.load(name, train=True) for name in data.DATASETS]
    images = np.concatenate([images[:-N_HELD_OUT] for images, _ in splits])
    labels = np.concatenate([digits[:-N_HELD_OUT] + 10 * family for family, (_, digits) in enumerate(splits)])
    return images, labels


def as_a_user_might(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Off-centre, enlarged, through JPEG, fainter: each at random."""
    if rng.random() < 0.7:
        picture = pictures.off_centre(picture, rng)
    if rng.random() < 0.3:
        picture = pictures.enlarged(picture, rng, largest=4.0)
    if rng.random() < 0.3:
        picture = pictures.jpeg(picture, rng, quality=int(rng.integers(40, 90)))
    if rng.random() < 0.3:
        picture = np.round(picture * rng.uniform(0.5, 1.0)).astype(np.uint8)
    return picture


def cosine_alphas_cumprod() -> NDArray[np.float64]:
    """Nichol and Dhariwal (2021), eq. 17, as diffusers' ``squaredcos_cap_v2`` has it: betas capped at 0.999."""
    u = np.arange(N_TIMESTEPS + 1) / N_TIMESTEPS
    bar = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.cumprod(1.0 - np.minimum(1.0 - bar[1:] / bar[:-1], 0.999))


class Batches:
    """An endless shuffled stream of (x_start (B, 1, 28, 28), class ids (B,)), a pure function of seed and step."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int) -> None:
        self.images, self.labels, self.seed = images, labels, seed

    def take(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step))
        index = rng.integers(0, len(self.labels), size)
        labels = self.labels[index]
        x_start = np.stack([self._seen(self.images[i], rng) for i in index])
        mirrored = (labels >= 10) & (rng.random(size) < 0.5)  # clothes have no handedness, digits do
        x_start[mirrored] = x_start[mirrored][..., ::-1]
        return torch.from_numpy(x_start), torch.from_numpy(labels)

    def _seen(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
        if rng.random() >= CLEAN:
            picture = as_a_user_might(picture, rng)
        x_start, _ = prepare(picture.astype(np.float32) / 255.0)
        return x_start


class Trainer:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        self.config = Config(hidden_size=options.width, depth=options.depth, patch_size=options.patch)
        self.adopt(DiT(self.config), cosine_alphas_cumprod())
        # how often class j is mistaken for class i: negatives are drawn from it, and it follows the model
        self.confusion = torch.full((20, 20), 1.0) + 9.0 * (torch.arange(20)[:, None] // 10 == torch.arange(20) // 10)

    def adopt(self, model: torch.nn.Module, alphas_cumprod: NDArray[np.float64]) -> None:
        """Everything around a fresh model: its average, gains, optimizer and noise schedule."""
        options = self.options
        self.model = model
        self.forward = torch.compile(model) if options.compile else model
        self.ema = copy.deepcopy(model)
        self.log_gain = torch.nn.Parameter(torch.full((len(KNOTS),), math.log(40.0)))
        self.optimizer = torch.optim.AdamW(
            [{"params": self.model.parameters()}, {"params": [self.log_gain], "weight_decay": 0.0}],
            lr=options.lr,
            betas=(0.9, 0.99),
            weight_decay=0.01,
        )
        bar = torch.from_numpy(alphas_cumprod)
        self.alpha, self.sigma = bar.sqrt().float(), (1 - bar).sqrt().float()
        hats = [np.interp(np.arange(N_TIMESTEPS), KNOTS, row) for row in np.eye(len(KNOTS))]
        self.hats = torch.from_numpy(np.stack(hats)).float()  # (knots, T): linear interpolation as a product

    def phase(self, step: int) -> tuple[bool, float]:
        """(discriminative?, learning rate) of a step: each phase has a warm-up and a cosine of its own."""
        first, second = self.options.generative_steps, self.options.discriminative_steps
        discriminative = step >= first
        u = (step - first) / second if discriminative else step / first
        peak = self.options.lr * (0.6 if discriminative else 1.0)
        end = 0.01 if discriminative else 0.4  # the first phase need not anneal: the second goes on from it
        return discriminative, peak * min(1.0, u / 0.02) * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * u)))

    def predict(self, x_t: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """In bfloat16, attention spelt out: at 16 tokens the fused kernel's backward takes half of the step."""
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            return self.forward(x_t, t, classes).float()

    def noised(self, x_start: Tensor, generator: torch.Generator, power: float = 1.0) -> tuple[Tensor, Tensor]:
        """x_t and t of one trial a picture, t = T u^power with u stratified within the batch."""
        b = len(x_start)
        u = (torch.randperm(b, generator=generator) + torch.rand(b, generator=generator)) / b
        t = (u**power * N_TIMESTEPS).long()
        eps = torch.randn(x_start.shape, generator=generator)
        return self.alpha[t, None, None, None] * x_start + self.sigma[t, None, None, None] * eps, t

    def generative_loss(self, x_start: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        x_t, t = self.noised(x_start, generator)
        return F.mse_loss(self.predict(x_t, t, labels), x_start)

    def discriminative_loss(self, x_start: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
        """The mean squared error of the true class, plus the cross-entropy of the decision; and the share decided right."""
        b = len(labels)
        negatives = self.negatives(labels, generator)
        classes = torch.cat([labels[:, None], negatives], dim=1)  # (B, K), the true one first
        k = classes.shape[1]
        clean = x_start.repeat(N_TRIALS, 1, 1, 1)  # trial-major
        x_t, t = self.noised(clean, generator, power=1.5)  # the noisy end tells classes apart least
        predicted = self.predict(
            x_t.repeat_interleave(k, 0), t.repeat_interleave(k), classes.repeat(N_TRIALS, 1).reshape(-1)
        )
        squares = (predicted - clean.repeat_interleave(k, 0)).square().mean((1, 2, 3))
        errors = squares.reshape(N_TRIALS, b, k)
        gain = (self.log_gain @ self.hats)[t].exp().reshape(N_TRIALS, b, 1)
        logits = -(gain * errors).mean(0)
        cross_entropy = F.cross_entropy(logits, torch.zeros(b, dtype=torch.long))
        with torch.no_grad():
            probability = logits.softmax(1)
            self.learn_confusion(labels[:, None].expand_as(negatives), negatives, probability[:, 1:])
            right = float((logits.argmax(1) == 0).float().mean())
        return errors[..., 0].mean() + self.options.discriminative * cross_entropy, right

    def negatives(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """(B, N_NEGATIVES) wrong classes that are often taken for the true ones."""
        weights = self.confusion[labels].scatter(1, labels[:, None], 0.0)
        return torch.multinomial(weights, N_NEGATIVES, generator=generator)

    def learn_confusion(self, labels: Tensor, negatives: Tensor, probability: Tensor) -> None:
        """Of (B, n) true classes, wrong ones, and the probability that each was given."""
        self.confusion *= 0.9995
        self.confusion.index_put_((labels, negatives), probability + 0.005, accumulate=True)

    def update_ema(self, step: int) -> None:
        decay = min(0.9995, step / (step + 50))
        with torch.no_grad():
            for slow, fast in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)

    def notes(self) -> dict[str, object]:
        """What the log says beside the losses."""
        return {}

    def state(self, step: int) -> dict[str, object]:
        return {
            "step": step,
            "config": self.config.to_dict(),
            "options": vars(self.options),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log_gain": self.log_gain.detach(),
            "confusion": self.confusion,
        }

    def load(self, state: dict) -> int:
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.log_gain.data.copy_(state["log_gain"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.confusion.copy_(state["confusion"])
        return state["step"]


def save(state: dict, path: Path) -> None:
    with durable.replacing(path) as temporary:
        torch.save(state, temporary)


def train(options: argparse.Namespace, trainer: Trainer, batches: Batches) -> None:
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    step = trainer.load(torch.load(checkpoint, weights_only=True)) if checkpoint.exists() else 0
    smooth, last_save = None, time.monotonic()
    with open(out / "log.jsonl", "a") as log:
        while step < options.generative_steps + options.discriminative_steps:
            discriminative, lr = trainer.phase(step)
            for group in trainer.optimizer.param_groups:
                group["lr"] = lr
            x_start, labels = batches.take(step, options.batch // 2 if discriminative else options.batch)
            generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
            if discriminative:
                loss, right = trainer.discriminative_loss(x_start, labels, generator)
            else:
                loss, right = trainer.generative_loss(x_start, labels, generator), float("nan")
            trainer.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
            trainer.optimizer.step()
            step += 1
            trainer.update_ema(step)
            value = np.array([float(loss.detach()), right])
            smooth = value if smooth is None or np.isnan(smooth[1]) != np.isnan(right) else 0.98 * smooth + 0.02 * value
            if step % options.log_every == 0:
                record = {
                    "step": step,
                    "time": round(time.time()),
                    "lr": lr,
                    "loss": smooth[0],
                    "accuracy": smooth[1],  # of the true class against its negatives, N_TRIALS trials
                    "gain": trainer.log_gain.exp().round(decimals=1).tolist(),
                    **trainer.notes(),
                }
                print(json.dumps(record), file=log, flush=True)
                print(record, flush=True)
            if time.monotonic() - last_save > options.checkpoint_every:
                save(trainer.state(step), checkpoint)
                last_save = time.monotonic()
    save(trainer.state(step), checkpoint)


def parse_options(description: str, **defaults: object) -> argparse.Namespace:
    """The command line of a training run; `defaults` are of models other than the embedded one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--generative-steps", type=int, default=4000)
    parser.add_argument("--discriminative-steps", type=int, default=7500)
    parser.add_argument("--discriminative", type=float, default=0.2, help="weight of the cross-entropy")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--patch", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the model: a quarter faster, other last bits"
    )
    parser.add_argument("--checkpoint-every", type=float, default=120.0, help="seconds")
    parser.add_argument("--log-every", type=int, default=200, help="steps")
    parser.set_defaults(**defaults)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def main() -> None:
    options = parse_options(__doc__.splitlines()[0])
    train(options, Trainer(options), Batches(*training_pictures(), options.seed))


if __name__ == "__main__":
    main()
