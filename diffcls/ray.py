"""Evaluation on a Ray cluster: Ray Data's `map_batches` with actors that hold a classifier.  Needs Ray (extra `ray`).

    import diffcls.ray
    report = diffcls.ray.evaluate(classifier, "pictures", out="/shared/results", workers=8, num_gpus=0.5)

Ray schedules, restarts and places; what is finished survives as in `diffcls.evaluate`, and the table has the same bytes.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import arguments
from .classifier import Classifier
from .errors import DiffclsError, DTypeError, InputError, MissingExtraError
from .evaluation.merging import merge_shards
from .evaluation.report import Report
from .evaluation.rows import PER_CLASS
from .evaluation.run import evaluate as evaluate_shard
from .evaluation.sources import UNREADABLE
from .evaluation.store import load_run
from .evaluation.tables import load_bytes
from .threads import set_num_threads

try:
    import ray
    import ray.data
except ImportError:
    raise MissingExtraError("diffcls.ray needs Ray: pip install 'diffcls[ray]'") from None

__all__ = ["BatchClassifier", "evaluate"]

SHARDS_A_WORKER = 4
"""So that a slow or killed worker leaves the others something to do, and little to wait for."""

Batch = dict[str, NDArray[Any]]
Maker = Classifier | Callable[[], Classifier]


def evaluate(
    classifier: Maker,
    dataset: Any,
    *,
    out: str | os.PathLike[str],
    labels: Any = None,
    workers: int | tuple[int, int] = 2,
    shards: int | None = None,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    **options: Any,
) -> Report:
    """`diffcls.evaluate` by several workers: the same folder, the same bytes.

    The data set is cut into shards, more than there are workers; each is a row of a Ray data set, and Ray gives it to a
    worker that is free.  A worker or node that is killed is replaced by Ray, and the new one goes on in the middle of the
    shard.  The cluster's Ray is used where `ray.init` was called or RAY_ADDRESS is set, else one is started here.

    Parameters
    ----------
    classifier : Classifier or callable that makes one
        A callable is called in each worker, once: for models that should not be sent over the network.
    dataset
        As for `diffcls.evaluate`, but no iterator: each worker reads it for itself.  Paths are those of the workers.
    out : path
        A folder that all workers and this process see under one name.
    labels : as for `diffcls.evaluate`
    workers : int or (int, int)
        How many, or at least and at most: Ray then adds and removes.
    shards : int or None
        None: four a worker; or what `out` was started with.
    num_cpus, num_gpus : float
        Of one worker; fractions share a device.  A worker computes on ``num_cpus`` threads, at least one.
    **options
        Of `diffcls.evaluate`: audit, strict, retry_errors, columns, part_size, resume.

    Returns
    -------
    Report

    Raises
    ------
    TypeError, ValueError, OSError
        As `diffcls.evaluate` does; what a worker raised arrives here.
    ImportError
        pyarrow is not installed.
    """
    if not isinstance(classifier, Classifier) and not callable(classifier):
        raise DTypeError(
            f"classifier is {arguments.shown(classifier)}, must be a Classifier or a callable that makes one"
        )
    if isinstance(dataset, Iterator):
        raise DTypeError(
            "dataset is an iterator, which can be read once; each worker reads it: give a list, files or a data set"
        )
    unknown = set(options) & {"shard", "progress"}
    if unknown:
        raise InputError(f"{unknown.pop()} is not an option here: shards are Ray's rows, and it shows the progress")
    smallest, largest = _check_workers(workers)
    out = Path(out).absolute()
    n_shards = _count_shards(out, shards, largest)
    tasks = ray.data.from_items([{"shard": i} for i in range(n_shards)], override_num_blocks=n_shards)
    done = tasks.map_batches(
        ShardWorker,
        fn_constructor_kwargs={
            "classifier": classifier,
            "dataset": dataset,
            "n_shards": n_shards,
            "n_threads": max(1, int(num_cpus)),
            "options": {"out": str(out), "labels": labels, **options},
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )
    for row in done.iter_rows():
        if row["failure"]:
            raise pickle.loads(row["failure"])  # by our own workers; Ray's are raised by Ray
    merge_shards(out)
    return Report.load(out)


class ShardWorker:
    """An actor that holds the classifier and does one shard a call; `evaluate` gives it to Ray."""

    def __init__(
        self, classifier: Maker, dataset: Any, n_shards: int, n_threads: int, options: Mapping[str, Any]
    ) -> None:
        set_num_threads(n_threads)
        self._classifier = classifier if isinstance(classifier, Classifier) else classifier()
        self._dataset, self._n_shards, self._options = dataset, n_shards, options

    def __call__(self, batch: Batch) -> Batch:
        """Rows of shard numbers in; the same, and the error of a shard that failed: Ray's own way keeps its text alone."""
        return {"shard": batch["shard"], "failure": np.array([self._do(int(i)) for i in batch["shard"]], object)}

    def _do(self, index: int) -> bytes:
        try:
            evaluate_shard(
                self._classifier, self._dataset, shard=(index, self._n_shards), progress=False, **self._options
            )
        except DiffclsError as error:
            return pickle.dumps(error)
        return b""


