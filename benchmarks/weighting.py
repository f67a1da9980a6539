"""How much of the uniform weighting's error does fit_weighting take away, with 100 labels and with none?

Judged on models that were trained without a thought of it: runs of ``python -m diffcls.models.train
--discriminative-steps 0 --out RUN``, purely generative, and the networks of other kinds of `weighting_train.py`.  Each data
set's error table (held-out training pictures among their own ten classes, uniform weighting) is split again and again: fitted
on some pictures, judged on all others.  "best range" is uniform over the range of timesteps that is best on the judged pictures
themselves: what no one knows beforehand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import weighting_train

import diffcls
from diffcls.models import data, export
from diffcls.models.registry import EmbeddedModel

N_KNOTS = 11


def tables(run: Path, n_images: int, n_trials: int) -> Iterator[tuple[str, str, diffcls.ErrorTable, np.ndarray]]:
    """Network, pictures, error table and labels, of each data set that a run's networks know."""
    if not (run / "checkpoint.pt").exists():
        for path in sorted(run.glob("*.pt")):
            kind, _, name = path.stem.partition("-")
            images, labels = (part[-n_images:] for part in data.load(name, train=True))
            classifier = diffcls.Classifier(weighting_train.load(path), batch_size=512)
            yield kind, name, classifier.error_table(weighting_train.x_start(images), n_samples=n_trials), labels
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(json.dumps(export.export_weights(run, path.with_suffix(".safetensors"))))
        model = EmbeddedModel(path)
        for family, (images, labels) in enumerate(export.held_out(n_images)):
            classes = model.class_names[10 * family : 10 * family + 10]
            table = diffcls.Classifier(model, classes).error_table(list(images), n_samples=n_trials)
            yield run.name, data.DATASETS[family], table, labels


def error(table: diffcls.ErrorTable, labels: np.ndarray, weights: np.ndarray) -> float:
    """Share of wrong answers under weights (T,) over timesteps."""
    return float(np.mean((table.errors @ weights[table.timesteps]).argmin(axis=1) != labels))


def best_range(table: diffcls.ErrorTable, labels: np.ndarray) -> float:
    edges = np.linspace(0, len(table.schedule), N_KNOTS).astype(int)
    t = np.arange(len(table.schedule))
    return min(
        error(table, labels, ((t >= low) & (t < high)).astype(float))
        for i, low in enumerate(edges)
        for high in edges[i + 1 :]
    )


def judge(table: diffcls.ErrorTable, labels: np.ndarray, n_fitted: int, rng: np.random.Generator) -> dict[str, float]:
    """Errors on the pictures that were not fitted to."""
    order = rng.permutation(len(labels))
    fitted, judged = order[:n_fitted], order[n_fitted:]
    given, rest = (replace(table, errors=table.errors[rows]) for rows in (fitted, judged))
    uniform = np.ones(len(table.schedule))
    return {
        "uniform": error(rest, labels[judged], uniform),
        "best range": best_range(rest, labels[judged]),
        "with labels": error(rest, labels[judged], diffcls.fit_weighting(given, labels[fitted]).weights),
        "without labels": error(rest, labels[judged], diffcls.fit_weighting(given, False).weights),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=400, help="of each data set")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--fitted", type=int, default=100, help="pictures that are fitted to")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)
    results: list[dict[str, Any]] = []
    for run in options.runs:
        for network, name, table, labels in tables(run, options.images, options.trials):
            rng = np.random.default_rng(options.seed)
            splits = [judge(table, labels, options.fitted, rng) for _ in range(options.repeats)]
            errors = {rule: np.array([split[rule] for split in splits]) for rule in splits[0]}
            for rule, of_rule in errors.items():
                results.append({
                    "network": network,
                    "pictures": name,
                    "rule": rule,
                    "error": float(of_rule.mean()),
                    "removed": float(1.0 - of_rule.mean() / errors["uniform"].mean()),
                    "worst harm": float((of_rule - errors["uniform"]).max()),
                })  # fmt: skip
    common.record("weighting", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
