"""The published method (Li et al., ICCV 2023) once more, for one image: plain PyTorch, from its description.

An oracle for `diffcls.policies.paper` and ``Staged(nested=False)``.  It shares nothing with the package: not the core,
not its reference in NumPy, not its schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

LOSSES = {"l1": functional.l1_loss, "l2": functional.mse_loss, "huber": functional.huber_loss}


@dataclass
class Outcome:
    """What the method saw and decided."""

    timesteps: list[int] = field(default_factory=list)
    """In order of evaluation; entry i was noised with row i of the noise."""
    errors: list[torch.Tensor] = field(default_factory=list)
    """A prompt: its errors, in order of evaluation."""
    survivors: list[list[int]] = field(default_factory=list)
    """A stage: the prompts it left, best first."""
    ends: list[int] = field(default_factory=list)
    """A stage: trials so far."""
    n_evals: int = 0
    margin: float = float("inf")
    """The smallest relative gap, over the stages, between the last prompt kept and the first one dropped."""

    @property
    def winner(self) -> int:
        return self.survivors[-1][0]

    @property
    def means(self) -> list[float]:
        return [float(errors.mean()) for errors in self.errors]


def alphas_cumprod(beta_start: float, beta_end: float, n: int = 1000, *, scaled: bool = True) -> torch.Tensor:
    """Stable Diffusion's schedule: square roots of the betas are linear; DiT's: the betas themselves are."""
    power = 0.5 if scaled else 1.0
    betas = torch.linspace(beta_start**power, beta_end**power, n, dtype=torch.float64) ** (1 / power)
    return torch.cumprod(1 - betas, dim=0)


def new_timesteps(n_samples: Sequence[int], n_timesteps: int) -> list[list[int]]:
    """The timesteps that each stage adds.

    The largest count N cuts the schedule into N cells of floor(n_timesteps / N); a cell is visited in its middle, and what
    lies behind the last cell never is.  A stage of n reads n of the N positions in strides of floor(N / n), from half a
    stride on, and leaves out what was read before.
    """
    largest = max(n_samples)
    cell = n_timesteps // largest
    read = torch.zeros(largest, dtype=torch.bool)
    stages = []
    for n in n_samples:
        stride = largest // n
        positions = torch.arange(n) * stride + stride // 2
        positions = positions[~read[positions]]
        read[positions] = True
        stages.append((positions * cell + cell // 2).tolist())
    return stages


def classify(
    predict: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    x_start: torch.Tensor,
    noise: torch.Tensor,
    bar: torch.Tensor,
    *,
    n_prompts: int,
    n_samples: Sequence[int],
    to_keep: Sequence[int],
    loss: str = "l2",
    n_trials: int = 1,
    half: bool = False,
) -> Outcome:
    """Prompts 0 .. n_prompts - 1 for one x_start.

    Parameters
    ----------
    predict : callable (x_t, t, prompt), each a batch, to eps
    x_start : (*shape)
    noise : (n, *shape)
    bar : (T,)
        Cumulative alphas.
    half : bool
        Form the coefficients in half precision, from cumulative alphas that are rounded to it.

    Raises
    ------
    ValueError
        A stage is to keep more prompts than there are.
    """
    bar = bar.half() if half else bar
    alpha, sigma = (coefficient.to(x_start.dtype) for coefficient in (bar**0.5, (1 - bar) ** 0.5))
    column = (-1, *[1] * x_start.ndim)
    outcome = Outcome(errors=[torch.empty(0, dtype=x_start.dtype) for _ in range(n_prompts)])
    remaining = list(range(n_prompts))
    for added, keep in zip(new_timesteps(n_samples, len(bar)), to_keep, strict=True):
        t = torch.tensor(added, dtype=torch.int64).repeat_interleave(n_trials)
        eps = noise[len(outcome.timesteps) :][: len(t)]
        x_t = alpha[t].view(column) * x_start + sigma[t].view(column) * eps
        for prompt in remaining:
            predicted = predict(x_t, t, torch.full_like(t, prompt))
            errors = LOSSES[loss](predicted, eps, reduction="none").flatten(1).mean(dim=1)
            outcome.errors[prompt] = torch.cat([outcome.errors[prompt], errors])
        outcome.timesteps += t.tolist()
        outcome.ends.append(len(outcome.timesteps))
        outcome.n_evals += len(t) * len(remaining)
        if keep > len(remaining):
            raise ValueError(f"{keep} prompts are to stay, there are {len(remaining)}")
        means = torch.stack([outcome.errors[prompt].mean() for prompt in remaining])
        order = torch.argsort(means, stable=True)
        if keep < len(remaining):
            last, first = means[order[keep - 1]], means[order[keep]]
            outcome.margin = min(outcome.margin, float((first - last) / last))
        remaining = [remaining[i] for i in order[:keep].tolist()]
        outcome.survivors.append(remaining)
    return outcome
