"""Deciding again from an error table: the same C race as live, without a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core, arguments
from .core_types import RaceResult, ReplayResult, Trials
from .errors import InputError
from .fingerprint import digest
from .options import (
    check_policy,
    check_priors,
    check_temperature,
    check_weighting,
    describe_calibration,
    describe_weighting,
)
from .policies import Fixed, Lowered, Policy, describe, every_trial, lower
from .result import Result, probabilities
from .results import Results
from .tables import ErrorTable
from .temperature import Calibration
from .threads import backend

Floats = NDArray[np.float64]


def replay(
    table: ErrorTable,
    policy: Policy | None = None,
    *,
    weighting: Any = None,
    priors: ArrayLike | dict[str, float] | None = None,
    temperature: float | Calibration | None = None,
) -> Results:
    """What `policy` would have decided, from the table's errors; no denoiser is asked.

    Where the table has the policy's trials, the results are those of a live run to the bit: losses, standard errors, path,
    evaluations.  Only whether a picture is unlike the training pictures is not judged: that needs the picture, so there is
    no `OutOfWorldWarning` and no sentence of it in `Result.warnings`.  Images are shared out over the threads; a `Result`
    of one of them is made when it is asked for.

    Parameters
    ----------
    table : ErrorTable
    policy : Race, Staged, Fixed or None
        None: every class, every trial that the table has.
    weighting : None, str, Weighting or (T,) array
        Over timesteps; None: the table's own.  Errors are stored unweighted, so any weighting may follow.  Unless the table
        has the very trials that would be drawn under the new one (a list of timesteps), its own trials of non-zero weight
        stand in for them, in their order, each with the importance weight ``w(t) / q(t)`` for the density q it was drawn
        from: the same expected loss, with another variance than a live run has.  The table's own calibration (its biases
        too) holds no longer then, and is left out.
    priors : None, (K,) array or mapping of label to number
        None: the table's own.
    temperature : float, Calibration or None
        None: the table's own.

    Returns
    -------
    Results
        N pictures.

    Raises
    ------
    FingerprintMismatchError
        The calibration, weighting or profile was fitted under other settings.
    TypeError
        `table` is no `ErrorTable`, or another argument of the wrong type.
    ValueError
        The policy makes a trial, or the weighting needs a timestep, that the table does not have; or an error that the
        race needs is not finite.
    """
    arguments.instance("table", table, ErrorTable)
    if policy is not None:
        check_policy(policy)
    changes: dict[str, Any] = {}
    weights = table.weighting
    if weighting is not None:
        weights = check_weighting(weighting, table, str(table.run.get("loss", "l2")))
        changes["weighting"] = describe_weighting(weighting, weights)
    # what the table's own calibration was fitted to is no longer the case
    recalibrated = temperature is not None or not _same(weights, table.weighting)
    log_prior, calibration = table.log_prior, temperature if isinstance(temperature, Calibration) else None
    if priors is not None or recalibrated:
        bias = _own_bias(table)
        own = log_prior - bias
        if priors is not None:
            own = check_priors(priors, table.classes)
            changes["priors"] = np.exp(own).tolist()
        if recalibrated:
            bias = np.zeros(len(own)) if calibration is None else calibration.log_bias(table.classes)
        log_prior = own + bias
    value = table.temperature if temperature is None else check_temperature(temperature, table)
    pooled = table.run.get("pool_temperature")
    if calibration is None and pooled is not None and temperature is not None and value != pooled:
        raise InputError(f"temperature is {value}, but the table's prompts were pooled by 'logmeanexp' at {pooled}")
    if recalibrated:
        changes |= {"temperature": value, "calibration": describe_calibration(calibration)}
    lowered, columns = _trials(table, policy, weights)
    if policy is None:
        changes["policy"] = _describe_every(table, lowered.trials, weights)
    else:
        changes["policy"] = describe(policy, table.profile)
    race = _core.replay(
        table.errors,
        columns=columns,
        n_classes=len(table.classes),
        class_of_arm=np.arange(len(table.classes)),
        cost_of_arm=table.cost,
        trials=lowered.trials,
        policy=lowered.policy,
        backend=backend(),
    )
    run = {**table.run, **changes, "replayed": True}
    if calibration is not None:
        calibration.check(run)
    results = _Replayed(race, table.classes, log_prior, value, run)
    return Results(results, table.classes, stacked=results.stacked())


def _own_bias(table: ErrorTable) -> Floats:
    """(K,) what the table's calibration added to its log priors."""
    bias = (table.run.get("calibration") or {}).get("bias")
    return np.zeros(len(table.classes)) if bias is None else np.array(bias, np.float64)


