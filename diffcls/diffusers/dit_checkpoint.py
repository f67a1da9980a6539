"""Checkpoints of the original DiT code (Peebles and Xie, 2022), converted to safetensors."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer
from ..denoiser import Denoiser, _torch_dtype
from ..errors import InputError, MissingExtraError, WeightsError
from ..schedule import Schedule
from .latents import Latents, channels_of, compression
from .loading import PICKLES
from .pictures import prepare

HEADS = {(384, 12): 6, (768, 12): 12, (1024, 24): 16, (1152, 28): 16}
"""By (hidden size, depth): the published S, B, L and XL.  Weights do not tell how many heads share them."""


def load_dit(
    path: str | os.PathLike[str],
    *,
    vae: Any,
    n_classes: int = 1000,
    num_heads: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: str = "adm",
    device: Any = None,
    dtype: Any = None,
) -> Denoiser:
    """A class-conditional DiT from a state dict of the original code.

    Sizes are read from the weights' shapes.  The published ``.pt`` files are pickles and are refused; convert one where it
    is trusted: ``safetensors.torch.save_file(torch.load(path, weights_only=True), out)``.  The schedule is the original's:
    1,000 linear steps, epsilon; learned variances are dropped.

    Parameters
    ----------
    path : path of a safetensors file
    vae : AutoencoderKL or its folder or hub id
        The original used sd-vae-ft-ema.
    n_classes : int
        The table of labels has one row more where the null class was trained; it is not among the classes.
    num_heads : int or None
        None: of the published S, B, L and XL, by their size.
    class_names : sequence of str or None
    preprocess : str
        See `diffcls.diffusers.pictures`.
    device, dtype
        None: a GPU where there is one; float32, as the paper ran it.

    Raises
    ------
    ValueError
        A pickle, another model's weights, or sizes that do not fit together.
    """
    import torch

    original = importlib.import_module("diffcls.models.torch_dit")  # needs PyTorch at its import
    state = _read(path)
    config = _config(state, n_classes, num_heads)
    model = original.DiT(original.Config(**config))
    table = "y_embedder.embedding_table.weight"
    try:
        model.load_state_dict({**state, table: state[table][:n_classes]})
    except RuntimeError as error:
        raise WeightsError(f"{os.fspath(path)} is no state dict of the original DiT ({str(error)[:300]})") from None
    place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    kind = _torch_dtype(torch, dtype) or torch.float32
    model = model.to(place, kind).eval()
    latents = Latents(_vae(vae).to(place, kind).eval(), "scaling")
    channels, side = int(config["in_channels"]), int(config["input_size"])
    if channels_of(latents.vae) not in (None, channels):
        raise InputError(f"the DiT takes latents of {channels} channels, the VAE makes {channels_of(latents.vae)}")
    size = (side * compression(latents.vae),) * 2

    def predict(x_t: Any, t: Any, cond: Any) -> Any:
        with torch.inference_mode():
            return model(x_t, t, cond)[:, :channels]

    def encode(image: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        pixels, record = prepare(image, size, preprocess)
        return latents.encode(pixels, place), record

    denoiser = Denoiser(
        predict,
        shape=(channels, side, side),
        schedule=Schedule.linear(1000),
        n_classes=n_classes,
        class_names=class_names,
        framework="torch",
        device=place,
        dtype=kind,
        encode=encode,
        name=Path(path).name,
    )
    denoiser.digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    denoiser.preparation = preprocess
    denoiser.pixels = lambda image: prepare(image, size, preprocess)[0]
    denoiser.facts = {"component": "DiT", "resolution": list(size), "latents": "scaling"}
    return denoiser


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    name = Path(path)
    if name.suffix in PICKLES:
        raise InputError(f"{name} is a pickle, which may run code; convert it to safetensors")
    if not name.is_file():
        raise InputError(f"there is no file {name}")
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise MissingExtraError("reading weights needs safetensors: pip install 'diffcls[diffusers]'") from None
    try:
        return dict(load_file(name))
    except Exception as error:  # safetensors raises its own, and OSError
        raise WeightsError(f"{name} is no safetensors file ({error})") from None


def _config(state: Mapping[str, Any], n_classes: int, num_heads: int | None) -> dict[str, Any]:
    needed = ("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight", "final_layer.linear.weight")
    missing = [key for key in (*needed, "blocks.0.mlp.fc1.weight") if key not in state]
    if missing:
        raise WeightsError(f"the weights lack {', '.join(missing)}: they are not of the original DiT")
    width, channels, patch, _ = state[needed[0]].shape
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    rows = len(state[needed[2]])
    if integer("n_classes", n_classes, at_least=1) not in (rows, rows - 1):
        raise InputError(
            f"n_classes is {n_classes}, the weights have {rows} labels: it must be that, or one less without null class"
        )
    heads = HEADS.get((width, depth)) if num_heads is None else integer("num_heads", num_heads, at_least=1)
    if heads is None:
        raise InputError(f"a DiT of width {width} and depth {depth} is none of the published ones; give num_heads")
    return {
        "input_size": math.isqrt(state["pos_embed"].shape[1]) * patch,
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_classes": n_classes,
        "learn_sigma": state["final_layer.linear.weight"].shape[0] == 2 * channels * patch**2,
    }


def _vae(given: Any) -> Any:
    if not isinstance(given, (str, os.PathLike)):
        if hasattr(given, "encode"):
            return given
        raise InputError(f"vae is {type(given).__name__}, must be a diffusers VAE, its folder or its hub id")
    from .loading import diffusers

    try:
        return diffusers().AutoencoderKL.from_pretrained(os.fspath(given), use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the VAE {os.fspath(given)!r} can not be loaded ({' '.join(str(error).split())[:300]})"
        ) from None
