"""Embedded models: ``diffcls.models()`` lists them, ``python -m diffcls.models.train`` makes them.

The package is callable, because the list and the folder of models share one name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .registry import list_models, load

__all__ = ["list_models", "load"]


class _CallablePackage(ModuleType):
    def __call__(self) -> list[dict[str, Any]]:
        return list_models()


sys.modules[__name__].__class__ = _CallablePackage
