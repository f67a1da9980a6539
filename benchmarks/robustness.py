"""Do noised classifiers (NDC) certify larger radii, and does likelihood maximisation (RDC) undo attacks, as published?

On the embedded model and held-out Fashion-MNIST training pictures, among their own ten classes, in units of [-1, 1].

Certified: the plain classifier of noised inputs and the noised one (EPNDC), smoothed by the same noise, at the same number of
evaluations; an interval is Clopper and Pearson's, of a paired difference the bootstrap's (95 %).  Attacked: PGD on the plain
classifier, and PGD through the likelihood maximisation with the identity as its gradient, as its authors attack.
"""

from __future__ import annotations

import argparse
from typing import Any

import common
import numpy as np
from adaptation import Pictures, compared, right

import diffcls
import diffcls.torch as dt
from diffcls.intervals import clopper_pearson

RADII = (0.0, 0.25, 0.5)


def radii_of(pictures: Pictures, kind: str, options: argparse.Namespace, sigma: float) -> np.ndarray:
    """Certified radius of each picture; 0 where the answer is wrong or none."""
    plain = diffcls.load(prepare=False)
    plain.encode = plain.world = None  # x_start itself
    facts: dict[str, Any] = {"policy": diffcls.Fixed(options.trials), "progress": False, "batch_size": 256}
    if kind == "plain":
        classifier = diffcls.Classifier(plain, pictures.classes, **facts)

        def classify(rows: np.ndarray) -> list[int]:
            return [result.index for result in classifier.stream(list(rows))]
    else:
        classify = diffcls.NoisedClassifier(plain, pictures.classes, sigma=sigma, **facts)
    found = [
        diffcls.certify(classify, x.numpy(), sigma=sigma, n_choose=20, n=options.n, alpha=0.001, seed=options.seed)
        for x in pictures.test[: options.certified]
    ]
    labels = pictures.labels[: options.certified].tolist()
    return np.array([c.radius if c.index == label else 0.0 for c, label in zip(found, labels, strict=True)])


def certified(pictures: Pictures, options: argparse.Namespace, sigma: float) -> list[dict[str, Any]]:
    rows, kept = [], {}
    for kind in ("plain", "EPNDC"):
        kept[kind] = radii = radii_of(pictures, kind, options, sigma)
        for radius in RADII:
            count = int((radii > radius).sum())
            low, high = clopper_pearson(count, len(radii))
            rows.append(
                {
                    "effect": f"certified at L2 {radius}, {kind}, sigma {sigma}, n {options.n}, {options.trials} trials",
                    "accuracy": count / len(radii),
                    "low": low,
                    "high": high,
                    "median radius": float(np.median(radii)),
                    "pictures": len(radii),
                }
            )
    difference = compared(
        f"certified at 0.25, EPNDC instead of plain, sigma {sigma}", kept["plain"] > 0.25, kept["EPNDC"] > 0.25
    )
    return [*rows, difference]


def purified(pictures: Pictures, options: argparse.Namespace, radius: float) -> list[dict[str, Any]]:
    """The classes' mixture is the prior: the embedded model has no null class.  Noise levels are the authors', 0.4 to 0.6."""
    model = pictures.classifier(ids=True, n_samples=options.trials)
    schedule = model.denoiser.schedule
    level = schedule.sigma / schedule.alpha
    timesteps = np.flatnonzero((level > 0.4) & (level < 0.6))
    prior = pictures.classifier(ids=True, timesteps=timesteps[:: max(1, len(timesteps) // 2)][:2])
    x, labels = pictures.test[: options.attacked], pictures.labels[: options.attacked]

    def robust(rows: Any) -> Any:
        return model(dt.maximize_likelihood(prior, rows, low=-1.0, high=1.0))

    attack: dict[str, Any] = {"radius": radius, "n_steps": 5, "low": -1.0, "high": 1.0}
    moved, adaptive = dt.pgd(model, x, labels, **attack), dt.pgd(robust, x, labels, **attack)
    name = f"PGD, linf {radius}"
    return [
        compared("likelihood maximisation (RDC), pictures as they are", right(model, x, labels), right(robust, x, labels)),
        compared(f"RDC after {name} on the plain classifier", right(model, moved, labels), right(robust, moved, labels)),
        compared(f"{name} through RDC against {name} on the plain one", right(model, moved, labels), right(robust, adaptive, labels)),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--certified", type=int, default=20, help="pictures that are certified")
    parser.add_argument("--n", type=int, default=200, help="noised inputs a picture")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--attacked", type=int, default=50, help="pictures that are attacked")
    parser.add_argument("--repeats", type=int, default=1, help="of the whole: always 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    pictures = Pictures(max(options.certified, options.attacked))
    results = purified(pictures, options, 0.1)
    for sigma in (0.25, 0.5, 1.0):
        results += certified(pictures, options, sigma)
    common.record("robustness", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
