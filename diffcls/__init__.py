"""Classify with any conditional diffusion model.

    import diffcls
    diffcls.classify("boot.png", ["ankle boot", "sandal", "sneaker"]).label

Names are imported on first use, so that ``import diffcls`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "classify": "classifier",
    "Classifier": "classifier",
    "Denoiser": "denoiser",
    "Schedule": "schedule",
    "Race": "policies",
    "Staged": "policies",
    "Fixed": "policies",
    "protocol": "protocols",
    "PublishedProtocol": "protocols",
    "Result": "result",
    "Results": "result",
    "Shortlist": "shortlist",
    "Profile": "profile",
    "calibrate": "profiling",
    "Audit": "audit",
    "Weighting": "fitted_weighting",
    "fit_weighting": "fitted_weighting",
    "ErrorMap": "error_maps",
    "ErrorTable": "tables",
    "replay": "replaying",
    "error_map": "error_maps",
    "fit_temperature": "temperature",
    "Calibration": "temperature",
    "reliability_curve": "reliability",
    "ReliabilityCurve": "reliability",
    "risk_coverage_curve": "selective",
    "RiskCoverageCurve": "selective",
    "load": "models.registry",
    "evaluate": "evaluation.run",
    "merge_shards": "evaluation.merging",
    "Report": "evaluation.report",
    "Comparison": "evaluation.comparison",
    "winoground": "matching.winoground",
    "WinogroundReport": "matching.winoground",
    "score": "matching.scoring",
    "Scores": "matching.scoring",
    "retrieve": "matching.retrieval",
    "Retrieval": "matching.retrieval",
    "certify": "smoothing",
    "Certificate": "smoothing",
    "k_denoiser": "k_diffusion",
    "set_num_threads": "threads",
    "get_num_threads": "threads",
    "DiffclsError": "errors",
    "InputError": "errors",
    "UnknownClassError": "errors",
    "ShapeError": "errors",
    "DTypeError": "errors",
    "DeviceError": "errors",
    "DenoiserError": "errors",
    "NonFiniteError": "errors",
    "WeightsError": "errors",
    "ImageError": "errors",
    "MissingExtraError": "errors",
    "FingerprintMismatchError": "errors",
    "StoreError": "errors",
    "OutOfWorldWarning": "errors",
    "DeviceWarning": "errors",
    "TruncationWarning": "errors",
}
_MODULES = (
    "ablation", "cuda", "datasets", "diffusers", "evaluation", "models", "ops", "plotting", "policies", "testing", "weightings"
)  # fmt: skip
_EXTRAS = ("ray", "sklearn", "torch")
"""Modules that can not be imported without their extra: not among ``from diffcls import *``."""

__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from . import ablation, cuda, datasets, diffusers, evaluation, models, ops, plotting, policies, testing, weightings
    from .audit import Audit
    from .classifier import Classifier, classify
    from .denoiser import Denoiser
    from .error_maps import ErrorMap, error_map
    from .errors import (
        DenoiserError,
        DeviceError,
        DeviceWarning,
        DiffclsError,
        DTypeError,
        FingerprintMismatchError,
        ImageError,
        InputError,
        MissingExtraError,
        NonFiniteError,
        OutOfWorldWarning,
        ShapeError,
        StoreError,
        TruncationWarning,
        UnknownClassError,
        WeightsError,
    )
    from .evaluation.comparison import Comparison
    from .evaluation.merging import merge_shards
    from .evaluation.report import Report
    from .evaluation.run import evaluate
    from .fitted_weighting import Weighting, fit_weighting
    from .k_diffusion import k_denoiser
    from .matching.retrieval import Retrieval, retrieve
    from .matching.scoring import Scores, score
    from .matching.winoground import WinogroundReport, winoground
    from .models.registry import load
    from .policies import Fixed, Race, Staged
    from .profile import Profile
    from .profiling import calibrate
    from .protocols import PublishedProtocol, protocol
    from .reliability import ReliabilityCurve, reliability_curve
    from .replaying import replay
    from .result import Result, Results
    from .schedule import Schedule
    from .selective import RiskCoverageCurve, risk_coverage_curve
    from .shortlist import Shortlist
    from .smoothing import Certificate, certify
    from .tables import ErrorTable
    from .temperature import Calibration, fit_temperature
    from .threads import get_num_threads, set_num_threads


def __getattr__(name: str) -> Any:
    if name in _MODULES or name in _EXTRAS:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_EXTRAS})
