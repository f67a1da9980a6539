"""The CUDA half of the core, built where nvcc is found (csrc/cuda).  Private: use `diffcls.cuda`."""

from typing import Any

def why_not() -> str | None: ...  # why no device can be used: a sentence, or None when one can

# a capsule with a backend, for _core, that computes the native DiT with the library at `cublaslt`; DeviceError, MemoryError
def open(device: int, stream: int, cublaslt: str | None = None, /) -> Any: ...
