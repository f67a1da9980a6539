"""`Evaluator`: zero-shot accuracy of a model while it is trained, on a budget of denoiser evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import arguments
from ..classifier import Classifier
from ..denoiser import Denoiser
from ..errors import DTypeError, InputError
from ..intervals import wilson
from ..options import check_policy, split_images
from ..policies import Policy, Race
from ..prompts import resolve
from .borrowing import borrowed
from .conditions import Predict, model_of


@dataclass(frozen=True)
class Evaluation:
    """One look at the model.

    Attributes
    ----------
    accuracy, low, high : float
        Share of right answers and Wilson's 95 % interval.
    n_images, n_evals : int
        Pictures, and denoiser evaluations spent, of all processes together.
    step : int or None
        Of the training.
    """

    accuracy: float
    low: float
    high: float
    n_images: int
    n_evals: int
    step: int | None = None

    def to_dict(self, prefix: str = "zero_shot/") -> dict[str, float]:
        """For a logger.

        Parameters
        ----------
        prefix : str
            Put before every name.

        Returns
        -------
        dict of str to float
            What is None is left out.
        """
        return {f"{prefix}{name}": value for name, value in asdict(self).items() if value is not None}


class Evaluator:
    """Zero-shot accuracy on the same pictures again and again, for any training loop.

    The pictures, trials and noise are the same at every call, so the curve over the training is paired.  Training flags,
    random states and weights are afterwards as they were.  Where `torch.distributed` is initialised (torchrun, accelerate,
    Lightning), every process takes its share of the pictures and all get the same answer, so all must call it.

    Parameters
    ----------
    denoiser : Denoiser
        Around the very module that is trained, not wrapped in DistributedDataParallel.  Modules that are sharded over
        processes (FSDP) are not for this: processes ask the model a different number of times.
    images, labels
        As `diffcls.classify` takes pictures; positions (N,) in the classes.
    prompts : as in `diffcls.classify`
    max_evals : int or None
        Denoiser evaluations that one call may cost, of all processes together: ``max_evals // N`` a picture.
    policy : Race, Staged or Fixed, or None
        Instead of `max_evals`.
    every : int
        `step` evaluates at multiples of it.
    weights : callable or None
        Gives, when asked, averaged weights that are evaluated instead of the module's own: see `borrowed` for the kinds.
    module : nn.Module or None
        What the denoiser's `predict` calls, where that is a plain function.
    **options
        Of `diffcls.classify`: loss, weighting, seed, batch_size, ...

    Attributes
    ----------
    history : list of Evaluation

    Raises
    ------
    TypeError, ValueError
        Something does not fit, or the budget does not allow one trial of every class for every picture.

    Examples
    --------
    In a loop of one's own, at steps 0, 500, 1000, ...::

        evaluate = Evaluator(denoiser, images, labels, max_evals=20_000, every=500, weights=lambda: ema.shadow_params)
        for step, batch in enumerate(batches):
            train_on(batch)
            evaluate.step(step)  # an Evaluation, or None between
    """

    def __init__(
        self,
        denoiser: Denoiser,
        images: Any,
        labels: Any,
        prompts: Any = None,
        *,
        max_evals: int | None = None,
        policy: Policy | None = None,
        every: int = 1000,
        weights: Callable[[], Any] | None = None,
        module: nn.Module | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(denoiser, Denoiser):
            raise DTypeError(
                f"denoiser is {type(denoiser).__name__}, must be a diffcls.Denoiser around the trained module"
            )
        if (max_evals is None) == (policy is None):
            raise InputError("either max_evals or policy must be given")
        if weights is not None and not callable(weights):
            raise DTypeError(f"weights is {type(weights).__name__}, must be a function that gives averaged weights")
        found = model_of(denoiser, module)
        trained = found.module if isinstance(found, Predict) else found
        if not isinstance(trained, nn.Module):
            raise InputError("the denoiser's predict is a function; give module=, the nn.Module that it calls")
        self.denoiser, self.module, self.prompts, self.options = denoiser, trained, prompts, options
        self.every, self.weights = arguments.integer("every", every, at_least=1), weights
        self.images, _ = split_images(images, denoiser)
        self.labels = np.asarray(labels)
        arms = resolve(denoiser, prompts, options.get("templates"), options.get("pool", "min"))
        self._check_labels(len(arms.classes))
        if max_evals is None:
            self.policy = check_policy(policy)
        else:
            budget, n = arguments.integer("max_evals", max_evals, at_least=1), len(self.images)
            if budget // n < len(arms.conditions):
                raise InputError(
                    f"max_evals is {budget}, {n} pictures of {len(arms.conditions)} prompts need {n * len(arms.conditions)}"
                )
            self.policy = Race(max_evals=budget // n)
        self._classifier()  # what does not fit is said now, not in the middle of a training
        self.history: list[Evaluation] = []

    def _check_labels(self, n_classes: int) -> None:
        labels, n = self.labels, len(self.images)
        if n == 0 or labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise InputError(f"labels is {arguments.shown(labels)}, must be {n} integers, one a picture, one at least")
        if labels.min() < 0 or labels.max() >= n_classes:
            raise InputError(f"labels reaches from {labels.min()} to {labels.max()}, must be 0 to {n_classes - 1}")

    def step(self, step: int) -> Evaluation | None:
        """Evaluate at multiples of `every`.

        Parameters
        ----------
        step : int
            Of the training.

        Returns
        -------
        Evaluation or None
            None: it is no such step.

        Raises
        ------
        ValueError, TypeError
            What a classifier raises of the model.
        """
        return self(step) if step % self.every == 0 else None

    def _classifier(self) -> Classifier:
        return Classifier(self.denoiser, self.prompts, **{"progress": False, **self.options, "policy": self.policy})

    def __call__(self, step: int | None = None) -> Evaluation:
        """Evaluate now."""
        rank, world = _place()
        mine = range(rank, len(self.images), world)
        right = n_evals = 0
        with borrowed(self.module, None if self.weights is None else self.weights()):
            classifier = self._classifier()  # made anew: the module may have moved since the last time
            for i, result in zip(mine, classifier.stream(self.images[i] for i in mine), strict=True):
                right += int(result.index == self.labels[i])
                n_evals += result.n_evals
        right, n_images, n_evals = _sums([right, len(mine), n_evals])
        low, high = wilson(right, n_images)
        found = Evaluation(right / n_images, float(low), float(high), n_images, n_evals, step)
        self.history.append(found)
        return found


def _place() -> tuple[int, int]:
    """(rank, number of processes)."""
    distributed: Any = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return int(distributed.get_rank()), int(distributed.get_world_size())


def _sums(counts: Sequence[int]) -> list[int]:
    """Over all processes."""
    if _place()[1] == 1:
        return list(counts)
    distributed: Any = torch.distributed
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(counts, dtype=torch.int64, device=device)
    distributed.all_reduce(total)
    return [int(count) for count in total.tolist()]
