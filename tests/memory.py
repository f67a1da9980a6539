"""Does memory grow?  Calls of every kind, good and refused, one after another; after a warm-up the process may gain 1 MB.

    python tests/memory.py --calls 100000

Prints what it gained and ends with 1 if that is a megabyte or more.  Not for a sanitized build: its quarantine grows.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gaussian import GaussianClasses

import diffcls
from diffcls import Fixed
from diffcls.models import demo_pictures

LIMIT = 1 << 20
WARM_UP = 1000


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Foreign:
    """An array of another library: DLPack is all that it has."""

    def __init__(self, array):
        self.shape, self.__array = array.shape, array

    def __dlpack_device__(self):
        return self.__array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.__array.__dlpack__(**options)


def refused(call: Callable[[], object], error: type[Exception]) -> Callable[[], object]:
    def work() -> None:
        try:
            call()
        except error:
            return
        raise AssertionError(f"no {error.__name__}")

    return work


def kinds() -> list[Callable[[], object]]:
    """One function a kind of call."""
    gaussian = GaussianClasses(n_classes=5, dimension=12, seed=3)
    x = gaussian.sample([1, 2, 3], np.random.default_rng(0))
    picture = demo_pictures.load()[0][0]
    good = diffcls.Classifier(gaussian.denoiser(), policy=Fixed(2))
    bad = diffcls.Classifier(
        diffcls.Denoiser(lambda *_: None, shape=(12,), schedule=gaussian.schedule, n_classes=5), policy=Fixed(2)
    )
    foreign = diffcls.Classifier(
        diffcls.Denoiser(
            lambda *arrays: Foreign(gaussian.predict(*arrays)), shape=(12,), schedule=gaussian.schedule, n_classes=5
        ),
        policy=Fixed(2),
    )
    native = diffcls.Classifier(None, ["digit seven", "ankle boot"], policy=Fixed(1))
    table = good.error_table(x, n_samples=4)
    weights = b"\x02\0\0\0\0\0\0\0{}"
    return [
        lambda: good(x[0]),
        lambda: list(good.stream(x)),
        lambda: diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(1), keep_errors=True).to_dict(),
        lambda: native(picture),
        lambda: diffcls.replay(table, Fixed(4)),
        lambda: diffcls.ops.normal(500, seed=1, index=2),
        lambda: diffcls.ops.eps_error(diffcls.ops.add_noise(x, 0.8, 0.6, seed=1, index=2, timestep=3), x),
        lambda: foreign(Foreign(x[0])),
        lambda: diffcls.ops.eps_error(Foreign(x), Foreign(x)),
        refused(lambda: diffcls.ops.eps_error(Foreign(x.astype(complex)), x), diffcls.DTypeError),
        refused(lambda: diffcls.ops.eps_error(Foreign(np.zeros(3, "U1")), Foreign(x[:, 0])), diffcls.DTypeError),
        refused(lambda: bad(x[0]), diffcls.DenoiserError),
        refused(lambda: good(x[:, :5]), diffcls.ShapeError),
        refused(lambda: diffcls.ops.eps_error(x, x.astype(complex)), diffcls.DTypeError),
        refused(lambda: diffcls._core.DiT(weights, {}), ValueError),
    ]


def growth(calls: int) -> int:
    """Bytes gained by so many calls after a warm-up."""
    endless = itertools.cycle(kinds())
    for call in itertools.islice(endless, WARM_UP):
        call()
    gc.collect()
    before = resident()
    for call in itertools.islice(endless, calls):
        call()
    gc.collect()
    return resident() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    calls = parser.parse_args().calls
    warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)  # one trial of a picture says little
    gained = growth(calls)
    print(f"{calls} calls: {gained / 1024:.0f} KiB gained, {LIMIT // 1024} allowed")
    return int(gained >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
