"""Error tables, and replaying a policy on one: the same C race as live, without a denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .core_types import Trials
from .errors import InputError
from .policies import Policy, describe
from .result import Result, Results
from .schedule import Schedule

if TYPE_CHECKING:
    from .classifier import Classifier


@dataclass(frozen=True, eq=False)
class ErrorTable:
    """Unweighted errors of every class at every trial.

    Attributes
    ----------
    errors : (N, K, S) float64
    trials : dict of (S,) arrays
        timestep, noise_index, eps_sign, weight.
    classes : list of str, (K,)
    run : dict
    """

    errors: NDArray[np.float64]
    trials: Trials
    classes: list[str]
    run: dict[str, Any]
    classifier: Classifier

    @property
    def timesteps(self) -> NDArray[np.int64]:
        """(S,) row of the schedule of each trial."""
        return self.trials["timestep"].astype(np.int64)

    @property
    def schedule(self) -> Schedule:
        return self.classifier.denoiser.schedule

    @property
    def weighting(self) -> NDArray[np.float64] | None:
        """(T,) under which the trials were drawn; None: uniform."""
        return self.classifier.weighting

    def __repr__(self) -> str:
        n, k, s = self.errors.shape
        return f"ErrorTable({n} pictures, {k} classes, {s} trials)"


def replay(table: ErrorTable, policy: Policy) -> Results:
    """What `policy` would have decided from the table's errors; no denoiser is asked.

    Raises
    ------
    ValueError
        The policy makes a trial that the table does not have.
    """
    classifier = table.classifier
    lowered = classifier._lower(policy)
    columns = _find(lowered.trials, table.trials)
    cost = classifier.arms.cost_of_arm
    run = {**table.run, "policy": describe(policy)}
    results = []
    for errors in table.errors:
        race = _core.replay(
            errors[:, columns],
            n_classes=len(table.classes),
            class_of_arm=classifier.arms.class_of_arm,
            cost_of_arm=cost,
            trials=lowered.trials,
            policy=lowered.policy,
        )
        results.append(
            Result.from_race(
                race,
                classes=classifier.classes,
                log_prior=classifier.log_prior,
                temperature=classifier.temperature,
                run=run,
            )
        )
    return Results(results, table.classes)


def _find(wanted: Trials, stored: Trials) -> NDArray[np.int64]:
    """Column of each wanted trial."""

    def keys(trials: Trials) -> list[tuple[Any, ...]]:
        return list(
            zip(trials["timestep"].tolist(), trials["noise_index"].tolist(), trials["eps_sign"].tolist(), strict=True)
        )

    column = {key: i for i, key in enumerate(keys(stored))}
    missing = [key for key in keys(wanted) if key not in column]
    if missing:
        timestep, noise_index, _ = missing[0]
        raise InputError(
            f"the table lacks {len(missing)} trials of the policy, first timestep {timestep} with noise {noise_index}"
        )
    return np.array([column[key] for key in keys(wanted)], np.int64)
