"""How many evaluations a second has DiT-XL/2 at 256 in bfloat16?  Targets: 2,000 on an H100, 1.1 times torch.compile, 10 times
the plain loop in float32 that asks one class at a time.

diffusers' DiTTransformer2DModel with random weights.  Ours is the native DiT with the same weights, and the loop around the module,
compiled; the peers ask the same module for batches that are there already, and the plain loop is the published
one's way: float32, one class after the other, eager.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_common
import numpy as np
import torch
from gpu_common import SCHEDULE, Place

import diffcls

XL2 = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "sample_size": 32,
    "num_embeds_ada_norm": 1000,
}
TINY = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8, "num_embeds_ada_norm": 10}


def build(place: Place, dtype: torch.dtype) -> Any:
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(place.seed)
    model = DiTTransformer2DModel(in_channels=4, out_channels=8, patch_size=2, **(XL2 if place.is_real else TINY))
    with torch.no_grad():
        for parameter in model.parameters():  # adaLN-zero's zeros would be the identity
            parameter.copy_(torch.randn_like(parameter) * 0.02)
    return model.to(place.name, dtype).eval()


def compiled(place: Place, model: Any) -> Any:
    return torch.compile(model, dynamic=False, backend="inductor" if place.is_real else "eager")


def ours(place: Place, model: Any, batch: int, n_evals: int, dtype: str, graph: bool) -> Callable[[], object]:
    config = model.config
    shape = (config.in_channels, config.sample_size, config.sample_size)

    def predict(x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return model(x_t, timestep=t, class_labels=cond).sample[:, : shape[0]]

    facts = {"schedule": SCHEDULE, "framework": "torch", "device": place.name, "dtype": dtype, "cuda_graph": graph}
    classes = min(8, config.num_embeds_ada_norm)
    denoiser = diffcls.Denoiser(predict, shape=shape, n_classes=classes, **facts)
    classifier = diffcls.Classifier(denoiser, policy=diffcls.Fixed(n_evals // classes), batch_size=batch)
    image = np.random.default_rng(place.seed).standard_normal(shape).astype(np.float32)
    return lambda: classifier(image).losses


def native(place: Place, model: Any, batch: int, n_evals: int) -> Callable[[], object]:
    """The core's own forward of the same weights, in bfloat16 on a device."""
    from diffcls.diffusers import load_dit

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "transformer")
        denoiser = load_dit(folder, native=True)
    denoiser = denoiser.to(place.name, "bfloat16") if place.is_real else denoiser
    classes = denoiser.class_names[:8]
    policy = diffcls.Fixed(n_evals // len(classes))
    classifier = diffcls.Classifier(denoiser, classes, policy=policy, batch_size=batch)
    image = np.random.default_rng(place.seed).standard_normal(denoiser.shape).astype(np.float32)
    return lambda: classifier(image).losses


def module_alone(place: Place, model: Any, batch: int, n_evals: int, dtype: torch.dtype) -> Callable[[], object]:
    config = model.config
    x_t = torch.randn(batch, config.in_channels, config.sample_size, config.sample_size, device=place.name, dtype=dtype)
    t = torch.randint(0, 1000, (batch,), device=place.name)
    labels = torch.arange(batch, device=place.name) % config.num_embeds_ada_norm

    def run() -> object:
        with torch.no_grad():
            return [model(x_t, timestep=t, class_labels=labels).sample for _ in range(max(1, n_evals // batch))][-1]

    return run


def main() -> None:
    options = gpu_common.arguments(__doc__.splitlines()[0])
    place = Place(options)
    batches, n_evals = ((64, 128), 1024) if place.is_real else ((4,), 8)
    rows: list[dict[str, Any]] = []
    half = torch.bfloat16
    model, plain = build(place, half), build(place, torch.float32)
    fast = compiled(place, model)
    for batch in batches:
        calls = {
            "native": native(place, plain, batch, n_evals),
            "loop, compiled": ours(place, fast, batch, n_evals, "bfloat16", graph=False),
            "loop, graphs": ours(place, model, batch, n_evals, "bfloat16", graph=True),
            "module, compiled": module_alone(place, fast, batch, n_evals, half),
            "module, eager": module_alone(place, model, batch, n_evals, half),
        }
        evals = {name: max(1, n_evals // batch) * batch for name in calls}
        calls["plain loop, float32"] = module_alone(place, plain, 1, 16 if place.is_real else 2, torch.float32)
        evals["plain loop, float32"] = 16 if place.is_real else 2
        times = place.measure(calls, max(2, options.repeats // 3))
        for name in calls:
            row = {"batch": batch, "candidate": name, "evals_per_second": evals[name] / times.median(name)}
            ratio = times.ratio(name, "loop, compiled")["median"] * evals["loop, compiled"] / evals[name]
            rows.append({**row, "seconds an evaluation, times the loop's": ratio})
    gpu_common.record("gpu_dit", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
