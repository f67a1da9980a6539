"""Named weightings over the schedule, and what each means for every prediction type.

The method's loss is a weighted mean of errors *in the model's own parameterisation*: ``loss = mean_t w(t) e(t)``, with
``e = mean |prediction - target|^2`` and ``target = p x_start + q eps``.  At one timestep all parameterisations see the same
mistake: a prediction of x_start and one of eps that together make x_t satisfy ``alpha dx + sigma deps = 0``, so there is
one u with ``dx = -sigma u`` and ``deps = alpha u``, and a target (p, q) is missed by ``(alpha q - sigma p) u``.  Hence::

    e = (alpha q - sigma p)^2 mean |u|^2

and any two parameterisations' errors differ by a factor that depends on the timestep alone.  A *name* is a weight on one
given error (of x_start, say), and the functions here divide by the factor of the model's own, so a name is the same
classifier whatever the model predicts.  Only "uniform" is not: it takes the model's errors as they are.

===================  ============================================  =======================================================
name                 weight on the error of x_start                source
===================  ============================================  =======================================================
uniform              (none: 1 on the model's own error)            Li et al. (2023)
epsilon              SNR                                           Ho et al. (2020), eq. 14
v_prediction         SNR + 1                                       Salimans and Ho (2022), section 4
sample               1                                             Salimans and Ho (2022), section 4
flow_prediction      (sqrt(SNR) + 1)^2                             Lipman et al. (2023); Esser et al. (2024)
snr                  SNR (the same as "epsilon")                   Hang et al. (2023)
min_snr              min(SNR, gamma), gamma = 5                    Hang et al. (2023)
truncated_snr        max(SNR, 1)                                   Salimans and Ho (2022), section 4
edm                  (s^2 + sd^2) / (s sd)^2, s log-normal         Karras et al. (2022), table 1
logit_normal         (sqrt(SNR) + 1)^2, s / (1 + s) logit-normal   Esser et al. (2024), section 3.1
clark_jaini          exp(-7 t), t from 0 to 1 along the schedule   Clark and Jaini (2023), section 3
likelihood           SNR times the fall of ln SNR                  Kingma et al. (2021); Kong et al. (2023)
===================  ============================================  =======================================================

with ``SNR = alpha^2 / sigma^2`` and ``s = sigma / alpha``.  "edm", "logit_normal" and "likelihood" are integrals over the
noise level, not sums over rows: their weights hold each row's share of the level (trapezoidal), so they mean the same on a
schedule whose rows lie elsewhere.  The others count every row once, as training on that schedule does.

The default is "uniform" for every prediction type
--------------------------------------------------
A network's error tells classes apart where the network is good, and it is good where its training put the weight; nearly
all are trained on the plain squared error of what they predict.  So by type "uniform" is

* epsilon: the weight SNR, the paper's choice (Li et al., 2023);
* v_prediction: SNR + 1, the same at high SNR, and finite where SNR is zero, where eps says nothing about the class;
* flow_prediction: (sqrt(SNR) + 1)^2, between v and twice v; training that draws its times from a logit-normal (Stable
  Diffusion 3) has the weight "logit_normal", worth trying first there;
* sample: 1, which leaves nearly all to the noisy end; training that used truncated SNR has "truncated_snr";
* edm: SNR + 1 / sd^2; training that drew log-normal noise levels has "edm".

No default is best everywhere: on a given model the clean and the noisy end may only add noise.  "likelihood" is what makes
the losses differ by log-likelihoods (see `likelihood`), exact for a perfect denoiser and not the best for a trained one.

Trials are drawn evenly under the weighting of the model's own error.  The weighted mean is the same for every prediction
type, its Monte Carlo error is not: for one that predicts x_start, SNR on its error draws nearly all trials at the clean end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DTypeError, InputError
from .schedule import PredictionType, Schedule

if TYPE_CHECKING:
    from .denoiser import Denoiser

Floats = NDArray[np.float64]


def uniform(schedule: Schedule, prediction_type: PredictionType) -> Floats:
    """1 on the model's own error: the published classifier (Li et al., 2023) when that is eps.

    Parameters
    ----------
    schedule : Schedule
        T rows.
    prediction_type : str or (p, q)
        The model's own, as `Schedule.target` takes it.

    Returns
    -------
    (T,) float64
        Weights on the model's own squared errors, not negative.

    Raises
    ------
    ValueError
        No such prediction type.
    """
    schedule.target(prediction_type)
    return np.ones(len(schedule))


def equivalent(schedule: Schedule, prediction_type: PredictionType, to: str) -> Floats:
    """As if the model predicted `to` and were weighted uniformly.

    A noise level has one of these errors, however x_t is scaled: v is that of the variance-preserving form
    (Salimans and Ho, 2022, appendix D), the flow's that of ``(1 - s) x_start + s eps`` (Esser et al., 2024).

    Parameters, result and errors are those of `uniform`; a weight that is infinite at a row is a ValueError too.

    Parameters
    ----------
    to : {"epsilon", "v_prediction", "sample", "flow_prediction"}
    """
    a, s = schedule.alpha, schedule.sigma
    on_u = {"epsilon": a**2, "v_prediction": a**2 + s**2, "sample": s**2, "flow_prediction": (a + s) ** 2}
    if to not in on_u:
        raise InputError(f"to is {to!r}, must be one of {', '.join(on_u)}")
    return _own(on_u[to], schedule, prediction_type, to)


def snr(schedule: Schedule, prediction_type: PredictionType) -> Floats:
    """SNR on the error of x_start (Hang et al., 2023), which is 1 on the error of eps (Ho et al., 2020).

    Parameters, result and errors are those of `uniform`; a weight that is infinite at a row is a ValueError too.
    """
    return _own(schedule.alpha**2, schedule, prediction_type, "snr")


def min_snr(schedule: Schedule, prediction_type: PredictionType, *, gamma: float = 5.0) -> Floats:
    """min(SNR, gamma) on the error of x_start (Hang et al., 2023): min(1, gamma / SNR) on that of eps.

    Parameters, result and errors are those of `uniform`; a weight that is infinite at a row is a ValueError too.

    Parameters
    ----------
    gamma : float
        Positive.
    """
    _positive("gamma", gamma)
    on_u = np.minimum(schedule.alpha**2, gamma * schedule.sigma**2)
    return _own(on_u, schedule, prediction_type, "min_snr")


def truncated_snr(schedule: Schedule, prediction_type: PredictionType) -> Floats:
    """max(SNR, 1) on the error of x_start (Salimans and Ho, 2022, section 4): the larger of the errors of x_start and eps.

    Infinite on an eps-prediction where alpha is zero, hence refused there.

    Parameters, result and errors are those of `uniform`; a weight that is infinite at a row is a ValueError too.
    """
    return _own(np.maximum(schedule.alpha, schedule.sigma) ** 2, schedule, prediction_type, "truncated_snr")


def edm(
    schedule: Schedule,
    prediction_type: PredictionType,
    *,
    mean: float = -1.2,
    spread: float = 1.2,
    sigma_data: float | None = None,
) -> Floats:
    """EDM's training loss (Karras et al., 2022, table 1): lambda(s) = (s^2 + sd^2) / (s sd)^2 on the error of x_start, with
    ln(s) drawn from a normal.

    Parameters, result and errors are those of `uniform`; fewer than two rows that have noise and picture are a
    ValueError too.

    Parameters
    ----------
    mean, spread : float
        Of ln(s), s = sigma / alpha; `spread` is positive.
    sigma_data : float or None
        Standard deviation of x_start's elements, positive.  None: the schedule's, else 0.5.
    """
    _positive("spread", spread)
    sd = schedule.sigma_data or 0.5 if sigma_data is None else _positive("sigma_data", sigma_data)
    level, width = _trapezoid(_log_ratio(schedule))
    on_u = (schedule.sigma**2 + schedule.alpha**2 * sd**2) / sd**2
    return _own(on_u * width * _normal((level - mean) / spread), schedule, prediction_type, "edm")


def logit_normal(
    schedule: Schedule, prediction_type: PredictionType, *, mean: float = 0.0, spread: float = 1.0
) -> Floats:
    """Stable Diffusion 3's training loss (Esser et al., 2024, section 3.1): the flow's error, with the logit of its time normal.

    The flow's time of a row is sigma / (alpha + sigma), and its logit is ln(sigma / alpha); any schedule has it.

    Parameters, result and errors are those of `uniform`; fewer than two rows that have noise and picture are a
    ValueError too.

    Parameters
    ----------
    mean, spread : float
        Of the logit, ln(sigma / alpha); `spread` is positive.
    """
    _positive("spread", spread)
    level, width = _trapezoid(_log_ratio(schedule))
    on_u = (schedule.alpha + schedule.sigma) ** 2
    return _own(on_u * width * _normal((level - mean) / spread), schedule, prediction_type, "logit_normal")


def clark_jaini(schedule: Schedule, prediction_type: PredictionType, *, rate: float = 7.0) -> Floats:
    """exp(-rate t) on the error of x_start, t from 0 to 1 along the schedule's rows (Clark and Jaini, 2023, section 3).

    Parameters, result and errors are those of `uniform`; a weight that is infinite at a row is a ValueError too.

    Parameters
    ----------
    rate : float
        The paper's is 7.
    """
    t = np.arange(len(schedule)) / max(1, len(schedule) - 1)
    return _own(np.exp(-rate * t) * schedule.sigma**2, schedule, prediction_type, "clark_jaini")


def likelihood(schedule: Schedule, prediction_type: PredictionType) -> Floats:
    """The weighting under which losses differ by log-likelihoods, up to one factor (`likelihood_temperature`).

    For a denoiser that predicts E[x_start | x_t, class] exactly,

        ln p(x | a) - ln p(x | b) = 1/2 integral over SNR of E|x - x_b|^2 - E|x - x_a|^2
                                  = 1/2 integral over ln SNR of E|eps - eps_b|^2 - E|eps - eps_a|^2

    for every single x (Kong et al., 2023; the continuous-time bound of Kingma et al., 2021).  On the rows of a
    schedule the integral is the trapezoidal sum; what lies beyond its first and last row is lost, which is little when
    classes can not be told apart there.  Rows without noise, or with nothing else, have weight zero.

    Parameters, result and errors are those of `uniform`; fewer than two rows that have noise and picture are a
    ValueError too.
    """
    _, width = _trapezoid(2.0 * _log_ratio(schedule))
    return _own(schedule.alpha**2 * width, schedule, prediction_type, "likelihood")


def likelihood_temperature(denoiser: Denoiser) -> float:
    """The temperature that turns losses under weighting "likelihood" into log-likelihoods.

    ``softmax(log prior - excess / temperature)`` is then the posterior, for a perfect denoiser.  With d elements and own
    weights w, ``ln p(x | a) - ln p(x | b) = d / 2 sum_t w(t) (e_b(t) - e_a(t))`` and the loss is the *weighted mean*, so
    temperature = 2 / (d sum_t w(t)).

    Parameters
    ----------
    denoiser : Denoiser

    Returns
    -------
    float
        In the unit of the weighted mean loss.

    Raises
    ------
    ValueError
        As `likelihood`, of the denoiser's schedule.

    Examples
    --------
    >>> from diffcls.testing import GaussianMixture
    >>> from diffcls.weightings import likelihood_temperature
    >>> model = GaussianMixture([[2.0, 0.0], [-2.0, 0.0]]).denoiser()
    >>> classifier = diffcls.Classifier(model, weighting="likelihood", temperature=likelihood_temperature(model))
    >>> classifier(np.array([1.5, 0.3], np.float32)).index
    0
    """
    weights = likelihood(denoiser.schedule, (denoiser.p, denoiser.q))
    return float(2.0 / (np.prod(denoiser.shape, dtype=np.float64) * weights.sum()))


def _equivalent_to(to: str) -> Callable[[Schedule, PredictionType], Floats]:
    return lambda schedule, prediction_type: equivalent(schedule, prediction_type, to)


_NAMED: dict[str, Callable[[Schedule, PredictionType], Floats]] = {
    "uniform": uniform,
    "epsilon": _equivalent_to("epsilon"),
    "v_prediction": _equivalent_to("v_prediction"),
    "sample": _equivalent_to("sample"),
    "flow_prediction": _equivalent_to("flow_prediction"),
    "snr": snr,
    "min_snr": min_snr,
    "truncated_snr": truncated_snr,
    "edm": edm,
    "logit_normal": logit_normal,
    "clark_jaini": clark_jaini,
    "likelihood": likelihood,
}


def names() -> list[str]:
    """What `weighting=` takes by name.

    Returns
    -------
    list of str
    """
    return list(_NAMED)


def named(name: str, schedule: Schedule, prediction_type: PredictionType) -> Floats:
    """The weighting of that name, with the constants of its source.

    Parameters, result and errors are those of `uniform`; so is a name that there is not.

    Parameters
    ----------
    name : str
        One of `names`.
    """
    if name not in _NAMED:
        raise InputError(f"weighting is {name!r}, must be one of {', '.join(_NAMED)}, or an array over timesteps")
    return _NAMED[name](schedule, prediction_type)


# ---- below the surface -----------------------------------------------------------------------------------------------


def _own(on_u: Floats, schedule: Schedule, prediction_type: PredictionType, name: str) -> Floats:
    """A weight on |u|^2 as one on the model's own error."""
    factor = schedule.error_factor(prediction_type) ** 2
    impossible = (factor == 0.0) & (on_u > 0.0)
    if impossible.any():
        row = int(np.flatnonzero(impossible)[0])
        raise InputError(
            f"weighting {name!r} is infinite at row {row} of the schedule, where the model's prediction says nothing that "
            "x_t does not"
        )
    return np.divide(on_u, factor, out=np.zeros_like(on_u), where=factor > 0.0)


def _log_ratio(schedule: Schedule) -> Floats:
    """ln(sigma / alpha) of every row, -inf without noise, +inf with nothing else."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(schedule.sigma) - np.log(schedule.alpha))


def _trapezoid(level: Floats) -> tuple[Floats, Floats]:
    """(level, width) for a trapezoidal sum over the rows; rows at infinity have level and width zero."""
    finite = np.isfinite(level)
    inner = level[finite]
    if len(inner) < 2:
        raise InputError("this weighting is an integral over noise levels and needs two rows with noise and picture")
    steps = np.diff(inner)
    width = np.zeros(len(level))
    width[finite] = (np.concatenate([[0.0], steps]) + np.concatenate([steps, [0.0]])) / 2.0
    return np.where(finite, level, 0.0), width


def _normal(z: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * z**2))


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise DTypeError(f"{name} is {value!r}, must be a number")
    if not (value > 0.0 and np.isfinite(value)):
        raise InputError(f"{name} is {value}, must be positive")
    return float(value)


__all__: Sequence[str] = [
    "clark_jaini", "edm", "equivalent", "likelihood", "likelihood_temperature", "logit_normal", "min_snr", "named", "names",
    "snr", "truncated_snr", "uniform",
]  # fmt: skip
