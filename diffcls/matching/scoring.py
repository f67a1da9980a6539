"""`score`: how well an image and a text go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..options import split_images
from ..policies import Fixed
from .losses import Floats, Matcher, mean_and_stderr


@dataclass(frozen=True)
class Scores:
    """Of N images and M texts; an image or a text that was given alone has no axis.

    Attributes
    ----------
    score : (N, M) float64
        Higher is better.  ``l(unconditional, image) - l(text, image)`` if normalised, else ``-l(text, image)``.
    stderr : (N, M) float64
        Its standard error over the trials; of a difference, that of the paired differences.
    losses : (N, M) float64
        l: weighted mean over the trials of the denoising error.
    unconditional : (N,) float64 or None
        Loss without a text.
    normalised : bool
    texts : list of str
    run : dict
    """

    score: Floats
    stderr: Floats
    losses: Floats
    unconditional: Floats | None
    normalised: bool
    texts: list[str]
    run: dict[str, Any] = field(repr=False)


def score(
    image: Any,
    text: Any,
    *,
    model: Any,
    n_samples: int = 500,
    normalised: bool | None = None,
    unconditional: Any = None,
    **options: Any,
) -> Scores:
    """Score images and texts by the denoising loss.

    With l(c, x) the mean loss of image x under text c, the score is -l(c, x) (Li et al., ICCV 2023); normalised it is
    ``l("", x) - l(c, x)``, an estimate, up to weights, of log p(x | c) / p(x) (Krojer et al., "Are Diffusion Models
    Vision-And-Language Reasoners?", NeurIPS 2023, section 3).  The first compares texts for one image; only the second
    compares images for one text, because an image's own difficulty is taken away.

    Parameters
    ----------
    image : as `classify` takes it
        One or N.
    text : str or list of str
        One or M.
    model : as `classify` takes it
    n_samples : int
        Trials, the same of every image and text.
    normalised : bool or None
        None: where the model has an unconditional prompt.
    unconditional : str, int or None
        That prompt, or the model's null class.  None: "" for a model that takes prompts, none for another.
    **options
        Of `Classifier`: loss, weighting, seed, batch_size, ...

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        No texts, or doubled ones; no image; `normalised` of a model without an unconditional prompt; or as
        `diffcls.classify`.
    TypeError, RuntimeError, ArithmeticError, ImportError
        As `diffcls.classify`.
    """
    texts = [text] if isinstance(text, str) else text
    matcher = Matcher(model, texts, unconditional, Fixed(n_samples), dict(options))
    normalised = matcher.normalised if normalised is None else normalised
    if normalised and not matcher.normalised:
        raise InputError(
            "normalised is True, and the model has classes of its own: unconditional= must name its null class"
        )
    images, is_one = split_images(image, matcher.classifier.denoiser)
    if not images:
        raise InputError("image is empty, must be one image or more")
    found = matcher.errors(images)
    errors = np.stack([own for own, _ in found])
    priors = np.stack([prior for _, prior in found if prior is not None]) if matcher.normalised else None
    taken = errors if priors is None or not normalised else errors - priors[:, None]
    mean, stderr = mean_and_stderr(taken)
    at: Any = (0 if is_one else slice(None), 0 if isinstance(text, str) else slice(None))
    return Scores(
        score=-mean[at],
        stderr=stderr[at],
        losses=errors.mean(axis=-1)[at],
        unconditional=None if priors is None else priors.mean(axis=-1)[at[0]],
        normalised=bool(normalised),
        texts=matcher.texts,
        run=matcher.classifier.run,
    )
