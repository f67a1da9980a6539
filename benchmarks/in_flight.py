"""Do 64 images in flight fill the batches, and what do they save against one image at a time?  Losses must be bit-equal.

The embedded model's default race over the bundled pictures, four times over.  Target: batch fill of 97 % or more.
"""

from __future__ import annotations

import time
import warnings

import common
import numpy as np

import diffcls
from diffcls.models import demo_pictures


def run(classifier: diffcls.Classifier, pictures: np.ndarray, in_flight: int) -> tuple[np.ndarray, dict[str, float]]:
    """(losses (N, K), the loop's statistics): the loop below `Classifier`, with its number of images chosen."""
    loop = classifier.make_loop(in_flight=in_flight)
    losses: dict[int, np.ndarray] = {}
    waiting = list(enumerate(pictures))[::-1]
    while len(losses) < len(pictures):
        while waiting and loop.wants_image():
            tag, picture = waiting.pop()
            loop.add(classifier.denoiser.encode(picture)[0], tag)
        finished = loop.advance(drain=not waiting)
        if finished is not None:
            losses[finished[0]] = finished[1]["losses"]
    return np.stack([losses[i] for i in range(len(pictures))]), loop.stats


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)
    pictures = np.concatenate([demo_pictures.load()[0]] * 4)
    classifier = diffcls.Classifier()
    results, losses = [], {}
    for in_flight in (1, 8, 64):
        began = time.perf_counter()
        losses[in_flight], stats = run(classifier, pictures, in_flight)
        seconds = time.perf_counter() - began
        results.append(
            {
                "in_flight": in_flight,
                "fill": stats["fill"],
                "evals": int(stats["n_evals"]),
                "evals_per_second": stats["n_evals"] / seconds,
                "bit_equal_to_one": bool(np.array_equal(losses[in_flight], losses[1])),
            }
        )
    assert all(row["bit_equal_to_one"] for row in results)
    common.record("in_flight", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
