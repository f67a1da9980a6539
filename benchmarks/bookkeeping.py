"""What does the bookkeeping of one ImageNet-sized image cost: 1,000 classes, the published stages, 124,500 rows?

The denoiser is free (it answers an array that exists already) and images have one element, so that noise and error
arithmetic are next to nothing: the whole image's time is an upper bound.  `race` is the same image replayed from a table of
errors: rounds, caps and result, without batches.  Target: 20 ms for the image.
"""

from __future__ import annotations

import time

import common
import numpy as np

import diffcls
from diffcls import _core
from diffcls.core_types import ReplayResult
from diffcls.policies import Terms, lower, paper
from diffcls.threads import backend

BATCH, K = 2048, 1000


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    diffcls.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    answer = rng.random((BATCH, 1)).astype(np.float32)
    schedule = diffcls.Schedule.scaled_linear()
    denoiser = diffcls.Denoiser(lambda x_t, t, cond: answer[: len(t)], shape=(1,), schedule=schedule, n_classes=K)
    classifier = diffcls.Classifier(denoiser, policy=paper("imagenet"), batch_size=BATCH)
    x, table = np.zeros(1, np.float32), rng.random((1, K, K))
    lowered = lower(paper("imagenet"), Terms(n_classes=K, n_timesteps=len(schedule), weighting=None))

    def race() -> ReplayResult:
        return _core.replay(
            table, columns=np.arange(K), n_classes=K, class_of_arm=np.arange(K), cost_of_arm=np.ones(K, np.int64),
            trials=lowered.trials, policy=lowered.policy, backend=backend(),
        )  # fmt: skip

    assert classifier(x).n_evals == race()["n_evals"][0] == 124_500
    calls = {"image": lambda: classifier(x), "race": race}
    times = common.measure(calls, repeats=options.repeats, clock=time.thread_time, seed=options.seed)
    image, alone = times.median("image") * 1e3, times.median("race") * 1e3
    results = [{"image_ms": image, "race_ms": alone, "image_ns_a_row": image * 1e6 / 124_500, "rows": 124_500}]
    common.record("bookkeeping", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
