"""FluxTransformer2DModel and Flux2Transformer2DModel: FLUX.1 and FLUX.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from . import text
from .adapter import FlowAdapter, Kwargs, PackedFlow, pack, unpack


class Flux(PackedFlow):
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
        self._ids_have_rows = False  # one set of positions a row, as diffusers 0.30 wants them

    def x_start_shape(self) -> tuple[int, int, int]:
        if int(self.config.get("out_channels") or self.config["in_channels"]) != int(self.config["in_channels"]):
            raise InputError(
                f"{self.component} takes {self.config['in_channels']} channels and gives {self.config['out_channels']}: an editing "
                "or inpainting model, which can not be asked about a prompt alone"
            )
        return super().x_start_shape()

    def token_limits(self) -> dict[str, int]:
        return {"tokenizer_2": self.settings.max_sequence_length or text.default_length(self.pipe)}

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        states, pooled, ids = text.encode(self, prompts, max_sequence_length=self.settings.max_sequence_length)
        self._ids_have_rows = ids.ndim == 3
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        img_ids, txt_ids = self._positions(x, cond["encoder_hidden_states"].shape[1])
        if self._ids_have_rows:
            img_ids, txt_ids = (ids.expand(len(x), -1, -1) for ids in (img_ids, txt_ids))
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


class Flux2(FlowAdapter):
    """x_start is the latent in 2x2 patches, as it is normalised; a token is one of its places.

    FLUX.2 dev is guidance-distilled as FLUX.1 dev is.  The pipeline makes its sampler's shift from the number of steps; the
    rows here are those of the scheduler's config.
    """

    component, pipeline = "Flux2Transformer2DModel", None
    models = "FLUX.2 dev (guidance-distilled), FLUX.2 klein base"
    time = "sigma (the module multiplies by 1000)"
    latents = "batch norm"
    patch = 1
    conditions = (
        "three layers' hidden states of a language model in the pipeline's chat template, padded, no mask; guidance"
    )
    text_parts = ("text_encoder", "tokenizer")

    def check(self) -> None:
        self._ids: dict[Any, Any] = {}

    @property
    def stride(self) -> int:
        return 2 * super().stride

    def latent_channels_of(self, vae: Any) -> int | None:
        return 4 * int(vae.config["latent_channels"])

    def default_size(self) -> tuple[int, int]:
        """The pipeline's own: the config has none."""
        side = int(self.pipe.default_sample_size) * super().stride
        return side, side

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        states, _ = text.encode(self, prompts, max_sequence_length=self.settings.max_sequence_length)
        return {"encoder_hidden_states": states}

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        img_ids, txt_ids = self._positions(x, cond["encoder_hidden_states"].shape[1])
        arguments = {
            "hidden_states": x.flatten(2).transpose(1, 2),
            "timestep": t / 1000,
            "img_ids": img_ids.expand(len(x), -1, -1),
            "txt_ids": txt_ids.expand(len(x), -1, -1),
            **cond,
        }
        if self.config.get("guidance_embeds"):
            arguments["guidance"] = t.new_full((len(t),), self.settings.guidance)
        return arguments

    def prediction(self, output: Any, x: Any) -> Any:
        return output.transpose(1, 2).reshape(-1, *self.shape)

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, **({"guidance": self.settings.guidance} if self.config.get("guidance_embeds") else {})}

    def _positions(self, x: Any, n_text: int) -> tuple[Any, Any]:
        """(1, tokens, 4): time, row, column and place in the text, of picture and of text."""
        import torch

        key = (x.device, n_text)
        if key not in self._ids:
            one = torch.arange(1)
            picture = torch.cartesian_prod(one, torch.arange(self.shape[1]), torch.arange(self.shape[2]), one)
            words = torch.cartesian_prod(one, one, one, torch.arange(n_text))
            self._ids[key] = picture[None].to(x.device), words[None].to(x.device)
        ids: tuple[Any, Any] = self._ids[key]
        return ids
