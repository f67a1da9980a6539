"""Classifying pictures that are noised already: noised diffusion classifiers (Chen et al., NeurIPS 2024).

With ``x_tau = x_start + tau eps``, the density of x_tau in a class is the class's own, blurred.  Under the same forward process
a row (alpha, sigma) with more noise than tau, ``sigma / alpha > tau``, has

    x_t = alpha x_tau + sigma' eps',   sigma' = sqrt(sigma^2 - alpha^2 tau^2),

the same x_t, so the same prediction, of which only the target is another.  By Tweedie's formula the score of x_t is
``-E[eps | x_t] / sigma`` seen from x_start and ``-E[eps' | x_t] / sigma'`` seen from x_tau, hence ``E[eps | x_t] = (sigma /
sigma') E[eps' | x_t]`` and ``E[x_start | x_t] = (x_t - sigma E[eps | x_t]) / alpha``: a model of the target ``p x_start + q eps``
is one of

    p x_tau + q' eps',   q' = q sigma / sigma' - p alpha tau^2 / sigma'.

So the exact-posterior classifier (EPNDC) is the plain one with another schedule and target, and everything that takes a
`Denoiser` takes it.  Its evidence lower bound, written with the posteriors' means (with s = sigma / alpha of rows i < j = i + 1,
``h`` the prediction of x_start and ``x_j = x_tau + sqrt(s_j^2 - tau^2) eps'``),

    sum_i  (s_j^2 - tau^2) / (2 (s_i^2 - tau^2) (s_j^2 - s_i^2)) |mean of q(x_i | x_j, x_tau) - mean of p(x_i | x_j)|^2,
    mean of p = ((s_j^2 - s_i^2) h + s_i^2 x_j) / s_j^2,
    mean of q = ((s_j^2 - s_i^2) x_tau + (s_i^2 - tau^2) x_j) / (s_j^2 - tau^2),

is the same squared errors of eps' with weights that become those of weighting "likelihood" as rows lie closer: the difference of
means is ``(s_j^2 - s_i^2) / sqrt(s_j^2 - tau^2)`` times ``eps' - E[eps']``.  tests/test_noised_denoiser.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments, ops
from .classifier import Classifier
from .denoiser import Denoiser
from .errors import InputError
from .models.registry import open_model
from .policies import Fixed
from .schedule import Schedule

Floats = NDArray[np.float64]
POSTERIORS = ("exact", "approximate")


class NoisedDenoiser(Denoiser):
    """What `noised` gives: `plain`'s predictions, asked about pictures that hold noise of standard deviation `noise` already."""

    plain: Denoiser
    noise: float

    def with_prompts(self, prompts: Sequence[str]) -> Denoiser:
        return noised(self.plain.with_prompts(prompts), self.noise)

    def to(self, device: Any = None, dtype: Any = None, memory_format: Any = None) -> Denoiser:
        return noised(self.plain.to(device, dtype, memory_format), self.noise)

    def __reduce__(self) -> tuple[Any, ...]:
        return noised, (self.plain, self.noise)


