"""Policies: which (class, trial) is evaluated next, and when to stop.

Every policy is lowered to the same C race (csrc/method/race.h): trials in their order, a level for the test, caps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _core, arguments
from .core_types import Policy as CorePolicy
from .core_types import Trials
from .errors import InputError
from .profile import Profile
from .stored import as_json

if TYPE_CHECKING:
    from .schedule import Schedule

__all__ = ["Fixed", "Race", "Staged", "paper", "quick"]

Integers = Sequence[int] | NDArray[np.integer[Any]]
Caps = Sequence[tuple[int, int]] | NDArray[np.integer[Any]] | Literal["default"] | None


@dataclass(frozen=True)
class Lowered:
    """What the core is given."""

    trials: Trials
    policy: CorePolicy


@dataclass(frozen=True)
class Terms:
    """What a policy may know of the run: classes, timesteps of the schedule, their weights, noise."""

    n_classes: int
    n_timesteps: int
    weighting: NDArray[np.float64] | None
    antithetic: bool = False
    n_noise: int | None = None
    """Rows of a given noise array: the pool can not be larger."""
    schedule: Schedule | None = None
    """A profile must have been measured on it; None: not asked."""
    profile: Profile | None = None
    """The model's own."""


def _core_policy(
    *, risk: float = 0.0, n_min: int = 2, n_winner: int = 0, ramp: int = 0, caps: Sequence[tuple[int, int]] = (), max_evals: int | None = None,
    fill: int = 1, prior_weight: float = 4.0, anytime: bool = False, min_gap: float = 0.0,
) -> CorePolicy:  # fmt: skip
    return {
        "risk": risk,
        "n_min": n_min,
        "n_winner": n_winner,
        "ramp": ramp,
        "anytime": anytime,
        "min_gap": min_gap,
        "prior_weight": prior_weight,
        "fill": fill,
        "caps": np.array(caps, np.int64).reshape(-1, 2),
        "max_evals": 0 if max_evals is None else max_evals,
    }


def _pool(n_trials: int, terms: Terms, density: NDArray[np.float64] | None = None) -> Trials:
    """Trials spread evenly under the density; None: under the weighting, so that each counts the same."""
    return _core.trials_pool(
        n_trials,
        terms.n_timesteps,
        weighting=terms.weighting,
        density=terms.weighting if density is None else density,
        antithetic=terms.antithetic,
    )


def _settle(policy: Any, **values: Any) -> None:
    """Checked values in place of the given ones: plain Python's, so that policies compare, hash and pickle."""
    for name, value in values.items():
        object.__setattr__(policy, name, value)


