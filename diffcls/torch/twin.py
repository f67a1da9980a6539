"""An embedded model in PyTorch, for gradients: the same weights as the native forward's, in float32."""

from __future__ import annotations

import json
from typing import Any

from torch import nn

from ..denoiser import Denoiser
from ..errors import DTypeError, MissingExtraError
from ..models.registry import EmbeddedModel, load


def twin(model: Any = None, *, embeddings: bool = False) -> Denoiser:
    """An embedded model as a `Denoiser` of PyTorch, with all that it knows: classes, weighting, temperature, preparation.

    Parameters
    ----------
    model : None, str or EmbeddedModel
        None: the embedded model; or its name.
    embeddings : bool
        False: `predict` takes class ids, and the table of class embeddings is one of its weights.  True: the rows of the table
        are the denoiser's `conditions`, as prompt embeddings are of a text-to-image model, so they can be learned or mixed.

    Returns
    -------
    Denoiser
        Its `predict` is an ``nn.Module`` of its own, in evaluation mode.

    Raises
    ------
    TypeError
        `model` is not an embedded one.
    ValueError
        There is no model of that name.
    ImportError
        safetensors is not installed.
    """
    source = load(model)
    if not isinstance(source, EmbeddedModel):
        raise DTypeError(f"model is {source.name!r}, must be an embedded model: others have no twin")
    module = _read(source)
    conditions = None
    if embeddings:
        conditions, module.y_embedder = module.y_embedder.embedding_table.weight.detach().clone(), nn.Identity()
    copy = Denoiser(
        module,
        shape=source.shape,
        schedule=source.schedule,
        prediction_type=source.prediction_type,
        conditions=conditions,
        class_names=source.class_names,
        framework="torch",
        encode=source.encode,
        name=str(source.name),
    )
    for name in ("synonyms", "weighting", "profile", "policy", "temperature", "digest", "preparation", "world"):
        setattr(copy, name, getattr(source, name))
    return copy


def _read(source: EmbeddedModel) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise MissingExtraError("an embedded model's twin needs safetensors: pip install 'diffcls[torch]'") from None
    from ..models.torch_dit import Config, DiT

    path = source.path
    module = DiT(Config(**json.loads(path.read_text())["dit"]))
    module.load_state_dict(load_file(path.with_suffix(".safetensors")))
    return module.float().eval()
