"""Work for several users at once, bounded: a few jobs run, a few wait, more are told that the server is busy."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import DiffclsError

Event = dict[str, Any]
log = logging.getLogger("diffcls.web")


class LeftError(Exception):
    """Nobody waits for the job any more, or it has run for too long."""


class BusyError(DiffclsError):
    """As many jobs as may are running and waiting."""


class Job:
    """One job's words to the browser, and the browser's leave.

    `events` is read on the server's loop, until None; a worker's thread writes.
    """

    def __init__(self, seconds: float) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._left = threading.Event()
        self._seconds, self._end = seconds, float("inf")

    def leave(self) -> None:
        """The browser is gone: the work stops at its next `check`."""
        self._left.set()

    def check(self, *_: object) -> None:
        """Called by the work as often as it can.

        Raises
        ------
        LeftError
        """
        if self._left.is_set():
            raise LeftError("the browser is gone")
        if time.monotonic() > self._end:
            raise LeftError(f"this took more than {self._seconds:g} seconds, which is all that one picture gets here")

    def run(self, work: Callable[[Job], Iterator[Event]]) -> None:
        """In a worker's thread: everything that `work` yields, or one sentence about what went wrong."""
        self._end = time.monotonic() + self._seconds
        try:
            self.check()
            for event in work(self):
                self.check()
                self._tell(event)
        except (DiffclsError, LeftError) as error:
            self._tell({"event": "error", "message": str(error)})
        except Exception:
            log.exception("a classification failed")
            self._tell({"event": "error", "message": "something broke in the server; its terminal says what"})
        self._tell(None)

    def _tell(self, event: Event | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server ended
            self.leave()


class Jobs:
    """Seats and workers.  A seat is taken before a picture is read from the network, and free when its work has ended.

    Parameters
    ----------
    n_running, n_waiting : int
    seconds : float
        That a job may run.
    """

    def __init__(self, *, n_running: int = 2, n_waiting: int = 4, seconds: float = 120.0) -> None:
        self.n_running, self.n_waiting, self.seconds = n_running, n_waiting, seconds
        self._workers = ThreadPoolExecutor(n_running, thread_name_prefix="diffcls-web")
        self._n_taken, self._lock = 0, threading.Lock()

    def take_seat(self) -> None:
        """Gives one that `free_seat` or the end of a job frees.

        Raises
        ------
        BusyError
        """
        with self._lock:
            if self._n_taken >= self.n_running + self.n_waiting:
                raise BusyError(
                    f"busy: {self.n_running} pictures are being classified and {self.n_waiting} wait; "
                    "try again in a moment"
                )
            self._n_taken += 1

    def free_seat(self) -> None:
        with self._lock:
            self._n_taken -= 1

    def start(self, work: Callable[[Job], Iterator[Event]]) -> Job:
        """A job for a taken seat."""
        job = Job(self.seconds)
        self._workers.submit(job.run, work).add_done_callback(lambda _: self.free_seat())
        return job

    def close(self) -> None:
        """Waiting jobs are dropped; running ones end when their browsers are gone."""
        self._workers.shutdown(wait=False, cancel_futures=True)