def noised(denoiser: Denoiser, sigma: float) -> NoisedDenoiser:
    """The same model for inputs ``x_start + sigma eps``: a noised diffusion classifier's denoiser (EPNDC).

    Parameters
    ----------
    denoiser : Denoiser
    sigma : float
        tau: standard deviation of the noise that the inputs hold, in x_start's units.

    Returns
    -------
    NoisedDenoiser
        Takes x_tau itself as its image.  Its schedule holds the rows with more noise than tau.  Its own weighting is `denoiser`'s
        (uniform, where that has none) on errors in units of eps', that is ``(sigma' / sigma)^2`` on its own: so the noise that
        a row adds counts as much on every row, and none where ``tau = 0`` differs from the plain classifier.  Temperature,
        profile and the idea of unlike pictures, which were fitted to clean inputs, are gone.

    Raises
    ------
    ValueError
        `sigma` is not above 0, or no row of the schedule has more noise.
    TypeError
        `denoiser` is none.

    Examples
    --------
    >>> from diffcls.testing import GaussianMixture
    >>> model = diffcls.noised(GaussianMixture([[2.0, 0.0], [-2.0, 0.0]]).denoiser(), 0.5)
    >>> diffcls.classify(np.array([1.5, 0.3], np.float32), model=model).index
    0
    """
    arguments.instance("denoiser", denoiser, Denoiser)
    tau = _level(sigma)
    schedule = denoiser.schedule
    rest = schedule.sigma**2 - (tau * schedule.alpha) ** 2
    rows = np.flatnonzero(rest > 1e-6 * schedule.sigma**2)  # nearer, eps' is so small that q' loses its digits
    _some(rows, schedule, tau)
    alpha, plain_sigma, own = schedule.alpha[rows], schedule.sigma[rows], np.sqrt(rest[rows])
    copy = object.__new__(NoisedDenoiser)
    copy.__dict__.update(denoiser.__dict__)
    copy.plain, copy.noise = denoiser, tau
    copy.schedule = _some_rows(schedule, rows, own)
    copy.p = denoiser.p[rows]
    copy.q = (denoiser.q[rows] * plain_sigma - copy.p * alpha * tau**2) / own
    copy.prediction_type, copy.encode = "(p, q)", None
    weighting = np.ones(len(rows)) if denoiser.weighting is None else denoiser.weighting[rows]
    copy.weighting = weighting * (own / plain_sigma) ** 2
    copy.temperature = copy.profile = copy.world = copy.pixels = None
    copy.name, copy.facts = f"{denoiser.name}, noised by {tau:g}", {**denoiser.facts, "noised": tau}
    return copy


def posterior_mean(denoiser: Denoiser, x: ArrayLike, sigma: float, condition: int = 0) -> NDArray[np.float32]:
    """E[x_start | x] of inputs ``x = x_start + sigma eps`` under one condition: one evaluation an input.

    From a prediction f of ``p x_start + q eps`` at ``x_t = alpha x_start + sigma_t eps`` it is ``(sigma_t f - q x_t) / (sigma_t p
    - alpha q)``, at the row whose ``sigma_t / alpha`` is nearest to `sigma` (in the logarithm).

    Parameters
    ----------
    denoiser : Denoiser
    x : (B, *shape) array
    sigma : float
        In x_start's units.
    condition : int
        Class number, or row of `denoiser.conditions`.

    Returns
    -------
    (B, *shape) float32

    Raises
    ------
    ValueError
        `sigma` is not above 0 or outside of the schedule, or the model's prediction says nothing of x_start there.
    TypeError
        `denoiser` is none.
    """
    arguments.instance("denoiser", denoiser, Denoiser)
    level, schedule = _level(sigma), denoiser.schedule
    given = np.ascontiguousarray(ops._to_numpy(x, "x"), np.float32)
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(schedule.sigma) - np.log(schedule.alpha) - np.log(level))
    row = int(distance.argmin())
    alpha, own, p, q = (float(column[row]) for column in (schedule.alpha, schedule.sigma, denoiser.p, denoiser.q))
    if own * p == alpha * q:
        raise InputError(f"at sigma {level:g} the prediction of {denoiser.name} says nothing of x_start")
    x_t, rows = (alpha * given).astype(np.float32), np.full(len(given), row)
    entry = denoiser.entry()
    if callable(entry):
        answer = entry(x_t, rows, schedule.time[rows], np.full(len(given), condition))
    else:  # a native model
        answer = denoiser.predict(x_t, schedule.time[rows], np.full(len(given), condition))
    prediction = ops._to_numpy(answer, "the denoiser's prediction").astype(np.float64)
    return np.asarray((own * prediction - q * x_t) / (own * p - alpha * q), np.float32)


