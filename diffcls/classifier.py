"""`Classifier`: everything but the picture is settled when it is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from .answer import with_pictures
from .audit import Audit, audit
from .core_types import Trials
from .cuda_denoiser import device_of
from .entry import Entry, make_entry, open_entry
from .errors import DTypeError, InputError, ShapeError
from .fitted_weighting import Weighting
from .in_flight import Encoded, InFlight, stream
from .models.registry import open_model
from .ops import _to_numpy
from .options import (
    check_batch_size,
    check_loss,
    check_noise,
    check_policy,
    check_pool_temperature,
    check_priors,
    check_seed,
    check_shortlist,
    check_temperature,
    check_weighting,
    split_images,
)
from .policies import Lowered, Policy, Terms, describe, lower
from .progress import open_progress
from .prompts import Templates, resolve
from .result import Result
from .results import Results
from .run_record import run_record
from .shortlist import Shortlist
from .tables import ErrorTable
from .tabulating import tabulate
from .temperature import Calibration

Progress = bool | Callable[[int, int], object] | None

IN_FLIGHT = 64
"""Pictures under way at once: enough to fill batches when few classes are left of each."""


class Classifier:
    """`classify` with everything but the picture settled: prompts resolved, trials made.  May be shared by threads.

    Parameters
    ----------
    model, prompts, policy, templates, pool, loss, weighting, priors, temperature, noise, seed, batch_size, device, dtype
        As for `classify`.
    progress, keep_errors, shortlist
        As for `classify`.

    Raises
    ------
    ValueError, TypeError, RuntimeError, ImportError
        As `classify`, for all but the pictures.
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
        temperature: float | Calibration | None = None,
        noise: Any = None,
        seed: int = 0,
        batch_size: int | None = None,
        device: Any = None,
        dtype: Any = None,
        progress: Progress = None,
        keep_errors: bool = False,
        shortlist: Shortlist | None = None,
    ) -> None:
        self.shortlist = check_shortlist(shortlist)
        self.denoiser = open_model(model, device, dtype)
        self.arms = resolve(self.denoiser, prompts, templates, pool)
        if self.denoiser.encode_prompts and self.arms.texts != self.denoiser.class_names:
            self.denoiser = self.denoiser.with_prompts(self.arms.texts)
        self.classes = self.arms.classes
        self.policy = check_policy(policy, self.denoiser.policy)
        self.pool, self.loss, self.seed = pool, check_loss(loss), check_seed(seed)
        self.weighting = check_weighting(weighting, self.denoiser, self.loss)
        self.fitted_weighting = weighting if isinstance(weighting, Weighting) else None
        self.log_prior = check_priors(priors, self.classes)
        calibration = temperature if isinstance(temperature, Calibration) else None
        self.temperature = check_temperature(temperature, self.denoiser)
        self.pool_temperature = check_pool_temperature(pool, self.temperature, calibration)
        own = self.denoiser.policy if temperature is None else None
        one_prompt = len(self.arms.conditions) == len(self.classes)
        as_fitted = weighting is None and loss == "l2" and one_prompt  # the policy: see Result.calibrated
        self.calibration = (
            {"source": "model", "policy": describe(own)} if own is not None and as_fitted else calibration
        )
        self.noise, self.noise_name = check_noise(noise, self.denoiser.shape)
        self.batch_size = check_batch_size(batch_size)
        self.progress, self.keep_errors = progress, keep_errors
        self.device = device_of(self.denoiser)
        self._entry = self._make_entry()
        self._lowered = self._lower(self.policy)
        self.run = run_record(self, templates)
        if calibration is not None:
            calibration.check(self.run)
            self.log_prior = self.log_prior + calibration.log_bias(self.classes)

    def __repr__(self) -> str:
        return f"Classifier({self.denoiser.name!r}, {len(self.classes)} classes, {self.policy})"

    def __getstate__(self) -> dict[str, Any]:
        """Without the core's handle on the model: a classifier may be sent to other processes where its denoiser may."""
        return {name: value for name, value in self.__dict__.items() if name != "_entry"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._entry = self._make_entry()

    def __call__(self, images: Any) -> Result | Results:
        """`Result` of one picture, `Results` of several."""
        items, is_one = split_images(images, self.denoiser)
        with open_progress(self.progress, len(items) * self.max_evals, len(items)) as report:
            answers = self._classify(items, None, report, keep_errors=self.keep_errors)
            results = with_pictures(list(answers), items)
        return results[0] if is_one else Results(results, self.classes)

    def stream(self, images: Iterable[Any]) -> Iterator[Result]:
        """Results in order, one by one, with many pictures under way; `images` is read only as far as needed.

        Parameters
        ----------
        images : iterable of pictures

        Yields
        ------
        Result
            Where `images` fails, or a picture can not be used, those before it are given first.

        Raises
        ------
        ValueError, TypeError
            A picture that can not be used, by its position.
        """
        return stream(self, images)

    def error_table(
        self,
        images: Any,
        *,
        n_samples: int | None = None,
        policy: Policy | None = None,
        every_class: bool = True,
        labels: ArrayLike | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> ErrorTable:
        """Errors of every class at every trial, for replay, weighting and ablations.

        Parameters
        ----------
        images
            As for a call.
        n_samples : int or None
            Trials: those of ``Fixed(n_samples)``, which are those of ``Race(pool=n_samples)`` and of a nested `Staged` that
            ends there.
        policy : Race, Staged, Fixed or None
            Instead of `n_samples`: the trials of this policy, every class at each.
        every_class : bool
            False: only what the policy evaluates; what it dropped is NaN, and a replay that needs it is an error.  A full
            table of 1000 classes and trials costs a million evaluations a picture, one of
            ``Staged((64, 128, 256, 1000), (200, 50, 20, 1))`` a tenth.
        labels : (N,) sequence of int or str, or None
            True classes, kept with the table.
        path : path or None
            Errors go into this file (see `ErrorTable.save`) while they are made, and only there: for tables that memory
            should not hold.  It takes its name when the last image is done.

        Returns
        -------
        ErrorTable

        Raises
        ------
        ValueError
            A class has several prompts that race (pool="min"): their errors have no common row.  Or both or neither of
            `n_samples` and `policy` are given.
        """
        return tabulate(self, images, n_samples, policy, labels, path, every_class=every_class)

    def audit(
        self,
        images: Any,
        *,
        share: float = 0.02,
        minimum: int = 50,
        confidence: float = 0.95,
        seed: int | None = None,
    ) -> Audit:
        """Run some of the pictures to the full pool too: how often does the policy answer differently?

        The observed share and its interval belong into a report; `risk` and `p_disagree` do not.

        Parameters
        ----------
        images : as for a call
        share, minimum : float, int
            ``max(minimum, share * N)`` of the N pictures are audited, all if there are fewer.
        confidence : float
            Of the Clopper-Pearson interval.
        seed : int or None
            Chooses the pictures; None: the classifier's.  The same seed chooses the same pictures.

        Returns
        -------
        Audit

        Raises
        ------
        ValueError
            No pictures, or an impossible share, minimum or confidence.
        """
        chosen_by = self.seed if seed is None else check_seed(seed)
        return audit(self, images, share, minimum, confidence, chosen_by)

    @property
    def max_evals(self) -> int:
        """Evaluations that one picture can cost at most: the whole pool."""
        return len(self._lowered.trials["timestep"]) * len(self.arms.conditions)

    @property
    def trials(self) -> Trials:
        """The pool, in the order in which it is evaluated: timestep, noise_index, eps_sign, weight, each (S,)."""
        return self._lowered.trials

    # ---- below the surface -------------------------------------------------------------------------------------------

    def _make_entry(self) -> Entry:
        return make_entry(self.denoiser, self.device)

    def lower_for(self, n_arms: int) -> Lowered:
        """This classifier's policy for a race of so many of its prompts.

        Parameters
        ----------
        n_arms : int

        Returns
        -------
        Lowered

        Raises
        ------
        ValueError
            The noise has fewer rows than the policy has trials.
        """
        return self._lowered if n_arms == len(self.arms.class_of_arm) else self._lower(self.policy, n_arms)

    def _lower(self, policy: Policy, n_arms: int | None = None) -> Lowered:
        terms = Terms(
            n_classes=len(self.arms.class_of_arm) if n_arms is None else n_arms,
            n_timesteps=len(self.denoiser.schedule),
            weighting=self.weighting,
            antithetic=self.noise_name == "antithetic",
            n_noise=None if self.noise is None else len(self.noise),
            schedule=self.denoiser.schedule,
            profile=self.denoiser.profile,
        )
        return lower(policy, terms)

    def make_loop(
        self,
        lowered: Lowered | None = None,
        report: Callable[[int], None] | None = None,
        *,
        keep_errors: bool = False,
        in_flight: int = IN_FLIGHT,
    ) -> _core.Loop:
        """The core's loop for this classifier: for those who feed images themselves.

        Parameters
        ----------
        lowered : Lowered or None
            Trials and race; None: the classifier's own.
        report : callable(n_evals) or None
            Told of evaluations that were spent.
        keep_errors : bool
            In the core's answers.
        in_flight : int
            Pictures that race at once.

        Returns
        -------
        _core.Loop

        Raises
        ------
        DeviceError
            The model's device can not be used.
        """
        lowered, arms = lowered or self._lowered, self.arms
        denoiser = self.denoiser
        entry, where = open_entry(self._entry)
        return _core.Loop(
            entry,
            backend=where,
            shape=denoiser.shape,
            alpha=denoiser.schedule.alpha,
            sigma=denoiser.schedule.sigma,
            time=denoiser.schedule.time,
            p=denoiser.p,
            q=denoiser.q,
            n_classes=len(arms.classes),
            class_of_arm=arms.class_of_arm,
            condition_offset=arms.offset,
            conditions=arms.conditions,
            pool_temperature=self.pool_temperature or 0.0,
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
        self, images: Iterable[Any], lowered: Lowered | None, report: Callable[[int], None] | None, *, keep_errors: bool
    ) -> Iterator[Result]:
        """`lowered`: None, by this classifier's own policy and shortlist; else of every class."""
        encoded = (self.encode(image, position, listed=lowered is None) for position, image in enumerate(images))
        return self.classify_encoded(encoded, lowered, report, keep_errors=keep_errors)

    def classify_encoded(
        self,
        pictures: Iterable[Encoded],
        lowered: Lowered | None = None,
        report: Callable[[int], None] | None = None,
        *,
        keep_errors: bool = False,
    ) -> Iterator[Result]:
        """`stream` of what `encode` gave: for those who look after pictures that can not be read.

        Parameters
        ----------
        pictures : iterable of Encoded
        lowered : Lowered or None
        report : callable(n_evals) or None
        keep_errors : bool
            As of `make_loop`.

        Yields
        ------
        Result

        Raises
        ------
        NonFiniteError, DenoiserError
            The model's.
        """
        done: dict[int, Result] = {}
        n_given = 0
        for number, result in self.as_finished(pictures, lowered, report, keep_errors=keep_errors):
            done[number] = result
            while n_given in done:
                yield done.pop(n_given)
                n_given += 1

    def as_finished(
        self,
        pictures: Iterable[Encoded],
        lowered: Lowered | None = None,
        report: Callable[[int], None] | None = None,
        *,
        keep_errors: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """`classify_encoded` without waiting for a slow picture.

        Parameters
        ----------
        pictures : iterable of Encoded
        lowered : Lowered or None
        report : callable(n_evals) or None
        keep_errors : bool
            As of `make_loop`.

        Yields
        ------
        (int, Result)
            Which of `pictures`, as they are finished.

        Raises
        ------
        NonFiniteError, DenoiserError
            The model's.
        """
        return InFlight(self, lowered, report, keep_errors=keep_errors).run(pictures)

    def encode(self, image: Any, position: int = 0, *, listed: bool = True) -> Encoded:
        """A picture as the loop takes it.

        Parameters
        ----------
        image : as for a call
        position : int
            Names a picture that can not be used.
        listed : bool
            False: its race is of every class, and the shortlist's scorer is not asked.

        Returns
        -------
        Encoded

        Raises
        ------
        ValueError, TypeError
            It can not be read, or x_start is not of the model's shape, or has NaN.
        """
        denoiser, preparation, chosen = self.denoiser, None, None
        if listed and self.shortlist is not None:
            chosen = self.shortlist.choose(image, self.classes)
        if denoiser.encode is not None:
            encoded = denoiser.encode(image)
            image, preparation = encoded if isinstance(encoded, tuple) else (encoded, None)
        x_start = _to_numpy(image, "image")
        if x_start.shape != denoiser.shape:
            raise ShapeError(f"image {position} gives x_start of shape {x_start.shape}, must have {denoiser.shape}")
        if x_start.dtype.kind not in "fiu":
            raise DTypeError(f"image {position} is of dtype {x_start.dtype}, must be of real numbers")
        x_start = np.ascontiguousarray(x_start, np.float32)
        if not np.isfinite(x_start).all():
            raise InputError(f"image {position} gives x_start with NaN or infinity, must be finite")
        return Encoded(x_start, preparation, chosen)
