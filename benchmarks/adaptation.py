"""Do test-time adaptation, learned noise, learned prompts, per-class LoRA and attacks change accuracy as published?

On the embedded model's PyTorch twin and held-out Fashion-MNIST training pictures, among their own ten classes.  Every row is
the accuracy of two answers to the same pictures and the difference with its paired bootstrap interval (95 %); the pictures
that something was fitted to are others.  The effect's sign is the question, its size is that of a small model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import diffcls.torch as dt
from diffcls.intervals import bootstrap, interval
from diffcls.models import data, export

SHOTS = 8
"""Pictures of each class that are fitted to."""


class Pictures:
    """x_start and labels of held-out pictures, and the ten classes that they are asked among."""

    def __init__(self, n_test: int) -> None:
        self.denoiser, self.ids = dt.twin(embeddings=True), dt.twin()
        self.classes = self.denoiser.class_names[10:20]
        images, labels = export.held_out(export.N_HELD_OUT)[1]
        shots = np.concatenate([np.flatnonzero(labels == k)[:SHOTS] for k in range(10)])
        rest = np.setdiff1d(np.arange(len(labels)), shots)[:n_test]
        encode = self.classifier(n_samples=1).encode
        self.few, self.few_labels = encode(list(images[shots])), torch.from_numpy(labels[shots])
        self.test, self.labels = encode(list(images[rest])), torch.from_numpy(labels[rest])

    def classifier(self, *, ids: bool = False, denoiser: Any = None, **options: Any) -> dt.DiffusionClassifier:
        source = denoiser or (self.ids if ids else self.denoiser)
        return dt.DiffusionClassifier(source, self.classes, batch_size=256, **options)


def right(model: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> np.ndarray:
    """(N,) bool."""
    with torch.no_grad():
        return (model(x).argmax(1) == labels).numpy()


def compared(effect: str, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Rows are repeats, columns pictures; pictures are resampled."""
    gain = np.atleast_2d(after.astype(float)).mean(0) - np.atleast_2d(before.astype(float)).mean(0)
    low, high = interval([float(gain[rows].mean()) for rows in bootstrap(len(gain), 4000, 0)], 0.95)
    return {
        "effect": effect,
        "before": float(before.mean()),
        "after": float(after.mean()),
        "difference": float(gain.mean()),
        "low": low,
        "high": high,
        "pictures": gain.size,
    }


