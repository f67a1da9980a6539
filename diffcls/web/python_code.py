"""The Python that gives the page's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.registry import DEFAULT

if TYPE_CHECKING:
    from .classification import Question


def python_code(question: Question, a: str, b: str, n_samples: int) -> str:
    """To be pasted into a notebook, in the folder of the picture; `a` and `b` are the classes of the error map."""
    asked = [] if question.model == DEFAULT else [_text(question.model)]
    if question.prompts is not None:
        texts = [_text(prompt) for prompt in question.prompts]
        asked.append(("" if asked else "prompts=") + _call("[", texts, "]"))
    picture = _text(question.name)
    shown = ["classifier", picture, _text(a), _text(b), f"n_samples={n_samples}"]
    return f"""\
import diffcls

classifier = diffcls.Classifier({", ".join(asked)})
result = classifier({picture})
print(result.label, result.to_list(top_k=3), result.n_evals)

evidence = {_call("diffcls.error_map(", shown, ")")}
evidence.plot()
"""


def _call(before: str, items: list[str], after: str) -> str:
    """On lines of their own, when one line would be long."""
    line = ", ".join(items)
    return (
        f"{before}{line}{after}"
        if len(line) <= 50
        else before + "".join(f"\n    {item}," for item in items) + f"\n{after}"
    )


def _text(text: str) -> str:
    """A literal; what can not be printed is escaped."""
    literal = repr(text)
    return literal if '"' in text or "'" in text else f'"{literal[1:-1]}"'
