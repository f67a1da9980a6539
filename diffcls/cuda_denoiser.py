"""A denoiser of PyTorch or CuPy on a CUDA device: x_t is made there, and the prediction is read there."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from . import cuda, cuda_native
from .denoiser import _evaluating, _take, _torch_dtype

if TYPE_CHECKING:
    from .denoiser import Denoiser


def device_of(denoiser: Denoiser) -> int | None:
    """The index of the device that the core can share with a denoiser; None: the core works on the host.

    Raises
    ------
    DeviceError
        The native DiT is wanted on a device where CUDA can not be used, and why.
    """
    if denoiser.native is not None:
        return cuda_native.device_of(denoiser)
    if denoiser.framework not in ("torch", "cupy"):
        return None
    if sys.modules.get(denoiser.framework) is None or not cuda.is_available():
        return None
    return _torch_device(denoiser) if denoiser.framework == "torch" else _cupy_device()


def _torch_device(denoiser: Denoiser) -> int | None:
    torch, device = sys.modules["torch"], denoiser.device
    parameters = getattr(denoiser.predict, "parameters", None)
    if device is None and parameters is not None:
        device = next((parameter.device for parameter in parameters()), None)
    device = torch.device("cpu" if device is None else device)
    if device.type != "cuda":
        return None
    return int(torch.cuda.current_device() if device.index is None else device.index)


def _cupy_device() -> int:
    return int(sys.modules["cupy"].cuda.Device().id)


class DeviceCall:
    """What the core calls: `input` gives the tensor that x_t is written to, a call asks `predict` about its first rows.

    Everything is in the order of one stream, that of `here`; tensors are lent for the call.
    """

    def __init__(self, denoiser: Denoiser, device: int) -> None:
        self.denoiser, self.device, self.framework = denoiser, device, denoiser.framework
        self.module = sys.modules[self.framework]
        self.dtype = _torch_dtype(self.module, denoiser.dtype) if self.framework == "torch" else denoiser.dtype
        self.conditions = None if denoiser.conditions is None else _take(denoiser.conditions, self._condition)
        self.stream: Any = None

    def here(self) -> Self:
        """The same on the stream on which the framework works now."""
        bound = copy.copy(self)
        if self.framework == "torch":
            bound.stream = self.module.cuda.current_stream(self.device)
        else:
            with self.module.cuda.Device(self.device):
                bound.stream = self.module.cuda.get_current_stream()
        return bound

    @property
    def stream_number(self) -> int:
        return cuda.stream_of(self.framework, self.device, self.stream)

    def input(self, n_rows: int) -> Any:
        with self._on_stream():
            return cuda.empty(self.framework, (n_rows, *self.denoiser.shape), "float32", self.device)

    def __call__(
        self, x_t: Any, timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        denoiser = self.denoiser
        with self._on_stream():
            t, ids = self._put(denoiser.time_of(time)), self._put(condition)
            cond = ids if self.conditions is None else _take(self.conditions, lambda rows: rows[ids])
            return denoiser.predict(self._cast(x_t), t, cond)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.framework == "torch":
                stack.enter_context(self.module.cuda.stream(self.stream))
                stack.enter_context(self.module.no_grad())
                stack.enter_context(_evaluating(self.denoiser.predict))
            else:
                stack.enter_context(self.module.cuda.Device(self.device))
                stack.enter_context(self.stream)
            yield

    def _put(self, array: NDArray[Any]) -> Any:
        return cuda.put(self.framework, array, self.device)

    def _condition(self, rows: Any) -> Any:
        if self.framework == "torch":
            return self.module.as_tensor(rows, device=f"cuda:{self.device}")
        with self.module.cuda.Device(self.device):
            return self.module.asarray(rows)

    def _cast(self, x_t: Any) -> Any:
        if self.dtype is None:
            return x_t
        return x_t.to(self.dtype) if self.framework == "torch" else x_t.astype(self.dtype, copy=False)
