"""A diffusers scheduler's config, read as a `Schedule`: every setting is honoured, sampling only, or refused.

What counts is the scheduler as it is constructed, before ``set_timesteps``: that is what training sees.  Settings that only
sampling reads choose which of these noise levels a sampler visits and how it steps; they are listed here by name, so a
setting that is neither honoured nor listed is an error.  Numbers are rounded where diffusers rounds: betas and
alphas_cumprod are float32 there, which moves the first sigmas by more than 1e-6, and roots are taken in float64 afterwards.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DTypeError, InputError

Floats = NDArray[np.float64]

# ---- settings, by what becomes of them -------------------------------------------------------------------------------

_STEPPING = frozenset(
    "use_karras_sigmas use_exponential_sigmas use_beta_sigmas timestep_spacing final_sigmas_type thresholding "
    "dynamic_thresholding_ratio sample_max_value solver_order algorithm_type solver_type lower_order_final "
    "euler_at_final".split()
)
"""Sampling only, in every family."""

_BETA_SAMPLING = _STEPPING | frozenset(
    "variance_type clip_sample clip_sample_range set_alpha_to_one steps_offset skip_prk_steps lambda_min_clipped "
    "interpolation_type use_lu_lambdas sigma_min sigma_max original_inference_steps timestep_scaling predict_x0 "
    "disable_corrector solver_p flow_shift time_shift_type".split()
)
_BETA_HONOURED = frozenset(
    "num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type rescale_betas_zero_snr "
    "timestep_type".split()
)
_BETA_REFUSED = {
    "use_flow_sigmas": "only with prediction_type='flow_prediction' is the model a flow model",
    "use_dynamic_shifting": "the model is a flow model; use Schedule.flow(n, shift)",
    "shift_terminal": "the model is a flow model; use Schedule.flow(n, shift)",
}

_FLOW_SAMPLING = _STEPPING | frozenset("stochastic_sampling scale_factors upscale_mode".split())
_FLOW_HONOURED = frozenset(
    "num_train_timesteps shift use_dynamic_shifting base_shift max_shift base_image_seq_len max_image_seq_len "
    "time_shift_type".split()
)
_FLOW_REFUSED = {
    "invert_sigmas": "such a model's time and velocity run the other way; give Schedule(alpha, sigma, time) and (p, q)",
    "shift_terminal": "the noise levels are stretched to fit a number of steps; use Schedule.flow(n, shift)",
}

_EDM_SAMPLING = _STEPPING
_EDM_HONOURED = frozenset(
    "sigma_min sigma_max sigma_data sigma_schedule num_train_timesteps prediction_type rho".split()
)

# ---- classes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _BetaClass:
    """Defaults of a scheduler class that is defined by betas."""

    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    terminal: float = 0.0
    """alphas_cumprod of the last row under rescale_betas_zero_snr."""
    extra: tuple[str, ...] = ()
    """Beta schedules beyond the three that all classes have."""
    continuous: bool = False
    """Knows timestep_type="continuous"."""


_SIGMAS = 2.0**-24  # classes that divide by alpha keep the last row's alphas_cumprod above zero
_STABLE = {"beta_start": 0.00085, "beta_end": 0.012}
_BETA_CLASSES = {
    "DDPMScheduler": _BetaClass(extra=("sigmoid", "laplace")),
    "DDPMParallelScheduler": _BetaClass(extra=("sigmoid", "laplace")),
    "DDIMScheduler": _BetaClass(),
    "DDIMParallelScheduler": _BetaClass(),
    "PNDMScheduler": _BetaClass(),
    "LMSDiscreteScheduler": _BetaClass(),
    "EulerDiscreteScheduler": _BetaClass(terminal=_SIGMAS, continuous=True),
    "EulerAncestralDiscreteScheduler": _BetaClass(terminal=_SIGMAS),
    "HeunDiscreteScheduler": _BetaClass(**_STABLE),  # type: ignore[arg-type]
    "KDPM2DiscreteScheduler": _BetaClass(**_STABLE),  # type: ignore[arg-type]
    "KDPM2AncestralDiscreteScheduler": _BetaClass(**_STABLE),  # type: ignore[arg-type]
    "DPMSolverMultistepScheduler": _BetaClass(terminal=_SIGMAS),
    "DPMSolverSinglestepScheduler": _BetaClass(),
    "DEISMultistepScheduler": _BetaClass(),
    "UniPCMultistepScheduler": _BetaClass(terminal=_SIGMAS),
    "LCMScheduler": _BetaClass(**_STABLE, beta_schedule="scaled_linear"),  # type: ignore[arg-type]
    "TCDScheduler": _BetaClass(**_STABLE, beta_schedule="scaled_linear"),  # type: ignore[arg-type]
}
_FLOW_CLASSES = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
_EDM_CLASSES = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


@dataclass(frozen=True)
class Facts:
    """What `Schedule` needs: coefficients, what the model is fed, what it predicts."""

    alpha: Floats
    sigma: Floats
    time: Floats
    discrete: bool
    prediction_type: str | tuple[Floats, Floats]
    sigma_data: float | None = None


def read_config(config: Any, image_seq_len: int | None = None) -> Facts:
    """The facts in a scheduler, or in its config; see `Schedule.from_config`."""
    settings = getattr(config, "config", config)
    if not isinstance(settings, Mapping):
        raise DTypeError(f"config is {type(config).__name__}, must be a diffusers scheduler or its config, a mapping")
    settings = dict(settings)
    name = settings.pop("_class_name", None)
    if name is None:
        name = _class_of(settings) if isinstance(config, Mapping) else type(config).__name__
    settings = {str(key): value for key, value in settings.items() if not str(key).startswith("_")}
    if image_seq_len is not None and not settings.get("use_dynamic_shifting"):
        raise InputError("image_seq_len is for configs with use_dynamic_shifting, and this config has none")
    if name in _BETA_CLASSES:
        if settings.get("use_flow_sigmas") and settings.get("prediction_type") == "flow_prediction":
            return _read_flow_sigmas(name, settings)
        return _read_betas(name, _BETA_CLASSES[name], settings)
    if name in _FLOW_CLASSES:
        return _read_flow(name, settings, image_seq_len)
    if name in _EDM_CLASSES:
        return _read_edm(name, settings)
    known = ", ".join((*_BETA_CLASSES, *_FLOW_CLASSES, *_EDM_CLASSES))
    raise InputError(f"the config's _class_name is {name!r}, must be one of {known}")


def _class_of(settings: Mapping[str, Any]) -> str | None:
    """Class of a config that names none (``scheduler.config`` of a scheduler made in the program), where settings tell.

    All beta classes read the same settings in the same way, but for defaults and for the last row under zero SNR.
    """
    if "shift" in settings:
        return "FlowMatchEulerDiscreteScheduler"
    if "sigma_schedule" in settings:
        return "EDMDPMSolverMultistepScheduler" if "solver_order" in settings else "EDMEulerScheduler"
    if "timestep_type" in settings:
        return "EulerDiscreteScheduler"
    complete = all(key in settings for key in ("beta_start", "beta_end", "beta_schedule"))
    if complete and settings.get("rescale_betas_zero_snr"):
        raise InputError("the config has rescale_betas_zero_snr and no _class_name; pass the scheduler itself")
    return "DDPMScheduler" if complete or settings.get("trained_betas") is not None else None


def _sort_out(
    name: str,
    settings: dict[str, Any],
    honoured: frozenset[str],
    sampling: frozenset[str],
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The honoured settings; an error for those that are refused or unknown."""
    refused = refused or {}
    unknown = sorted(set(settings) - honoured - sampling - set(refused))
    if unknown:
        raise InputError(f"{name}'s settings {', '.join(unknown)} are not known here, so they are refused")
    for key, why in refused.items():
        if settings.get(key) not in (None, False):
            raise InputError(f"{name}'s {key} is {settings[key]!r}, which is refused: {why}")
    return {key: value for key, value in settings.items() if key in honoured}


