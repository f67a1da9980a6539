"""The options of `classify`, checked one by one: which argument, what came, what was wanted."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import floats, shown
from .denoiser import Denoiser
from .errors import DeviceError, DTypeError, InputError, ShapeError
from .fitted_weighting import Weighting
from .images import refuse_channels_first, split
from .ops import _to_numpy
from .policies import Fixed, Policy, Race, Staged
from .shortlist import Shortlist
from .temperature import Calibration
from .weightings import named

if TYPE_CHECKING:
    from .tables import ErrorTable

DEFAULT_BATCH_SIZE = 64


def with_device(denoiser: Denoiser, device: Any, dtype: Any) -> Denoiser:
    """The denoiser itself, or a copy with a device or dtype that it does not say."""
    if device is None and dtype is None:
        return denoiser
    if denoiser.native is not None:
        return denoiser.to(device, dtype)
    if denoiser.framework == "numpy":
        if device is not None and str(device) != "cpu":
            raise DeviceError(f"device is {device!r}, this model computes on the CPU")
        if dtype is not None and not _is_float32(dtype):
            raise DTypeError(f"dtype is {dtype!r}, this model computes in float32")
        return denoiser
    return denoiser.to(device, dtype)


def _is_float32(dtype: Any) -> bool:
    try:
        return bool(np.dtype(dtype) == np.float32)
    except TypeError:  # another framework's
        return str(dtype) == "torch.float32"


def split_images(images: Any, denoiser: Denoiser) -> tuple[list[Any], bool]:
    """What a caller gave as `images`, one by one, and whether it was a single one."""
    if denoiser.takes_colours:
        refuse_channels_first(images)
    items, is_one = split(images) if denoiser.encode else _split_x_start(images, denoiser.shape)
    return list(items), is_one


def _split_x_start(images: Any, shape: tuple[int, ...]) -> tuple[Iterable[Any], bool]:
    if isinstance(images, (list, tuple)):
        return images, False
    array = _to_numpy(images, "image")
    if array.shape == shape:
        return [array], True
    if array.shape[1:] == shape and array.ndim == len(shape) + 1:
        return array, False
    wanted = ", ".join(map(str, shape))
    raise ShapeError(f"image has shape {array.shape}, must be x_start of shape ({wanted}) or (N, {wanted})")


def check_policy(policy: Any, own: Policy | None = None) -> Policy:
    """`own`: the model's, where None was given."""
    if policy is None:
        return Race() if own is None else own
    if not isinstance(policy, (Race, Fixed, Staged)):
        raise DTypeError(f"policy is {policy!r}, must be a Race, Staged or Fixed")
    return policy


def check_loss(loss: Any) -> str:
    if not isinstance(loss, str) or loss not in ("l2", "l1", "huber"):
        raise InputError(f"loss is {shown(loss)}, must be 'l2', 'l1' or 'huber'")
    return str(loss)


def check_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise DTypeError(f"seed is {seed!r}, must be an integer")
    if not 0 <= int(seed) < 2**64:
        raise InputError(f"seed is {seed}, must be 0 to 2**64 - 1")
    return int(seed)


def check_shortlist(shortlist: Any) -> Shortlist | None:
    if shortlist is not None and not isinstance(shortlist, Shortlist):
        raise DTypeError(f"shortlist is {shown(shortlist)}, must be a diffcls.Shortlist(scorer, k)")
    return shortlist


def check_batch_size(batch_size: Any) -> int:
    if batch_size is None:
        return DEFAULT_BATCH_SIZE
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or not 1 <= batch_size <= 2**20:
        raise InputError(f"batch_size is {batch_size!r}, must be an integer from 1 to 2**20")
    return int(batch_size)


