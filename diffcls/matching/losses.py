"""Losses of images under texts, paired: the same trials and noise for every image and every text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classifier import Classifier
from ..denoiser import Denoiser
from ..errors import DTypeError, InputError
from ..models.registry import open_model
from ..policies import Fixed, Policy

Floats = NDArray[np.float64]

UNCONDITIONAL = "(unconditional)"
"""What the prompt that normalises is called among the classes."""


class Matcher:
    """A classifier whose classes are texts, and the prompt that normalises, if there is one.

    Parameters
    ----------
    model
        As `diffcls.classify` takes it.
    texts : sequence of str
        Different ones; of a model with classes of its own, their names.
    unconditional : str, int or None
        Its prompt for "no text"; None: "" for a model that takes prompts, and no normalised score for another one, whose null
        class the caller names.
    policy, options
        Of `Classifier`.
    normalise : bool
        False: there is no such prompt.
    """

    def __init__(
        self,
        model: Any,
        texts: Sequence[str],
        unconditional: Any,
        policy: Policy | None,
        options: dict[str, Any],
        *,
        normalise: bool = True,
    ) -> None:
        texts = check_texts("texts", texts)
        check_options(options)
        denoiser = open_model(model, options.pop("device", None), options.pop("dtype", None))
        if denoiser.encode_prompts and unconditional is None and normalise:
            unconditional = ""
        prompts: dict[str, Any] = {text: text for text in texts}
        if unconditional is not None:
            prompts[UNCONDITIONAL] = unconditional
        if denoiser.encode_prompts:
            denoiser, prompts = _with_texts(denoiser, prompts)
        self.texts, self.normalised = texts, unconditional is not None
        self.classifier = Classifier(denoiser, prompts, policy=policy, **options)
        self._parts = (denoiser, prompts, {"policy": Fixed(1), **options})  # `alone` is told its trials

    def alone(self, text: str) -> Classifier:
        """Of one of the texts, or of `UNCONDITIONAL`, with the noise that it has among the others."""
        denoiser, prompts, options = self._parts
        return Classifier(denoiser, {text: prompts[text]}, **options)

    def errors(
        self, images: Iterable[Any], texts_of: Iterable[Sequence[int]] | None = None
    ) -> list[tuple[Floats, Floats | None]]:
        """Weighted errors of each image: (its texts, S), and (S,) of the prompt that normalises.

        `texts_of` : of each image the positions of its texts, rising; None: all of them.
        """
        classifier, n = self.classifier, len(self.texts)
        prior = [n] if self.normalised else []
        lists = None if texts_of is None else [np.array([*texts, *prior], np.int64) for texts in texts_of]
        encoded = (
            classifier.encode(image, i, listed=False)._replace(chosen=None if lists is None else lists[i])
            for i, image in enumerate(images)
        )
        found = []
        for i, result in enumerate(classifier.classify_encoded(encoded, keep_errors=True)):
            assert result.errors is not None
            asked = result.errors[np.arange(n + len(prior)) if lists is None else lists[i]]
            weighted = asked * classifier.trials["weight"]
            found.append((weighted[:-1], weighted[-1]) if prior else (weighted, None))
        return found


OWN = ("model", "prompts", "policy", "shortlist", "keep_errors", "templates")
"""Options of `Classifier` that matching sets itself, or that would change which texts there are."""


def check_options(options: dict[str, Any]) -> None:
    """
    Raises
    ------
    ValueError
        An option is matching's own.
    """
    own = [name for name in OWN if name in options]
    if own:
        raise InputError(
            f"{', '.join(own)} can not be given: the texts are the prompts, and each is asked n_samples trials"
        )


def check_texts(name: str, texts: Any) -> list[str]:
    """
    Raises
    ------
    TypeError, ValueError
        Not a sequence of different texts, at least one, none of them empty.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise DTypeError(f"{name} is {type(texts).__name__}, must be a list of texts")
    if not texts or any(not text.strip() for text in texts):
        raise InputError(f"{name} must have one text or more, none of them empty")
    doubled = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
    if doubled is not None:
        raise InputError(f"{name} has {doubled!r} twice")
    return list(texts)


def first_read_alike(denoiser: Denoiser, texts: Sequence[str]) -> dict[str, str]:
    """Of each text the first that the model reads as it, so as one condition: tokenizers may not know capitals."""
    read_as = getattr(denoiser.encode_prompts, "read_as", None)
    readings = list(texts) if read_as is None else read_as(list(texts))
    owner: dict[Any, str] = {}
    return {text: owner.setdefault(reading, text) for text, reading in zip(texts, readings, strict=True)}


def _with_texts(denoiser: Denoiser, prompts: dict[str, Any]) -> tuple[Denoiser, dict[str, Any]]:
    """The prompts encoded, and each named by its place: the empty one is a class like the others."""
    encoded = denoiser.with_prompts([str(prompt) for prompt in prompts.values()])
    encoded.encode_prompts = None
    return encoded, {name: i for i, name in enumerate(prompts)}


def mean_and_stderr(values: Floats) -> tuple[Floats, Floats]:
    """Over the last axis, trials; one trial has no standard error."""
    n = values.shape[-1]
    spread = values.std(axis=-1, ddof=1) if n > 1 else np.full(values.shape[:-1], np.nan)
    return values.mean(axis=-1), spread / np.sqrt(n)