# ---- betas -----------------------------------------------------------------------------------------------------------


def _read_betas(name: str, kind: _BetaClass, settings: dict[str, Any]) -> Facts:
    known = _sort_out(name, settings, _BETA_HONOURED, _BETA_SAMPLING, _BETA_REFUSED)
    prediction_type = _choice(
        name, known, "prediction_type", "epsilon", ("epsilon", "sample", "v_prediction", "original_sample")
    )
    betas = _betas(name, kind, known)
    rescale = _flag(name, known, "rescale_betas_zero_snr")
    if rescale:
        betas = _zero_terminal_snr(betas)
    bar = _alphas_cumprod(betas)
    if rescale:
        bar[-1] = kind.terminal
        if len(bar) > 1 and bar[-1] >= bar[-2]:
            raise InputError(
                f"{name} raises the last alphas_cumprod to 2**-24 under rescale_betas_zero_snr, which is not below the "
                f"row before it, {bar[-2]:.2g}; DDIMScheduler has the same betas and leaves it at zero"
            )
    alpha, sigma = np.sqrt(bar), np.sqrt(1.0 - bar)
    timestep_type = _choice(name, known, "timestep_type", "discrete", ("discrete", "continuous"))
    if timestep_type == "continuous" and not kind.continuous:
        raise InputError(f"{name} has no timestep_type='continuous'; EulerDiscreteScheduler has")
    # diffusers feeds log(sigma) / 4 to v-prediction models only (Stable Video Diffusion), else the row's number
    continuous = timestep_type == "continuous" and prediction_type == "v_prediction"
    if continuous and (bar[-1] <= 0.0 or bar[0] >= 1.0):
        raise InputError(f"{name} is continuous, and its first or last row has no finite log(sigma)")
    time = 0.25 * np.log(sigma / alpha) if continuous else np.arange(len(bar), dtype=np.float64)
    if prediction_type == "original_sample":  # the older name
        prediction_type = "sample"
    return Facts(alpha, sigma, time, not continuous, prediction_type)


