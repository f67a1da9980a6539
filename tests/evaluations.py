"""What the tests of `diffcls.evaluate` share: a classifier that costs little, images, and folders of files as bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from gaussian import GaussianClasses

import diffcls
from diffcls.evaluation.rows import from_table
from diffcls.evaluation.store import checksum, journal_key, load_run, read_journal, shard_folder

K = 3
MODEL = GaussianClasses(n_classes=K, dimension=4, seed=5)


def classifier(**options):
    options = {"policy": diffcls.Race(pool=24, n_min=4), "batch_size": 32, **options}
    return diffcls.Classifier(MODEL.denoiser(class_names=["ant", "bee", "cow"]), **options)


def data(n, seed=0):
    """(x_start (n, 4), labels (n,))."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    return MODEL.sample(labels, rng), labels


def results(out):
    return (Path(out) / "results.parquet").read_bytes()


def stored(out, index=0):
    """Rows of a shard that a new process would find, in order; nothing is touched."""
    run = load_run(Path(out))
    folder, found = shard_folder(Path(out), index, run.n_shards), {}
    for path in sorted(folder.glob("part-*.parquet")):
        if path.name[14:30] == checksum(path.read_bytes()):
            found |= {row.position: row for row in from_table(pq.read_table(path), run.classes)}
    found |= {row.position: row for row in journal(out, index)}
    return [found[position] for position in sorted(found)]


def journal(out, index=0):
    """Rows that are in a journal only."""
    run, found = load_run(Path(out)), []
    for path in sorted(shard_folder(Path(out), index, run.n_shards).glob("*.journal")):
        found += read_journal(path, journal_key(run, index, int(path.name[5:13])))[0]
    return found
