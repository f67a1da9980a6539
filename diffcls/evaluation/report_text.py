"""A report as plain objects, as markdown and as a page."""

from __future__ import annotations

import html
import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ..stored import as_json
from .report import NONE

if TYPE_CHECKING:
    from ..reliability import ReliabilityCurve
    from .report import Report

SHOWN = 20
"""Rows at most of a list of errors or of confusions."""

Table = tuple[str, list[str], list[list[str]]]
"""(title, heads, rows of text)."""


def summary(report: Report) -> dict[str, Any]:
    """See `Report.to_dict`."""
    curve, audit = _curve(report), report.audit
    found = plain(
        {
            "n_images": report.n_images,
            "n_judged": report.n_judged,
            "n_errors": report.n_errors,
            "accuracy": report.accuracy,
            "accuracy_interval": report.accuracy_interval,
            "mean_per_class_accuracy": report.mean_per_class_accuracy,
            "mean_per_class_interval": report.mean_per_class_interval(),
            "top_5_accuracy": report.top_k_accuracy(5) if len(report.classes) > 5 else None,
            "ece": None if curve is None else curve.ece,
            "ece_interval": None if curve is None else curve.ece_interval,
            "ece_if_calibrated": None if curve is None else curve.ece_if_calibrated,
            "evaluations": report.evaluations,
            "status": report.status_counts,
            "audit": None if audit is None else {k: v for k, v in audit.to_dict().items() if k != "run"},
            "per_class": report.per_class(),
            "confusion": report.confusion.tolist(),
            "errors": [{"id": id, "error": said} for id, said in report.errors],
            "run": report.run,
        }
    )
    return dict(found)


def plain(value: Any) -> Any:
    """NaN and infinity are no json: None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _curve(report: Report) -> ReliabilityCurve | None:
    """With a bootstrap that takes seconds at most."""
    if not report.n_judged:
        return None
    return report.reliability(n_bootstrap=max(50, min(1000, 20_000_000 // report.n_judged)))


def tables(report: Report) -> list[Table]:
    """What is worth reading, in order."""
    found = [("Figures", ["", "value", "95 % interval"], _figures(report))]
    if report.n_judged:
        per_class = [
            [row["class"], str(row["n"]), *_share(row["accuracy"], (row["low"], row["high"]))]
            for row in report.per_class()
            if row["n"]
        ]
        found.append(("Classes", ["class", "images", "accuracy", "95 % interval"], per_class))
        confused = _confused(report)
        if confused:
            found.append(("Most frequent confusions", ["label", "answer", "images"], confused))
    if report.errors:
        shown = [[id, said] for id, said in report.errors[:SHOWN]]
        title = "Images with errors" if len(report.errors) <= SHOWN else f"Images with errors, the first {SHOWN}"
        found.append((title, ["image", "error"], shown))
    return found


def _figures(report: Report) -> list[list[str]]:
    judged, curve, audit = report.n_judged, _curve(report), report.audit
    rows = [["images", str(report.n_images), ""]]
    rows += [["images with errors", str(report.n_errors), ""]] if report.n_errors else []
    if judged:
        rows += [["images with label and answer", str(judged), ""]] if judged < report.n_images else []
        rows.append(["accuracy", *_share(report.accuracy, report.accuracy_interval)])
        mean = report.mean_per_class_accuracy
        rows.append(["mean per-class accuracy", *_share(mean, report.mean_per_class_interval())])
        if len(report.classes) > 5:
            rows.append(["top-5 accuracy", _percent(report.top_k_accuracy(5)), ""])
    else:
        none = bool((report.label == NONE).all())
        rows.append(["labels", "none: predictions only" if none else "of no image that has an answer", ""])
    if curve is not None:
        low, high = curve.ece_interval
        rows.append(["expected calibration error", f"{curve.ece:.4f}", f"{low:.4f} to {high:.4f}"])
        rows.append(["the same by chance, were it calibrated", f"{curve.ece_if_calibrated:.4f}", ""])
    spent = report.evaluations
    if spent:
        rows.append(["evaluations an image, mean", f"{spent['mean']:.1f}", ""])
        told = ", ".join(f"{spent[name]:.0f}" for name in ("p5", "median", "p95", "p99", "max"))
        rows.append(["percentiles 5, 50, 95, 99 and maximum", told, ""])
    rows += [[f"races that ended as {status!r}", str(count), ""] for status, count in report.status_counts.items()]
    if audit is not None:
        share = _share(audit.disagreement, audit.interval)
        rows.append([f"of {audit.n_images} audited, the full pool answers otherwise", *share])
    return rows


def _confused(report: Report) -> list[list[str]]:
    wrong = report.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN]
    pairs = [np.unravel_index(int(place), wrong.shape) for place in order]
    return [[report.classes[i], report.classes[j], str(wrong[i, j])] for i, j in pairs if wrong[i, j]]


def _share(share: float, interval: tuple[float, float]) -> list[str]:
    return [_percent(share), f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _title(report: Report) -> str:
    return f"{report.run['model']}: {report.n_images} images, {len(report.classes)} classes"


# ---- markdown --------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """See `Report.to_markdown`."""
    parts = [f"# {_cell(_title(report))}"]
    for title, heads, rows in tables(report):
        lines = [heads, ["---"] * len(heads), *rows]
        table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        parts.append(f"## {title}\n\n{table}")
    run = json.dumps(as_json(report.run["fingerprint"]), indent=1)
    parts.append(f"## Run\n\n```json\n{run}\n```")
    return "\n\n".join(parts) + "\n"


_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
"""What markdown could take for more than a character; not the underscores inside of words, which it leaves alone."""


def _cell(text: str) -> str:
    told = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKS.sub(r"\\\g<0>", told)


# ---- html ------------------------------------------------------------------------------------------------------------

_STYLE = (
    "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #999;padding:.2em .8em;text-align:left}"
)


def fragment(report: Report) -> str:
    """Tables, without a page around them."""
    parts = [f"<h1>{html.escape(_title(report))}</h1>"]
    for title, heads, rows in tables(report):
        head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr>{body}</table>")
    return "<div>" + "".join(parts) + "</div>"


def page(report: Report) -> str:
    """See `Report.to_html`."""
    run = html.escape(json.dumps(as_json(report.run), indent=1))
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{html.escape(_title(report))}</title>'
        f"<style>{_STYLE}</style></head><body>{fragment(report)}<h2>Run</h2><pre>{run}</pre></body></html>\n"
    )
