"""From pixels to the space in which a model was trained: the VAE's mean, then its family's rule.

| rule | x_start = | whose |
| --- | --- | --- |
| scaling | z * scaling_factor | Stable Diffusion 1 and 2, SDXL, DiT, PixArt, Sana |
| shifted | (z - shift_factor) * scaling_factor | Stable Diffusion 3, FLUX.1, Z-Image, Lumina 2 |
| moments | (z - latents_mean) / latents_std * scaling_factor, a channel | Qwen-Image (no scaling_factor), some SDXL models |
| batch norm | 2x2 patches into channels, (z - running_mean) / sqrt(running_var + batch_norm_eps) | FLUX.2 |

z is the mean (the mode) of the posterior, never a sample: a picture has one x_start, as in the paper's code.  Every rule
undoes what the family's pipeline does before it decodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, NonFiniteError
from ..framework_calls import evaluating
from .pictures import prepare

RULES = ("scaling", "shifted", "moments", "batch norm")


class Latents:
    """A VAE and its rule.

    Parameters
    ----------
    vae : nn.Module
        Of diffusers: an ``encode`` that gives ``latent_dist``, ``latents`` or ``latent``.
    rule : str
        One of `RULES`.  "scaling" becomes "moments" where the VAE's config has latents_mean and latents_std.

    Raises
    ------
    ValueError
        The VAE's config lacks what the rule needs, or has what it would leave out.
    """

    def __init__(self, vae: Any, rule: str) -> None:
        self.vae, config = vae, vae.config
        has = {key: config.get(key) for key in ("scaling_factor", "shift_factor", "latents_mean", "latents_std")}
        with_moments = has["latents_mean"] is not None and has["latents_std"] is not None
        self.rule = "moments" if rule == "scaling" and with_moments else rule
        if self.rule in ("scaling", "shifted") and has["scaling_factor"] is None:
            raise InputError(
                "the VAE's config has no scaling_factor, so latents can not be brought to the model's scale"
            )
        if rule == "scaling" and has["shift_factor"] not in (None, 0, 0.0):
            raise InputError(
                f"the VAE's config has shift_factor {has['shift_factor']}, and pipelines of this model know none: "
                "the VAE is of another family"
            )
        if rule == "shifted" and has["shift_factor"] is None:
            raise InputError("the VAE's config has no shift_factor, which this model's latents need")
        if self.rule == "moments" and not with_moments:
            raise InputError("the VAE's config has no latents_mean and latents_std, which this model's latents need")
        if self.rule == "batch norm" and not hasattr(vae, "bn"):
            raise InputError("the VAE has no batch norm (bn), which this model's latents need")

    def encode(self, pixels: NDArray[np.float32], device: Any) -> NDArray[np.float32]:
        """x_start (C, h, w) of pixels (3, H, W) in [-1, 1].

        A VAE whose config says ``force_upcast`` encodes in float32, also when its weights are kept in float16.

        Raises
        ------
        NonFiniteError
            The VAE overflowed, which some do in float16.
        """
        import torch

        dtype = next(self.vae.parameters()).dtype
        upcast = dtype == torch.float16 and bool(self.vae.config.get("force_upcast"))
        if upcast:
            self.vae.to(dtype=torch.float32)
        try:
            x = torch.from_numpy(pixels)[None].to(device, torch.float32 if upcast else dtype)
            with torch.no_grad(), evaluating(self.vae):
                x_start = self.normalise(self.mean(x).float())
        finally:
            if upcast:
                self.vae.to(dtype=dtype)
        array = np.ascontiguousarray(x_start[0].cpu().numpy(), np.float32)
        if not np.isfinite(array).all():
            raise NonFiniteError(
                f"the VAE gave NaN or infinity in {str(dtype).removeprefix('torch.')}; give a VAE that is safe in half "
                "precision, or dtype='float32'"
            )
        return array

    def mean(self, pixels: Any) -> Any:
        """z (B, C, h, w) of pixels (B, 3, H, W)."""
        frames = pixels[:, :, None] if self.has_frames else pixels
        encoded = self.vae.encode(frames)
        if hasattr(encoded, "latent_dist"):
            z = encoded.latent_dist.mode()
        else:
            z = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        return z[:, :, 0] if self.has_frames else z

    @property
    def has_frames(self) -> bool:
        """A VAE of videos: a picture is one frame."""
        return self.vae.config.get("temperal_downsample") is not None

    def normalise(self, z: Any) -> Any:
        """x_start of z, each (B, C, h, w)."""
        import torch

        config = self.vae.config

        def channels(values: Any) -> Any:
            return torch.as_tensor(values, dtype=z.dtype, device=z.device).reshape(1, -1, 1, 1)

        if self.rule == "batch norm":
            b, c, h, w = z.shape
            patches = z.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)
            bn = self.vae.bn
            return (patches - channels(bn.running_mean)) / channels(bn.running_var + config["batch_norm_eps"]).sqrt()
        if self.rule == "moments":
            scale = config.get("scaling_factor") or 1.0
            return (z - channels(config["latents_mean"])) / channels(config["latents_std"]) * scale
        shift = config["shift_factor"] if self.rule == "shifted" else 0.0
        return (z - shift) * config["scaling_factor"]


class PictureEncoder:
    """What `Denoiser` calls `encode`: pictures to latents of the given shape (C, side, side).

    Attributes
    ----------
    facts : dict
        For run records.

    Raises
    ------
    ValueError
        The VAE makes other channels.
    """

    def __init__(self, latents: Latents, shape: tuple[int, ...], preprocess: str, device: Any) -> None:
        made = channels_of(latents.vae)
        if made not in (None, shape[0]):
            raise InputError(f"the DiT takes latents of {shape[0]} channels, the VAE makes {made}")
        self.latents, self.preprocess, self.device = latents, preprocess, device
        self.size = (shape[1] * compression(latents.vae),) * 2
        self.facts = {"component": "DiT", "resolution": list(self.size), "latents": "scaling"}

    def __call__(self, image: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        pixels, record = prepare(image, self.size, self.preprocess)
        return self.latents.encode(pixels, self.device), record

    def pixels(self, image: Any) -> NDArray[np.float32]:
        """The prepared picture that the latents are of."""
        return prepare(image, self.size, self.preprocess)[0]


def compression(vae: Any) -> int:
    """Pixels a latent, a side."""
    config = vae.config
    for key in ("block_out_channels", "encoder_block_out_channels"):
        if config.get(key) is not None:
            return int(2 ** (len(config[key]) - 1))
    if config.get("temperal_downsample") is not None:
        return int(2 ** len(config["temperal_downsample"]))
    raise InputError(f"{type(vae).__name__}'s config does not tell how far it compresses pictures")


def channels_of(vae: Any) -> int | None:
    """Channels of a latent, as far as the config tells."""
    config = vae.config
    for key in ("latent_channels", "z_dim"):
        if config.get(key) is not None:
            return int(config[key])
    return None
