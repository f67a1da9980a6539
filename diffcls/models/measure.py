"""Every figure of the embedded model's card: ``python -m diffcls.models.measure`` (extra ``train``, data sets at hand).

Writes ``digits-and-clothes.measured.json`` beside the model, part by part (a killed run goes on with the missing ones):

accuracy    the 10,000 test pictures of each set, model's own policy, among the set's own ten classes and among all twenty; and
            how true the probabilities are
agreement   1,000 test pictures: does the model's own policy answer as Fixed(500), and for how many evaluations
pictures    1,000 pictures a variant: enlarged, inverted, framed, off-centre, JPEG, coloured, and the same ones clean
world       share of warnings on test pictures (false alarms) and on pictures of other things (the rest are misses)
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diffcls
from diffcls import durable
from diffcls.intervals import wilson

from . import data, pictures, strangers
from .export import HERE, NAME
from .train import as_a_user_might

Part = dict[str, Any]


def score(classifier: diffcls.Classifier, images: Iterable[Any], labels: NDArray[np.int64]) -> Part:
    """Accuracy against class indices, evaluations, probabilities, seconds."""
    began = time.perf_counter()
    results = list(classifier.stream(images))
    seconds = time.perf_counter() - began
    right = int(sum(result.index == label for result, label in zip(results, labels, strict=True)))
    evals = np.array([result.n_evals for result in results])
    curve = diffcls.reliability_curve(results, labels)
    return {
        "n": len(results),
        "accuracy": right / len(results),
        "interval": wilson(right, len(results)),
        "evals_mean": float(evals.mean()),
        "evals_p95": float(np.quantile(evals, 0.95)),
        "confidence": float(np.mean([result.probabilities[result.index] for result in results])),
        "ece": curve.ece,
        "ece_interval": curve.ece_interval,
        "ece_if_calibrated": curve.ece_if_calibrated,
        "warned": float(np.mean([result.unlike_training is True for result in results])),
        "evals_per_second": float(evals.sum() / seconds),
    }


def own_ten(family: int) -> list[str]:
    return list(diffcls.load(NAME).class_names[10 * family : 10 * family + 10])


def accuracy(n: int) -> Part:
    part = {}
    for family, name in enumerate(data.DATASETS):
        images, labels = (array[:n] for array in data.load(name, train=False))
        part[name] = {
            "own ten": score(diffcls.Classifier(NAME, own_ten(family)), images, labels),
            "all twenty": score(diffcls.Classifier(NAME), images, labels + 10 * family),
        }
    return part


def agreement(n: int) -> Part:
    part = {}
    for family, name in enumerate(data.DATASETS):
        images = data.load(name, train=False)[0][: n // 2]
        raced = list(diffcls.Classifier(NAME, own_ten(family)).stream(images))
        full = list(diffcls.Classifier(NAME, own_ten(family), policy=diffcls.Fixed(500)).stream(images))
        same = int(sum(a.index == b.index for a, b in zip(raced, full, strict=True)))
        evals = [sum(result.n_evals for result in results) for results in (raced, full)]
        part[name] = {"n": len(raced), "same": same, "evals": evals, "factor": evals[1] / evals[0]}
    same, n_all = (sum(part[name][key] for name in data.DATASETS) for key in ("same", "n"))
    evals = [sum(part[name]["evals"][i] for name in data.DATASETS) for i in (0, 1)]
    part["both"] = {"n": n_all, "same": same / n_all, "interval": wilson(same, n_all), "factor": evals[1] / evals[0]}
    return part


def variants(n: int) -> Part:
    part: Part = {}
    for family, name in enumerate(data.DATASETS):
        images, labels = (array[:n] for array in data.load(name, train=False))
        classifier = diffcls.Classifier(NAME, own_ten(family))
        part[name] = {"clean": score(classifier, images, labels)}
        for variant, change in pictures.VARIANTS.items():
            rng = np.random.default_rng(0)
            part[name][variant] = score(classifier, (change(image, rng) for image in images), labels)
    return part


def world(n: int) -> Part:
    """Shares of warnings: on test pictures among their own ten, by `Fixed(500)` too; on strangers among all twenty."""
    part: Part = {"false alarms": {}}
    for family, name in enumerate(data.DATASETS):
        images = data.load(name, train=False)[0][:n]
        rng = np.random.default_rng(0)
        asked = {
            "own policy": (images, None),
            "own policy, changed as in training": ([as_a_user_might(image, rng) for image in images], None),
            "Fixed(500)": (images[: max(1, n // 10)], diffcls.Fixed(500)),
        }
        part["false alarms"][name] = {
            question: warned(diffcls.Classifier(NAME, own_ten(family), policy=policy), pictured)
            for question, (pictured, policy) in asked.items()
        }
    classifier = diffcls.Classifier(NAME)
    part["looked at"] = {"photos (CIFAR-10 JPEG)": warned(classifier, data.photos(n))}
    kinds = {"looked at": strangers.LOOKED_AT, "new": strangers.NEW, "arguable": strangers.ARGUABLE}
    for group, makers in kinds.items():
        for name, make in makers.items():
            rng = np.random.default_rng(0)
            part.setdefault(group, {})[name] = warned(classifier, (make(rng) for _ in range(min(n, 200))))
    return part


def warned(classifier: diffcls.Classifier, images: Iterable[Any]) -> Part:
    results = list(classifier.stream(images))
    count = sum(result.unlike_training is True for result in results)
    return {"n": len(results), "warned": count / len(results), "interval": wilson(count, len(results))}


PARTS: dict[str, tuple[Callable[[int], Part], int]] = {
    "pictures": (variants, 1000),
    "agreement": (agreement, 1000),
    "world": (world, 2000),
    "accuracy": (accuracy, 10000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--limit", type=int, default=10**9, help="at most so many pictures a part, for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / f"{NAME}.measured.json")
    parser.add_argument("--again", action="store_true", help="measure parts that are there already")
    options = parser.parse_args()
    diffcls.set_num_threads(options.threads)
    warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)
    measured: Part = json.loads(options.out.read_text()) if options.out.exists() else {}
    digest = diffcls.load(NAME).digest
    if measured.get("weights") != digest:
        measured = {"weights": digest}  # figures of other weights are not figures of these
    measured["run"] = {
        "version": diffcls.__version__,
        "machine": platform.machine(),
        "seed": 0,
        "threads": options.threads,
    }
    for name in options.parts:
        if name in measured and not options.again:
            continue
        function, n = PARTS[name]
        measured[name] = function(min(n, options.limit))
        durable.write(options.out, json.dumps(measured, indent=1).encode())
        print(name, json.dumps(measured[name]), flush=True)


if __name__ == "__main__":
    main()
