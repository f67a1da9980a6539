"""Pictures that a diffusion model of ours draws: DDIM (Song et al., 2021) by diffusers, around any `diffcls.Denoiser`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import diffcls


def ddim(denoiser: diffcls.Denoiser, classes: NDArray[np.int64], *, n_steps: int, seed: int) -> NDArray[np.uint8]:
    """A sample of each of `classes`; conditional prediction alone, no guidance, no noise added on the way.

    Parameters
    ----------
    denoiser : Denoiser
        On pixels in [-1, 1], with the cosine schedule, as the models of this package are.
    classes : (N,) int64
        Places in the denoiser's classes.
    n_steps : int
    seed : int
        The n-th sample of a seed is the same whatever N is, up to the last bits of the denoiser.

    Returns
    -------
    (N, C, H, W) uint8
    """
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=len(denoiser.schedule),
        beta_schedule="squaredcos_cap_v2",
        prediction_type=denoiser.prediction_type,
        clip_sample=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(n_steps)
    noise = np.stack([np.random.default_rng((seed, i)).standard_normal(denoiser.shape) for i in range(len(classes))])
    x_t = torch.from_numpy(noise.astype(np.float32))
    for timestep in scheduler.timesteps:
        x_t = scheduler.step(predicted(denoiser, x_t, int(timestep), classes), timestep, x_t).prev_sample
    return ((x_t.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).numpy()


def predicted(denoiser: diffcls.Denoiser, x_t: torch.Tensor, timestep: int, classes: NDArray[np.int64]) -> torch.Tensor:
    """The denoiser's own prediction for a batch at one timestep, whatever its framework."""
    time = np.full(len(classes), denoiser.schedule.time[timestep], np.float64)
    if denoiser.native is not None:
        answer: Any = denoiser.predict(x_t.numpy(), time, classes)
    else:
        call: Any = denoiser.entry()
        answer = call(x_t.numpy(), np.full(len(classes), timestep, np.int64), time, classes)
    return torch.as_tensor(np.asarray(answer))
