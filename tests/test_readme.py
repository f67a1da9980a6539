"""The README's programs run as they stand and print what their comments say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import diffcls
from diffcls import cli
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


def test_first_block_runs(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    pictures, labels = demo_pictures.load()
    monkeypatch.chdir(tmp_path)
    boot = list(labels).index(diffcls.load().class_names.index("ankle boot"))
    image.fromarray(pictures[boot]).save("boot.png")
    names = {}
    exec(BLOCKS[0], names)
    (answer,) = re.findall(r"result.label  # '([^']+)'", BLOCKS[0])
    assert names["result"].label == answer and names["result"].n_evals > 0


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


def test_the_replay_command_runs(gaussian, rng, tmp_path, monkeypatch, capsys):
    """As it stands, on a table of as many trials as the block above it makes."""
    pytest.importorskip("pyarrow")
    (command,) = re.findall(r"`diffcls (replay [^`]+)`", README.read_text())
    (n_samples,) = re.findall(r"error_table\(pictures, n_samples=(\d+)", README.read_text())
    labels = rng.integers(0, 5, 8)
    monkeypatch.chdir(tmp_path)
    classifier = diffcls.Classifier(gaussian.denoiser())
    classifier.error_table(gaussian.sample(labels, rng), n_samples=int(n_samples), labels=labels).save("table.arrow")
    assert cli.main(shlex.split(command)) == 0
    streams = capsys.readouterr()
    policies = command.split("--policy ")[1].split()
    assert len(policies) > 2 and not streams.err
    assert [line.split()[0] for line in streams.out.splitlines()[2:]] == policies


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 150
