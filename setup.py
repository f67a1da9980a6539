"""Builds diffcls._core from csrc/.  Metadata is in pyproject.toml.

DIFFCLS_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer, every finding fatal
DIFFCLS_WERROR=1     warnings are errors
"""

import os
from pathlib import Path

import numpy
from setuptools import Extension, setup

SOURCES = sorted(str(path) for path in Path("csrc").rglob("*.c"))
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
if os.environ.get("DIFFCLS_WERROR") == "1":
    FLAGS.append("-Werror")
if os.environ.get("DIFFCLS_SANITIZE") == "1":
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
    FLAGS += sanitize
    LINK += sanitize

setup(
    ext_modules=[
        Extension(
            "diffcls._core",
            SOURCES,
            include_dirs=["csrc", numpy.get_include()],
            extra_compile_args=FLAGS,
            extra_link_args=LINK,
            libraries=["m", "dl"],
            depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
        )
    ]
)
