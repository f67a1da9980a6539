"""`make gpu` without a GPU: it says what it does not do, claims nothing, and its scripts work."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.installed,
    pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not in a whole checkout"),
]


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_the_stages_fit_in_the_time(module, tmp_path):
    gpu = module("gpu")
    stages = gpu.stages(tmp_path, "90")
    assert sum(stage.seconds for stage in stages) <= gpu.LIMIT
    names = " ".join(stage.name for stage in stages)
    for word in ("build", "pytest", "memcheck", "racecheck", "initcheck", "synccheck", *gpu.BENCHMARKS):
        assert word in names
    for path in BENCHMARKS.glob("gpu_*.py"):
        assert path.stem == "gpu_common" or path.stem.removeprefix("gpu_") in gpu.BENCHMARKS


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
def test_without_a_gpu_nothing_is_claimed(module):
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Nothing was run, and nothing is claimed." in done.stdout
    lines = done.stdout.splitlines()[:-1]
    assert all(line.startswith("skipped") and "there is no NVIDIA driver" in line for line in lines) and len(lines) > 20


def test_a_stage_is_passed_failed_or_skipped(module, monkeypatch):
    gpu = module("gpu")

    def state(code, seconds=30, **options):
        line = gpu.run(gpu.Stage("x", [sys.executable, "-c", code], seconds, **options), 100.0)
        return line["state"], line.get("why", "")

    assert state("import os; assert os.environ['A'] == '1'", environment={"A": "1"}) == ("passed", "")
    assert state("print('no'); raise SystemExit(3)") == ("failed", "no\n")
    assert state("import time; time.sleep(9)", 1) == ("failed", "not done after 1 s")
    assert state("", needs="no-such-tool") == ("skipped", "no-such-tool is not in PATH, nor beside nvcc")
    assert gpu.run(gpu.Stage("x", ["no-such-test"], 1), 100.0)["state"] == "skipped"
    assert gpu.run(gpu.Stage("x", [sys.executable], 1), 0.0)["why"] == "the 25 minutes are over"


@pytest.mark.torch
@pytest.mark.parametrize("name", ["bandwidth", "step", "race"])
def test_scripts_work_on_the_cpu(module, monkeypatch, tmp_path, capsys, name):
    pytest.importorskip("torch")
    out = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", [f"gpu_{name}.py", "--device", "cpu", "--repeats", "1", "--out", str(out)])
    module(f"gpu_{name}").main()
    assert "only to prove that the script works" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["device"] == "cpu, for proof only" and content["rows"]


@pytest.mark.torch
def test_a_benchmark_needs_its_gpu(module, monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", ["gpu_step.py"])
    with pytest.raises(SystemExit, match="there is no GPU to measure"):
        module("gpu_step").main()
