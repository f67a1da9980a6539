"""Turn a training run into the embedded model: ``python -m diffcls.models.export RUN`` (extra ``train``).

Writes the averaged weights (float16 safetensors) and the model's json, then fits on the held-out *training* pictures, which
no weight was fitted to: the default weighting over timesteps, the profile of class differences, the temperature of the
probabilities, and what is usual for each class, so that other pictures are warned of (`diffcls.world`).  The test sets are
not looked at here.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

import diffcls
from diffcls.policies import describe
from diffcls.temperature import fit_temperature

from .. import durable
from ..images import to_grey
from ..prepare import prepare
from . import data
from .fit_world import fit_world
from .registry import EmbeddedModel
from .train import KNOTS, N_HELD_OUT, N_TIMESTEPS, as_a_user_might
from .vocabulary import synonyms

NAME = "digits-and-clothes"
HERE = Path(__file__).parent
N_CALIBRATION = 12
FALSE_ALARM = 0.01
"""Share of held-out training pictures, as they are, that the warning may hit."""


def export_weights(run: Path, to: Path) -> dict[str, Any]:
    """Averaged weights as float16 safetensors; returns the model's json without what is fitted."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in state["ema"].items()}
    with durable.replacing(to) as temporary:
        save_file(weights, temporary)
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


def measure_profile(model: diffcls.Denoiser, n: int) -> dict[str, Any]:
    """Spread of class differences at `KNOTS`, of `n` held-out pictures of each data set among all classes."""
    images = [image for pictures, _ in held_out(n) for image in pictures]
    profile = diffcls.calibrate(diffcls.Classifier(model), images)
    spread = np.interp(KNOTS, np.arange(N_TIMESTEPS), profile.spread)
    return {"timesteps": KNOTS.tolist(), "spread": spread.round(4).tolist(), "run": profile.run}


def judgement(model: diffcls.Denoiser, n: int) -> dict[str, Any]:
    """Temperature and `World` of the model's own policy, from `n` held-out pictures of each data set among their own classes.

    Every other picture is changed as in training, so that a JPEG or an enlarged picture is not unusual.
    """
    policy = diffcls.policies.quick()
    n_first = policy.n_winner
    rng = np.random.default_rng(0)
    errors, x_starts, conditions, groups, excess, truth = [], [], [], [], [], []
    for family, (images, labels) in enumerate(held_out(n)):
        classes = model.class_names[10 * family : 10 * family + 10]
        classifier = diffcls.Classifier(model, classes, policy=policy, keep_errors=True, progress=True)
        timesteps = classifier.trials["timestep"][:n_first]
        group = np.arange(len(images)) % 2
        seen = [as_a_user_might(image, rng) if changed else image for image, changed in zip(images, group, strict=True)]
        for picture, result in zip(seen, classifier(seen), strict=True):
            errors.append(result.errors[result.index, :n_first])
            x_starts.append(prepare(to_grey(picture))[0])
            conditions.append(10 * family + result.index)
            excess.append(result.excess)
        groups.append(group)
        truth.append(labels)
    fitted = fit_temperature(np.stack(excess), np.concatenate(truth))
    world = fit_world(
        np.stack(errors),
        timesteps,
        x_starts,
        np.array(conditions),
        np.concatenate(groups),
        n_classes=model.n_classes,
        false_alarm=FALSE_ALARM,
    )
    calibration = {name: getattr(fitted, name) for name in ("temperature", "stderr", "n_images")}
    return {"calibration": {**calibration, "policy": describe(policy)}, "world": world.to_json()}


def as_json(description: dict[str, Any]) -> str:
    """Indented, but a list of numbers stands in one line."""
    return re.sub(r"\[[\s\d.,e+-]*\]", lambda found: re.sub(r"\s+", " ", found[0]), json.dumps(description, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: the package's own)")
    parser.add_argument("--images", type=int, default=400, help="held-out pictures of each data set for the weighting")
    parser.add_argument("--trials", type=int, default=128, help="of every class, for the weighting")
    parser.add_argument(
        "--usual", type=int, default=N_HELD_OUT, help="held-out pictures of each data set for temperature and world"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    description = export_weights(options.run, options.out / f"{NAME}.safetensors")
    json_path = options.out / f"{NAME}.json"
    durable.write(json_path, as_json(description).encode())

    tables, labels = [], []
    for family, (images, truth) in enumerate(held_out(options.images)):
        classes = description["classes"][10 * family : 10 * family + 10]
        classifier = diffcls.Classifier(EmbeddedModel(json_path), classes, weighting="uniform", progress=True)
        table = classifier.error_table(list(images), n_samples=options.trials)
        tables.append(table.errors)
        labels.append(truth)
    errors, truth = np.concatenate(tables), np.concatenate(labels)
    both = replace(table, errors=errors)  # classes by position in their own ten
    weights = fit_weighting(both, truth)
    description["weighting"] = {"timesteps": KNOTS.tolist(), "weights": weights.round(4).tolist()}
    description["held_out_accuracy"] = cross_validated(both, truth)
    durable.write(json_path, as_json(description).encode())
    description["profile"] = measure_profile(EmbeddedModel(json_path), N_CALIBRATION)
    description |= judgement(EmbeddedModel(json_path), options.usual)  # under the weighting found above
    durable.write(json_path, as_json(description).encode())
    print(json.dumps({key: description[key] for key in ("weighting", "held_out_accuracy", "calibration")}))
    print("world's threshold", description["world"]["threshold"])


if __name__ == "__main__":
    main()
