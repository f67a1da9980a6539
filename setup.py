"""Builds diffcls._core, and diffcls._cuda where nvcc is found, from csrc/.  Metadata is in pyproject.toml.

DIFFCLS_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer, every finding fatal
DIFFCLS_WERROR=1     warnings are errors
DIFFCLS_CUDA         auto (the default): with nvcc, else without; 1: nvcc must be there; 0: never
DIFFCLS_CUDA_ARCHITECTURES   such as "80;90": native code for these and PTX of the last; the default is all of CUDA_ARCHITECTURES
                     that nvcc knows
DIFFCLS_MANYLINUX=1  symbols of glibc 2.17 only (csrc/base/manylinux.h): for wheels, x86-64
NVCC, CUDA_HOME      where nvcc is, if not in PATH
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA_ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
CUDA_MODULE = "csrc/python/cuda_module.c"
SOURCES = sorted(str(path) for path in Path("csrc").rglob("*.c") if str(path) != CUDA_MODULE)
KERNELS = sorted(str(path) for path in Path("csrc/cuda").glob("*.cu"))
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
FLAGS = [
    "-std=c11",
    "-O3",
    "-ffp-contract=off",  # one product, one sum, one rounding each: the same bits from every compiler
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-D_POSIX_C_SOURCE=200809L",
    "-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION",
    "-DNPY_TARGET_VERSION=NPY_2_0_API_VERSION",
]
LINK = ["-pthread"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-Icsrc", "-Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra"]
if os.environ.get("DIFFCLS_WERROR") == "1":
    FLAGS.append("-Werror")
    NVCC_FLAGS += ["-Werror=all-warnings", "-Xcompiler=-Werror"]
if os.environ.get("DIFFCLS_MANYLINUX") == "1":
    FLAGS += ["-include", "csrc/base/manylinux.h", "-g0"]  # debug information names the folder of the build
if os.environ.get("DIFFCLS_SANITIZE") == "1":
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
    FLAGS += sanitize
    LINK += sanitize


def find_nvcc():
    """nvcc's path, or None where the CUDA module is not to be built."""
    wanted = os.environ.get("DIFFCLS_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"DIFFCLS_CUDA is {wanted!r}, must be 0, 1 or auto")
    if wanted == "0" or (wanted == "auto" and os.environ.get("DIFFCLS_SANITIZE") == "1"):
        return None
    named = [os.environ["NVCC"]] if "NVCC" in os.environ else []
    home = [str(Path(os.environ[name]) / "bin" / "nvcc") for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    found = [shutil.which(candidate) for candidate in [*named, *home, "nvcc", "/usr/local/cuda/bin/nvcc"]]
    nvcc = next((path for path in found if path), None)
    if nvcc is None and wanted == "1":
        raise SystemExit("DIFFCLS_CUDA is 1, but nvcc is not in PATH, CUDA_HOME or NVCC")
    return nvcc


def architecture_flags(nvcc):
    """-gencode for each architecture, and for the last one's PTX, which later devices compile for themselves."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout.split()
    known = {int(name.removeprefix("compute_")) for name in listed}
    named = os.environ.get("DIFFCLS_CUDA_ARCHITECTURES")
    wanted = (
        [int(text) for text in named.replace(",", ";").split(";")] if named else sorted({*CUDA_ARCHITECTURES} & known)
    )
    unknown = [number for number in wanted if number not in known]
    if unknown or not wanted:
        raise SystemExit(f"DIFFCLS_CUDA_ARCHITECTURES is {named!r}, {nvcc} knows {sorted(known)}")
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in wanted]
    return [*flags, f"-gencode=arch=compute_{wanted[-1]},code=compute_{wanted[-1]}"]


def library_folders(nvcc):
    """Where this nvcc's own runtime is; PATH may only have a link or a script that calls it."""
    said = subprocess.run([nvcc, "--dryrun", "-c", "no.cu"], capture_output=True, text=True).stderr
    line = next((line for line in said.splitlines() if line.startswith("#$ LIBRARIES=")), "")
    words = shlex.split(line.partition("=")[2])
    return [word.removeprefix("-L") for word in words if word.startswith("-L") and not word.endswith("stubs")]


class BuildWithNvcc(build_ext):
    """Objects of .cu files by nvcc, everything else as ever."""

    def build_extension(self, ext):
        kernels = [source for source in ext.sources if source.endswith(".cu")]
        if kernels:
            ext.sources = [source for source in ext.sources if not source.endswith(".cu")]
            ext.extra_objects = [self.compile(kernel) for kernel in kernels]
        super().build_extension(ext)

    def compile(self, kernel):
        target = Path(self.build_temp) / Path(kernel).with_suffix(".o")
        command = [NVCC, *NVCC_FLAGS, *architecture_flags(NVCC), "--threads=0", "-c", kernel, "-o", str(target)]
        asked = target.with_suffix(".command")
        newest = max(Path(path).stat().st_mtime for path in [kernel, *HEADERS])
        if self.force or not target.exists() or target.stat().st_mtime < newest or asked.read_text() != str(command):
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(command, check=True)
            asked.write_text(str(command))
        return str(target)


NVCC = find_nvcc()
extensions = [
    Extension(
        "diffcls._core",
        SOURCES,
        include_dirs=["csrc", numpy.get_include()],
        extra_compile_args=FLAGS,
        extra_link_args=LINK,
        libraries=["m", "dl"],
        depends=HEADERS,
    )
]
if NVCC is not None:  # the CUDA runtime is linked statically: who uses the module needs the driver only
    extensions.append(
        Extension(
            "diffcls._cuda",
            [CUDA_MODULE, "csrc/base/memory.c", "csrc/base/status.c", *KERNELS],
            include_dirs=["csrc"],
            extra_compile_args=FLAGS,
            extra_link_args=[*LINK, "-Wl,--exclude-libs,ALL"],
            library_dirs=library_folders(NVCC),
            libraries=["cudart_static", "rt", "dl", "stdc++"],
            depends=[*HEADERS, *KERNELS],
        )
    )

setup(ext_modules=extensions, cmdclass={"build_ext": BuildWithNvcc})
