"""Certified radii by randomised smoothing (Cohen, Rosenfeld and Kolter, ICML 2019), for any classifier of x_start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import arguments, ops
from .errors import DTypeError, InputError, NonFiniteError
from .intervals import clopper_pearson
from .options import check_seed


@dataclass(frozen=True)
class Certificate:
    """Of one input.

    Attributes
    ----------
    index : int or None
        The smoothed classifier's class; None: it abstains.
    radius : float
        Within this L2 distance the smoothed classifier's answer is proven to be the same, but for a chance of `alpha`;
        0 where it abstains.
    p_lower : float
        One-sided lower confidence bound of the chance that a noised input gets class `index` (of the chosen one, where it
        abstains).
    count, n : int
        Noised inputs that got it, of how many.
    """

    index: int | None
    radius: float
    p_lower: float
    count: int
    n: int


def certify(
    classify: Callable[[NDArray[np.float32]], Any],
    x_start: Any,
    *,
    sigma: float | None = None,
    n_choose: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 64,
) -> Certificate:
    """Certified L2 radius of the smoothed classifier ``g(x) = argmax_k P(classify(x + sigma eps) = k)``.

    The class is chosen from `n_choose` noised inputs, and its chance bounded from `n` others (Cohen et al., 2019, algorithm
    1): ``p_lower`` is Clopper and Pearson's one-sided bound at level `alpha`, and with ``p_lower > 1/2``

        radius = sigma * Phi^-1(p_lower),

    else it abstains.  Chen et al. ("Diffusion Models are Certifiably Robust Classifiers", NeurIPS 2024) certify diffusion
    classifiers so, with ones that are made for noised inputs: `NoisedClassifier`.  `classify` may be any function.  The radius is
    of x_start's own units: pictures in [-1, 1] have twice the distances of pictures in [0, 1].

    Parameters
    ----------
    classify : callable
        (B, *shape) float32 arrays to (B,) class numbers.
    x_start : (*shape) array
        One input.
    sigma : float or None
        Standard deviation of the noise, in x_start's units.  None: the `NoisedClassifier`'s own.
    n_choose, n : int
    alpha : float
        Chance that the certificate is wrong.
    seed : int
        Of the noise: the counter-based stream, element by element (`diffcls.ops.normal`).
    batch_size : int
        Noised inputs given at once; never changes them.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        An argument is impossible, `sigma` is another than the `NoisedClassifier`'s, or `classify` gives something else than one
        class number a row.
    TypeError
        `classify` can not be called, `x_start` is no array of real numbers, or `seed` no integer.
    ArithmeticError
        `x_start` holds NaN or infinity.
    RuntimeError
        A tensor is not on the CPU.
    """
    if not callable(classify):
        raise DTypeError(f"classify is {type(classify).__name__}, must be a function of (B, *shape) arrays")
    x = _input(x_start)
    sigma = arguments.number(
        "sigma", _sigma(classify, sigma), "a number above 0", lambda value: 0.0 < value < float("inf")
    )
    alpha, seed = arguments.between_0_and_1("alpha", alpha), check_seed(seed)
    n_choose = arguments.integer("n_choose", n_choose, at_least=1)
    n, batch_size = arguments.integer("n", n, at_least=1), arguments.integer("batch_size", batch_size, at_least=1)
    first = np.concatenate([_classes(classify, x, sigma, seed, at) for at in _batches(0, n_choose, batch_size)])
    classes, counts = np.unique(first, return_counts=True)
    chosen = int(classes[counts.argmax()])
    later = _batches(n_choose, n_choose + n, batch_size)
    count = sum(int((_classes(classify, x, sigma, seed, at) == chosen).sum()) for at in later)
    p_lower = clopper_pearson(count, n, confidence=1.0 - 2.0 * alpha)[0] if alpha < 0.5 else 0.0
    if p_lower <= 0.5:
        return Certificate(None, 0.0, p_lower, count, n)
    return Certificate(chosen, sigma * NormalDist().inv_cdf(p_lower), p_lower, count, n)


def _sigma(classify: Any, sigma: Any) -> Any:
    """As given, or the noised classifier's, which must not be another."""
    own = getattr(classify, "sigma", None)
    if sigma is None and own is None:
        raise InputError("sigma is None, and classify has none of its own: it must be a number above 0")
    if sigma is not None and own is not None and sigma != own:
        raise InputError(f"sigma is {sigma}, and classify is made for inputs noised by {own}")
    return own if sigma is None else sigma


def _input(x_start: Any) -> NDArray[np.float32]:
    given = ops._to_numpy(x_start, "x_start")
    if given.dtype.kind not in "biuf":
        raise DTypeError(f"x_start is of dtype {given.dtype}, must be of real numbers")
    x = np.asarray(given, np.float32)
    if not np.isfinite(x).all():
        raise NonFiniteError("x_start holds NaN or infinity, must be finite")
    return x


def _batches(start: int, stop: int, size: int) -> list[range]:
    return [range(i, min(i + size, stop)) for i in range(start, stop, size)]


def _classes(classify: Any, x: NDArray[np.float32], sigma: float, seed: int, indices: range) -> NDArray[np.int64]:
    rows = np.broadcast_to(x, (len(indices), *x.shape))
    noised = ops.add_noise(rows, 1.0, sigma, seed=seed, index=np.array(indices), timestep=0)
    answer = classify(noised)
    found = np.asarray(ops._to_numpy(answer, "classes") if hasattr(answer, "__dlpack__") else answer)
    if found.shape != (len(indices),) or found.dtype.kind not in "iu":
        raise InputError(f"classify gave {found.dtype} of shape {found.shape}, must give {len(indices)} class numbers")
    return found.astype(np.int64)
