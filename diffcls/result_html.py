"""Results in a notebook: picture, bars, evaluations.  Plain HTML in the page's own colours, light or dark; no script."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from .thumbnail import data_url

if TYPE_CHECKING:
    from .result import Result
    from .results import Results

N_CLASSES, N_PICTURES = 10, 12
"""Shown; how many more there are is said."""

WINNER, OTHERS = "#0072B2", "#8C8C8C"
_SPACE = "padding:0.15em 0.5em;white-space:nowrap"
_LEFT = f"text-align:left;{_SPACE}"
_NAME = f"{_LEFT};white-space:normal;max-width:24em"  # prompts are long
_NUMBER = f"text-align:right;font-variant-numeric:tabular-nums;{_SPACE}"


def of_result(result: Result) -> str:
    """Of one picture: what it is, what it cost, and the best classes."""
    shown = result.ranking()[:N_CLASSES].tolist()
    alive = int(result.alive.sum())
    rows = []
    for i in shown:
        bold = "font-weight:bold" if i == result.index else ""
        apart = "" if i == result.index or result.n_trials[i] == 0 else f"{result.excess[i]:+.3g}"
        cells = [
            _cell(html.escape(result.classes[i]), f"{_NAME};{bold}"),
            _cell(_bar(result.probabilities[i], WINNER if i == result.index else OTHERS), _LEFT),
            _cell(f"{result.probabilities[i]:.3f}", f"{_NUMBER};{bold}"),
            _cell(apart, _NUMBER),
            _cell(str(result.n_trials[i]), _NUMBER),
            _cell("" if i == result.index else _fate(result, i), _LEFT),
        ]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    numbers = (result.kind_of_probability, "loss above the winner's", "trials")
    heads = [("class", _LEFT), ("", _LEFT), *((text, _NUMBER) for text in numbers), ("", _LEFT)]
    ends = {
        "decided": "decided",
        "pool_exhausted": f"{alive} of {len(result.classes)} classes never told apart",
        "budget": "out of budget",
        "running": f"{alive} of {len(result.classes)} classes left",
    }
    facts = f"{result.n_evals} evaluations, {ends[result.status]}"
    more = len(result.classes) - len(shown)
    return _box(
        _picture(result.picture, 96),
        f"<b>{html.escape(result.label)}</b> &middot; {facts}",
        _notes(result),
        _table(heads, rows),
        f"<div>and {more} classes more</div>" if more else "",
    )


def of_results(results: Results) -> str:
    """Of several pictures, a row each."""
    shown = list(results[:N_PICTURES])
    rows = []
    for i, result in enumerate(shown):
        best = result.probabilities[result.index]
        cells = [
            _cell(str(i), _NUMBER),
            _cell(_picture(result.picture, 40), _LEFT),
            _cell(f"<b>{html.escape(result.label)}</b>", _NAME),
            _cell(_bar(best, WINNER), _LEFT),
            _cell(f"{best:.3f}", _NUMBER),
            _cell(str(result.n_evals), _NUMBER),
            _cell(html.escape(result.status) + (", unlike training" if result.unlike_training else ""), _LEFT),
        ]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    kind = shown[0].kind_of_probability if shown else "probability"
    words, numbers = ("", "", "answer", ""), (kind, "evaluations")
    heads = [*((text, _LEFT) for text in words), *((text, _NUMBER) for text in numbers), ("status", _LEFT)]
    mean = f", {results.n_evals.mean():.0f} evaluations each" if shown else ""
    more = len(results) - len(shown)
    return _box(
        "",
        f"<b>{len(results)} pictures</b> &middot; {len(results.classes)} classes{mean}",
        "",
        _table(heads, rows) if rows else "",
        f"<div>and {more} pictures more</div>" if more else "",
    )


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _box(picture: str, *parts: str) -> str:
    left = f'<div style="margin-right:1.2em">{picture}</div>' if picture else ""
    body = "".join(f'<div style="margin-bottom:0.4em">{part}</div>' for part in parts if part)
    return f'<div style="display:flex;align-items:flex-start">{left}<div>{body}</div></div>'


def _picture(kept: object, side: int) -> str:
    address = data_url(kept)
    if address is None:
        return ""
    size = f"width:{side}px;height:{side}px;object-fit:contain"
    return f'<img src="{address}" alt="the picture" style="{size};image-rendering:pixelated">'


def _bar(share: float, colour: str) -> str:
    """Of `share` of eight ems; the rest is the track."""
    track = "width:8em;height:0.8em;background:rgba(128,128,128,0.2)"
    return f'<div style="{track}"><div style="height:100%;width:{100 * share:.1f}%;background:{colour}"></div></div>'


def _cell(content: str, style: str) -> str:
    return f'<td style="{style}">{content}</td>'


def _table(heads: list[tuple[str, str]], rows: list[str]) -> str:
    """`heads`: text and style of each column."""
    head = "".join(f'<th style="{style};font-weight:normal;opacity:0.7">{text}</th>' for text, style in heads)
    return f'<table style="border-collapse:collapse;font-size:inherit"><tr>{head}</tr>{"".join(rows)}</table>'


def _fate(result: Result, i: int) -> str:
    """Of a class that did not win."""
    if result.alive[i]:
        return "never told apart"
    return "dropped" if result.n_trials[i] else "not asked"


def _notes(result: Result) -> str:
    return "".join(f"<div>&#9888; {html.escape(text)}</div>" for text in result.warnings)
