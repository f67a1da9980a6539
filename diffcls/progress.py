"""Progress, counted in denoiser evaluations: on stderr, silent when nobody watches."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    if progress is not None and not isinstance(progress, bool):
        raise DTypeError(f"progress is {progress!r}, must be None, True, False or a callable(done, max)")
    if progress is False or not watched() or (progress is None and max_evals < _LONG):
        yield None
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets a notebook gets the bar of a terminal, which is well
            from tqdm.auto import tqdm
    except ImportError:
        yield lambda done: print(f"\r{done} evaluations", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return
    # the race stops early: the total is what full evaluation would cost
    with tqdm(total=max_evals, unit="eval", desc=f"{n_images} picture{'s' if n_images > 1 else ''}") as bar:
        yield lambda done: _advance(bar, done)


def watched() -> bool:
    """By a person, on a terminal or in a notebook."""
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    """A kernel runs this code; that some module of Jupyter was imported says nothing."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _tell(progress: Callable[[int, int], object], done: int, max_evals: int) -> None:
    progress(done, max_evals)


def _advance(bar: object, done: int) -> None:
    bar.update(done - bar.n)  # type: ignore[attr-defined]
