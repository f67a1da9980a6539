"""Finds and loads models that are described by a json beside their weights: ``NAME.json`` and ``NAME.safetensors`` for a
native model of fixed classes, ``NAME.json`` and a folder ``NAME`` in diffusers' layout for a text-to-image model.

The package's own folder is searched first, then the folders of ``$DIFFCLS_MODELS`` (separated like ``$PATH``): models that
users trained with ``python -m diffcls.models.train`` and ``export``, or ``train_shapes`` and ``export_shapes``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..denoiser import Denoiser
from ..errors import DTypeError, InputError, ShapeError, UnknownClassError, WeightsError
from ..images import to_grey
from ..native import NativeDenoiser
from ..options import with_device
from ..policies import Race
from ..prepare import SIZE, Preparation, prepare
from ..profile import Profile, schedule_fingerprint
from ..schedule import Schedule
from ..world import World

DEFAULT = "digits-and-clothes"


def folders() -> list[Path]:
    """Where models are looked for."""
    named = os.environ.get("DIFFCLS_MODELS", "")
    return [Path(__file__).parent, *(Path(part) for part in named.split(os.pathsep) if part)]


def list_models() -> list[dict[str, Any]]:
    """One dict a model: name, licence, classes, measured accuracy, parameters' file size; a text-to-image model has no
    classes, but words that its prompts are made of.

    Returns
    -------
    list of dict

    Raises
    ------
    ValueError
        A model's description is malformed.
    """
    found = []
    for folder in folders():
        for path in sorted(folder.glob("*.json")):
            weights = _weights(path)
            if weights:
                description = _read(path)
                measured = path.with_name(path.stem + ".measured.json")
                found.append(
                    {
                        "name": description["name"],
                        "licence": description["licence"],
                        "classes": list(description.get("classes", [])),
                        "words": list(description.get("words", [])),
                        "accuracy": _accuracy(json.loads(measured.read_text())) if measured.exists() else {},
                        "bytes": sum(file.stat().st_size for file in weights),
                    }
                )
    return found


def _weights(path: Path) -> list[Path]:
    """Files of weights that belong to a description; none: it is another json."""
    single, folder = path.with_suffix(".safetensors"), path.with_suffix("")
    if single.exists():
        return [single]
    return sorted(folder.glob("*/*.safetensors")) if (folder / "model_index.json").exists() else []


def digests() -> dict[str, str]:
    """SHA-256 of each embedded model's files of weights, one after the other, by its name; nothing is loaded."""
    found = {}
    for path in (path for folder in folders() for path in sorted(folder.glob("*.json"))):
        weights = hashlib.sha256()
        for file in _weights(path):
            weights.update(file.read_bytes())
        if _weights(path):
            found[str(_read(path)["name"])] = weights.hexdigest()
    return found


def _description(model: Any) -> Path | None:
    """Of an embedded model by its name; None: there is none of that name."""
    if not isinstance(model, (str, os.PathLike)):
        return None
    paths = (folder / f"{model}.json" for folder in folders())
    return next((path for path in paths if path.exists() and _weights(path)), None)


def _accuracy(measured: dict[str, Any]) -> dict[str, float]:
    """Shares of right answers, by data set and question."""
    return {
        f"{data_set}, {question}": score["accuracy"]
        for data_set, questions in measured.get("accuracy", {}).items()
        for question, score in questions.items()
    }


def load(model: Any = None, *, prepare: bool = True, **options: Any) -> Denoiser:
    """A `Denoiser` from whatever names or holds a model; a `Denoiser` is returned as it is.

    Parameters
    ----------
    model : None, str, path, diffusers pipeline, mapping of components or Denoiser
        None: the embedded model.  The name of an embedded model; a hub id ("owner/name"); a local folder in diffusers'
        layout; a pipeline object; or its components ({"unet": ..., "vae": ..., ...}).
    prepare : bool
        Of an embedded model: False takes pictures as they are, 28 x 28, a light object on black, and does not centre or
        scale them.  The model knows objects that are centred and 26 pixels long: others are warned of.
    **options
        Of a diffusers model, also an embedded one: see `diffcls.diffusers.load_diffusers`.

    Returns
    -------
    Denoiser

    Raises
    ------
    ValueError
        No such model, one that can not classify (the sentence says why), or an option that is not its.
    TypeError
        `model` is nothing of these.
    RuntimeError, ImportError
        Of a diffusers model, as `diffcls.diffusers.load_diffusers`.
    """
    if isinstance(model, Denoiser):
        _refuse_options(options, "a Denoiser is ready")
        return model
    if model is None:
        model = DEFAULT
    if isinstance(model, (str, os.PathLike)):
        path = _description(model)
        if path is not None and _is_pipeline(path):
            return _open_pipeline(path, options)
        if path is not None:
            _refuse_options(options, f"{model!r} is an embedded model")
            return EmbeddedModel(path, prepare=prepare)
        if not _is_foreign(model):
            known = ", ".join(entry["name"] for entry in list_models())
            raise InputError(
                f"there is no model {str(model)!r}; there are: {known}. A folder in diffusers' layout or a hub id "
                "('owner/name') may be given too"
            )
    elif not isinstance(model, Mapping) and not hasattr(model, "components"):
        wanted = "a name, a folder, a diffusers pipeline, a mapping of its components or a diffcls.Denoiser"
        raise DTypeError(f"model is {type(model).__name__}, must be {wanted}")
    from ..diffusers import load_diffusers

    return load_diffusers(model, **options)


