"""`load_dit`: checkpoints of the original DiT code (Peebles and Xie, 2022), and DiTs that the core computes itself."""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arguments import integer
from ..denoiser import Denoiser
from ..errors import DTypeError, InputError, MissingExtraError, WeightsError
from ..framework_calls import torch_dtype
from ..schedule import Schedule
from .latents import Latents, PictureEncoder
from .loading import PICKLES

HEADS = {(384, 12): 6, (768, 12): 12, (1024, 24): 16, (1152, 28): 16}
"""By (hidden size, depth): the published S, B, L and XL.  Weights do not tell how many heads share them."""


def load_dit(
    path: str | os.PathLike[str],
    *,
    vae: Any = None,
    native: bool = False,
    n_classes: int | None = None,
    num_heads: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: str = "adm",
    schedule: Schedule | None = None,
    device: Any = None,
    dtype: Any = None,
) -> Denoiser:
    """A class-conditional DiT from a state dict of the original code, or one of diffusers' for the core to compute.

    Sizes of a state dict are read from the weights' shapes.  The published ``.pt`` files are pickles and are refused; convert
    one where it is trusted: ``safetensors.torch.save_file(torch.load(path, weights_only=True), out)``.  Learned variances are
    dropped.

    Parameters
    ----------
    path : path
        A safetensors file of the original code's names.  With `native` also a folder in diffusers' layout: of a pipeline
        (``transformer``, ``vae``, ``scheduler``) or of a DiTTransformer2DModel alone.
    vae : AutoencoderKL or its folder or hub id, or None
        The original used sd-vae-ft-ema.  None: that in a pipeline's folder; without any, images are latents.
    native : bool
        True: the compiled core's own forward pass, on the CPU or a CUDA device (extra ``cuda``); weights of any floating dtype are mapped, not
        loaded, and copied once.  Only a VAE needs PyTorch.  False: PyTorch's (a folder: `load_diffusers`).
    n_classes : int or None
        Of a state dict, None: 1,000.  The table of labels has one row more where the null class was trained; it is not
        among the classes.  A folder's config tells.
    num_heads : int or None
        Of a state dict.  None: of the published S, B, L and XL, by their size.
    class_names : sequence of str or None
        None: those of a pipeline's ``id2label``, else numbers.
    preprocess : str
        See `diffcls.diffusers.pictures`.
    schedule : Schedule or None
        None: of a pipeline's ``scheduler``, else the original's: 1,000 linear steps, epsilon.
    device, dtype
        With `native` the CPU unless another is told, see `Denoiser.to`: "cuda"; "float32", "tf32", "float16" or "bfloat16".
        Without, None: a GPU where there is one; float32, as the paper ran it.

    Returns
    -------
    Denoiser

    Raises
    ------
    ValueError
        A pickle, another model's weights, or sizes that do not fit together.
    TypeError
        `path` is none, or `dtype` no floating type.
    ImportError
        safetensors is not installed.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DTypeError(f"path is {type(path).__name__}, must be a file or a folder")
    place = Path(path)
    if not place.is_dir():
        _check_file(place)
    if native:
        made_from = {
            "path": place,
            "vae": vae,
            "n_classes": n_classes,
            "num_heads": num_heads,
            "class_names": class_names,
            "preprocess": preprocess,
            "schedule": schedule,
        }
        return _native(made_from).to(device, dtype)
    if place.is_dir():
        raise InputError(f"{place} is a folder: give native=True, or use diffcls.load for PyTorch's")
    import torch

    original = importlib.import_module("diffcls.models.torch_dit")  # needs PyTorch at its import
    state, n_classes = _read(place), 1000 if n_classes is None else n_classes
    config = _config(place, state, n_classes, num_heads)
    model = original.DiT(original.Config(**config))
    table = "y_embedder.embedding_table.weight"
    try:
        model.load_state_dict({**state, table: state[table][:n_classes]})
    except RuntimeError as error:
        raise WeightsError(
            f"{place} is no state dict of the original DiT ({' '.join(str(error).split())[:300]})"
        ) from None
    where = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    kind = torch_dtype(torch, dtype) or torch.float32
    model = model.to(where, kind).eval()
    channels, side = int(config["in_channels"]), int(config["input_size"])
    encode = None
    if vae is not None:
        latents = Latents(_vae(vae).to(where, kind).eval(), "scaling")
        encode = PictureEncoder(latents, (channels, side, side), preprocess, where)

    def predict(x_t: Any, t: Any, cond: Any) -> Any:
        with torch.inference_mode():
            return model(x_t, t, cond)[:, :channels]

    denoiser = Denoiser(
        predict,
        shape=(channels, side, side),
        schedule=schedule or Schedule.linear(1000),
        n_classes=n_classes,
        class_names=class_names,
        framework="torch",
        device=where,
        dtype=kind,
        encode=encode,
        name=place.name,
    )
    denoiser.digest = hashlib.sha256(place.read_bytes()).hexdigest()
    if encode is not None:
        denoiser.preparation, denoiser.facts, denoiser.pixels = preprocess, encode.facts, encode.pixels
    return denoiser


def _native(made_from: dict[str, Any]) -> Denoiser:
    from .native_dit import NativeDiT, shapes_of

    path, vae = made_from["path"], made_from["vae"]
    if path.is_dir():
        for name in ("n_classes", "num_heads"):
            if made_from[name] is not None:
                raise InputError(f"{name} goes with a state dict; a folder's config tells")
        if vae is None and (path / "vae").is_dir():
            vae = path / "vae"
        return NativeDiT(made_from, None, None if vae is None else _vae(vae))
    shapes = shapes_of(path)
    n_classes = 1000 if made_from["n_classes"] is None else made_from["n_classes"]
    config = _config(path, shapes, n_classes, made_from["num_heads"])
    rows = {"num_classes": len(shapes["y_embedder.embedding_table.weight"])}
    return NativeDiT(made_from, (config | rows, n_classes), None if vae is None else _vae(vae))


def _check_file(path: Path) -> None:
    if path.suffix in PICKLES:
        raise InputError(f"{path} is a pickle, which may run code; convert it to safetensors")
    if not path.is_file():
        raise InputError(f"there is no file {path}")


def _read(path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise MissingExtraError("reading weights needs safetensors: pip install 'diffcls[diffusers]'") from None
    try:
        return dict(load_file(path))
    except Exception as error:  # safetensors raises its own, and OSError
        raise WeightsError(f"{path} is no safetensors file ({error})") from None


NEEDED = {
    "x_embedder.proj.weight": "(width, channels, patch, patch)",
    "pos_embed": "(1, side * side, width)",
    "y_embedder.embedding_table.weight": "(labels, width)",
    "final_layer.linear.weight": "(patch * patch * out_channels, width)",
    "blocks.0.mlp.fc1.weight": "(hidden, width)",
}
"""Tensors of which the sizes are read, and their shapes."""


def _config(path: Path, state: Mapping[str, Any], n_classes: int, num_heads: int | None) -> dict[str, Any]:
    missing = [key for key in NEEDED if key not in state]
    if missing:
        raise WeightsError(f"the weights of {path} lack {', '.join(missing)}: they are not of the original DiT")
    for key, wanted in NEEDED.items():
        shape = tuple(state[key].shape)
        if len(shape) != wanted.count(",") + 1 or 0 in shape:
            raise WeightsError(f"{key} of {path} has shape {shape}, must be {wanted}")
    width, channels, patch, across = state["x_embedder.proj.weight"].shape
    n_tokens = state["pos_embed"].shape[1]
    if patch != across or math.isqrt(n_tokens) ** 2 != n_tokens:
        raise WeightsError(f"{path} has patches of {patch} x {across} and {n_tokens} of them: both must be squares")
    numbers = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    depth = len(numbers)
    if numbers != {str(i) for i in range(depth)}:
        raise WeightsError(f"{path} has blocks {', '.join(sorted(numbers))}, must be 0 to {depth - 1}")
    rows = state["y_embedder.embedding_table.weight"].shape[0]
    if integer("n_classes", n_classes, at_least=1) not in (rows, rows - 1):
        raise InputError(
            f"n_classes is {n_classes}, the weights of {path} have {rows} labels: it must be that, or one less without null class"
        )
    heads = HEADS.get((width, depth)) if num_heads is None else integer("num_heads", num_heads, at_least=1)
    if heads is None:
        raise InputError(f"a DiT of width {width} and depth {depth} is none of the published ones; give num_heads")
    if width % heads:
        raise InputError(f"num_heads is {heads}, and does not divide the width of {path}, {width}")
    return {
        "input_size": math.isqrt(n_tokens) * patch,
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
