"""A diffusion classifier as a citizen of PyTorch (extra ``torch``)."""

from __future__ import annotations

from ..errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise MissingExtraError("diffcls.torch needs PyTorch 2.6 or newer: pip install 'diffcls[torch]'") from None

from .adaptation import adapt
from .attack import pgd
from .borrowing import borrowed
from .callbacks import lightning_callback, trainer_callback
from .classifier import DiffusionClassifier
from .evaluator import Evaluation, Evaluator
from .lora import ClassLoRA
from .operators import add_noise, eps_error
from .purification import maximize_likelihood
from .twin import twin

__all__ = [
    "ClassLoRA", "DiffusionClassifier", "Evaluation", "Evaluator", "adapt", "add_noise", "borrowed", "eps_error",
    "lightning_callback", "maximize_likelihood", "pgd", "trainer_callback", "twin",
]  # fmt: skip
