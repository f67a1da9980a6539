"""The core's operations, for people who build their own loop.

Arrays of any DLPack producer on the CPU, or on a CUDA device where `diffcls.cuda` can use it; the result lives where the
input lives.  Batches have rows first.

On a device tensors are dense, x_start, eps, targets and x_t of float32, errors of float64; results are tensors of PyTorch or
CuPy unless `out` is given.  Calls only begin: they are done in the order of `stream`, by default the one on which the
tensor's framework works.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _core, cuda
from .errors import DeviceError, DTypeError, InputError, ShapeError
from .threads import backend

__all__ = ["add_noise", "eps_error", "normal", "target"]


def normal(
    shape: int | tuple[int, ...],
    *,
    seed: int,
    index: int,
    timestep: int = 0,
    dtype: DTypeLike = "float32",
    out: Any = None,
    device: Any = None,
    stream: Any = None,
) -> Any:
    """eps of one trial: a pure function of (seed, index, timestep, element), the same on every machine.

    Philox4x32-10 and Box-Muller; csrc/formulas/philox.h has the layout of the counter.

    Parameters
    ----------
    shape : int or tuple of int
    seed : int
        0 to 2**64 - 1.
    index, timestep : int
        0 to 2**32 - 1.
    dtype : "float32" or "float64"
        The same numbers; float64 is widened.
    out : array or None
        Written to and returned.
    device : None, "cpu", "cuda", "cuda:1" or an object of that name
        None: where `out` is, else the CPU.
    stream : stream of PyTorch or CuPy, DLPack's number of one, or None
        Of a CUDA device; the CPU has none.

    Returns
    -------
    ndarray or `out`

    Raises
    ------
    ValueError
        A seed, index or timestep out of its range, or `out` has another shape or is read-only.
    TypeError
        `dtype` is none of the two, or `out` is no array of floating point.
    RuntimeError
        `device` can not be used here, or a stream was given for the CPU.
    """
    from . import device_ops

    where = device_ops.device_index(device, out)
    if where is not None:
        return device_ops.normal(
            shape, seed=seed, index=index, timestep=timestep, dtype=dtype, out=out, device=where, stream=stream
        )
    _check_host(stream)
    wanted = np.dtype(dtype)
    if wanted not in (np.float32, np.float64):
        raise DTypeError(f"dtype is {wanted}, must be float32 or float64")
    eps = np.empty(shape, np.float32)
    _core.normal(
        eps,
        seed=seed,
        noise_index=_word("index", index),
        timestep=_word("timestep", timestep),
        first=0,
        backend=backend(),
    )
    return _deliver(eps if out is not None else eps.astype(wanted, copy=False), out, None)


def add_noise(
    x_start: Any,
    alpha: ArrayLike,
    sigma: ArrayLike,
    *,
    eps: Any = None,
    seed: int | None = None,
    index: ArrayLike | None = None,
    timestep: ArrayLike | None = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """``x_t = alpha * x_start + sigma * eps``; eps given, or made from (seed, index, timestep) of each row.

    Parameters
    ----------
    x_start : (B, *shape) array
    alpha, sigma : float or (B,)
    eps : (B, *shape) array or None
    seed : int or None
        0 to 2**64 - 1.  Needed when eps is None, as the next two.
    index, timestep : int, (B,) array of int, or None
        0 to 2**32 - 1.
    out : (B, *shape) array or None
        Written to and returned.  On a CUDA device of float32, float64, float16 or bfloat16, rounded to nearest, C-contiguous or
        with its channels last; on the CPU of float32.
    stream : stream of PyTorch or CuPy, DLPack's number of one, or None
        Of a CUDA device; the CPU has none.

    Returns
    -------
    (B, *shape) float32, in x_start's framework, or `out`

    Raises
    ------
    ValueError
        Shapes that do not go together, a key out of its range, or no eps and no key.
    TypeError
        What is no array of real numbers, or requires gradients.
    RuntimeError
        A tensor is on a device that can not be used here, or a stream was given for the CPU.
    """
    where = cuda.device_of(x_start)
    if where is not None:
        from . import device_ops

        options = {"eps": eps, "seed": seed, "index": index, "timestep": timestep, "out": out, "stream": stream}
        return device_ops.add_noise(x_start, alpha, sigma, device=where, **options)
    _check_host(stream)
    x = _rows(x_start, "x_start")
    n = len(x)
    noise = None if eps is None else _like(eps, "eps", x.shape)
    if noise is None and (seed is None or index is None or timestep is None):
        raise InputError("add_noise needs eps, or seed, index and timestep")
    x_t = np.empty(x.shape, np.float32)
    _core.add_noise(
        x_t.reshape(n, -1) if x.size else x_t.reshape(n, 0),
        _flat(x),
        _column("alpha", alpha, n),
        _column("sigma", sigma, n),
        eps=None if noise is None else _flat(noise),
        seed=0 if seed is None else seed,
        noise_index=None if noise is not None else _words("index", index, n),
        timestep=None if noise is not None else _words("timestep", timestep, n),
        backend=backend(),
    )
    return _deliver(x_t, out, x_start)


def eps_error(
    prediction: Any,
    target: Any,
    *,
    loss: str = "l2",
    delta: float = 1.0,
    weight: ArrayLike | None = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Mean over elements of rho(prediction - target): one float64 a row, summed in a fixed order.

    Parameters
    ----------
    prediction : (B, *shape) array
        float32, float64, float16 or bfloat16.
    target : (B, *shape) array
    loss : "l2", "l1" or "huber"
        rho: d**2, abs(d), or Huber's with `delta`.
    delta : float
        Where Huber's loss goes from d**2 / 2 to delta (abs(d) - delta / 2).
    weight : float, (B,) or None
        Factor of each row.
    out : (B,) array or None
        Written to and returned.
    stream : stream of PyTorch or CuPy, DLPack's number of one, or None
        Of a CUDA device; the CPU has none.

    Returns
    -------
    (B,) float64, in the prediction's framework

    Raises
    ------
    ValueError
        Shapes that do not go together, no such loss, or a delta of Huber's that is not positive and finite.
    TypeError
        What is no array of real numbers, or requires gradients.
    RuntimeError
        A tensor is on a device that can not be used here, or a stream was given for the CPU.
    """
    where = cuda.device_of(prediction)
    if where is not None:
        from . import device_ops

        return device_ops.eps_error(
            prediction, target, loss=loss, delta=delta, weight=weight, out=out, device=where, stream=stream
        )
    _check_host(stream)
    wanted = _rows(target, "target")
    n = len(wanted)
    errors = np.zeros(n, np.float64)
    shape = tuple(getattr(prediction, "shape", wanted.shape))
    if shape != wanted.shape:
        raise ShapeError(f"prediction has shape {shape}, target {wanted.shape}; they must be the same")
    if wanted.size:
        _core.eps_error(errors, prediction, _flat(wanted), loss=loss, delta=delta, backend=backend())
    if weight is not None:
        errors *= _column("weight", weight, n)
    return _deliver(errors, out, prediction)


