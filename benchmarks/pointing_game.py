"""Does the error map point to the thing that two captions disagree about?

The pointing game (Zhang et al., 2018) on pictures of the model ``shapes``, both things of kinds that it was not trained on.  The
true caption is compared with one in which one of the two things has another colour, or another shape; a hit is a map, smoothed
by one pixel, whose largest value (evidence for the true caption) lies in that thing's circle.  A point drawn blindly hits as
often as the circle's share of the picture; "wrong thing" are points in the other one.
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import numpy as np

import diffcls
from diffcls.intervals import wilson
from diffcls.models import shape_pictures as shapes

SMOOTHING = 1.0


def falsified(kind: shapes.Kind, what: str, rng: np.random.Generator) -> shapes.Kind:
    """The thing with another colour, or another shape."""
    values = list(shapes.COLOURS) if what == "colour" else list(shapes.SHAPES)
    values.remove(getattr(kind, what))
    return kind._replace(**{what: values[rng.integers(len(values))]})


def play(model: diffcls.Denoiser, what: str, n: int, n_samples: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    scenes = shapes.sample(rng, n, "test")
    pictures, captions = shapes.draw(scenes), scenes.captions()
    hits, wrong, blind = 0, 0, 0.0
    rows, columns = np.mgrid[: shapes.SIZE, : shapes.SIZE] + 0.5
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        thing = int(rng.integers(2))
        field = ("first", "second")[thing]
        false = caption._replace(**{field: falsified(getattr(caption, field), what, rng)})
        classifier = diffcls.Classifier(model, [str(caption), str(false)], progress=False)
        found = diffcls.error_map(classifier, picture, 0, 1, n_samples=n_samples).spatial(SMOOTHING)
        inside = [
            np.hypot(columns - x, rows - y) <= radius + 0.5
            for (x, y), radius in zip(scenes.centre[i], scenes.radius[i], strict=True)
        ]
        place = np.unravel_index(found.argmax(), found.shape)
        hits += bool(inside[thing][place])
        wrong += bool(inside[1 - thing][place])
        blind += float(inside[thing].mean()) / n
    low, high = wilson(hits, n)
    return {
        "another": what, "pictures": n, "trials": n_samples, "hits": hits / n, "low": low, "high": high,
        "wrong thing": wrong / n, "blind": blind,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    options.repeats = 1
    model = diffcls.load("shapes")
    results = [play(model, what, options.pictures, options.trials, options.seed) for what in ("colour", "shape")]
    common.record("pointing_game", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
