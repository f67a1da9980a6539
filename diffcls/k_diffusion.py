"""Denoisers of k-diffusion's and EDM's kind: ``model(x, sigma, **conditions)`` gives x_start from ``x = x_start + sigma * eps``.

That is the interface of k-diffusion's wrappers (Karras's Denoiser, CompVisDenoiser, CompVisVDenoiser, ...) and of EDM's
networks (EDMPrecond and its like), whatever is inside.  What the model says of x_start is turned into what it says of the
noise, ``(x - model(x, sigma)) / sigma``, so that its errors compare with those of other models: in x_start they would
be ``sigma**2`` times as large, and only the noisiest levels would count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .arguments import floats, integer
from .denoiser import Denoiser
from .errors import DTypeError, InputError
from .framework_calls import Conditions, evaluating
from .schedule import Schedule


def k_denoiser(
    model: Any,
    *,
    shape: Sequence[int],
    sigmas: ArrayLike | None = None,
    condition: str,
    one_hot: bool = False,
    n_classes: int | None = None,
    conditions: Conditions = None,
    class_names: Sequence[str] | None = None,
    encode: Callable[[Any], Any] | None = None,
    device: Any = None,
    dtype: Any = None,
    name: str | None = None,
) -> Denoiser:
    """A `Denoiser` from ``model(x, sigma, **{condition: cond}) -> x_start``.

    Parameters
    ----------
    model : callable of torch tensors
        x (B, *shape), sigma (B,) float32.
    shape : tuple of int
    sigmas : (T,) array_like or None
        Noise levels, each once.  None: the model's own ``sigmas``, which k-diffusion's wrappers of discrete models have.
    condition : str
        Name of the argument that takes the class: "class_cond" in k-diffusion, "class_labels" in EDM, "cond" in CompVis'.
    one_hot : bool
        The argument is a row of zeros with a one (EDM), not a number.
    n_classes, conditions, class_names, encode, device, dtype, name
        Of the `Denoiser`.

    Returns
    -------
    Denoiser
        Predicts eps, ``(x - model(x, sigma)) / sigma``.

    Raises
    ------
    ValueError
        No noise levels, or some that are not positive and finite.
    TypeError
        `model` is not callable.
    """
    if not callable(model):
        raise DTypeError(f"model is {type(model).__name__}, must be callable as model(x, sigma, {condition}=...)")
    if not isinstance(condition, str) or not condition.isidentifier():
        raise InputError(f"condition is {condition!r}, must be the name of the model's argument that takes the class")
    levels = _levels(model, sigmas)
    if one_hot:
        if conditions is not None:
            raise InputError("one_hot makes rows of class numbers, and conditions were given")
        count = n_classes if n_classes is not None else None if class_names is None else len(class_names)
        conditions = np.eye(integer("n_classes", count, at_least=1), dtype=np.float32)

    def predict(x_t: Any, sigma: Any, cond: Any) -> Any:
        level = sigma.reshape(-1, *[1] * (x_t.ndim - 1))
        with evaluating(model):
            return (x_t - model(x_t, sigma, **{condition: cond})) / level

    if device is None and hasattr(model, "parameters"):
        device = next((parameter.device for parameter in model.parameters()), None)
    return Denoiser(
        predict,
        shape=shape,
        schedule=Schedule(np.ones_like(levels), levels, levels, discrete=False, prediction_type="epsilon"),
        conditions=conditions,
        n_classes=n_classes,
        class_names=class_names,
        framework="torch",
        device=device,
        dtype=dtype,
        encode=encode,
        name=name or type(model).__name__,
    )


def _levels(model: Any, given: ArrayLike | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ascending."""
    own = getattr(model, "sigmas", None)
    if given is None and own is None:
        raise InputError(
            "sigmas must be given: the model has none of its own, so it does not tell which noise levels it knows"
        )
    source: Any = own if given is None else given
    if hasattr(source, "detach"):
        source = source.detach().cpu().numpy()
    levels = np.sort(floats("sigmas", source, "an array of noise levels").ravel())
    if not len(levels) or not np.isfinite(levels).all() or levels[0] <= 0.0 or (np.diff(levels) <= 0).any():
        raise InputError("sigmas must be positive and finite, each once")
    return levels
