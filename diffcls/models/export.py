"""Turn a training run into the embedded model: ``python -m diffcls.models.export RUN`` (extra ``train``).

Writes the averaged weights (float16 safetensors) and the model's json, then fits on the held-out *training* pictures, which
no weight was fitted to: the default weighting over timesteps, the profile of class differences, the temperature of the
probabilities, and the loss above which a picture is called unlike anything the model was trained on.  The test sets are not looked at here.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar

import diffcls

from . import data
from .train import KNOTS, N_HELD_OUT, N_TIMESTEPS
from .vocabulary import synonyms

NAME = "digits-and-clothes"
HERE = Path(__file__).parent
N_CALIBRATION = 12
FALSE_ALARM = 0.01
"""Share of held-out training pictures that the warning may hit."""


def write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def export_weights(run: Path, to: Path) -> dict[str, Any]:
    """Averaged weights as float16 safetensors; returns the model's json without what is fitted."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in state["ema"].items()}
    temporary = to.with_name(to.name + ".tmp")
    save_file(weights, temporary)
    os.replace(temporary, to)
    options = state["options"]
    return {
        "name": NAME,
        "licence": "Apache-2.0",
        "classes": list(synonyms()),
        "synonyms": synonyms(),
        "dit": state["config"],
        "schedule": {"kind": "squaredcos_cap_v2", "n": N_TIMESTEPS},
        "prediction_type": "sample",
        "trained": {
            "steps": state["step"],
            "generative_steps": options["generative_steps"],
            "discriminative_steps": options["discriminative_steps"],
            "batch": options["batch"],
            "seed": options["seed"],
        },
    }


def held_out(n: int) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The last `n` held-out training pictures of each data set, with labels 0 to 9."""
    splits = (data.load(name, train=True) for name in data.DATASETS)
    return [(images[-N_HELD_OUT:][:n], labels[-N_HELD_OUT:][:n]) for images, labels in splits]


def negative_log_likelihood(losses: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    """Mean of -log softmax(-losses / temperature) at the label; losses (N, K)."""
    logits = -losses / temperature
    logits -= logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]))


def fit_temperature(losses: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    best = minimize_scalar(
        lambda log_t: negative_log_likelihood(losses, labels, float(np.exp(log_t))), bounds=(-14, 3), method="bounded"
    )
    return float(np.exp(best.x))


def fit_weighting(table: diffcls.ErrorTable, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights at `KNOTS`, at most 1, of `diffcls.fit_weighting`; those below 2 % are zero, so that no trial falls there."""
    fitted = diffcls.fit_weighting(table, labels, n_knots=len(KNOTS)).weights
    weights = np.interp(KNOTS, np.arange(N_TIMESTEPS), fitted)
    return np.where(weights < 0.02, 0.0, weights)


def cross_validated(table: diffcls.ErrorTable, labels: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy of the uniform and of the fitted weighting, each half judged by the curve of the other half."""
    half = np.arange(len(labels)) % 2 == 0
    right = {"uniform": 0, "fitted": 0}
    for mask in (half, ~half):
        fitted = fit_weighting(replace(table, errors=table.errors[mask]), labels[mask])
        curve = np.interp(table.timesteps, KNOTS, fitted)
        for name, weights in (("uniform", np.ones(len(curve))), ("fitted", curve)):
            right[name] += int(np.sum((table.errors[~mask] @ weights).argmin(axis=1) == labels[~mask]))
    return {name: count / len(labels) for name, count in right.items()}


def measure_profile(n: int) -> dict[str, Any]:
    """Spread of class differences at `KNOTS`, of `n` held-out pictures of each data set among all classes."""
    images = [image for pictures, _ in held_out(n) for image in pictures]
    profile = diffcls.calibrate(diffcls.Classifier(NAME), images)
    spread = np.interp(KNOTS, np.arange(N_TIMESTEPS), profile.spread)
    return {"timesteps": KNOTS.tolist(), "spread": spread.round(4).tolist(), "run": profile.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: the package's own)")
    parser.add_argument("--images", type=int, default=400, help="held-out pictures of each data set for the weighting")
    parser.add_argument("--trials", type=int, default=128)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    description = export_weights(options.run, options.out / f"{NAME}.safetensors")
    json_path = options.out / f"{NAME}.json"
    write_atomically(json_path, json.dumps(description, indent=1))

    tables, labels = [], []
    for family, (images, truth) in enumerate(held_out(options.images)):
        classes = description["classes"][10 * family : 10 * family + 10]
        classifier = diffcls.Classifier(NAME, classes, weighting="uniform", progress=True)
        table = classifier.error_table(list(images), n_samples=options.trials)
        tables.append(table.errors)
        labels.append(truth)
    errors, truth = np.concatenate(tables), np.concatenate(labels)
    both = replace(table, errors=errors)  # classes by position in their own ten
    weights = fit_weighting(both, truth)
    description["weighting"] = {"timesteps": KNOTS.tolist(), "weights": weights.round(4).tolist()}
    description["held_out_accuracy"] = cross_validated(both, truth)
    curve = np.interp(both.timesteps, KNOTS, weights)
    losses = errors @ curve / curve.sum()
    description["temperature"] = fit_temperature(losses, truth)
    winners = losses.min(axis=1)
    description["world"] = {"threshold": float(np.quantile(winners, 1 - FALSE_ALARM)), "quantile": 1 - FALSE_ALARM}
    write_atomically(json_path, json.dumps(description, indent=1))
    description["profile"] = measure_profile(N_CALIBRATION)
    write_atomically(json_path, json.dumps(description, indent=1))
    print(json.dumps({key: description[key] for key in ("weighting", "held_out_accuracy", "temperature", "world")}))


if __name__ == "__main__":
    main()
