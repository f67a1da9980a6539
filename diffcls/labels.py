"""Classes as users name them: by name, or by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ShapeError, UnknownClassError


def class_index(entry: str | int, classes: Sequence[str] | int, argument: str) -> int:
    """Position of a class that is named or counted; `classes`: their names, or how many there are where none has a name.

    Raises
    ------
    UnknownClassError
        There is no such class.
    """
    names = None if isinstance(classes, int) else classes
    if isinstance(entry, str) and names is not None:
        if entry not in names:
            raise UnknownClassError(f"{argument} has {entry!r}, which is none of the classes: {', '.join(names)}")
        return list(names).index(entry)
    k = classes if isinstance(classes, int) else len(classes)
    if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)) or not 0 <= entry < k:
        wanted = "" if names is None else "names of classes or "
        raise UnknownClassError(f"{argument} has {entry!r}, must be {wanted}0 to {k - 1}")
    return int(entry)


def check_labels(labels: ArrayLike, n: int, classes: Sequence[str] | int) -> NDArray[np.int64]:
    """(n,) class indices from indices or names.

    Raises
    ------
    ShapeError
        Not one an image.
    UnknownClassError
        A label is no class.
    """
    values = list(labels) if isinstance(labels, (list, tuple)) else np.asarray(labels).tolist()
    if not isinstance(values, list) or len(values) != n:
        shape = (len(values),) if isinstance(values, list) else ()
        raise ShapeError(f"labels has shape {shape}, must be ({n},): one an image")
    return np.array([class_index(value, classes, "labels") for value in values], np.int64)
