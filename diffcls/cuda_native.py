"""The native DiT on a CUDA device: the core computes it there, its weights are copied there once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, cuda
from .errors import DeviceError, DTypeError

if TYPE_CHECKING:
    from .denoiser import Denoiser

DTYPES = ("float32", "tf32", "float16", "bfloat16")
"""Of what matrix products read; they add up in float32.  "tf32" is float32 with ten bits of mantissa in a product."""

STREAM = 1
"""DLPack's number of the default stream: nobody else's work is part of a native run, and any thread may go on with it."""


def device_name(device: Any) -> str | None:
    """ "cpu", "cuda:0", ...; None stays None.

    Raises
    ------
    DeviceError
        `device` is none of these.
    """
    name = None if device is None else str(device)
    if name is None or name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise DeviceError(f"device is {device!r}, must be 'cpu', 'cuda' or 'cuda:' and a number")
    return f"cuda:{int(number or 0)}"


def dtype_name(dtype: Any, device: str | None) -> str | None:
    """One of `DTYPES`; None stays None.

    Raises
    ------
    TypeError
        `dtype` is none of these, or not what that device computes in.
    """
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            pass
    if name not in DTYPES:
        raise DTypeError(f"dtype is {dtype!r}, must be one of {', '.join(DTYPES)}")
    if name != "float32" and device in (None, "cpu"):
        raise DTypeError(f"dtype is {dtype!r}, the native DiT computes in float32 on the CPU")
    return name


def device_of(denoiser: Denoiser) -> int | None:
    """The index of the device that a native denoiser is for; None: the host.

    Raises
    ------
    DeviceError
        CUDA can not be used, and why.
    """
    name = device_name(denoiser.device)
    if name is None or name == "cpu":
        return None
    index = int(name.partition(":")[2])
    cuda.check(index)
    return index


class Placed:
    """A model's copies on devices, each made when it is first needed."""

    def __init__(self, native: _core.DiT) -> None:
        self.native, self._lock = native, threading.Lock()
        self._copies: dict[tuple[int, str], _core.DiT] = {}

    def on(self, device: int, dtype: str, backend: Any) -> _core.DiT:
        with self._lock:
            if (device, dtype) not in self._copies:
                self._copies[device, dtype] = self.native.place(backend, dtype)
            return self._copies[device, dtype]


class NativeEntry:
    """What a classifier keeps of a native denoiser on a device."""

    def __init__(self, placed: Placed, device: int, dtype: str) -> None:
        self.placed, self.device, self.dtype = placed, device, dtype

    def open(self) -> tuple[_core.DiT, Any]:
        """The model on the device, and a backend for one loop.

        Raises
        ------
        DeviceError, MemoryError
            cuBLASLt is not found, or the device can not be used, or is full.
        """
        backend = cuda.open_backend(self.device, STREAM, native=True)
        return self.placed.on(self.device, self.dtype, backend), backend
