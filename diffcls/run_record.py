"""The record of a run: enough to repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .fingerprint import fingerprint
from .options import describe_calibration, describe_weighting, versions
from .policies import describe
from .prompts import Templates, describe_templates
from .threads import backend

if TYPE_CHECKING:
    from .classifier import Classifier


def run_record(classifier: Classifier, templates: Templates) -> dict[str, Any]:
    """Plain data, the same for every picture; `Result.run` adds what was done to its own."""
    denoiser, cpu = classifier.denoiser, backend()
    facts = {"adapter": dict(denoiser.facts)} if denoiser.facts else {}
    return {
        **facts,
        "model": denoiser.name,
        "weights": denoiser.digest,
        "prediction_type": denoiser.prediction_type,
        "schedule": repr(denoiser.schedule),
        "classes": classifier.classes,
        "templates": describe_templates(templates, classifier.arms.prompts),
        "pool": classifier.pool,
        "policy": describe(classifier.policy, denoiser.profile),
        "loss": classifier.loss,
        "weighting": describe_weighting(classifier.fitted_weighting, classifier.weighting),
        "priors": np.exp(classifier.log_prior).tolist() if classifier.log_prior.any() else None,
        "temperature": classifier.temperature,
        "pool_temperature": classifier.pool_temperature,
        "calibration": describe_calibration(classifier.calibration),
        "noise": classifier.noise_name,
        "seed": classifier.seed,
        "preparation": denoiser.preparation,
        "batch_size": classifier.batch_size,
        "device": str(denoiser.device or "cpu") if classifier.device is None else f"cuda:{classifier.device}",
        "dtype": denoiser.dtype_name,
        "simd": cpu.simd,
        "threads": cpu.n_threads,
        "versions": {**versions(), **denoiser.versions},
        "fingerprint": fingerprint(classifier),
    }
