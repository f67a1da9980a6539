"""What does the bookkeeping of one ImageNet-sized image cost: 1,000 classes, the published stages, 124,500 rows?

The denoiser is free (it answers an array that exists already), images have one element, so noise and error arithmetic are
next to nothing; they are measured alone, through the same core, and taken away.  Target: 20 ms.
"""

from __future__ import annotations

import time

import common
import numpy as np

import diffcls

BATCH = 2048


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    diffcls.set_num_threads(1)
    answer = np.random.default_rng(options.seed).random((BATCH, 1)).astype(np.float32)
    denoiser = diffcls.Denoiser(
        lambda x_t, t, cond: answer[: len(t)], shape=(1,), schedule=diffcls.Schedule.scaled_linear(), n_classes=1000
    )
    classifier = diffcls.Classifier(denoiser, policy=diffcls.policies.paper("imagenet"), batch_size=BATCH)
    x = np.zeros(1, np.float32)
    assert classifier(x).n_evals == 124_500
    rows = np.zeros((124_500, 1), np.float32)
    index, timestep = np.arange(len(rows)) // 1000, np.arange(len(rows)) // 1000

    def arithmetic() -> None:
        diffcls.ops.add_noise(rows, 0.8, 0.6, seed=0, index=index, timestep=timestep)
        diffcls.ops.eps_error(rows, rows)

    calls = {"image": lambda: classifier(x), "arithmetic": arithmetic}
    times = common.measure(calls, repeats=options.repeats, clock=time.thread_time, seed=options.seed)
    image, alone = times.median("image") * 1e3, times.median("arithmetic") * 1e3
    results = [{"image_ms": image, "arithmetic_ms": alone, "bookkeeping_ms": image - alone, "rows": 124_500}]
    common.record("bookkeeping", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
