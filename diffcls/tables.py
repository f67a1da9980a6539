"""Error tables: the unweighted error of every class at every trial, from which any policy can be decided again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .arguments import positions
from .core_types import Trials
from .errors import InputError, ShapeError
from .fingerprint import check_same, fingerprint
from .labels import check_labels, class_index
from .policies import Terms
from .profile import Profile
from .schedule import Schedule

if TYPE_CHECKING:
    from .classifier import Classifier

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class ErrorTable:
    """Unweighted errors of every class at every trial, and all that `diffcls.replay` needs to know of the run.

    Made by ``Classifier.error_table``; needs no model and no classifier afterwards.

    Attributes
    ----------
    errors : (N, K, S) float64
        float64 because replay is equal to a live run to the bit, and a live race computes with float64 errors.  Of a loaded
        table: a read-only view of the file, of which only what is looked at is read.
    trials : dict of (S,) arrays
        timestep (row of the schedule), noise_index, eps_sign, weight (under the table's own weighting, mean 1).
    classes : list of str, (K,)
    run : dict
        The record of the run that made it, as a `Result` has it, with the fingerprint of all that changes errors.
    schedule : Schedule
    weighting : (T,) float64 or None
        Over timesteps, under which the trials were drawn; None: uniform.
    cost : (K,) int64
        Denoiser evaluations of one trial of each class: its prompts.
    log_prior : (K,) float64
    temperature : float
    antithetic : bool
    n_noise : int or None
        Rows of a given noise array; None: noise is the counter-based stream.
    listed : bool
        The trials are a list of timesteps; else they were drawn from a density over the schedule.
    labels : (N,) int64 or None
        True class of each image, where it is known.
    profile : Profile or None
        The model's own, for ``Race(timesteps="calibrated")``.

    Raises
    ------
    ValueError
        An array's shape does not go with the others, a trial is outside the schedule, or a label is no class.
    """

    errors: Floats
    trials: Trials
    classes: list[str]
    run: dict[str, Any]
    schedule: Schedule
    weighting: Floats | None
    cost: NDArray[np.int64]
    log_prior: Floats
    temperature: float
    antithetic: bool
    n_noise: int | None
    listed: bool
    labels: NDArray[np.int64] | None = None
    profile: Profile | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.errors)
        k, s, n = len(self.classes), len(self.trials["timestep"]), len(self.schedule)
        if len(shape) != 3 or shape[1:] != (k, s):
            raise ShapeError(f"errors has shape {shape}, must be (N, {k}, {s}): images, classes, trials")
        for name, column in cast("dict[str, NDArray[Any]]", self.trials).items():
            if np.shape(column) != (s,):
                raise ShapeError(f"trials has {np.size(column)} of {name}, must have {s}")
        for name, value, size in (
            ("cost", self.cost, k),
            ("log_prior", self.log_prior, k),
            ("weighting", self.weighting, n),
        ):
            if value is not None and np.shape(value) != (size,):
                raise ShapeError(f"{name} has shape {np.shape(value)}, must be ({size},)")
        if s and self.timesteps.max() >= n:
            raise InputError(f"a trial is at timestep {self.timesteps.max()}, the schedule has {n}")
        if self.labels is not None:
            object.__setattr__(self, "labels", check_labels(self.labels, shape[0], self.classes))

    @property
    def timesteps(self) -> NDArray[np.int64]:
        """(S,) row of the schedule of each trial."""
        return self.trials["timestep"].astype(np.int64)

    @property
    def prediction_type(self) -> str:
        """The model's own; "(p, q)" where it was given as these."""
        return str(self.run.get("prediction_type"))

    @property
    def target(self) -> tuple[Floats, Floats]:
        """(p, q), each (T,): the model's target is ``p x_start + q eps``.

        Raises
        ------
        ValueError
            The model had a pair of arrays of its own, which the table does not keep.
        """
        if self.prediction_type == "(p, q)":
            raise InputError("the table's model has a target of its own: give the weighting as an array over timesteps")
        return self.schedule.target(cast("Any", self.prediction_type))

    def terms(self, weighting: Floats | None) -> Terms:
        """What a policy is told of the run, with this weighting.

        Parameters
        ----------
        weighting : (T,) float64 or None
            None: every timestep weighs the same.

        Returns
        -------
        Terms
        """
        return Terms(
            n_classes=len(self.classes),
            n_timesteps=len(self.schedule),
            weighting=weighting,
            antithetic=self.antithetic,
            n_noise=self.n_noise,
            schedule=self.schedule,
            profile=self.profile,
        )

    def __len__(self) -> int:
        return len(self.errors)

    def __repr__(self) -> str:
        n, k, s = self.errors.shape
        return f"ErrorTable({n} images, {k} classes, {s} trials{'' if self.labels is None else ', labelled'})"

    def check(self, classifier: Classifier) -> None:
        """Hold a classifier against the one that made these errors.

        Parameters
        ----------
        classifier : Classifier

        Raises
        ------
        FingerprintMismatchError
            `classifier` would not make these errors: another model, schedule, classes, loss, seed, noise or pooling.
        """
        check_same(self.run.get("fingerprint", {}), fingerprint(classifier), "the table is not of this classifier")

    def select(
        self, *, images: Any = None, classes: Sequence[str | int] | None = None, trials: Any = None
    ) -> ErrorTable:
        """A table of some images, classes (names or positions) and trials (positions), in the order given.

        Images as a slice stay a view; the others are copied.  Weights of fewer trials are scaled to mean 1 again.  The run
        record follows: its classes, priors and biases are the chosen ones', and chosen trials are no policy's.

        Parameters
        ----------
        images : slice, (n,) integers or booleans, or None
        classes : (k,) names or positions, or None
        trials : slice, (s,) integers or booleans, or None
            None: all.

        Returns
        -------
        ErrorTable

        Raises
        ------
        ValueError
            No such class, image or trial, or images are left whose true class is not.
        """
        errors, labels, parts = self.errors, self.labels, cast("dict[str, NDArray[Any]]", self.trials)
        changes: dict[str, Any] = {}
        run = dict(self.run)
        if images is not None:
            images = positions("images", images, len(errors))
            errors, labels = errors[images], None if labels is None else labels[images]
        if classes is not None:
            chosen = [class_index(entry, self.classes, "classes") for entry in classes]
            errors = errors[:, chosen]
            changes = {
                "classes": [self.classes[k] for k in chosen],
                "cost": self.cost[chosen],
                "log_prior": self.log_prior[chosen],
            }
            run |= {"classes": changes["classes"], **_by_class(run, chosen)}
            if labels is not None:
                if not np.isin(labels, chosen).all():
                    raise InputError(f"{np.sum(~np.isin(labels, chosen))} images are of classes that were not selected")
                labels = np.array([chosen.index(label) for label in labels.tolist()], np.int64)
        if trials is not None:
            trials = positions("trials", trials, errors.shape[2])
            errors = errors[:, :, trials]
            parts = {name: column[trials] for name, column in parts.items()}
            if not parts["weight"].any():
                raise InputError("the selected trials all have weight 0")
            parts["weight"] = parts["weight"] / parts["weight"].mean()
            run["policy"] = {"name": "a selection", "n_trials": len(parts["weight"])}
        return replace(self, errors=errors, labels=labels, trials=cast("Trials", parts), run=run, **changes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an Arrow file (Feather V2, uncompressed), at once or not at all: beside it first, then renamed.

        One row an image, ``errors`` as Arrow's fixed-shape tensor of (K, S) float64, ``label`` as int64 or null; everything
        else is json in the schema's metadata.  Needs pyarrow (extra `results`).

        Parameters
        ----------
        path : str or path

        Raises
        ------
        OSError
            The file can not be written.
        MissingExtraError
            pyarrow is not installed.
        """
        from .table_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, classifier: Classifier | None = None) -> ErrorTable:
        """Open a saved table; its errors stay in the file, memory-mapped, until they are looked at.

        Parameters
        ----------
        path : path
        classifier : Classifier or None
            Must be one that would make the same errors.

        Returns
        -------
        ErrorTable

        Raises
        ------
        ValueError
            The file is not an error table, is cut short, or was written by a newer version.
        FingerprintMismatchError
            The table is of another model, schedule, ... than `classifier`.
        """
        from .table_file import load

        table = load(path)
        if classifier is not None:
            table.check(classifier)
        return table


def _by_class(run: dict[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """The numbers of a run record that there is one of for each class; priors are again those of a run among them."""
    calibration, priors = run.get("calibration"), run.get("priors")
    if calibration is not None and calibration.get("bias") is not None:
        calibration = {**calibration, "bias": [calibration["bias"][k] for k in chosen]}
    if priors is not None:
        kept = np.array(priors)[chosen]
        priors = (kept / kept.sum()).tolist()
    return {"priors": priors, "calibration": calibration}
