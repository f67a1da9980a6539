"""UNet2DConditionModel: Stable Diffusion 1 and 2, their v-prediction models, and SDXL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import InputError
from . import text
from .adapter import Adapter, Kwargs


class StableDiffusion(Adapter):
    component, slot, pipeline = "UNet2DConditionModel", "unet", "StableDiffusionPipeline"
    models = "Stable Diffusion 1.x, 2.x, 2.x 768 (v-prediction) and what is fine-tuned from them"
    predicts = ("epsilon", "v_prediction", "sample", "edm")
    time = "t, whole"
    latents = "scaling"
    conditions = "last hidden state of one CLIP text encoder, padded to its maximum, no mask"
    half = "float16"
    text_parts: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

    in_windows = True

    def check(self) -> None:
        config = self.config
        if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
            raise InputError(
                "the UNet takes class labels beside the prompt, as upscalers do; it is not known what to give it"
            )
        if config.get("addition_embed_type") not in (None, "text_time"):
            kind = config["addition_embed_type"]
            raise InputError(f"the UNet's addition_embed_type is {kind!r}; known are none and 'text_time' (SDXL)")

    @property
    def granularity(self) -> int:
        """Each block but the last halves the picture."""
        return self.stride * int(2 ** (len(self.config["down_block_types"]) - 1))

    def token_limits(self) -> dict[str, int]:
        return {name: tokenizer.model_max_length for name, tokenizer in text.tokenizers(self.pipe)}

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        if n_windows == 1:
            return {"encoder_hidden_states": text.encode(self, prompts)[0]}
        outputs = self._windows("", prompts, n_windows)
        return {"encoder_hidden_states": _side_by_side([output[0] for output in outputs], dim=1)}

    def _windows(self, which: str, prompts: list[str], n_windows: int) -> list[Any]:
        """Of the text encoder ``text_encoder{which}``; textual inversion's words are its tokens, as in the pipeline."""
        pipe = self.pipe
        tokenizer, encoder = getattr(pipe, f"tokenizer{which}"), getattr(pipe, f"text_encoder{which}")
        words = pipe.maybe_convert_prompt(prompts, tokenizer) if hasattr(pipe, "maybe_convert_prompt") else prompts
        return text.windows(tokenizer, encoder, words, n_windows, self.place)

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"sample": x, "timestep": t, "encoder_hidden_states": cond["encoder_hidden_states"]}


class StableDiffusionXL(StableDiffusion):
    """Beside the prompt the picture's size, crop and target size, as the pipeline gives them for its own pictures."""

    pipeline = "StableDiffusionXLPipeline"
    models = "SDXL base and what is fine-tuned from it"
    conditions = "penultimate hidden states of two CLIP text encoders side by side, pooled vector of the second, six numbers of size"
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

    def check(self) -> None:
        super().check()
        if getattr(self.pipe, "config", {}).get("requires_aesthetics_score"):
            raise InputError(
                "the model is SDXL's refiner, which asks for an aesthetic score and saw little noise; use the base"
            )
        self._time_ids: Any = None

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        if n_windows == 1:
            states, _, pooled, _ = text.encode(self, prompts)
            return {"encoder_hidden_states": states, "text_embeds": pooled}
        both = [self._windows(which, prompts, n_windows) for which in ("", "_2")]
        states = [_side_by_side([output.hidden_states[-2] for output in outputs], dim=1) for outputs in both]
        return {"encoder_hidden_states": _side_by_side(states, dim=-1), "text_embeds": both[1][0][0]}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        added = {"text_embeds": cond["text_embeds"], "time_ids": self._sizes(x).expand(len(x), -1)}
        return {**super().arguments(x, t, cond), "added_cond_kwargs": added}

    def _sizes(self, x: Any) -> Any:
        """(1, 6): original height and width, top and left of the crop, target height and width."""
        import torch

        if self._time_ids is None or self._time_ids.device != x.device:
            self._time_ids = torch.tensor([[*self.size, 0, 0, *self.size]], dtype=self.module.dtype, device=x.device)
        return self._time_ids


def _side_by_side(parts: list[Any], dim: int) -> Any:
    import torch

    return torch.cat(parts, dim=dim)
