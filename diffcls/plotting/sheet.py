"""Many pictures with their answers, as one picture."""

from __future__ import annotations

from typing import Any

from .display import VERMILION, pyplot
from .elimination import EliminationDisplay


def contact_sheet(pictures: Any, results: Any, truth: list[str], path: Any) -> None:
    """A PNG of every picture with its answer and its elimination curve; wrong answers in vermilion, and said.

    Parameters
    ----------
    pictures : sequence of (H, W) or (H, W, C) arrays
    results : sequence of Result
        One a picture.
    truth : list of str
        True class of each.
    path : path
        Where the PNG goes.

    Raises
    ------
    ValueError
        Not as many pictures as results, or none.
    ImportError
        matplotlib is not installed.
    """
    columns, n = 6, len(results)
    rows = -(-n // columns)
    figure, axes = pyplot().subplots(
        rows, 2 * columns, figsize=(3.2 * columns, 1.9 * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for i, (picture, result) in enumerate(zip(pictures, results, strict=True)):
        image, curve = axes[i // columns][2 * (i % columns)], axes[i // columns][2 * (i % columns) + 1]
        right = result.label == truth[i]
        image.imshow(picture, cmap="gray", interpolation="nearest")
        text = result.label if right else f"{result.label}\n(is {truth[i]})"
        wrong = {} if right else {"color": VERMILION, "fontweight": "bold"}
        image.set_title(text, fontsize=8, **wrong)
        curve.axis("on")
        EliminationDisplay.from_result(result, ax=curve, names=False)
        curve.set(xlabel="", ylabel="")
        curve.set_title(f"p {result.probabilities[result.index]:.2f}, {result.n_evals} evals", fontsize=7)
        curve.tick_params(labelsize=6)
    figure.suptitle("classes alive against denoiser evaluations; a wrong answer is coloured", fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot().close(figure)
