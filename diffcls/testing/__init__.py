"""For those who plug in a model: `check_denoiser` says what is wrong with it, `GaussianMixture` is one that is right.

from diffcls.testing import check_denoiser
print(check_denoiser(denoiser, x_start))
"""

from .check import check_denoiser
from .gaussian import GaussianMixture
from .report import DenoiserReport, Finding

__all__ = ["DenoiserReport", "Finding", "GaussianMixture", "check_denoiser"]
