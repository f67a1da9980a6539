"""What every benchmark shares: interleaved timing, paired ratios, the machine's peaks, the record.

Candidates of one question are timed in the same process, in random order inside each repeat, so that whatever else the
machine does hits all of them alike.  A ratio is the median over repeats of paired ratios, with a bootstrap interval.
Single-thread questions use the thread's own CPU time, which a busy neighbour does not count into.
"""

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "results"
CSRC = Path(__file__).parents[1] / "csrc"

FMA_LOOP = """
double flops(float *out, long n)  /* twelve chains of vectors hide the latency of an FMA */
{
    typedef float lanes __attribute__((vector_size(64)));
    lanes sum[12], a = {0}, b = {0};
    for (int i = 0; i < 16; i++) { a[i] = 0.999f; b[i] = 0.001f * out[0]; }
    for (int i = 0; i < 12; i++) sum[i] = b;
    for (long k = 0; k < n; k++)
        for (int i = 0; i < 12; i++) sum[i] = sum[i] * a + b;
    for (int i = 1; i < 12; i++) sum[0] += sum[i];
    out[0] = sum[0][0];
    return 2.0 * 16 * 12 * (double)n;
}
"""


def arguments(question: str) -> argparse.Namespace:
    """Options of every script: ``--repeats``, ``--seed``, ``--dry`` (do not write the record)."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    return parser.parse_args()


class Timings:
    """Seconds a call of each candidate, one a repeat; the same index is the same moment."""

    def __init__(self, seconds: Mapping[str, NDArray[np.float64]], seed: int) -> None:
        self.seconds = dict(seconds)
        self._seed = seed

    def median(self, name: str) -> float:
        return float(np.median(self.seconds[name]))

    def ratio(self, slow: str, fast: str) -> dict[str, float]:
        """How many times longer `slow` takes than `fast`: median of paired ratios and its 95 % bootstrap interval."""
        pairs = self.seconds[slow] / self.seconds[fast]
        rng = np.random.default_rng(self._seed)
        medians = np.median(rng.choice(pairs, size=(2000, len(pairs))), axis=1)
        low, high = np.quantile(medians, [0.025, 0.975])
        return {"median": float(np.median(pairs)), "low": float(low), "high": float(high)}


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 21,
    min_time: float = 0.02,
    clock: Callable[[], float] = time.thread_time,
    seed: int = 0,
) -> Timings:
    """Time every candidate `repeats` times, each time over enough calls to take `min_time` seconds."""
    calls = {}
    for name, call in candidates.items():
        call()  # page faults, caches, lazy imports
        start, n = clock(), 0
        while clock() - start < min_time:
            call()
            n += 1
        calls[name] = n
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        for name in rng.permutation(list(candidates)):
            call, n = candidates[name], calls[name]
            start = clock()
            for _ in range(n):
                call()
            seconds[name].append((clock() - start) / n)
    return Timings({name: np.array(values) for name, values in seconds.items()}, seed)


def build_core(folder: str, driver: str) -> ctypes.CDLL:
    """The core without Python, as setup.py compiles it, and a few lines of C that call the backend's own table."""
    source, library = Path(folder) / "driver.c", Path(folder) / "driver.so"
    source.write_text(driver)
    sources = [path for path in sorted(CSRC.rglob("*.c")) if "python" not in path.parts]
    flags = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-D_POSIX_C_SOURCE=200809L", f"-I{CSRC}"]
    command = [os.environ.get("CC", "cc"), *flags, "-shared", "-fPIC", source, *sources, "-o", library, "-lm", "-ldl"]
    subprocess.run([*command, "-pthread"], check=True)
    core = ctypes.CDLL(str(library))
    core.driver_backend.restype = ctypes.c_void_p
    return core


def peak_flops() -> float | None:
    """float32 FMA operations (two each) a second of one core, by a C loop compiled here; None without a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "peak.c", Path(folder) / "peak.so"
        source.write_text(FMA_LOOP)
        command = [
            os.environ.get("CC", "cc"),
            "-O3",
            "-march=native",
            "-ffp-contract=fast",
            "-mprefer-vector-width=512",
        ]
        try:
            subprocess.run([*command, "-shared", "-fPIC", source, "-o", library], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        flops = ctypes.CDLL(str(library)).flops
        flops.restype, flops.argtypes = ctypes.c_double, (ctypes.c_void_p, ctypes.c_long)
        out, best = np.zeros(1, np.float32), 0.0
        for _ in range(9):
            start = time.thread_time()
            done = flops(out.ctypes.data, 2_000_000)
            best = max(best, done / (time.thread_time() - start))
        return best


def machine() -> dict[str, Any]:
    """Processor, cores, load, system, and the versions that numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line for line in lines if line.startswith("flags")), "")
    wanted = ("diffcls", "numpy", "torch", "scipy", "scipy-openblas32")
    packages = {d.name: d.version for d in importlib.metadata.distributions() if d.name in wanted}
    versions = {"python": platform.python_version(), **packages}
    simd = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if f" {name}" in flags]
    cores = len(os.sched_getaffinity(0))
    load, system = round(os.getloadavg()[0], 2), f"{platform.system()} {platform.machine()}"
    return {"cpu": cpu, "simd": simd, "cores": cores, "load": load, "system": system, "versions": versions}


def record(name: str, question: str, results: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Print the results; unless ``--dry``, write them to ``benchmarks/results/<name>.json``."""
    where = machine()
    print(f"{question}\n{where['cpu']}, {where['cores']} cores, load {where['load']}, {where['versions']}")
    for row in results:
        cells = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("  " + "  ".join(cells))
    if not options.dry:
        RESULTS.mkdir(exist_ok=True)
        content = {"question": question, "machine": where, "seed": options.seed, "repeats": options.repeats}
        text = json.dumps({**content, "results": list(results)}, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n")
