"""The baseline of diffusion features: a linear probe (scikit-learn) on what the diffusion model's blocks give out.

The picture is noised once, the embedding of the class is the mean of all (the model has none for "no class"), and the tokens
of one block at one timestep are the features.  Block and timestep are those with the best accuracy on validation pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffcls.fingerprint import digest
from diffcls.torch import twin

from .cells import Answers, among
from .networks import n_parameters
from .settings import Setting
from .tasks import Labelled, Picture, Task, class_names, prepared, training, validation

REGULARISATION = 0.01
"""scikit-learn's C, of standardised features."""
ITERATIONS = 200
BATCH = 256


class Activations:
    """Of all blocks of the embedded model."""

    def __init__(self, seed: int) -> None:
        self.denoiser, self.seed = twin(embeddings=True), seed
        self.module: Any = self.denoiser.predict
        self.no_class = torch.as_tensor(self.denoiser.conditions).mean(dim=0)

    @torch.no_grad()
    def of(self, x_start: NDArray[np.float32], timestep: int) -> list[NDArray[np.float32]]:
        """(N, tokens x width) of each block, first to last.  Picture i's noise depends on its pixels and the seed alone."""
        schedule = self.denoiser.schedule
        found: list[list[NDArray[np.float32]]] = [[] for _ in self.module.blocks]
        hooks = [
            block.register_forward_hook(lambda _, __, tokens, kept=kept: kept.append(tokens.flatten(1).numpy()))
            for block, kept in zip(self.module.blocks, found, strict=True)
        ]
        try:
            for first in range(0, len(x_start), BATCH):
                part = x_start[first : first + BATCH]
                eps = np.stack([self._noise(picture) for picture in part])
                x_t = schedule.alpha[timestep] * part + schedule.sigma[timestep] * eps
                t = torch.full((len(part),), int(schedule.time[timestep]))
                self.module(torch.from_numpy(x_t.astype(np.float32)), t, self.no_class.expand(len(part), -1))
        finally:
            for hook in hooks:
                hook.remove()
        return [np.concatenate(kept) for kept in found]

    def _noise(self, x_start: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.random.default_rng((self.seed, int(digest(x_start), 16))).standard_normal(x_start.shape)


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe as a system."""

    activations: Activations
    block: int
    timestep: int
    estimator: Any
    names: list[str]
    facts: dict[str, Any]

    def answer(self, task: Task, folder: Path) -> Answers:
        scores = np.full((len(task), len(self.names)), -np.inf)  # of a class that it was not taught
        scores[:, self.estimator.classes_] = self.estimator.decision_function(self.features(task.images))
        return Answers(among(scores, self.names, task))

    def features(self, images: list[Picture]) -> NDArray[np.float32]:
        return self.activations.of(prepared(images), self.timestep)[self.block]


def fit(setting: Setting) -> Probe:
    """The probe whose block and timestep are best on validation pictures."""
    activations = Activations(setting.seed)
    taught = training(setting, 2 * setting.probe_training)
    judged = validation(setting, setting.probe_validation)
    best = max(_candidates(activations, setting.probe_timesteps, taught, judged), key=lambda found: found[0])
    accuracy, timestep, block, estimator = best
    facts = {
        "kind": "features",
        "parameters": n_parameters(activations.module) + estimator[-1].coef_.size + estimator[-1].intercept_.size,
        "training pictures": len(taught.labels),  # of the probe; the model's own are those of the diffusion classifier
        "pictures seen": None,
        "block": block + 1,
        "timestep": timestep,
        "validation accuracy": accuracy,
    }
    return Probe(activations, block, timestep, estimator, class_names(), facts)


def _candidates(
    activations: Activations, timesteps: tuple[int, ...], taught: Labelled, judged: Labelled
) -> Iterator[tuple[float, int, int, Any]]:
    """(accuracy on `judged`, timestep, block, estimator); the first of equals wins, which is the earlier block."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x_taught, x_judged = prepared(taught.images), prepared(judged.images)
    for timestep in timesteps:
        pairs = zip(activations.of(x_taught, timestep), activations.of(x_judged, timestep), strict=True)
        for block, (given, held_out) in enumerate(pairs):
            estimator = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=ITERATIONS))
            estimator.fit(given, taught.labels)
            yield float(estimator.score(held_out, judged.labels)), timestep, block, estimator
