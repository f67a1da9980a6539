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
from .cuda_graph import Tapes
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


KNOWN = ("float32", "float64", "float16", "bfloat16")
"""What the core writes; of another dtype x_t is cast from float32."""


class DeviceCall:
    """What the core calls: `input` gives the tensor that x_t is written to, a call asks `predict` about its first rows.

    Everything is in the order of one stream, that of `here`; tensors are lent for the call.  Where steps are recorded, a call
    between `record` and `recorded` is remembered, and `replay` runs it for other numbers.
    """

    def __init__(self, denoiser: Denoiser, device: int) -> None:
        self.denoiser, self.device, self.framework = denoiser, device, denoiser.framework
        self.module = sys.modules[self.framework]
        self.dtype = denoiser.dtype
        if self.framework == "torch":
            self.dtype = _torch_dtype(self.module, denoiser.dtype)
        self.conditions = None if denoiser.conditions is None else _take(denoiser.conditions, self._condition)
        self.stream: Any = None
        self.is_recorded = denoiser.cuda_graph
        self.tapes: Tapes | None = None

    def here(self) -> Self:
        """The same on the stream on which the framework works now, or behind it on one that can be recorded."""
        bound = copy.copy(self)
        if self.framework == "torch":
            bound.stream = self.module.cuda.current_stream(self.device)
            if self.is_recorded:
                behind, bound.stream = bound.stream, self.module.cuda.Stream(self.device)
                bound.stream.wait_stream(behind)
        else:
            with self.module.cuda.Device(self.device):
                bound.stream = self.module.cuda.get_current_stream()
        return bound

    @property
    def stream_number(self) -> int:
        return cuda.stream_of(self.framework, self.device, self.stream)

    def input(self, n_rows: int) -> Any:
        shape, last = (n_rows, *self.denoiser.shape), self.denoiser.channels_last
        wanted = "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        name = wanted if wanted in KNOWN else "float32"
        with self._on_stream():
            if self.is_recorded:
                is_discrete = self.denoiser.schedule.is_discrete
                self.tapes = Tapes(self.module, self.stream, n_rows, "int64" if is_discrete else "float32")
            in_memory = (shape[0], *shape[2:], shape[1]) if last else shape
            x_t = cuda.empty(self.framework, in_memory, name, self.device)
            return self.module.moveaxis(x_t, -1, 1) if last else x_t

    def __call__(
        self, x_t: Any, timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        denoiser, tape = self.denoiser, None if self.tapes is None else self.tapes.running
        with self._on_stream():
            if tape is None:
                t, ids = self._put(denoiser.time_of(time)), self._put(condition)
            else:
                t, ids = tape.numbers(len(time))
            cond = ids if self.conditions is None else _take(self.conditions, lambda rows: rows[ids])
            return denoiser.predict(self._cast(x_t), t, cond)

    # ---- steps as graphs: PyTorch only ----

    def record(self, graph: int) -> None:
        self._tapes.record(graph)

    def recorded(self, graph: int) -> None:
        self._tapes.recorded()

    def abandon(self, graph: int) -> None:
        self._tapes.abandon()

    def replay(
        self, graph: int, timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> None:
        self._tapes.replay(graph, self.denoiser.time_of(time), condition)

    @property
    def _tapes(self) -> Tapes:
        assert self.tapes is not None  # the core asks for input before it records
        return self.tapes

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
