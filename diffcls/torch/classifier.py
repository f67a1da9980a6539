"""`DiffusionClassifier`: the method as a module, with gradients to weights, image, conditions and noise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpointed

from .. import arguments, ops
from ..classifier import Classifier
from ..errors import DeviceError, DTypeError, InputError, ShapeError
from ..framework_calls import take_rows, torch_dtype
from ..models.registry import EmbeddedModel, open_model
from ..options import split_images
from ..policies import Fixed, Race
from .conditions import Conditions, mix, model_of
from .operators import add_noise, eps_error
from .twin import twin

LEARNED = ("conditions", "noise")


class DiffusionClassifier(nn.Module):
    """``forward(x_start) -> logits``: ``log prior_k - loss_k / temperature`` over a fixed set of trials.

    The losses are those of `diffcls.Classifier` with ``policy=Fixed(n_samples)`` on the same denoiser; all classes share each
    trial's (t, eps) (Li et al., 2023).  Gradients reach the model's weights, `x_start`, and what `learn` names.  The softmax
    of the logits is the classifier's probabilities, so ``F.cross_entropy(model(x_start), labels)`` trains what it decides by.

    Parameters
    ----------
    model : None, str, diffusers pipeline, mapping of components or Denoiser
        As in `diffcls.classify`; of framework "torch".  An embedded model is taken as its PyTorch twin (`twin`).
    prompts : as in `diffcls.classify`
    n_samples : int
        Trials, spread evenly over the schedule.
    timesteps : sequence or (n,) array of int, or None
        Instead: rows of the schedule, one a trial.
    learn : collection of {"conditions", "noise"}
        Become parameters: the conditions (prompt embeddings) that the denoiser's `conditions` hold; the noise of every trial,
        (S, *shape), which begins as the counter's (NoOp's learned noise).
    checkpoint : bool
        Keep no activations for the backward pass: every batch of rows is computed again there (`torch.utils.checkpoint`).
    module : nn.Module or None
        What the denoiser's `predict` calls, where that is a plain function: so that its weights are parameters of this module.
    **options
        Of `diffcls.classify`: templates, pool, loss, weighting, priors, temperature, noise, seed, batch_size, dtype, device.

    Attributes
    ----------
    classes : list of str, (K,)
    model : nn.Module
        ``model(x_t, t, cond)``.
    conditions : Conditions
    noise : (S, *shape) Parameter or None

    Raises
    ------
    TypeError, ValueError, RuntimeError, ImportError
        The model is not of PyTorch, or an option does not fit; as `diffcls.Classifier`.

    Examples
    --------
    >>> import torch
    >>> from diffcls.models import demo_pictures
    >>> pictures = list(demo_pictures.load()[0][:2])
    >>> model = diffcls.torch.DiffusionClassifier(n_samples=4)
    >>> x_start = model.encode(pictures).requires_grad_()
    >>> torch.nn.functional.cross_entropy(model(x_start), torch.tensor([0, 1])).backward()
    >>> tuple(x_start.grad.shape)
    (2, 1, 28, 28)
    """

    def __init__(
        self,
        model: Any = None,
        prompts: Any = None,
        *,
        n_samples: int = 32,
        timesteps: Sequence[int] | Any = None,
        learn: Collection[str] = (),
        checkpoint: bool = False,
        module: nn.Module | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        learned = {learn} if isinstance(learn, str) else set(learn)
        if not learned <= set(LEARNED):
            raise InputError(f"learn is {arguments.shown(learn)}, must be of 'conditions' and 'noise'")
        denoiser = open_model(model, options.pop("device", None), options.pop("dtype", None))
        if isinstance(denoiser, EmbeddedModel):
            denoiser = twin(denoiser, embeddings="conditions" in learned)
        policy = Fixed(n_samples) if timesteps is None else Race(timesteps=timesteps)
        plain = Classifier(denoiser, prompts, policy=policy, **options)
        self._plain, self.denoiser, self.classes = plain, plain.denoiser, plain.classes
        self.model = model_of(plain.denoiser, module)
        self.conditions = Conditions(plain.denoiser.conditions, learn="conditions" in learned)
        self.loss, self.seed, self.batch_size = plain.loss, plain.seed, plain.batch_size
        self.checkpoint = bool(checkpoint)
        self.temperature = plain.temperature
        self._log_prior = torch.from_numpy(np.array(plain.log_prior))
        self._given = None if plain.noise is None else torch.from_numpy(plain.noise)
        self._set_trials(plain)
        self.noise: nn.Parameter | None = None
        if "noise" in learned:
            if plain.noise_name == "antithetic":
                raise InputError("noise is 'antithetic', and learned noise has a row for every trial")
            rows = self._given if self._given is not None else self._counter_noise()
            self.noise, self._index = nn.Parameter(rows.clone()), torch.arange(len(rows))

    def _set_trials(self, plain: Classifier) -> None:
        """One entry a trial, (S,), on the host: the core is told from there."""
        schedule, trials = plain.denoiser.schedule, plain.trials
        row, sign = trials["timestep"].astype(np.int64), trials["eps_sign"].astype(np.float64)
        p, q = plain.denoiser.target
        self._alpha, self._p = torch.from_numpy(schedule.alpha[row]), torch.from_numpy(p[row])
        self._sigma, self._q = torch.from_numpy(schedule.sigma[row] * sign), torch.from_numpy(q[row] * sign)
        self._time = torch.from_numpy(plain.denoiser.time_of(schedule.time[row]))
        self._timestep = torch.from_numpy(row)
        self._index = torch.from_numpy(trials["noise_index"].astype(np.int64))
        self._weight = torch.from_numpy(trials["weight"].copy())

    def _counter_noise(self) -> Tensor:
        shape, seed = self.denoiser.shape, self.seed
        names = zip(self._index.tolist(), self._timestep.tolist(), strict=True)
        return torch.stack(
            [torch.from_numpy(ops.normal(shape, seed=seed, index=index, timestep=t)) for index, t in names]
        )

    @property
    def n_samples(self) -> int:
        """Trials, S."""
        return len(self._alpha)

    def extra_repr(self) -> str:
        """What `repr` says of the module: PyTorch's own hook.

        Returns
        -------
        str
        """
        return f"{self.denoiser.name!r}, {len(self.classes)} classes, n_samples={self.n_samples}, loss={self.loss!r}"

    def encode(self, pictures: Any) -> Tensor:
        """x_start of pictures; no gradient passes this.

        Parameters
        ----------
        pictures : as `diffcls.classify` takes them

        Returns
        -------
        (N, *shape) float32 tensor
            On the CPU.

        Raises
        ------
        ValueError, TypeError
            A picture that the model does not take.
        """
        items, _ = split_images(pictures, self.denoiser)
        rows = [self._plain.encode(item, position)[0] for position, item in enumerate(items)]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *self.denoiser.shape)

    def forward(self, x_start: Tensor, *, draw: int = 0) -> Tensor:
        """`logits` of `losses`.

        Parameters
        ----------
        x_start : (N, *shape) floating-point tensor
        draw : int
            As in `losses`.

        Returns
        -------
        (N, K) float64 tensor

        Raises
        ------
        ValueError, TypeError
            As of `losses`.
        """
        return self.logits(self.losses(x_start, draw=draw))

    def logits(self, losses: Tensor) -> Tensor:
        """``log prior - loss / temperature``.

        Parameters
        ----------
        losses : (N, K) tensor

        Returns
        -------
        (N, K) tensor

        Raises
        ------
        RuntimeError
            PyTorch's own: another number of classes.
        """
        return self._log_prior.to(losses.device) - losses / self.temperature

    def losses(self, x_start: Tensor, *, classes: Tensor | None = None, draw: int = 0) -> Tensor:
        """Weighted mean losses of clean inputs.

        Parameters
        ----------
        x_start : (N, *shape) tensor
            On the model's device.
        classes : (N,) integer tensor or None
            Ask about one class of each image only, by its position in `classes`: (N,) losses.  It is what generative
            training needs; every class must have one prompt.
        draw : int
            Another one of 2**32 / S sets of noises at the same timesteps: for training, count it up from step to step.
            Given or learned noise has one only.

        Returns
        -------
        (N, K) float64 tensor, or (N,)
            With gradients to x_start and weights.

        Raises
        ------
        ShapeError, DTypeError, InputError
            An argument does not fit.
        """
        self._check(x_start, draw)
        if classes is not None:
            return self._of_classes(x_start, classes, draw)
        asked = torch.from_numpy(self._plain.arms.conditions).expand(len(x_start), -1)
        return self._pooled(self._errors(x_start, asked, draw, self.conditions))

    def mixed_losses(self, x_start: Tensor, weights: Tensor, *, draw: int = 0) -> Tensor:
        """Losses under mixed conditions ``sum_k weights[n, k] c_k``, with gradients to `weights` too.

        Parameters
        ----------
        x_start : (N, *shape) floating-point tensor
        weights : (N, K) tensor
        draw : int
            As in `losses`.

        Returns
        -------
        (N,) float64 tensor

        Raises
        ------
        ValueError
            The model is given class ids, or conditions that can not be mixed (masks can); or a class has several prompts.
        """
        self._check(x_start, draw)
        rows, arms = self.conditions.all(), self._plain.arms
        if rows is None:
            raise InputError(
                f"the conditions of {self.denoiser.name}, class ids, are no floating-point numbers that could be mixed"
            )
        if len(arms.conditions) != len(self.classes):
            raise InputError("conditions can be mixed of one prompt a class, and a class has several")
        if tuple(weights.shape) != (len(x_start), len(self.classes)):
            raise ShapeError(f"weights has shape {tuple(weights.shape)}, must be ({len(x_start)}, {len(self.classes)})")
        chosen = take_rows(rows, lambda part: part[torch.from_numpy(arms.conditions).to(part.device)])
        mixed = mix(chosen, weights)
        own = torch.arange(len(x_start))[:, None]
        errors = self._errors(x_start, own, draw, lambda ids: take_rows(mixed, lambda part: part[ids]))
        return self._mean(errors[..., 0])

    @property
    def has_given_noise(self) -> bool:
        """The noise is an array that was given: it has no other draws."""
        return self._given is not None

    def _check(self, x_start: Any, draw: int) -> None:
        shape = self.denoiser.shape
        if not isinstance(x_start, Tensor):
            raise DTypeError(
                f"x_start is {type(x_start).__name__}, must be a torch.Tensor; `encode` makes one of pictures"
            )
        if x_start.shape[1:] != shape or x_start.ndim != len(shape) + 1:
            wanted = ", ".join(map(str, shape))
            raise ShapeError(f"x_start has shape {tuple(x_start.shape)}, must be (N, {wanted})")
        arguments.integer("draw", draw, at_least=0)
        if draw and (self.noise is not None or self._given is not None):
            raise InputError(f"draw is {draw}, and given or learned noise has no other draws")

    def _mean(self, errors: Tensor) -> Tensor:
        """(N,): weighted mean over trials of (N, S)."""
        return (errors * self._weight.to(errors)).mean(1)

    def _of_classes(self, x_start: Tensor, classes: Tensor, draw: int) -> Tensor:
        arms = self._plain.arms
        if len(arms.conditions) != len(self.classes):
            raise InputError("classes was given, and a class has several prompts")
        given = classes.detach().cpu().numpy() if isinstance(classes, Tensor) else np.asarray(classes)
        if given.shape != tuple(x_start.shape[:1]) or given.dtype.kind not in "iu":
            raise InputError(f"classes is {arguments.shown(classes)}, must be {len(x_start)} integers, one an image")
        ids = torch.from_numpy(given.astype(np.int64))
        if len(ids) and not (0 <= int(ids.min()) and int(ids.max()) < len(self.classes)):
            raise InputError(f"classes reaches from {ids.min()} to {ids.max()}, must be 0 to {len(self.classes) - 1}")
        errors = self._errors(x_start, torch.from_numpy(arms.conditions)[ids][:, None], draw, self.conditions)
        return self._mean(errors[..., 0])

    # ---- errors of rows ----------------------------------------------------------------------------------------------

    def _errors(self, x_start: Tensor, asked: Tensor, draw: int, conditions: Callable[[Tensor], Any]) -> Tensor:
        """(N, S, C): of every image at every trial under its C conditions `asked` (N, C), in batches of rows."""
        n, s, c = len(x_start), self.n_samples, asked.shape[1]
        keep = not (self.checkpoint and torch.is_grad_enabled())
        parts = [
            self._ask(x_start, rows, asked, draw, conditions)
            if keep
            else checkpointed(self._ask, x_start, rows, asked, draw, conditions, use_reentrant=False)
            for rows in torch.arange(n * s * c).split(self.batch_size)
            if len(rows)
        ]
        errors = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=x_start.device)
        return errors.reshape(n, s, c)

    def _ask(
        self, x_start: Tensor, rows: Tensor, asked: Tensor, draw: int, conditions: Callable[[Tensor], Any]
    ) -> Tensor:
        """(B,) errors of rows (image, trial, condition), condition fastest: noised inputs are made once for all conditions."""
        s, c, device = self.n_samples, asked.shape[1], x_start.device
        pair = rows // c
        first = int(pair[0])
        pairs = torch.arange(first, int(pair[-1]) + 1)
        image, trial = pairs // s, pairs % s
        within = pair - first
        x, key = x_start[image.to(device)], self._key(trial, draw, device)
        x_t = add_noise(x, self._alpha[trial], self._sigma[trial], **key)
        target = add_noise(x, self._p[trial], self._q[trial], **key)
        t, ids = self._time[trial[within]].to(device), asked[pair // s, rows % c].to(device)
        within = within.to(device)
        dtype = torch_dtype(torch, self.denoiser.dtype)
        given = x_t[within].to(dtype=dtype)
        try:
            prediction = self.model(given, t, conditions(ids))
        except RuntimeError as error:
            self._name_mismatch(given, error)
            raise
        return eps_error(prediction, target[within], loss=self.loss)

    def _name_mismatch(self, given: Tensor, error: RuntimeError) -> None:
        """What PyTorch says of a product of two dtypes or devices, in the caller's words."""
        weight = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if weight is not None and weight.device != given.device:
            raise DeviceError(
                f"x_start is on {given.device}, the model's weights on {weight.device}: they must be on one device"
            ) from error
        if weight is not None and weight.dtype != given.dtype:
            raise DTypeError(
                f"the model is given {given.dtype} and has weights of {weight.dtype}: x_start must be of theirs, or the Denoiser's "
                "dtype= name it"
            ) from error

    def _key(self, trial: Tensor, draw: int, device: torch.device) -> dict[str, Any]:
        """eps of the trials, or what names it."""
        rows = self.noise if self.noise is not None else self._given
        if rows is not None:
            return {"eps": rows.to(device)[self._index[trial].to(device)]}
        index = self._index[trial] + draw * (int(self._index.max()) + 1)
        return {"seed": self.seed, "index": index, "timestep": self._timestep[trial]}

    def _pooled(self, errors: Tensor) -> Tensor:
        """(N, K) losses of errors (N, S, C): prompts that are pooled inside each trial, then the best of those that are not."""
        arms, t = self._plain.arms, self._plain.pool_temperature
        if len(arms.class_of_arm) < len(arms.conditions):
            parts = errors.split(np.diff(arms.offset).tolist(), dim=2)
            pooled = [
                part.mean(2) if t is None else -t * (torch.logsumexp(-part / t, 2) - np.log(part.shape[2]))
                for part in parts
            ]
            errors = torch.stack(pooled, 2)
        losses = (errors * self._weight.to(errors)[:, None]).mean(1)
        if len(arms.class_of_arm) == len(self.classes):
            return losses
        sizes = np.bincount(arms.class_of_arm, minlength=len(self.classes)).tolist()
        return torch.stack([part.amin(1) for part in losses.split(sizes, dim=1)], 1)
