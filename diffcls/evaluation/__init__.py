"""Data sets: evaluate a classifier over one, resumably; read, merge, report and compare the results."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "evaluate": "run",
    "merge_shards": "merging",
    "Report": "report",
    "compare": "comparison",
    "Comparison": "comparison",
    "Progress": "progress",
    "Source": "sources",
    "Item": "sources",
    "open_source": "sources",
}

__all__ = [
    "Comparison",
    "Item",
    "Progress",
    "Report",
    "Source",
    "compare",
    "evaluate",
    "merge_shards",
    "open_source",
]

if TYPE_CHECKING:
    from .comparison import Comparison, compare
    from .merging import merge_shards
    from .progress import Progress
    from .report import Report
    from .run import evaluate
    from .sources import Item, Source, open_source


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
