"""Models that can not classify, or contradict themselves: each refused with its reason, from config where config tells."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, InputError

if TYPE_CHECKING:
    from .adapter import Adapter

DISTILLED_WORDS = frozenset(
    "turbo lightning lcm hyper schnell sprint dmd dmd2 distilled distill pcm tcd flash 1step 2step 4step 8step".split()
)
DISTILLED_SCHEDULERS = (
    "LCMScheduler",
    "TCDScheduler",
    "SCMScheduler",
    "CMStochasticIterativeScheduler",
    "FlowMatchLCMScheduler",
)
WHY_DISTILLED = (
    "few-step models are not trained to predict the noise at every level, so their errors are no likelihoods; "
    "allow_distilled=True goes on all the same"
)


def check(adapter: Adapter) -> None:
    """
    Raises
    ------
    ValueError
        The pipeline needs more than a prompt, or is distilled to few steps.
    """
    pipe, config = adapter.pipe, adapter.config
    for extra in ("controlnet", "adapter", "image_projection_layers"):
        if getattr(pipe, extra, None) is not None:
            raise InputError(f"the pipeline has a {extra}, which needs more than a prompt; give one without")
    if config.get("encoder_hid_dim_type") is not None:
        kind = config["encoder_hid_dim_type"]
        raise InputError(
            f"the model takes conditions beside the prompt (encoder_hid_dim_type={kind!r}): unload them first"
        )
    if not adapter.settings.allow_distilled:
        _refuse_distilled(adapter)


def _refuse_distilled(adapter: Adapter) -> None:
    pipe, config = adapter.pipe, adapter.config
    if config.get("time_cond_proj_dim") is not None:
        raise InputError(
            f"the model embeds a guidance scale (time_cond_proj_dim), as consistency models do: {WHY_DISTILLED}"
        )
    if getattr(pipe, "config", {}).get("is_distilled"):
        raise InputError(f"the pipeline's config says is_distilled: {WHY_DISTILLED}")
    scheduler = type(getattr(pipe, "scheduler", None)).__name__
    if scheduler in DISTILLED_SCHEDULERS:
        raise InputError(f"the pipeline's scheduler is {scheduler}, for consistency models: {WHY_DISTILLED}")
    for name in names(pipe, adapter.module):
        word = next((word for word in re.split(r"[^a-z0-9]+", name.lower()) if word in DISTILLED_WORDS), None)
        if word is not None:
            raise InputError(f"the model is named {name!r}, and {word!r} says it is distilled: {WHY_DISTILLED}")


def names(*parts: Any) -> list[str]:
    """Last part of the hub ids or folders that these came from; in the hub's cache a folder is named by its commit."""
    told = (getattr(getattr(part, "config", None), "get", lambda key: None)("_name_or_path") for part in parts)
    found = []
    for name in told:
        steps = [step for step in str(name or "").replace(os.sep, "/").split("/") if step]
        if "snapshots" in steps[1:]:
            steps = steps[: steps.index("snapshots")]
        if steps and steps[-1] not in ("unet", "transformer"):
            found.append(steps[-1].split("--")[-1])
    return found


def check_channels(component: str, takes: int, latent: int | None) -> None:
    """The module's input must be a latent and nothing else.

    Raises
    ------
    ValueError
        It has channels for a mask, a picture or a depth map too.
    """
    if latent is None or takes == latent:
        return
    kinds = {2 * latent + 1: "an inpainting model", latent + 1: "a model of depth maps", 2 * latent: "an editing model"}
    kind = kinds.get(takes, "a model that takes more than a latent, or a VAE of another model")
    raise InputError(
        f"{component} has {takes} input channels and a latent of its VAE has {latent}: {kind}, which can not be asked about a "
        "prompt alone"
    )


def check_devices(pipe: Any, place: Any) -> None:
    """
    Raises
    ------
    RuntimeError
        A module is elsewhere, and nothing brings it when it is called.
    """
    import torch

    for name, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module) or any(hasattr(module, mark) for mark in _MOVED_BY_HOOKS):
            continue
        here = next((parameter.device for parameter in module.parameters()), place)
        if not same_device(here, place):
            raise DeviceError(
                f"the pipeline's {name} is on {here} and the pipeline on {place}; move it as a whole, pipe.to(...)"
            )


def same_device(a: Any, b: Any) -> bool:
    """A device without a number is that one or the first of its kind."""
    import torch

    one, other = torch.device(a), torch.device(b)
    return one.type == other.type and (one.index or 0) == (other.index or 0)


_MOVED_BY_HOOKS = ("_hf_hook", "hf_device_map", "_diffusers_hook")


def check_prediction(adapter: Adapter) -> None:
    """
    Raises
    ------
    ValueError
        The schedule is not of a kind that goes with the class.
    """
    told = adapter.schedule.prediction_type
    kind = told if isinstance(told, str) or told is None else "edm"
    if kind not in adapter.predicts:
        scheduler = type(getattr(adapter.pipe, "scheduler", None)).__name__
        source = "schedule=" if adapter.settings.schedule is not None else f"the scheduler ({scheduler})"
        raise InputError(
            f"{source} says that the model predicts {kind!r}, {adapter.component} predicts {' or '.join(adapter.predicts)}; "
            "give schedule=, a diffcls.Schedule with its prediction_type, if that is what was trained"
        )
