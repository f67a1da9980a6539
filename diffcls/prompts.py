"""From prompts to classes and conditions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .denoiser import Denoiser
from .errors import DTypeError, InputError, UnknownClassError
from .stored import as_json

Template = str | Callable[[str], str]
Templates = Template | Sequence[Template] | None


@dataclass(frozen=True)
class Arms:
    """What races (csrc/method/race.h): arm a is of class ``class_of_arm[a]`` and asks ``conditions[offset[a]:offset[a + 1]]``."""

    classes: list[str]
    class_of_arm: NDArray[np.int64]
    offset: NDArray[np.int64]
    conditions: NDArray[np.int64]
    prompts: list[list[Any]]
    """Of each class, templates applied: words, or ids of the model's classes."""

    @property
    def texts(self) -> list[str]:
        """Of a text-to-image model: the different prompts, in the order of `conditions`."""
        return list(dict.fromkeys(text for of_class in self.prompts for text in of_class))

    @property
    def cost_of_arm(self) -> NDArray[np.int64]:
        return np.diff(self.offset)


def resolve(denoiser: Denoiser, prompts: Any, templates: Templates, pool: str) -> Arms:
    """Classes in the caller's order and the conditions of their prompts.

    Raises
    ------
    ValueError
        No class, an empty or doubled one, or one that the model does not know.
    """
    if pool not in ("min", "mean", "logmeanexp"):
        raise InputError(f"pool is {pool!r}, must be 'min', 'mean' or 'logmeanexp'")
    listed = _check_templates(templates)
    asked = _by_class(denoiser, prompts)
    look_up = _text_ids() if denoiser.encode_prompts else partial(_look_up, denoiser, _vocabulary(denoiser))
    conditions, resolved = [], []
    for label, words in asked.items():
        variants = [variant for word in words for variant in _apply(listed, word)]
        resolved.append(variants)
        conditions.append([look_up(variant) for variant in variants])
        if len(set(conditions[-1])) < len(variants):
            raise InputError(
                f"two prompts of class {label!r} mean the same class of the model: {', '.join(map(str, words))}"
            )
    _refuse_shared(asked, conditions)
    classes = list(asked)
    if pool == "min":
        class_of_arm = [index for index, ids in enumerate(conditions) for _ in ids]
        sizes = [1] * len(class_of_arm)
    else:
        class_of_arm = list(range(len(classes)))
        sizes = [len(ids) for ids in conditions]
    return Arms(
        classes,
        np.array(class_of_arm, np.int64),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.array([condition for ids in conditions for condition in ids], np.int64),
        resolved,
    )


def describe_templates(templates: Templates, prompts: list[list[Any]]) -> str | None:
    """For the run record, the same in every process.

    Templates stand as they are and functions of a module by their name.  A lambda, a bound method and the like have no name
    that says what they do: they are known by their work, a digest of the resolved `prompts`.
    """
    if templates is None:
        return None
    listed = _check_templates(templates)
    text = ", ".join(map(_name, listed))
    text = text if isinstance(templates, str) or callable(templates) else f"[{text}]"
    if all(isinstance(template, str) or _is_named(template) for template in listed):
        return text
    return f"{text} making {hashlib.sha256(json.dumps(as_json(prompts)).encode()).hexdigest()[:16]}"


def _is_named(template: Any) -> bool:
    return isinstance(template, FunctionType) and "<" not in template.__qualname__


def _name(template: Any) -> str:
    if isinstance(template, str):
        return repr(template)
    if _is_named(template):
        return f"{template.__module__}.{template.__qualname__}"
    return str(getattr(template, "__qualname__", type(template).__qualname__))


