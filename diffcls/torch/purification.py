"""Towards what the model finds likely, before it is classified: the robust diffusion classifier's first step."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import arguments
from ..errors import NonFiniteError
from .attack import check_bounds, check_inputs, lengths
from .classifier import DiffusionClassifier


def maximize_likelihood(
    diffusion: DiffusionClassifier,
    x_start: Tensor,
    *,
    n_steps: int = 5,
    lr: float = 0.1,
    radius: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Inputs near `x_start` that the diffusion model finds more likely (RDC; Chen et al., ICML 2024, section 3).

    Adam goes down the diffusion loss of the input itself, with other noise at every step, and RDC classifies what it comes to:
    ``classifier(maximize_likelihood(prior, x_start))``.  The paper's loss is the unconditional model's.  Here it is minus
    ``logsumexp_k(logits)``, which is the same for a `diffusion` whose one class is the model's null class or empty prompt, and
    for several classes it is that of their mixture, ``p(x) = sum_k p(k) p(x | k)``, by Bayes.  The authors' program takes noise
    levels sigma / alpha of 0.4 to 0.6, five steps and ``lr=0.1``: give `diffusion` such `timesteps`.

    The gradient passes as if nothing had been done (BPDA; Athalye et al., ICML 2018), so `pgd` attacks the whole:
    ``pgd(lambda x: classifier(maximize_likelihood(prior, x)), x_start, labels, radius=...)``.

    Parameters
    ----------
    diffusion : DiffusionClassifier
        Its weights stay.
    x_start : (N, *shape) tensor
    n_steps : int
    lr : float
        Of Adam, in x_start's units.
    radius : float or None
        Bound of the L2 distance to `x_start`; None: no bound.
    low, high : float or None
        Range that the inputs are kept in.

    Returns
    -------
    (N, *shape) tensor

    Raises
    ------
    ValueError
        An argument is impossible.
    TypeError
        `diffusion` is none, or `x_start` no floating-point tensor.
    ArithmeticError
        `x_start` or the losses hold NaN or infinity.
    """
    arguments.instance("diffusion", diffusion, DiffusionClassifier)
    check_inputs(x_start)
    n_steps = arguments.integer("n_steps", n_steps, at_least=1)
    lr = arguments.number("lr", lr, "a number above 0", lambda value: 0.0 < value < float("inf"))
    if radius is not None:
        radius = arguments.number("radius", radius, "a number above 0", lambda value: 0.0 < value < float("inf"))
    check_bounds(low, high)
    clean = x_start.detach()
    x = clean.clone().requires_grad_()
    steps = torch.optim.Adam([x], lr=lr)
    fresh = diffusion.noise is None and not diffusion.has_given_noise
    for step in range(n_steps):
        with torch.enable_grad():
            loss = -torch.logsumexp(diffusion(x, draw=step if fresh else 0), dim=1).sum()
            (x.grad,) = torch.autograd.grad(loss, x)
        steps.step()
        with torch.no_grad():
            if radius is not None:
                away = x - clean
                x.copy_(clean + away * (radius / lengths(away)).clamp(max=1.0))
            if low is not None or high is not None:
                x.clamp_(low, high)
    moved: Tensor = x.detach() + (x_start - clean)  # adds zero, and the gradient
    if not torch.isfinite(moved).all():
        raise NonFiniteError(f"{diffusion.denoiser.name} gave losses with NaN or infinity")
    return moved
