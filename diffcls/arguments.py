"""Arguments, checked one by one: which of them, what came, what was wanted."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DTypeError, InputError


def integer(name: str, value: Any, *, at_least: int) -> int:
    """
    Raises
    ------
    ValueError
        `value` is no integer (a bool is none), or below `at_least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise InputError(f"{name} is {shown(value)}, must be an integer of {at_least} or more")
    return int(value)


def number(name: str, value: Any, wanted: str, holds: Callable[[float], bool]) -> float:
    """
    Raises
    ------
    ValueError
        `value` is no real number (a bool is none), or one of which `holds` is false; the message says what was `wanted`.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not holds(float(value))
    ):
        raise InputError(f"{name} is {shown(value)}, must be {wanted}")
    return float(value)


def between_0_and_1(name: str, value: Any) -> float:
    """`number` in (0, 1)."""
    return number(name, value, "a number between 0 and 1", lambda x: 0.0 < x < 1.0)


def integers(name: str, values: Any, *, at_least: int) -> tuple[int, ...]:
    """Of a sequence or an array with one axis and one entry or more; nothing is rounded.

    Raises
    ------
    ValueError
        It is none.
    """
    array = _array(values)
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu" or not array.size or array.min() < at_least:
        raise InputError(f"{name} is {shown(values)}, must be a list of integers of {at_least} or more, one at least")
    return tuple(array.tolist())


def pairs(values: Any) -> tuple[tuple[int, int], ...] | None:
    """Of a sequence of pairs or an (n, 2) array of integers of 1 or more; None: it is none."""
    array = _array(values)
    if array is not None and array.shape == (0,):
        return ()
    if array is None or array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu" or (array < 1).any():
        return None
    return tuple((int(a), int(b)) for a, b in array.tolist())


def positions(name: str, given: Any, n: int) -> slice | NDArray[Any]:
    """What picks some of `n` rows: a slice, a mask of `n` bools, or integers from -n to n - 1.

    Raises
    ------
    ValueError
        It is none of these.
    """
    if isinstance(given, slice):
        return given
    array = _array(given)
    if array is not None and array.ndim == 1:
        if not array.size:
            return np.zeros(0, np.int64)
        if array.dtype.kind == "b" and array.size == n:
            return array
        if array.dtype.kind in "iu" and array.min() >= -n and array.max() < n:
            return array
    raise InputError(f"{name} is {shown(given)}, must be a slice, positions from 0 to {n - 1} or a mask of {n}")


def floats(name: str, values: Any, wanted: str) -> NDArray[np.float64]:
    """A copy as float64, whatever its shape.

    Raises
    ------
    TypeError
        `values` has what is no real number.
    """
    array = _array(values)
    if array is None or array.dtype.kind not in "biuf":
        raise DTypeError(f"{name} is {shown(values)}, must be {wanted}")
    return np.array(array, np.float64)


def instance(name: str, value: Any, kind: type) -> None:
    """
    Raises
    ------
    TypeError
        `value` is not of `kind`.
    """
    if not isinstance(value, kind):
        raise DTypeError(f"{name} is {shown(value)}, must be of type {kind.__name__}")


def shown(value: Any) -> str:
    """A repr of one line that is not long."""
    return " ".join(reprlib.repr(value).split())


def _array(values: Any) -> NDArray[Any] | None:
    """None of what NumPy makes no array of, or one of objects."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # ragged; another framework's, on a device or with gradients
        return None
