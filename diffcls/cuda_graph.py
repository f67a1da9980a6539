"""Steps recorded as CUDA graphs, PyTorch's part: what it allocates meanwhile, and the numbers that a replay is for."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tape:
    """One graph and its numbers: time and condition in pinned memory, which the graph copies to the device first of all."""

    def __init__(self, torch: Any, n_rows: int, time_dtype: str, device: Any) -> None:
        self.graph = torch.cuda.CUDAGraph()
        dtypes = getattr(torch, time_dtype), torch.int64
        self.host = [torch.empty(n_rows, dtype=dtype, pin_memory=True) for dtype in dtypes]
        self.there = [torch.empty(n_rows, dtype=dtype, device=device) for dtype in dtypes]
        self.time, self.condition = (tensor.numpy() for tensor in self.host)

    def numbers(self, n_rows: int) -> list[Any]:
        """Time and condition on the device, as a replay will find them."""
        return [
            there[:n_rows].copy_(host[:n_rows], non_blocking=True)
            for there, host in zip(self.there, self.host, strict=True)
        ]


class Tapes:
    """The graphs of one loop, on its stream.  They share a pool of memory, for they never run at the same time.

    Parameters
    ----------
    torch : module
    stream : torch.cuda.Stream
        Not the default one, which can not be recorded.
    n_rows : int
        Of the largest batch.
    time_dtype : str
    """

    def __init__(self, torch: Any, stream: Any, n_rows: int, time_dtype: str) -> None:
        self.torch, self.stream, self.n_rows, self.time_dtype = torch, stream, n_rows, time_dtype
        self.pool = torch.cuda.graph_pool_handle()
        self.tapes: dict[int, Tape] = {}
        self.running: Tape | None = None
        self._entered: Any = None

    def record(self, graph: int) -> None:
        """From here on the stream remembers."""
        torch = self.torch
        self.tapes.pop(graph, None)
        torch.cuda.synchronize(self.stream.device)
        gc.collect()  # a tensor that is freed meanwhile must not be of before
        torch.cuda.empty_cache()
        tape = Tape(torch, self.n_rows, self.time_dtype, self.stream.device)
        torch.cuda.synchronize(self.stream.device)
        self._entered = torch.cuda.stream(self.stream)
        self._entered.__enter__()
        self.running = self.tapes[graph] = tape
        tape.graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")  # other threads may go on

    def recorded(self) -> None:
        """To here."""
        tape, self.running = self.running, None
        try:
            if tape is not None:
                tape.graph.capture_end()
        finally:
            self._leave()

    def abandon(self) -> None:
        """What was begun ends, whatever it is."""
        with suppress(RuntimeError):  # told already
            self.recorded()
        self.tapes.clear()

    def replay(self, graph: int, time: NDArray[Any], condition: NDArray[np.int64]) -> None:
        """The graph, for other numbers of as many rows."""
        tape, n = self.tapes[graph], len(time)
        tape.time[:n] = time
        tape.condition[:n] = condition
        with self.torch.cuda.stream(self.stream):
            tape.graph.replay()

    def _leave(self) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            entered.__exit__(None, None, None)
