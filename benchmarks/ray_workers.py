"""How much faster are two Ray workers than one, for a load that the denoiser bounds?

Workers have a core each and compute on one thread; the denoiser multiplies matrices for a few milliseconds a batch.  Timed is
from the first shard's start to the last one's end, as the shards' logs say: not Ray's own start, which happens once.  Needs two
idle cores and the extra `ray`.  Target: 1.9.
"""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from pathlib import Path

import common
import numpy as np
import ray

import diffcls
import diffcls.ray

IMAGES, SHARDS = 3_200, 8


def make() -> diffcls.Classifier:
    """A denoiser of some milliseconds a batch of 64."""
    weight = np.random.default_rng(0).standard_normal((1024, 1024), np.float32) / 32

    def predict(x_t, t, cond):
        hidden = x_t
        for _ in range(2):
            hidden = np.tanh(hidden @ weight)
        return hidden

    denoiser = diffcls.Denoiser(
        predict, shape=(1024,), schedule=diffcls.Schedule.linear(), n_classes=4, name="matrices"
    )
    return diffcls.Classifier(denoiser, policy=diffcls.Fixed(16), batch_size=64)


def seconds(workers: int, x_start: np.ndarray) -> float:
    """From the first start to the last end."""
    out = Path(tempfile.mkdtemp())
    try:
        diffcls.ray.evaluate(make, x_start, out=out / "out", workers=workers, shards=SHARDS)
        lines = [json.loads(line) for log in out.glob("out/shard-*/log.jsonl") for line in log.read_text().splitlines()]
    finally:
        shutil.rmtree(out)
    times = {
        event: [datetime.datetime.fromisoformat(line["time"]) for line in lines if line["event"] == event]
        for event in ("start", "done")
    }
    return (max(times["done"]) - min(times["start"])).total_seconds()


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    one_thread = {"env_vars": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False, runtime_env=one_thread)
    x_start = np.random.default_rng(options.seed).standard_normal((IMAGES, 1024), np.float32)
    seconds(2, x_start)  # imports, and Ray's own worker processes
    pairs = [(seconds(1, x_start), seconds(2, x_start)) for _ in range(max(3, options.repeats // 4))]
    ratios = sorted(one / two for one, two in pairs)
    results = [
        {
            "one_seconds": float(np.median([one for one, _ in pairs])),
            "two_seconds": float(np.median([two for _, two in pairs])),
            "ratio_median": float(np.median(ratios)),
            "ratio_low": ratios[0],
            "ratio_high": ratios[-1],
            "pairs": len(pairs),
        }
    ]
    common.record("ray_workers", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