def _trials(table: ErrorTable, policy: Policy | None, weights: Floats | None) -> tuple[Lowered, NDArray[np.int64]]:
    """The policy's trials and where they lie in the table."""
    own = _same(weights, table.weighting)
    if policy is None and own:
        return Lowered(table.trials, every_trial()), np.arange(len(table.timesteps))
    if policy is not None:
        lowered = lower(policy, table.terms(weights))
        columns = _find(lowered.trials, table.trials)
        if own and (columns < 0).any():
            raise InputError(_lacking(policy, lowered.trials, columns, table))
        if not (columns < 0).any():
            return lowered, columns
    importance = _importance(table, weights)
    columns = np.flatnonzero(importance)
    if policy is not None:
        n = len(lowered.trials["timestep"])
        if n > len(columns):
            raise InputError(
                f"{type(policy).__name__} makes {n} trials, the table has {len(columns)} of weight above 0 under the weighting"
            )
        columns = columns[:n]
    trials = {name: cast("NDArray[Any]", column)[columns] for name, column in table.trials.items()}
    trials["weight"] = importance[columns] / importance[columns].mean()
    core_policy = every_trial() if policy is None else lowered.policy
    return Lowered(cast("Trials", trials), core_policy), columns


def _same(a: Floats | None, b: Floats | None) -> bool:
    """None is 1 everywhere."""
    return a is b or np.array_equal(1.0 if a is None else a, np.ones_like(a) if b is None else b)


def _describe_every(table: ErrorTable, trials: Trials, weights: Floats | None) -> dict[str, Any]:
    """What reading every trial was: `Fixed` where its trials are these, else "full", with a digest of them."""
    n = len(trials["timestep"])
    if not table.listed and (table.n_noise is None or n <= table.n_noise):
        fixed = Fixed(n)
        theirs = cast("dict[str, NDArray[Any]]", lower(fixed, table.terms(weights)).trials)
        if all(np.array_equal(theirs[name], column) for name, column in cast("dict[str, Any]", trials).items()):
            return describe(fixed)
    return {"name": "full", "n_trials": n, "trials": digest(*trials.values())}


def _importance(table: ErrorTable, weights: Floats | None) -> Floats:
    """(S,) w(t) / q(t) of each of the table's trials, up to a factor.

    Of drawn trials the stored weight is ``w0(t) / q(t)`` for the table's own weighting w0, and the trials cover the schedule
    where w0 is positive.  A list of timesteps is the whole of what is asked: its q is even.
    """
    t, n = table.timesteps, len(table.schedule)
    w = np.ones(n) if weights is None else weights
    importance = np.asarray(w[t], np.float64)
    if not table.listed and table.weighting is not None:
        uncovered = (w > 0) & (table.weighting == 0)
        if uncovered.any():
            raise InputError(
                f"the weighting is positive at {uncovered.sum()} timesteps where the table has no trial, first at "
                f"{uncovered.argmax()}: it was drawn under a weighting that is 0 there; "
                "a table made with weighting='uniform' has them"
            )
        importance *= table.trials["weight"] / table.weighting[t]
    if not importance.any():
        raise InputError(f"the weighting is 0 at every one of the table's {len(t)} trials")
    return importance


def _keys(trials: Trials) -> list[tuple[int, int, float]]:
    return list(
        zip(trials["timestep"].tolist(), trials["noise_index"].tolist(), trials["eps_sign"].tolist(), strict=True)
    )


def _find(wanted: Trials, stored: Trials) -> NDArray[np.int64]:
    """Column of each wanted trial, -1 where there is none."""
    column = {key: i for i, key in enumerate(_keys(stored))}
    return np.array([column.get(key, -1) for key in _keys(wanted)], np.int64)


def _lacking(policy: Policy, wanted: Trials, columns: NDArray[np.int64], table: ErrorTable) -> str:
    missing = np.flatnonzero(columns < 0)
    timestep, noise_index, sign = _keys(wanted)[missing[0]]
    made = table.run.get("policy", {})
    return (
        f"the table lacks {len(missing)} of the {len(columns)} trials of {type(policy).__name__}, the first at timestep "
        f"{timestep} with noise {noise_index}{' negated' if sign < 0 else ''}; it has the {len(table.timesteps)} of "
        f"{made.get('name', 'another policy')}"
    )


class _Replayed(Sequence[Result]):
    """Results of a replay, each made when it is asked for."""

    def __init__(
        self, race: ReplayResult, classes: list[str], log_prior: Floats, temperature: float, run: dict[str, Any]
    ) -> None:
        self._race, self._classes, self._log_prior = race, classes, log_prior
        self._temperature, self._run = temperature, run

    def stacked(self) -> dict[str, Any]:
        """What is at hand of all images at once."""
        arrays = {name: value for name, value in self._race.items() if not name.startswith("trace")}
        return {**arrays, "probabilities": probabilities(self._race["excess"], self._log_prior, self._temperature)}

    def __len__(self) -> int:
        return len(self._race["index"])

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        race, offset = self._race, self._race["trace_offset"]
        row: RaceResult = {
            "index": int(race["index"][i]),
            "losses": race["losses"][i],
            "stderr": race["stderr"][i],
            "excess": race["excess"][i],
            "n_trials": race["n_trials"][i],
            "alive": race["alive"][i],
            "n_evals": int(race["n_evals"][i]),
            "p_disagree": float(race["p_disagree"][i]),
            "status": race["status"][i],
            "trace": race["trace"][offset[i] : offset[i + 1]],
            "errors": None,
        }
        return Result.from_race(
            row, classes=self._classes, log_prior=self._log_prior, temperature=self._temperature, run=self._run
        )
