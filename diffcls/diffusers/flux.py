"""FluxTransformer2DModel: FLUX.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from . import text
from .adapter import FlowAdapter, Kwargs, pack, unpack


class Flux(FlowAdapter):
    """Tokens are 2x2 patches of the latent; time and guidance are multiplied by 1000 inside the module.

    FLUX.1 dev is guidance-distilled: it was trained to give, for a guidance that it is fed, what guidance would have given.
    At a guidance of 1, the default here, that is the conditional prediction, which the method is about; no other
    evidence says that its errors are those of a model that was trained without.
    """

    component, pipeline = "FluxTransformer2DModel", "FluxPipeline"
    models = "FLUX.1 dev (guidance-distilled)"
    time = "sigma (the module multiplies by 1000)"
    latents = "shifted"
    conditions = (
        "hidden states of T5, padded, no mask; pooled vector of CLIP; guidance where the config has guidance_embeds"
    )
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

    def check(self) -> None:
        self._ids: dict[Any, Any] = {}

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"]) // 4

    def default_size(self) -> tuple[int, int]:
        """The pipeline's own: the config has none."""
        side = int(self.pipe.default_sample_size) * self.stride
        return side, side

    @property
    def granularity(self) -> int:
        return 2 * self.stride

    @property
    def image_seq_len(self) -> int:
        return (self.shape[1] // 2) * (self.shape[2] // 2)

    def x_start_shape(self) -> tuple[int, int, int]:
        if int(self.config.get("out_channels") or self.config["in_channels"]) != int(self.config["in_channels"]):
            raise InputError(
                f"{self.component} takes {self.config['in_channels']} channels and gives {self.config['out_channels']}: an editing "
                "or inpainting model, which can not be asked about a prompt alone"
            )
        return super().x_start_shape()

    def token_limits(self) -> dict[str, int]:
        return {"tokenizer_2": self.settings.max_sequence_length or 512}

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        states, pooled, _ = text.encode(self.pipe, prompts, max_sequence_length=self.settings.max_sequence_length)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        img_ids, txt_ids = self._positions(x, cond["encoder_hidden_states"].shape[1])
        arguments = {"hidden_states": pack(x), "timestep": t / 1000, "img_ids": img_ids, "txt_ids": txt_ids, **cond}
        if self.config.get("guidance_embeds"):
            arguments["guidance"] = t.new_full((len(t),), self.settings.guidance)
        return arguments

    def prediction(self, output: Any, x: Any) -> Any:
        return unpack(output, self.shape)

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, **({"guidance": self.settings.guidance} if self.config.get("guidance_embeds") else {})}

    def _positions(self, x: Any, n_text: int) -> tuple[Any, Any]:
        """(tokens, 3): zero, row, column of each patch; and zeros for the text."""
        import torch

        key = (x.device, x.dtype, n_text)
        if key not in self._ids:
            rows, columns = torch.arange(self.shape[1] // 2), torch.arange(self.shape[2] // 2)
            grid = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), rows, columns)
            self._ids[key] = grid.to(x.device, x.dtype), torch.zeros(n_text, 3, device=x.device, dtype=x.dtype)
        ids: tuple[Any, Any] = self._ids[key]
        return ids