def check_weighting(weighting: Any, denoiser: Denoiser | ErrorTable, loss: str = "l2") -> NDArray[np.float64] | None:
    """(T,) weights on the model's own errors; None: all one."""
    if weighting is None:
        return denoiser.weighting
    if isinstance(weighting, str):
        if weighting == "uniform":
            return None  # whatever the target is, also one that a table does not keep
        weights = named(weighting, denoiser.schedule, denoiser.target)
        if loss != "l2":
            raise InputError(
                f"weighting {weighting!r} is defined for squared errors, and loss is {loss!r}; give an array over timesteps"
            )
        return weights
    if isinstance(weighting, Weighting):
        weighting.check(denoiser.schedule, loss, denoiser.prediction_type)
        weighting = weighting.weights
    weights = floats("weighting", weighting, "None, a name, a Weighting or an array of numbers over timesteps")
    n = len(denoiser.schedule)
    if weights.shape != (n,):
        raise ShapeError(f"weighting has shape {weights.shape}, must be ({n},): one number a timestep")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InputError("weighting must be finite, not negative, and not zero everywhere")
    return weights


def check_priors(priors: ArrayLike | Mapping[str, float] | None, classes: list[str]) -> NDArray[np.float64]:
    if priors is None:
        return np.zeros(len(classes))
    if isinstance(priors, Mapping):
        if set(priors) != set(classes):
            raise InputError(f"priors is for {sorted(priors)}, must be for the classes {classes}")
        priors = [priors[name] for name in classes]
    values = floats("priors", priors, "an array of numbers or a mapping of class to number")
    if values.shape != (len(classes),) or not np.isfinite(values).all() or (values <= 0).any():
        raise InputError(f"priors must be {len(classes)} positive numbers, one a class")
    return np.asarray(np.log(values / values.sum()), np.float64)


def check_temperature(temperature: Any, denoiser: Denoiser | ErrorTable) -> float:
    if temperature is None:
        temperature = 1.0 if denoiser.temperature is None else denoiser.temperature
    if isinstance(temperature, Calibration):
        temperature = temperature.temperature
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float, np.floating)):
        raise DTypeError(f"temperature is {temperature!r}, must be a number or a diffcls.Calibration")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature is {temperature}, must be positive")
    return float(temperature)


def check_pool_temperature(pool: str, temperature: float, calibration: Calibration | None) -> float | None:
    """Of pool="logmeanexp": the temperature, but a calibration's losses were pooled before it was known."""
    if pool != "logmeanexp":
        return None
    was = (
        None if calibration is None or calibration.fingerprint is None else calibration.fingerprint["pool_temperature"]
    )
    return temperature if was is None else float(was)


def describe_weighting(weighting: Any, weights: NDArray[np.float64] | None) -> Any:
    """For the run record, of a live run and of a replay alike: what was given as `weighting`, and the weights it came to."""
    if isinstance(weighting, Weighting):
        return weighting.to_dict()
    return "uniform" if weights is None else weights.tolist()


def describe_calibration(calibration: Calibration | dict[str, Any] | None) -> dict[str, Any] | None:
    """For the run record: who fitted the temperature, if anyone, and under which policy."""
    if calibration is None:
        return None
    if isinstance(calibration, dict):  # the model's own
        return calibration
    policy = None if calibration.fingerprint is None else calibration.fingerprint["policy"]
    bias = None if calibration.bias is None else calibration.bias.tolist()
    return {"source": "fit_temperature", "n_images": calibration.n_images, "bias": bias, "policy": policy}


def check_noise(noise: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float32] | None, str]:
    if noise is None:
        return None, "counter"
    if isinstance(noise, str):
        if noise != "antithetic":
            raise InputError(f"noise is {noise!r}, must be None, 'antithetic' or an array (n, *shape)")
        return None, "antithetic"
    array = _to_numpy(noise, "noise")
    if array.shape[1:] != shape or array.ndim != len(shape) + 1 or len(array) == 0:
        raise ShapeError(f"noise has shape {array.shape}, must be (n, {', '.join(map(str, shape))})")
    given = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(given).all():
        raise InputError("noise must be finite")
    return given, "given"


@cache
def _own_version() -> str:
    try:
        return version("diffcls")
    except PackageNotFoundError:
        return "source"


def versions() -> dict[str, str]:
    return {"diffcls": _own_version(), "numpy": np.__version__, "python": platform.python_version()}
