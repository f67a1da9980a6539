"""How far an evaluation is: a bar for people, JSON lines for machines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ..progress import open_bar
from .store import told

LOG_SECONDS = 10.0
SHOW_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """A moment of an evaluation, of this shard.

    Attributes
    ----------
    images : int
        With a row, earlier runs' among them.
    n_images : int or None
        Of the shard; None: the data set does not tell.
    errors : int
        Images that could not be judged, in this run.
    evals : int
        Denoiser evaluations of this run, those in flight among them.
    seconds : float
        Since this run began.
    eta : float or None
        Seconds that are left, at this run's mean pace; None: not known.
    """

    images: int
    n_images: int | None
    errors: int
    evals: int
    seconds: float
    eta: float | None


class Meter:
    """Counts, and tells whoever wants to know.  Its clock never goes back."""

    def __init__(self, n_images: int | None, show: Callable[[Progress], object] | None, log: Log) -> None:
        self.n_images, self._show, self._log = n_images, show, log
        self.images = self.new = self.errors = self.evals = self._finished = 0
        self._start = self._shown = self._logged = time.monotonic()

    def row(self, *, new: bool, error: bool, n_evals: int) -> None:
        self.images += 1
        if new:
            self.new += 1
            self.errors += error
            self._finished += n_evals
            self.evals = max(self.evals, self._finished)
        self._tell()

    def asked(self, evals: int) -> None:
        """The denoiser was asked: `evals` of this run so far, which the core tells now and then."""
        self.evals = max(self.evals, evals)
        self._tell()

    def now(self) -> Progress:
        seconds = time.monotonic() - self._start
        eta = None
        if self.n_images is not None and self.new:
            eta = (self.n_images - self.images) * seconds / self.new
        return Progress(self.images, self.n_images, self.errors, self.evals, seconds, eta)

    def close(self) -> None:
        if self._show is not None:
            self._show(self.now())

    def _tell(self) -> None:
        now = time.monotonic()
        if self._show is not None and now - self._shown >= SHOW_SECONDS:
            self._shown = now
            self._show(self.now())
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._log.write("progress", **asdict(self.now()))


class Log:
    """Appends one json object a line, each with "time" (UTC) and "event"; no result depends on them.

    Events: "start" (pid, shard, n_images, run), "progress" (what `Progress` has, every ten seconds), "part" (part, rows, file),
    "damaged" (part, file: it will be made anew), "error" (position, id, error), "done" or "stopped" (images, new, error).
    """

    def __init__(self, out: Path, path: Path) -> None:
        self._out, self._path = out, path
        self._file: IO[bytes] | None = None

    def write(self, event: str, **facts: Any) -> None:
        line = (
            json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}) + "\n"
        )
        with told(self._out):
            if self._file is None:
                self._file = open(self._path, "a+b", buffering=0)  # nothing is left to be written when it is closed
                if self._file.tell() and os.pread(self._file.fileno(), 1, self._file.tell() - 1) != b"\n":
                    line = "\n" + line  # behind one that was cut off
            self._file.write(line.encode())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def open_show(progress: Any, name: str) -> Iterator[Callable[[Progress], object] | None]:
    """Gives the function that is shown a `Progress` now and then, or None when nobody watches.

    `progress`: a callable(Progress); True, or None on a terminal or in a notebook: a bar; False: nothing.
    """
    if callable(progress):
        yield progress
        return
    with open_bar(progress, "callable(Progress)", {"unit": "image", "desc": name}, _advance, line_of) as show:
        yield show


def line_of(moment: Progress) -> str:
    """In one line."""
    total = "" if moment.n_images is None else f" of {moment.n_images}"
    eta = "" if moment.eta is None else f", {moment.eta:.0f} s left"
    return f"{moment.images}{total} images, {moment.errors} errors, {moment.evals} evaluations{eta}"


def _advance(bar: Any, moment: Progress) -> None:
    if bar.total is None and moment.n_images is not None:
        bar.reset(moment.n_images)
        bar.initial = 0
    bar.n = moment.images
    bar.set_postfix(evals=moment.evals, errors=moment.errors, refresh=False)
    bar.refresh()