class NoisedClassifier:
    """Class numbers of inputs ``x_start + sigma eps``: what `certify` asks about (Chen et al., NeurIPS 2024).

    "exact" (EPNDC): the classifier of `noised`.  "approximate" (APNDC): the input is denoised in one step without a class,
    ``h = E[x_start | x_tau]``, and h is classified by the rows that have more noise than tau: the mean of EPNDC's bound over
    inputs ``h + tau eps`` that are noised anew, as the authors' program certifies.

    Parameters
    ----------
    model, prompts : as `diffcls.classify` takes them
    sigma : float
        In x_start's units: pictures in [-1, 1] have twice the noise of pictures in [0, 1].
    posterior : {"exact", "approximate"}
    unconditional : str, int or None
        Of "approximate": the prompt or the null class that stands for no class.  None: "" for a model that takes prompts.
    **options
        Of `Classifier`.

    Attributes
    ----------
    classifier : Classifier
        Of x_tau, or of what was denoised.
    sigma : float

    Raises
    ------
    ValueError
        Unknown `posterior`, no row with more noise than `sigma`, or no null class named; or as `diffcls.classify`.
    TypeError, RuntimeError, ArithmeticError, ImportError
        As `diffcls.classify`.
    """

    def __init__(
        self,
        model: Any = None,
        prompts: Any = None,
        *,
        sigma: float,
        posterior: str = "exact",
        unconditional: Any = None,
        **options: Any,
    ) -> None:
        if posterior not in POSTERIORS:
            raise InputError(f"posterior is {posterior!r}, must be 'exact' or 'approximate'")
        denoiser = open_model(model, options.pop("device", None), options.pop("dtype", None))
        given = {"sigma": sigma, "posterior": posterior, "unconditional": unconditional, **options}
        self._made_of = denoiser, prompts, given
        self.sigma, self.posterior = _level(sigma), posterior
        self._null, self._condition = denoiser, 0
        if posterior == "approximate":
            self._null, self._condition = _without_class(denoiser, unconditional)
        of_rows = noised(denoiser, sigma) if posterior == "exact" else _noisier(denoiser, self.sigma)
        self.classifier = Classifier(of_rows, prompts, **{"progress": False, **options})

    def __repr__(self) -> str:
        return f"NoisedClassifier({self.classifier!r}, sigma={self.sigma:g}, posterior={self.posterior!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was made of: some models are read again by other processes, as they are on disk."""
        return _remade, self._made_of

    def __call__(self, x: Any) -> NDArray[np.int64]:
        """(B,) class numbers of inputs x_tau (B, *shape)."""
        if self.posterior == "approximate":
            x = posterior_mean(self._null, x, self.sigma, self._condition)
        return np.array([result.index for result in self.classifier.stream(list(x))], np.int64)


def _remade(model: Any, prompts: Any, given: dict[str, Any]) -> NoisedClassifier:
    return NoisedClassifier(model, prompts, **given)


def _level(sigma: Any) -> float:
    return arguments.number("sigma", sigma, "a number above 0", lambda value: 0.0 < value < float("inf"))


def _some(rows: NDArray[np.intp], schedule: Schedule, tau: float) -> None:
    if not len(rows):
        with np.errstate(divide="ignore"):
            most = float((schedule.sigma / schedule.alpha).max())
        raise InputError(f"sigma is {tau:g}, and the schedule's noise ends at sigma / alpha = {most:.4g}")


def _some_rows(schedule: Schedule, rows: NDArray[np.intp], sigma: Floats) -> Schedule:
    return Schedule(
        schedule.alpha[rows],
        sigma,
        schedule.time[rows],
        discrete=schedule.is_discrete,
        sigma_data=schedule.sigma_data,
    )


def _noisier(denoiser: Denoiser, tau: float) -> Denoiser:
    """The plain model of x_start itself, on pictures that are no longer noised: rows with less noise than tau count nothing."""
    weighting = np.ones(len(denoiser.schedule)) if denoiser.weighting is None else denoiser.weighting
    above = denoiser.schedule.sigma > tau * denoiser.schedule.alpha
    _some(np.flatnonzero(above), denoiser.schedule, tau)
    copy = denoiser._copy()
    copy.encode = None
    copy.weighting = np.where(above, weighting, 0.0)
    copy.temperature = copy.profile = copy.world = copy.pixels = None
    return copy


def _without_class(denoiser: Denoiser, unconditional: Any) -> tuple[Denoiser, int]:
    """The model that is asked without a class, and which condition that is."""
    if denoiser.encode_prompts is not None:
        return denoiser.with_prompts(["" if unconditional is None else unconditional]), 0
    if unconditional is None:
        raise InputError(
            "posterior is 'approximate', and the model has classes of its own: unconditional= must name its null class"
        )
    null = Classifier(denoiser, {"(unconditional)": unconditional}, policy=Fixed(1))
    return null.denoiser, int(null.arms.conditions[0])
