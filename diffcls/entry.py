"""What the core's loop calls for a denoiser, and on which backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core, cuda
from .cuda_denoiser import DeviceCall
from .cuda_native import NativeEntry
from .native import NativeDenoiser
from .threads import backend

if TYPE_CHECKING:
    from .denoiser import Denoiser
    from .framework_calls import Call

Entry = Any
"""A `_core.DiT`, a `Call`, a `DeviceCall` or a `NativeEntry`."""


def make_entry(denoiser: Denoiser, device: int | None) -> Entry:
    """For every loop of a classifier; `device` is what `cuda_denoiser.device_of` says."""
    if device is None:
        return denoiser.entry()
    if isinstance(denoiser, NativeDenoiser):
        return NativeEntry(denoiser.placed, device, denoiser.dtype_name)
    return DeviceCall(denoiser, device)


def open_entry(entry: Entry) -> tuple[_core.DiT | Call | DeviceCall, Any]:
    """For one loop: what it calls, and its backend.

    Raises
    ------
    DeviceError, MemoryError
        The device can not be used, or is full.
    """
    if isinstance(entry, DeviceCall):
        entry = entry.here()
        return entry, cuda.open_backend(entry.device, entry.stream_number)
    return entry.open() if isinstance(entry, NativeEntry) else (entry, backend())
