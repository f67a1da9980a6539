"""`classify` and `Classifier`: pictures and prompts in, results out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .core_types import RaceResult
from .errors import DTypeError, InputError, NonFiniteError, OutOfWorldWarning, ShapeError
from .images import split
from .models.registry import load
from .ops import _to_numpy
from .options import (
    check_batch_size,
    check_loss,
    check_noise,
    check_policy,
    check_priors,
    check_seed,
    check_temperature,
    check_weighting,
    split_x_start,
    versions,
    with_device,
)
from .policies import Fixed, Lowered, Policy, Terms, describe
from .progress import open_progress
from .prompts import Templates, resolve
from .result import Result, Results
from .tables import ErrorTable
from .threads import backend

Progress = bool | Callable[[int, int], object] | None

IN_FLIGHT = 64
"""Pictures under way at once: enough to fill batches when few classes are left of each."""


def classify(
    image: Any,
    prompts: Any = None,
    *,
    model: Any = None,
    policy: Policy | None = None,
    templates: Templates = None,
    pool: str = "min",
    loss: str = "l2",
    weighting: Any = None,
    priors: Any = None,
    temperature: float | None = None,
    noise: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: Any = None,
    dtype: Any = None,
    progress: Progress = None,
    keep_errors: bool = False,
) -> Result | Results:
    """Classify one or several pictures with a conditional diffusion model (Li et al., ICCV 2023).

    ``loss_k = mean over trials of w(t) mean_elements rho(model(x_t, t, c_k) - target)``; the label is the smallest.

    Parameters
    ----------
    image : path, PIL.Image, array, or a list or batch of those
        (H, W) or (H, W, C), uint8 or floats in [0, 1].  With a `Denoiser` that has no `encode`: x_start itself,
        (*shape) or (N, *shape).
    prompts : list of str, mapping of label to str or list of str, or None
        Classes; None: all of the model's own.
    model : None, str or Denoiser
        None: the embedded model.
    policy : Race, Staged or Fixed
        None: ``Race()``.
    templates : str with {}, callable, or a list of them
    pool : {"min", "mean", "logmeanexp"}
        Several prompts a class: the best one counts, or their errors are pooled inside each trial ("logmeanexp" with
        `temperature`).
    loss : {"l2", "l1", "huber"}
    weighting : None, str or (T,) array
        Of the errors in the model's own parameterisation, over timesteps.  None: the model's own where it has one, else
        "uniform".  A name is one of `weightings.names`: "epsilon", "min_snr", "likelihood", ...; `weightings` says what
        each means, and why "uniform" is the default for every prediction type.
    priors : None, (K,) array or mapping of label to number
    temperature : float or None
        Of the probabilities.  None: the model's fitted one where it has one, else 1.
    noise : None, "antithetic" or array (n, *shape)
        None: the counter-based stream of `seed`.  With an array trial i uses row i.
    seed : int
        0 to 2**64 - 1.
    batch_size : int or None
        Rows that the denoiser is asked at once.  Never changes a loss unless the denoiser's own rows depend on it.
    device, dtype
        Of a `Denoiser`'s tensors, where it does not say.
    progress : None, bool or callable(done, max)
        None: a bar on a terminal or in a notebook when the work is long.
    keep_errors : bool
        Keep every trial's error in the result.

    Returns
    -------
    Result or Results
        One for one picture, a sequence for several.
    """
    classifier = Classifier(
        model,
        prompts,
        policy=policy,
        templates=templates,
        pool=pool,
        loss=loss,
        weighting=weighting,
        priors=priors,
        temperature=temperature,
        noise=noise,
        seed=seed,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        progress=progress,
        keep_errors=keep_errors,
    )
    return classifier(image)


class Classifier:
    """`classify` with everything but the picture settled: prompts resolved, trials made.  May be shared by threads.

    The options are those of `classify`.
    """

    def __init__(
        self,
        model: Any = None,
        prompts: Any = None,
        *,
        policy: Policy | None = None,
        templates: Templates = None,
        pool: str = "min",
        loss: str = "l2",
        weighting: Any = None,
        priors: Any = None,
        temperature: float | None = None,
        noise: Any = None,
        seed: int = 0,
        batch_size: int | None = None,
        device: Any = None,
        dtype: Any = None,
        progress: Progress = None,
        keep_errors: bool = False,
    ) -> None:
        self.denoiser = with_device(load(model), device, dtype)
        self.arms = resolve(self.denoiser, prompts, templates, pool)
        self.classes = self.arms.classes
        self.policy = check_policy(policy)
        self.pool, self.loss, self.seed = pool, check_loss(loss), check_seed(seed)
        self.weighting = check_weighting(weighting, self.denoiser, self.loss)
        self.log_prior = check_priors(priors, self.classes)
        self.temperature = check_temperature(self.denoiser.temperature if temperature is None else temperature)
        self.noise, self._noise_name = check_noise(noise, self.denoiser.shape)
        self.batch_size = check_batch_size(batch_size)
        self.progress, self.keep_errors = progress, keep_errors
        self._entry = self.denoiser.entry()
        self._lowered = self._lower(self.policy)
        self._run = self._describe(templates)

    def __repr__(self) -> str:
        return f"Classifier({self.denoiser.name!r}, {len(self.classes)} classes, {self.policy})"

    def __call__(self, images: Any) -> Result | Results:
        """`Result` of one picture, `Results` of several."""
        items, is_one = split(images) if self.denoiser.encode else split_x_start(images, self.denoiser.shape)
        items = list(items)
        with open_progress(self.progress, len(items) * self.max_evals, len(items)) as report:
            results = list(self._classify(items, self._lowered, report, keep_errors=self.keep_errors))
        return results[0] if is_one else Results(results, self.classes)

    def stream(self, images: Iterable[Any]) -> Iterator[Result]:
        """Results in order, one by one, with many pictures under way; `images` is read only as far as needed."""
        return self._classify(images, self._lowered, None, keep_errors=self.keep_errors)

    def error_table(self, images: Any, *, n_samples: int) -> ErrorTable:
        """Errors of every class at every trial of ``Fixed(n_samples)``, for replay, weighting and ablations.

        Raises
        ------
        ValueError
            A class has several prompts that race (pool="min"): their errors have no common row.
        """
        if len(self.arms.class_of_arm) != len(self.classes):
            raise InputError("an error table needs one prompt a class, or pool='mean' or 'logmeanexp'")
        items, _ = split(images) if self.denoiser.encode else split_x_start(images, self.denoiser.shape)
        items = list(items)
        lowered = self._lower(Fixed(n_samples))
        total = len(items) * n_samples * len(self.arms.conditions)
        with open_progress(self.progress, total, len(items)) as report:
            errors = [result.errors for result in self._classify(items, lowered, report, keep_errors=True)]
        shape = (len(items), len(self.classes), n_samples)
        run = {**self._run, "policy": describe(Fixed(n_samples))}
        return ErrorTable(np.array(errors, np.float64).reshape(shape), lowered.trials, self.classes, run, self)

    @property
    def max_evals(self) -> int:
        """Evaluations that one picture can cost at most: the whole pool."""
        return len(self._lowered.trials["timestep"]) * len(self.arms.conditions)

    # ---- below the surface -------------------------------------------------------------------------------------------

    def _lower(self, policy: Policy) -> Lowered:
        given = isinstance(self.noise, np.ndarray)
        terms = Terms(
            n_classes=len(self.arms.class_of_arm),
            n_timesteps=len(self.denoiser.schedule),
            weighting=self.weighting,
            antithetic=self._noise_name == "antithetic",
            n_noise=len(self.noise) if given else None,  # type: ignore[arg-type]
        )
        lowered = policy.lower(terms)
        n = len(lowered.trials["timestep"])
        if given:
            if n > len(self.noise):  # type: ignore[arg-type]
                raise InputError(f"noise has {len(self.noise)} rows, the policy makes {n} trials")  # type: ignore[arg-type]
            lowered.trials["noise_index"] = np.arange(n, dtype=np.uint32)
        return lowered

    def make_loop(
        self,
        lowered: Lowered | None = None,
        report: Callable[[int], None] | None = None,
        *,
        keep_errors: bool = False,
        in_flight: int = IN_FLIGHT,
    ) -> _core.Loop:
        """The core's loop for this classifier: for those who feed images themselves."""
        lowered = lowered or self._lowered
        denoiser = self.denoiser
        return _core.Loop(
            self._entry,
            backend=backend(),
            shape=denoiser.shape,
            alpha=denoiser.schedule.alpha,
            sigma=denoiser.schedule.sigma,
            time=denoiser.schedule.time,
            p=denoiser.p,
            q=denoiser.q,
            n_classes=len(self.classes),
            class_of_arm=self.arms.class_of_arm,
            condition_offset=self.arms.offset,
            conditions=self.arms.conditions,
            pool_temperature=self.temperature if self.pool == "logmeanexp" else 0.0,
            trials=lowered.trials,
            policy=lowered.policy,
            loss=self.loss,
            delta=1.0,
            seed=self.seed,
            noise=self.noise,
            batch_size=self.batch_size,
            max_in_flight=in_flight,
            progress=report,
            keep_errors=keep_errors,
        )

    def _classify(
        self, images: Iterable[Any], lowered: Lowered, report: Callable[[int], None] | None, *, keep_errors: bool
    ) -> Iterator[Result]:
        loop = self.make_loop(lowered, report, keep_errors=keep_errors)
        source, exhausted = iter(images), False
        prepared: dict[int, Any] = {}
        done: dict[int, Result] = {}
        n_added = n_given = 0
        while not exhausted or n_given < n_added:
            while not exhausted and loop.wants_image():
                image = next(source, _END)
                if image is _END:
                    exhausted = True
                    break
                x_start, prepared[n_added] = self._encode(image, n_added)
                loop.add(x_start, n_added)
                n_added += 1
            finished = self._advance(loop, drain=exhausted)
            if finished is not None:
                tag, race = finished
                done[tag] = self._result(race, prepared.pop(tag))
            while n_given in done:
                yield done.pop(n_given)
                n_given += 1

    def _advance(self, loop: _core.Loop, *, drain: bool) -> tuple[int, RaceResult] | None:
        try:
            return loop.advance(drain=drain)
        except NonFiniteError as error:  # the core knows classes by number only
            name = self.classes[error.class_index]
            message = f"{self.denoiser.name} predicted NaN or infinity for class {name!r}"
            where = f"at timestep {error.timestep}, noise index {error.noise_index}"
            raise NonFiniteError(f"{message} {where}", error.class_index, error.timestep, error.noise_index) from None

    def _encode(self, image: Any, position: int) -> tuple[NDArray[np.float32], Any]:
        """(x_start, what was done to the picture)."""
        denoiser, preparation = self.denoiser, None
        if denoiser.encode is not None:
            encoded = denoiser.encode(image)
            image, preparation = encoded if isinstance(encoded, tuple) else (encoded, None)
        x_start = _to_numpy(image, "image")
        if x_start.shape != denoiser.shape:
            raise ShapeError(f"image {position} gives x_start of shape {x_start.shape}, must have {denoiser.shape}")
        if x_start.dtype.kind not in "fiu":
            raise DTypeError(f"image {position} is of dtype {x_start.dtype}, must be of real numbers")
        return np.ascontiguousarray(x_start, np.float32), preparation

    def _result(self, race: RaceResult, preparation: Any) -> Result:
        told = self.denoiser.judge(float(race["losses"][race["index"]]))
        if told is not None:
            warnings.warn(told, OutOfWorldWarning, stacklevel=2)
        done = asdict(preparation) if is_dataclass(preparation) and not isinstance(preparation, type) else preparation
        errors = race["errors"]
        return Result.from_race(
            race,
            classes=self.classes,
            log_prior=self.log_prior,
            temperature=self.temperature,
            run=self._run if done is None else {**self._run, "preparation": done},
            errors=None if errors is None else self._errors_by_class(errors),
            warnings=[] if told is None else [told],
        )

    def _errors_by_class(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, S): of the prompt that got furthest, then of the one with the smallest mean."""
        if len(errors) == len(self.classes):
            return errors
        weight = self._lowered.trials["weight"]
        n = np.isfinite(errors).sum(axis=1)
        mean = np.nansum(errors * weight, axis=1) / np.maximum(n, 1)
        best = [
            min(np.flatnonzero(self.arms.class_of_arm == c), key=lambda arm: (-n[arm], mean[arm], arm))
            for c in range(len(self.classes))
        ]
        return errors[best]

    def _describe(self, templates: Templates) -> dict[str, Any]:
        denoiser, cpu = self.denoiser, backend()
        weighting = "uniform" if self.weighting is None else self.weighting.tolist()
        return {
            "model": denoiser.name,
            "weights": denoiser.digest,
            "prediction_type": denoiser.prediction_type,
            "schedule": repr(denoiser.schedule),
            "classes": self.classes,
            "templates": None if templates is None else repr(templates),
            "pool": self.pool,
            "policy": describe(self.policy),
            "loss": self.loss,
            "weighting": weighting,
            "temperature": self.temperature,
            "noise": self._noise_name,
            "seed": self.seed,
            "preparation": denoiser.preparation,
            "batch_size": self.batch_size,
            "device": "cpu",
            "simd": cpu.simd,
            "threads": cpu.n_threads,
            "versions": versions(),
        }


_END = object()