def open_model(model: Any, device: Any = None, dtype: Any = None) -> Denoiser:
    """`load` for a classifier: a foreign model is put where it shall compute, any other is checked against it."""
    path = _description(model)
    foreign = not (model is None or isinstance(model, Denoiser)) and _is_foreign(model)
    if foreign if path is None else _is_pipeline(path):
        return load(model, device=device, dtype=dtype)
    return with_device(load(model), device, dtype)


def _is_foreign(model: Any) -> bool:
    """A pipeline, components, a folder, or a name that has the form of a hub id."""
    if not isinstance(model, (str, os.PathLike)):
        return True
    parts = str(model).split("/")
    return Path(model).exists() or os.path.isabs(model) or (len(parts) == 2 and all(parts))


def _refuse_options(options: Mapping[str, Any], why: str) -> None:
    if options:
        raise InputError(f"{why}, so {', '.join(options)} can not be given")


def _read(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a model's description ({error})") from None
    needed = {"words"} if _is_pipeline(path) else {"classes", "dit", "schedule", "prediction_type"}
    missing = {"name", "licence", *needed} - set(description)
    if missing:
        raise WeightsError(f"{path} lacks {', '.join(sorted(missing))}")
    return dict(description)


def _is_pipeline(path: Path) -> bool:
    """The description is of a folder in diffusers' layout, not of a native model."""
    return not path.with_suffix(".safetensors").exists() and path.with_suffix("").is_dir()


def _open_pipeline(path: Path, options: Mapping[str, Any]) -> Denoiser:
    """A text-to-image model of ours: any prompt of its words."""
    from ..diffusers import load_diffusers

    description = _read(path)
    denoiser = load_diffusers(path.with_suffix(""), **options)
    denoiser.name = description["name"]
    assert denoiser.encode_prompts is not None
    denoiser.encode_prompts = KnownWords(denoiser.encode_prompts, description["name"], description["words"])
    return denoiser


class KnownWords:
    """Refuses prompts with words that a small text encoder never saw, before it encodes them."""

    def __init__(self, encode_prompts: Callable[[list[str]], Any], name: str, words: Sequence[str]) -> None:
        self.encode_prompts, self.name, self.words = encode_prompts, name, tuple(words)

    def __call__(self, prompts: list[str]) -> Any:
        for prompt in prompts:
            strange = [word for word in prompt.split() if word.casefold() not in self.words]
            if strange:
                raise UnknownClassError(
                    f"prompt {prompt!r} has the word {strange[0]!r}; {self.name!r} knows: {', '.join(self.words)}"
                )
        return self.encode_prompts(prompts)


class EmbeddedModel(NativeDenoiser):
    """A native DiT with its vocabulary, weighting, temperature and idea of what it was trained on."""

    def __init__(self, path: Path, *, prepare: bool = True) -> None:
        description = _read(path)
        weights = path.with_suffix(".safetensors").read_bytes()
        super().__init__(
            _core.DiT(weights, description["dit"]),
            schedule=_schedule(description["schedule"]),
            prediction_type=description["prediction_type"],
            class_names=description["classes"],
            encode=self._encode_prepared if prepare else self._encode_as_is,
            name=description["name"],
        )
        self.path, self._made_from = path, (path, prepare)
        self.digest = hashlib.sha256(weights).hexdigest()
        self.synonyms = description.get("synonyms", {})
        fitted = description.get("calibration")
        if fitted is not None:
            self.temperature = float(fitted["temperature"])
            self.policy = Race(**{name: value for name, value in fitted["policy"].items() if name != "name"})
        self.preparation = "centred, 26 pixels" if prepare else "none"
        knots = description.get("weighting")
        if knots is not None:
            self.weighting = np.interp(np.arange(len(self.schedule)), knots["timesteps"], knots["weights"])
        measured = description.get("profile")
        if measured is not None:
            spread = np.interp(np.arange(len(self.schedule)), measured["timesteps"], measured["spread"])
            self.profile = Profile(spread, schedule_fingerprint(self.schedule), str(self.name), measured["run"])
        if "world" in description:
            self.world = World.from_json(description["world"], self.n_classes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the file that it was read from: other processes read it again."""
        return _reopen, (*self._made_from, self.device, self.dtype)

    def _encode_prepared(self, image: Any) -> tuple[NDArray[np.float32], Preparation]:
        return prepare(to_grey(image))

    def _encode_as_is(self, image: Any) -> NDArray[np.float32]:
        grey = to_grey(image)
        if grey.shape != (SIZE, SIZE):
            raise ShapeError(f"image has shape {grey.shape}, must be ({SIZE}, {SIZE}) without preparation")
        return 2.0 * grey[None] - 1.0


def _reopen(path: Path, prepare: bool, device: Any, dtype: Any) -> Denoiser:
    return EmbeddedModel(path, prepare=prepare).to(device, dtype)


def _schedule(description: dict[str, Any]) -> Schedule:
    kind, n = description.get("kind"), description.get("n")
    if kind != "squaredcos_cap_v2":
        raise WeightsError(f"the model's schedule is {kind!r}, which is not known")
    return Schedule.squaredcos_cap_v2(n)  # type: ignore[arg-type]