def _betas(name: str, kind: _BetaClass, known: dict[str, Any]) -> NDArray[np.float32]:
    trained = known.get("trained_betas")
    if trained is not None:
        try:
            betas = np.array(trained, np.float32)
        except (TypeError, ValueError):
            raise DTypeError(f"trained_betas is {type(trained).__name__}, must be an array of numbers") from None
        if betas.ndim != 1 or not (np.isfinite(betas).all() and (betas >= 0).all() and (betas <= 1).all()):
            raise InputError("trained_betas must be one row of numbers from 0 to 1")
        return betas
    n = _whole(name, known, "num_train_timesteps", 1000)
    start = _number(name, known, "beta_start", kind.beta_start)
    end = _number(name, known, "beta_end", kind.beta_end)
    one = np.float32(1.0)
    makers: dict[str, Callable[[], NDArray[np.float32]]] = {
        "linear": lambda: _linspace(start, end, n),
        "scaled_linear": lambda: _linspace(start**0.5, end**0.5, n) ** 2,
        "squaredcos_cap_v2": lambda: _betas_of(_cosine, n),
        "sigmoid": lambda: one / (one + np.exp(-_linspace(-6.0, 6.0, n))) * np.float32(end - start) + np.float32(start),
        "laplace": lambda: _betas_of(_laplace, n),
    }
    choices = ("linear", "scaled_linear", "squaredcos_cap_v2", *kind.extra)
    shape = _choice(name, known, "beta_schedule", kind.beta_schedule, choices)
    if not 0.0 < start < 1.0 or not 0.0 < end < 1.0:
        raise InputError(f"{name}'s beta_start and beta_end are {start:g} and {end:g}, must be between 0 and 1")
    return makers[shape]()


