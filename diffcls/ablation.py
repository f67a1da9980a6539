"""What changes the answer: policies, and the choices of the literature one by one, read from error tables.

    table = diffcls.Classifier(...).error_table(images, n_samples=500, labels=labels)
    rows = diffcls.ablation.sweep(table, {"race": diffcls.Race(), "staged": diffcls.Staged((50, 500), (5, 1))})
    rows = diffcls.ablation.ablate(table, variants={"loss": {"l1": table_of_l1}, "noise": {"one": table_of_one_noise}})

Errors are stored unweighted, so one table answers for weighting, range of timesteps, number of trials, vote or mean,
temperature and priors.  What changes the errors themselves needs a table of its own, of the same images:

- loss: ``Classifier(..., loss="l1").error_table(images, n_samples=500)``
- one noise for all trials: ``Classifier(..., noise=np.repeat(eps[None], 500, axis=0))``
- antithetic pairs: ``Classifier(..., noise="antithetic")``
- another set of noise: ``Classifier(..., seed=1)``; other prompts: ``templates=``

Rows are plain dicts: ``pyarrow.Table.from_pylist(rows)``, or ``csv.DictWriter``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments
from .errors import InputError
from .fingerprint import check_same
from .intervals import wilson
from .labels import check_labels
from .policies import Policy
from .replaying import replay
from .results import Results
from .tables import ErrorTable

__all__ = ["ablate", "each_policy", "sweep"]

Floats = NDArray[np.float64]
Row = dict[str, Any]

RANGES = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0), (0.1, 0.9), (0.2, 0.8), (0.0, 0.5), (0.5, 1.0))
"""Of the schedule, from clean to noisy, outside of which the weighting is set to 0."""

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)

MAY_DIFFER = ("loss", "noise", "seed", "pool", "temperature", "conditions")
"""Parts of the fingerprint that a variant may change: same model, schedule, classes and preparation."""


def sweep(
    table: ErrorTable,
    policies: Mapping[str, Policy | None],
    *,
    labels: ArrayLike | None = None,
    weighting: Any = None,
) -> list[Row]:
    """Each policy on the whole table, against every trial of every class ("full pool").

    Parameters
    ----------
    table : ErrorTable
    policies : mapping of name to policy
        None: the full pool itself.
    labels : (N,) sequence of int or str, or None
        True classes; None: those of the table.
    weighting
        As for `diffcls.replay`.

    Returns
    -------
    list of dict
        policy, n; accuracy with its 95 % interval (accuracy_low, accuracy_high), None without labels; agreement with the
        full pool and its interval; evals_mean and evals_p95 of an image; factor: evaluations of the full pool over
        evals_mean; decided: share of images where one class was left.

    Raises
    ------
    ValueError
        As `diffcls.replay`; or the table has no image.
    TypeError
        `table` is no `ErrorTable`, or `policies` no mapping.
    """
    rows = []
    for _, row in each_policy(table, policies, labels=labels, weighting=weighting):
        if isinstance(row, InputError):
            raise row
        rows.append(row)
    return rows


def each_policy(
    table: ErrorTable,
    policies: Mapping[str, Policy | None],
    *,
    labels: ArrayLike | None = None,
    weighting: Any = None,
) -> Iterator[tuple[str, Row | InputError]]:
    """(name, row) of each policy as in `sweep`; in place of the row what is wrong with a policy that the table can not give.

    Parameters
    ----------
    table, policies, labels, weighting
        As for `sweep`.

    Yields
    ------
    name : str
        Key of `policies`.
    row : dict or InputError
        As in `sweep`, or what `diffcls.replay` raised for this policy.

    Raises
    ------
    ValueError
        The table has no image, `labels` do not go with it, or `weighting` does not.
    TypeError
        `table` is no `ErrorTable`, or `policies` no mapping.
    """
    arguments.instance("policies", policies, Mapping)
    truth = _truth(table, labels)
    full = replay(table, weighting=weighting)
    for name, policy in policies.items():
        try:
            results = full if policy is None else replay(table, policy, weighting=weighting)
        except InputError as error:
            yield name, error
            continue
        evals, index = results.n_evals, results.index
        yield (
            name,
            {
                "policy": name,
                "n": len(table),
                **_share("accuracy", None if truth is None else index == truth),
                **_share("agreement", index == full.index),
                "evals_mean": float(evals.mean()),
                "evals_p95": float(np.quantile(evals, 0.95)),
                "factor": float(full.n_evals.mean() / evals.mean()),
                "decided": float(np.mean([status == "decided" for status in results.status])),
            },
        )


def ablate(
    table: ErrorTable,
    *,
    labels: ArrayLike | None = None,
    weightings: Mapping[str, Any] | None = None,
    priors: Mapping[str, ArrayLike] | None = None,
    variants: Mapping[str, Mapping[str, ErrorTable]] | None = None,
) -> list[Row]:
    """One choice changed at a time, everything else as the table has it, on the full pool (no race).

    Parameters
    ----------
    table : ErrorTable
        The baseline.
    labels
        As for `sweep`.
    weightings : mapping of name to weighting
        Beside "uniform"; as for `diffcls.replay`.
    priors : mapping of name to (K,) array
        Beside "uniform".
    variants : mapping of ablation to mapping of setting to ErrorTable
        Tables of the same images, made with what the setting says; see the module's text.

    Returns
    -------
    list of dict
        ablation, setting; n; n_trials; accuracy, accuracy_low, accuracy_high and nll (mean negative log likelihood of the
        true class; a vote has none), None without labels; agreement (of the answer with the baseline's), agreement_low, agreement_high.
        The answer is the class of smallest loss, of most votes (aggregate), of the largest probability (priors).

    Raises
    ------
    FingerprintMismatchError
        A variant is of another model, schedule, set of classes or preparation.
    ValueError
        A variant has another number of images, or other labels; the table has none; or as `diffcls.replay`.
    TypeError
        `table` is no `ErrorTable`.
    """
    truth, base = _truth(table, labels), replay(table)
    own = np.ones(len(table.schedule)) if table.weighting is None else table.weighting
    rows: list[Row] = []

    def add(ablation: str, setting: str, results: Results, answer: NDArray[np.int64] | None = None) -> None:
        index = results.index if answer is None else answer
        nll = None if truth is None or ablation == "aggregate" else _nll(results.probabilities, truth)
        rows.append(
            {
                "ablation": ablation,
                "setting": setting,
                "n": len(table),
                "n_trials": int(results.n_trials.max()),
                **_share("accuracy", None if truth is None else index == truth),
                "nll": nll,
                **_share("agreement", index == base.index),
            }
        )

    add("baseline", "as the table", base)
    uniform = (
        {} if table.weighting is None or (not table.listed and not table.weighting.all()) else {"uniform": "uniform"}
    )
    for name, weighting in {**uniform, **(weightings or {})}.items():
        add("weighting", name, replay(table, weighting=weighting))
    for low, high in RANGES:
        position = (np.arange(len(own)) + 0.5) / len(own)
        masked = np.where((position >= low) & (position < high), own, 0.0)
        if masked[table.timesteps].any():
            add("timesteps", f"{low:g} to {high:g}", replay(table, weighting=masked))
    weight = table.trials["weight"]
    for n in COUNTS:
        if n < len(weight) and weight[:n].any():
            add("trials", str(n), replay(table.select(trials=slice(n))))
    add("aggregate", "vote", base, _vote(table, base.losses))
    for factor in FACTORS if table.run.get("pool") != "logmeanexp" else ():
        add("temperature", f"{factor:g} x {table.temperature:g}", replay(table, temperature=factor * table.temperature))
    for name, prior in {"uniform": np.ones(len(table.classes)), **(priors or {})}.items():
        results = replay(table, priors=prior)
        add("priors", name, results, results.probabilities.argmax(axis=1))
    for ablation, settings in (variants or {}).items():
        for name, other in settings.items():
            _check_variant(table, other, f"{ablation}={name}")
            add(ablation, name, replay(other))
    return rows


def _truth(table: ErrorTable, labels: ArrayLike | None) -> NDArray[np.int64] | None:
    arguments.instance("table", table, ErrorTable)
    if not len(table):
        raise InputError("the table has no image")
    return table.labels if labels is None else check_labels(labels, len(table), table.classes)


def _share(name: str, hits: NDArray[np.bool_] | None) -> Row:
    if hits is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = wilson(int(hits.sum()), len(hits))
    return {name: float(hits.mean()), f"{name}_low": max(0.0, float(low)), f"{name}_high": min(1.0, float(high))}


def _nll(p: Floats, truth: NDArray[np.int64]) -> float:
    return float(-np.log(np.maximum(p[np.arange(len(p)), truth], np.finfo(np.float64).tiny)).mean())


def _vote(table: ErrorTable, losses: Floats) -> NDArray[np.int64]:
    """(N,) class that wins most trials, each counted with its weight; ties go to the smaller loss."""
    winners = table.errors.argmin(axis=1)
    votes = np.zeros_like(losses)
    np.add.at(votes, (np.arange(len(votes))[:, None], winners), table.trials["weight"])
    best = np.where(votes == votes.max(axis=1, keepdims=True), losses, np.inf)
    return np.asarray(best.argmin(axis=1), np.int64)


def _check_variant(table: ErrorTable, other: ErrorTable, name: str) -> None:
    mine, theirs = (each.run.get("fingerprint", {}) for each in (table, other))
    check_same(mine, theirs, f"variant {name} is not of the table's model", but=MAY_DIFFER)
    if len(other) != len(table):
        raise InputError(f"variant {name} has {len(other)} images, must have the table's {len(table)}")
    if table.labels is not None and other.labels is not None and not np.array_equal(table.labels, other.labels):
        raise InputError(
            f"variant {name} has other labels than the table: it must be of the same images in the same order"
        )
