"""`classify`: pictures and prompts in, results out."""

from __future__ import annotations

from typing import Any

from .classifier import Classifier, Progress
from .policies import Policy
from .prompts import Templates
from .result import Result
from .results import Results
from .shortlist import Shortlist
from .temperature import Calibration


def classify(
    image: Any,
    prompts: Any = None,
    *,
    model: Any = None,
    policy: Policy | None = None,
    templates: Templates = None,
    pool: str = "min",
    loss: str = "l2",
    weighting: Any = None,
    priors: Any = None,
    temperature: float | Calibration | None = None,
    noise: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: Any = None,
    dtype: Any = None,
    progress: Progress = None,
    keep_errors: bool = False,
    shortlist: Shortlist | None = None,
) -> Result | Results:
    """Classify one or several pictures with a conditional diffusion model (Li et al., ICCV 2023).

    ``loss_k = mean over trials of w(t) mean_elements rho(model(x_t, t, c_k) - target)``; the label is the smallest.

    Parameters
    ----------
    image : path, PIL.Image, array, or a list or batch of those
        (H, W) or (H, W, C), uint8 or floats in [0, 1].  With a `Denoiser` that has no `encode`: x_start itself,
        (*shape) or (N, *shape).
    prompts : list of str, mapping of label to str or list of str, or None
        Classes; None: all of the model's own.
    model : None, str, path, diffusers pipeline, mapping of components or Denoiser
        None: the embedded model.  Else the name of an embedded model, or whatever `load` takes: a hub id, a folder in
        diffusers' layout, a pipeline, its components.
    policy : Race, Staged or Fixed
        None: the model's own where it has one (the embedded model's is `policies.quick`), else ``Race()``.
    templates : str with {}, callable, or a list of them
    pool : {"min", "mean", "logmeanexp"}
        Several prompts a class: the best one counts, or their errors are pooled inside each trial ("logmeanexp" with
        `temperature`).
    loss : {"l2", "l1", "huber"}
    weighting : None, str, Weighting or (T,) array
        Of the errors in the model's own parameterisation, over timesteps.  None: the model's own where it has one, else
        "uniform".  A name is one of `weightings.names`: "epsilon", "min_snr", "likelihood", ...; `weightings` says what
        each means, and why "uniform" is the default for every prediction type.  A `Weighting` is fitted (`fit_weighting`).
    priors : None, (K,) array or mapping of label to number
    temperature : float, Calibration or None
        Of the probabilities: a number, or what `fit_temperature` found (its biases are added to the log priors).  None:
        the model's fitted one where it has one, else 1.  `Result.calibrated` says whether it was fitted to losses like
        these.
    noise : None, "antithetic" or array (n, *shape)
        None: the counter-based stream of `seed`.  With an array trial i uses row i.
    seed : int
        0 to 2**64 - 1.
    batch_size : int or None
        Rows that the denoiser is asked at once.  Never changes a loss unless the denoiser's own rows depend on it.
    device, dtype
        Of a `Denoiser`'s tensors, where it does not say.  A native model, the embedded one too, computes on "cpu" or "cuda",
        there in "float32", "tf32", "float16" or "bfloat16".
    progress : None, bool or callable(done, max)
        None: a bar on a terminal or in a notebook when the work is long.
    keep_errors : bool
        Keep every trial's error in the result.
    shortlist : Shortlist or None
        Only the classes that it chooses race; the others have no trial, and its miss rate joins `Result.p_disagree`.

    Returns
    -------
    Result or Results
        One for one picture, a sequence for several.

    Raises
    ------
    ValueError
        An impossible option, a prompt that names no class of the model or several, a picture that can not be read or has
        another shape than the model takes, or a calibration, weighting or profile fitted under other settings.
    TypeError
        An argument of the wrong type.
    RuntimeError
        The denoiser broke its contract, or a device is not the model's.
    ArithmeticError
        The denoiser predicted NaN or infinity.
    ImportError
        A package that an extra brings is not installed.
    """
    classifier = Classifier(
        model,
        prompts,
        policy=policy,
        templates=templates,
        pool=pool,
        loss=loss,
        weighting=weighting,
        priors=priors,
        temperature=temperature,
        noise=noise,
        seed=seed,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        progress=progress,
        keep_errors=keep_errors,
        shortlist=shortlist,
    )
    return classifier(image)
