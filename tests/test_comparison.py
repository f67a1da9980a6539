"""The paper's comparison: the same pictures for all systems, cells that survive a kill, figures that others confirm."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import diffcls

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benchmarks").exists():
    pytest.skip("the tests are not in a whole checkout", allow_module_level=True)
sys.path.insert(0, str(ROOT / "benchmarks"))
for needed in ("torch", "transformers", "diffusers", "sklearn", "skimage", "pyarrow", "safetensors"):
    pytest.importorskip(needed)

import paper_table  # noqa: E402
from comparison import cells, settings, tasks  # noqa: E402
from comparison.systems import RACE, STAGES, Plan  # noqa: E402
from comparison.table import markdown  # noqa: E402
from scipy import stats  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::UserWarning")]
SMALL = settings.SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run of the small setting, from nothing: (folder, record)."""
    out = tmp_path_factory.mktemp("table")
    plan = Plan(SMALL, out)
    store = cells.Cells(out, paper_table.fingerprint(SMALL))
    paper_table.answer(plan, store)
    found = paper_table.made(plan, store)
    paper_table.publish(found, out, out)
    return out, found


# ---- the run ---------------------------------------------------------------------------------------------------------


def test_every_system_answers_the_same_pictures(run):
    out, found = run
    known = {task["task"]: task["digest"] for task in found["tasks"]}
    stored = [json.loads(path.read_text()) for path in out.glob("cells/*/*/cell.json")]
    assert len(stored) == len(found["answers"]) > 50
    assert all(cell["digest"] == known[cell["task"]] for cell in stored)
    assert {cell["system"] for cell in stored if cell["task"] == "mnist"} >= {RACE, STAGES, "ResNet", "ViT"}


def test_networks_see_what_the_diffusion_model_sees():
    for task in tasks.clean(SMALL):
        classifier = diffcls.Classifier("digits-and-clothes", list(tasks.own_ten(task.group)))
        seen = np.stack([classifier.encode(image).x_start for image in task.images])
        np.testing.assert_array_equal(tasks.prepared(task.images), seen)


def test_no_test_picture_is_trained_on():
    known = {image.tobytes() for image in tasks.training(SMALL).images}
    for task in tasks.clean(SMALL):
        assert not known & {image.tobytes() for image in task.images}


def test_intervals_are_scipys(run):
    for row in run[1]["answers"]:
        oracle = stats.binomtest(row["right"], row["n"]).proportion_ci(method="wilson")
        assert row["accuracy"] == row["right"] / row["n"]
        np.testing.assert_allclose([row["low"], row["high"]], [oracle.low, oracle.high], atol=1e-12)


def test_evaluations_are_those_that_the_policies_say(run):
    found = {(row["system"], row["task"]): row for row in run[1]["answers"]}
    for group in ("mnist", "fashion-mnist"):
        assert found[STAGES, group]["evals_mean"] == found[STAGES, group]["evals_p95"] == 10 * 25 + 5 * 225
        assert found["diffusion classifier, all of 2", group]["evals_mean"] == 20
    assert "evals_mean" not in found["ResNet", "mnist"]


def test_the_table_is_its_records(run):
    out, found = run
    text = (out / "paper_table.md").read_text()
    assert text == markdown(json.loads((out / "paper_table.json").read_text())) == markdown(found)
    for row in found["answers"]:
        assert row["system"] in text
    assert f"{100 * found['answers'][0]['accuracy']:.1f} ({100 * found['answers'][0]['low']:.1f} to" in text


def test_the_committed_table_is_its_record():
    results = ROOT / "benchmarks" / "results"
    found = json.loads((results / "paper_table.json").read_text())
    assert (results / "paper_table.md").read_text() == markdown(found)
    assert found["setting"] == json.loads(json.dumps(settings.SETTINGS[found["setting"]["name"]].to_dict()))
    weights = {row["parameters"] for row in found["answers"] if row["system"] == RACE}
    assert len(weights) == 2 and None not in weights


def test_pictures_are_written(run):
    from PIL import Image

    for name in ("evaluations", "shift", "sizes"):
        assert "<svg" in (run[0] / f"paper-table-{name}.svg").read_text()
    assert Image.open(run[0] / "samples-digits-and-clothes.png").size == (2 * (16 * 28 + 14), 2 * 280)
    assert Image.open(run[0] / "samples-shapes.png").size == (2 * 8 * 32, 2 * 6 * 32)


def test_a_killed_run_ends_on_the_same_bytes(run, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, ROOT / "benchmarks" / "paper_table.py", "--setting", "small", "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(Path(diffcls.__file__).parents[1]), "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(done := list(out.glob("cells/*/*/cell.json"))) < 8:
            assert child.poll() is None, "ended by itself"
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    times = {path: path.stat().st_mtime_ns for path in done}
    assert not (out / "paper_table.json").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert {path: path.stat().st_mtime_ns for path in times} == times, "finished cells were made again"
    for name in ("paper_table.json", "paper_table.md", "paper-table-shift.svg", "samples-shapes.png"):
        assert (out / name).read_bytes() == (run[0] / name).read_bytes()


def test_a_run_that_is_done_makes_nothing_again(run, monkeypatch):
    store = cells.Cells(run[0], paper_table.fingerprint(SMALL))
    plan = Plan(SMALL, run[0])
    monkeypatch.setattr(cells.Cells, "make", lambda *_: pytest.fail("a cell was made again"))
    paper_table.answer(plan, store)
    assert paper_table.made(plan, store) == run[1]


def test_another_runs_folder_is_refused(run):
    other = replace(SMALL, seed=1, steps=7)
    with pytest.raises(diffcls.FingerprintMismatchError, match="seed is '1', not '0', steps is '7', not '6'"):
        cells.Cells(run[0], paper_table.fingerprint(other))


def test_other_pictures_are_refused(run):
    store = cells.Cells(run[0], paper_table.fingerprint(SMALL))
    task = tasks.clean(SMALL)[0]
    other = replace(task, images=[image[::-1] for image in task.images])
    assert store.done(RACE, task)
    with pytest.raises(diffcls.FingerprintMismatchError, match="other pictures"):
        store.done(RACE, other)


def test_a_second_process_is_refused(run):
    store = cells.Cells(run[0], paper_table.fingerprint(SMALL))
    with store.locked(), pytest.raises(diffcls.StoreError, match="another process"):  # noqa: SIM117
        with store.locked():
            pass
