"""What the page asks for: one picture through the race and its error map, told event by event."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..classifier import Classifier
from ..denoiser import Denoiser
from ..error_maps import error_map
from ..errors import InputError
from ..evaluation.report_text import plain
from ..images import decode
from ..models.registry import load
from ..result import Result
from ..thumbnail import data_url, x_start_picture
from ..watching import watch
from .jobs import Event, Job
from .python_code import python_code

MAX_PIXELS = 25_000_000
"""Of an uploaded picture: a telephone's; as floats of four channels it takes 400 MB for a moment."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""That are opened: what browsers show."""
MAX_PROMPTS, MAX_PROMPT_LENGTH = 50, 200
MAP_SAMPLES = 100
"""Trials of the error map: the difference of two classes is plain long before the 200 that `error_map` takes by itself."""


@dataclass(frozen=True)
class Question:
    """What a request asks.  `name`: the picture's in messages and in the printed Python; `prompts`: None, all classes."""

    model: str
    prompts: list[str] | None
    name: str

    def __post_init__(self) -> None:
        if self.prompts is None:
            return
        if not 2 <= len(self.prompts) <= MAX_PROMPTS:
            raise InputError(f"there are {len(self.prompts)} prompts, must be 2 to {MAX_PROMPTS}")
        longest = max(self.prompts, key=len)
        if len(longest) > MAX_PROMPT_LENGTH:
            raise InputError(f"the prompt {longest[:40]!r}... is longer than {MAX_PROMPT_LENGTH} characters")


class Models:
    """Models that were asked for, each loaded once.

    Parameters
    ----------
    names : sequence of str
        That may be asked for: a request never opens anything else.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._loaded: dict[str, Denoiser] = {}
        self._lock = threading.Lock()

    def is_loaded(self, name: str) -> bool:
        return name in self._loaded

    def get(self, name: str) -> Denoiser:
        if name not in self.names:
            raise InputError(f"model is {name!r}, must be one of {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(name)
            return self._loaded[name]


def classification(models: Models, question: Question, data: bytes, job: Job) -> Iterator[Event]:
    """Events: "loading" (a model, the first time), "start", a "round" each, "result", "evidence".

    The numbers are those of `diffcls.classify` and `diffcls.error_map` with the same arguments: they are their calls.
    """
    picture = decode(io.BytesIO(data), question.name, formats=FORMATS, max_pixels=MAX_PIXELS)
    if not models.is_loaded(question.model):
        yield {"event": "loading", "model": question.model}
    classifier = Classifier(models.get(question.model), question.prompts, progress=job.check)
    if len(classifier.classes) < 2:
        raise InputError(f"{question.model!r} has one class alone: there is nothing to race")
    seen = x_start_picture(classifier.encode(picture).x_start)
    yield {
        "event": "start",
        "classes": classifier.classes,
        "max_evals": classifier.max_evals,
        "seen": data_url(seen),
    }
    began = time.perf_counter()
    for result in watch(classifier, picture):
        yield {"event": "round", "seconds": time.perf_counter() - began, **_standing(result)}
    a, b = (int(i) for i in result.ranking()[:2])
    code = python_code(question, classifier.classes[a], classifier.classes[b], MAP_SAMPLES)
    yield {"event": "result", **plain(result.to_dict()), "kind": result.kind_of_probability, "code": code}
    job.check()
    evidence = error_map(classifier, picture, a, b, n_samples=MAP_SAMPLES)
    yield {
        "event": "evidence",
        "a": evidence.a,
        "b": evidence.b,
        "mean": evidence.mean,
        "n_evals": evidence.n_evals,
        "map": evidence.spatial(smoothing=1.0).tolist(),
    }


def _standing(result: Result) -> Event:
    """Of a round: what the page draws."""
    said = plain(result.to_dict())
    names = ("index", "alive", "n_trials", "probabilities", "excess", "n_evals", "status", "trace")
    return {name: said[name] for name in names}
