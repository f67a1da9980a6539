"""What does the loop itself cost a row, around a denoiser that costs nothing, against plain NumPy and PyTorch loops?

The same work in all: `TRIALS` trials for each of `CLASSES` classes of one image, batch by batch: noise shared by the
classes, x_t, a denoiser that returns an array that exists already, the mean squared error of every row.
Targets: 5 times PyTorch, 3 times NumPy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch

import diffcls

CLASSES, TRIALS = 10, 96
SHAPES, BATCHES = ((4, 64, 64), (1, 28, 28)), (32, 128)
SCHEDULE = diffcls.Schedule.linear(1000)
TIMESTEPS = (np.arange(TRIALS) * 10 + 5).astype(np.int64)


def rows(batch: int) -> list[list[tuple[int, int]]]:
    """(trial, class) pairs, classes of one trial together, cut into batches."""
    pairs = list(itertools.product(range(TRIALS), range(CLASSES)))
    return [pairs[i : i + batch] for i in range(0, len(pairs), batch)]


def with_diffcls(x: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    answer = np.zeros((batch, *x.shape), np.float32)
    denoiser = diffcls.Denoiser(
        lambda x_t, t, cond: answer[: len(t)], shape=x.shape, schedule=SCHEDULE, n_classes=CLASSES
    )
    policy = diffcls.Race(timesteps=TIMESTEPS.tolist(), risk=1e-12, n_min=TRIALS, caps=None)
    classifier = diffcls.Classifier(denoiser, policy=policy, batch_size=batch)
    return lambda: classifier(x).losses


def with_numpy(x: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    answer = np.zeros((batch, *x.shape), np.float32)
    alpha, sigma = SCHEDULE.alpha.astype(np.float32), SCHEDULE.sigma.astype(np.float32)
    batches = [(np.array([p[0] for p in part]), np.array([p[1] for p in part])) for part in rows(batch)]

    def run() -> np.ndarray:
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((TRIALS, *x.shape), dtype=np.float32)
        errors = np.zeros((CLASSES, TRIALS))
        for trial, cond in batches:
            t, eps = TIMESTEPS[trial], noise[trial]
            x_t = alpha[t, None, None, None] * x + sigma[t, None, None, None] * eps
            prediction = denoise_free(answer, x_t, t, cond)
            errors[cond, trial] = np.square(prediction - eps).mean(axis=(1, 2, 3))
        return errors.mean(axis=1)

    return run


def denoise_free(answer: Any, x_t: Any, t: Any, cond: Any) -> Any:
    return answer[: len(t)]


def with_torch(x: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    x_start, answer = torch.from_numpy(x), torch.zeros((batch, *x.shape))
    alpha, sigma = torch.tensor(SCHEDULE.alpha).float(), torch.tensor(SCHEDULE.sigma).float()
    steps = torch.from_numpy(TIMESTEPS)
    batches = [(torch.tensor([p[0] for p in part]), torch.tensor([p[1] for p in part])) for part in rows(batch)]

    def run() -> np.ndarray:
        with torch.inference_mode():
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn((TRIALS, *x.shape), generator=generator)
            errors = torch.zeros(CLASSES, TRIALS)
            for trial, cond in batches:
                t, eps = steps[trial], noise[trial]
                x_t = alpha[t].view(-1, 1, 1, 1) * x_start + sigma[t].view(-1, 1, 1, 1) * eps
                prediction = denoise_free(answer, x_t, t, cond)
                errors[cond, trial] = (prediction - eps).square().mean(dim=(1, 2, 3))
            return errors.mean(dim=1).numpy()

    return run


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    diffcls.set_num_threads(1)
    results = []
    for shape, batch in itertools.product(SHAPES, BATCHES):
        x = np.random.default_rng(options.seed).standard_normal(shape).astype(np.float32)
        calls = {"diffcls": with_diffcls(x, batch), "numpy": with_numpy(x, batch), "torch": with_torch(x, batch)}
        for name, call in calls.items():  # E[eps^2] = 1: all do the work
            assert np.allclose(call(), 1.0, atol=0.05), name
        times = common.measure(calls, repeats=options.repeats, seed=options.seed)
        for name in calls:
            ratio = times.ratio(name, "diffcls")
            results.append(
                {
                    "shape": list(shape),
                    "batch": batch,
                    "candidate": name,
                    "us_per_row": times.median(name) / (CLASSES * TRIALS) * 1e6,
                    "times diffcls": ratio["median"],
                    "interval": [round(ratio["low"], 2), round(ratio["high"], 2)],
                }
            )
    common.record("loop", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
