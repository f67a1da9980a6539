"""CuPy as far as diffcls uses it, on the device of tests/cuda/shim: memory of the host that says it is a device's.

Reading (`get`) waits for the current stream, as CuPy does; nothing else does.
"""

from __future__ import annotations

import ctypes
import types

import numpy as np

_capsule = ctypes.pythonapi.PyCapsule_GetPointer
_capsule.restype, _capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Stream:
    def __init__(self, cupy, handle, device):
        self.cupy, self.ptr, self.device = cupy, handle, device

    def __enter__(self):
        self.before, self.cupy.current = self.cupy.current, self
        return self

    def __exit__(self, *unused):
        self.cupy.current = self.before


class Device:
    def __init__(self, cupy, index=None):
        self.cupy, self.id = cupy, cupy.device if index is None else index

    def __enter__(self):
        self.before, self.cupy.device = self.cupy.device, self.id
        return self

    def __exit__(self, *unused):
        self.cupy.device = self.before


class ndarray:
    """A view of host memory; `streams` is what consumers of its DLPack capsules asked for."""

    def __init__(self, cupy, host, device):
        self.cupy, self.host, self.device, self.streams = cupy, host, device, []

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)

    def __len__(self):
        return len(self.host)

    def __getitem__(self, key):
        key = key.get() if isinstance(key, ndarray) else key
        picked = self.host[key]
        shares = np.shares_memory(picked, self.host)
        return ndarray(self.cupy, picked, self.device) if shares else self.cupy.asarray(picked)

    def __imul__(self, other):
        self.get()[...] *= other.get()
        return self

    def astype(self, dtype, copy=True):
        return self.cupy.asarray(self.get().astype(dtype)) if copy or self.dtype != dtype else self

    def get(self):
        self.cupy.wait()
        return self.host

    def __dlpack_device__(self):
        return (2, self.device)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        self.streams.append(stream)
        versioned = max_version is not None and self.cupy.speaks_versions
        capsule = self.host.__dlpack__(max_version=max_version) if versioned else self.host.__dlpack__()
        name, offset = (b"dltensor_versioned", 40) if versioned else (b"dltensor", 8)
        (ctypes.c_int32 * 2).from_address(_capsule(capsule, name) + offset)[:] = self.__dlpack_device__()
        return capsule


class OldArray(ndarray):
    """From before DLPack 1: no max_version."""

    def __dlpack__(self, *, stream=None):
        return ndarray.__dlpack__(self, stream=stream)


ndarray.__module__ = OldArray.__module__ = "cupy"


class FakeCupy(types.ModuleType):
    """Install as sys.modules["cupy"].  `shim` is the loaded module of tests/cuda, by ctypes."""

    def __init__(self, shim):
        super().__init__("cupy")
        shim.shim_stream_new.restype = ctypes.c_void_p
        shim.shim_memory.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        shim.shim_forget.argtypes = [ctypes.c_void_p]
        shim.cudaStreamSynchronize.argtypes = [ctypes.c_void_p]
        shim.shim_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        shim.shim_last_report.restype = ctypes.c_char_p
        self.shim, self.device, self.speaks_versions, self.alive = shim, 0, True, []
        self.current = Stream(self, shim.shim_stream_new(0), 0)
        self.cuda = types.SimpleNamespace(
            Device=lambda index=None: Device(self, index), get_current_stream=lambda: self.current
        )

    def stream(self, device):
        return Stream(self, self.shim.shim_stream_new(device), device)

    def wait(self):
        self.shim.cudaStreamSynchronize(self.current.ptr)

    def _own(self, host):
        self.alive.append(host)
        if host.nbytes:
            self.shim.shim_memory(host.ctypes.data, host.nbytes, self.device)
        return ndarray(self, host, self.device)

    def empty(self, shape, dtype="float32"):
        return self._own(np.full(shape, np.nan, dtype))

    def asarray(self, array, dtype=None):
        return array if isinstance(array, ndarray) else self._own(np.array(array, dtype, order="C"))

    def moveaxis(self, array, source, destination):
        return ndarray(self, np.moveaxis(array.host, source, destination), array.device)

    def close(self):
        for host in self.alive:
            if host.nbytes:
                self.shim.shim_forget(host.ctypes.data)
        self.alive.clear()
