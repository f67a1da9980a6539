"""What the GPU benchmarks share: a device or a stand-in, timing on it, what its runtime was asked, the record.

``--device cpu`` runs every line on the CPU with small sizes: it proves that a script works, and no number of it means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

import diffcls

FLUSHED = 1 << 28  # bytes: more than any cache of level two
SCHEDULE = diffcls.Schedule.linear(1000)


class Place:
    """A CUDA device, or the CPU in its stead."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name, self.seed = options.device, options.seed
        self.is_real = options.device.startswith("cuda")
        if self.is_real and not (torch.cuda.is_available() and diffcls.cuda.is_available()):
            raise SystemExit(f"there is no GPU to measure: {diffcls.cuda.why_not() or 'PyTorch finds none'}")
        self._flushed = torch.empty(FLUSHED // 4 if self.is_real else 1024, dtype=torch.int32, device=self.name)

    def wait(self) -> None:
        if self.is_real:
            torch.cuda.synchronize(self.name)

    def flush(self) -> None:
        """Nothing of before is left in the cache; its kernel is known by its name, bitwise_not."""
        self._flushed.bitwise_not_()

    def seconds(self, call: Callable[[], object]) -> float:
        """From the first thing asked to the last thing done."""
        self.wait()
        began = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - began

    def measure(self, candidates: Mapping[str, Callable[[], object]], repeats: int) -> common.Timings:
        """Whole calls, interleaved: see `common.measure`."""
        for call in candidates.values():
            call()
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        rng = np.random.default_rng(self.seed)
        for _ in range(repeats):
            for name in rng.permutation(list(candidates)):
                seconds[name].append(self.seconds(candidates[name]))
        return common.Timings({name: np.array(values) for name, values in seconds.items()}, self.seed)

    def profile(self, call: Callable[[], object]) -> tuple[dict[str, list[float]], Counter[str]]:
        """Microseconds of every kernel by its name, and how often the runtime was asked what; on the CPU both are empty."""
        if not self.is_real:
            call()
            return {}, Counter()
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        self.wait()
        with torch.profiler.profile(activities=activities) as profile:
            call()
            self.wait()
        kernels: dict[str, list[float]] = {}
        asked: Counter[str] = Counter()
        for event in profile.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                kernels.setdefault(event.name, []).append(float(event.time_range.elapsed_us()))
            elif event.name.startswith(("cuda", "cu")):
                asked[event.name] += 1
        return kernels, asked


def kernel_us(kernels: Mapping[str, Sequence[float]], *names: str) -> float:
    """Median microseconds of the kernels whose names hold one of `names`; NaN where there are none."""
    found = [us for name, times in kernels.items() for us in times if any(part in name for part in names)]
    return float(np.median(found)) if found else float("nan")


def arguments(question: str) -> argparse.Namespace:
    """``--device cuda`` or ``cpu``, ``--repeats``, ``--seed``, ``--out FILE``."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to prove that the script works")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="write the rows there as JSON")
    options = parser.parse_args()
    if options.device == "cpu":
        options.repeats = min(options.repeats, 2)
    torch.manual_seed(options.seed)
    return options


def free_denoiser(
    place: Place, shape: tuple[int, ...], n_classes: int, batch: int, dtype: str = "float32", graph: bool = False
) -> diffcls.Denoiser:
    """A denoiser that costs nothing: the same answer to everything."""
    answer = torch.randn((batch, *shape), device=place.name, dtype=getattr(torch, dtype))

    def predict(x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return answer[: len(x_t)]

    facts = {"schedule": SCHEDULE, "n_classes": n_classes, "framework": "torch", "device": place.name}
    return diffcls.Denoiser(predict, shape=shape, dtype=dtype, cuda_graph=graph, **facts)


def device_line() -> dict[str, Any]:
    """Device, driver, clocks and versions, as far as they can be known here."""
    line: dict[str, Any] = {
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "diffcls": diffcls.__version__},
        "cuda": torch.version.cuda,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        line |= {"device": properties.name, "multiprocessors": properties.multi_processor_count}
        line["gib"] = round(properties.total_memory / 2**30, 1)
    asked = (
        "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu,ecc.mode.current"
    )
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        line |= dict(zip(asked.split(","), (word.strip() for word in said.split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        line["clocks"] = "nvidia-smi does not tell"
    return line


def record(name: str, question: str, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Print, and write to ``--out``."""
    real = options.device.startswith("cuda")
    print(question if real else f"{question}\n(on the CPU, small: only to prove that the script works)")
    for row in rows:
        cells = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("  " + "  ".join(cells))
    if options.out is not None:
        content = {"benchmark": name, "question": question, "device": device_line() if real else "cpu, for proof only"}
        content |= {"repeats": options.repeats, "seed": options.seed, "load": round(os.getloadavg()[0], 2)}
        options.out.write_text(json.dumps({**content, "rows": list(rows)}, indent=1) + "\n")
