"""The notebooks: what is committed, and that they run from a clean kernel.

``python test_notebook.py`` runs them and writes their outputs anew; ``python test_notebook.py 5-the-race`` one of them.
"""

import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
NEEDS = {
    "3-your-own-denoiser": ("torch", "jax"), "4-text-and-composition": ("torch", "diffusers", "transformers"), "5-the-race": ("scipy",),
    "7-in-a-training-loop": ("torch", "sklearn"), "8-stable-diffusion-and-dit": ("torch", "diffusers"),
}  # fmt: skip
"""Beside what every notebook needs."""


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook):
    """Of all outputs."""
    return {kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})}


def test_there_are_notebooks():
    assert [path.stem.split("-")[0] for path in NOTEBOOKS] == sorted({path.stem.split("-")[0] for path in NOTEBOOKS})
    assert len(NOTEBOOKS) >= 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed(path):
    """Small, with its pictures, the cell that installs first and what to try next last; it names no machine."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    first = code_cells(notebook)[0].source
    assert "find_spec(" in first and "%pip install" in first
    assert "## What to try next" in notebook.cells[-1].source
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert {"image/png", "text/html"} <= kinds(notebook)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert not any(word in path.read_text() for word in ("/" + "root/", "/" + "work/", "/" + "home/"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_lead_somewhere(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for target in re.findall(r"\]\(([^)]+)\)", cell.source) if cell.cell_type == "markdown" else ():
            assert target.startswith("https://") or (path.parent / target).exists(), target


def run(path):
    """The notebook with the outputs of a clean kernel; bars and other words on stderr are no part of it."""
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    nbclient.NotebookClient(notebook, timeout=180, kernel_name="python3", record_timing=False).execute()
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


@pytest.mark.installed
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path):
    for module in NEEDS.get(path.stem, ()):
        pytest.importorskip(module)
    assert {"image/png", "text/html"} <= kinds(run(path))


if __name__ == "__main__":
    for each in NOTEBOOKS:
        if each.stem in (sys.argv[1:] or [each.stem]):
            made = run(each)
            made.metadata = {"kernelspec": made.metadata.kernelspec, "language_info": {"name": "python"}}
            nbformat.write(made, each)