def target(
    x_start: Any,
    eps: Any,
    alpha: ArrayLike,
    sigma: ArrayLike,
    prediction_type: str,
    *,
    out: Any = None,
) -> Any:
    """What a model of this prediction type should predict: ``p * x_start + q * eps``.

    Parameters
    ----------
    x_start, eps : (B, *shape) array
    alpha, sigma : float or (B,)
    prediction_type : {"epsilon", "v_prediction", "sample", "flow_prediction"}
        csrc/method/schedule.h has p and q of each.
    out : (B, *shape) array or None
        Written to and returned.

    Returns
    -------
    (B, *shape) float32, in x_start's framework

    Raises
    ------
    ValueError
        Shapes that do not go together, or no such prediction type ("edm" needs a `Schedule`).
    TypeError
        What is no array of real numbers, or requires gradients.
    RuntimeError
        A tensor is on a device that can not be used here.
    """
    n = len(x_start if cuda.device_of(x_start) is not None else _rows(x_start, "x_start"))
    if prediction_type == "edm":
        raise InputError("prediction_type 'edm' needs sigma_data; use Schedule.edm(...).target('edm')")
    columns = np.atleast_1d(_column("alpha", alpha, n)), np.atleast_1d(_column("sigma", sigma, n))
    p, q = _core.schedule_target(*columns, prediction_type, 0.0) if n else columns
    return add_noise(x_start, p, q, eps=eps, out=out)


# ---- arrays in and out ----------------------------------------------------------------------------------------------


def _check_host(stream: Any) -> None:
    if stream is not None:
        raise DeviceError("stream was given, the CPU has none")


def _to_numpy(array: Any, name: str) -> NDArray[Any]:
    """A view where the producer allows it; torch tensors that need gradients are refused, as NumPy refuses them."""
    if isinstance(array, np.ndarray):
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array  # ml_dtypes' is no kind of float
    if not hasattr(array, "__dlpack__"):
        if not isinstance(array, (list, tuple, int, float, np.generic, memoryview, bytearray)):
            raise DTypeError(f"{name} is {type(array).__name__}, must be an array")
        try:
            return np.asarray(array, np.float32)
        except (TypeError, ValueError):
            raise DTypeError(f"{name} is a {type(array).__name__} that is no array of numbers") from None
    _check_tensor(array, name)
    if _is_bfloat16(array):
        array = array.float() if hasattr(array, "float") else array.astype("float32")
    return _view(array, name)


