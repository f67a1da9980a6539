"""Images of one text: which is the text's, by the normalised loss, with as few evaluations as a race needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..classifier import Classifier
from ..core_types import Trials
from ..errors import InputError
from ..in_flight import Encoded
from ..options import split_images
from ..policies import Lowered, every_trial
from ..reference_race import RaceReference
from .losses import UNCONDITIONAL, Floats, Matcher


def race_images(matcher: Matcher, images: Any) -> tuple[NDArray[np.int64], int]:
    """Images of each text, best first, (M, N), and the evaluations spent.

    An arm is an image, and what it shows at trial s is ``d_s = e_s(text) - e_s(without)``, whose mean is minus its normalised
    score.  The race is the classes' own, on the differences ``d_s - d'_s`` of two images at the same trials: its test needs that
    these are alike from trial to trial, which they are, not that the images' d rise and fall together.  So it is as sound as
    between classes, and less sharp: of what the noise does only the timestep's part is common to two images, so more trials are
    needed for the same gap.  Errors without a text belong to an image alone, and are asked once for all texts, when first needed.

    Raises
    ------
    ValueError
        No image, or a model without an unconditional prompt; or as `diffcls.classify`.
    """
    if not matcher.normalised:
        raise InputError(
            "images of one text compare by the normalised loss, and the model has classes of its own: unconditional= must name "
            "its null class"
        )
    classifier = matcher.classifier
    items, _ = split_images(images, classifier.denoiser)
    if not items:
        raise InputError("images is empty, must have one image or more")
    pictures = [classifier.encode(item, i, listed=False) for i, item in enumerate(items)]
    lowered = classifier.lower_for(len(pictures))
    without = _Grown(matcher.alone(UNCONDITIONAL), pictures, lowered)
    ranking, n_evals = [], 0
    for text in matcher.texts:
        under = matcher.alone(text)

        def ask(arms: list[int], trials: range, under: Classifier = under) -> Floats:
            own = _errors(under, [pictures[i] for i in arms], lowered, trials)
            return own - without.up_to(arms, trials.stop)[:, trials.start :]

        room = np.full((len(pictures), len(lowered.trials["weight"])), np.nan)
        race = RaceReference(
            room, lowered.trials["weight"], lowered.policy, _core.student_isf, range(len(pictures)), ask
        ).run()
        if not race.n:
            raise InputError(f"max_evals allows no trial of {len(pictures)} images")
        excess = race.excess()
        excess[race.leader()] = -np.inf  # first, also where another had few and lucky trials
        ranking.append(np.argsort(excess, kind="stable"))
        n_evals += race.n_evals
    return np.array(ranking, np.int64), n_evals + without.n_evals


class _Grown:
    """Errors (N, S) of one condition, asked only as far as they are needed."""

    def __init__(self, classifier: Classifier, pictures: Sequence[Encoded], lowered: Lowered) -> None:
        self.classifier, self.pictures, self.lowered = classifier, pictures, lowered
        self.errors = np.full((len(pictures), len(lowered.trials["weight"])), np.nan)
        self.n = np.zeros(len(pictures), np.int64)

    @property
    def n_evals(self) -> int:
        return int(self.n.sum())

    def up_to(self, arms: list[int], stop: int) -> Floats:
        """(len(arms), stop)."""
        short = np.array([i for i in arms if self.n[i] < stop], np.int64)
        for start in np.unique(self.n[short]).tolist():
            those = short[self.n[short] == start]
            asked = _errors(self.classifier, [self.pictures[i] for i in those], self.lowered, range(start, stop))
            self.errors[those, start:stop] = asked
        self.n[short] = stop
        return self.errors[arms, :stop]


def _errors(classifier: Classifier, pictures: list[Encoded], lowered: Lowered, trials: range) -> Floats:
    """(N, len(trials)) unweighted errors under the classifier's one prompt."""
    pool, at = lowered.trials, slice(trials.start, trials.stop)
    some: Trials = {
        "timestep": pool["timestep"][at],
        "noise_index": pool["noise_index"][at],
        "eps_sign": pool["eps_sign"][at],
        "weight": pool["weight"][at],
    }
    results = classifier.classify_encoded(pictures, Lowered(some, every_trial()), keep_errors=True)
    return np.stack([result.errors[0] for result in results if result.errors is not None])
