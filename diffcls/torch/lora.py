"""Low-rank adapters of every class (TiF, Yue et al., CVPR 2024), all classes in one batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import arguments
from ..denoiser import Denoiser
from ..errors import InputError
from .conditions import model_of


class ClassLoRA(nn.Module):
    """A denoiser's module whose linear layers have a low-rank update for each class: ``W x + scale B_k A_k x``.

    Rows of a batch may be of different classes.  The update begins as nothing (B is zero), and the wrapped weights, a copy,
    need no gradients.  Trained by the denoising loss of the true class (``DiffusionClassifier.losses(x, classes=labels)``).

    Parameters
    ----------
    denoiser : Denoiser
        Of PyTorch, and given class ids (`conditions` is None).
    rank : int
    scale : float
    layers : sequence of str or None
        Names, or ends of names, of the linear layers that are adapted; None: all.

    Attributes
    ----------
    denoiser : Denoiser
        The same facts, with this module as its `predict`.

    Raises
    ------
    ValueError, TypeError
        The denoiser is given conditions, or no layer has such a name.
    """

    def __init__(
        self, denoiser: Denoiser, *, rank: int = 4, scale: float = 1.0, layers: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        arguments.integer("rank", rank, at_least=1)
        if denoiser.conditions is not None or denoiser.encode_prompts is not None:
            raise InputError(f"{denoiser.name} is given conditions; ClassLoRA needs a model that is given class ids")
        self.model = copy.deepcopy(model_of(denoiser)).requires_grad_(False)
        ends = ("",) if layers is None else tuple(layers)
        found = {
            name: part
            for name, part in self.model.named_modules()
            if isinstance(part, nn.Linear) and name.endswith(ends)
        }
        if not found:
            raise InputError(f"layers is {layers!r}, and no linear layer has such a name")
        for name in found:
            owner, _, last = name.rpartition(".")
            adapted = _Adapted(found[name], denoiser.n_classes, rank, scale)
            setattr(self.model.get_submodule(owner), last, adapted)
        self.denoiser = denoiser.with_predict(self)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The model's prediction, each row with its class's adapter.

        Parameters
        ----------
        x_t : (B, *shape) tensor
        t : (B,) tensor
        cond : (B,) integer tensor
            Class ids.

        Returns
        -------
        (B, *shape) tensor

        Raises
        ------
        IndexError
            A class id that there is no adapter of.
        """
        adapted = [part for part in self.modules() if isinstance(part, _Adapted)]
        for part in adapted:
            part.ids = cond
        try:
            prediction: Tensor = self.model(x_t, t, cond)
        finally:
            for part in adapted:
                part.ids = None
        return prediction


class _Adapted(nn.Module):
    def __init__(self, base: nn.Linear, n_classes: int, rank: int, scale: float) -> None:
        super().__init__()
        weight = base.weight
        n_out, n_in = weight.shape
        self.base, self.scale = base, scale
        self.down = nn.Parameter(torch.randn(n_classes, n_in, rank).to(weight) / n_in**0.5)
        self.up = nn.Parameter(torch.zeros(n_classes, rank, n_out).to(weight))
        self.ids: Tensor | None = None
        """Class of each row, while the module is called."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        rows = x.reshape(len(x), -1, x.shape[-1])  # (B, tokens, n_in)
        return out + self.scale * (rows @ self.down[self.ids] @ self.up[self.ids]).reshape(out.shape)