class BatchClassifier:
    """For pipelines of one's own: a classifier over batches of a Ray data set.

    It is given to Ray Data::

        images = ray.data.read_images("pictures", include_paths=True)
        images.map_batches(
            diffcls.ray.BatchClassifier,
            fn_constructor_kwargs={"prompts": ["ankle boot", "sandal"]},
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_size=64,
            num_gpus=0.5,
        )

    Parameters
    ----------
    model, prompts, **options
        Of `Classifier`; `model` may be a `Classifier` itself, or a callable that makes one.
    column : str
        With the images: arrays, pictures' files as bytes, or paths.

    Raises
    ------
    ValueError, TypeError, RuntimeError, ImportError
        As `Classifier`.

    Notes
    -----
    A batch comes back without the images and with `prediction` (the class's name, None where the image could not be read),
    `losses`, `stderr`, `excess`, `probabilities`, `n_trials`, `alive` (each (B, K)), `n_evals`, `p_disagree`, `status` and
    `error`.  Answers depend neither on the batch nor on the worker.
    """

    def __init__(self, model: Any = None, prompts: Any = None, *, column: str = "image", **options: Any) -> None:
        made = model() if callable(model) and not isinstance(model, Classifier) else model
        self._classifier = made if isinstance(made, Classifier) else Classifier(made, prompts, **options)
        self._column = column

    def __call__(self, batch: Batch) -> Batch:
        """
        Raises
        ------
        ValueError
            The batch has no such column.
        """
        if self._column not in batch:
            raise InputError(f"the batch has {', '.join(batch)}, and no column {self._column!r}")
        classifier, images = self._classifier, batch[self._column]
        n, k = len(images), len(classifier.classes)
        errors: list[str | None] = [None] * n
        encoded, places = [], []
        for i, image in enumerate(images):
            try:
                encoded.append(classifier.encode(load_bytes(image, f"image {i} of the batch"), i))
                places.append(i)
            except MissingExtraError:
                raise
            except UNREADABLE as error:
                errors[i] = str(error) or type(error).__name__
        found: Batch = {
            "prediction": np.full(n, None, object),
            **{name: np.full((n, k), np.nan) for name in PER_CLASS[:4]},
            "n_trials": np.zeros((n, k), np.int64),
            "alive": np.zeros((n, k), bool),
            "n_evals": np.zeros(n, np.int64),
            "p_disagree": np.full(n, np.nan),
            "status": np.full(n, None, object),
            "error": np.array(errors, object),
        }
        for i, result in zip(places, classifier.classify_encoded(encoded), strict=True):
            found["prediction"][i] = result.label
            for name in (*PER_CLASS, "n_evals", "p_disagree", "status"):
                found[name][i] = getattr(result, name)
        return {name: column for name, column in batch.items() if name != self._column} | found


def _check_workers(workers: Any) -> tuple[int, int]:
    """
    Raises
    ------
    ValueError
        Neither a positive integer nor two of them that rise.
    """
    if isinstance(workers, (tuple, list)):
        pair = arguments.integers("workers", workers, at_least=1)
        if len(pair) != 2 or pair[0] > pair[1]:
            raise InputError(f"workers is {arguments.shown(workers)}, must be a number, or (at least, at most)")
        return pair[0], pair[1]
    n = arguments.integer("workers", workers, at_least=1)
    return n, n


def _count_shards(out: Path, shards: int | None, workers: int) -> int:
    if shards is not None:
        return arguments.integer("shards", shards, at_least=1)
    if (out / "run.json").exists():
        return load_run(out).n_shards
    return min(SHARDS_A_WORKER * workers, 9999)
