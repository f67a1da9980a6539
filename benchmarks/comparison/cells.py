"""A folder of answers: a cell is what one system answers to one task, and a finished one is not made again."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcls.errors import FingerprintMismatchError, StoreError
from diffcls.fingerprint import check_same
from diffcls.stored import as_json, read_json, write_json

from .tasks import Task

FORMAT, CELL = "diffcls.comparison", "diffcls.comparison.cell"


@dataclass(frozen=True, eq=False)
class Answers:
    """(N,) places among the candidates, and denoiser evaluations of each picture where that is the price."""

    prediction: NDArray[np.int64]
    n_evals: NDArray[np.int64] | None = None


def among(scores: NDArray[Any], names: Sequence[str], task: Task) -> NDArray[np.int64]:
    """(N,) best candidate of each picture by scores (N, C) of named classes."""
    place = {name: i for i, name in enumerate(names)}
    prediction = np.empty(len(task), np.int64)
    for candidates, rows in task.groups():
        columns = [place[name] for name in candidates]
        prediction[rows] = scores[np.ix_(rows, columns)].argmax(axis=1)
    return prediction


class Cells:
    """Cells of one run.

    Parameters
    ----------
    out : path
        Its folder; a new one is made.
    fingerprint : dict of str
        What the answers depend on beside the tasks.

    Raises
    ------
    FingerprintMismatchError
        The folder is another run's; all that differs is named.
    """

    def __init__(self, out: Path, fingerprint: dict[str, str]) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        run = out / "run.json"
        if run.exists():
            found = read_json(run, FORMAT, ("fingerprint",))["fingerprint"]
            check_same(fingerprint, found, f"{out} holds another run's answers")
        else:
            write_json(run, {"format": FORMAT, "fingerprint": fingerprint})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time works in the folder.

        Raises
        ------
        OSError
            Another one does.
        """
        with open(self.out / "lock", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"another process makes the table in {self.out}; wait for it or name another folder"
                ) from None
            yield

    def folder(self, system: str, task: str) -> Path:
        return self.out / "cells" / _slug(system) / _slug(task)

    def done(self, system: str, task: Task) -> bool:
        """The cell is finished.

        Raises
        ------
        FingerprintMismatchError
            It is of other pictures.
        """
        return self._read(system, task) is not None

    def get(self, system: str, task: Task) -> tuple[Answers, dict[str, Any]]:
        """Answers and facts of a finished cell."""
        cell = self._read(system, task)
        assert cell is not None
        n_evals = cell["n_evals"]
        prediction = np.array(cell["prediction"], np.int64)
        return Answers(prediction, None if n_evals is None else np.array(n_evals, np.int64)), cell["facts"]

    def make(self, system: str, task: Task, answer: Callable[[Task, Path], Answers], facts: dict[str, Any]) -> None:
        """Answers a task, unless that was done before; what a killed system left in the cell's folder is there for it."""
        if self.done(system, task):
            return
        folder = self.folder(system, task.name)
        folder.mkdir(parents=True, exist_ok=True)
        answers = answer(task, folder)
        cell = {
            "format": CELL,
            "system": system,
            "task": task.name,
            "digest": task.digest,
            "facts": facts,
            "prediction": answers.prediction,
            "n_evals": answers.n_evals,
        }
        write_json(folder / "cell.json", as_json(cell))

    def _read(self, system: str, task: Task) -> dict[str, Any] | None:
        path = self.folder(system, task.name) / "cell.json"
        if not path.exists():
            return None
        cell = read_json(path, CELL, ("digest", "facts", "prediction", "n_evals"))
        if cell["digest"] != task.digest:
            raise FingerprintMismatchError(f"{path} answers other pictures than those of {task.name!r} today")
        return cell


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()