def _by_class(denoiser: Denoiser, prompts: Any) -> dict[str, list[Any]]:
    """Label to its prompts."""
    if prompts is None and denoiser.encode_prompts:
        if not denoiser.class_names:
            raise InputError(
                f"prompts is None: {denoiser.name!r} takes any text, so it must be told the classes: give prompts"
            )
        prompts = denoiser.class_names
    if prompts is None:
        named = {name: [index] for index, name in enumerate(denoiser.class_names)}
        if len(named) < denoiser.n_classes:
            doubled = next(name for i, name in enumerate(denoiser.class_names) if named[name] != [i])
            raise InputError(f"two of the model's classes are named {doubled!r}; give a mapping of labels to class ids")
        return named
    if isinstance(prompts, Mapping):
        asked = {str(label): _as_list(value) for label, value in prompts.items()}
        for label, words in asked.items():
            if not words:
                raise InputError(f"class {label!r} has no prompt")
    else:
        if isinstance(prompts, str) or not isinstance(prompts, (Sequence, np.ndarray)):
            raise DTypeError(f"prompts is {prompts!r}, must be a list of classes or a mapping of class to prompts")
        asked = {}
        for prompt in prompts:
            label = denoiser.class_names[prompt] if _is_id(prompt, denoiser) else str(prompt)
            if label in asked:
                raise InputError(f"prompt {label!r} stands twice")
            asked[label] = [prompt]
    if not asked:
        raise InputError("prompts is empty, must name one class or more")
    for label, words in asked.items():
        if any(isinstance(word, str) and not word.strip() for word in (label, *words)):
            raise InputError("a prompt is empty")
    return asked


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_id(prompt: Any, denoiser: Denoiser) -> bool:
    if isinstance(prompt, bool) or not isinstance(prompt, (int, np.integer)):
        return False
    if denoiser.encode_prompts:
        raise UnknownClassError(f"prompt {prompt!r} is a number, {denoiser.name!r} takes words")
    if not 0 <= prompt < denoiser.n_classes:
        raise UnknownClassError(f"class id {prompt} is not one of the model's, 0 to {denoiser.n_classes - 1}")
    return True


def _check_templates(templates: Templates) -> list[Template]:
    if templates is None:
        return ["{}"]
    listed: list[Template] = [templates] if isinstance(templates, str) or callable(templates) else list(templates)
    if not listed:
        raise InputError("templates is empty")
    for template in listed:
        if not callable(template) and (not isinstance(template, str) or "{}" not in template):
            raise InputError(f"template {template!r} has no {{}} for the class")
    return listed


def _apply(templates: list[Template], word: Any) -> list[Any]:
    if not isinstance(word, str):
        return [word]
    return [template.replace("{}", word) if isinstance(template, str) else template(word) for template in templates]


def _text_ids() -> Callable[[Any], int]:
    """Of a model that takes any prompt: each different text gets the next id, as in `Arms.texts`."""
    ids: dict[str, int] = {}

    def look_up(text: Any) -> int:
        if not isinstance(text, str):
            raise UnknownClassError(
                f"prompt {text!r} is of type {type(text).__name__}, a text-to-image model takes words"
            )
        return ids.setdefault(text, len(ids))

    return look_up


def _vocabulary(denoiser: Denoiser) -> dict[str, list[int]]:
    """Lower-case word to the ids it may mean; a class's own name is not a synonym of another."""
    known: dict[str, list[int]] = {}
    own: dict[str, list[int]] = {}
    for index, name in enumerate(denoiser.class_names):
        own.setdefault(name.casefold(), []).append(index)
        for word in denoiser.synonyms.get(name, ()):
            known.setdefault(word.casefold(), []).append(index)
    return known | own


def _look_up(denoiser: Denoiser, known: dict[str, list[int]], word: Any) -> int:
    if _is_id(word, denoiser):
        return int(word)
    ids = known.get(str(word).strip().casefold(), [])
    if len(ids) == 1:
        return ids[0]
    names = denoiser.class_names
    if ids:
        if len({names[i] for i in ids}) == 1:
            raise UnknownClassError(f"{word!r} is the name of classes {', '.join(map(str, ids))}; say which id")
        raise UnknownClassError(f"{word!r} may mean {', '.join(repr(names[i]) for i in ids)}; say which")
    shown = ", ".join(names[:24]) + (", ..." if len(names) > 24 else "")
    raise UnknownClassError(
        f"{word!r} is not a class of {denoiser.name!r}, which knows: {shown}. Other classes need another model (model=...)"
    )


def _refuse_shared(asked: Mapping[str, Sequence[Any]], conditions: Sequence[Sequence[int]]) -> None:
    """Two classes with one condition would tie for ever."""
    owner: dict[int, str] = {}
    for label, ids in zip(asked, conditions, strict=True):
        for condition in set(ids):
            if condition in owner:
                raise InputError(f"prompts {owner[condition]!r} and {label!r} mean the same class of the model")
            owner[condition] = label