@dataclass(frozen=True, kw_only=True)
class Race:
    """Paired elimination race: the default.  `quick` is the same with an earlier first test.

    All live classes see the same trials.  A class is dropped when its mean excess loss over the leader exceeds a Student-t
    radius with finite-pool factor, at level ``risk * min(1, n / ramp)**2`` after n trials; caps bound the survivors.
    csrc/method/race.h has every formula.

    Parameters
    ----------
    risk : float
        Level of one look at one pair, in (0, 1): a knob, *not* the chance that the label is wrong.  With
        ``guarantee="anytime"``: the chance that the best class is ever dropped, see there.
    n_min : int
        Trials of every class before the first test; at least 2.  (With two classes at least 12 are made: they have no
        others whose variances could help.)
    n_winner : int
        Trials that the winner has made when a race ends decided, at least: it reads on alone, for so few evaluations that
        they hardly count, and its loss is then known well enough to be judged (`OutOfWorldWarning`).  0: it does not.
    ramp : int
        Trials until the level is reached in full; 0: from the first test on.
    pool : int or None
        Trials of the full evaluation that the race stands in for.  None: 500, or 1000 with more than 200 classes.
    caps : "default", None, sequence of (trials, keep) or (n, 2) array of int
        After so many trials at most so many classes stay.
    timesteps : "uniform", "calibrated", Profile, sequence or (n,) array of int
        "uniform": spread evenly over the schedule (under the weighting).  A `Profile` (`diffcls.calibrate`): drawn where
        classes differ and weighted so that the same loss is estimated, with less noise a trial.  "calibrated": by the
        profile that the model carries (``Denoiser.profile``); an error where it has none.  Or rows of the schedule, one a
        trial; kept as a tuple.
    max_evals : int or None
        Denoiser evaluations that an image may cost.
    fill : int
        A round's evaluations are raised to a multiple of it.  Part of the policy: it changes answers, batches do not.
    prior_weight : float
        Degrees of freedom, at most, of the prior that pulls each pair's variance to the median over the classes alive.  It
        is what makes a test after two trials possible (`quick`).
    guarantee : None or "anytime"
        "anytime": a class is dropped only outside of a confidence sequence, at level ``risk / (K - 1)``: for independent,
        normal differences the chance that the class of smallest expected loss is dropped at *any* round is at most
        `risk`, and for others that holds in the limit of many trials.  `ramp` is not used and there are no caps.  The
        price is 2.3 to 3.7 times the evaluations of a race at the same level (benchmarks/frontier.py, Gaussians).
    min_gap : float
        Losses that differ by less count as equal, in units of the weighted loss: near ties end early, and the winner's
        loss may be that much above the smallest.

    Raises
    ------
    ValueError
        An impossible value, a pool beside a list of timesteps, or caps with ``guarantee="anytime"``.
    """

    risk: float = 0.02
    n_min: int = 8
    n_winner: int = 0
    ramp: int = 32
    pool: int | None = None
    caps: Caps = "default"
    timesteps: Literal["uniform", "calibrated"] | Profile | Integers = "uniform"
    max_evals: int | None = None
    fill: int = 10
    prior_weight: float = 4.0
    guarantee: Literal["anytime"] | None = None
    min_gap: float = 0.0

    def __post_init__(self) -> None:
        _settle(
            self,
            risk=arguments.between_0_and_1("risk", self.risk),
            n_min=arguments.integer("n_min", self.n_min, at_least=2),
            n_winner=arguments.integer("n_winner", self.n_winner, at_least=0),
            ramp=arguments.integer("ramp", self.ramp, at_least=0),
            pool=None if self.pool is None else arguments.integer("pool", self.pool, at_least=2),
            caps=_caps(self.caps),
            timesteps=_timesteps(self.timesteps),
            max_evals=None if self.max_evals is None else arguments.integer("max_evals", self.max_evals, at_least=1),
            fill=arguments.integer("fill", self.fill, at_least=1),
            prior_weight=_not_negative("prior_weight", self.prior_weight),
            min_gap=_not_negative("min_gap", self.min_gap),
        )
        if isinstance(self.timesteps, tuple) and self.pool is not None:
            raise InputError("pool and a list of timesteps were given; the list is the pool")
        if not (self.guarantee is None or (isinstance(self.guarantee, str) and self.guarantee == "anytime")):
            raise InputError(f"guarantee is {arguments.shown(self.guarantee)}, must be None or 'anytime'")
        if self.guarantee == "anytime" and self.caps not in ("default", None):
            raise InputError("caps were given with guarantee='anytime'; they drop classes without a test")

    def _lower(self, terms: Terms) -> Lowered:
        k = terms.n_classes
        if isinstance(self.timesteps, (str, Profile)):
            pool = self.pool or (1000 if k > 200 else 500)
            pool = pool if terms.n_noise is None else min(pool, terms.n_noise)
            profile = self._profile(terms)
            trials = _pool(pool, terms, None if profile is None else profile.density(terms.weighting))
        else:
            trials = _core.trials_list(
                np.asarray(self.timesteps, np.int64),
                terms.n_timesteps,
                weighting=terms.weighting,
                antithetic=terms.antithetic,
            )
        caps: Sequence[tuple[int, int]] = self.caps or ()  # type: ignore[assignment]
        if self.guarantee == "anytime":
            caps = ()
        elif isinstance(self.caps, str):
            caps = ((25, max(20, -(-k // 2))), (75, max(10, -(-k // 20))), (150, max(5, -(-k // 100))))
        policy = _core_policy(
            risk=self.risk,
            n_min=max(self.n_min, 12) if k == 2 else self.n_min,
            n_winner=self.n_winner,
            ramp=self.ramp,
            caps=caps,
            max_evals=self.max_evals,
            fill=self.fill,
            prior_weight=self.prior_weight,
            anytime=self.guarantee == "anytime",
            min_gap=self.min_gap,
        )
        return Lowered(trials, policy)

    def _profile(self, terms: Terms) -> Profile | None:
        if self.timesteps == "uniform":
            return None
        profile = terms.profile if self.timesteps == "calibrated" else self.timesteps
        if not isinstance(profile, Profile):
            raise InputError(
                "timesteps is 'calibrated' and the model carries no profile; measure one, "
                "profile = diffcls.calibrate(classifier, images), and give Race(timesteps=profile)"
            )
        if terms.schedule is not None:
            profile.check(terms.schedule)
        return profile


def quick(**options: Any) -> Race:
    """A `Race` that tests after two trials, with a prior of 16 degrees of freedom, and whose winner reads on to eight.

    A third of the default's evaluations where most classes are far away, and the same answers on the models it was measured
    on (benchmarks/frontier.py, the embedded model's card); the embedded model's own policy.

    Parameters
    ----------
    **options
        Of `Race`.

    Returns
    -------
    Race

    Raises
    ------
    ValueError
        As `Race`.
    """
    return Race(**{"n_min": 2, "n_winner": 8, "prior_weight": 16.0, **options})


@dataclass(frozen=True)
class Fixed:
    """Every class, every trial.

    Parameters
    ----------
    n_samples : int
        Trials, spread evenly over the schedule (under the weighting).

    Raises
    ------
    ValueError
        `n_samples` is no integer of 1 or more.
    """

    n_samples: int

    def __post_init__(self) -> None:
        _settle(self, n_samples=arguments.integer("n_samples", self.n_samples, at_least=1))

    def _lower(self, terms: Terms) -> Lowered:
        return Lowered(_pool(self.n_samples, terms), every_trial())


@dataclass(frozen=True)
class Staged:
    """Stages of the paper (Li et al., 2023): after ``n_samples[i]`` trials the best ``to_keep[i]`` classes stay.

    Parameters
    ----------
    n_samples, to_keep : sequence or (n,) array of int
        One of each a stage; ``n_samples`` rises.
    n_trials : int
        Noises at each timestep.
    nested : bool
        True: stages read prefixes of one low-discrepancy sequence, so counts are what they say.  False: the published
        code's grids, in its order.  They do not nest, so a stage evaluates more than ``n_samples`` says; where a count
        does not divide the largest, or the largest does not divide the schedule, the noisy end is left out.

    Raises
    ------
    ValueError
        Not integers of 1 or more, not as many of one as of the other, or ``n_samples`` does not rise.

    Notes
    -----
    Survivors are counted in classes, however many prompts a class has (the published code counts prompts: to have that,
    make every prompt a class of its own).  Where fewer classes are left than ``to_keep``, all of them stay.
    """

    n_samples: Integers
    to_keep: Integers
    n_trials: int = 1
    nested: bool = True

    def __post_init__(self) -> None:
        _settle(
            self,
            n_samples=arguments.integers("n_samples", self.n_samples, at_least=1),
            to_keep=arguments.integers("to_keep", self.to_keep, at_least=1),
            n_trials=arguments.integer("n_trials", self.n_trials, at_least=1),
        )
        if len(self.n_samples) != len(self.to_keep):
            raise InputError(
                f"n_samples has {len(self.n_samples)} stages and to_keep {len(self.to_keep)}, must have the same number"
            )
        if list(self.n_samples) != sorted(set(self.n_samples)):
            raise InputError(f"n_samples is {list(self.n_samples)}, must rise from stage to stage")

    def _lower(self, terms: Terms) -> Lowered:
        if self.nested:
            ends = np.array(self.n_samples, np.int64) * self.n_trials
            trials = _pool(int(ends[-1]), terms)
        else:
            if terms.antithetic and self.n_trials % 2:
                raise InputError(
                    "noise='antithetic' takes each timestep in pairs, and the published grids of Staged(nested=False) hold "
                    f"each n_trials times: n_trials is {self.n_trials}, must be even, or nested=True"
                )
            timesteps, ends = _core.trials_published(list(self.n_samples), terms.n_timesteps, self.n_trials)
            trials = _core.trials_list(
                timesteps, terms.n_timesteps, weighting=terms.weighting, antithetic=terms.antithetic
            )
        caps: dict[int, int] = {}  # a published stage may add no trial: then it only cuts once more
        for end, keep in zip(ends.tolist(), self.to_keep, strict=True):
            caps[end] = min(keep, caps.get(end, keep))
        return Lowered(trials, _core_policy(caps=list(caps.items())))


def _caps(caps: Any) -> Caps:
    if caps is None or (isinstance(caps, str) and caps == "default"):
        return None if caps is None else "default"
    checked = arguments.pairs(caps)
    if checked is None or any(later[0] <= earlier[0] for earlier, later in pairwise(checked)):
        raise InputError(
            f"caps is {arguments.shown(caps)}, must be 'default', None or pairs (trials, keep) of integers of 1 or more, "
            "trials rising from pair to pair"
        )
    return checked


def _timesteps(timesteps: Any) -> str | Profile | tuple[int, ...]:
    if isinstance(timesteps, Profile) or (isinstance(timesteps, str) and timesteps in ("uniform", "calibrated")):
        return timesteps
    if timesteps is None or isinstance(timesteps, str):
        raise InputError(
            f"timesteps is {timesteps!r}, must be 'uniform', 'calibrated', a Profile or a list of timesteps"
        )
    return arguments.integers("timesteps", timesteps, at_least=0)


def _not_negative(name: str, value: Any) -> float:
    return arguments.number(name, value, "a number of 0 or more", lambda x: 0.0 <= x < float("inf"))


Policy = Race | Fixed | Staged


def lower(policy: Policy, terms: Terms) -> Lowered:
    """What the core is given; of a given noise array trial i uses row i.

    Raises
    ------
    ValueError
        The noise array has fewer rows than the policy has trials.
    """
    lowered = policy._lower(terms)
    n = len(lowered.trials["timestep"])
    if terms.n_noise is not None:
        if n > terms.n_noise:
            raise InputError(f"noise has {terms.n_noise} rows, the policy makes {n} trials")
        lowered.trials["noise_index"] = np.arange(n, dtype=np.uint32)
    return lowered


def is_list(policy: Policy) -> bool:
    """Its trials are given timesteps, which the weighting weighs; else they are drawn from a density."""
    if isinstance(policy, Staged):
        return not policy.nested
    return isinstance(policy, Race) and isinstance(policy.timesteps, tuple)


def every_trial() -> CorePolicy:
    """For the core: no class is dropped, whatever the trials."""
    return _core_policy()


_PAPER: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "cifar10": ((50, 500), (5, 1)),
    "stl10": ((100, 500), (5, 1)),
    "pets": ((25, 250), (5, 1)),
    "aircraft": ((20, 50, 100, 500), (20, 10, 5, 1)),
    "food": ((20, 50, 100, 500), (20, 10, 5, 1)),
    "flowers": ((20, 50, 100, 500), (20, 10, 5, 1)),
    "objectnet": ((50, 100, 500, 1000), (25, 10, 5, 1)),
    "imagenet": ((50, 100, 500, 1000), (500, 50, 10, 1)),
    "dit": ((250,), (1,)),
}


def paper(name: str) -> Staged:
    """The paper's policy for a data set, on the published grids; "dit": every class at timesteps 2, 6, ..., 998.

    Templates, loss and the other facts of the setting: `diffcls.protocol`.

    Parameters
    ----------
    name : str
        "cifar10", "stl10", "pets", "aircraft", "food", "flowers", "objectnet", "imagenet" or "dit".

    Returns
    -------
    Staged

    Raises
    ------
    ValueError
        No such setting.
    """
    if not isinstance(name, str) or name not in _PAPER:
        raise InputError(f"the paper has no setting {arguments.shown(name)}; there are {', '.join(_PAPER)}")
    n_samples, to_keep = _PAPER[name]
    return Staged(n_samples, to_keep, nested=False)


def describe(policy: Policy, profile: Profile | None = None) -> dict[str, Any]:
    """For the run record, plain Python objects; `profile` is the model's own, which "calibrated" stands for."""
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    if isinstance(policy, Race):
        drawn = profile if isinstance(policy.timesteps, str) and policy.timesteps == "calibrated" else policy.timesteps
        if isinstance(drawn, Profile):
            values["timesteps"] = drawn.to_dict()
    return {"name": type(policy).__name__, **as_json(values)}
