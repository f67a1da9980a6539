"""Policies as words, for the command line."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .errors import InputError
from .policies import Fixed, Policy, Race, Staged, paper, quick

FORMS = (
    "race, race:risk=0.05,n_min=4,caps=25:20/75:10, quick, fixed:100, staged:50,500/5,1, staged:50,500/5,1/published, "
    "paper:cifar10 or full"
)


def parse_policy(text: str) -> Policy | None:
    """The policy that `text` names; None for "full": every trial that a table has.

    ``race`` and ``quick`` with options of `Race` as name=value (``caps=25:20/75:10`` are pairs, ``timesteps=10/20/30`` a list, none is
    None); ``fixed:N``; ``staged:n_samples/to_keep``, with ``/published`` on the published grids; ``paper:NAME``.

    Raises
    ------
    ValueError
        It names none.
    """
    name, _, rest = text.strip().partition(":")
    try:
        if name == "full" and not rest:
            return None
        if name in ("race", "quick"):
            return (Race if name == "race" else quick)(**_options(rest))
        if name == "fixed":
            return Fixed(int(rest))
        if name == "staged":
            n_samples, to_keep, *grids = rest.split("/")
            if grids in ([], ["published"]):
                return Staged(_integers(n_samples), _integers(to_keep), nested=not grids)
        if name == "paper":
            return paper(rest)
    except InputError as error:
        raise InputError(f"policy {text!r}: {error}") from None
    except ValueError:  # of int() and of unpacking
        pass
    raise InputError(f"policy is {text!r}, must be like {FORMS}")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _options(rest: str) -> dict[str, Any]:
    known = [field.name for field in fields(Race)]
    options = {}
    for part in rest.split(",") if rest else []:
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise InputError(f"{part!r} is not name=value with one of {', '.join(known)}")
        given = _value(value)
        options[name] = (given,) if name == "timesteps" and isinstance(given, int) else given
    return options


def _value(text: str) -> Any:
    if ":" in text:
        return tuple((int(trials), int(keep)) for trials, keep in (pair.split(":") for pair in text.split("/")))
    if "/" in text:
        return tuple(int(part) for part in text.split("/"))
    words: dict[str, Any] = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
