"""Projected gradient descent on the input: how robust is a classifier that has gradients?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import arguments
from ..errors import DTypeError, InputError, NonFiniteError, ShapeError


def pgd(
    model: Callable[[Tensor], Tensor],
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
    model : callable
        ``model(x_start) -> logits (N, K)``: an ``nn.Module``, mostly.
    x_start : (N, *shape) tensor of floats
    labels : (N,) tensor of integers
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
        An argument is impossible, or `model` gives something else than logits with a gradient.
    TypeError
        `x_start` is no floating-point tensor, or `labels` are no integers.
    ArithmeticError
        `x_start` holds NaN or infinity.
    """
    if norm not in ("linf", "l2"):
        raise InputError(f"norm is {norm!r}, must be 'linf' or 'l2'")
    arguments.integer("n_steps", n_steps, at_least=1)
    arguments.number("radius", radius, "a number above 0", lambda value: 0.0 < value < float("inf"))
    step = 2.5 * radius / n_steps if step_size is None else step_size
    arguments.number("step_size", step, "a number above 0", lambda value: 0.0 < value < float("inf"))
    check_inputs(x_start)
    check_bounds(low, high)
    labels = _labels(labels, x_start)
    clean = x_start.detach()
    if (low is not None and bool((clean < low).any())) or (high is not None and bool((clean > high).any())):
        raise InputError(f"x_start is {clean.min():.4g} to {clean.max():.4g}, must be in low={low} to high={high}")
    x = clean.clone()
    for _ in range(n_steps):
        x.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(_logits(model(x), labels), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            if norm == "linf":
                moved = clean + (x + step * gradient.sign() - clean).clamp(-radius, radius)
            else:
                away = x + step * gradient / lengths(gradient) - clean
                moved = clean + away * (radius / lengths(away)).clamp(max=1.0)
            x = moved if low is None and high is None else moved.clamp(low, high)
    return x.detach()


def check_inputs(x_start: Any) -> None:
    """
    Raises
    ------
    TypeError, ValueError, ArithmeticError
        `x_start` is no (N, *shape) tensor of finite floats.
    """
    if not isinstance(x_start, Tensor) or not x_start.is_floating_point():
        came = f"of dtype {x_start.dtype}" if isinstance(x_start, Tensor) else type(x_start).__name__
        raise DTypeError(f"x_start is {came}, must be a torch.Tensor of floating point")
    if x_start.ndim < 2:
        raise ShapeError(f"x_start has shape {tuple(x_start.shape)}, must be (N, *shape)")
    if not torch.isfinite(x_start).all():
        raise NonFiniteError("x_start holds NaN or infinity, must be finite")


def check_bounds(low: Any, high: Any) -> None:
    """
    Raises
    ------
    TypeError, ValueError
        A bound is no finite number, or they are no range.
    """
    for name, value in (("low", low), ("high", high)):
        if value is not None:
            arguments.number(name, value, "a finite number", lambda given: abs(given) < float("inf"))
    if low is not None and high is not None and not low < high:
        raise InputError(f"low is {low} and high is {high}, must be low < high")


def lengths(rows: Tensor) -> Tensor:
    """(N, 1, ...): L2 norms, never zero."""
    return rows.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, *[1] * (rows.ndim - 1))


def _labels(labels: Any, x_start: Tensor) -> Tensor:
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        came = f"of dtype {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DTypeError(f"labels is {came}, must be a torch.Tensor of integers")
    if labels.shape != x_start.shape[:1]:
        raise ShapeError(f"labels has shape {tuple(labels.shape)}, must be ({len(x_start)},): one an input")
    return labels.long()


def _logits(given: Any, labels: Tensor) -> Tensor:
    if not isinstance(given, Tensor) or given.ndim != 2 or len(given) != len(labels):
        came = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise ShapeError(f"model gave {came}, must give logits ({len(labels)}, K)")
    if not given.requires_grad:
        raise InputError("model gave logits without a gradient to x_start: it must be differentiable")
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < given.shape[1]):
        raise InputError(f"labels reach from {labels.min()} to {labels.max()}, must be 0 to {given.shape[1] - 1}")
    return given
