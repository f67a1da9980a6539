"""Diffusers' models as denoisers: one adapter a component class, chosen by the class and its config, never by a name.

    denoiser = diffcls.load("stable-diffusion-v1-5/stable-diffusion-v1-5")    # a hub id, a folder, a pipeline, components
    diffcls.classify("cat.png", ["cat", "dog"], templates="a photo of a {}.", model=denoiser)

The pipeline's own modules are called, with what the pipeline itself would hand them at a guidance of none: so LoRA,
textual inversion, quantisation, attention back ends and off-loading work as they were set up.  What is added is the
method's side: latents from the VAE's mean, the schedule that training saw, prompts encoded once.

`families` says what is known of each component class; ``docs/families.md`` is made from it.
"""

from __future__ import annotations

from .denoiser import DiffusersDenoiser, load_diffusers
from .dit_checkpoint import load_dit
from .families import families

__all__ = ["DiffusersDenoiser", "families", "load_diffusers", "load_dit"]
