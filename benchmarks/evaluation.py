"""What does an evaluation over a data set cost an image, and does its memory grow with their number?

The denoiser is free (it answers an array that exists already), images have one element and two classes get one trial each:
what is timed is the stream of images, the classification's own bookkeeping, the journal and the parts, merging and the
report.  Disk and file system are those of `--folder`.  Target: 10,000 images a second, under 1 GB for a million.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np

import diffcls

BATCH = 64


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    diffcls.set_num_threads(1)
    answer = np.random.default_rng(options.seed).random((BATCH, 1)).astype(np.float32)
    denoiser = diffcls.Denoiser(
        lambda x_t, t, cond: answer[: len(t)], shape=(1,), schedule=diffcls.Schedule.linear(), n_classes=2
    )
    classifier = diffcls.Classifier(denoiser, policy=diffcls.Fixed(1), batch_size=BATCH)
    x_start, results = np.zeros(1, np.float32), []
    for n in sizes:
        folder = Path(tempfile.mkdtemp())
        try:
            start = time.perf_counter()
            report = diffcls.evaluate(classifier, ((x_start, i & 1) for i in range(n)), out=folder / "out")
            seconds = time.perf_counter() - start
            assert report.n_images == n
            again = time.perf_counter()
            diffcls.evaluate(classifier, ((x_start, i & 1) for i in range(n)), out=folder / "out")
            again = time.perf_counter() - again
        finally:
            shutil.rmtree(folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of the process, so far
        results.append({"images": n, "images_a_second": n / seconds, "again_a_second": n / again, "peak_mb": peak})
        print(results[-1], file=sys.stderr)
    common.record("evaluation", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
