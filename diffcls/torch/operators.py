"""`add_noise` and `eps_error` of `diffcls.ops` as operators of PyTorch: ``torch.ops.diffcls``.

The forward is the core's, on the CPU and on CUDA devices; gradients are PyTorch's own operations, so they can be
differentiated again and a compiler may fuse them.  eps is never kept: where a gradient needs it, it is made again from its key.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..core_types import LOSSES
from ..errors import DeviceError, DTypeError, InputError, ShapeError

__all__ = ["add_noise", "eps_error"]

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

LIBRARY = torch.library.Library("diffcls", "DEF")
"""Registrations last as long as this object."""

# numbers of rows are read by the host when an operator runs, so it can not be part of a captured CUDA graph
_TAGS = tuple(
    getattr(torch.Tag, name) for name in ("pt2_compliant_tag", "cudagraph_unsafe") if hasattr(torch.Tag, name)
)
LIBRARY.define(
    "add_noise(Tensor x_start, Tensor alpha, Tensor sigma, Tensor? eps, Tensor? index, Tensor? timestep, SymInt seed)"
    " -> Tensor",
    tags=_TAGS,
)
LIBRARY.define(
    "eps_error(Tensor prediction, Tensor target, Tensor? weight, str loss, float delta) -> Tensor", tags=_TAGS
)


def add_noise(
    x_start: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    *,
    eps: Tensor | None = None,
    seed: int | None = None,
    index: Tensor | int | None = None,
    timestep: Tensor | int | None = None,
) -> Tensor:
    """``x_t = alpha * x_start + sigma * eps``; eps given, or made from (seed, index, timestep) of each row.

    `diffcls.ops.add_noise` with gradients to `x_start`, `eps`, `alpha` and `sigma`, the same numbers bit for bit.  Works under
    ``torch.compile(fullgraph=True)``; not under `torch.func`'s transforms, which PyTorch does not offer to such operators.

    Parameters
    ----------
    x_start : (B, *shape) tensor
        On the CPU or a CUDA device; float32, float64, float16 or bfloat16.
    alpha, sigma : float or (B,) tensor
    eps : (B, *shape) tensor or None
        On x_start's device.
    seed : int or None
        0 to 2**64 - 1.  Needed when `eps` is None, as the next two.
    index, timestep : int, (B,) integer tensor, or None
        0 to 2**32 - 1.

    Returns
    -------
    (B, *shape) tensor of x_start's dtype
        float16 and bfloat16: the float32 result, rounded once.  float64: the same eps, mixed in float64.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, InputError
        An argument does not fit the others.

    Notes
    -----
    The core is told alpha, sigma, index and timestep by the host.  On a CUDA device give them as CPU tensors: tensors on the
    device are fetched, and that waits for it.
    """
    n = _check_rows("x_start", x_start)
    if eps is not None:
        if tuple(eps.shape) != tuple(x_start.shape):
            raise ShapeError(f"eps has shape {tuple(eps.shape)}, must have {tuple(x_start.shape)}")
        _check_beside("eps", eps, "x_start", x_start)
        return _add_noise(x_start, _column("alpha", alpha, n), _column("sigma", sigma, n), eps, None, None, 0)
    if seed is None or index is None or timestep is None:
        raise InputError("add_noise needs eps, or seed, index and timestep")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed}, must be 0 to 2**64 - 1")
    words = (_words("index", index, n), _words("timestep", timestep, n))
    signed = seed if seed < 2**63 else seed - 2**64  # what a 64-bit argument can hold
    return _add_noise(x_start, _column("alpha", alpha, n), _column("sigma", sigma, n), None, *words, signed)


def eps_error(
    prediction: Tensor,
    target: Tensor,
    *,
    loss: str = "l2",
    delta: float = 1.0,
    weight: Tensor | float | None = None,
) -> Tensor:
    """Mean over elements of rho(prediction - target): one float64 a row, summed in a fixed order.

    `diffcls.ops.eps_error` with gradients to `prediction`, `target` and `weight`, the same numbers bit for bit.  Works under
    ``torch.compile(fullgraph=True)``; not under `torch.func`'s transforms, which PyTorch does not offer to such operators.

    Parameters
    ----------
    prediction, target : (B, *shape) tensor
        On one device; float32, float64, float16 or bfloat16.  With a float64 among them all is computed in float64.
    loss : {"l2", "l1", "huber"}
        rho: d**2, abs(d), or Huber's with `delta`.
    delta : float
        Positive and finite.
    weight : float, (B,) tensor or None
        Factor of each row.

    Returns
    -------
    (B,) float64 tensor
        Gradients have the dtypes of what they belong to.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, InputError
        An argument does not fit the others.
    """
    n = _check_rows("prediction", prediction)
    _check_rows("target", target)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ShapeError(
            f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; they must be the same"
        )
    _check_beside("target", target, "prediction", prediction)
    if loss not in LOSSES:
        raise InputError(f"loss is {loss!r}, must be 'l2', 'l1' or 'huber'")
    if not 0.0 < delta < 1e30:
        raise InputError(f"delta is {delta}, must be positive and finite")
    factor = None if weight is None else _column("weight", weight, n)
    return _eps_error(prediction, target, factor, loss, float(delta))


# ---- checks: they run while a graph is traced, too -------------------------------------------------------------------


def _check_rows(name: str, tensor: Any) -> int:
    if not isinstance(tensor, Tensor):
        raise DTypeError(f"{name} is {type(tensor).__name__}, must be a torch.Tensor")
    if tensor.dtype not in FLOATS:
        raise DTypeError(f"{name} is of {tensor.dtype}, must be float32, float64, float16 or bfloat16")
    if tensor.device.type not in ("cpu", "cuda"):
        raise DeviceError(f"{name} is on {tensor.device}, must be on the CPU or a CUDA device")
    if tensor.ndim < 1:
        raise ShapeError(f"{name} has no axes, must be (B, *shape)")
    return tensor.shape[0]


def _check_beside(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise DeviceError(f"{name} is on {tensor.device}, {other_name} on {other.device}; they must be on one device")
    if tensor.dtype not in FLOATS:
        raise DTypeError(f"{name} is of {tensor.dtype}, must be float32, float64, float16 or bfloat16")


def _column(name: str, value: Tensor | float, n: int) -> Tensor:
    """(B,): a number a row."""
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value, dtype=torch.float64)
    if value.dtype.is_complex or value.dtype == torch.bool:
        raise DTypeError(f"{name} is of {value.dtype}, must be of real numbers")
    return _one_a_row(name, value, n)


def _words(name: str, value: Tensor | int, n: int) -> Tensor:
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value)
    if value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool:
        raise InputError(f"{name} is of {value.dtype}, must be of integers")
    return _one_a_row(name, value, n)


def _one_a_row(name: str, value: Tensor, n: int) -> Tensor:
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != n):
        raise ShapeError(f"{name} has shape {tuple(value.shape)}, must be () or ({n},)")
    return value.expand(n)


# ---- forward ---------------------------------------------------------------------------------------------------------


def _add_noise_forward(
    x_start: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    eps: Tensor | None,
    index: Tensor | None,
    timestep: Tensor | None,
    seed: int,
) -> Tensor:
    x_start, alpha, sigma = x_start.detach(), alpha.detach().cpu(), sigma.detach().cpu()
    if x_start.dtype == torch.float64:
        if eps is None:
            eps = _eps(x_start, index, timestep, seed)
        mixed = _rows(alpha, x_start) * x_start + _rows(sigma, x_start) * eps
        return mixed.contiguous()
    key: dict[str, Any] = {"eps": None if eps is None else _float32(eps)}
    if index is not None and timestep is not None:
        key = {"seed": seed % 2**64, "index": index.cpu(), "timestep": timestep.cpu()}
    x_t: Tensor = ops.add_noise(_float32(x_start), alpha.double(), sigma.double(), **key)
    return x_t.to(x_start.dtype)


def _eps(like: Tensor, index: Tensor | None, timestep: Tensor | None, seed: int) -> Tensor:
    """The noise that the keys name, in like's shape and dtype."""
    zeros = torch.zeros(like.shape, dtype=torch.float32, device=like.device)
    one = torch.ones(len(like), dtype=torch.float64)
    return _add_noise(zeros, 0.0 * one, one, None, index, timestep, seed).to(like.dtype)


