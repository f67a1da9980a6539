"""A model lent in the middle of its training: averaged weights go in, and everything is as before afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DTypeError, InputError, ShapeError


@contextmanager
def borrowed(module: nn.Module, weights: Any = None) -> Iterator[None]:
    """`module` in evaluation mode with `weights` in it; then every training flag, weight and random state is as it was.

    Parameters
    ----------
    module : nn.Module
    weights : None, nn.Module, mapping of name to tensor, or iterable of tensors
        Averaged weights.  A module of the same structure, or one that holds it as ``.module``
        (`torch.optim.swa_utils.AveragedModel`); a state dict; or one tensor a parameter, in order (diffusers'
        ``EMAModel.shadow_params``).

    Yields
    ------
    None
        While `module` holds the weights.

    Raises
    ------
    ValueError, TypeError
        The weights are not this module's.
    """
    pairs = _pairs(module, weights)
    modes = [(part, part.training) for part in module.modules()]
    kept = [(own, own.detach().clone()) for own, _ in pairs]
    with _random_state(module):
        try:
            module.eval()
            for own, averaged in pairs:
                own.data.copy_(averaged.detach())
            yield
        finally:
            for own, value in kept:
                own.data.copy_(value)
            for part, training in modes:
                part.training = training


def _pairs(module: nn.Module, weights: Any) -> list[tuple[Tensor, Tensor]]:
    """What is overwritten, and by what."""
    if weights is None:
        return []
    if isinstance(weights, nn.Module):
        inner = getattr(weights, "module", None)
        weights = (inner if isinstance(inner, nn.Module) else weights).state_dict()
    own = module.state_dict(keep_vars=True)
    if isinstance(weights, Mapping):
        if set(weights) != set(own):
            odd = sorted(set(weights) ^ set(own))[0]
            raise InputError(f"weights are not of this module: {odd!r} is in one of the two only")
        pairs = [(own[name], weights[name]) for name in own]
    elif isinstance(weights, Iterable):
        given, parameters = list(weights), list(module.parameters())
        if len(given) != len(parameters):
            raise InputError(f"weights are {len(given)} tensors, the module has {len(parameters)} parameters")
        pairs = list(zip(parameters, given, strict=True))
    else:
        raise DTypeError(f"weights is {type(weights).__name__}, must be a module, a state dict or tensors")
    for mine, averaged in pairs:
        if mine.shape != averaged.shape:
            raise ShapeError(f"weights have a tensor of shape {tuple(averaged.shape)} for one of {tuple(mine.shape)}")
    return pairs


@contextmanager
def _random_state(module: nn.Module) -> Iterator[None]:
    """Of PyTorch on the host and on the module's CUDA devices, of NumPy and of Python."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = {parameter.device.index for parameter in module.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(device for device in devices if device is not None)):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
