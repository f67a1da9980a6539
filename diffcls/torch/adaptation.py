"""Test-time adaptation of a discriminative classifier by the diffusion loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .. import arguments
from .classifier import DiffusionClassifier


def adapt(
    discriminative: nn.Module,
    diffusion: DiffusionClassifier,
    x_start: Tensor,
    *,
    inputs: Tensor | None = None,
    n_steps: int = 5,
    lr: float = 1e-3,
    parameters: Iterable[nn.Parameter] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    keep: bool = False,
) -> Tensor:
    """Logits after the classifier was adapted to these very images, without labels (Prabhudesai et al., NeurIPS 2023).

    With ``p = softmax(discriminative(inputs))`` every image's condition is the mixture ``sum_k p_k c_k``, and the classifier's
    weights go down the gradient of the diffusion loss under it: what the diffusion model can explain better becomes more
    probable.

    Parameters
    ----------
    discriminative : nn.Module
        ``discriminative(inputs) -> logits (N, K)``, K in the order of ``diffusion.classes``.
    diffusion : DiffusionClassifier
        With conditions that can be mixed: ``twin(embeddings=True)``, a text-to-image model; one prompt a class.  Its own
        weights stay.
    x_start : (N, *shape) tensor
    inputs : tensor or None
        What the classifier is given; None: `x_start`.
    n_steps : int
        Each with other noise, unless that was given.
    lr : float
    parameters : iterable of Parameter or None
        Which of the classifier's are adapted; None: all that require gradients.
    optimizer : callable
        ``optimizer(parameters, lr=lr)``.
    keep : bool
        True: the weights stay adapted (online adaptation).  False: they are as before.

    Returns
    -------
    (N, K) tensor
        Without a gradient.

    Raises
    ------
    ValueError, TypeError
        The conditions can not be mixed, or an argument is impossible.
    """
    arguments.integer("n_steps", n_steps, at_least=1)
    given = x_start if inputs is None else inputs
    adapted = [p for p in (discriminative.parameters() if parameters is None else parameters) if p.requires_grad]
    kept, buffers = [p.detach().clone() for p in adapted], [b.clone() for b in discriminative.buffers()]
    gradients_before = [p.grad for p in adapted]
    steps = optimizer(adapted, lr=lr)
    fresh = diffusion.noise is None and not diffusion.has_given_noise
    try:
        for step in range(n_steps):
            with torch.enable_grad():
                probabilities = discriminative(given).softmax(-1)
                loss = diffusion.mixed_losses(x_start, probabilities, draw=step if fresh else 0).mean()
                gradients = torch.autograd.grad(loss, adapted, allow_unused=True)
            for parameter, gradient in zip(adapted, gradients, strict=True):
                parameter.grad = gradient
            steps.step()
        with torch.no_grad():
            logits: Tensor = discriminative(given)
    finally:
        for parameter, value, before in zip(adapted, kept, gradients_before, strict=True):
            parameter.grad = before
            if not keep:
                parameter.data.copy_(value)
        if not keep:
            for buffer, value in zip(discriminative.buffers(), buffers, strict=True):
                buffer.data.copy_(value)
    return logits
