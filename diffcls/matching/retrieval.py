"""`retrieve`: of N images and M texts, which belong together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import arguments
from ..errors import InputError, ShapeError
from ..intervals import Interval, wilson
from ..options import split_images
from ..policies import Fixed, Policy
from .images import race_images
from .losses import Matcher

Ints = NDArray[np.int64]
DIRECTIONS = ("text", "image")


@dataclass(frozen=True, eq=False)
class Retrieval:
    """What `retrieve` found.

    Attributes
    ----------
    direction : {"text", "image"}
        What was looked for: texts of each image, or images of each text.
    ranking : (N, M) or (M, N) int64
        Candidates, best first.
    rank : (N,) or (M,) int64
        Place of the best candidate that is right; 0: the first, -1: none of the candidates is right.
    n_evals : int
    run : dict
    """

    direction: str
    ranking: Ints = field(repr=False)
    rank: Ints
    n_evals: int
    run: dict[str, Any] = field(repr=False)

    def recall(self, k: int) -> float:
        """Share of queries with a right candidate among the k best, of those that have one at all: recall@k.

        Parameters
        ----------
        k : int
            1 or more.

        Returns
        -------
        float
            NaN: no query has one.

        Raises
        ------
        ValueError, TypeError
            `k` is no integer of 1 or more.
        """
        k, known = arguments.integer("k", k, at_least=1), self.rank[self.rank >= 0]
        return float((known < k).mean()) if len(known) else float("nan")

    def recall_interval(self, k: int) -> Interval:
        """Wilson's interval of `recall`, 95 %.

        Parameters
        ----------
        k : int

        Returns
        -------
        (low, high) : pair of float
            0 and 1 where no query has a right candidate.

        Raises
        ------
        ValueError, TypeError
            `k` is no integer of 1 or more.
        """
        n = int((self.rank >= 0).sum())
        low, high = wilson(round(self.recall(k) * n), n) if n else (0.0, 1.0)
        return float(low), float(high)


def retrieve(
    images: Any,
    texts: Any,
    *,
    model: Any,
    direction: str = "text",
    targets: ArrayLike | None = None,
    policy: Policy | None = None,
    n_samples: int | None = None,
    unconditional: Any = None,
    **options: Any,
) -> Retrieval:
    """Rank texts for each image, or images for each text.

    Texts of one image race: they share its noise, so their losses compare, and most leave early.  Images of one text compare only
    after each image's loss without a text is taken away (`score`), and race by that: see `matching.images.race_images`.

    Parameters
    ----------
    images : N of them, as `classify` takes them
    texts : list of M str
    model : as `classify` takes it
    direction : {"text", "image"}
    targets : (M,) array of int or None
        Of each text, its image.  None: text i is image i's.
    policy : Race, Staged, Fixed or None
        Of each race.  Of direction "image" a trial is of an image and a text, and ``max_evals`` counts these; what was asked
        without a text is kept for all texts.
    n_samples : int or None
        Of direction "image", instead of a policy: so many trials of every image and text, and no race.
    unconditional : str, int or None
        Of direction "image": as for `score`.
    **options
        Of `Classifier`.

    Returns
    -------
    Retrieval

    Raises
    ------
    ValueError
        Unknown direction, targets that are no images, images that can not be compared, `policy` and `n_samples` at once; or
        as `diffcls.classify`.
    TypeError, RuntimeError, ArithmeticError, ImportError
        As `diffcls.classify`.
    """
    if direction not in DIRECTIONS:
        raise InputError(f"direction is {direction!r}, must be 'text' or 'image'")
    if direction == "image":
        if policy is not None and n_samples is not None:
            raise InputError(f"policy is {policy!r} and n_samples {n_samples}: a race, or so many trials of everything")
        asked = policy if n_samples is None else Fixed(n_samples)
        matcher = Matcher(model, texts, unconditional, asked, dict(options))
        ranking, n_evals = race_images(matcher, images)
        m, n_images = ranking.shape
        run = matcher.classifier.run
    else:
        classifier = Matcher(model, texts, None, policy, dict(options), normalise=False).classifier
        items, _ = split_images(images, classifier.denoiser)
        if not items:
            raise InputError("images is empty, must have one image or more")
        results = list(classifier.stream(items))
        ranking = np.array([result.ranking() for result in results], np.int64).reshape(len(items), -1)
        n_images, m = ranking.shape
        n_evals, run = sum(result.n_evals for result in results), classifier.run
    right = _right(targets, n_images, m)
    right = right if direction == "image" else right.T  # (queries, candidates)
    place = np.take_along_axis(right, ranking, axis=1).argmax(axis=1)
    rank = np.where(right.any(axis=1), place, -1).astype(np.int64)
    return Retrieval(direction, ranking, rank, n_evals, run)


def _right(targets: ArrayLike | None, n_images: int, n_texts: int) -> NDArray[np.bool_]:
    """(M, N): the text is the image's."""
    given = np.arange(n_texts) if targets is None else np.asarray(targets)
    if given.shape != (n_texts,):
        raise ShapeError(f"targets has shape {given.shape}, must be ({n_texts},): of each text, its image")
    if given.dtype.kind not in "iu" or ((given < 0) | (given >= n_images)).any():
        raise InputError(f"targets must be numbers of images, 0 to {n_images - 1}, one a text")
    return np.asarray(given[:, None] == np.arange(n_images))
