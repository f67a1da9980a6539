"""The record as pictures, and samples of the models themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import diffcls
from diffcls.plotting.display import BLUE, GREEN, MUTED, ORANGE, PURPLE, VERMILION

from .robustness import expected, logit
from .samples import ddim
from .systems import PROBE, RACE, RESNET, SMALL_CLIP, STAGES, SYNTHETIC, VIT
from .table import TITLES

Row = dict[str, Any]
STYLES = {
    "diffusion": (BLUE, "o"), "standard": (MUTED, "s"), "synthetic": (VERMILION, "^"), "features": (GREEN, "D"),
    "contrastive": (PURPLE, "v"),
}  # fmt: skip
"""Colour and marker of a kind of system."""
SHORT = {
    RACE: "race", STAGES: "paper's stages", PROBE: "diffusion features", SYNTHETIC: "synthetic data", RESNET: "ResNet", VIT: "ViT",
    SMALL_CLIP: "small CLIP",
}  # fmt: skip
CAPTIONS = (
    "a red circle left of a blue square", "a blue square left of a red circle", "a green triangle above a yellow cross",
    "a cyan ring", "an orange cross below a white ring", "a purple diamond right of a green circle",
)  # fmt: skip
LEFT = {"ha": "right", "xytext": (-6, -3)}
"""Where the name of what was trained on samples stands: the probe's marker is near it."""
N_SAMPLES, N_STEPS, SEED = 8, 50, 7


def draw(record: dict[str, Any], folder: Path) -> list[Path]:
    """Three figures of a record, as SVG whose bytes depend on it and on matplotlib alone."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "paper-table"
    drawn = {"evaluations": _evaluations(record), "shift": _shift(record), "sizes": _sizes(record)}
    paths = []
    for name, figure in drawn.items():
        paths.append(folder / f"paper-table-{name}.svg")
        figure.savefig(paths[-1], metadata={"Date": None, "Creator": None}, facecolor="white")
        paths[-1].write_text("\n".join(line.rstrip() for line in paths[-1].read_text().splitlines()) + "\n")
    return paths


def sheets(folder: Path) -> list[Path]:
    """Samples of both models, a row a class or a caption: what the classifiers know."""
    from PIL import Image

    digits = diffcls.load()
    drawn = ddim(digits, np.repeat(np.arange(20), N_SAMPLES), n_steps=N_STEPS, seed=SEED)[:, 0]
    rows = drawn.reshape(20, N_SAMPLES, 28, 28).transpose(0, 2, 1, 3).reshape(2, 10 * 28, N_SAMPLES * 28)
    grey = np.concatenate([rows[0], np.full((280, 14), 255, np.uint8), rows[1]], axis=1)
    shapes = diffcls.load("shapes").with_prompts(CAPTIONS)
    colours = ddim(shapes, np.repeat(np.arange(len(CAPTIONS)), N_SAMPLES), n_steps=N_STEPS, seed=SEED)
    side = colours.shape[2]
    colour = colours.reshape(len(CAPTIONS), N_SAMPLES, 3, side, side).transpose(0, 3, 1, 4, 2)
    paths = []
    for name, sheet in (("digits-and-clothes", grey), ("shapes", colour.reshape(len(CAPTIONS) * side, -1, 3))):
        paths.append(folder / f"samples-{name}.png")
        height, width = sheet.shape[:2]
        Image.fromarray(sheet).resize((2 * width, 2 * height), Image.Resampling.NEAREST).save(paths[-1], optimize=True)
    return paths


def _evaluations(record: dict[str, Any]) -> Any:
    """Accuracy against evaluations of a picture: a point a policy, a line a system that needs none."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, (group, title) in zip(axes, TITLES.items(), strict=True):
        rows = [row for row in record["answers"] if row["task"] == group]
        fixed = sorted((row for row in rows if "all of" in row["system"]), key=lambda row: row["evals_mean"])
        lone = [row for row in rows if row["system"] in (RACE, STAGES)]
        for points, colour, style, label in (
            (fixed, ORANGE, "o:", "every class, every trial"),
            *(([row], BLUE if row["system"] == RACE else VERMILION, "D", SHORT[row["system"]]) for row in lone),
        ):
            x, y = [row["evals_mean"] for row in points], [100 * row["accuracy"] for row in points]
            axis.errorbar(x, y, _spread(points), fmt=style, color=colour, ms=5, lw=1, elinewidth=0.8, label=label)
        for row, style in zip(
            (r for r in rows if r["system"] in (RESNET, VIT, SYNTHETIC, PROBE)), ("-", "--", "-.", ":"), strict=False
        ):
            axis.axhline(
                100 * row["accuracy"], color=STYLES[row["kind"]][0], ls=style, lw=1.2, label=SHORT[row["system"]]
            )
        axis.set(xscale="log", xlabel="denoiser evaluations a picture", ylabel="accuracy in per cent", title=title)
    axes[0].legend(fontsize=8, framealpha=1, edgecolor="none")
    return figure


