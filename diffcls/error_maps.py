"""Where in the picture the evidence lies: the errors of two classes, element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import arguments, ops
from .core_types import Trials
from .denoiser import Denoiser
from .errors import DTypeError, InputError, NonFiniteError, ShapeError
from .framework_calls import numpy_call
from .labels import class_index
from .options import split_images
from .policies import Fixed
from .thumbnail import x_start_picture

if TYPE_CHECKING:
    from .classifier import Classifier
    from .plotting import ErrorMapDisplay

Floats = NDArray[np.float64]

ROWS = 64
"""That the denoiser is asked at once, unless the classifier says how many."""

RHO: dict[str, Callable[[Floats], Floats]] = {
    "l2": np.square,
    "l1": np.abs,
    "huber": lambda d: np.where(np.abs(d) < 1.0, 0.5 * d * d, np.abs(d) - 0.5),
}
"""rho(prediction - target), delta 1 (csrc/formulas/diffusion.h)."""


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """What `error_map` found: the loss of class b minus that of class a, element by element of x_start.

    Attributes
    ----------
    difference : (*shape) float64
        Mean over trials of ``rho_b - rho_a``: positive where the evidence speaks for a, negative where for b.  The trials
        are drawn under the classifier's weighting, so each counts the same.  The mean over elements is
        ``loss_b - loss_a`` of the error table of these trials.
    stderr : (*shape) float64
        Standard error of each element over the trials, paired; NaN of one trial.
    a, b : str
    n_trials, n_evals : int
    picture : (H, W) or (H, W, C) float32 in [0, 1], or None
        What the model was shown, to lay the map over; None: x_start is no picture.
    run : dict
        The classifier's.
    """

    difference: Floats = field(repr=False)
    stderr: Floats = field(repr=False)
    a: str
    b: str
    n_trials: int
    n_evals: int
    picture: NDArray[np.float32] | None = field(repr=False)
    run: dict[str, Any] = field(repr=False)

    @property
    def mean(self) -> float:
        """``loss_b - loss_a``: positive when a explains the picture better."""
        return float(self.difference.mean())

    def spatial(self, smoothing: float = 0.0) -> Floats:
        """(H, W): mean over channels, smoothed by a Gaussian; the mean over the picture stays.

        Parameters
        ----------
        smoothing : float
            Standard deviation in elements of x_start (a latent's are some pixels wide); 0: none.

        Returns
        -------
        (H, W) float64

        Raises
        ------
        ValueError
            x_start is neither (H, W) nor (C, H, W), or smoothing is negative.
        """
        smoothing = arguments.number("smoothing", smoothing, "a number of 0 or more", lambda x: 0.0 <= x < np.inf)
        if self.difference.ndim not in (2, 3):
            raise ShapeError(f"the map has shape {self.difference.shape}, only (H, W) and (C, H, W) lie in a picture")
        flat = self.difference if self.difference.ndim == 2 else self.difference.mean(axis=0)
        return smooth(flat, smoothing)

    def plot(self, ax: Any = None, **options: Any) -> ErrorMapDisplay:
        """Over the picture: an `ErrorMapDisplay` (needs matplotlib).

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.
        **options
            Of `plotting.ErrorMapDisplay.plot`.

        Returns
        -------
        ErrorMapDisplay

        Raises
        ------
        ValueError
            x_start is no picture, or an impossible option.
        MissingExtraError
            matplotlib is not installed.
        """
        from .plotting import ErrorMapDisplay

        return ErrorMapDisplay(self).plot(ax=ax, **options)


def error_map(classifier: Classifier, image: Any, a: str | int, b: str | int, *, n_samples: int = 200) -> ErrorMap:
    """Where in the picture class a explains it better than class b, and where b does.

    The trials are those of ``Fixed(n_samples)``, with the classifier's own noise, weighting and loss: the very errors that
    its error table holds, before they are averaged over the picture.  Both classes see the same trials, so what is hard in
    the picture for both cancels.

    Parameters
    ----------
    classifier : Classifier
        Of any denoiser.  Errors of latents are maps of latents.
    image : one picture, as `Classifier.__call__` takes it
    a, b : str or int
        Two of ``classifier.classes``, by name or position.
    n_samples : int
        Trials; each costs one evaluation of each prompt of either class.

    Returns
    -------
    ErrorMap

    Raises
    ------
    ValueError
        Several pictures; the same class twice; a class with several prompts that are not pooled by "mean".
    TypeError
        `classifier` is no `Classifier`.
    ArithmeticError
        The denoiser predicted NaN or infinity.
    RuntimeError
        A tensor is not on the CPU.
    """
    from .classifier import Classifier

    arguments.instance("classifier", classifier, Classifier)
    n_samples = arguments.integer("n_samples", n_samples, at_least=1)
    indices = [class_index(entry, classifier.classes, name) for name, entry in (("a", a), ("b", b))]
    if indices[0] == indices[1]:
        raise InputError(f"a and b are both {classifier.classes[indices[0]]!r}, must be two classes")
    items, _ = split_images(image, classifier.denoiser)
    if len(items) != 1:
        raise InputError(f"image is {len(items)} pictures, must be one")
    conditions = [_conditions(classifier, index) for index in indices]
    x_start = classifier.encode(items[0], listed=False).x_start
    total, squares = np.zeros(x_start.shape), np.zeros(x_start.shape)
    for n, term in enumerate(_differences(classifier, x_start, conditions, n_samples), start=1):
        step = term - total  # Welford: total is the mean so far
        total += step / n
        squares += step * (term - total)
    stderr = np.sqrt(squares / ((n_samples - 1) * n_samples)) if n_samples > 1 else np.full(total.shape, np.nan)
    return ErrorMap(
        difference=total,
        stderr=stderr,
        a=classifier.classes[indices[0]],
        b=classifier.classes[indices[1]],
        n_trials=n_samples,
        n_evals=n_samples * sum(len(asked) for asked in conditions),
        picture=_picture(classifier.denoiser, items[0], x_start),
        run=classifier.run,
    )


def smooth(values: Floats, sigma: float) -> Floats:
    """(H, W) under a Gaussian of standard deviation `sigma` elements, mirrored at the borders: the mean stays."""
    if sigma == 0.0:
        return values
    reach = int(np.ceil(4.0 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        wide = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(wide, len(kernel), axis=axis)
        values = np.asarray(windows @ kernel, np.float64)
    return values


# ---- below the surface -----------------------------------------------------------------------------------------------


def _conditions(classifier: Classifier, index: int) -> NDArray[np.int64]:
    arms = classifier.arms
    of_class = np.flatnonzero(arms.class_of_arm == index)
    asked = arms.conditions[arms.offset[of_class[0]] : arms.offset[of_class[-1] + 1]]
    if len(asked) > 1 and classifier.pool != "mean":
        raise InputError(
            f"class {classifier.classes[index]!r} has {len(asked)} prompts: an error map needs one, or pool='mean'"
        )
    return asked


def _class_of(classifier: Classifier, condition: int) -> int:
    """The class that a condition is a prompt of."""
    arms = classifier.arms
    arm = np.searchsorted(arms.offset, np.flatnonzero(arms.conditions == condition)[0], side="right") - 1
    return int(arms.class_of_arm[arm])


def _differences(
    classifier: Classifier, x_start: NDArray[np.float32], conditions: list[NDArray[np.int64]], n_samples: int
) -> Iterator[Floats]:
    """``rho_b - rho_a`` of one trial after the other, each (*shape).  They are drawn under the weighting and count alike."""
    denoiser, trials = classifier.denoiser, classifier._lower(Fixed(n_samples)).trials
    entry = denoiser.entry()
    call = entry if callable(entry) else numpy_call(denoiser)
    schedule, rho = denoiser.schedule, RHO[classifier.loss]
    share = np.concatenate([np.full(len(c), sign / len(c)) for c, sign in zip(conditions, (-1.0, 1.0), strict=True)])
    asked = np.concatenate(conditions)
    step = max(1, (classifier.batch_size or ROWS) // len(asked))
    for first in range(0, n_samples, step):
        chosen = slice(first, min(first + step, n_samples))
        rows = trials["timestep"][chosen].astype(np.int64)
        eps = np.stack([_eps(classifier, trials, i) for i in range(chosen.start, chosen.stop)])
        x = np.broadcast_to(x_start, eps.shape)
        x_t = ops.add_noise(x, schedule.alpha[rows], schedule.sigma[rows], eps=eps)
        target = ops.add_noise(x, denoiser.p[rows], denoiser.q[rows], eps=eps)
        repeated, classes = np.repeat(rows, len(asked)), np.tile(asked, len(rows))
        given = np.repeat(x_t, len(asked), axis=0)
        prediction = _prediction(call(given, repeated, schedule.time[repeated], classes), given.shape)
        bad = np.flatnonzero(~np.isfinite(prediction).reshape(len(classes), -1).all(axis=1))
        if len(bad):
            trial, which = divmod(int(bad[0]), len(asked))
            where = int(rows[trial]), int(trials["noise_index"][first + trial])
            index = _class_of(classifier, int(asked[which]))
            raise NonFiniteError(
                f"{denoiser.name} predicted NaN or infinity for class {classifier.classes[index]!r} at timestep {where[0]}, "
                f"noise index {where[1]}",
                index,
                *where,
            )
        errors = rho(prediction.astype(np.float64) - np.repeat(target, len(asked), axis=0))
        yield from np.tensordot(share, errors.reshape(len(rows), len(asked), *x_start.shape), axes=(0, 1))


def _eps(classifier: Classifier, trials: Trials, i: int) -> NDArray[np.float32]:
    """Of trial i, as the core's loop makes it."""
    index = int(trials["noise_index"][i])
    if classifier.noise is not None:
        return np.asarray(classifier.noise[index])
    timestep = int(trials["timestep"][i])
    eps = ops.normal(classifier.denoiser.shape, seed=classifier.seed, index=index, timestep=timestep)
    return np.asarray(eps * np.float32(trials["eps_sign"][i]))


def _prediction(given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    prediction = ops._to_numpy(given, "the denoiser's prediction")
    if prediction.shape != shape:
        raise ShapeError(f"the denoiser's prediction has shape {prediction.shape}, must have {shape}")
    if prediction.dtype.kind != "f":
        raise DTypeError(f"the denoiser's prediction is of dtype {prediction.dtype}, must be of floating point")
    return prediction


def _picture(denoiser: Denoiser, image: Any, x_start: NDArray[np.float32]) -> NDArray[np.float32] | None:
    if denoiser.pixels is not None:
        return x_start_picture(denoiser.pixels(image))
    return x_start_picture(x_start) if x_start.ndim == 2 or x_start.shape[0] in (1, 3) else None
