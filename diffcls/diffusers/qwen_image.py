"""QwenImageTransformer2DModel: Qwen-Image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from . import text
from .adapter import Kwargs, PackedFlow, pack, unpack


class QwenImage(PackedFlow):
    """Tokens are 2x2 patches of the latent; its VAE is one of videos, and a picture is one frame."""

    component, pipeline = "QwenImageTransformer2DModel", "QwenImagePipeline"
    models = "Qwen-Image"
    time = "sigma (the module multiplies by 1000)"
    latents = "moments"
    conditions = "last hidden states of Qwen 2.5 VL in the pipeline's template, without the template's start, padded, with their mask"
    text_parts = ("text_encoder", "tokenizer")

    def check(self) -> None:
        if self.config.get("guidance_embeds") or self.config.get("use_additional_t_cond"):
            raise InputError(
                f"{self.component}'s config has guidance_embeds or use_additional_t_cond, which is not known here"
            )

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        import torch

        states, mask = text.encode(self, prompts, max_sequence_length=self.settings.max_sequence_length)
        if mask is None:  # the pipeline's way of saying that nothing is padded
            mask = torch.ones(states.shape[:2], dtype=torch.int64, device=states.device)
        return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        frames = [[(1, self.shape[1] // 2, self.shape[2] // 2)]] * len(x)
        return {"hidden_states": pack(x), "timestep": t / 1000, "img_shapes": frames, **cond}

    def prediction(self, output: Any, x: Any) -> Any:
        return unpack(output, self.shape)
