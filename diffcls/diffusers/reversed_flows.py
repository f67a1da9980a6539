"""Lumina2Transformer2DModel and ZImageTransformer2DModel: flows whose time and velocity run from noise to picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import text
from .adapter import FlowAdapter, Kwargs


class Lumina2(FlowAdapter):
    component, pipeline = "Lumina2Transformer2DModel", "Lumina2Pipeline"
    models = "Lumina-Image 2.0"
    time = "1 - sigma; the output is x_start - eps, so its sign is turned"
    latents = "shifted"
    conditions = "penultimate hidden states of Gemma 2 after the pipeline's system prompt, padded, with their mask"
    text_parts = ("text_encoder", "tokenizer")

    def as_read(self, prompts: list[str]) -> list[str]:
        return [f"{self.pipe.system_prompt} <Prompt Start> {prompt}" for prompt in prompts]

    def token_limits(self) -> dict[str, int]:
        return {"tokenizer": self.settings.max_sequence_length or text.default_length(self.pipe)}

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        states, mask, _, _ = text.encode(self, prompts, max_sequence_length=self.settings.max_sequence_length)
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        n = self.pipe.scheduler.config.num_train_timesteps
        return {"hidden_states": x, "timestep": 1 - t / n, **cond}

    def prediction(self, output: Any, x: Any) -> Any:
        return -super().prediction(output, x)


class ZImage(FlowAdapter):
    """The module takes lists, and a prompt's tokens without padding: rows of different lengths cost a look at the lengths."""

    component, pipeline = "ZImageTransformer2DModel", "ZImagePipeline"
    models = "Z-Image (not Turbo, which is distilled)"
    time = "1 - sigma; the output is x_start - eps, so its sign is turned"
    latents = "shifted"
    patch = 2
    conditions = "penultimate hidden states of Qwen 3 in the pipeline's chat template, without padding"
    text_parts = ("text_encoder", "tokenizer")

    def default_size(self) -> tuple[int, int]:
        """The pipeline's own: no config has one."""
        return 1024, 1024

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows, _ = text.encode(self, prompts, max_sequence_length=self.settings.max_sequence_length)
        return {"cap_feats": pad_sequence(rows, batch_first=True), "lengths": torch.tensor([len(row) for row in rows])}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        lengths = cond["lengths"].tolist()
        captions = [row[:length] for row, length in zip(cond["cap_feats"], lengths, strict=True)]
        return {"x": list(x[:, :, None].unbind(0)), "t": (1000 - t) / 1000, "cap_feats": captions}

    def prediction(self, output: Any, x: Any) -> Any:
        import torch

        return -torch.stack(list(output), dim=0)[:, :, 0]
