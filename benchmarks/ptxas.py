"""What does the compiler make of the CUDA kernels: registers, spills, accesses of 128 bits, and how many warps fit?

Without a GPU: nvcc compiles csrc/cuda for every architecture, `ptxas -v` says what a kernel takes, and the machine code that
`cuobjdump` lists (of the toolkit, or PyPI's nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm) says how wide its accesses are and
how many instructions it has; without cuobjdump PTX says the former.  Warps a multiprocessor, and what memory and arithmetic
alone would need for the shapes of the targets, follow from NVIDIA's tables.  Nothing is timed: these are bounds, not figures.
"""

import os
import re
import shutil
import site
import subprocess
import tempfile
from collections.abc import Collection
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
SHARED = {"eps_error_kernel": 4 * 1024 * 4, "attention_kernel": (3 * 32 * 36 + 32 * 128) * 4}  # bytes, at most
TYPES = {
    "f": "float32",
    "d": "float64",
    "half_bits": "float16",
    "bfloat_bits": "bfloat16",
    "b0": "",
    "b1": "channels last",
}

# TB/s, and 10^12 float32 operations a second without counting a multiply-add as two: NVIDIA's data sheets
DEVICES = {"H200": (4.8, 33.5), "H100 SXM": (3.35, 33.5), "A100 80GB": (2.04, 9.75), "RTX 4090": (1.008, 41.3)}
SHAPES = {
    "64 x 4x64x64": (64, 4 * 64 * 64),
    "256 x 4x32x32": (256, 4 * 32 * 32),
    "64 x 16x128x128": (64, 16 * 128 * 128),
}

FLAGS = ["-std=c++17", "-O3", f"-I{common.CSRC}"]


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def cuobjdump() -> str | None:
    """The toolkit's, or the wheels'."""
    wheels = [Path(folder) / "nvidia" / "cu13" / "bin" for folder in site.getsitepackages()]
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin", *map(str, wheels)])
    return shutil.which("cuobjdump", path=path)


def kernel_name(mangled: str) -> str:
    """eps_error_kernel<float16> of _Z16eps_error_kernelI9half_bitsLb0EEv16eps_error_params."""
    found = re.search(r"\d+([a-z_]+_kernel)(?:I((?:f|d|\d+half_bits|\d+bfloat_bits|L[bi]\d+E)+)E)?", mangled)
    words = re.findall(r"\d*(half_bits|bfloat_bits)|L(b\d)E|Li(\d+)E|([fd])", found[2] or "")
    kinds = [TYPES.get(word, word) for word in ("".join(groups) for groups in words)]
    kinds = [kind for kind in kinds if kind]
    return f"{found[1]}<{', '.join(kinds)}>" if kinds else found[1]


def widths(tool: str | None, cubin: Path, ptx: Path) -> dict[str, dict[str, int]]:
    """Mangled name -> accesses of sixteen bytes, and instructions where machine code can be read."""
    if tool is None:
        bodies = dict(re.findall(r"\.entry (\w+)\((.*?)^}", ptx.read_text(), flags=re.S | re.M))
        wide = r"(?:v4\.[a-z]32|v2\.[a-z]64)\b"
        loads, stores = r"\bld\.global\.(?:\w+\.)*" + wide, r"\bst\.(?:global|shared)\." + wide
    else:
        path = os.pathsep.join([str(Path(tool).parent), os.environ.get("PATH", "")])  # it calls nvdisasm
        command, environment = [tool, "-sass", str(cubin)], {**os.environ, "PATH": path}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        bodies = dict(re.findall(r"Function : (\w+)\n(.*?)(?=Function :|\Z)", said, flags=re.S))
        loads, stores = r"\bLDG\.E(?:\.\w+)*\.128\b", r"\bST[GS](?:\.\w+)*\.128\b"
    result = {}
    for mangled, body in bodies.items():
        result[mangled] = {
            "loads_of_16_bytes": len(re.findall(loads, body)),
            "stores_of_16_bytes": len(re.findall(stores, body)),
        }
        if tool is not None:
            instructions = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\d+ )?(\w+)", body)
            result[mangled]["instructions"] = len([word for word in instructions if word != "NOP"])
    return result


