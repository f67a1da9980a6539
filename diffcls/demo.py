"""``diffcls demo``: the bundled pictures through the embedded model, as a table and, with matplotlib, a contact sheet."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

from .classifier import Classifier
from .errors import InputError, MissingExtraError, OutOfWorldWarning
from .models import demo_pictures
from .results import Results


def run(out: Path | None, *, progress: bool | None = True) -> dict[str, Any]:
    """Classifies the pictures among the model's twenty classes, prints the table, writes the sheet to `out`.

    Returns
    -------
    dict
        Figures of the last line: right, pictures, evaluations, full, seconds.

    Raises
    ------
    ValueError
        `out` is a folder, or in none.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"out is {out}, must be a file in a folder that is there")
    pictures, labels = demo_pictures.load()
    classifier = Classifier(progress=progress)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfWorldWarning)  # the table says it
        results = classifier(pictures)
    seconds = time.perf_counter() - began
    assert isinstance(results, Results)
    truth = [classifier.classes[label] for label in labels]
    full = classifier.max_evals
    print(table(results, truth, full))
    right = sum(result.label == name for result, name in zip(results, truth, strict=True))
    total = int(results.n_evals.sum())
    print(
        f"\n{right} of {len(truth)} right; {total} evaluations instead of {full * len(truth)} "
        f"({full * len(truth) / total:.0f} times fewer) in {seconds:.1f} s"
    )
    if out is not None:
        _write_sheet(pictures, results, truth, out)
    return {
        "right": right, "pictures": len(truth), "evaluations": total, "full": full * len(truth), "seconds": seconds,
    }  # fmt: skip


def table(results: Results, truth: list[str], full: int) -> str:
    """One line a picture: truth, answer, probability, evaluations, saving against full evaluation."""
    width = max(len(name) for name in [*truth, *results.classes])
    lines = [f"{'truth':{width}}  {'answer':{width}}  probability  evaluations  saving"]
    for result, name in zip(results, truth, strict=True):
        mark = "" if result.label == name else "  wrong"
        mark += "  (unlike the training pictures)" if result.unlike_training else ""
        lines.append(
            f"{name:{width}}  {result.label:{width}}  {result.probabilities[result.index]:11.3f}  {result.n_evals:11d}  "
            f"{full / result.n_evals:5.0f}x{mark}"
        )
    return "\n".join(lines)


def _write_sheet(pictures: Any, results: Results, truth: list[str], out: Path) -> None:
    from .plotting import contact_sheet

    try:
        contact_sheet(pictures, results, truth, out)
    except MissingExtraError as error:
        print(f"no contact sheet: {error}", file=sys.stderr)
    else:
        print(f"contact sheet: {out}")
