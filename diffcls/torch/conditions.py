"""A denoiser as a module: what is called with gradients, and the conditions of its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import DTypeError, InputError
from ..framework_calls import take_rows


def model_of(denoiser: Denoiser, module: nn.Module | None = None) -> nn.Module:
    """What predicts, as a module: ``model(x_t, t, cond)`` with gradients.

    Parameters
    ----------
    denoiser : Denoiser
        Of PyTorch.
    module : nn.Module or None
        What a `predict` that is a plain function calls, so that its weights are found.

    Raises
    ------
    TypeError
        The denoiser is not of PyTorch.
    """
    if denoiser.framework != "torch":
        raise DTypeError(f"{denoiser.name} computes with {denoiser.framework}, must be a Denoiser of framework 'torch'")
    adapter = getattr(denoiser, "adapter", None)
    if adapter is not None:  # a diffusers model: its own predict is for inference only
        return Predict(adapter.predict, adapter.module)
    if isinstance(denoiser.predict, nn.Module):
        return denoiser.predict
    return Predict(denoiser.predict, module)


class Predict(nn.Module):
    """A function as a module; `module` is what it calls."""

    def __init__(self, predict: Callable[..., Any], module: nn.Module | None) -> None:
        super().__init__()
        self.predict, self.module = predict, module

    def forward(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        prediction: Tensor = self.predict(x_t, t, cond)
        return prediction


class Conditions(nn.Module):
    """The conditions of all classes, by their ids: ids themselves, a tensor's rows, or rows of a mapping of tensors.

    Parameters
    ----------
    conditions : None, (K, ...) tensor, or mapping of those
    learn : bool
        Floating-point ones become parameters, copies of what was given.
    """

    def __init__(self, conditions: Any, *, learn: bool) -> None:
        super().__init__()
        self.names = None if not isinstance(conditions, Mapping) else tuple(conditions)
        if conditions is None:
            if learn:
                raise InputError("this model is given class ids and has no conditions that could be learned")
            self.names = ()
            return
        given = conditions if isinstance(conditions, Mapping) else {"rows": conditions}
        for name, value in given.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
                continue
            tensor = torch.as_tensor(value)
            if learn and tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor.detach().clone()))
            else:
                # a copy is no tensor of inference mode, which no gradient may pass; one with a history keeps it
                self.register_buffer(name, tensor if tensor.requires_grad else tensor.clone(), persistent=False)

    def forward(self, ids: Tensor) -> Any:
        """Of (B,) ids."""
        return take_rows(self.all(), lambda rows: rows[ids]) if self.names != () else ids

    def all(self) -> Any:
        """What `forward` takes rows of; None: ids."""
        if self.names is None:
            return self.rows
        return {name: getattr(self, name) for name in self.names} or None


def mix(conditions: Any, weights: Tensor) -> Any:
    """``sum_k weights[n, k] conditions[k]``, (N, ...) of one tensor or of each of a mapping's.

    What is no floating-point number has no such sum.  A part that all classes share stays; of a mask (zeros and ones) an entry is
    one where classes of at least half the weight have it, so that a class alone has its own; it has no gradient.

    Raises
    ------
    ValueError
        Classes differ in a part that is neither, or no part is of floating point.
    """
    parts = conditions if isinstance(conditions, Mapping) else {"conditions": conditions}
    if not any(rows.is_floating_point() for rows in parts.values()):
        raise InputError("the conditions are no floating-point numbers that could be mixed")
    mixed = {name: _mix_one(name, rows, weights) for name, rows in parts.items()}
    return mixed if isinstance(conditions, Mapping) else mixed["conditions"]


def _mix_one(name: str, rows: Tensor, weights: Tensor) -> Tensor:
    if rows.is_floating_point():
        return torch.tensordot(weights.to(rows.dtype), rows, dims=1)
    if (rows == rows[:1]).all():
        return rows[:1].expand(len(weights), *rows.shape[1:])
    if not ((rows == 0) | (rows == 1)).all():
        raise InputError(f"{name} of the conditions are whole numbers in which classes differ: they can not be mixed")
    total = torch.tensordot(weights.detach(), rows.to(weights.dtype), dims=1)
    return (total >= 0.5 * weights.detach().sum(-1).reshape(-1, *[1] * (rows.ndim - 1))).to(rows.dtype)
