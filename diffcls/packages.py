"""Packages that extras bring: imported on first use, and named where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import MissingExtraError


def package(name: str, need: str, extra: str) -> Any:
    """The module `name`.

    Parameters
    ----------
    name : str
    need : str
        Who needs which package: how the sentence begins.
    extra : str
        Brings it.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        importlib.import_module(name.partition(".")[0])
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(f"{need}: pip install 'diffcls[{extra}]'") from None
