"""Does the policy answer as the full pool does?  A share of the pictures, evaluated in full, and an exact interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, arguments
from .errors import InputError
from .intervals import clopper_pearson
from .options import split_images
from .policies import Lowered, every_trial
from .progress import open_progress

if TYPE_CHECKING:
    from .classifier import Classifier
    from .result import Result


@dataclass(frozen=True)
class Audit:
    """What `Classifier.audit` found.

    Attributes
    ----------
    n_images : int
        Pictures evaluated in full.
    n_disagree : int
        Of them, those on which the policy and the full pool answer differently.
    disagreement : float
        Their share.
    interval : (float, float)
        Clopper-Pearson interval of the share, at `confidence`.
    confidence : float
    stated : float
        Mean of the results' `p_disagree`: what the policy itself said of these pictures.
    n_evals, n_evals_full : int
        Evaluations of the policy and of the full pool on these pictures.
    indices, disagreeing : list of int
        Positions in `images` that were audited, and those of them with different answers.
    run : dict
    """

    n_images: int
    n_disagree: int
    disagreement: float
    interval: tuple[float, float]
    confidence: float
    stated: float
    n_evals: int
    n_evals_full: int
    indices: list[int] = field(repr=False)
    disagreeing: list[int] = field(repr=False)
    run: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        low, high = (f"{100 * bound:.2f}" for bound in self.interval)
        return (
            f"{self.n_disagree} of {self.n_images} answers differ from the full pool's: {100 * self.disagreement:.2f} % "
            f"({100 * self.confidence:g} % interval {low} to {high}), "
            f"for {self.n_evals_full / self.n_evals:.1f} times fewer evaluations"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects.

        Returns
        -------
        dict
        """
        return asdict(self)


def audit(classifier: Classifier, images: Any, share: float, minimum: int, confidence: float, seed: int) -> Audit:
    """See `Classifier.audit`."""
    share = arguments.number("share", share, "a number from 0 to 1", lambda x: 0.0 <= x <= 1.0)
    minimum = arguments.integer("minimum", minimum, at_least=1)
    confidence = arguments.between_0_and_1("confidence", confidence)
    items, _ = split_images(images, classifier.denoiser)
    if not items:
        raise InputError("images is empty; an audit needs some")
    indices = choose(len(items), max(minimum, math.ceil(share * len(items))), seed)
    chosen = [items[i] for i in indices]
    own = classifier._lowered
    fast, slow = (_run(classifier, chosen, policy) for policy in (None, Lowered(own.trials, every_trial())))
    disagreeing = [i for i, a, b in zip(indices, fast, slow, strict=True) if a.index != b.index]
    return Audit(
        n_images=len(chosen),
        n_disagree=len(disagreeing),
        disagreement=len(disagreeing) / len(chosen),
        interval=clopper_pearson(len(disagreeing), len(chosen), confidence),
        confidence=confidence,
        stated=float(np.mean([result.p_disagree for result in fast])),
        n_evals=int(sum(result.n_evals for result in fast)),
        n_evals_full=int(sum(result.n_evals for result in slow)),
        indices=indices,
        disagreeing=disagreeing,
        run={**classifier.run, "audit": {"share": share, "minimum": minimum, "seed": seed}},
    )


def _run(classifier: Classifier, items: list[Any], lowered: Lowered | None) -> list[Result]:
    """Of every class, or as the classifier answers by itself."""
    with open_progress(classifier.progress, len(items) * classifier.max_evals, len(items)) as report:
        return list(classifier._classify(items, lowered, report, keep_errors=False))


def choose(n: int, size: int, seed: int) -> list[int]:
    """`size` of 0 .. n - 1 in rising order (all if there are no more): those with the smallest Philox words of the seed."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    words = [_core.philox4x32((i & 0xFFFFFFFF, i >> 32, 0, 0), key)[:2] for i in range(n)]
    return sorted(sorted(range(n), key=lambda i: (words[i], i))[:size])
