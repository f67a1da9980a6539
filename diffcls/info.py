"""What ``diffcls info`` tells: all that a bug report needs, and nothing of the person who makes it."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "accelerate", "cuda-pathfinder", "cupy-cuda12x", "cupy-cuda13x", "datasets", "diffusers", "jax", "matplotlib",
    "nvidia-cublas", "peft", "pillow", "pyarrow", "ray", "safetensors", "scikit-learn", "scipy", "shtab", "starlette", "torch",
    "torchvision", "tqdm", "transformers", "uvicorn", "webdataset",
)  # fmt: skip
"""What the extras bring, and what else a denoiser or a data set may be of."""

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Of the environment, beside our own: what a denoiser of another library heeds."""


def collect() -> dict[str, Any]:
    """Facts by name, ready for json.  Nothing heavy is imported: versions are those of the installed packages' records.

    Returns
    -------
    dict
        Versions, the interpreter and its build, the machine, what of it is used, CUDA or why not, the embedded models by
        the SHA-256 of their weights, ``DIFFCLS_*`` and `VARIABLES`, and "extras": package to version, None where it is missing.

    Raises
    ------
    ValueError
        ``DIFFCLS_SIMD`` or ``DIFFCLS_NUM_THREADS`` names nothing that there is.
    """
    import numpy as np

    from . import __version__, _core, cuda
    from .models.registry import digests
    from .threads import backend

    cpu = backend()
    return {
        "diffcls": __version__,
        "built": _wheel_tag(),
        "python": f"{platform.python_implementation()} {platform.python_version()}{_gil()}",
        "numpy": np.__version__,
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors of this process": len(os.sched_getaffinity(0)),
        "instruction sets": list(_core.Cpu.available()),
        "used": cpu.simd,
        "threads": cpu.n_threads,
        "blas": "none: diffcls has its own product",
        "cuda": cuda.why_not() or "available",
        "models": digests(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("DIFFCLS_") or name in VARIABLES
        },
        "extras": {name: _version(name) for name in PACKAGES},
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The same for people: one fact a line."""
    told = []
    for name, value in facts.items():
        if name == "extras":
            have = [f"{package} {version}" for package, version in value.items() if version]
            lack = [package for package, version in value.items() if not version]
            told += [f"extras: {', '.join(have) or 'none'}", f"not installed: {', '.join(lack) or 'none'}"]
        elif isinstance(value, dict):
            told.append(f"{name}: {', '.join(f'{key}={item}' for key, item in value.items()) or 'none'}")
        else:
            told.append(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    return told


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _wheel_tag() -> str:
    """Of the wheel that was installed; a checkout has none."""
    try:
        text = metadata.distribution("diffcls").read_text("WHEEL") or ""
    except metadata.PackageNotFoundError:
        text = ""
    tags = [line.removeprefix("Tag: ") for line in text.splitlines() if line.startswith("Tag: ")]
    return ", ".join(tags) or "in place, not installed"


def _gil() -> str:
    """Only a build that can do without the GIL is worth a word: a module may have switched it on."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return ""
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    return f" (free-threaded, the GIL is {'on' if enabled() else 'off'})"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "not known"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or "not known"
