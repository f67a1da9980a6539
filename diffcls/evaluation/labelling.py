"""From a data set's labels to positions among the classifier's classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import shown
from ..errors import DTypeError, InputError, ShapeError, UnknownClassError
from ..labels import class_index
from .sources import Source


class Labelling:
    """What `labels=` says: see `diffcls.evaluate`.

    Raises
    ------
    TypeError, ValueError
        It says nothing that is understood, or the data set has classes that are none of the classifier's.
    """

    def __init__(self, labels: Any, classes: Sequence[str], source: Source) -> None:
        self.classes, self.names = list(classes), source.class_names
        self.listed: Any = None
        self.mapping: Mapping[Any, Any] | None = None
        self.by_index = isinstance(labels, str) and labels == "index"
        self.none = labels is False
        if isinstance(labels, Mapping):
            self.mapping = labels
        elif labels is not None and not self.none and not self.by_index:
            self._list(labels, source.n_images)
        if self.names is not None and self.listed is None and not self.none:
            self._check_names()

    def _list(self, labels: Any, n_images: int | None) -> None:
        if isinstance(labels, (str, bool)) or not hasattr(labels, "__len__") or not hasattr(labels, "__getitem__"):
            raise DTypeError(
                f"labels is {shown(labels)}, must be None, False, 'index', a mapping, or one label an image"
            )
        if n_images is not None and len(labels) != n_images:
            raise ShapeError(f"labels has {len(labels)} entries, and the data set {n_images} images")
        self.listed = labels

    def _check_names(self) -> None:
        """Before the first evaluation, where the data set tells all its labels."""
        unknown = []
        for i, name in enumerate(self.names or ()):
            try:
                self._look_up(i if self.by_index else name)
            except UnknownClassError:
                unknown.append(name)
        if unknown:
            raise UnknownClassError(
                f"the data set has {len(unknown)} classes that are none of the classifier's: {', '.join(unknown[:8])}"
                f"{', ...' if len(unknown) > 8 else ''}; it has {', '.join(self.classes[:8])}"
                f"{', ...' if len(self.classes) > 8 else ''}; give these names as prompts, or labels as 'index' or as a mapping of the data set's to classes"
            )

    def of(self, raw: Any, position: int) -> int | None:
        """Class index of an image's label; None: it has none.

        Raises
        ------
        UnknownClassError
            The label is no class.
        """
        if self.none:
            return None
        if self.listed is not None:
            if position >= len(self.listed):
                raise InputError(f"labels has {len(self.listed)} entries, and the data set more images")
            raw = self.listed[position]
        if isinstance(raw, np.generic) or hasattr(raw, "__dlpack__"):
            if math.prod(np.shape(raw)) != 1:  # np.size takes a tensor's `size`, which is a method
                raise ShapeError(
                    f"image {position} of the data set has a label of shape {np.shape(raw)}, must be one number"
                )
            raw = raw.item()
        if raw is None:
            return None
        try:
            return self._look_up(raw)
        except UnknownClassError as error:
            raise UnknownClassError(f"image {position} of the data set: {error}") from None

    def _look_up(self, raw: Any) -> int:
        if self.mapping is not None:
            for key in (raw, self._name(raw)):
                if key in self.mapping:
                    return class_index(self.mapping[key], self.classes, "labels")
            raise UnknownClassError(f"labels, a mapping, has nothing for {raw!r}")
        if self.by_index:
            if isinstance(raw, str) and self.names is not None and raw in self.names:
                raw = self.names.index(raw)
            return class_index(raw, len(self.classes), "labels")
        if self.listed is not None:
            return class_index(raw, self.classes, "labels")
        return class_index(self._name(raw), self.classes, "the label")

    def _name(self, raw: Any) -> Any:
        """A number's name where the data set has names."""
        is_number = isinstance(raw, int) and not isinstance(raw, bool)
        if is_number and self.names is not None:
            if not 0 <= raw < len(self.names):
                raise InputError(f"the data set has label {raw}, and {len(self.names)} classes")
            return self.names[raw]
        return raw
