"""Profiles: where along the schedule classes differ, measured without labels, so that a race looks there first."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arguments import floats
from .errors import FingerprintMismatchError, InputError, ShapeError
from .stored import Saved, damaged, read_json

if TYPE_CHECKING:
    from .schedule import Schedule

Floats = NDArray[np.float64]

FLOOR = 0.1
"""Share of the draws that follows the weighting alone: no trial counts for more than 1 / FLOOR average ones."""

FORMAT = "diffcls profile 1"


@dataclass(frozen=True, eq=False)
class Profile(Saved):
    """How far apart classes are at each timestep; ``Race(timesteps=profile)`` draws trials in proportion to it.

    Timesteps are drawn from the density ``q ∝ w ((1 - FLOOR) spread / mean spread + FLOOR)`` and each trial is weighted by
    ``w / q``: what is estimated stays what it was, only with less noise a trial.  So a poor profile costs evaluations, never
    an answer.

    Attributes
    ----------
    spread : (T,) float64
        Root-mean-square difference of the errors of close classes and the best one, smoothed over timesteps; relative: a
        pair of classes counts by its shape, not by its size.  Mean 1.
    schedule : str
        Fingerprint of the schedule that it belongs to.
    model : str
        Name of the model it was measured on.
    run : dict
        Pictures, evaluations, seed, loss: how it was measured.

    Raises
    ------
    ValueError
        `spread` is not (T,), or not finite, negative somewhere or zero everywhere.
    TypeError
        `spread` is no array of numbers.
    """

    spread: Floats
    schedule: str
    model: str
    run: dict[str, Any]

    def __post_init__(self) -> None:
        spread = floats("spread", self.spread, "an array of numbers over timesteps")
        if spread.ndim != 1 or not len(spread):
            raise ShapeError(f"spread has shape {spread.shape}, must be (T,)")
        if not np.isfinite(spread).all() or (spread < 0).any() or not spread.any():
            raise InputError("spread must be finite, not negative, and not zero everywhere")
        if abs(spread.mean() - 1.0) > 1e-9:  # else it is normalised: a loaded profile equals the saved one to the bit
            spread = spread / spread.mean()
        spread.flags.writeable = False
        object.__setattr__(self, "spread", spread)

    def __eq__(self, other: object) -> bool:
        """By value, all of it: policies that hold equal profiles are equal."""
        if not isinstance(other, Profile):
            return NotImplemented
        return np.array_equal(self.spread, other.spread) and (self.schedule, self.model, self.run) == (
            other.schedule, other.model, other.run,
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.spread.tobytes(), self.schedule, self.model))

    def __repr__(self) -> str:
        return f"Profile({self.model!r}, {len(self.spread)} timesteps, largest at {int(self.spread.argmax())})"

    def density(self, weighting: Floats | None = None) -> Floats:
        """Chance of each timestep to be drawn.

        Parameters
        ----------
        weighting : (T,) array_like or None
            Of the objective; None: every timestep weighs the same.

        Returns
        -------
        (T,) float64
            Sums to 1.
        """
        w = np.ones(len(self.spread)) if weighting is None else np.asarray(weighting, np.float64)
        mean = float(np.sum(w * self.spread) / w.sum())
        q = w * ((1.0 - FLOOR) * self.spread / mean + FLOOR) if mean > 0.0 else w
        return np.asarray(q / q.sum(), np.float64)

    def check(self, schedule: Schedule) -> None:
        """Hold a schedule against the one that the profile was measured on.

        Parameters
        ----------
        schedule : Schedule

        Raises
        ------
        FingerprintMismatchError
            `schedule` is not the one that the profile was measured on.
        """
        if schedule_fingerprint(schedule) != self.schedule:
            raise FingerprintMismatchError(
                f"the profile was measured on another noise schedule ({self.model!r}, {len(self.spread)} timesteps); "
                "measure one for this model with diffcls.calibrate"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects: what `save` writes, and what a result's run record holds.

        Returns
        -------
        dict
        """
        return {
            "format": FORMAT,
            "model": self.model,
            "schedule": self.schedule,
            "spread": self.spread.tolist(),
            "run": self.run,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Profile

        Raises
        ------
        ValueError
            The file is not a profile.
        """
        content = read_json(path, FORMAT, ("model", "schedule", "spread", "run"))
        with damaged(path):
            return cls.from_dict(content)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Profile:
        """What `to_dict` gave.

        Parameters
        ----------
        content : dict

        Returns
        -------
        Profile

        Raises
        ------
        KeyError
            Something is missing.
        ValueError, TypeError
            `spread` is no (T,) array of finite numbers that are not negative.
        """
        return cls(content["spread"], content["schedule"], content["model"], content["run"])


def schedule_fingerprint(schedule: Schedule) -> str:
    """SHA-256 of the coefficients and times, to the bit."""
    digest = hashlib.sha256()
    for column in (schedule.alpha, schedule.sigma, schedule.time):
        digest.update(np.ascontiguousarray(column, "<f8").tobytes())
    return digest.hexdigest()
