"""What a user's function is, as far as can be known from outside: for fingerprints."""

from __future__ import annotations

import functools
import hashlib
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np


def described(value: Any, weights_of: Any) -> Any:
    """Plain data that differs where two callables surely do, and is the same in every process.

    Of a function: its name, its code, its defaults, and what it closes over or takes from its module's globals; of a partial
    its parts; of a bound method its object.  Numbers, texts, tuples and arrays are known by their value, functions again as
    functions, and what `weights_of` knows by that.  Lists, dicts and other objects are known by their type alone: they change
    while a run goes on.

    Parameters
    ----------
    value : object
    weights_of : callable
        Plain data of a model; None: it is none.
    """
    return _Described(weights_of).of(value)


class _Described:
    def __init__(self, weights_of: Any) -> None:
        self.weights_of, self.met = weights_of, set[int]()

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return repr(value)
        if isinstance(value, (np.ndarray, np.generic)):
            array = np.asarray(value)
            return f"{array.dtype.str}{array.shape}{_hash(np.ascontiguousarray(array).tobytes())}"
        if isinstance(value, (tuple, frozenset)):
            parts = [self.of(part) for part in value]
            return parts if isinstance(value, tuple) else sorted(map(str, parts))
        if isinstance(value, functools.partial):
            return ["partial", self.of(value.func), self.of(value.args), self.of(tuple(sorted(value.keywords.items())))]
        if isinstance(value, FunctionType):
            return self.function(value)
        bound = getattr(value, "__self__", None)
        if bound is not None and hasattr(value, "__func__"):
            return [self.of(value.__func__), self.of(bound)]
        if isinstance(value, (type, ModuleType)):
            return _name(value)
        known = self.weights_of(value)
        return _name(value) if known is None else [_name(value), known]

    def function(self, function: FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        if id(function) in self.met:
            return name
        self.met.add(id(function))
        closed = tuple(cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
        taken = [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
        given = (function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items())))
        return [
            name,
            _hash(_code(function.__code__)),
            self.of(closed),
            self.of(given),
            [self.of(part) for part in taken],
        ]


def _name(value: Any) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    kind = value if isinstance(value, type) else type(value)
    return f"{getattr(kind, '__module__', '')}.{kind.__qualname__}"


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a function that closes over what is not there yet
        return False


def _names(code: CodeType) -> list[str]:
    """Globals that a function or what it defines may look up."""
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return sorted({*code.co_names, *inner})


def _code(code: CodeType) -> bytes:
    """Instructions, names and constants, without places in files."""
    consts = [_code(const) if isinstance(const, CodeType) else _stable(const) for const in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, consts)).encode()


def _stable(const: Any) -> str:
    """Its repr; a frozenset's own depends on the process."""
    return repr(sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
