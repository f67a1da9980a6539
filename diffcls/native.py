"""A DiT that the compiled core computes itself, on the CPU or on a CUDA device: its loop calls it without Python in between."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .cuda_native import Placed, device_name, dtype_name
from .denoiser import Denoiser
from .errors import InputError, WeightsError


class NativeDenoiser(Denoiser):
    """`Denoiser` around a `_core.DiT`, whose sizes it takes; `facts` are the other arguments of `Denoiser`."""

    def __init__(self, native: _core.DiT, **facts: Any) -> None:
        size, self._channels = native.config["input_size"], native.config["in_channels"]
        super().__init__(self._predict, shape=(self._channels, size, size), framework="numpy", **facts)
        self.native, self.placed = native, Placed(native)

    def to(self, device: Any = None, dtype: Any = None, memory_format: Any = None) -> Denoiser:
        """A copy that a classifier computes on this device, in this dtype; `predict` stays on the CPU.

        Parameters
        ----------
        device : None, "cpu", "cuda", "cuda:1" or an object of that name
            None: as before.
        dtype : None, "float32", "tf32", "float16" or "bfloat16"
            Of what matrix products read; they add up in float32, as the layers' inputs do.  "tf32" is float32 with ten bits
            of mantissa in a product.  None: as before, or float32.  On the CPU float32 only.
        memory_format : None
            The core has an order of its own.

        Returns
        -------
        Denoiser

        Raises
        ------
        DeviceError
            `device` is no such name.
        TypeError
            `dtype` is none of these, or not what the CPU computes in.
        ValueError
            `memory_format` is given.
        """
        if memory_format is not None:
            raise InputError(f"memory_format is {memory_format!r}, which the native DiT does not take")
        copy = self._copy()
        copy.device = self.device if device is None else device_name(device)
        told = self.dtype if dtype is None and copy.device not in (None, "cpu") else dtype
        copy.dtype = dtype_name(told, copy.device)
        return copy

    def _predict(
        self, x_t: NDArray[np.float32], t: NDArray[np.float64], cond: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        from .threads import backend

        assert self.native is not None
        answer = self.native.forward(x_t, np.asarray(t, np.float64), cond, backend=backend())
        return answer[:, : self._channels]  # a learned variance follows


def open_native(weights: Any, config: dict[str, Any], path: Path) -> _core.DiT:
    """The core's DiT of what was read from `path`: the core is given memory and knows no files.

    Raises
    ------
    ValueError
        The weights are not those of the config; the sentence begins with `path`.
    """
    try:
        return _core.DiT(weights, config)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def map_file(path: Path) -> mmap.mmap:
    """A file's bytes, read where and when they are looked at: weights are copied once, by who packs them.

    Raises
    ------
    ValueError
        There is no such file, or it is empty.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # mmap's own word for an empty file
        raise WeightsError(f"{path} can not be read ({error})") from None