def _eps_error_forward(prediction: Tensor, target: Tensor, weight: Tensor | None, loss: str, delta: float) -> Tensor:
    prediction, target = prediction.detach(), target.detach()
    if prediction.numel() == 0:
        errors = torch.zeros(len(prediction), dtype=torch.float64, device=prediction.device)
    elif torch.float64 in (prediction.dtype, target.dtype):
        difference = prediction.double() - target.double()
        errors = _rho(difference, loss, delta).reshape(len(difference), -1).mean(1)
    else:
        errors = ops.eps_error(prediction, _float32(target), loss=loss, delta=delta)
    return errors if weight is None else errors * weight.detach().to(errors)


def _rho(difference: Tensor, loss: str, delta: float) -> Tensor:
    if loss == "l2":
        return difference * difference
    size = difference.abs()
    if loss == "l1":
        return size
    m = size.clamp(max=delta)
    return m * (size - 0.5 * m)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous()


def _rows(column: Tensor, like: Tensor) -> Tensor:
    """(B,) as a factor of (B, *shape)."""
    return column.to(device=like.device, dtype=like.dtype).reshape(-1, *[1] * (like.ndim - 1))


for _name, _kernel in (("add_noise", _add_noise_forward), ("eps_error", _eps_error_forward)):
    for _key in ("CPU", "CUDA"):
        LIBRARY.impl(_name, _kernel, _key)
