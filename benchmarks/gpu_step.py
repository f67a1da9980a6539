"""What does a step cost the host, and does anything in it wait for the device?  Target: 20 us with graphs, no synchronisation.

A denoiser of one small kernel, so that the host is what takes time: microseconds a batch of a long run, call by call and with
recorded steps.  The profiler's trace of the same run counts what the runtime was asked: a batch waits for the batch before the
last by its event, and nothing else waits, allocates or copies from memory that is not pinned.
"""

from __future__ import annotations

from typing import Any

import gpu_common
import numpy as np
from gpu_common import SCHEDULE, Place

import diffcls

SHAPE, CLASSES, BATCH, BATCHES = (4, 32, 32), 8, 64, 400
FORBIDDEN = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMalloc", "cudaFree", "cudaMemcpy", "cudaHostAlloc")


def main() -> None:
    options = gpu_common.arguments(__doc__.splitlines()[0])
    place, n_batches = Place(options), BATCHES if options.device != "cpu" else 4
    rows: list[dict[str, Any]] = []
    image = np.random.default_rng(place.seed).standard_normal(SHAPE).astype(np.float32)
    calls, loops = {}, {}
    for name, graph in (("call by call", False), ("recorded", True)):
        facts = {"schedule": SCHEDULE, "n_classes": CLASSES, "framework": "torch", "device": place.name}
        denoiser = diffcls.Denoiser(lambda x_t, t, cond: 0.5 * x_t, shape=SHAPE, cuda_graph=graph, **facts)
        policy = diffcls.Fixed(n_batches * BATCH // CLASSES)
        classifier = diffcls.Classifier(denoiser, policy=policy, batch_size=BATCH)

        def run(classifier: diffcls.Classifier = classifier) -> object:
            loop = classifier.make_loop()
            loop.add(image, 0)
            return loop.advance(drain=True)

        calls[name] = run
        loops[name] = classifier
    times = place.measure(calls, options.repeats)
    losses = [np.asarray(loops[name](image).losses) for name in calls]
    assert np.allclose(losses[0], losses[1], rtol=1e-6), "recorded steps give other losses"
    for name, call in calls.items():
        _, asked = place.profile(call)
        rows.append(
            {
                "steps": name,
                "host_us_a_step": times.median(name) / n_batches * 1e6,
                "launches_a_step": asked["cudaLaunchKernel"] / n_batches + asked["cudaLaunchKernelExC"] / n_batches,
                "graph_launches_a_step": asked["cudaGraphLaunch"] / n_batches,
                "event_waits_a_step": asked["cudaEventSynchronize"] / n_batches,
                **{f"{function} a run": asked[function] for function in FORBIDDEN},
            }
        )
    gpu_common.record("gpu_step", __doc__.splitlines()[0], rows, options)
    long_run = {row["steps"]: row for row in rows}["recorded"]
    waits = sum(long_run[f"{function} a run"] for function in FORBIDDEN[:2])
    if waits > 40:  # recording and the run's ends wait; a step does not
        raise SystemExit(f"{waits} synchronisations in {n_batches} steps")


if __name__ == "__main__":
    main()
