"""How long does a sweep of 100 policies over 1,000 images x 10 classes x 500 trials take?

One call a policy: all images of the table, shared out over two threads, from a memory-mapped file.  The same on one thread
tells what the threads bring.  The peer is the race as plain NumPy (`diffcls.reference_race`), on a few images; both decide
alike before they are timed.  Target: 60 s for the sweep.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import common
import numpy as np

import diffcls
from diffcls import ErrorTable, Fixed, Race, Staged, _core
from diffcls.policies import lower
from diffcls.reference_race import RaceReference

N, K, S, PEER = 1000, 10, 500, 10


def policies() -> list[diffcls.policies.Policy]:
    """96 races, from the loosest to the strictest, two stagings, two of every trial."""
    grid = product((0.3, 0.1, 0.05, 0.02, 0.005, 0.001), (4, 8, 16, 32), (0, 32), ("default", None))
    races = [Race(risk=risk, n_min=n_min, ramp=ramp, caps=caps) for risk, n_min, ramp, caps in grid]  # type: ignore[arg-type]
    return [*races, Staged((50, 500), (5, 1)), Staged((100, 500), (5, 1)), Fixed(500), Fixed(500)]


def make_table(seed: int) -> ErrorTable:
    """Errors that share a heavy-tailed part, with gaps from clear to hopeless."""
    rng = np.random.default_rng(seed)
    model = diffcls.Denoiser(lambda x, t, c: x, shape=(1,), schedule=diffcls.Schedule.linear(), n_classes=K)
    table = diffcls.Classifier(model).error_table(np.zeros((1, 1)), n_samples=S)
    shared = rng.gamma(2.0, size=(N, 1, S))
    gaps = rng.exponential(0.2, (N, K, 1))
    errors = 1.0 + shared * (1.0 + gaps + 0.3 * rng.standard_normal((N, K, S)))
    return replace(table, errors=errors)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    sweep = policies()
    assert len(sweep) == 100
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.arrow"
        make_table(options.seed).save(path)
        table = ErrorTable.load(path)
        results = diffcls.replay(table, Race())

        def peer() -> list[RaceReference]:
            lowered = lower(Race(), table.terms(None))
            weight = lowered.trials["weight"]
            return [
                RaceReference(errors, weight, lowered.policy, lambda p, df: _core.student_isf(p, df), range(K)).run()
                for errors in table.errors[:PEER]
            ]

        for twin, result in zip(peer(), results, strict=False):
            assert twin.leader() == result.index and twin.n_evals == result.n_evals
        seconds = {}
        for threads in (1, 2):
            diffcls.set_num_threads(threads)
            start, cpu = time.perf_counter(), time.process_time()
            evals = [float(diffcls.replay(table, policy).n_evals.mean()) for policy in sweep]
            seconds[threads], cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        one = table.select(images=slice(0, PEER))
        diffcls.set_num_threads(1)
        calls = {"core": lambda: diffcls.replay(one, Race()), "numpy": peer}
        times = common.measure(calls, repeats=options.repeats, clock=time.thread_time, seed=options.seed)
    rows = [
        {
            "sweep_s": seconds[2],
            "sweep_one_thread_s": seconds[1],
            "cpu_ms_a_race": cpu_seconds / (N * len(sweep)) * 1e3,
        },
        {"evals_fewest": min(evals), "evals_most": max(evals)},
        {"numpy_ms_a_race": times.median("numpy") / PEER * 1e3, "times_slower": times.ratio("numpy", "core")["median"]},
    ]
    common.record("replay", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
