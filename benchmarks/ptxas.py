"""What does the compiler make of the CUDA kernels: registers, spills, accesses of 128 bits, and how many warps fit?

Without a GPU: nvcc compiles csrc/cuda for every architecture, `ptxas -v` says what a kernel takes, and PTX says how wide its
accesses are.  Warps a multiprocessor, and what memory alone would need for the shapes of the targets, follow by arithmetic from
NVIDIA's tables.  Nothing is timed: these are bounds, not figures.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import common

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# registers, shared KiB and threads of a multiprocessor: CUDA C++ Programming Guide, table of compute capabilities
MULTIPROCESSOR = {
    75: (65536, 64, 1024),
    80: (65536, 164, 2048),
    86: (65536, 100, 1536),
    89: (65536, 100, 1536),
    90: (65536, 228, 2048),
    100: (65536, 228, 2048),
    120: (65536, 100, 1536),
}
THREADS = {"noise_kernel": 256, "noising_kernel": 256, "eps_error_kernel": 128, "mean_kernel": 128}
SHARED = {"eps_error_kernel": 4 * 1024 * 4}  # bytes, asked for at launch
TYPES = {"If": "float32", "Id": "float64", "I9half_bits": "float16", "I11bfloat_bits": "bfloat16"}

MEMORY = {"H200": 4.8, "H100 SXM": 3.35, "A100 80GB": 2.04, "RTX 4090": 1.008}  # TB/s of the data sheets
SHAPES = {"64 x 4x64x64": 64 * 4 * 64 * 64, "256 x 4x32x32": 256 * 4 * 32 * 32, "64 x 16x128x128": 64 * 16 * 128 * 128}

FLAGS = ["-std=c++17", "-O3", f"-I{common.CSRC}"]


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def kernel_name(mangled: str) -> str:
    """eps_error_kernel<float16> of _Z16eps_error_kernelI9half_bitsEv16eps_error_params."""
    name = next(kernel for kernel in THREADS if kernel in mangled)
    kind = next((kind for mark, kind in TYPES.items() if f"{name}{mark}E" in mangled), None)
    return f"{name}<{kind}>" if kind else name


def compile_kernels(compiler: str, architecture: int, folder: Path) -> dict[str, dict[str, int]]:
    """Figures of every kernel on one architecture."""
    kernels: dict[str, dict[str, int]] = {}
    for source in sorted((common.CSRC / "cuda").glob("*.cu")):
        ptx = folder / f"{source.stem}.ptx"
        subprocess.run([compiler, *FLAGS, f"-arch=compute_{architecture}", "-ptx", source, "-o", ptx], check=True)
        command = [compiler, f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v", ptx, "-o", folder / "kernel.cubin"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        bodies = dict(re.findall(r"\.entry (\w+)\((.*?)^}", ptx.read_text(), flags=re.S | re.M))
        for mangled, text in re.findall(r"Compiling entry function '(\w+)'(.*?)Compile time", said, flags=re.S):
            body = bodies[mangled]
            kernels[kernel_name(mangled)] = {
                "registers": int(re.search(r"Used (\d+) registers", text)[1]),
                "spill_bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill", text)),
                "stack_bytes": int(re.search(r"(\d+) bytes stack", text)[1]),
                "loads_of_16_bytes": len(re.findall(r"\bld\.global\.(?:\w+\.)*v4\.", body)),
                "stores_of_16_bytes": len(re.findall(r"\bst\.(?:global|shared)\.v4\.", body)),
            }
    return kernels


def blocks_that_fit(kernel: str, registers: int, architecture: int) -> int:
    """Blocks of threads on one multiprocessor: registers go by eights and warps, shared memory takes 1 KiB more a block."""
    all_registers, shared_kib, max_threads = MULTIPROCESSOR[architecture]
    name = kernel.partition("<")[0]
    by_registers = all_registers // (-(-registers // 8) * 8 * THREADS[name])
    by_shared = shared_kib * 1024 // (SHARED[name] + 1024) if name in SHARED else by_registers
    return min(by_registers, by_shared, max_threads // THREADS[name])


def figures(compiler: str, architectures: tuple[int, ...] = ARCHITECTURES) -> dict[str, dict[str, dict[str, int]]]:
    """sm -> kernel -> figures."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            kernels = compile_kernels(compiler, architecture, Path(folder))
            for name, kernel in kernels.items():
                kernel["blocks_a_multiprocessor"] = blocks_that_fit(name, kernel["registers"], architecture)
                kernel["warps_a_multiprocessor"] = (
                    kernel["blocks_a_multiprocessor"] * THREADS[name.partition("<")[0]] // 32
                )
            result[f"sm_{architecture}"] = kernels
    return result


def rooflines() -> list[dict[str, Any]]:
    """Microseconds that memory alone needs: what is written, or read, once, over the data sheet's bandwidth."""
    table = []
    for device, terabytes in MEMORY.items():
        for shape, elements in SHAPES.items():
            four, two = (round(size * elements / terabytes / 1e6, 2) for size in (4, 2))
            row = {
                "device": device,
                "shape": shape,
                "noising_us": four,
                "eps_error_float32_us": four,
                "eps_error_half_us": two,
            }
            table.append(row)
    return table


def main() -> None:
    options, compiler = common.arguments(__doc__.splitlines()[0]), nvcc()
    if compiler is None:
        raise SystemExit("nvcc is not in PATH: nothing is recorded")
    said = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout
    version = said.partition("release ")[2].partition(",")[0]
    rows: list[dict[str, Any]] = [
        {"nvcc": version, "architecture": architecture, "kernel": name, **kernel}
        for architecture, kernels in figures(compiler).items()
        for name, kernel in sorted(kernels.items())
    ]
    common.record("ptxas", __doc__.splitlines()[0], [*rows, *rooflines()], options)


if __name__ == "__main__":
    main()
