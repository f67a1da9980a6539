"""What does the loop cost beside an SD-2-shaped UNet at 512, compiled?  Target: 0.1 % of the denoiser alone, at most.

diffusers' UNet2DConditionModel of Stable Diffusion 2's sizes with random weights, bfloat16, channels last.  The same batches
go through the bare module and through the loop, whole runs in turn; the difference is the loop's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpu_common
import numpy as np
import torch
from gpu_common import SCHEDULE, Place

import diffcls

SD2 = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
TINY = {
    "sample_size": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
CLASSES, TOKENS = 8, 77


def main() -> None:
    from diffusers import UNet2DConditionModel

    options = gpu_common.arguments(__doc__.splitlines()[0])
    place = Place(options)
    batch, n_batches, dtype = (32, 16, torch.bfloat16) if place.is_real else (4, 2, torch.bfloat16)
    sizes: dict[str, Any] = SD2 if place.is_real else TINY
    model = UNet2DConditionModel(**sizes).to(place.name, dtype).eval().to(memory_format=torch.channels_last)
    fast = torch.compile(model, dynamic=False, backend="inductor" if place.is_real else "eager")
    shape = (4, sizes["sample_size"], sizes["sample_size"])
    prompts = torch.randn(CLASSES, TOKENS, sizes["cross_attention_dim"], device=place.name, dtype=dtype)

    def predict(x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return fast(x_t, t, encoder_hidden_states=cond).sample

    facts = {"schedule": SCHEDULE, "framework": "torch", "device": place.name, "dtype": "bfloat16"}
    denoiser = diffcls.Denoiser(predict, shape=shape, conditions=prompts, memory_format="channels_last", **facts)
    policy = diffcls.Fixed(n_batches * batch // CLASSES)
    classifier = diffcls.Classifier(denoiser, policy=policy, batch_size=batch)
    image = np.random.default_rng(place.seed).standard_normal(shape).astype(np.float32)
    x_t = torch.randn((batch, *shape), device=place.name, dtype=dtype).to(memory_format=torch.channels_last)
    t = torch.randint(0, 1000, (batch,), device=place.name)
    rows_of_prompts = prompts[torch.arange(batch, device=place.name) % CLASSES]

    def alone() -> object:
        with torch.no_grad():
            return [predict(x_t, t, rows_of_prompts) for _ in range(n_batches)][-1]

    calls: dict[str, Callable[[], object]] = {"the loop": lambda: classifier(image), "the module alone": alone}
    times = place.measure(calls, options.repeats)
    ratio = times.ratio("the loop", "the module alone")
    rows = [{"candidate": name, "ms_a_batch": times.median(name) / n_batches * 1e3, "batch": batch} for name in calls]
    rows.append(
        {"loop above the module alone, %": 100 * (ratio["median"] - 1), "low": ratio["low"], "high": ratio["high"]}
    )
    gpu_common.record("gpu_unet", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