def _shift(record: dict[str, Any]) -> Any:
    """Accuracy under a shift against clean accuracy on axes of log odds, with the line through the standard systems."""
    from matplotlib import pyplot

    kinds = list(dict.fromkeys((row["group"], row["shift"]) for row in record["robustness"]))
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(4.3 * len(kinds), 4.2), layout="constrained", squeeze=False)
    of_system = {row["system"]: row["kind"] for row in record["answers"]}
    n_of = {row["task"]: row["pictures"] for row in record["tasks"]}
    for axis, (group, shift) in zip(axes[0], kinds, strict=True):
        rows = [row for row in record["robustness"] if (row["group"], row["shift"]) == (group, shift)]
        n = n_of[group]
        clean, shifted = (np.array([row[name] for row in rows]) for name in ("clean", "shifted"))
        standard = np.array([of_system[row["system"]] == "standard" for row in rows])
        grid = np.linspace(clean.min(), clean.max(), 100)
        line = expected(
            np.concatenate([clean, grid]), np.concatenate([shifted, grid]), np.append(standard, np.zeros(100, bool)), n
        )
        axis.plot(logit(grid, n), logit(line[len(rows) :], n), color=MUTED, lw=1, label="line of the standard systems")
        for row in rows:
            kind = of_system[row["system"]]
            colour, marker = STYLES[kind]
            x, y = (float(logit(np.array(row[name]), n)) for name in ("clean", "shifted"))
            ends = [float(logit(np.array(row[f"shifted_{end}"]), n)) for end in ("low", "high")]
            axis.errorbar(x, y, [[y - ends[0]], [ends[1] - y]], fmt=marker, color=colour, ms=5, elinewidth=0.8)
            name = row["system"].removeprefix(f"{RESNET}, ")
            place = LEFT if row["system"] == SYNTHETIC else {"xytext": (5, -3)}
            axis.annotate(
                SHORT.get(row["system"], name), (x, y), textcoords="offset points", fontsize=7, color=colour, **place
            )
        for scale, values in ((axis.xaxis, clean), (axis.yaxis, shifted)):
            ticks = np.array([t for t in (5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.5) if _near(t / 100, values, n)])
            scale.set_ticks(logit(ticks / 100, n), [f"{tick:g}" for tick in ticks])
        axis.set(xlabel="clean accuracy in per cent", ylabel="under the shift", title=f"{TITLES[group]}, {shift}")
        axis.margins(x=0.15)
    axes[0][0].legend(fontsize=7, frameon=False)
    return figure


def _sizes(record: dict[str, Any]) -> Any:
    """Accuracy against the number of parameters, and of training pictures."""
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    for row_of_axes, (group, title) in zip(axes, TITLES.items(), strict=True):
        rows = [
            row
            for row in record["answers"]
            if row["task"] == group and (row["kind"] != "diffusion" or row["system"] == RACE)
        ]
        main = next(row for row in rows if row["system"] == RESNET)
        for axis, quantity, same in zip(
            row_of_axes, ("parameters", "training pictures"), ("training pictures", "parameters"), strict=True
        ):
            family = sorted((r for r in rows if r["system"].startswith(RESNET) and r["kind"] == "standard" and r[same] == main[same]),
                            key=lambda r: r[quantity])  # fmt: skip
            axis.plot([r[quantity] for r in family], [100 * r["accuracy"] for r in family], color=MUTED, lw=1)
            others = [r for r in rows if r["kind"] != "standard" or r["system"] == VIT]
            for row in (*family, *others):
                if row[quantity] is None:
                    continue
                colour, marker = STYLES[row["kind"]]
                y = 100 * row["accuracy"]
                axis.errorbar([row[quantity]], [y], _spread([row]), fmt=marker, color=colour, ms=5, elinewidth=0.8)
                if row["system"] in SHORT:
                    name, at = SHORT[row["system"]], (row[quantity], y)
                    place = LEFT if row["system"] == SYNTHETIC else {"xytext": (6, -3)}
                    axis.annotate(name, at, textcoords="offset points", fontsize=8, color=colour, **place)
            axis.set(xscale="log", xlabel=f"number of {quantity}", ylabel="accuracy in per cent", title=title)
            axis.xaxis.set_major_locator(
                ticker.LogLocator(subs=(1.0, 2.0, 5.0) if quantity == "parameters" else (1.0,))
            )
            axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
            axis.margins(x=0.4)
    return figure


def _spread(rows: list[Row]) -> np.ndarray:
    """(2, N) in points, below and above."""
    return 100 * np.array([[r["accuracy"] - r["low"] for r in rows], [r["high"] - r["accuracy"] for r in rows]])


def _near(share: float, values: np.ndarray, n: int) -> bool:
    """Within half a unit of log odds of what is drawn."""
    places, place = logit(values, n), float(logit(np.array(share), n))
    return bool(places.min() - 0.7 <= place <= places.max() + 0.7)
