"""Projected gradient descent on the input: how robust is a classifier that has gradients?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import arguments
from ..errors import InputError


def pgd(
    model: nn.Module,
    x_start: Tensor,
    labels: Tensor,
    *,
    radius: float,
    norm: str = "linf",
    n_steps: int = 10,
    step_size: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Inputs near `x_start` at which the model's cross-entropy is large (Madry et al., ICLR 2018).

    ``x <- project(x + step_size * direction(gradient))``; direction: the sign ("linf") or the unit vector ("l2").  The trials
    and noise of a `DiffusionClassifier` are fixed, so this is the attack on the very estimator that decides, and its gradient
    is exact: no randomness hides it.

    Parameters
    ----------
    model : nn.Module
        ``model(x_start) -> logits (N, K)``.
    x_start : (N, *shape) tensor
    labels : (N,) int64 tensor
        True classes.
    radius : float
        Of the ball around `x_start`, in x_start's own units; above 0.
    norm : {"linf", "l2"}
    n_steps : int
    step_size : float or None
        None: ``2.5 radius / n_steps``.
    low, high : float or None
        Range that inputs must stay in, and that `x_start` is in: -1 and 1 for pictures of most models.  None: no bound, as for
        latents.

    Returns
    -------
    (N, *shape) tensor

    Raises
    ------
    ValueError
        An argument is impossible.
    """
    if norm not in ("linf", "l2"):
        raise InputError(f"norm is {norm!r}, must be 'linf' or 'l2'")
    arguments.integer("n_steps", n_steps, at_least=1)
    arguments.number("radius", radius, "a number above 0", lambda value: 0.0 < value < float("inf"))
    step = 2.5 * radius / n_steps if step_size is None else step_size
    arguments.number("step_size", step, "a number above 0", lambda value: 0.0 < value < float("inf"))
    clean = x_start.detach()
    if (low is not None and bool((clean < low).any())) or (high is not None and bool((clean > high).any())):
        raise InputError(f"x_start is {clean.min():.4g} to {clean.max():.4g}, must be in low={low} to high={high}")
    x = clean.clone()
    for _ in range(n_steps):
        x.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(model(x), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            if norm == "linf":
                moved = clean + (x + step * gradient.sign() - clean).clamp(-radius, radius)
            else:
                away = x + step * gradient / _lengths(gradient) - clean
                moved = clean + away * (radius / _lengths(away)).clamp(max=1.0)
            x = moved if low is None and high is None else moved.clamp(low, high)
    return x.detach()


def _lengths(rows: Tensor) -> Tensor:
    """(N, 1, ...): L2 norms, never zero."""
    return rows.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, *[1] * (rows.ndim - 1))