def compile_kernels(
    compiler: str, architecture: int, folder: Path, stems: Collection[str]
) -> dict[str, dict[str, int]]:
    """Figures of every kernel on one architecture."""
    kernels: dict[str, dict[str, int]] = {}
    for source in sorted((common.CSRC / "cuda").glob("*.cu")):
        if stems and source.stem not in stems:
            continue
        ptx, cubin = folder / f"{source.stem}.ptx", folder / "kernel.cubin"
        subprocess.run([compiler, *FLAGS, f"-arch=compute_{architecture}", "-ptx", source, "-o", ptx], check=True)
        command = [compiler, f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v", ptx, "-o", cubin]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        compiled = re.findall(r"Compiling entry function '(\w+)'(.*?)Compile time", said, flags=re.S)
        wide = widths(cuobjdump(), cubin, ptx) if compiled else {}
        launched = dict(re.findall(r"\.entry (\w+)\([^{]*?\.maxntid (\d+)", ptx.read_text(), flags=re.S))
        for mangled, text in compiled:
            kernels[kernel_name(mangled)] = {
                "threads": int(launched[mangled]),
                "registers": int(re.search(r"Used (\d+) registers", text)[1]),
                "spill_bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill", text)),
                "stack_bytes": int(re.search(r"(\d+) bytes stack", text)[1]),
                **wide[mangled],
            }
    return kernels


def blocks_that_fit(kernel: str, registers: int, threads: int, architecture: int) -> int:
    """Blocks of threads on one multiprocessor: registers go by eights and warps, shared memory takes 1 KiB more a block."""
    all_registers, shared_kib, max_threads = MULTIPROCESSOR[architecture]
    name = kernel.partition("<")[0]
    by_registers = all_registers // (-(-registers // 8) * 8 * threads)
    by_shared = shared_kib * 1024 // (SHARED[name] + 1024) if name in SHARED else by_registers
    return min(by_registers, by_shared, max_threads // threads)


def figures(
    compiler: str, architectures: tuple[int, ...] = ARCHITECTURES, stems: Collection[str] = ()
) -> dict[str, dict[str, dict[str, int]]]:
    """sm -> kernel -> figures; `stems`: of these sources alone."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            kernels = compile_kernels(compiler, architecture, Path(folder), stems)
            for name, kernel in kernels.items():
                fit = blocks_that_fit(name, kernel["registers"], kernel["threads"], architecture)
                kernel["blocks_a_multiprocessor"], kernel["warps_a_multiprocessor"] = fit, fit * kernel["threads"] // 32
            result[f"sm_{architecture}"] = kernels
    return result


def rooflines(instructions: int | None) -> list[dict[str, Any]]:
    """Microseconds that nothing can beat: what is written, or read, once, over the data sheet's bandwidth; and, where noise is
    made for one row alone or for eight, `instructions` for four numbers of it over the data sheet's rate."""
    table = []
    for device, (terabytes, rate) in DEVICES.items():
        for shape, (n_rows, n_elem) in SHAPES.items():
            elements = n_rows * n_elem
            row: dict[str, Any] = {"device": device, "shape": shape}
            for name, size in (("float32", 4), ("half", 2)):
                row[f"{name}_us"] = round(size * elements / terabytes / 1e6, 2)
            if instructions is not None:
                made = elements * instructions / 4 / rate / 1e6
                row |= {"noise_us_1_row": round(made, 2), "noise_us_8_rows": round(made / 8, 2)}
            table.append(row)
    return table


def main() -> None:
    options, compiler = common.arguments(__doc__.splitlines()[0]), nvcc()
    if compiler is None:
        raise SystemExit("nvcc is not in PATH: nothing is recorded")
    said = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout
    version = said.partition("release ")[2].partition(",")[0]
    table = figures(compiler)
    rows: list[dict[str, Any]] = [
        {"nvcc": version, "architecture": architecture, "kernel": name, **kernel}
        for architecture, kernels in table.items()
        for name, kernel in sorted(kernels.items())
    ]
    noise = table["sm_90"]["noise_kernel"].get("instructions")
    common.record("ptxas", __doc__.splitlines()[0], [*rows, *rooflines(noise)], options)


if __name__ == "__main__":
    main()
