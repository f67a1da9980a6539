"""From a finished race to a `Result`: what is said of the picture, and which errors are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .core_types import RaceResult, Trials
from .errors import OutOfWorldWarning, warn_caller
from .result import Result
from .thumbnail import keep

if TYPE_CHECKING:
    from .classifier import Classifier


TOO_FEW = "too few trials to tell whether the picture is unlike the training pictures"


def answer(
    classifier: Classifier,
    race: RaceResult,
    x_start: NDArray[np.float32],
    preparation: Any,
    trials: Trials,
    *,
    keep_errors: bool,
) -> Result:
    unlike, told = _judge(classifier, race, x_start, trials)
    if unlike:
        message = f"a picture is unlike what {classifier.denoiser.name!r} was trained on: the answer means little"
        warn_caller(f"{message} (each such Result says so in .warnings)", OutOfWorldWarning)
    done = asdict(preparation) if is_dataclass(preparation) and not isinstance(preparation, type) else preparation
    return Result.from_race(
        race,
        classes=classifier.classes,
        log_prior=classifier.log_prior,
        temperature=classifier.temperature,
        run=classifier.run if done is None else {**classifier.run, "preparation": done},
        errors=_errors_by_class(classifier, race["errors"], trials) if keep_errors else None,
        unlike_training=unlike,
        warnings=told,
    )


def with_pictures(results: Iterable[Result], images: Iterable[Any]) -> list[Result]:
    """Each with what is kept of its picture."""
    return [replace(result, picture=keep(image)) for result, image in zip(results, images, strict=True)]


def _judge(
    classifier: Classifier, race: RaceResult, x_start: NDArray[np.float32], trials: Trials
) -> tuple[bool | None, list[str]]:
    """`Result.unlike_training`, and what to say of it."""
    world, errors = classifier.denoiser.world, race["errors"]
    if world is None or errors is None or classifier.loss != "l2" or race["status"] == "running":
        return None, []
    arm = best_arms(classifier, errors, trials)[race["index"]]
    asked = classifier.arms.conditions[classifier.arms.offset[arm] : classifier.arms.offset[arm + 1]]
    if len(asked) > 1:
        return None, []
    score = world.score(errors[arm], trials["timestep"], x_start, int(asked[0]))
    if score is None:
        return None, [TOO_FEW]
    if score >= world.threshold:
        return False, []
    return True, [
        f"the picture is unlike what {classifier.denoiser.name!r} was trained on as "
        f"{classifier.denoiser.class_names[asked[0]]!r} (log density {score:.3g}, {world.quantile:.0%} of its own "
        f"pictures stay above {world.threshold:.3g}): the answer means little"
    ]


def _errors_by_class(
    classifier: Classifier, errors: NDArray[np.float64] | None, trials: Trials
) -> NDArray[np.float64] | None:
    """(K, S): of each class's best arm."""
    return None if errors is None else errors[best_arms(classifier, errors, trials)]


def best_arms(classifier: Classifier, errors: NDArray[np.float64], trials: Trials) -> list[int]:
    """(K,): of a class's prompts the one that got furthest, then the one with the smallest mean."""
    if len(errors) == len(classifier.classes):
        return list(range(len(errors)))
    n = np.isfinite(errors).sum(axis=1)
    mean = np.nansum(errors * trials["weight"], axis=1) / np.maximum(n, 1)
    return [
        min(
            (int(arm) for arm in np.flatnonzero(classifier.arms.class_of_arm == c)),
            key=lambda arm: (-n[arm], mean[arm]),
        )
        for c in range(len(classifier.classes))
    ]
