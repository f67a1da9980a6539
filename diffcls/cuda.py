"""CUDA: whether a device can be used, why not, and how tensors of other frameworks meet the core there.

The device is the tensor's, the stream is the one on which its framework works at the moment.  Nothing is copied and nothing
waits: what a call begins is done in the order of that stream, like the framework's own work.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from .errors import DeviceError, DTypeError

__all__ = ["is_available", "why_not"]

DLPACK_CUDA, DLPACK_CUDA_MANAGED = 2, 13


def is_available() -> bool:
    """Whether this build of diffcls has its CUDA module and that module finds a device.

    Returns
    -------
    bool
    """
    return why_not() is None


def why_not() -> str | None:
    """Why CUDA can not be used, in a sentence; None when it can.

    Returns
    -------
    str or None
    """
    if _asked and os.getpid() not in _asked:
        return (
            "CUDA was in use before this process was forked, and no driver supports that; start processes by 'spawn' or "
            "'forkserver' (multiprocessing.set_start_method)"
        )
    try:
        from . import _cuda
    except ImportError as error:
        if error.name not in (
            None,
            __package__,
            f"{__package__}._cuda",
        ):  # missing: "cannot import name" of the package
            raise
        return f"this build of diffcls has no CUDA module ({error}); it is built where nvcc is found"
    reason = _cuda.why_not()
    if reason is None:
        _asked.add(os.getpid())
    return reason


_asked: set[int] = set()
"""The process in which a driver was found, which a child made by fork does not have."""


def device_of(array: Any) -> int | None:
    """The index of the CUDA device that holds a tensor; None for what is elsewhere, or is no tensor.

    Memory that CUDA manages is the device's where one can be used, else the host's.
    """
    try:
        kind, index = array.__dlpack_device__()
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return None
    held = int(kind) == DLPACK_CUDA or (int(kind) == DLPACK_CUDA_MANAGED and is_available())
    return int(index) if held else None


def check(device: int) -> None:
    """Refuse what is on a device, where CUDA can not be used, saying why."""
    reason = why_not()
    if reason is not None:
        raise DeviceError(f"diffcls can not compute on cuda:{device}: {reason}")


def open_backend(device: int, stream: int, *, native: bool = False) -> Any:
    """A backend for work on that stream, as the core takes it; `native`: one that computes the native DiT.

    Raises
    ------
    DeviceError
        CUDA can not be used, and why; there is no such device; or cuBLASLt is not found.
    """
    check(device)
    from . import _cuda

    return _cuda.open(device, stream, find_cublaslt() if native else None)


def find_cublaslt() -> str:
    """The path of cuBLASLt: the one that PyTorch or CuPy has loaded, PyPI's, or the toolkit's.

    Raises
    ------
    DeviceError
        It is not found, and how to get it.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        path = load_nvidia_dynamic_lib("cublasLt").abs_path
        reason = "it was found without a path"
    except ImportError:
        path, reason = None, "the package cuda-pathfinder is not installed"
    except RuntimeError:  # its DynamicLibNotFoundError
        path, reason = None, "neither a package nor the toolkit nor another library has it"
    if path is None:
        raise DeviceError(
            f"the native DiT on a CUDA device needs cuBLASLt, which is not found ({reason}); pip install 'diffcls[cuda]' brings it"
        )
    return str(path)


_kept = threading.local()


@contextmanager
def backend(device: int, stream: int) -> Iterator[Any]:
    """The calling thread's backend for that stream, whose scratch memory is used again; after a failure a new one is made."""
    try:
        if getattr(_kept, "key", None) != (device, stream):
            _kept.__dict__.clear()  # the last one's memory goes first
            _kept.backend = open_backend(device, stream)
            _kept.key = (device, stream)
        yield _kept.backend
    except BaseException:
        _kept.__dict__.clear()
        raise


# ---- other frameworks ------------------------------------------------------------------------------------------------


def stream_of(framework: str, device: int, stream: Any = None) -> int:
    """A stream as DLPack numbers it: 1 is the default one, 2 the calling thread's, else a handle.

    `stream` is a number of that kind, an object of PyTorch or CuPy, or None: the one on which the framework works now.
    """
    module = sys.modules.get(framework)
    if stream is None and framework == "torch" and module is not None:
        stream = module.cuda.current_stream(device)
    elif stream is None and framework == "cupy" and module is not None:
        with module.cuda.Device(device):
            stream = module.cuda.get_current_stream()
    if stream is None:
        return 1
    for name in ("cuda_stream", "ptr"):
        if hasattr(stream, name):
            return int(getattr(stream, name)) or 1
    if isinstance(stream, bool) or not isinstance(stream, int) or stream < 1:
        raise DTypeError(
            f"stream is {stream!r}, must be a stream of PyTorch or CuPy, or DLPack's number of one, 1 or more"
        )
    return stream


def framework_of(array: Any) -> str:
    """The package that a tensor is of."""
    return type(array).__module__.partition(".")[0]


def empty(framework: str, shape: tuple[int, ...], dtype: str, device: int) -> Any:
    """A new tensor on the device, not initialised.

    Raises
    ------
    TypeError
        The framework's arrays can not be written by others.
    """
    module = sys.modules.get(framework)
    if framework == "torch" and module is not None:
        return module.empty(shape, dtype=getattr(module, dtype), device=f"cuda:{device}")
    if framework == "cupy" and module is not None:
        with module.cuda.Device(device):
            return module.empty(shape, dtype=dtype)
    raise DTypeError(f"arrays of {framework} on a device can not be written to; give out=, a tensor of PyTorch or CuPy")


def put(framework: str, array: NDArray[Any], device: int) -> Any:
    """A host array on the device, in the order of the framework's stream; the host does not wait."""
    module = sys.modules[framework]
    if framework == "torch":
        return module.from_numpy(array).to(f"cuda:{device}", non_blocking=True)
    with module.cuda.Device(device):
        return module.asarray(array)
