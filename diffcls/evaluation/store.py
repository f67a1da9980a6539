"""A folder of results: parts that are whole or absent, and a journal of the part that is being made.

    out/run.json                                            what the run is: written once, checked by whoever comes later
    out/shard-0000-of-0001/part-00000003-<sha256>.parquet   rows 3 P to 4 P - 1 of the shard; named by their own checksum
    out/shard-0000-of-0001/part-00000004.journal            rows of the next part, one line each as they are finished
    out/shard-0000-of-0001/done.json                        the shard is whole: how many images the data set has
    out/shard-0000-of-0001/log.jsonl                        what happened, for machines
    out/results.parquet                                     all shards' rows by position

A part holds the same rows whatever happened on the way, so that the bytes are those of an unbroken run.  A kill loses what
is in flight: a finished row is with the system at once, and on the disk within `SYNC_SECONDS`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from .. import durable
from ..errors import FingerprintMismatchError, InputError, StoreError
from ..fingerprint import Fingerprint, check_same
from ..stored import as_json, read_json, write_json
from . import rows as row_files
from .rows import Row

FORMAT = "diffcls.evaluation"
SYNC_SECONDS = 5.0
"""At most so much work is lost when the power is cut."""


class Kept(NamedTuple):
    """A row that stands in a finished part: its content is not wanted again."""

    id: str
    label: int | None
    error: str | None


class Run(NamedTuple):
    """What `run.json` says."""

    classes: list[str]
    fingerprint: Fingerprint
    record: dict[str, Any]
    n_shards: int
    part_size: int


@contextmanager
def told(out: Path) -> Iterator[None]:
    """The system's complaints as one sentence.

    Raises
    ------
    OSError
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(
            f"results can not be written into {out} ({why}); what is finished stays, and the same call goes on from there"
        ) from error


# ---- the run ---------------------------------------------------------------------------------------------------------


