"""How much of an evaluation are the keys and values of the text, which are the same at every timestep?

They are what could be kept from one timestep to the next where a module reads the text by cross-attention alone (in joint
attention, as of SD3 and FLUX, the text's states change with the noise, and there is nothing to keep).  Multiplications are counted
by PyTorch's own counter on modules without memory, of the sizes that were published; nothing is timed and no weights are needed.
The text's other projections before the first block count as kept too, so each share is the most that could be saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
import torch
from diffusers import PixArtTransformer2DModel, SanaTransformer2DModel, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

CROSS = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3


def unet(side: int, width: int, **config: Any) -> tuple[Any, dict[str, Any]]:
    given = {
        "down_block_types": CROSS,
        "up_block_types": UP,
        "sample_size": side,
        "cross_attention_dim": width,
        **config,
    }
    return UNet2DConditionModel(**given), {
        "sample": torch.empty(1, 4, side, side),
        "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, 77, width),
    }


def sdxl() -> tuple[Any, dict[str, Any]]:
    module, given = unet(
        128,
        2048,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return module, {**given, "added_cond_kwargs": {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}}


def pixart(side: int, tokens: int) -> tuple[Any, dict[str, Any]]:
    module = PixArtTransformer2DModel(sample_size=side, cross_attention_dim=1152, use_additional_conditions=False)
    return module, {
        "hidden_states": torch.empty(1, 4, side, side),
        "encoder_hidden_states": torch.empty(1, tokens, 4096),
        "timestep": torch.empty(1),
        "encoder_attention_mask": torch.empty(1, tokens),
    }


def sana() -> tuple[Any, dict[str, Any]]:
    return SanaTransformer2DModel(sample_size=32), {
        "hidden_states": torch.empty(1, 32, 32, 32),
        "encoder_hidden_states": torch.empty(1, 300, 2304),
        "timestep": torch.empty(1),
        "encoder_attention_mask": torch.empty(1, 300),
    }


MODELS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "Stable Diffusion 1, 512 px": lambda: unet(64, 768),
    "Stable Diffusion 2, 512 px": lambda: unet(
        64, 1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    ),
    "SDXL, 1024 px": sdxl,
    "PixArt-alpha, 512 px, 120 tokens": lambda: pixart(64, 120),
    "PixArt-Sigma, 1024 px, 300 tokens": lambda: pixart(128, 300),
    "Sana 1.6B, 1024 px, 300 tokens": sana,
}


def share(make: Callable[[], tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    with torch.device("meta"):
        module, given = make()
    kept: list[float] = []
    of_text = [
        part
        for name, part in module.named_modules()
        if name.endswith(("attn2.to_k", "attn2.to_v")) or name.startswith("caption_projection.linear")
    ]
    for part in of_text:
        part.register_forward_hook(lambda part, args, out: kept.append(2.0 * out.numel() * part.in_features))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(**given)
    total = counter.get_total_flops()
    assert len(kept) == len(of_text) > 0
    return {"tflop": total / 1e12, "text_gflop": sum(kept) / 1e9, "share_percent": 100.0 * sum(kept) / total}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    rows = [{"model": name, **share(make)} for name, make in MODELS.items()]
    common.record("text-keys", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
