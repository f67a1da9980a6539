"""A shortlist: any quick scorer names k classes, and only these race.

A race spends most of its evaluations on telling the last few classes apart, but with K classes its first round alone costs
``n_min * K``.  A scorer that sees the picture once (CLIP, SigLIP, a probe, a smaller diffusion model) takes all but k of
them away.  The answer is then a hybrid classifier's: what the scorer misses, the race can not find.  So the share of
pictures whose class was not among the k is measured (`Shortlist.measure`) and carried by every result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments
from .errors import DTypeError, InputError, ScorerError
from .images import to_pil
from .intervals import Interval, clopper_pearson
from .labels import check_labels

Scorer = Callable[[Any, list[str]], ArrayLike]


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The `k` classes that a scorer likes best.

    Parameters
    ----------
    scorer : callable, Classifier or transformers pipeline
        ``scorer(image, classes) -> (K,)``, higher is better, of a picture as the caller gave it; a `Classifier` with the
        same classes (a smaller model, or the same with a short policy); or a transformers pipeline of the task
        "zero-shot-image-classification" (CLIP, SigLIP), with its own template.
    k : int
        Classes that are kept; ties go to the lowest index.
    n_images, n_missed : int or None
        What `measure` counted.

    Raises
    ------
    ValueError
        `k` is no integer of 1 or more.
    TypeError
        `scorer` is not callable.
    """

    scorer: Any
    k: int
    n_images: int | None = None
    n_missed: int | None = None

    def __post_init__(self) -> None:
        arguments.integer("k", self.k, at_least=1)
        if not callable(self.scorer):
            raise DTypeError(f"scorer is {type(self.scorer).__name__}, must be callable as scorer(image, classes)")

    @property
    def miss_rate(self) -> float | None:
        """Share of the measured pictures whose class was not among the k; None: not measured."""
        return None if self.n_images is None or self.n_missed is None else self.n_missed / self.n_images

    @property
    def interval(self) -> Interval | None:
        """The miss rate's 95 % interval (Clopper and Pearson)."""
        return None if self.n_images is None or self.n_missed is None else clopper_pearson(self.n_missed, self.n_images)

    def measure(self, images: Sequence[Any], labels: ArrayLike, *, classes: Sequence[str]) -> Shortlist:
        """The same shortlist with its miss rate.

        Parameters
        ----------
        images : sequence of N pictures
        labels : (N,) names or positions
            What must not be missed: true classes; or a classifier's own answers without a shortlist, and then the rate is
            that of answers which the shortlist would change.
        classes : sequence of str
            In the order in which they will be asked.

        Returns
        -------
        Shortlist

        Raises
        ------
        ValueError
            No picture, a label that is no class, or classes that are none or not all different; or as `scores`.
        TypeError
            `images` is no sequence, or `classes` no list of names.
        """
        if (
            isinstance(images, (str, bytes, Mapping))
            or not isinstance(images, Iterable)
            or not isinstance(images, Sized)
        ):
            raise DTypeError(f"images is {type(images).__name__}, must be a sequence of pictures")
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise DTypeError(f"classes is {arguments.shown(classes)}, must be a list of names")
        names = [str(name) for name in classes]
        if not names or len(set(names)) < len(names):
            raise InputError(f"classes is {arguments.shown(names)}, must be one name or more, all different")
        truth = check_labels(labels, len(images), names)
        if not len(truth):
            raise InputError("images is empty; a miss rate needs some")
        missed = sum(int(label) not in self.choose(image, names) for image, label in zip(images, truth, strict=True))
        return replace(self, n_images=len(images), n_missed=missed)

    def choose(self, image: Any, classes: list[str]) -> NDArray[np.int64]:
        """Classes that are kept of one picture.

        Parameters
        ----------
        image : as the scorer takes it
        classes : list of str, (K,)

        Returns
        -------
        (min(k, K),) int64
            Positions in `classes`, ascending.

        Raises
        ------
        ValueError, TypeError
            The scorer gave other than K numbers.
        """
        if self.k >= len(classes):
            return np.arange(len(classes))
        best = np.argsort(-self.scores(image, classes), kind="stable")[: self.k]
        return np.sort(best).astype(np.int64)

    def scores(self, image: Any, classes: list[str]) -> NDArray[np.float64]:
        """The scorer's numbers of one picture.

        Parameters
        ----------
        image : as the scorer takes it
        classes : list of str, (K,)

        Returns
        -------
        (K,) float64
            Higher is better.

        Raises
        ------
        ScorerError
            The scorer gave other than K numbers.
        ValueError
            A classifier has other classes; or as the scorer.
        """
        if getattr(self.scorer, "task", None) == "zero-shot-image-classification":
            found = self.scorer(to_pil(image), candidate_labels=list(classes))
            told = {entry["label"]: entry["score"] for entry in found}
            given: Any = [told.get(name, np.nan) for name in classes]
        elif hasattr(self.scorer, "arms"):  # a Classifier
            if self.scorer.classes != classes:
                raise InputError(f"the shortlist's classifier has classes {self.scorer.classes}, must have {classes}")
            given = self.scorer(image).probabilities
        else:
            given = self.scorer(image, list(classes))
        try:
            scores = arguments.floats("scores", given, "numbers")
        except DTypeError:
            raise ScorerError(
                f"the shortlist's scorer gave {arguments.shown(given)}, must give {len(classes)} numbers, one a class"
            ) from None
        if scores.shape != (len(classes),):
            raise ScorerError(
                f"the shortlist's scorer gave shape {scores.shape}, must be ({len(classes)},): one number a class"
            )
        if np.isnan(scores).any():
            raise ScorerError(f"the shortlist's scorer gave NaN for class {classes[int(np.isnan(scores).argmax())]!r}")
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for run records.

        Returns
        -------
        dict
        """
        name = getattr(self.scorer, "__qualname__", None) or type(self.scorer).__name__
        measured = {"n_images": self.n_images, "miss_rate": self.miss_rate, "interval": self.interval}
        return {"scorer": name, "k": self.k, **measured}