def part_size_of(n_classes: int) -> int:
    """Rows a part, so that it is some tens of megabytes at most."""
    return min(4096, max(64, 2**20 // n_classes))


def claim(out: Path, run: Run, *, resume: bool) -> Run:
    """Makes `out` the folder of this run, or finds that it is.

    Raises
    ------
    FingerprintMismatchError
        It is another run's.
    ValueError
        It is this run's and `resume` is false, or it is cut into another number of shards.
    """
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
        durable.sync(out.parent)
        with open(out / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held for a moment only: shards may start at once
            if not (out / "run.json").exists():
                strangers = sorted(entry.name for entry in out.iterdir() if entry.name != "lock")
                if any(not name.endswith(".tmp") for name in strangers):
                    raise InputError(
                        f"out is {out}, which holds {strangers[0]} and no results; name a new or empty folder"
                    )
                write_json(out / "run.json", as_json({"format": FORMAT, "version": row_files.VERSION, **run._asdict()}))
                return run
    found = load_run(out)
    check_same(
        run.fingerprint, found.fingerprint, f"{out} holds results of another run (name another folder, or remove it)"
    )
    if run.n_shards != found.n_shards:
        raise InputError(f"{out} is cut into {found.n_shards} shards, and shard says {run.n_shards}")
    if not resume and any(out.glob("shard-*/part-*")):
        raise InputError(f"{out} holds results of this run already: resume=True goes on, or name another folder")
    return found


def load_run(out: Path) -> Run:
    """What `out` holds.

    Raises
    ------
    ValueError
        No results, or damaged ones.
    """
    if not (out / "run.json").is_file():
        raise InputError(f"{out} holds no results: it has no run.json")
    content = read_json(out / "run.json", FORMAT, ("version", *Run._fields))
    if content["version"] > row_files.VERSION:
        raise InputError(f"{out} has results of version {content['version']}, this diffcls reads {row_files.VERSION}")
    return Run(*(content[name] for name in Run._fields))


# ---- one shard -------------------------------------------------------------------------------------------------------


def shard_folder(out: Path, index: int, n_shards: int) -> Path:
    return out / f"shard-{index:04d}-of-{n_shards:04d}"


class _Journal(NamedTuple):
    file: IO[bytes]
    key: int


class Shard:
    """One process's part of the folder: rows come as they are finished, and are kept; a part is written when it is whole."""

    def __init__(self, out: Path, run: Run, index: int, *, retry_errors: bool, tell: Any) -> None:
        self.out, self.run, self.index = out, run, index
        self.folder = shard_folder(out, index, run.n_shards)
        self.retry_errors, self.tell = retry_errors, tell
        self.schema = row_files.schema(run.classes, run.fingerprint)
        self.n_rows = self.n_new = 0
        self._open: dict[int, dict[int, Row | Kept]] = {}  # parts that are not whole: rows by place
        self._journals: dict[int, _Journal] = {}
        self._read: tuple[int, dict[int, Row | Kept]] = (-1, {})
        self._synced = time.monotonic()

    @contextmanager
    def locked(self) -> Iterator[Shard]:
        """Nobody else writes here meanwhile; the system lets go of the lock when the process ends, however it does.

        Raises
        ------
        OSError
            Another process does.
        """
        with told(self.out):
            self.folder.mkdir(exist_ok=True)
            durable.sync(self.out)
            lock = open(self.folder / "lock", "a+b")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise StoreError(
                    f"process {lock.read().decode() or 'unknown'} is writing into {self.folder}; wait for it, or share the "
                    "work with shard=(i, n)"
                ) from None
            with told(self.out):
                lock.truncate(0)
                lock.write(b"%d" % os.getpid())
                lock.flush()
                for left in self.folder.glob("*.tmp"):  # of a process that was killed
                    left.unlink()
            try:
                yield self
            finally:
                for journal in self._journals.values():
                    with suppress(OSError):  # a full disk was told of already
                        os.fsync(journal.file.fileno())
                    journal.file.close()

    def known(self, number: int) -> Row | Kept | None:
        """What is stored of the shard's row `number`; asked for in rising order."""
        part, place = divmod(number, self.run.part_size)
        if part != self._read[0]:
            with told(self.out):
                self._read = (part, self._read_part(part))
        return self._read[1].get(place)

    def add(self, number: int, row: Row | Kept, *, new: bool) -> None:
        """The shard's row `number`, once."""
        part, place = divmod(number, self.run.part_size)
        rows = self._open.setdefault(part, {})
        rows[place] = row
        self.n_rows += 1
        if new and isinstance(row, Row):
            self.n_new += 1
            with told(self.out):
                self._write_line(part, row)
        if len(rows) == self.run.part_size:
            self._finish_part(part)

    def finish(self, n_images: int) -> None:
        """There are no more rows; the data set has `n_images`, over all shards.

        Raises
        ------
        FingerprintMismatchError
            The folder holds more.
        """
        numbers = [int(entry.name[5:13]) for entry in self.folder.glob("part-*")]
        beyond = self.known(self.n_rows) is not None or any(n * self.run.part_size >= self.n_rows for n in numbers)
        if beyond:
            raise FingerprintMismatchError(
                f"{self.folder} has rows beyond the {self.n_rows} of this data set, which has {n_images} images: it is another"
            )
        for part in sorted(self._open):  # the last one, if any
            self._finish_part(part)
        with told(self.out):
            write_json(self.folder / "done.json", {"format": FORMAT, "n_images": n_images, "n_rows": self.n_rows})

    # ---- below the surface ----

    def _read_part(self, part: int) -> dict[int, Row | Kept]:
        """Rows of a part by place: of its file, and of the journal, which is younger."""
        found: dict[int, Row | Kept] = {}
        journal, end = read_journal(self._journal_path(part), journal_key(self.run, self.index, part))
        if end is not None:
            os.truncate(self._journal_path(part), end)  # a line that was cut off
        for path in sorted(self.folder.glob(f"part-{part:08d}-*.parquet")):
            content = path.read_bytes()
            if not path.name.endswith(f"-{checksum(content)}.parquet"):
                self.tell("damaged", part=part, file=path.name)
                path.unlink()
                continue
            found = self._rows_of(content, path.name, whole_rows=bool(journal))
        for row in journal:
            found[self._place(row)] = row
        if self.retry_errors:
            found = {place: row for place, row in found.items() if row.error is None}
        return found

    def _place(self, row: Row) -> int:
        return row.position // self.run.n_shards % self.run.part_size

    def _rows_of(self, content: bytes, name: str, *, whole_rows: bool) -> dict[int, Row | Kept]:
        """By place; of a full part that nothing will be changed in, ids and labels are enough."""
        pa = row_files.pyarrow()
        file = pa.parquet.ParquetFile(pa.BufferReader(content))
        row_files.check_own(file.schema_arrow, self.schema, f"{self.folder / name}")
        table = file.read(["id", "label", "error"], **row_files.ALONE)
        retry = self.retry_errors and table.column("error").null_count < len(table)
        if len(table) == self.run.part_size and not retry and not whole_rows:
            at = {name: i for i, name in enumerate(self.run.classes)}
            ids, names, errors = (table.column(name).to_pylist() for name in ("id", "label", "error"))
            labels = (None if name is None else at[name] for name in names)
            return dict(enumerate(map(Kept, ids, labels, errors)))
        return dict(enumerate(row_files.from_table(file.read(**row_files.ALONE), self.run.classes)))

    def _journal_path(self, part: int) -> Path:
        return self.folder / f"part-{part:08d}.journal"

    def _write_line(self, part: int, row: Row) -> None:
        journal = self._journals.get(part)
        if journal is None:
            file = open(self._journal_path(part), "ab", buffering=0)
            journal = self._journals[part] = _Journal(file, journal_key(self.run, self.index, part))
            durable.sync(self.folder)
        line = row_files.to_line(row, journal.key)
        while line:  # a full disk takes a part of it, and refuses the rest
            line = line[journal.file.write(line) :]
        now = time.monotonic()
        if now - self._synced > SYNC_SECONDS:
            for journal in self._journals.values():
                os.fsync(journal.file.fileno())
            self._synced = now

    def _finish_part(self, part: int) -> None:
        rows = self._open.pop(part)
        with told(self.out):
            whole = [row for _, row in sorted(rows.items()) if isinstance(row, Row)]
            if len(whole) == len(rows):
                self._write_part(part, whole)
            if part in self._journals:
                self._journals.pop(part).file.close()
            self._journal_path(part).unlink(missing_ok=True)

    def _write_part(self, part: int, listed: Sequence[Row]) -> None:
        """Unless its file is there; older files of the part go."""
        table = row_files.to_table(listed, self.schema, self.run.classes)
        content = row_files.to_bytes(table)
        path = self.folder / f"part-{part:08d}-{checksum(content)}.parquet"
        if not path.exists():
            durable.write(path, content)
            self.tell("part", part=part, rows=len(listed), file=path.name)
        for other in self.folder.glob(f"part-{part:08d}-*.parquet"):
            if other != path:
                other.unlink()


def checksum(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def journal_key(run: Run, index: int, part: int) -> int:
    """What tells a journal's lines from another's."""
    return zlib.crc32(json.dumps([run.fingerprint, run.n_shards, run.part_size, index, part], sort_keys=True).encode())


def read_journal(path: Path, key: int) -> tuple[list[Row], int | None]:
    """Rows up to the first damaged line, and where that begins; None: there is none, or no journal."""
    found: list[Row] = []
    if not path.is_file():
        return found, None
    end = 0
    with open(path, "rb") as file:
        for line in file:
            row = row_files.from_line(line, key)
            if row is None:
                return found, end
            found.append(row)
            end += len(line)
    return found, None
