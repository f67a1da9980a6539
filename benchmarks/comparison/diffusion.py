"""The diffusion classifier as a system."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import diffcls
from diffcls.policies import Policy

from .cells import Answers
from .tasks import Task


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A model and a policy; loss and weighting are the model's own, so that policies differ in nothing else.

    Attributes
    ----------
    model : Denoiser
    policy : Policy
    facts : dict
    """

    model: diffcls.Denoiser
    policy: Policy
    facts: dict[str, Any]

    def answer(self, task: Task, folder: Path) -> Answers:
        """`diffcls.evaluate` into `folder`, once for each set of candidates: a killed task goes on where it was."""
        prediction, n_evals = np.empty(len(task), np.int64), np.empty(len(task), np.int64)
        for i, (candidates, rows) in enumerate(task.groups()):
            classifier = diffcls.Classifier(self.model, list(candidates), policy=self.policy)
            pictures = ((task.images[row], int(task.labels[row])) for row in rows)
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", diffcls.OutOfWorldWarning
                )  # corrupted pictures are out of it on purpose
                report = diffcls.evaluate(classifier, pictures, out=folder / str(i), progress=False)
            prediction[rows], n_evals[rows] = report.prediction, report.n_evals
        return Answers(prediction, n_evals)
