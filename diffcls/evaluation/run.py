"""`evaluate`: a classifier over a data set, into a folder that survives whatever happens."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _core, arguments
from ..classifier import Classifier
from ..errors import (
    DTypeError,
    FingerprintMismatchError,
    InputError,
    MissingExtraError,
    NonFiniteError,
    ScorerError,
    StoreError,
)
from ..fingerprint import run_fingerprint
from ..in_flight import Encoded
from ..policies import Lowered, every_trial
from ..result import Result
from .labelling import Labelling
from .merging import merge_shards
from .progress import Log, Meter, Progress, open_show
from .report import Report
from .rows import Row, row_of, storable
from .sources import UNREADABLE, Columns, Source, open_source
from .store import Kept, Run, Shard, claim, part_size_of

__all__ = ["Progress", "evaluate"]


def evaluate(
    classifier: Classifier,
    dataset: Any,
    *,
    out: str | os.PathLike[str],
    labels: Any = None,
    resume: bool = True,
    shard: tuple[int, int] = (0, 1),
    columns: Columns | None = None,
    audit: float = 0.0,
    strict: bool = False,
    retry_errors: bool = False,
    part_size: int | None = None,
    progress: Any = None,
) -> Report:
    """Classify a data set into the folder `out`; killed at any moment, the same call goes on where it was.

    Parameters
    ----------
    classifier : Classifier
    dataset
        A folder with one folder of pictures a class (or of pictures alone); a folder or file of Parquet with the bytes of
        images; of WebDataset tar; an .npz; an array (N, ...), a pair (images, labels) of arrays, a mapping of them; a
        Hugging Face `datasets.Dataset` or `IterableDataset`; anything with ``[i] -> (image, target)``, as torchvision has
        it; an iterable of images, (image, label), (id, image, label) or mappings {"id", "image", "label"}.  It is read from
        the front, and must give the same images in the same order when the run goes on.
    out : path
        Folder of results: ``results.parquet`` (a row an image, in order), ``run.json``, and one folder a shard with its parts
        and ``log.jsonl``.
    labels : None, False, "index", mapping or sequence
        None: the data set's own, names or positions in the classes.  "index": its numbers are positions, whatever it
        calls them.  A mapping of its labels to classes.  One an image, in order.  False: predictions only.
    resume : bool
        False: `out` must hold nothing yet.
    shard : (int, int)
        (i, n): only images i, i + n, i + 2 n, ...  Shards may run at once, in one folder; `merge_shards` joins them, and
        so does the last one to end.
    columns : mapping or None
        Which column is "image", "label", "id", where the data set's names are others.
    audit : float
        Share of the images that are run to the full pool too; the report then says how often it answers differently.
    strict : bool
        An image that can not be read stops the run.  Else it is a row with an error, and counts as no answer.
    retry_errors : bool
        Images that had an error are tried again.
    part_size : int or None
        Rows a part; None: some tens of megabytes.
    progress : None, bool or callable(Progress)
        None: a bar on a terminal or in a notebook.

    Returns
    -------
    Report
        Of this shard alone, as long as others are not done.

    Raises
    ------
    FingerprintMismatchError
        `out` holds another run's results, or those of other images; the message names what differs.
    OSError
        `out` can not be written, or another process writes there.
    TypeError, ValueError
        The data set, its labels or an option make no sense; it has no images; an id stands twice; a shortlist's scorer gives
        something else than numbers.
    ImportError
        pyarrow is not installed.
    """
    if not isinstance(classifier, Classifier):
        raise DTypeError(f"classifier is {arguments.shown(classifier)}, must be a diffcls.Classifier")
    out, (index, n_shards) = Path(out), check_shard(shard)
    audit = arguments.number("audit", audit, "a number from 0 to 1", lambda x: 0.0 <= x <= 1.0)
    classes, shortlist = classifier.classes, classifier.shortlist
    if part_size is not None:
        part_size = arguments.integer("part_size", part_size, at_least=1)
    source = open_source(dataset, columns)
    labelling = Labelling(labels, classes, source)
    run = Run(
        classes,
        run_fingerprint(classifier, audit=audit),
        {
            **classifier.run,
            "max_evals": classifier.max_evals,
            **({} if shortlist is None else {"shortlist": shortlist.to_dict()}),
        },
        n_shards,
        part_size or part_size_of(len(classes)),
    )
    run = claim(out, run, resume=resume)
    with open_show(progress, f"shard {index} of {n_shards}" if n_shards > 1 else "images") as show:
        log: Any = None
        store = Shard(out, run, index, retry_errors=retry_errors, tell=lambda event, **facts: log.write(event, **facts))
        with store.locked():
            log = Log(out, store.folder / "log.jsonl")
            n_here = None if source.n_images is None else len(range(index, source.n_images, n_shards))
            meter = Meter(n_here, show, log)
            try:
                log.write("start", pid=os.getpid(), shard=[index, n_shards], n_images=n_here, run=run.fingerprint)
                _Evaluation(classifier, source, labelling, store, meter, log, audit, strict).work()
                log.write("done", images=meter.images, new=meter.new, errors=meter.errors)
            except BaseException as error:
                with suppress(StoreError):  # the disk may be what is wrong
                    log.write("stopped", images=meter.images, new=meter.new, error=f"{type(error).__name__}: {error}")
                raise
            finally:
                meter.close()
                log.close()
    whole = merge_shards(out, missing_ok=True)
    return Report.load(out) if whole else Report.of_shard(out, index)


def check_shard(shard: Any) -> tuple[int, int]:
    """
    Raises
    ------
    ValueError
        Not (i, n) with 0 <= i < n.
    """
    parts = tuple(shard) if isinstance(shard, (tuple, list)) else ()
    if len(parts) == 2 and all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts):
        index, n = map(int, parts)
        if 0 <= index < n <= 9999:
            return index, n
    raise InputError(f"shard is {arguments.shown(shard)}, must be (i, n) with 0 <= i < n, such as (0, 4)")


class _Pending(NamedTuple):
    """An image in flight."""

    number: int  # among the shard's
    position: int
    id: str
    label: int | None
    encoded: Encoded


class _Evaluation:
    """Rows are stored as they are finished: one image that takes long keeps none of the others back."""

    def __init__(
        self,
        classifier: Classifier,
        source: Source,
        labelling: Labelling,
        store: Shard,
        meter: Meter,
        log: Log,
        audit: float,
        strict: bool,
    ) -> None:
        self.classifier, self.source, self.labelling, self.store = classifier, source, labelling, store
        self.meter, self.log, self.strict = meter, log, strict
        self.n_images = 0
        self._pending: dict[int, _Pending] = {}
        self._n_fed = 0  # of this loop
        self._ids: dict[str, int] = {}
        self._failure: Exception | None = None
        self._audited = 2.0**64 * audit
        self._full = Lowered(classifier.trials, every_trial())

    def work(self) -> None:
        feed = self._feed()
        while True:
            self._n_fed = 0
            finished = self.classifier.as_finished(feed, report=partial(self._asked, self.meter.evals))
            try:
                for which, result in finished:
                    pending = self._pending.pop(which)
                    self._add(pending.number, self._row(pending, result), new=True)
                break
            except NonFiniteError:
                self._one_by_one()
        if self._failure is not None:
            raise self._failure
        if self.labelling.listed is not None and len(self.labelling.listed) != self.n_images:
            raise InputError(
                f"labels has {len(self.labelling.listed)} entries, and the data set {self.n_images} images"
            )
        if not self.n_images:
            raise InputError("the data set has no images")
        self.store.finish(self.n_images)

    def _asked(self, before: int, done: int) -> None:
        self.meter.asked(before + done)

    # ---- in ----

    def _feed(self) -> Iterator[Encoded]:
        """What the denoiser is to be asked about.  A failure ends it, so that what is in flight arrives before it is told."""
        try:
            for pending in self._wanted():
                self._pending[self._n_fed] = pending
                self._n_fed += 1
                yield pending.encoded
        except Exception as error:
            self._failure = error

    def _wanted(self) -> Iterator[_Pending]:
        """Images of this shard without a row; whatever needs no denoiser gets its row here."""
        n_shards, index, n_own = self.store.run.n_shards, self.store.index, 0
        for position, item in enumerate(self.source.items()):
            self.n_images, id = position + 1, storable(item.id)
            if item.own:
                first = self._ids.setdefault(id, position)
                if first != position:
                    raise InputError(f"id {id!r} stands twice in the data set, at images {first} and {position}")
            if position % n_shards != index:
                continue
            number, n_own = n_own, n_own + 1
            try:
                raw, read = item.label() if callable(item.label) else item.label, True
            except UNREADABLE:
                raw, read = None, False  # `load` says why
            label, known = self.labelling.of(raw, position), self.store.known(number)
            if known is not None:
                if known.id != id or (known.label != label and read and known.error is None):
                    raise FingerprintMismatchError(self._other_image(position, id, label, known))
                self._add(number, known, new=False)
                continue
            try:
                encoded = self.classifier.encode(item.load(), position)
            except (MissingExtraError, ScorerError):
                raise
            except UNREADABLE as error:
                self._add(number, self._failed(position, id, label, error), new=True)
            else:
                yield _Pending(number, position, id, label, encoded)

    def _other_image(self, position: int, id: str, label: int | None, known: Row | Kept) -> str:
        if known.id != id:
            differs = f"its id is {id!r}, not {known.id!r}"
        else:
            here, there = (None if one is None else self.classifier.classes[one] for one in (label, known.label))
            differs = f"its label is {here!r}, not {there!r}"
        return f"{self.store.out} holds results of another data set: of image {position}, {differs}"

    def _failed(self, position: int, id: str, label: int | None, error: Exception) -> Row:
        if self.strict:
            raise error
        told = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # the same in every process
        said = storable(told) or type(error).__name__
        self.log.write("error", position=position, id=id, error=said)
        return Row(position, id, label, error=said)

    # ---- out ----

    def _row(self, pending: _Pending, result: Result) -> Row:
        full = None
        if self._audited and self._is_audited(pending.position):
            ((_, answer),) = self.classifier.as_finished([pending.encoded], self._full)
            full = answer.index
        return row_of(pending.position, pending.id, pending.label, result, full)

    def _is_audited(self, position: int) -> bool:
        """By a Philox word of the position: whatever the shard, and where the run began again."""
        seed = self.classifier.seed
        word = _core.philox4x32((position & 0xFFFFFFFF, position >> 32, 0, 1), (seed & 0xFFFFFFFF, seed >> 32))
        return word[0] * 2.0**32 + word[1] < self._audited

    def _add(self, number: int, row: Row | Kept, *, new: bool) -> None:
        self.store.add(number, row, new=new)
        n_evals = row.n_evals if isinstance(row, Row) else 0
        self.meter.row(new=new, error=row.error is not None, n_evals=n_evals)

    def _one_by_one(self) -> None:
        """The denoiser gave NaN for one of those in flight: the others keep their answers, which depend on no neighbour."""
        for which in list(self._pending):
            pending = self._pending.pop(which)
            try:
                ((_, result),) = self.classifier.as_finished([pending.encoded])
                row = self._row(pending, result)
            except NonFiniteError as error:
                row = self._failed(pending.position, pending.id, pending.label, error)
            self._add(pending.number, row, new=True)
