"""The house rules that a machine can hold: includes, globals, files' lengths, words that have no place here."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
C_FILES = sorted([*(ROOT / "csrc").rglob("*.[ch]"), *(ROOT / "csrc").rglob("*.cu")])
PY_FILES = sorted(p for d in ("diffcls", "tests", "benchmarks") for p in (ROOT / d).rglob("*.py"))

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="the tests are not in a whole checkout")

# folder -> what its files may include (first part of the path; "" is csrc itself: backend.h)
ARROWS = {
    "base": {"base"},
    "formulas": {"formulas"},
    "": {"base", "formulas"},
    "cpu": {"base", "formulas", "cpu", "dit/operations.h", ""},
    "cuda": {"base", "formulas", "cuda", "dit/operations.h", ""},
    "method": {"base", "formulas", "method", ""},
    "dit": {"base", "formulas", "method", "dit", ""},
    "python": {"base", "formulas", "cpu", "cuda/cuda.h", "method", "dit", "python", ""},
}


def code(path):
    """The file without comments and strings."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.sub(r'"(\\.|[^"\\])*"', '""', text)


def folder(path):
    relative = path.relative_to(ROOT / "csrc")
    return relative.parts[0] if len(relative.parts) > 1 else ""


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: str(p.relative_to(ROOT / "csrc")))
def test_includes_follow_the_arrows(path):
    for name in re.findall(r'#include "(.*)"', path.read_text()):
        there = name.split("/")[0] if "/" in name else ""
        assert there in ARROWS[folder(path)] or name in ARROWS[folder(path)], f"{name} is out of bounds"
        assert (ROOT / "csrc" / name).exists()
    if folder(path) != "python":
        assert "Python.h" not in path.read_text()
    if path.name != "arrays.c":
        assert "numpy/" not in path.read_text()


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: str(p.relative_to(ROOT / "csrc")))
def test_no_globals_and_no_way_out(path):
    text = code(path)
    assert not re.search(r"\b(exit|abort|printf|fprintf|puts)\s*\(", text)
    if path != ROOT / "csrc/base/memory.c":
        assert not re.search(r"\b(malloc|calloc|realloc|free|aligned_alloc)\s*\(", text)
    if folder(path) == "python":  # CPython's own method, slot and keyword tables are not const
        text = re.sub(
            r"static (PyMethodDef|PyGetSetDef|PyType_Slot|PyModuleDef_Slot|PyModuleDef|char \*names)\b", "const", text
        )
    for line in text.splitlines():
        if re.match(r"\s*(extern\s+)?static\s", line) and "(" not in line.split("=")[0]:
            assert re.search(r"\bconst\b", line), f"mutable static: {line.strip()}"


@pytest.mark.parametrize(
    "path", [*C_FILES, *(ROOT / "tests" / "c").glob("*.[ch]"), *PY_FILES], ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_are_short(path):
    limit = 500 if "tests" in path.parts else 480
    assert len(path.read_text().splitlines()) <= limit


def test_every_kernel_has_its_twin():
    """One operation, one stem: csrc/cpu, csrc/cuda, their tests; those of the DiT have one test and one header."""
    of_dit = {"linear", "attention", "dit_operations"}
    for path in (ROOT / "csrc" / "cuda").glob("*.cu"):
        if path.stem in ("context", "dit_context", "blas"):
            continue
        tested = "dit_operations" if path.stem in of_dit else path.stem
        header = "dit_context.h" if path.stem in of_dit else "cuda.h"
        assert (ROOT / "csrc" / "cpu" / f"{path.stem}.c").exists(), path
        assert (ROOT / "tests" / "c" / f"test_{tested}.c").exists(), path
        assert (ROOT / "tests" / "cuda" / f"test_{tested}.cc").exists(), path
        declared = (ROOT / "csrc" / "cuda" / header).read_text()
        assert (
            f"dc_{path.stem}_cuda(" in declared
            or path.stem == "dit_operations"
            and "dc_cuda_dit_operations" in declared
        )


def test_every_header_is_guarded_and_says_what_it_is():
    for path in C_FILES:
        if path.suffix == ".h" and path.name != "tile_kernel.h":
            assert path.read_text().startswith("/*")
            assert re.search(
                rf"#ifndef DC_\w*{path.stem.upper()}_H\n#define DC_\w*{path.stem.upper()}_H", path.read_text()
            )


def test_nothing_names_a_machine():
    words = ("/" + "root/", "/" + "work/", "/" + "home/")
    for path in [*C_FILES, *PY_FILES, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "setup.py"]:
        text = path.read_text()
        assert not any(word in text for word in words), path


def test_benchmarks_are_described():
    described = (ROOT / "benchmarks" / "README.md").read_text()
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert path.name in described, f"benchmarks/README.md does not tell of {path.name}"
