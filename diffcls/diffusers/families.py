"""Which adapter is of which component class, and a table of all for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .adapter import Adapter
from .dit import DiT
from .flux import Flux, Flux2
from .pixart import PixArt, Sana
from .qwen_image import QwenImage
from .reversed_flows import Lumina2, ZImage
from .sd3 import StableDiffusion3
from .unet import StableDiffusion, StableDiffusionXL
from .unet2d import PixelUNet

ADAPTERS: tuple[type[Adapter], ...] = (
    StableDiffusion,
    StableDiffusionXL,
    DiT,
    StableDiffusion3,
    Flux,
    PixArt,
    Flux2,
    Sana,
    QwenImage,
    ZImage,
    Lumina2,
    PixelUNet,
)
SLOTS = ("unet", "transformer")


def families() -> list[dict[str, Any]]:
    """One dict an adapter: component class, published models, prediction types, time, latents, conditions, what is proven.

    Returns
    -------
    list of dict
    """
    keys = (
        "component",
        "pipeline",
        "models",
        "predicts",
        "time",
        "latents",
        "conditions",
        "half",
        "preprocess",
        "proven",
    )
    return [{"adapter": adapter.__name__, **{key: getattr(adapter, key) for key in keys}} for adapter in ADAPTERS]


def find(components: Mapping[str, Any]) -> type[Adapter]:
    """The adapter of a pipeline's denoiser, by its class and config.

    Raises
    ------
    ValueError
        There is none.
    """
    module = next((components[slot] for slot in SLOTS if components.get(slot) is not None), None)
    if module is None:
        had = ", ".join(sorted(name for name, part in components.items() if part is not None)) or "nothing"
        raise InputError(f"the model has neither a unet nor a transformer among its components ({had})")
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    classes = [kind.__name__ for kind in type(module).__mro__]
    fitting = [adapter for adapter in ADAPTERS if adapter.component in classes]
    if not fitting:
        known = ", ".join(dict.fromkeys(adapter.component for adapter in ADAPTERS))
        raise InputError(
            f"the denoiser is a {type(module).__name__}, which is not known; known are {known}. "
            "Any callable can be wrapped in a diffcls.Denoiser"
        )
    if fitting[0] is StableDiffusion:
        return StableDiffusionXL if module.config.get("addition_embed_type") == "text_time" else StableDiffusion
    return fitting[0]


def half_of(index: Mapping[str, Any]) -> str:
    """The half precision of a family, from the content of model_index.json; "float32" where it is not known."""
    for adapter in ADAPTERS:
        entry = index.get(adapter.slot)
        if isinstance(entry, (list, tuple)) and adapter.component in entry:
            return adapter.half
    return "float32"
