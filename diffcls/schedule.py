"""The noise schedule: ``x_t = alpha[t] * x_start + sigma[t] * eps``, coefficients in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .errors import DTypeError, InputError, ShapeError

Floats = NDArray[np.float64]


class Schedule:
    """Coefficients of the forward process, one row a timestep.

    Parameters
    ----------
    alpha, sigma : (T,) array_like
        ``x_t = alpha * x_start + sigma * eps``; ``sigma / alpha`` must rise from row to row.
    time : (T,) array_like
        What the model is fed for each row.
    discrete : bool or None
        The model is fed integers.  None: when all of `time` are whole numbers.

    Raises
    ------
    ValueError
        Not monotone, not finite, empty, or more than 2**20 rows.
    """

    def __init__(
        self,
        alpha: ArrayLike,
        sigma: ArrayLike,
        time: ArrayLike,
        *,
        discrete: bool | None = None,
        sigma_data: float | None = None,
    ) -> None:
        self.alpha, self.sigma, self.time = (
            _column(value, name) for value, name in ((alpha, "alpha"), (sigma, "sigma"), (time, "time"))
        )
        if not len(self.alpha) == len(self.sigma) == len(self.time):
            raise ShapeError(
                f"alpha, sigma and time have {len(self.alpha)}, {len(self.sigma)} and {len(self.time)} rows, "
                "must have the same number"
            )
        _core.schedule_check(self.alpha, self.sigma, self.time)
        whole = bool(np.all(self.time == np.rint(self.time)))
        self.is_discrete = whole if discrete is None else discrete
        if self.is_discrete and not whole:
            raise InputError("a discrete schedule's time must be whole numbers")
        self.sigma_data = sigma_data
        for array in (self.alpha, self.sigma, self.time):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.alpha)

    def __repr__(self) -> str:
        return f"Schedule({len(self)} timesteps, time {self.time[0]:g} to {self.time[-1]:g})"

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: ArrayLike) -> Schedule:
        """``alpha = sqrt(abar)``, ``sigma = sqrt(1 - abar)``, time 0 to T - 1 (Ho et al., 2020)."""
        alpha, sigma = _core.schedule_from_alphas_cumprod(_column(alphas_cumprod, "alphas_cumprod"))
        return cls(alpha, sigma, np.arange(len(alpha)))

    @classmethod
    def linear(cls, n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Betas linear in t (DDPM, DiT)."""
        return cls._discrete(_core.schedule_linear(_count(n), beta_start, beta_end))

    @classmethod
    def scaled_linear(cls, n: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
        """Square roots of betas linear in t (Stable Diffusion)."""
        return cls._discrete(_core.schedule_scaled_linear(_count(n), beta_start, beta_end))

    @classmethod
    def squaredcos_cap_v2(cls, n: int = 1000) -> Schedule:
        """Cosine schedule (Nichol and Dhariwal, 2021, eq. 17), betas capped at 0.999."""
        return cls._discrete(_core.schedule_squaredcos(_count(n)))

    @classmethod
    def flow(cls, n: int = 1000, shift: float = 1.0) -> Schedule:
        """Rectified flow: ``alpha = 1 - s``, ``sigma = s``, time ``n * s`` with s shifted (Esser et al., 2024, eq. 23)."""
        return cls(*_core.schedule_flow(_count(n), shift), discrete=False)

    @classmethod
    def edm(cls, sigmas: ArrayLike, sigma_data: float = 0.5) -> Schedule:
        """EDM (Karras et al., 2022): x_t is the preconditioned input ``c_in (x_start + s eps)``, time ``log(s) / 4``."""
        coefficients = _core.schedule_edm(_column(sigmas, "sigmas"), sigma_data)
        return cls(*coefficients, discrete=False, sigma_data=sigma_data)

    @classmethod
    def from_config(cls, config: Any) -> Schedule:
        """From a diffusers scheduler or its config (a mapping).

        A setting that changes the forward process and is not known here is an error, never ignored.

        Raises
        ------
        ValueError
            Unknown scheduler class, beta schedule or setting.
        """
        settings = dict(getattr(config, "config", config))
        name = str(settings.pop("_class_name", type(config).__name__ if not isinstance(config, Mapping) else ""))
        settings = {
            key: value for key, value in settings.items() if not key.startswith("_") and key not in _SAMPLING_ONLY
        }
        if "FlowMatch" in name:
            return _from_flow_config(settings)
        if name.startswith("EDM"):
            raise InputError(f"{name} names no sigmas to classify with; use Schedule.edm(sigmas, sigma_data=...)")
        return _from_beta_config(settings)

    @classmethod
    def _discrete(cls, coefficients: tuple[Floats, Floats]) -> Schedule:
        alpha, sigma = coefficients
        return cls(alpha, sigma, np.arange(len(alpha)))

    def target(self, prediction_type: str | tuple[ArrayLike, ArrayLike]) -> tuple[Floats, Floats]:
        """(p, q), each (T,): the model predicts ``p * x_start + q * eps``."""
        if isinstance(prediction_type, str):
            return _core.schedule_target(self.alpha, self.sigma, prediction_type, self.sigma_data or 0.0)
        if not isinstance(prediction_type, Sequence) or len(prediction_type) != 2:
            raise InputError(f"prediction_type is {prediction_type!r}, must be a name or a pair of arrays (p, q)")
        p, q = (np.broadcast_to(np.asarray(part, np.float64), len(self)).copy() for part in prediction_type)
        if not (np.isfinite(p).all() and np.isfinite(q).all()):
            raise InputError("prediction_type (p, q) must be finite")
        return p, q

    def half_precision(self) -> Schedule:
        """The coefficients as the published code forms them in half precision: ``abar = alpha**2`` is rounded to float16
        first; ``1 - abar`` and both roots are float16 again.

        A fault, kept for parity.  With `scaled_linear` the noise is 7.2 % too strong at t = 0, 7.3 % too weak at t = 1, and
        off by less than 0.1 % from t = 119 on.

        Raises
        ------
        ValueError
            Not ``alpha**2 + sigma**2 = 1``, or two rows become the same (the clean end of `linear`).
        """
        squared = self.alpha**2
        if not np.allclose(squared + self.sigma**2, 1.0, rtol=0.0, atol=1e-9):
            raise InputError("half_precision needs a schedule with alpha**2 + sigma**2 = 1")
        half = squared.astype(np.float16)
        return Schedule(np.sqrt(half), np.sqrt(np.float16(1) - half), self.time, discrete=self.is_discrete)

    def to_dict(self) -> dict[str, Any]:
        """Enough to make it again."""
        return {"alpha": self.alpha.tolist(), "sigma": self.sigma.tolist(), "time": self.time.tolist()}


# Settings of diffusers schedulers that steer sampling and leave the forward process as it is.
_SAMPLING_ONLY = frozenset(
    "variance_type clip_sample clip_sample_range set_alpha_to_one steps_offset prediction_type thresholding "
    "dynamic_thresholding_ratio sample_max_value timestep_spacing skip_prk_steps solver_order algorithm_type solver_type "
    "lower_order_final euler_at_final final_sigmas_type lambda_min_clipped interpolation_type timestep_type "
    "use_karras_sigmas use_exponential_sigmas use_beta_sigmas stochastic_sampling".split()
)


def _from_flow_config(settings: dict[str, Any]) -> Schedule:
    n, shift = settings.pop("num_train_timesteps", 1000), settings.pop("shift", 1.0)
    # where dynamic shifting is on, shift follows the image's size and only says which sigmas sampling visits
    for key in ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"):
        settings.pop(key, None)
    if settings.pop("use_dynamic_shifting", False):
        shift = 1.0
    _refuse_unknown({key: value for key, value in settings.items() if value not in (None, False)})
    return Schedule.flow(n, shift)


def _from_beta_config(settings: dict[str, Any]) -> Schedule:
    n = settings.pop("num_train_timesteps", 1000)
    start, end = settings.pop("beta_start", 1e-4), settings.pop("beta_end", 0.02)
    kind, betas = settings.pop("beta_schedule", "linear"), settings.pop("trained_betas", None)
    rescale = settings.pop("rescale_betas_zero_snr", False)
    _refuse_unknown({key: value for key, value in settings.items() if value not in (None, False)})
    makers: dict[str, Callable[[], Schedule]] = {
        "linear": lambda: Schedule.linear(n, start, end),
        "scaled_linear": lambda: Schedule.scaled_linear(n, start, end),
        "squaredcos_cap_v2": lambda: Schedule.squaredcos_cap_v2(n),
    }
    if betas is not None:
        schedule = Schedule.from_alphas_cumprod(np.cumprod(1.0 - _column(betas, "trained_betas")))
    elif kind in makers:
        schedule = makers[kind]()
    else:
        raise InputError(f"beta_schedule is {kind!r}, must be one of {', '.join(makers)}")
    return _zero_terminal_snr(schedule) if rescale else schedule


def _zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Lin et al. (2023), algorithm 1: shift and scale sqrt(abar) so that it ends at zero."""
    alpha = schedule.alpha
    rescaled = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return Schedule.from_alphas_cumprod(rescaled**2)


def _refuse_unknown(settings: dict[str, Any]) -> None:
    if settings:
        raise InputError(
            f"the scheduler's settings {', '.join(sorted(settings))} are not known here, so they are refused"
        )


def _count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise DTypeError(f"n is {n!r}, must be an integer")
    return int(n)


def _column(value: ArrayLike, name: str) -> Floats:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise DTypeError(f"{name} is {type(value).__name__}, must be an array of numbers") from None
    if array.ndim != 1:
        raise ShapeError(f"{name} has shape {array.shape}, must be (T,)")
    return array
