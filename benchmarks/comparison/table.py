"""The record as Markdown: a pure function of it."""

from __future__ import annotations

from typing import Any

from . import questions
from .shifts import OPTICAL

Row = dict[str, Any]
TITLES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


def markdown(record: dict[str, Any]) -> str:
    """Everything that a record says, in four tables."""
    return "\n\n".join([_comparison(record), _shifts(record), _effective(record), _shapes(record), _run(record)]) + "\n"


def _comparison(record: dict[str, Any]) -> str:
    answers = _by_cell(record)
    lines = [
        "**Accuracy, 95 % intervals** (Wilson's; of the mean over corruptions, the bootstrap's over pictures)",
        "",
        "| system | parameters | training pictures | shown in training | MNIST | under corruptions | optical digits | Fashion-MNIST | under corruptions | evaluations a picture |",
        "|---" * 10 + "|",
    ]
    shifted = {(row["system"], row["group"], row["shift"]): row for row in record["robustness"]}
    for system in _systems(record, "mnist"):
        first = answers[system, "mnist"]
        cells = [
            system, _count(first["parameters"]), _count(first["training pictures"]), _count(first["pictures seen"]),
            _share(first), _mean(shifted.get((system, "mnist", "corruptions"))), _share(answers.get((system, f"mnist, {OPTICAL}"))),
            _share(answers.get((system, "fashion-mnist"))), _mean(shifted.get((system, "fashion-mnist", "corruptions"))),
            _evals([answers.get((system, group)) for group in TITLES]),
        ]  # fmt: skip
        lines.append(_line(cells))
    return "\n".join(lines)


def _shifts(record: dict[str, Any]) -> str:
    answers, parts = _by_cell(record), []
    for group, title in TITLES.items():
        names = [row["task"] for row in record["tasks"] if row["group"] == group and row["task"] != group]
        systems = [system for system in _systems(record, group) if all((system, name) in answers for name in names)]
        lines = [
            f"**{title} under each shift**: accuracy in per cent",
            "",
            _line(["system", "clean", *(name.removeprefix(f"{group}, ") for name in names)]),
            "|---" * (len(names) + 2) + "|",
        ]
        for system in systems:
            lines.append(
                _line([system, *(f"{100 * answers[system, name]['accuracy']:.1f}" for name in (group, *names))])
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _effective(record: dict[str, Any]) -> str:
    lines = [
        "**Effective robustness**: accuracy under the shift above the line through the standard systems, in points",
        "",
        "| system | " + " | ".join(f"{TITLES[group]}, {kind}" for group, kind in _kinds(record)) + " |",
        "|---" * (len(_kinds(record)) + 1) + "|",
    ]
    found = {(row["system"], row["group"], row["shift"]): row for row in record["robustness"]}
    for system in dict.fromkeys(row["system"] for row in record["robustness"]):
        lines.append(_line([system, *(_points(found.get((system, *kind))) for kind in _kinds(record))]))
    return "\n".join(lines)


def _shapes(record: dict[str, Any]) -> str:
    answers, names = _by_cell(record), [row["task"] for row in record["tasks"] if row["group"] == "shapes"]
    lines = [
        f"**`shapes`**: accuracy; in the last column, {questions.CUES}, the share of answers by shape, where none is right",
        "",
        _line(["system", "parameters", "shown in training", *names, "evaluations a picture"]),
        "|---" * (len(names) + 4) + "|",
    ]
    for system in _systems(record, "shapes"):
        known = next(answers[system, name] for name in names if (system, name) in answers)
        rows = [answers.get((system, name)) for name in names]
        sizes = [_count(known["parameters"]), _count(known["pictures seen"])]
        lines.append(_line([system, *sizes, *map(_share, rows), _evals(rows)]))
    return "\n".join(lines)


def _run(record: dict[str, Any]) -> str:
    machine, setting = record["machine"], record["setting"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    pictures = sorted({row["pictures"] for row in record["tasks"]})
    return (
        f"Setting `{setting['name']}`, seed {setting['seed']}; {' or '.join(map(str, pictures))} pictures a task; networks trained for "
        f"{setting['steps']:,} steps of {setting['batch']} pictures. {machine['cpu']}, {machine['cores']} cores; {versions}."
    )


# ---- cells -----------------------------------------------------------------------------------------------------------


def _by_cell(record: dict[str, Any]) -> dict[tuple[str, str], Row]:
    return {(row["system"], row["task"]): row for row in record["answers"]}


def _systems(record: dict[str, Any], group: str) -> list[str]:
    return list(dict.fromkeys(row["system"] for row in record["answers"] if row["group"] == group))


def _kinds(record: dict[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["group"], row["shift"]) for row in record["robustness"]))


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _share(row: Row | None) -> str:
    return "-" if row is None else _between(row["accuracy"], row["low"], row["high"])


def _mean(row: Row | None) -> str:
    return "-" if row is None else _between(row["shifted"], row["shifted_low"], row["shifted_high"])


def _between(share: float, low: float, high: float) -> str:
    return f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _points(row: Row | None) -> str:
    if row is None or row["effective"] is None:
        return "-"
    return " ".join(
        [f"{100 * row['effective']:+.1f}", f"({100 * row['effective_low']:+.1f} to {100 * row['effective_high']:+.1f})"]
    )


def _evals(rows: list[Row | None]) -> str:
    means = [row["evals_mean"] for row in rows if row is not None and "evals_mean" in row]
    if not means:
        return "-"
    ends = dict.fromkeys(f"{mean:,.0f}" for mean in (min(means), max(means)))
    return " to ".join(ends)
