"""What a user's function is, as far as can be known from outside: for fingerprints."""

from __future__ import annotations

import functools
import hashlib
from dis import get_instructions
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np


def described(value: Any, weights_of: Any) -> Any:
    """Plain data that differs where two callables surely do, and is the same in every process.

    Of a function: its name, its code, its defaults, and what it closes over or takes from its module's globals, unless it
    assigns to that itself; of a partial its parts; of a bound method its object; of what wraps a function, that one.
    Numbers, texts, tuples and arrays are known by their value, functions again as functions, those of other packages by
    name.  Of lists, dicts and other objects the type counts, and what `weights_of` says: the rest changes while a run goes
    on.

    Parameters
    ----------
    value : object
    weights_of : callable
        Plain data of a model, or of weights that something holds; None: it holds none.
    """
    return _Described(weights_of).of(value)


def weights_held(value: Any, weights_of: Any) -> list[Any]:
    """Of `described`, arrays and what `weights_of` knows, in the order in which they are met: the model behind a function,
    whatever its code."""
    walk = _Described(weights_of)
    walk.of(value)
    return walk.weights


class _Described:
    def __init__(self, weights_of: Any) -> None:
        self.weights_of, self.met, self.home, self.weights = weights_of, set[int](), "", list[Any]()

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return repr(value)
        if isinstance(value, (np.ndarray, np.generic)):
            array = np.asarray(value)
            self.weights.append(f"{array.dtype.str}{array.shape}{_hash(np.ascontiguousarray(array).tobytes())}")
            return self.weights[-1]
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
        if isinstance(wrapped := getattr(value, "__wrapped__", None), FunctionType):  # jax.jit, functools.cache
            return [_name(value), self.function(wrapped)]
        known = self.weights_of(value)
        if known is None:
            return _name(value)
        self.weights.append(known)
        return [_name(value), known]

    def function(self, function: FunctionType) -> Any:
        package = str(function.__module__).partition(".")[0]
        self.home = self.home or package
        if id(function) in self.met or package != self.home:
            return function.__qualname__
        self.met.add(id(function))
        code, found = function.__code__, function.__globals__
        taken, assigned = _looked_up(code)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        return [
            function.__qualname__,
            _hash(_code(code)),
            [self.of(cell.cell_contents) for name, cell in cells if name not in assigned and _is_filled(cell)],
            self.of((function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items())))),
            [self.of(found[name]) for name in sorted(taken - assigned) if name in found],
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


def _looked_up(code: CodeType) -> tuple[set[str], set[str]]:
    """Globals that a function or what it defines reads, and what of its surroundings it assigns to."""
    steps = list(get_instructions(code))
    taken = {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}
    assigned = {step.argval for step in steps if step.opname in ("STORE_GLOBAL", "STORE_DEREF")}
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = _looked_up(const)
            taken, assigned = taken | inner[0], assigned | inner[1]
    return taken, assigned


def _code(code: CodeType) -> bytes:
    """Instructions, names and constants, without places in files."""
    consts = [_code(const) if isinstance(const, CodeType) else _stable(const) for const in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, consts)).encode()


def _stable(const: Any) -> str:
    """Its repr; a frozenset's own depends on the process."""
    return repr(sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
