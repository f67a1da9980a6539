"""From whatever holds a model to a pipeline object: safetensors only, no pickles, no code of the hub's."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import shown
from ..errors import DTypeError, InputError, MissingExtraError
from .families import SLOTS, find

LORA_FILE = "pytorch_lora_weights.safetensors"
"""As diffusers saves it."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError:
        raise MissingExtraError("this model needs diffusers: pip install 'diffcls[diffusers]'") from None


def is_pipeline(model: Any) -> bool:
    return hasattr(model, "components") and hasattr(model, "config") and not isinstance(model, Mapping)


def from_components(components: Mapping[str, Any]) -> Any:
    """A pipeline of the class that goes with the denoiser; optional parts may be missing.

    Raises
    ------
    ValueError, TypeError
        A part that is needed is missing, or one is not known.
    """
    if not all(isinstance(name, str) for name in components):
        raise DTypeError(f"model is {shown(components)}, must be a mapping of component names to components")
    adapter = find(components)
    if adapter.pipeline is None:
        raise InputError(
            f"components of {adapter.models} go into several pipelines that encode prompts differently; give the pipeline"
        )
    kind = getattr(diffusers(), adapter.pipeline)
    parameters = inspect.signature(kind.__init__).parameters
    unknown = sorted(set(components) - set(parameters))
    if unknown:
        raise InputError(f"components {', '.join(unknown)} are not those of {kind.__name__}")
    given = dict(components)
    for name, parameter in parameters.items():
        if name not in given and name != "self" and parameter.default is inspect.Parameter.empty:
            given[name] = None  # what the method needs of these, the adapter asks for by name
    if "requires_safety_checker" in parameters:
        given.setdefault("requires_safety_checker", False)
    try:
        return kind(**given)
    except (AttributeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        missing = ", ".join(name for name, part in given.items() if part is None)
        raise InputError(f"the components make no {kind.__name__} ({said}); not given: {missing}") from error


def from_name(
    name: str | os.PathLike[str], dtype: Any, options: Mapping[str, Any], index: Mapping[str, Any] | None = None
) -> Any:
    """A pipeline from a folder in diffusers' layout, or from the hub.

    Of a pipeline on pixels its `index` (`index_of`) says that there is no VAE, and diffusers wants that confirmed.

    Raises
    ------
    ValueError
        It is not there, can not be had, needs a pickle or code, or is no pipeline.
    """
    library = diffusers()
    folder = Path(name)
    if folder.exists() or os.path.isabs(name):
        _check_folder(folder)
    given = {key: value for key, value in options.items() if value is not None}
    if list((index or {}).get("vae", ())) == [None, None]:
        given["vae"] = None
    try:
        return library.DiffusionPipeline.from_pretrained(
            os.fspath(name), use_safetensors=True, trust_remote_code=False, **{_dtype_key(library): dtype}, **given
        )
    except (OSError, ValueError, ImportError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        if folder.exists():
            raise InputError(f"the folder {name} can not be loaded ({said})") from error
        raise InputError(
            f"{str(name)!r} can not be had from the hub ({said}); download it where there is a network and give the local "
            "folder as model="
        ) from error


def index_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a folder's or hub id's model_index.json; empty where there is none, of which `from_name` says more."""
    kept = ("revision", "token", "cache_dir", "local_files_only")
    given = {key: options[key] for key in kept if options.get(key) is not None}
    try:
        found = diffusers().DiffusionPipeline.load_config(name, **given)
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _dtype_key(library: Any) -> str:
    """The argument's name: the older one warns since 0.40 and is to go."""
    major, minor = (int(part) for part in library.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (0, 40) else "torch_dtype"


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        kind = "a pickle, which may run code; convert it to safetensors" if folder.suffix in PICKLES else "a file"
        raise InputError(
            f"{folder} is {kind}; model must be a folder in diffusers' layout (for original DiT checkpoints: load_dit)"
        )
    index = folder / "model_index.json"
    if not index.exists():
        what = "has no model_index.json" if folder.exists() else "does not exist"
        raise InputError(f"the folder {folder} {what}; model must be a folder in diffusers' layout")
    try:
        parts = json.loads(index.read_text())
    except ValueError as error:
        raise InputError(f"{index} is no json ({error})") from None
    if not isinstance(parts, dict) or not isinstance(parts.get("_class_name"), str):
        raise InputError(f"{index} names a pipeline of its own code, which is not run; only diffusers' pipelines are")
    if not any(slot in parts for slot in SLOTS):
        raise InputError(f"{index} ({parts['_class_name']}) has neither a unet nor a transformer")
    for part in parts:
        files = [path for path in (folder / part).glob("*") if path.is_file()]
        pickles = [path for path in files if path.suffix in PICKLES]
        if pickles and not any(path.suffix == ".safetensors" for path in files):
            raise InputError(
                f"{pickles[0]} is a pickle, which may run code, and there is no safetensors file beside it; convert it"
            )


def load_lora(pipe: Any, lora: Any) -> None:
    """A LoRA, by name or file, into the pipeline's own modules.

    Raises
    ------
    ValueError
        It can not be read, or the pipeline takes none.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise InputError(f"lora was given, and {type(pipe).__name__} takes none")
    if isinstance(lora, (str, os.PathLike)) and Path(lora).suffix in PICKLES:
        raise InputError(f"lora is {os.fspath(lora)!r}, a pickle, which may run code; convert it to safetensors")
    try:
        if isinstance(lora, (str, os.PathLike)):
            path = Path(lora)
            if path.is_dir() and (path / LORA_FILE).exists():
                path = path / LORA_FILE
            where, single = (path.parent, {"weight_name": path.name}) if path.is_file() else (lora, {})
            pipe.load_lora_weights(os.fspath(where), use_safetensors=True, **single)
        else:
            pipe.load_lora_weights(lora)
    except ImportError as error:
        raise MissingExtraError(f"a LoRA needs peft: pip install peft ({error})") from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        named = os.fspath(lora) if isinstance(lora, (str, os.PathLike)) else shown(lora)
        raise InputError(f"lora {named} can not be loaded ({said})") from error
