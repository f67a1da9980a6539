"""`load_diffusers`: a pipeline, or what one is made of, as a `Denoiser`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import shown
from ..denoiser import Denoiser, _evaluating, _torch_dtype
from ..errors import DeviceError, DTypeError, InputError
from ..fingerprint import digest_of_tensors
from . import loading, refusals
from .adapter import Adapter
from .families import find, half_of
from .pictures import prepare
from .settings import Settings
from .text import PromptEncoder

LIBRARIES = ("diffusers", "torch", "transformers")


def load_diffusers(
    model: Any,
    *,
    device: Any = None,
    dtype: Any = None,
    lora: Any = None,
    revision: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    device_map: Any = None,
    **settings: Any,
) -> DiffusersDenoiser:
    """A diffusers model as a `Denoiser`.

    Parameters
    ----------
    model : str, path, DiffusionPipeline or mapping of str to component
        A hub id, a folder in diffusers' layout, a pipeline, or components by the names that the pipeline gives them.
    device : str or torch.device, or None
        Of a model that is loaded by name; None: a GPU where there is one.  A pipeline is used where it is.
    dtype : torch.dtype or its name, or None
        Of a model that is loaded by name; None: float32 on a CPU, else the half precision of its family.
    lora : path, hub id, state dict or None
        Loaded into the pipeline.  Several, or weighted ones: load them into a pipeline and give that.
    revision, variant, token, cache_dir, local_files_only, device_map
        Of diffusers' ``from_pretrained``, for a model that is loaded by name.
    **settings
        What follows, each by its name.
    resolution : int or (height, width), or None
        Of the pictures, in pixels.  None: what the model was trained on, by its config.
    preprocess : {"paper", "adm", "squash"}, callable of a PIL image, or None
        See `diffcls.diffusers.pictures`.  None: the paper's own for the family.
    guidance : float
        Fed to guidance-distilled models (FLUX.1 dev, FLUX.2 dev), which can not do without; 1 is the conditional
        prediction, which the method is about.  Others ignore it.
    max_sequence_length : int or None
        Tokens of a T5 or language model's prompt.  None: the pipeline's own default.
    long_prompts : {"warn", "error", "chunk"}
        Of prompts that a text encoder would cut.  "chunk": CLIP reads them window by window (Stable Diffusion 1, 2, XL).
    prompt_batch_size : int
        Prompts that are encoded at once.
    text_encoders : {"keep", "offload", "free"}
        Where they are after the prompts were encoded: as before, on the CPU, or gone (from the pipeline too).
    vae : {"keep", "offload"}
        "offload": on the CPU between pictures.
    schedule : Schedule or None
        Instead of the pipeline's scheduler, for a model whose config does not tell, or tells wrong.
    allow_distilled : bool
        Go on with a model that is distilled to few steps.
    compile : bool or mapping
        ``torch.compile`` the denoiser, with these options.
    channels_last : bool
        Lay the denoiser's weights out so.

    Returns
    -------
    DiffusersDenoiser

    Raises
    ------
    ValueError
        The model can not be had, contradicts itself, or can not classify.
    TypeError
        `model` is nothing of these.
    RuntimeError
        `device` is not here, or not where the pipeline is.
    ImportError
        diffusers is not installed, or what a LoRA needs.
    """
    chosen = _settings(settings)
    options = {
        "revision": revision,
        "variant": variant,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "device_map": device_map,
    }
    name, index = None, {}
    if isinstance(model, (str, os.PathLike)):
        name = os.fspath(model).rstrip("/")
        index = loading.index_of(name, options)
        pipe = _load(name, index, device, dtype, options)
    else:
        given = [key for key, value in options.items() if value is not None]
        if given:
            raise InputError(f"{', '.join(given)} go with a model's name, and model is {type(model).__name__}")
        pipe = loading.from_components(model) if isinstance(model, Mapping) else model
        if not loading.is_pipeline(pipe):
            raise DTypeError(f"model is {type(model).__name__}, must be a name, a folder, a pipeline or its components")
    if lora is not None:
        loading.load_lora(pipe, lora)
    denoiser = DiffusersDenoiser(find(pipe.components)(pipe, chosen, index), name)
    return denoiser if isinstance(model, (str, os.PathLike)) else denoiser.to(device, dtype)


def _settings(given: dict[str, Any]) -> Settings:
    unknown = sorted(set(given) - set(Settings.__dataclass_fields__))
    if unknown:
        raise InputError(f"a diffusers model has no options {', '.join(unknown)}; see diffcls.diffusers.load_diffusers")
    return Settings(**given)


def _load(name: str, index: Mapping[str, Any], device: Any, dtype: Any, options: Mapping[str, Any]) -> Any:
    """By name, on its device and of its type."""
    import torch

    where = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device is {shown(device)}, and PyTorch finds no GPU here")
    wanted = _torch_dtype(torch, dtype)
    mapped = options.get("device_map") is not None
    if wanted is None and (where.type != "cpu" or mapped):
        wanted = getattr(torch, half_of(index))
    pipe = loading.from_name(name, torch.float32 if wanted is None else wanted, options, index)
    return pipe if mapped else pipe.to(where)


class DiffusersDenoiser(Denoiser):
    """A pipeline's denoiser with its schedule, its latents and its prompts.  `load_diffusers` makes it.

    Parameters
    ----------
    adapter : Adapter
        Of the pipeline, with its settings.
    name : str or None
        None: the pipeline's own.

    Attributes
    ----------
    adapter : Adapter
        What is known of its component class.
    pipe : DiffusionPipeline
        Borrowed; the same object as was given.

    Raises
    ------
    RuntimeError
        The pipeline's modules are on several devices, and nothing brings them together.
    ValueError, TypeError
        As `Denoiser`.
    """

    def __init__(self, adapter: Adapter, name: str | None = None) -> None:
        pipe, settings = adapter.pipe, adapter.settings
        self.adapter, self.pipe = adapter, pipe
        refusals.check_devices(pipe, adapter.place)
        is_text = adapter.class_names is None
        super().__init__(
            self._predict,
            shape=adapter.shape,
            schedule=adapter.schedule,
            class_names=adapter.class_names,
            framework="torch",
            device=adapter.place,
            dtype=adapter.module.dtype,
            encode=self._encode,
            encode_prompts=PromptEncoder(adapter) if is_text else None,
            name=name or getattr(pipe.config, "get", lambda key: None)("_name_or_path") or type(pipe).__name__,
        )
        self.synonyms = adapter.synonyms
        self.preprocess = settings.preprocess or adapter.preprocess
        self.preparation = self.preprocess if isinstance(self.preprocess, str) else "given"
        self.digest = digest_of(pipe)
        self.versions = {name: version(name) for name in LIBRARIES if find_spec(name) is not None}
        self.takes_colours = adapter.picture_channels == 3
        self.pixels = self._pixels
        self.facts = {
            **adapter.facts,
            "long_prompts": settings.long_prompts,
            "max_sequence_length": settings.max_sequence_length,
        }
        self._rows = [2**31]  # how many the device holds at once, as far as is known; shared by copies
        if settings.vae == "offload" and adapter.encoder is not None:
            adapter.encoder.vae.to("cpu")
        if settings.channels_last:
            import torch

            adapter.module.to(memory_format=torch.channels_last)
        if settings.compile:
            import torch

            given = settings.compile if isinstance(settings.compile, Mapping) else {}
            adapter.module = torch.compile(adapter.module, **given)

    @property
    def module(self) -> Any:
        """The pipeline's denoiser."""
        return self.adapter.module

    def to(self, device: Any = None, dtype: Any = None, memory_format: Any = None) -> DiffusersDenoiser:
        """Itself, or a copy that gives x_t in that order: a pipeline is moved by its own ``to``.

        Raises
        ------
        RuntimeError, TypeError
            It is not there, or of another type.
        """
        import torch

        if device is not None and not refusals.same_device(device, self.device):
            raise DeviceError(
                f"device is {shown(device)}, and the pipeline is on {self.device}; move it with pipe.to({shown(device)})"
            )
        if dtype is not None and _torch_dtype(torch, dtype) != self.dtype:
            raise DTypeError(
                f"dtype is {shown(dtype)}, and the pipeline's denoiser is {self.dtype}; convert it with pipe.to(...)"
            )
        if memory_format is None:
            return self
        copy = super().to(memory_format=memory_format)
        assert isinstance(copy, DiffusersDenoiser)
        return copy

    # ---- what the method calls ----

    def _predict(self, x_t: Any, t: Any, cond: Any) -> Any:
        import torch

        with torch.inference_mode(), _evaluating(self.adapter.module):
            while True:
                rows = self._rows[0]
                try:
                    if len(x_t) <= rows:
                        return self.adapter.predict(x_t, t, cond)
                    return torch.cat(
                        [
                            self.adapter.predict(x_t[i : i + rows], t[i : i + rows], _rows_of(cond, i, i + rows))
                            for i in range(0, len(x_t), rows)
                        ]
                    )
                except torch.OutOfMemoryError as error:
                    tried = min(len(x_t), rows)
                    if tried == 1:
                        raise DeviceError(f"{self.name} does not fit: one row is out of memory ({error})") from None
                self._rows[0] = tried // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def _prepare(self, image: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        return prepare(image, self.adapter.size, self.preprocess, self.adapter.picture_channels)

    def _pixels(self, image: Any) -> NDArray[np.float32]:
        return self._prepare(image)[0]

    def _encode(self, image: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        adapter = self.adapter
        pixels, record = self._prepare(image)
        if adapter.encoder is None:
            return pixels, record
        vae, offloaded = adapter.encoder.vae, adapter.settings.vae == "offload"
        if offloaded:
            vae.to(self.device)
        try:
            return adapter.encoder.encode(pixels, self.device), record
        finally:
            if offloaded:
                vae.to("cpu")


def _rows_of(cond: Any, start: int, stop: int) -> Any:
    if isinstance(cond, Mapping):
        return {key: value[start:stop] for key, value in cond.items()}
    return cond[start:stop]


def digest_of(pipe: Any) -> str:
    """Digest of every byte of all the components' weights as they are in memory.

    So a fine-tuning or a LoRA changes it, and a folder's model has the digest of the same pipeline given as an object.
    """
    import torch

    return digest_of_tensors(
        {
            f"{part}.{name}": tensor
            for part, module in pipe.components.items()
            if isinstance(module, torch.nn.Module)
            for name, tensor in module.state_dict().items()
        }
    )