def _check_tensor(array: Any, name: str) -> None:
    try:
        device, _ = array.__dlpack_device__()
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f"{name} is on no device that DLPack knows ({error}), must be on the CPU") from None
    if int(device) not in (1, 3, 13):
        raise DeviceError(f"{name} is on DLPack device {int(device)}, must be on the CPU")
    if getattr(array, "requires_grad", False):
        raise DTypeError(f"{name} requires gradients; detach it first")


def _is_bfloat16(array: Any) -> bool:
    return str(getattr(array, "dtype", "")).endswith("bfloat16")  # "torch.bfloat16", JAX's "bfloat16"


def _view(array: Any, name: str) -> NDArray[Any]:
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        dtype = getattr(array, "dtype", "unknown dtype")
        raise DTypeError(f"{name} is {type(array).__name__} of {dtype}, which NumPy can not read ({error})") from None


def _rows(array: Any, name: str) -> NDArray[np.float32]:
    """(B, *shape) float32, native and dense."""
    host = _to_numpy(array, name)
    if host.ndim < 1:
        raise ShapeError(f"{name} has no axes, must be (B, *shape)")
    if host.dtype.kind not in "fiu":
        raise DTypeError(f"{name} is of dtype {host.dtype}, must be of real numbers")
    return np.ascontiguousarray(host, np.float32)


def _like(array: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rows = _rows(array, name)
    if rows.shape != shape:
        raise ShapeError(f"{name} has shape {rows.shape}, must have {shape}")
    return rows


def _flat(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows.reshape(len(rows), -1) if rows.size else rows.reshape(len(rows), 0)


def _column(name: str, value: ArrayLike, n: int) -> NDArray[np.float64]:
    column = np.asarray(_to_numpy(value, name) if hasattr(value, "__dlpack__") else value)
    if column.dtype.kind not in "fiu":
        raise DTypeError(f"{name} is {value!r}, must be a number or {n} numbers")
    if column.shape not in ((), (n,)):
        raise ShapeError(f"{name} has shape {column.shape}, must be () or ({n},)")
    return np.ascontiguousarray(np.broadcast_to(column, (n,)), np.float64)


def _word(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= int(value) < 2**32:
        raise InputError(f"{name} is {value!r}, must be an integer from 0 to 2**32 - 1")
    return int(value)


def _words(name: str, value: Any, n: int) -> NDArray[np.uint32]:
    column = np.asarray(_to_numpy(value, name) if hasattr(value, "__dlpack__") else value)
    if column.dtype.kind not in "iu" or column.shape not in ((), (n,)):
        raise InputError(f"{name} is {value!r}, must be an integer or {n} integers")
    if column.size and not (0 <= int(column.min()) and int(column.max()) < 2**32):
        raise InputError(f"{name} reaches from {column.min()} to {column.max()}, must be from 0 to 2**32 - 1")
    return np.ascontiguousarray(np.broadcast_to(column, (n,)), np.uint32)


def _write(out: Any, result: NDArray[Any]) -> None:
    """Into the memory of `out`, rounded to its dtype."""
    if not hasattr(out, "__dlpack__"):
        raise DTypeError(f"out is {type(out).__name__}, must be an array")
    if not isinstance(out, np.ndarray):
        _check_tensor(out, "out")
    if tuple(out.shape) != result.shape:
        raise ShapeError(f"out has shape {tuple(out.shape)}, must have {result.shape}")
    if _is_bfloat16(out) and hasattr(out, "copy_"):  # NumPy has no view of it, PyTorch rounds
        out.copy_(sys.modules["torch"].from_numpy(result))
        return
    host = out if isinstance(out, np.ndarray) else _view(out, "out")
    if not host.flags.writeable:
        raise InputError("out is read-only")
    if host.dtype.kind != "f":
        raise DTypeError(f"out is of dtype {host.dtype}, must be of floating point")
    host[...] = result


def _deliver(result: NDArray[Any], out: Any, like: Any) -> Any:
    """Into `out`, or in the framework of `like`, sharing memory."""
    if out is not None:
        _write(out, result)
        return out
    if like is None or isinstance(like, np.ndarray) or not hasattr(like, "__dlpack__"):
        return result
    module = type(like).__module__.split(".")[0]
    if module == "torch":
        return sys.modules["torch"].from_numpy(result)
    if module in ("jax", "jaxlib"):
        return sys.modules["jax"].numpy.asarray(result)
    return result