def fit(parameters: list[nn.Parameter], loss: Callable[[int], Tensor], n_steps: int, lr: float) -> None:
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for step in range(n_steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


def learned_noise(pictures: Pictures, repeats: int, timestep: int) -> dict[str, Any]:
    """As the authors' program fits the noise of a data set (NoOp; Wang and Chen, NeurIPS 2025), without the offset of an image.

    One trial; 20 epochs of the few pictures, eight a step; Adam with 1e-2 on the noise alone, which begins as the trial's own; the
    cross-entropy of minus the errors, each picture's errors brought to mean zero and variance one over the classes.  A row a seed.
    """
    before, after = [], []
    for seed in range(repeats):
        model = pictures.classifier(timesteps=[timestep], weighting="uniform", learn="noise", seed=seed)
        before.append(right(model, pictures.test, pictures.labels))
        rng = np.random.default_rng(seed)
        order = np.concatenate([rng.permutation(len(pictures.few)) for _ in range(20)])
        steps = [torch.from_numpy(rows) for rows in np.array_split(order, len(order) // 8)]

        def loss(step: int, model: Any = model, steps: list[Tensor] = steps) -> Tensor:
            errors = model.losses(pictures.few[steps[step]])
            scores = (errors.mean(1, keepdim=True) - errors) / errors.std(1, correction=0, keepdim=True)
            return F.cross_entropy(scores, pictures.few_labels[steps[step]])

        fit([model.noise], loss, len(steps), 1e-2)
        after.append(right(model, pictures.test, pictures.labels))
    return compared(f"learned noise (NoOp), one trial at timestep {timestep}", np.stack(before), np.stack(after))


def learned_prompts(pictures: Pictures, repeats: int) -> dict[str, Any]:
    """Of turned pictures, whose classes the model's own conditions do not name: cross-entropy on a few, at one trial.

    Before: the same trial and the model's own conditions.  On upright pictures there was nothing to gain.
    """
    few, test = turned(pictures.few), turned(pictures.test)
    before, after = [], []
    for seed in range(repeats):
        model = pictures.classifier(timesteps=[400], learn="conditions", seed=seed)
        before.append(right(model, test, pictures.labels))
        parameters = [p for name, p in model.named_parameters() if name.startswith("conditions")]

        def loss(_: int, model: nn.Module = model) -> Tensor:
            return F.cross_entropy(model(few), pictures.few_labels)

        fit(parameters, loss, 15, 1e-2)
        after.append(right(model, test, pictures.labels))
    name = "learned prompts, turned pictures, one trial at timestep 400"
    return compared(name, np.stack(before), np.stack(after))


def turned(x: Tensor) -> Tensor:
    """By a quarter, as the model never saw them."""
    return x.rot90(1, (2, 3))


def class_lora(pictures: Pictures, n_steps: int) -> dict[str, Any]:
    """The denoising loss of the true class on a few turned pictures."""
    few, test = turned(pictures.few), turned(pictures.test)
    torch.manual_seed(0)
    lora = dt.ClassLoRA(pictures.ids, rank=4)
    model = pictures.classifier(denoiser=lora.denoiser, n_samples=4)
    before = right(model, test, pictures.labels)
    parameters = [p for p in lora.parameters() if p.requires_grad]
    fit(parameters, lambda step: model.losses(few, classes=pictures.few_labels, draw=step).mean(), n_steps, 3e-3)
    return compared("per-class LoRA (TiF), turned pictures", before, right(model, test, pictures.labels))


def adaptation(pictures: Pictures) -> dict[str, Any]:
    """A perceptron trained on clean training pictures, asked about noisy ones, ten at a time; each ten begins anew."""
    images, labels = data.load(data.DATASETS[1], train=True)
    x = pictures.classifier(n_samples=1).encode(list(images[:2000]))
    torch.manual_seed(0)
    perceptron = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    y, order = torch.from_numpy(labels[:2000].astype(np.int64)), torch.Generator().manual_seed(0)

    def loss(_: int) -> Tensor:
        rows = torch.randint(0, 2000, (128,), generator=order)
        return F.cross_entropy(perceptron(x[rows]), y[rows])

    fit(list(perceptron.parameters()), loss, 500, 1e-3)
    noise = torch.randn(pictures.test.shape, generator=torch.Generator().manual_seed(1))
    noisy = (pictures.test + 0.6 * noise).clamp(-1, 1)
    diffusion = pictures.classifier(n_samples=8)
    before = right(perceptron, noisy, pictures.labels)
    adapted = torch.cat([dt.adapt(perceptron, diffusion, ten, n_steps=8, lr=1e-3) for ten in noisy.split(10)])
    return compared("adapt (Diffusion-TTA), noisy pictures", before, (adapted.argmax(1) == pictures.labels).numpy())


def attacked(pictures: Pictures, n: int, radius: float) -> dict[str, Any]:
    model = pictures.classifier(ids=True, n_samples=4)
    x, labels = pictures.test[:n], pictures.labels[:n]
    moved = dt.pgd(model, x, labels, radius=radius, n_steps=5, low=-1.0, high=1.0)
    name = f"PGD, linf {radius} of [-1, 1]"
    return compared(name, right(model, x, labels), right(model, moved, labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2, help="seeds of learned noise and prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = Pictures(options.pictures)
    questions: list[Callable[[], dict[str, Any]]] = [
        lambda: adaptation(pictures),
        *(lambda t=t: learned_noise(pictures, options.repeats, t) for t in (500, 700)),
        lambda: learned_prompts(pictures, options.repeats),
        lambda: class_lora(pictures, 40),
        lambda: attacked(pictures, min(50, options.pictures), 0.1),
    ]
    results = []
    for question in questions:
        results.append(question())
        print(results[-1], flush=True)
    common.record("adaptation", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
