"""The CPU backend that calls use: its threads and its instruction set."""

from __future__ import annotations

import os

import numpy as np

from . import _core
from .errors import InputError

_current: _core.Cpu | None = None


def backend() -> _core.Cpu:
    """The current CPU backend.

    Made on first use from ``DIFFCLS_NUM_THREADS`` (default: the processors this process may use) and ``DIFFCLS_SIMD``
    ("auto", "scalar", "avx2" or "avx512").

    Raises
    ------
    ValueError
        One of the two variables is none of these.
    """
    global _current
    if _current is None:
        _current = _make(_default_threads())
    return _current


def set_num_threads(n: int) -> None:
    """Use `n` threads, the caller's included, for calls that begin from now on.  Numbers never depend on it.

    Parameters
    ----------
    n : int
        1 to 256.

    Raises
    ------
    ValueError
        `n` is not between 1 and 256, or the variable DIFFCLS_SIMD names no instruction set of this machine.
    """
    global _current
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= 256:
        raise InputError(f"n is {n!r}, must be an integer from 1 to 256")
    _current = _make(int(n))


def get_num_threads() -> int:
    """Threads that calls use, the caller's included.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        On first use: the variable DIFFCLS_NUM_THREADS is no integer from 1 to 256, or DIFFCLS_SIMD names no instruction
        set of this machine.
    """
    return backend().n_threads


def _make(n: int) -> _core.Cpu:
    simd, known = os.environ.get("DIFFCLS_SIMD", "auto"), ("auto", *_core.Cpu.available())
    if simd not in known:
        raise InputError(f"DIFFCLS_SIMD is {simd!r}, must be one of {', '.join(known)} on this machine")
    return _core.Cpu(n_threads=n, simd=simd)


def _default_threads() -> int:
    named = os.environ.get("DIFFCLS_NUM_THREADS")
    if named is None:
        return min(256, len(os.sched_getaffinity(0)))
    if not named.isdecimal() or not 1 <= int(named) <= 256:
        raise InputError(f"DIFFCLS_NUM_THREADS is {named!r}, must be an integer from 1 to 256")
    return int(named)
