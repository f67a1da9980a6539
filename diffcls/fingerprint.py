"""What changes a stored error, in a few words a part: two records with one fingerprint may be compared or joined."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .callables import described, weights_held
from .errors import FingerprintMismatchError
from .stored import as_json

if TYPE_CHECKING:
    from .classifier import Classifier

Fingerprint = dict[str, str]


def fingerprint(classifier: Classifier) -> Fingerprint:
    """Parts of a classifier that its errors depend on.

    Policy, weighting, priors, batch size, threads and instruction set are not among them: they choose errors or read them,
    and never change one.  A model is known by a digest of its weights where it has one, else by its name.
    """
    denoiser, arms = classifier.denoiser, classifier.arms
    parts = {
        "model": str(denoiser.name) if denoiser.digest is None else denoiser.digest[:16],
        "shape": str(denoiser.shape),
        "prediction type": str(denoiser.prediction_type),
        "schedule": digest(denoiser.schedule.alpha, denoiser.schedule.sigma, denoiser.schedule.time),
        "target": digest(denoiser.p, denoiser.q),
        "preparation": str(denoiser.preparation),
        "dtype": denoiser.dtype_name,
        "classes": digest(np.array(classifier.classes)),
        "conditions": digest(arms.class_of_arm, arms.offset, arms.conditions, *_given(denoiser.conditions)),
        "loss": classifier.loss,
        "seed": str(classifier.seed),
        "noise": "counter" if classifier.noise is None else digest(classifier.noise),
        "pool": classifier.pool,
    }
    if denoiser.encode_prompts:
        parts["prompts"] = digest(np.array(denoiser.class_names))
    if denoiser.facts:
        parts["adapter"] = digest(np.array(json.dumps(dict(denoiser.facts), sort_keys=True)))
    if classifier.pool == "logmeanexp":
        parts["temperature"] = repr(classifier.pool_temperature)
    return parts


def run_fingerprint(classifier: Classifier, **further: Any) -> Fingerprint:
    """Parts that a classifier's answers depend on: those of `fingerprint`, what chooses and reads errors, and the versions
    of what computes; `further` parts are the caller's.

    A model without a digest of its own is known by its name and the weights that are seen in its function, a shortlist's
    scorer by its code too (`callables`).
    """
    denoiser, run, shortlist = classifier.denoiser, classifier.run, classifier.shortlist
    parts = {
        **fingerprint(classifier),
        **({"noise": classifier.noise_name} if classifier.noise is None else {}),  # a table's trials know their signs
        "policy": _brief(run["policy"]),
        "weighting": _brief(run["weighting"]),
        "priors": _brief(classifier.log_prior),
        "temperature": repr(classifier.temperature),
        "calibration": _brief(run["calibration"]),
    }
    if shortlist is not None:
        parts["shortlist"] = _brief({**shortlist.to_dict(), "weights": described(shortlist.scorer, _model)})
    weights = [] if denoiser.digest is not None else weights_held(denoiser.predict, _model)
    if weights:
        parts["model"] = f"{denoiser.name} {hashlib.sha256(json.dumps(as_json(weights)).encode()).hexdigest()[:16]}"
    packages = ["diffcls", *(["pillow"] if denoiser.encode is not None else [])]
    for package in [*packages, *([] if denoiser.framework == "numpy" else [denoiser.framework])]:
        parts[package] = _version(package)
    return parts | {name: _brief(value) for name, value in further.items()}


def _model(value: Any) -> Any:
    """A classifier's parts, or the weights of a model; None: it is neither."""
    return run_fingerprint(value) if hasattr(value, "arms") else _weights_of(getattr(value, "model", value))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _brief(value: Any) -> str:
    """As json; the end of what is long is known by a digest."""
    text = value if isinstance(value, str) else json.dumps(as_json(value))
    return text if len(text) <= 200 else f"{text[:100]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _weights_of(thing: Any, depth: int = 4) -> str | None:
    """Digest of the weights that a model can be seen to have: of a `state_dict`, of arrays, or of those in what it holds;
    None where none are seen."""
    if hasattr(thing, "state_dict") and not isinstance(thing, type):
        return digest_of_tensors(thing.state_dict())[:16]
    if hasattr(thing, "detach"):
        return digest_of_tensors({"": thing})[:16]
    if isinstance(thing, np.ndarray) or (hasattr(thing, "__dlpack__") and hasattr(thing, "__array__")):
        array = thing.get() if hasattr(thing, "get") else np.asarray(thing)  # CuPy's wants to be asked
        return None if array.dtype.hasobject else digest(array)
    parts = _parts(thing) if depth else []
    found = [one for one in (_weights_of(part, depth - 1) for part in parts) if one is not None]
    return None if not found else digest(np.array(found)) if found[1:] else found[0]


def _parts(thing: Any) -> list[Any]:
    """What may hold weights, in an order that is the same everywhere."""
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, (list, tuple)):
        return list(thing)
    if isinstance(thing, (type, ModuleType)):
        return []
    return [value for _, value in sorted(getattr(thing, "__dict__", {}).items())]


def digest_of_tensors(tensors: Mapping[str, Any]) -> str:
    """BLAKE2b, 32 bytes in hexadecimal digits, over PyTorch's tensors by name: names, types, shapes and every byte.

    Tensors are hashed in threads, each by itself; whatever their device and memory format, the same values have the same
    digest.  Of a tensor on the meta device, which has no values, only the rest is known.
    """
    torch, names = sys.modules["torch"], sorted(tensors)  # whoever has tensors has imported it

    def of_one(name: str) -> bytes:
        tensor = tensors[name].detach()
        state = hashlib.blake2b(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=32)
        if tensor.device.type != "meta":
            state.update(tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        return state.digest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return hashlib.blake2b(b"".join(pool.map(of_one, names)), digest_size=32).hexdigest()


def digest(*arrays: Any) -> str:
    """First 16 digits of the SHA-256 of arrays with their types and shapes."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]


def _given(conditions: Any) -> list[Any]:
    """Those of a denoiser's own conditions that are NumPy arrays; others are known by the model's name alone."""
    values = conditions.values() if isinstance(conditions, Mapping) else [conditions]
    return [value for value in values if isinstance(value, np.ndarray) and value.dtype != object]


def check_same(mine: Fingerprint, other: Fingerprint, what: str, *, but: Sequence[str] = ()) -> None:
    """
    Raises
    ------
    FingerprintMismatchError
        They differ in a part that is not in `but`; all such parts are named.
    """
    parts = [part for part in {**mine, **other} if part not in but and mine.get(part) != other.get(part)]
    if parts:
        said = ", ".join(f"{part} is {mine.get(part)!r}, not {other.get(part)!r}" for part in parts)
        raise FingerprintMismatchError(f"{what}: {said}")