def _linspace(start: float, end: float, n: int) -> NDArray[np.float32]:
    """PyTorch's float32 linspace: from both ends to the middle, each product and sum rounded once."""
    first, last, i = np.float32(start), np.float32(end), np.arange(n)
    step = np.float64((last - first) / np.float32(max(n - 1, 1)))
    up, down = np.float64(first) + step * i, np.float64(last) - step * (n - 1 - i)
    return np.where((i < n // 2) | (n == 1), up, down).astype(np.float32)


def _betas_of(alpha_bar: Callable[[float], float], n: int) -> NDArray[np.float32]:
    """Betas of a continuous alphas_cumprod on [0, 1], capped at 0.999 (Nichol and Dhariwal, 2021)."""
    return np.array([min(1.0 - alpha_bar((i + 1) / n) / alpha_bar(i / n), 0.999) for i in range(n)], np.float32)


def _cosine(u: float) -> float:
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(u: float) -> float:
    half_log_snr = -0.5 * math.copysign(1.0, 0.5 - u) * math.log(1.0 - 2.0 * abs(0.5 - u) + 1e-6)
    snr = math.exp(half_log_snr)
    return math.sqrt(snr / (1.0 + snr))


def _alphas_cumprod(betas: NDArray[np.float32]) -> Floats:
    """PyTorch's cumulative product of float32 on a CPU: summed up in float64, each result rounded to float32."""
    alphas = np.float32(1.0) - betas
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32).astype(np.float64)


def _zero_terminal_snr(betas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lin et al. (2023), algorithm 1: shift and scale sqrt(alphas_cumprod) so that it ends at zero."""
    root = _root(_alphas_cumprod(betas).astype(np.float32))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    bar = root**2
    return np.float32(1.0) - np.concatenate([bar[:1], bar[1:] / bar[:-1]])


def _root(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square roots as diffusers takes them: PyTorch's may be off by one unit in the last place, depending on the machine.

    The rescaling divides by a difference of roots, so that unit grows to 1e-5 in the first sigmas.  Hence PyTorch's own
    roots where it is installed; without it there is no scheduler to agree with.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return np.sqrt(values)
    return np.asarray(torch.from_numpy(values).sqrt().numpy(), np.float32)


# ---- flows -----------------------------------------------------------------------------------------------------------


def _read_flow(name: str, settings: dict[str, Any], image_seq_len: int | None) -> Facts:
    known = _sort_out(name, settings, _FLOW_HONOURED, _FLOW_SAMPLING, _FLOW_REFUSED)
    n = _whole(name, known, "num_train_timesteps", 1000)
    shift = _number(name, known, "shift", 1.0)
    if _flag(name, known, "use_dynamic_shifting"):
        for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
            if settings.get(key):
                raise InputError(f"{name}'s {key} together with use_dynamic_shifting is refused")
        shift = _dynamic_shift(name, known, image_seq_len)
    if not (shift > 0.0 and math.isfinite(shift)):
        raise InputError(f"{name}'s shift is {shift:g}, must be positive")
    u = np.arange(1, n + 1) / n
    s = shift * u / (1.0 + (shift - 1.0) * u)
    return Facts(1.0 - s, s, s * n, False, "flow_prediction")


def _read_flow_sigmas(name: str, settings: dict[str, Any]) -> Facts:
    """Of a class that is defined by betas and asked to sample a flow with its own steps (Sana): no beta is read."""
    unused = _BETA_HONOURED | _BETA_SAMPLING | {"use_flow_sigmas"}
    known = _sort_out(
        name, settings, unused, frozenset(), {k: v for k, v in _BETA_REFUSED.items() if k != "use_flow_sigmas"}
    )
    flow = {"num_train_timesteps": known.get("num_train_timesteps"), "shift": known.get("flow_shift")}
    return _read_flow(name, flow, None)


def _dynamic_shift(name: str, known: dict[str, Any], image_seq_len: int | None) -> float:
    """Shift of an image of so many tokens: linear in their number, exponential of that or not (Esser et al., 2024)."""
    if image_seq_len is None:
        raise InputError(
            f"{name} shifts by the image's size (use_dynamic_shifting); pass image_seq_len, the number of its tokens"
        )
    low, high = _number(name, known, "base_shift", 0.5), _number(name, known, "max_shift", 1.15)
    few = _whole(name, known, "base_image_seq_len", 256)
    many = _whole(name, known, "max_image_seq_len", 4096)
    if few == many:
        raise InputError(f"{name}'s base_image_seq_len and max_image_seq_len are both {few}, must differ")
    mu = low + (high - low) / (many - few) * (image_seq_len - few)
    kind = _choice(name, known, "time_shift_type", "exponential", ("exponential", "linear"))
    return math.exp(mu) if kind == "exponential" else mu


# ---- EDM -------------------------------------------------------------------------------------------------------------


def _read_edm(name: str, settings: dict[str, Any]) -> Facts:
    known = _sort_out(name, settings, _EDM_HONOURED, _EDM_SAMPLING)
    n = _whole(name, known, "num_train_timesteps", 1000)
    low, high = _number(name, known, "sigma_min", 0.002), _number(name, known, "sigma_max", 80.0)
    sigma_data, rho = _number(name, known, "sigma_data", 0.5), _number(name, known, "rho", 7.0)
    if not 0.0 < low < high or not sigma_data > 0.0 or not rho > 0.0:
        raise InputError(
            f"{name}'s sigma_min, sigma_max, sigma_data and rho are {low:g}, {high:g}, {sigma_data:g} and {rho:g}; "
            "all must be positive, sigma_min below sigma_max"
        )
    kind = _choice(name, known, "sigma_schedule", "karras", ("karras", "exponential"))
    # one class makes n + 1 noise levels in float64, the other n in float32; both ends are among them, noisiest first
    ramp = np.arange(n + 1) / n if name == "EDMEulerScheduler" else _linspace(0.0, 1.0, n)
    if kind == "karras":  # Karras et al. (2022), eq. 5
        top, bottom = high ** (1 / rho), low ** (1 / rho)
        sigmas = (top + ramp * (bottom - top)) ** rho
    else:
        sigmas = np.exp(np.linspace(math.log(high), math.log(low), len(ramp)))
    sigmas = sigmas[::-1].astype(np.float32).astype(np.float64)
    total = np.sqrt(sigmas**2 + sigma_data**2)
    p, q = sigmas / (sigma_data * total), -sigma_data / total  # what the raw network predicts, eq. 7
    prediction_type: str | tuple[Floats, Floats] = "edm"
    if _choice(name, known, "prediction_type", "epsilon", ("epsilon", "v_prediction")) == "v_prediction":
        prediction_type = (-p, -q)  # diffusers' v_prediction turns the network's sign round
    return Facts(1.0 / total, sigmas / total, np.log(sigmas) / 4.0, False, prediction_type, sigma_data)


# ---- values ----------------------------------------------------------------------------------------------------------


def _value(known: dict[str, Any], key: str, default: Any) -> Any:
    value = known.get(key, default)
    return default if value is None else value


def _number(name: str, known: dict[str, Any], key: str, default: float) -> float:
    value = _value(known, key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise DTypeError(f"{name}'s {key} is {value!r}, must be a number")
    return float(value)


def _whole(name: str, known: dict[str, Any], key: str, default: int) -> int:
    value = _value(known, key, default)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise DTypeError(f"{name}'s {key} is {value!r}, must be an integer")
    if not 1 <= value <= 2**20:
        raise InputError(f"{name}'s {key} is {value}, must be 1 to 2**20")
    return int(value)


def _flag(name: str, known: dict[str, Any], key: str) -> bool:
    value = _value(known, key, False)
    if not isinstance(value, (bool, np.bool_)):
        raise DTypeError(f"{name}'s {key} is {value!r}, must be True or False")
    return bool(value)


def _choice(name: str, known: dict[str, Any], key: str, default: str, choices: tuple[str, ...]) -> str:
    value = _value(known, key, default)
    if value not in choices:
        raise InputError(f"{name}'s {key} is {value!r}, must be one of {', '.join(choices)}")
    return str(value)
