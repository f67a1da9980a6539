"""SD3Transformer2DModel: Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from . import text
from .adapter import FlowAdapter, Kwargs


class StableDiffusion3(FlowAdapter):
    """T5 may be missing, as in the published memory-saving setting: the pipeline puts zeros in its place."""

    component, pipeline = "SD3Transformer2DModel", "StableDiffusion3Pipeline"
    models = "Stable Diffusion 3, 3.5"
    time = "num_train_timesteps * sigma"
    latents = "shifted"
    conditions = (
        "hidden states of two CLIP text encoders side by side, zero-padded, then T5's; their pooled vectors; no mask"
    )
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

    def x_start_shape(self) -> tuple[int, int, int]:
        shape = super().x_start_shape()
        patch, most = int(self.config["patch_size"]), int(self.config.get("pos_embed_max_size") or 0)
        if most and max(shape[1:]) // patch > most:
            raise InputError(
                f"resolution is {self.size}, and the model has positions for {most * patch * self.stride} pixels a side"
            )
        return shape

    def token_limits(self) -> dict[str, int]:
        """CLIP's are not among them where T5 reads the whole prompt: its end still counts."""
        if getattr(self.pipe, "text_encoder_3", None) is not None:
            return {"tokenizer_3": self.settings.max_sequence_length or text.default_length(self.pipe)}
        return {name: int(self.pipe.tokenizer_max_length) for name in ("tokenizer", "tokenizer_2")}

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        states, _, pooled, _ = text.encode(self, prompts, max_sequence_length=self.settings.max_sequence_length)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"hidden_states": x, "timestep": t, **cond}
