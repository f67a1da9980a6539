"""The CUDA half of the core, built where nvcc is found (csrc/cuda).  Private: use `diffcls.cuda`."""

from typing import Any

def why_not() -> str | None: ...  # why no device can be used: a sentence, or None when one can
def open(device: int, stream: int, /) -> Any: ...  # a capsule with a backend, for _core; DeviceError, MemoryError