_add_noise = torch.ops.diffcls.add_noise.default
_eps_error = torch.ops.diffcls.eps_error.default


@torch.library.register_fake("diffcls::add_noise", lib=LIBRARY)
def _add_noise_fake(x_start: Tensor, *unused: Any) -> Tensor:
    return x_start.new_empty(x_start.shape)


@torch.library.register_fake("diffcls::eps_error", lib=LIBRARY)
def _eps_error_fake(prediction: Tensor, *unused: Any) -> Tensor:
    return prediction.new_empty((prediction.shape[0],), dtype=torch.float64)


# ---- gradients -------------------------------------------------------------------------------------------------------


def _add_noise_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x_start, alpha, sigma, eps, index, timestep, ctx.seed = inputs
    needs = ctx.needs_input_grad
    ctx.save_for_backward(
        x_start if needs[1] else None, alpha, sigma, eps if needs[2] else None, index, timestep
    )  # the large ones only where they are read
    ctx.eps_dtype = None if eps is None else eps.dtype


def _add_noise_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """x_t is linear: its gradient times alpha and sigma, and its product with x_start and eps."""
    x_start, alpha, sigma, eps, index, timestep = ctx.saved_tensors
    needs = ctx.needs_input_grad
    to_x = to_alpha = to_sigma = to_eps = None
    if needs[0]:
        to_x = _rows(alpha, grad) * grad
    if needs[1]:
        to_alpha = _row_sums(grad * x_start).to(alpha)
    if needs[2]:
        noise = _eps(grad, index, timestep, ctx.seed) if eps is None else eps
        to_sigma = _row_sums(grad * noise).to(sigma)
    if needs[3]:
        to_eps = (_rows(sigma, grad) * grad).to(ctx.eps_dtype)
    return to_x, to_alpha, to_sigma, to_eps, None, None, None


def _row_sums(products: Tensor) -> Tensor:
    return products.flatten(1).sum(1) if products.ndim > 1 else products


def _eps_error_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    prediction, target, weight, ctx.loss, ctx.delta = inputs
    ctx.save_for_backward(prediction, target, weight)


def _eps_error_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """weight rho'(prediction - target) / n_elem, in float32 unless one of the two is float64."""
    prediction, target, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad
    wide = torch.float64 if torch.float64 in (prediction.dtype, target.dtype) else torch.float32
    difference = prediction.to(wide) - target.to(wide)
    to_weight = to_prediction = to_target = None
    if needs[2]:
        errors = _eps_error(prediction, target, None, ctx.loss, ctx.delta)
        to_weight = (grad * errors).to(weight)
    if needs[0] or needs[1]:
        n_elem = max(1, difference[:1].numel())
        scale = grad / n_elem if weight is None else grad * weight.to(grad) / n_elem
        slope = _rows(scale, difference) * _rho_slope(difference, ctx.loss, ctx.delta)
        to_prediction = slope.to(prediction.dtype) if needs[0] else None
        to_target = (-slope).to(target.dtype) if needs[1] else None
    return to_prediction, to_target, to_weight, None, None


def _rho_slope(difference: Tensor, loss: str, delta: float) -> Tensor:
    if loss == "l2":
        return 2.0 * difference
    return difference.sign() if loss == "l1" else difference.clamp(-delta, delta)


torch.library.register_autograd("diffcls::add_noise", _add_noise_backward, setup_context=_add_noise_setup, lib=LIBRARY)
torch.library.register_autograd("diffcls::eps_error", _eps_error_backward, setup_context=_eps_error_setup, lib=LIBRARY)
