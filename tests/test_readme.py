"""The README's programs run as they stand and print what their comments say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffcls
from diffcls.models import demo_pictures

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
TOYS = [block for block in BLOCKS if "Denoiser(" in block]


@pytest.mark.torch
@pytest.mark.parametrize("block", TOYS, ids=["numpy", "torch"])
def test_toys(block):
    if "torch" in block:
        pytest.importorskip("torch")
    assert len([line for line in block.splitlines() if line.strip() and not line.startswith("import")]) < 15
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
    expected = re.findall(r"print\(.*\)  # (.*)", block)
    assert done.stdout.split("\n")[:-1] == expected != []


def test_policies_block_runs():
    (block,) = [block for block in BLOCKS if "diffcls.policies.paper" in block]
    exec("import diffcls\n" + block, {})


def test_researchers_block_runs(tmp_path, monkeypatch):
    (block,) = [block for block in BLOCKS if "error_table" in block]
    pictures, labels = demo_pictures.load()
    monkeypatch.chdir(tmp_path)
    names = {"diffcls": diffcls, "pictures": list(pictures), "labels": labels}
    for full, small in (("n_samples=500", "n_samples=60"), ("risk=0.05", "risk=0.05, pool=60")):
        block = block.replace(full, small)
    exec(block.replace("Classifier()", "Classifier(policy=diffcls.Race(pool=60))"), names)
    assert diffcls.ErrorTable.load("table.arrow").errors.shape == (48, 20, 60)


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 150
