"""PixArtTransformer2DModel and SanaTransformer2DModel: one language model's hidden states with their mask."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from . import text
from .adapter import Adapter, FlowAdapter, Kwargs


class PixArt(Adapter):
    """Components alone do not tell alpha from Sigma, whose prompts are 120 and 300 tokens long: give a pipeline or a folder."""

    component, pipeline = "PixArtTransformer2DModel", None
    models = "PixArt-alpha, PixArt-Sigma"
    predicts = ("epsilon", "v_prediction", "sample")
    time = "t, whole"
    latents = "scaling"
    conditions = (
        "hidden states of T5, padded, with their mask; the picture's size and shape where the module embeds them"
    )
    text_parts = ("text_encoder", "tokenizer")

    def check(self) -> None:
        self._added: Any = None

    def token_limits(self) -> dict[str, int]:
        return {"tokenizer": self._length()}

    def _length(self) -> int:
        """The pipeline's own, unless the tokenizer says that the model was trained on shorter prompts."""
        shortest = min(text.default_length(self.pipe), int(self.pipe.tokenizer.model_max_length))
        return self.settings.max_sequence_length or shortest

    def as_read(self, prompts: list[str]) -> list[str]:
        """Without capitals and white space at the ends, as the pipeline cleans prompts."""
        cleaned: list[str] = self.pipe._text_preprocessing(list(prompts), clean_caption=False)
        return cleaned

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        states, mask, _, _ = text.encode(self, prompts, max_sequence_length=self._length(), clean_caption=False)
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"hidden_states": x, "timestep": t, "added_cond_kwargs": self._size_conditions(x), **cond}

    def _size_conditions(self, x: Any) -> dict[str, Any]:
        """Of a module that embeds them (alpha at 1024): height and width, and their ratio, of each row."""
        if not self.module.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = self.size
        if self._added is None or self._added[0].device != x.device:
            self._added = x.new_tensor([[height, width]]), x.new_tensor([[height / width]])
        resolution, ratio = self._added
        return {"resolution": resolution.expand(len(x), -1), "aspect_ratio": ratio.expand(len(x), -1)}


class Sana(FlowAdapter):
    """The pipeline's own instruction is put before each prompt, as it does by itself and as the model was trained."""

    component, pipeline = "SanaTransformer2DModel", "SanaPipeline"
    models = "Sana"
    time = "num_train_timesteps * sigma * timestep_scale"
    latents = "scaling"
    conditions = (
        "hidden states of Gemma 2, the first and the last tokens after the pipeline's instruction, with their mask"
    )
    text_parts = ("text_encoder", "tokenizer")

    def check(self) -> None:
        if self.config.get("guidance_embeds") and not self.settings.allow_distilled:
            raise InputError("the model embeds a guidance scale, as Sana-Sprint does, which is distilled to few steps")

    def as_read(self, prompts: list[str]) -> list[str]:
        cleaned: list[str] = self.pipe._text_preprocessing(list(prompts), clean_caption=False)
        return cleaned

    def token_limits(self) -> dict[str, int]:
        return {"tokenizer": self.settings.max_sequence_length or text.default_length(self.pipe)}

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        instruction = inspect.signature(type(self.pipe).__call__).parameters["complex_human_instruction"].default
        states, mask, _, _ = text.encode(
            self,
            prompts,
            clean_caption=False,
            max_sequence_length=self.settings.max_sequence_length,
            complex_human_instruction=instruction,
        )
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"hidden_states": x, "timestep": t * self.config["timestep_scale"], **cond}
