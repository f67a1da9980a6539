"""How much faster are noise, noising, target and error than PyTorch's, eager and compiled?  Targets: 4 and 1.5 times.

One step without its denoiser, as the loop has it: every noise serves `classes` rows.  PyTorch makes it with its own generator,
and holds what it makes in memory.  Whole steps, from the first call to the last result; and what the kernels alone take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpu_common
import numpy as np
import torch
from gpu_common import SCHEDULE, Place

import diffcls

SHAPES = {
    "64 x 4x64x64": (64, (4, 64, 64)),
    "256 x 4x32x32": (256, (4, 32, 32)),
    "64 x 16x128x128": (64, (16, 128, 128)),
}
SMALL = {"4 x 4x8x8": (4, (4, 8, 8))}
CLASSES, STEPS = 8, 40


def with_torch(place: Place, batch: int, shape: tuple[int, ...], classes: int, compiled: bool) -> Callable[[], object]:
    alpha = torch.tensor(SCHEDULE.alpha).float().to(place.name)
    sigma = torch.tensor(SCHEDULE.sigma).float().to(place.name)
    x_start, answer = torch.randn(shape, device=place.name), torch.randn((batch, *shape), device=place.name)
    groups = batch // classes

    def step(t: torch.Tensor) -> torch.Tensor:
        eps = torch.randn((groups, *shape), device=place.name)
        one = (groups, *(1 for _ in shape))
        x_t = (alpha[t].view(one) * x_start + sigma[t].view(one) * eps).repeat_interleave(classes, 0)
        target = eps.repeat_interleave(classes, 0)
        return (answer - target).square().flatten(1).mean(1) + 0.0 * x_t.flatten(1)[:, 0]

    call = torch.compile(step, dynamic=False, backend="inductor" if place.is_real else "eager") if compiled else step
    t = torch.randint(0, 1000, (groups,), device=place.name)

    def run() -> object:
        with torch.no_grad():
            return [call(t) for _ in range(STEPS)][-1].cpu()

    return run


def ours(place: Place, batch: int, shape: tuple[int, ...], classes: int, graph: bool) -> Callable[[], object]:
    denoiser = gpu_common.free_denoiser(place, shape, classes, batch, graph=graph)
    policy = diffcls.Fixed(batch // classes * STEPS)
    classifier = diffcls.Classifier(denoiser, policy=policy, batch_size=batch)
    image = np.random.default_rng(place.seed).standard_normal(shape).astype(np.float32)
    return lambda: classifier(image).losses


def main() -> None:
    options = gpu_common.arguments(__doc__.splitlines()[0])
    place = Place(options)
    rows: list[dict[str, Any]] = []
    for name, (batch, shape) in (SHAPES if place.is_real else SMALL).items():
        classes = min(CLASSES, batch)
        calls = {
            "diffcls": ours(place, batch, shape, classes, graph=False),
            "diffcls, graphs": ours(place, batch, shape, classes, graph=True),
            "eager": with_torch(place, batch, shape, classes, compiled=False),
            "compiled": with_torch(place, batch, shape, classes, compiled=True),
        }
        times = place.measure(calls, options.repeats)
        for candidate, call in calls.items():
            ratio = times.ratio(candidate, "diffcls")
            kernels, _ = place.profile(call)
            rows.append(
                {
                    "shape": name,
                    "candidate": candidate,
                    "us_a_step": times.median(candidate) / STEPS * 1e6,
                    "kernels_us_a_step": sum(sum(us) for us in kernels.values()) / STEPS,
                    "times diffcls": ratio["median"],
                    "interval": [round(ratio["low"], 2), round(ratio["high"], 2)],
                }
            )
    gpu_common.record("gpu_peers", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
