"""`calibrate`: a `Profile` from a few unlabelled pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core, arguments
from .errors import InputError
from .options import split_images
from .policies import Lowered, Staged, Terms
from .profile import Profile, schedule_fingerprint

if TYPE_CHECKING:
    from .classifier import Classifier

Floats = NDArray[np.float64]

N_FIRST, N_TRIALS, N_KEPT = 16, 96, 5
"""A picture's cost: 16 trials of every class, then 80 more of the best five."""


def calibrate(classifier: Classifier, images: Any, *, smoothing: float = 0.04) -> Profile:
    """Measure where along the schedule the classes of `classifier` differ, on a few pictures, without labels.

    Each picture gets 16 trials of every class and 80 more of the five best, spread over the timesteps that the classifier's
    weighting looks at; 24 pictures are enough (at ten classes they cost as much as five pictures of the published
    schedule).  With d the difference of a class's error to the best one's, trial by trial and under the weighting w::

        spread(t)^2 = mean over pictures and the four next classes of  d(t)^2 / mean over trials of (w d)^2

    smoothed over timesteps by a Gaussian kernel.

    Parameters
    ----------
    classifier : Classifier
    images : as `Classifier.__call__` takes them
        Like those to be classified later; labels are not used.
    smoothing : float
        Standard deviation of the kernel, as a share of the schedule.

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        No pictures; one class only; classes do not differ at all on any picture.
    TypeError
        `classifier` is no `Classifier`.
    """
    from .classifier import Classifier

    arguments.instance("classifier", classifier, Classifier)
    smoothing = arguments.between_0_and_1("smoothing", smoothing)
    if len(classifier.classes) < 2:
        raise InputError("there is one class; a profile is of differences between classes")
    items, _ = split_images(images, classifier.denoiser)
    if not items:
        raise InputError("images is empty; a profile needs a few pictures")
    lowered = classifier._lower(_Survey((N_FIRST, N_TRIALS), (N_KEPT, N_KEPT)))
    results = list(classifier._classify(items, lowered, None, keep_errors=True))
    weight, timesteps = lowered.trials["weight"], lowered.trials["timestep"].astype(np.int64)
    squares = [square for result in results for square in _relative_squares(result.errors, result.index, weight)]
    if not squares:
        raise InputError("the classes do not differ on any picture: the model ignores its condition here")
    mean_square = np.mean(squares, axis=0)
    n_timesteps = len(classifier.denoiser.schedule)
    kernel = np.exp(-0.5 * ((np.arange(n_timesteps)[:, None] - timesteps) / (smoothing * n_timesteps)) ** 2)
    return Profile(
        np.sqrt(kernel @ mean_square / kernel.sum(axis=1)),
        schedule_fingerprint(classifier.denoiser.schedule),
        str(classifier.denoiser.name),
        {
            "n_images": len(items),
            "n_evals": int(sum(result.n_evals for result in results)),
            "seed": classifier.seed,
            "loss": classifier.loss,
            "weights": classifier.denoiser.digest,
            "smoothing": smoothing,
        },
    )


@dataclass(frozen=True)
class _Survey(Staged):
    """Trials spread evenly over the timesteps that count, however much they count."""

    def _lower(self, terms: Terms) -> Lowered:
        n_trials = N_TRIALS if terms.n_noise is None else min(N_TRIALS, terms.n_noise)
        trials = _core.trials_pool(
            n_trials, terms.n_timesteps, weighting=terms.weighting, density=None, antithetic=terms.antithetic
        )
        return Lowered(trials, super()._lower(terms).policy)


def _relative_squares(errors: Any, winner: int, weight: Floats) -> list[Floats]:
    """(S,) squared differences of each class that saw all trials to the winner, each over its weighted mean square."""
    whole = np.flatnonzero(np.isfinite(errors).all(axis=1))
    squares = (errors[whole[whole != winner]] - errors[winner]) ** 2
    sizes = (squares * weight**2).mean(axis=1)
    return [square / size for square, size in zip(squares, sizes, strict=True) if size > 0.0]
