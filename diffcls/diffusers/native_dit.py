"""DiT in the compiled core, read from diffusers' folders or from checkpoints of the original code, without PyTorch."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import _core
from ..errors import InputError, WeightsError
from ..native import NativeDenoiser, map_file
from ..schedule import Schedule
from .dit import class_words, names_of
from .latents import Latents, PictureEncoder
from .loading import PICKLES

FILE = "diffusion_pytorch_model.safetensors"
CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
"""The second is what the first was called when the published folders were made."""
WANTED = {
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
}


class NativeDiT(NativeDenoiser):
    """`load_dit` makes it.  Pickled as what it was loaded from: other processes read it again.

    Parameters
    ----------
    made_from : dict
        The arguments of `load_dit`.
    told : (dict, int) or None
        The core's config and the number of classes; None: the folder tells.
    vae : AutoencoderKL or None

    Raises
    ------
    ValueError
        Not a DiT's folder, a model that the core does not compute, or weights that are not those of its config.
    """

    def __init__(self, made_from: dict[str, Any], told: tuple[dict[str, Any], int] | None, vae: Any) -> None:
        path, names, schedule = (made_from[key] for key in ("path", "class_names", "schedule"))
        if told is None:
            folder = transformer_folder(path)
            config, files = folder_config(folder), weight_files(folder)
            n_classes = config["num_classes"] - 1  # the last row is the null class
            if names is None:
                names = names_of(class_words(_json(path / "model_index.json").get("id2label"), n_classes))
        else:
            (config, n_classes), files = told, [path]
        if schedule is None:
            trained = _json(path / "scheduler" / "scheduler_config.json")
            schedule = Schedule.from_config(trained) if trained else Schedule.linear(1000)
        maps = [map_file(file) for file in files]
        super().__init__(
            _core.DiT(maps, config), schedule=schedule, n_classes=n_classes, class_names=names, name=path.name
        )
        self._made_from, self.digest = made_from, _digest(maps)
        if vae is not None:
            latents, preprocess = Latents(vae.to("cpu").eval(), "scaling"), made_from["preprocess"]
            encode = PictureEncoder(latents, self.shape, preprocess, "cpu")
            self.encode, self.preparation, self.facts, self.pixels = encode, preprocess, encode.facts, encode.pixels

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, ({**self._made_from, "device": self.device, "dtype": self.dtype},)


def _reopen(made_from: dict[str, Any]) -> Any:
    from .dit_checkpoint import load_dit

    return load_dit(**made_from, native=True)


# ---- diffusers' folders ----------------------------------------------------------------------------------------------


def transformer_folder(path: Path) -> Path:
    """A pipeline's ``transformer``, or the folder itself.

    Raises
    ------
    ValueError
        There is no such folder, or no config.json in it.
    """
    for folder in (path / "transformer", path):
        if (folder / "config.json").is_file():
            return folder
    what = "has no config.json, in itself or in transformer" if path.is_dir() else "does not exist"
    raise InputError(f"the folder {path} {what}; path must be a DiT's folder in diffusers' layout")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors file, the one variant of it that is there, or the files that an index names.

    Raises
    ------
    ValueError
        There is none, only a pickle, or several variants.
    """
    index = folder / f"{FILE}.index.json"
    if index.is_file():
        weight_map = _json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsError(f"{index} has no weight_map")
        names = sorted({str(name) for name in weight_map.values()})
        strange = [name for name in names if name != Path(name).name]
        if strange:
            raise WeightsError(f"{index} names {strange[0]!r}, which is not a file beside it")
        return [folder / name for name in names]
    if (folder / FILE).is_file():
        return [folder / FILE]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise InputError(f"{folder} has no {FILE}, and several others: {', '.join(file.name for file in found)}")
    pickles = [file for file in sorted(folder.glob("*")) if file.suffix in PICKLES]
    if pickles:
        raise InputError(f"{pickles[0]} is a pickle, which may run code; convert it to safetensors")
    raise InputError(f"{folder} has no {FILE}")


def folder_config(folder: Path) -> dict[str, Any]:
    """The core's words of a DiTTransformer2DModel's config.json.

    Raises
    ------
    ValueError
        It is of another model, lacks a size, or asks for what the core does not compute.
    """
    path, told = folder / "config.json", _json(folder / "config.json")
    if told.get("_class_name") not in CLASSES:
        raise InputError(f"{path} is of a {told.get('_class_name')!r}, must be of a {CLASSES[0]}")
    for key, wanted in WANTED.items():
        if told.get(key) != wanted:
            raise InputError(f"{path} has {key} {told.get(key)!r}; the native DiT computes {wanted!r} only")
    sizes = ("num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size", "patch_size")
    whole = {key: told.get(key) for key in (*sizes, "num_embeds_ada_norm")}
    wrong = [key for key, value in whole.items() if isinstance(value, bool) or not isinstance(value, int) or value < 1]
    if wrong:
        raise WeightsError(f"{path} has {wrong[0]} {whole[wrong[0]]!r}, must be a whole number above 0")
    channels = told["in_channels"]
    out_channels = channels if told.get("out_channels") is None else told["out_channels"]
    if out_channels not in (channels, 2 * channels):
        raise InputError(
            f"{path} has out_channels {out_channels!r}, must be {channels} or, with variances, {2 * channels}"
        )
    return {
        "layout": "diffusers",
        "input_size": told["sample_size"],
        "patch_size": told["patch_size"],
        "in_channels": channels,
        "hidden_size": told["num_attention_heads"] * told["attention_head_dim"],
        "depth": told["num_layers"],
        "num_heads": told["num_attention_heads"],
        "num_classes": told["num_embeds_ada_norm"] + 1,
        "learn_sigma": out_channels == 2 * channels,
        "mlp_norm_eps": float(told.get("norm_eps", 1e-5)),
    }


def _json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file."""
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise WeightsError(f"{path} is no json ({error})") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is no json object")
    return found


# ---- files of weights ------------------------------------------------------------------------------------------------


def shapes_of(path: Path) -> Mapping[str, Any]:
    """Name to something with the tensor's `shape`, of a safetensors file: its header alone is read.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > os.fstat(file.fileno()).st_size - 8:
                raise ValueError("its header is longer than the file")
            entries = json.loads(file.read(length))
        return {name: _Shaped(entry["shape"]) for name, entry in entries.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsError(f"{path} is no safetensors file ({error})") from None


class _Shaped(SimpleNamespace):
    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape=tuple(int(size) for size in shape))

    def __len__(self) -> int:
        return int(self.shape[0])


def _digest(maps: Sequence[mmap.mmap]) -> str:
    state = hashlib.sha256()
    for file in maps:
        state.update(file)
    return state.hexdigest()
