"""UNet2DModel: class-conditional UNets on pixels, DDPM's and EDM's alike; the scheduler says which."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .adapter import PICTURE_CHANNELS, Adapter, Kwargs


class PixelUNet(Adapter):
    """With EDMEulerScheduler x_t is the preconditioned input and the module's raw output is what is predicted."""

    component, slot, pipeline = "UNet2DModel", "unet", "DDPMPipeline"
    models = "class-conditional UNet2DModel, DDPM or EDM"
    predicts = ("epsilon", "v_prediction", "sample", "edm")
    time = "t, whole; log(sigma) / 4 with EDM's scheduler"
    latents = None
    conditions = "class number"
    half = "float16"
    proven = "its schedulers: no pipeline of diffusers gives it class labels but those of consistency models"

    def check(self) -> None:
        if self.config.get("num_class_embeds") is None or self.config.get("class_embed_type") is not None:
            raise InputError(
                "the UNet2DModel has no class embedding (num_class_embeds), so all classes would be the same to it; a "
                "classifier needs a conditional model"
            )

    @property
    def granularity(self) -> int:
        """Each block but the last halves the picture."""
        return int(2 ** (len(self.config["down_block_types"]) - 1))

    @property
    def picture_channels(self) -> int:
        channels = self.latent_channels
        if channels not in PICTURE_CHANNELS:
            raise InputError(
                f"the UNet2DModel takes {channels} channels and there is no VAE: it is not one of pictures"
            )
        return channels

    @property
    def class_names(self) -> list[str]:
        return [str(i) for i in range(int(self.config["num_class_embeds"]))]

    def x_start_shape(self) -> tuple[int, int, int]:
        assert self.picture_channels == self.latent_channels
        return super().x_start_shape()

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"sample": x, "timestep": t, "class_labels": cond}
