"""What the core calls of a denoiser on the host: one small adapter a framework, between NumPy's arrays and its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DeviceError, DTypeError, MissingExtraError

if TYPE_CHECKING:
    from .denoiser import Denoiser

Call = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]], Any]
Conditions = Any  # an array or a mapping of arrays, first axis K


def host_call(denoiser: Denoiser) -> Call:
    """``(x_t, timesteps, time, condition) -> prediction`` over NumPy arrays, around the denoiser's `predict`."""
    return {"numpy": numpy_call, "torch": _torch_call, "jax": _jax_call, "cupy": _cupy_call}[denoiser.framework](
        denoiser
    )


def _framework_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(f"framework {name!r} needs the package {name}, which is not installed") from None


def take_rows(conditions: Conditions, take: Callable[[Any], Any]) -> Any:
    """The rows that `take` takes of one array, or of each of a mapping's."""
    if isinstance(conditions, Mapping):
        return {key: take(value) for key, value in conditions.items()}
    return take(conditions)


def numpy_call(denoiser: Denoiser) -> Call:
    conditions = None if denoiser.conditions is None else take_rows(denoiser.conditions, np.asarray)

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        cond = condition if conditions is None else take_rows(conditions, lambda rows: rows[condition])
        return denoiser.predict(x_t, denoiser.time_of(time), cond)

    return call


def _torch_call(denoiser: Denoiser) -> Call:
    torch = _framework_module("torch")
    device, dtype = denoiser.device, torch_dtype(torch, denoiser.dtype)
    parameters = getattr(denoiser.predict, "parameters", None)
    if device is None and parameters is not None:
        device = next((parameter.device for parameter in parameters()), None)
    host = device is None or torch.device(device).type == "cpu"
    conditions = (
        None
        if denoiser.conditions is None
        else take_rows(denoiser.conditions, lambda c: torch.as_tensor(c, device=device))
    )

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        x, t, ids = torch.from_numpy(x_t), torch.from_numpy(denoiser.time_of(time)), torch.from_numpy(condition)
        if device is not None or dtype is not None:
            x, t, ids = x.to(device=device, dtype=dtype), t.to(device), ids.to(device)
        if denoiser.channels_last:
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        cond = ids if conditions is None else take_rows(conditions, lambda rows: rows[ids])
        with torch.no_grad(), evaluating(denoiser.predict):
            prediction = denoiser.predict(x, t, cond)
        return prediction if host or not hasattr(prediction, "cpu") else prediction.cpu()

    return call


def torch_dtype(torch: Any, dtype: Any) -> Any:
    """A floating torch.dtype, given as itself or by its name; None stays None."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is None or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise DTypeError(f"dtype is {dtype!r}, must be a floating torch.dtype or its name, such as 'float16'")


def evaluating(predict: Any) -> AbstractContextManager[Any]:
    """A module in training mode is put into evaluation mode for the call."""
    return _EvalMode(predict) if getattr(predict, "training", False) and hasattr(predict, "eval") else nullcontext()


class _EvalMode:
    def __init__(self, module: Any) -> None:
        self.modules = [part for part in module.modules() if part.training]

    def __enter__(self) -> None:
        for part in self.modules:
            part.training = False

    def __exit__(self, *unused: object) -> None:
        for part in self.modules:
            part.training = True


def _jax_device(jax: Any, device: Any) -> Any:
    """The first device of a platform's name; what JAX itself calls a device, or None, as it is."""
    if not isinstance(device, str):
        return device
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise DeviceError(f"device is {device!r}, which JAX does not have here ({error})") from None


def _jax_call(denoiser: Denoiser) -> Call:
    jax = _framework_module("jax")
    jnp, host, device = jax.numpy, jax.local_devices(backend="cpu")[0], _jax_device(jax, denoiser.device)
    conditions = (
        None
        if denoiser.conditions is None
        else take_rows(denoiser.conditions, lambda rows: jax.device_put(jnp.asarray(rows), device))
    )

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        # copies: JAX's arrays are immutable, and the memory of x_t and condition is written again
        arrays = jnp.array(x_t, dtype=denoiser.dtype), jnp.array(denoiser.time_of(time)), jnp.array(condition)
        x, t, ids = jax.device_put(arrays, device)
        cond = ids if conditions is None else take_rows(conditions, lambda rows: rows[ids])
        prediction = denoiser.predict(x, t, cond)
        if not isinstance(prediction, jax.Array):
            return prediction
        return jax.device_put(prediction, host).block_until_ready()

    return call


def _cupy_call(denoiser: Denoiser) -> Call:
    cupy = _framework_module("cupy")
    conditions = None if denoiser.conditions is None else take_rows(denoiser.conditions, cupy.asarray)

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        ids = cupy.asarray(condition)
        cond = ids if conditions is None else take_rows(conditions, lambda rows: rows[ids])
        x = cupy.asarray(x_t, dtype=denoiser.dtype)
        if denoiser.channels_last:
            x = cupy.moveaxis(cupy.ascontiguousarray(cupy.moveaxis(x, 1, -1)), -1, 1)
        return cupy.asnumpy(denoiser.predict(x, cupy.asarray(denoiser.time_of(time)), cond))

    return call
