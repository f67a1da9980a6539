"""Making an error table: every class at every trial, without a race."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import table_file
from .errors import InputError
from .options import check_policy, split_images
from .policies import Fixed, Lowered, Policy, describe, every_trial, is_list
from .progress import open_progress
from .tables import ErrorTable

if TYPE_CHECKING:
    from .classifier import Classifier


def tabulate(
    classifier: Classifier,
    images: Any,
    n_samples: int | None,
    policy: Policy | None,
    labels: ArrayLike | None,
    path: str | os.PathLike[str] | None,
    *,
    every_class: bool,
) -> ErrorTable:
    """`Classifier.error_table`, which says what is what."""
    if len(classifier.arms.class_of_arm) != len(classifier.classes):
        raise InputError("an error table needs one prompt a class, or pool='mean' or 'logmeanexp'")
    if (n_samples is None) == (policy is None):
        raise InputError("error_table needs n_samples or a policy, one of them")
    policy = check_policy(policy) if n_samples is None else Fixed(n_samples)
    items, _ = split_images(images, classifier.denoiser)
    lowered = classifier._lower(policy)
    lowered = Lowered(lowered.trials, every_trial()) if every_class else lowered
    shape = (len(items), len(classifier.classes), len(lowered.trials["timestep"]))
    table = ErrorTable(
        errors=np.empty(shape) if path is None else np.broadcast_to(np.nan, shape),
        trials=lowered.trials,
        classes=classifier.classes,
        run={**classifier.run, "policy": describe(policy, classifier.denoiser.profile)},
        schedule=classifier.denoiser.schedule,
        weighting=classifier.weighting,
        cost=classifier.arms.cost_of_arm,
        log_prior=classifier.log_prior,
        temperature=classifier.temperature,
        antithetic=classifier.noise_name == "antithetic",
        n_noise=None if classifier.noise is None else len(classifier.noise),
        listed=is_list(policy),
        labels=None if labels is None else np.asarray(labels),
        profile=classifier.denoiser.profile,
    )
    total = len(items) * shape[2] * len(classifier.arms.conditions)
    with ExitStack() as stack:
        errors = table.errors if path is None else stack.enter_context(table_file.filling(table, path))
        report = stack.enter_context(open_progress(classifier.progress, total, len(items)))
        for i, result in enumerate(classifier._classify(items, lowered, report, keep_errors=True)):
            errors[i] = result.errors
    return table if path is None else ErrorTable.load(path)
