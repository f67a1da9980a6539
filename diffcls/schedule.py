"""The noise schedule: ``x_t = alpha[t] * x_start + sigma[t] * eps``, coefficients in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .errors import DTypeError, InputError, ShapeError
from .scheduler_config import read_config

Floats = NDArray[np.float64]
PredictionType = str | tuple[ArrayLike, ArrayLike]


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
    sigma_data : float or None
        Standard deviation of the data, which prediction type "edm" needs.
    prediction_type : str, (p, q) or None
        What the model that goes with this schedule predicts, where that is known: a `Denoiser`'s default.

    Raises
    ------
    ValueError
        Not monotone, not finite, empty, or more than 2**20 rows; rows that do not match; a discrete time that is no whole
        number; no such prediction type.
    TypeError
        What is no array of numbers.
    """

    def __init__(
        self,
        alpha: ArrayLike,
        sigma: ArrayLike,
        time: ArrayLike,
        *,
        discrete: bool | None = None,
        sigma_data: float | None = None,
        prediction_type: PredictionType | None = None,
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
        self.prediction_type = prediction_type
        if prediction_type is not None:
            self.target(prediction_type)
        for array in (self.alpha, self.sigma, self.time):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.alpha)

    def __repr__(self) -> str:
        return f"Schedule({len(self)} timesteps, time {self.time[0]:g} to {self.time[-1]:g})"

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: ArrayLike) -> Schedule:
        """``alpha = sqrt(abar)``, ``sigma = sqrt(1 - abar)``, time 0 to T - 1 (Ho et al., 2020).

        Parameters
        ----------
        alphas_cumprod : (T,) array_like
            abar: from 0 to 1, falling.

        Returns
        -------
        Schedule

        Raises
        ------
        ValueError
            Not of this kind.
        TypeError
            What is no array of numbers.
        """
        alpha, sigma = _core.schedule_from_alphas_cumprod(_column(alphas_cumprod, "alphas_cumprod"))
        return cls(alpha, sigma, np.arange(len(alpha)))

    @classmethod
    def linear(cls, n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Betas linear in t (Ho et al., 2020; DiT, Peebles and Xie, 2023).

        Parameters
        ----------
        n : int
            Timesteps, 1 to 2**20.
        beta_start, beta_end : float
            Of the first and the last timestep.

        Returns
        -------
        Schedule

        Raises
        ------
        ValueError
            `n` is out of its range, or coefficients that are not finite or do not rise come of it.
        TypeError
            `n` is no integer.
        """
        return cls._discrete(_core.schedule_linear(_count(n), beta_start, beta_end))

    @classmethod
    def scaled_linear(cls, n: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
        """Square roots of betas linear in t (Stable Diffusion; Rombach et al., 2022).

        Parameters, result and errors are those of `linear`.
        """
        return cls._discrete(_core.schedule_scaled_linear(_count(n), beta_start, beta_end))

    @classmethod
    def squaredcos_cap_v2(cls, n: int = 1000) -> Schedule:
        """Cosine schedule (Nichol and Dhariwal, 2021, eq. 17), betas capped at 0.999.

        `n`, result and errors are those of `linear`.
        """
        return cls._discrete(_core.schedule_squaredcos(_count(n)))

    @classmethod
    def flow(cls, n: int = 1000, shift: float = 1.0) -> Schedule:
        """Rectified flow: ``alpha = 1 - s``, ``sigma = s``, time ``n * s`` with s shifted (Esser et al., 2024, eq. 23).

        `n`, result and errors are those of `linear`.

        Parameters
        ----------
        shift : float
            s = shift u / (1 + (shift - 1) u) of u = 1 / n, 2 / n, ..., 1.
        """
        return cls(*_core.schedule_flow(_count(n), shift), discrete=False)

    @classmethod
    def edm(cls, sigmas: ArrayLike, sigma_data: float = 0.5) -> Schedule:
        """EDM (Karras et al., 2022): x_t is the preconditioned input ``c_in (x_start + s eps)``, time ``log(s) / 4``.

        Parameters
        ----------
        sigmas : (T,) array_like
            Noise levels s, rising.
        sigma_data : float
            Standard deviation of x_start's elements.

        Returns
        -------
        Schedule

        Raises
        ------
        ValueError
            Levels that are not positive or do not rise.
        TypeError
            What is no array of numbers.
        """
        coefficients = _core.schedule_edm(_column(sigmas, "sigmas"), sigma_data)
        return cls(*coefficients, discrete=False, sigma_data=sigma_data)

    @classmethod
    def from_config(cls, config: Any, *, image_seq_len: int | None = None) -> Schedule:
        """From a diffusers scheduler or its config (a mapping with ``_class_name``).

        The rows are those of the scheduler as constructed, in ascending order of noise: what training sees.  Coefficients
        agree with diffusers' own to 1e-6.  Classes that work with ``x_start + s * eps`` and divide the model's input by
        ``sqrt(s**2 + 1)`` (EulerDiscreteScheduler and its like) come out as the variance-preserving form that the model is
        fed.  `prediction_type` is read too, and a `Denoiser` made with the schedule takes it from there.

        Every setting is honoured, or sampling only (it chooses noise levels to visit or how to step), or refused: what is
        not known is an error, never ignored.

        Parameters
        ----------
        config : scheduler, or mapping
        image_seq_len : int or None
            Tokens of an image, for a flow whose shift follows the image's size (``use_dynamic_shifting``).

        Returns
        -------
        Schedule

        Raises
        ------
        ValueError
            Unknown scheduler class, beta schedule or setting; a setting that can not be honoured.
        TypeError
            A setting of the wrong type.
        """
        facts = read_config(config, image_seq_len)
        return cls(
            facts.alpha,
            facts.sigma,
            facts.time,
            discrete=facts.discrete,
            sigma_data=facts.sigma_data,
            prediction_type=facts.prediction_type,
        )

    @classmethod
    def _discrete(cls, coefficients: tuple[Floats, Floats]) -> Schedule:
        alpha, sigma = coefficients
        return cls(alpha, sigma, np.arange(len(alpha)))

    def target(self, prediction_type: PredictionType) -> tuple[Floats, Floats]:
        """(p, q), each (T,): the model predicts ``p * x_start + q * eps``.

        Parameters
        ----------
        prediction_type : str or (p, q)
            "epsilon": (0, 1); "v_prediction": (-sigma, alpha) (Salimans and Ho, 2022); "sample": (1, 0); "flow_prediction":
            (-1, 1) (Lipman et al., 2023); "edm": the raw network output (Karras et al., 2022, eq. 7 and 8).  Or p and q
            themselves, numbers or (T,) arrays.

        Returns
        -------
        (p, q) : pair of (T,) float64

        Raises
        ------
        ValueError
            No such type, p or q is not finite, or "edm" without `sigma_data`.
        """
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

        Returns
        -------
        Schedule

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

    def error_factor(self, prediction_type: PredictionType) -> Floats:
        """By what a prediction of this type misses its target, for the same mistake about x_t.

        x_start and eps that make the same x_t differ from the true ones by ``-sigma u`` and ``alpha u`` with one u, so the
        target ``p x_start + q eps`` is missed by ``(alpha q - sigma p) u``; this is ``|alpha q - sigma p|``.  It is alpha
        for epsilon, sigma for sample, alpha^2 + sigma^2 for v_prediction, alpha + sigma for flow_prediction.

        Parameters
        ----------
        prediction_type : str or (p, q)

        Returns
        -------
        (T,) float64

        Raises
        ------
        ValueError
            No such prediction type.
        """
        p, q = self.target(prediction_type)
        return np.abs(self.alpha * q - self.sigma * p)

    def loss_weight(self, from_type: PredictionType, to_type: PredictionType, *, loss: str = "l2") -> Floats:
        """What turns errors of a model that predicts `from_type` into those it would have predicting `to_type`, by a product.

        ``(error_factor(to_type) / error_factor(from_type))^2``, without the square for "l1": stored errors of one
        parameterisation become another's without a new evaluation.

        Parameters
        ----------
        from_type, to_type : str or (p, q)
        loss : {"l2", "l1"}
            A Huber error does not scale, so it can not be converted.

        Returns
        -------
        (T,) float64

        Raises
        ------
        ValueError
            A row where `from_type` says nothing beyond x_t (eps where alpha is zero, x_start where sigma is) and `to_type`
            does; or another loss.
        """
        if loss not in ("l2", "l1"):
            raise InputError(f"loss is {loss!r}, errors convert by a weight for 'l2' and 'l1' only")
        have, want = self.error_factor(from_type), self.error_factor(to_type)
        lost = (have == 0.0) & (want > 0.0)
        if lost.any():
            raise InputError(
                f"at row {int(np.flatnonzero(lost)[0])} of the schedule the error of {_told(from_type)} is zero for every "
                f"model, so that of {_told(to_type)} can not be made from it"
            )
        ratio = np.divide(want, have, out=np.zeros_like(want), where=have > 0.0)
        return ratio**2 if loss == "l2" else ratio

    def to_dict(self) -> dict[str, Any]:
        """Enough to make it again.

        Returns
        -------
        dict
            "alpha", "sigma" and "time".
        """
        return {"alpha": self.alpha.tolist(), "sigma": self.sigma.tolist(), "time": self.time.tolist()}


def _told(prediction_type: PredictionType) -> str:
    return prediction_type if isinstance(prediction_type, str) else "(p, q)"


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
