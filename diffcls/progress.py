"""Progress, counted in denoiser evaluations: on stderr, silent when nobody watches."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import DTypeError

_LONG = 20_000
"""Evaluations from which on a bar is shown unasked."""


@contextmanager
def open_progress(
    progress: bool | Callable[[int, int], object] | None, max_evals: int, n_images: int
) -> Iterator[Callable[[int], None] | None]:
    """Gives the function to call with evaluations done so far, or None when nothing is shown.

    `progress`: a callable(done, max); True: a bar; None: a bar on a terminal or in a notebook when the work is long.
    """
    if callable(progress):
        yield lambda done: _tell(progress, done, max_evals)
        return
    asked = False if progress is None and max_evals < _LONG else progress
    # the race stops early: the total is what full evaluation would cost
    bar = {"total": max_evals, "unit": "eval", "desc": f"{n_images} picture{'s' if n_images > 1 else ''}"}
    with open_bar(asked, "callable(done, max)", bar, _advance, "{} evaluations".format) as show:
        yield show


@contextmanager
def open_bar(
    progress: Any, wanted: str, bar: dict[str, Any], advance: Callable[[Any, Any], None], line: Callable[[Any], str]
) -> Iterator[Callable[[Any], None] | None]:
    """Gives what shows a moment, by ``advance(tqdm's bar, moment)`` or without tqdm as a `line`; None: nobody watches.

    `progress`: True, None or False; `wanted` says in an error what else it may be.
    """
    if progress is not None and not isinstance(progress, bool):
        raise DTypeError(f"progress is {progress!r}, must be None, True, False or a {wanted}")
    if progress is False or not watched():
        yield None
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets a notebook gets the bar of a terminal, which is well
            from tqdm.auto import tqdm
    except ImportError:
        yield lambda moment: print(f"\r{line(moment)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return
    with tqdm(**bar) as shown:
        yield lambda moment: advance(shown, moment)


def watched() -> bool:
    """By a person, on a terminal or in a notebook."""
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    """A kernel runs this code; that some module of Jupyter was imported says nothing."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _tell(progress: Callable[[int, int], object], done: int, max_evals: int) -> None:
    progress(done, max_evals)


def _advance(bar: Any, done: int) -> None:
    bar.update(done - bar.n)
