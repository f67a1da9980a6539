"""What all cells of a plan say, as one record: a pure function of the cells, so that a resumed run's is that of an unbroken one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffcls.intervals import wilson
from diffcls.stored import as_json

from .cells import Cells
from .robustness import Robustness, robustness
from .shifts import OPTICAL
from .systems import Plan
from .tasks import Task

Row = dict[str, Any]


def of_cells(plan: Plan, cells: Cells) -> dict[str, Any]:
    """Answers, tasks and robustness.

    Returns
    -------
    dict
        "tasks": a row a task; "answers": a row a cell, with its system's facts, accuracy and Wilson's 95 % interval;
        "robustness": a row a system, group and kind of shift.
    """
    answers, tasks = [], {}
    for planned in plan.systems():
        for task in planned.tasks:
            tasks[task.name] = task
            answers.append(_row(planned.name, task, cells))
    shifts = [row for group in ("mnist", "fashion-mnist") for row in _robustness(group, answers, tasks, cells, plan)]
    described = [
        {"task": task.name, "group": task.group, "pictures": len(task), "digest": task.digest}
        for task in tasks.values()
    ]
    return dict(as_json({"tasks": described, "answers": answers, "robustness": shifts}))


def _row(system: str, task: Task, cells: Cells) -> Row:
    found, facts = cells.get(system, task)
    right, n = int((found.prediction == task.labels).sum()), len(task)
    low, high = wilson(right, n)
    row = {"system": system, "task": task.name, "group": task.group, **facts, "n": n, "right": right}
    row |= {"accuracy": right / n, "low": float(low), "high": float(high)}
    if found.n_evals is not None:
        row["evals_mean"] = float(found.n_evals.mean())
        row["evals_p95"] = float(np.quantile(found.n_evals, 0.95))
    return row


def _robustness(group: str, answers: list[Row], tasks: dict[str, Task], cells: Cells, plan: Plan) -> list[Row]:
    """Of the systems that answered all of a group's shifts; corruptions are averaged, another collection stands alone."""
    names = [name for name, task in tasks.items() if task.group == group and name != group]
    kinds = {"corruptions": [name for name in names if not name.endswith(OPTICAL)]}
    kinds[OPTICAL] = [name for name in names if name.endswith(OPTICAL)]
    asked: dict[str, set[str]] = {}
    for row in answers:
        asked.setdefault(row["system"], set()).add(row["task"])
    standard = {row["system"] for row in answers if row["kind"] == "standard"}
    rows = []
    for kind, shifted in kinds.items():
        systems = [name for name, done in asked.items() if {group, *shifted} <= done]
        if not shifted:
            continue
        found = robustness(
            np.array([_right(system, tasks[group], cells) for system in systems]),
            np.array([[_right(system, tasks[name], cells) for name in shifted] for system in systems]),
            np.array([system in standard for system in systems]),
            paired=kind != OPTICAL,
            seed=plan.setting.seed,
        )
        rows += _named(group, kind, systems, found)
    return rows


def _right(system: str, task: Task, cells: Cells) -> Any:
    return cells.get(system, task)[0].prediction == task.labels


def _named(group: str, kind: str, systems: Sequence[str], found: Robustness) -> list[Row]:
    """A row a system; what is not a number is None, as JSON has none."""
    rows = []
    for i, system in enumerate(systems):
        values = {name: float(column[i]) for name, column in found._asdict().items()}
        numbers = {name: None if math.isnan(value) else value for name, value in values.items()}
        rows.append({"system": system, "group": group, "shift": kind, **numbers})
    return rows
