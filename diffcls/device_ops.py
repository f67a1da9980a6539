"""`diffcls.ops` of tensors on a CUDA device: nothing is copied, and nothing waits for the device."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core, cuda
from .errors import DeviceError, DTypeError, InputError, ShapeError
from .ops import _column, _word, _words


def device_index(device: Any, out: Any) -> int | None:
    """The device that a caller names, "cuda" or "cuda:1" or an object of that name, or that holds `out`; None: the host."""
    held, name = cuda.device_of(out), None if device is None else str(device)
    if name is None or name == "cpu":
        return held if name is None else None
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise DeviceError(f"device is {device!r}, must be 'cpu', 'cuda' or 'cuda:' and a number")
    index = int(number) if number else held or 0
    if held is not None and held != index:
        raise DeviceError(f"device is {device!r}, out is on cuda:{held}")
    return index


def normal(
    shape: int | tuple[int, ...],
    *,
    seed: int,
    index: int,
    timestep: int,
    dtype: Any,
    out: Any,
    device: int,
    stream: Any,
) -> Any:
    cuda.check(device)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if np.dtype(dtype) != np.float32:
        raise DTypeError(f"dtype is {np.dtype(dtype)}, must be float32 on a device")
    framework = _loaded() if out is None else cuda.framework_of(out)
    result = cuda.empty(framework, sizes, "float32", device) if out is None else out
    if tuple(result.shape) != sizes:
        raise ShapeError(f"out has shape {tuple(result.shape)}, must have {sizes}")
    key = {"noise_index": _word("index", index), "timestep": _word("timestep", timestep)}
    with cuda.backend(device, cuda.stream_of(framework, device, stream)) as where:
        _core.normal(result, seed=seed, first=0, backend=where, **key)
    return result


def add_noise(
    x_start: Any,
    alpha: ArrayLike,
    sigma: ArrayLike,
    *,
    eps: Any,
    seed: int | None,
    index: ArrayLike | None,
    timestep: ArrayLike | None,
    out: Any,
    device: int,
    stream: Any,
) -> Any:
    cuda.check(device)
    shape, framework = _shape(x_start, "x_start"), cuda.framework_of(x_start)
    n = shape[0]
    if eps is None and (seed is None or index is None or timestep is None):
        raise InputError("add_noise needs eps, or seed, index and timestep")
    for name, array in (("eps", eps), ("out", out)):
        if array is not None and _shape(array, name) != shape:
            raise ShapeError(f"{name} has shape {_shape(array, name)}, must have {shape}")
    result = cuda.empty(framework, shape, "float32", device) if out is None else out
    with cuda.backend(device, cuda.stream_of(framework, device, stream)) as where:
        _core.add_noise(
            result,
            x_start,
            _column("alpha", alpha, n),
            _column("sigma", sigma, n),
            eps=eps,
            seed=0 if seed is None else seed,
            noise_index=None if eps is not None else _words("index", index, n),
            timestep=None if eps is not None else _words("timestep", timestep, n),
            backend=where,
        )
    return result


def eps_error(
    prediction: Any,
    target: Any,
    *,
    loss: str,
    delta: float,
    weight: ArrayLike | None,
    out: Any,
    device: int,
    stream: Any,
) -> Any:
    cuda.check(device)
    shape, framework = _shape(prediction, "prediction"), cuda.framework_of(prediction)
    n = shape[0]
    if _shape(target, "target") != shape:
        raise ShapeError(f"prediction has shape {shape}, target {_shape(target, 'target')}; they must be the same")
    if out is not None and _shape(out, "out") != (n,):
        raise ShapeError(f"out has shape {_shape(out, 'out')}, must have {(n,)}")
    errors = cuda.empty(framework, (n,), "float64", device) if out is None else out
    with cuda.backend(device, cuda.stream_of(framework, device, stream)) as where:
        _core.eps_error(errors, prediction, target, loss=loss, delta=delta, backend=where)
    if weight is not None:
        errors *= cuda.put(framework, _column("weight", weight, n), device)
    return errors


def _loaded() -> str:
    for name in ("torch", "cupy"):
        if name in sys.modules:
            return name
    raise InputError("on a device give out=, or import PyTorch or CuPy first: a tensor of theirs is made")


def _shape(array: Any, name: str) -> tuple[int, ...]:
    shape = getattr(array, "shape", None)
    if shape is None or len(shape) < 1:
        raise ShapeError(f"{name} has no axes, must be (B, *shape)")
    return tuple(int(size) for size in shape)
