"""`make gpu`: everything that needs a GPU, in under 25 minutes: build, tests, compute-sanitizer, benchmarks, one file of results.

Every stage has a time of its own, and together they stay below the limit.  What can not run is said with its reason and counts as
a failure, so that success means that all of it ran; without a GPU nothing runs at all and nothing is written.  ``--dry`` runs the
benchmarks on the CPU instead, small, to prove that they work, and builds the device's tests: no figure of it means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
LIMIT = 25 * 60
TESTS = ("noise", "noising", "eps_error", "loop", "step")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
BENCHMARKS = {"bandwidth": 90, "peers": 120, "step": 60, "dit": 180, "unet": 150, "race": 120}


@dataclass
class Stage:
    """A command with a limit in seconds; `needs` is a program that must be found."""

    name: str
    command: list[str]
    seconds: int
    environment: dict[str, str] = field(default_factory=dict)
    needs: str | None = None


def stages(folder: Path, architecture: str) -> list[Stage]:
    """In their order; `architecture` is the device's, such as 90."""
    python, real = sys.executable, ROOT / "build" / "cuda-real"
    build = {"DIFFCLS_CUDA": "1", "DIFFCLS_CUDA_ARCHITECTURES": architecture}
    make = ["make", "-s", "-C", str(ROOT / "tests" / "cuda"), "real", f"REAL_ARCHITECTURE=sm_{architecture}"]
    listed = [
        Stage("build", [python, "setup.py", "-q", "build_ext", "--inplace"], 160, build),
        Stage("build of the device's tests", [*make, *([f"NVCC={nvcc()}"] if nvcc() else [])], 110, needs="nvcc"),
        *(Stage(f"test_{name} on the device", [str(real / f"test_{name}")], 25) for name in TESTS),
        Stage("pytest", [python, "-m", "pytest", "-q", "tests/test_gpu.py", "tests/test_gpu_native.py"], 100),
    ]
    for tool in TOOLS:
        for name in ("noise", "noising", "eps_error", "step"):
            options = ["--tool", tool, "--error-exitcode", "9"]
            watched = ["compute-sanitizer", *options, str(real / f"test_{name}")]
            limit = 15 if tool in ("synccheck", "initcheck") else 20
            listed.append(Stage(f"{tool} of test_{name}", watched, limit, {"DIFFCLS_SHORT": "1"}, "compute-sanitizer"))
    for name, seconds in BENCHMARKS.items():
        command = [python, f"benchmarks/gpu_{name}.py", "--out", str(folder / f"gpu_{name}.json")]
        listed.append(Stage(f"benchmark {name}", command, seconds))
    return listed


def nvcc() -> str | None:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    found = [os.environ.get("NVCC"), "nvcc", *(f"{home}/bin/nvcc" for home in [*homes, "/usr/local/cuda"])]
    return next((path for path in (shutil.which(name) for name in found if name) if path), None)


def program(name: str) -> str | None:
    """Where a program of the toolkit is."""
    if name == "nvcc":
        return nvcc()
    compiler = nvcc()
    beside = [] if compiler is None else [str(Path(compiler).resolve().parent)]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *beside, "/usr/local/cuda/bin"]))


def why_not() -> str | None:
    """Why nothing can be measured here: the driver is asked, not a build that may not be there yet."""
    if shutil.which("nvidia-smi") is None:
        return "there is no GPU: nvidia-smi is not there, so there is no NVIDIA driver"
    said = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    if said.returncode != 0 or not said.stdout.strip():
        return f"there is no GPU: nvidia-smi says {(said.stdout + said.stderr).strip() or 'nothing'!r}"
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", code], check=False).returncode != 0:
        return "PyTorch of this environment finds no GPU: it is built without CUDA, or for another driver"
    return None


def run(stage: Stage, left: float) -> dict[str, Any]:
    """One line of the record: passed, failed or skipped, and why."""
    line: dict[str, Any] = {"stage": stage.name}
    if stage.needs is not None:
        found = program(stage.needs)
        if found is None:
            return {**line, "state": "skipped", "why": f"{stage.needs} is not in PATH, nor beside nvcc"}
        stage.command = [found if word == stage.needs else word for word in stage.command]
    if not shutil.which(stage.command[0]):
        return {**line, "state": "skipped", "why": f"{stage.command[0]} was not built"}
    if left < 1:
        return {**line, "state": "skipped", "why": "the 25 minutes are over"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **stage.environment}
    began = time.monotonic()
    try:
        done = subprocess.run(
            stage.command,
            cwd=ROOT,
            env=environment,
            timeout=min(stage.seconds, left),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        state, said = ("passed" if done.returncode == 0 else "failed"), done.stdout
    except subprocess.TimeoutExpired as error:
        state, said = "failed", f"not done after {error.timeout:.0f} s"
    line |= {"state": state, "seconds": round(time.monotonic() - began, 1)}
    return line if state == "passed" else {**line, "why": said[-1500:]}


def architecture_of_device() -> str:
    code = "import torch; print('%d%d' % torch.cuda.get_device_capability(0))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def device_line() -> dict[str, Any]:
    code = "import json, gpu_common; print(json.dumps(gpu_common.device_line()))"
    folder = str(ROOT / "benchmarks")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), folder])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"why": done.stderr[-500:]}


def dry() -> list[Stage]:
    """What proves, without a GPU, that the scripts work."""
    make = ["make", "-s", "-C", str(ROOT / "tests" / "cuda"), "real", "REAL_ARCHITECTURE=sm_90", f"NVCC={nvcc()}"]
    listed = [Stage("build of the device's tests", make, 600, needs="nvcc")]
    for name in BENCHMARKS:
        command = [sys.executable, f"benchmarks/gpu_{name}.py", "--device", "cpu", "--repeats", "1"]
        listed.append(Stage(f"benchmark {name}, on the CPU", command, 600))
    return listed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="on the CPU, only to prove that the scripts work")
    options = parser.parse_args()
    reason = None if options.dry else why_not()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if reason is not None:
            for stage in stages(folder, "90"):
                print(f"skipped   {stage.name}: {reason}")
            print("Nothing was run, and nothing is claimed.")
            return 2
        began, lines = time.monotonic(), []
        for stage in dry() if options.dry else stages(folder, architecture_of_device()):
            line = run(stage, LIMIT - (time.monotonic() - began) if not options.dry else 3600)
            lines.append(line)
            print(f"{line['state']:9} {stage.name} [{line.get('seconds', 0)} s] {line.get('why', '')}", flush=True)
        if not options.dry:
            tables = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
            content = {"device": device_line(), "seconds": round(time.monotonic() - began), "stages": lines, **tables}
            RESULTS.write_text(json.dumps(content, indent=1) + "\n")
            print(f"written to {RESULTS.relative_to(ROOT)}")
    bad = [line for line in lines if line["state"] != "passed"]
    print(f"{len(lines) - len(bad)} of {len(lines)} stages passed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
