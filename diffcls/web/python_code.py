"""The Python that gives the page's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.registry import DEFAULT

if TYPE_CHECKING:
    from .classification import Question


def python_code(question: Question, a: str, b: str, n_samples: int) -> str:
    """To be pasted into a notebook, in the folder of the picture; `a` and `b` are the classes of the error map."""
    asked = [] if question.prompts is None else [f"prompts={_list(question.prompts)}"]
    if question.model != DEFAULT:
        asked.append(f"model={_text(question.model)}")
    picture, classes = _text(question.name), ", ".join([_text(a), _text(b)])
    return f"""\
import diffcls

result = diffcls.classify({", ".join([picture, *asked])})
print(result.label, result.to_list(top_k=3), result.n_evals)

classifier = diffcls.Classifier({", ".join(asked)})
evidence = diffcls.error_map(
    classifier, {picture}, {classes}, n_samples={n_samples}
)
evidence.plot()
"""


def _list(prompts: list[str]) -> str:
    """On a line of its own each, when one line would be long."""
    texts = [_text(prompt) for prompt in prompts]
    short = ", ".join(texts)
    return f"[{short}]" if len(short) <= 60 else "[\n" + "".join(f"    {text},\n" for text in texts) + "]"


def _text(text: str) -> str:
    """A literal; what can not be printed is escaped."""
    literal = repr(text)
    return literal if '"' in text or "'" in text else f'"{literal[1:-1]}"'
