"""`diffcls.evaluate`: the rows are the classifier's, whatever happened on the way."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluations import MODEL, K, classifier, data, journal, results, stored

import diffcls
from diffcls import FingerprintMismatchError, InputError, StoreError
from diffcls.evaluation import merge_shards
from diffcls.evaluation.store import shard_folder


class Stop(Exception):
    """Raised by a data set in the middle: the process ends there."""


def stopping(x, labels, after):
    for i in range(len(x)):
        if i == after:
            raise Stop
        yield x[i], labels[i]


def test_rows_are_the_classifiers_results(tmp_path):
    x, labels = data(40)
    report = diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "out", part_size=16)
    expected = classifier()(x)
    table = pq.read_table(tmp_path / "out" / "results.parquet")
    assert table.column("position").to_pylist() == list(range(40))
    assert table.column("id").to_pylist() == [str(i) for i in range(40)]
    assert table.column("prediction").to_pylist() == expected.label
    assert table.column("label").to_pylist() == [("ant", "bee", "cow")[label] for label in labels]
    for name in ("losses", "stderr", "excess", "probabilities", "n_trials", "alive", "n_evals", "p_disagree"):
        assert np.array_equal(np.array(table.column(name).to_pylist()), getattr(expected, name), equal_nan=True), name
    assert table.column("status").to_pylist() == expected.status
    assert report.accuracy == np.mean(expected.index == labels)


def test_parts_hold_what_they_are_named_for(tmp_path):
    diffcls.evaluate(classifier(), data(40), out=tmp_path, part_size=16)
    parts = sorted(shard_folder(tmp_path, 0, 1).glob("part-*"))
    assert [pq.read_table(path).num_rows for path in parts] == [16, 16, 8]
    assert pq.read_table(parts[1]).column("position").to_pylist() == list(range(16, 32))


@pytest.mark.parametrize("after", [0, 1, 15, 16, 17, 39])
def test_resumed_is_unbroken_to_the_byte(tmp_path, after):
    x, labels = data(40)
    diffcls.evaluate(classifier(), zip(x, labels, strict=True), out=tmp_path / "whole", part_size=16)
    with pytest.raises(Stop):
        diffcls.evaluate(classifier(), stopping(x, labels, after), out=tmp_path / "cut", part_size=16)
    assert not (tmp_path / "cut" / "results.parquet").exists()
    diffcls.evaluate(classifier(), zip(x, labels, strict=True), out=tmp_path / "cut", part_size=16)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    parts = [sorted(path.name for path in (tmp_path / out).glob("shard-*/part-*")) for out in ("cut", "whole")]
    assert parts[0] == parts[1]


def test_what_is_finished_is_not_asked_again(tmp_path):
    x, labels = data(60)
    asked = []

    def predict(x_t, t, cond):
        asked.append(len(t))
        return MODEL.predict(x_t, t, cond)

    denoiser = diffcls.Denoiser(predict, shape=(4,), schedule=MODEL.schedule, n_classes=K, name="counted")
    counted = diffcls.Classifier(denoiser, policy=diffcls.Fixed(2), batch_size=6)
    with pytest.raises(Stop):
        diffcls.evaluate(counted, stopping(x, labels, 50), out=tmp_path, part_size=8)
    kept = len(stored(tmp_path))
    del asked[:]
    report = diffcls.evaluate(counted, zip(x, labels, strict=True), out=tmp_path, part_size=8)
    assert sum(asked) == (60 - kept) * 2 * K
    assert report.n_images == 60


class Cut(BaseException):
    """As Ctrl-C: nothing is waited for."""


def test_an_image_that_takes_long_keeps_no_other_back(tmp_path):
    """It is of two classes that are one, to the end of a pool of 20,000; others are decided before, and stored."""
    x = np.full((110, 4), -6.0, np.float32)
    x[0] = 3.0

    def predict(x_t, t, cond):
        a, s = MODEL.schedule.alpha[t][:, None], MODEL.schedule.sigma[t][:, None]
        return ((x_t - a * np.array([3.0, 3.0, -6.0])[cond][:, None]) / s).astype(np.float32)

    def images():
        for i in range(110):
            if i == 100:
                raise Cut
            yield x[i]

    denoiser = diffcls.Denoiser(predict, shape=(4,), schedule=MODEL.schedule, n_classes=3, name="ties")
    slow = diffcls.Classifier(denoiser, policy=diffcls.Race(pool=20_000, caps=None), batch_size=64)
    with pytest.raises(Cut):
        diffcls.evaluate(slow, images(), out=tmp_path / "cut", part_size=32)
    kept = {row.position for row in stored(tmp_path / "cut")}
    assert 0 not in kept and len(kept) >= 100 - 64
    diffcls.evaluate(slow, iter(x), out=tmp_path / "cut", part_size=32)
    diffcls.evaluate(slow, iter(x), out=tmp_path / "whole", part_size=32)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_a_journal_that_was_cut_is_read_up_to_there(tmp_path):
    x, labels = data(200)
    with pytest.raises(Stop):
        diffcls.evaluate(classifier(), stopping(x, labels, 150), out=tmp_path / "cut", part_size=1000)
    lines = journal(tmp_path / "cut")
    assert len(lines) > 10
    (path,) = shard_folder(tmp_path / "cut", 0, 1).glob("*.journal")
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:-40], whole[:200] + b"\0" * 300 + whole[500:], whole[:300]):
        path.write_bytes(damage)
        assert journal(tmp_path / "cut") == lines[: len(journal(tmp_path / "cut"))]
    diffcls.evaluate(classifier(), zip(x, labels, strict=True), out=tmp_path / "cut", part_size=1000)
    diffcls.evaluate(classifier(), zip(x, labels, strict=True), out=tmp_path / "whole", part_size=1000)
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"", lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:]])
def test_a_damaged_part_is_found_and_made_anew(tmp_path, damage):
    images = data(40)
    diffcls.evaluate(classifier(), images, out=tmp_path, part_size=16)
    before = results(tmp_path)
    path = sorted(shard_folder(tmp_path, 0, 1).glob("part-*"))[1]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="is damaged; evaluate shard 0 again"):
        merge_shards(tmp_path)
    diffcls.evaluate(classifier(), images, out=tmp_path, part_size=16)
    assert results(tmp_path) == before
    events = [json.loads(line) for line in (shard_folder(tmp_path, 0, 1) / "log.jsonl").read_text().splitlines()]
    assert [event["file"] for event in events if event["event"] == "damaged"] == [path.name]
    assert [event["part"] for event in events if event["event"] == "part"] == [0, 1, 2, 1]


def test_a_damaged_table_is_told(tmp_path):
    diffcls.evaluate(classifier(), data(5), out=tmp_path)
    (tmp_path / "results.parquet").write_bytes(results(tmp_path)[:-9])
    with pytest.raises(InputError, match="results.parquet is damaged .* merge_shards makes it anew"):
        diffcls.Report.load(tmp_path)
    assert merge_shards(tmp_path)
    assert diffcls.Report.load(tmp_path).n_images == 5


# ---- shards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "shards"), [(40, 3), (41, 2), (16, 4), (3, 5)])
def test_merged_shards_are_the_single_run(tmp_path, n, shards):
    images = data(n)
    diffcls.evaluate(classifier(), images, out=tmp_path / "one", part_size=8, audit=0.3)
    order = list(range(shards))[::-1]
    for index in order:
        report = diffcls.evaluate(
            classifier(), images, out=tmp_path / "many", part_size=8, audit=0.3, shard=(index, shards)
        )
        if index != order[-1]:
            assert not (tmp_path / "many" / "results.parquet").exists()
            assert report.n_images == len(range(index, n, shards))
    assert report.n_images == n
    assert results(tmp_path / "many") == results(tmp_path / "one")


def test_the_table_does_not_depend_on_the_size_of_parts(tmp_path):
    for size in (None, 3, 64):
        diffcls.evaluate(classifier(), data(50), out=tmp_path / str(size), part_size=size)
    assert results(tmp_path / "3") == results(tmp_path / "64") == results(tmp_path / "None")


def test_a_shard_of_another_run_is_not_merged(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        for i in range(2):
            diffcls.evaluate(classifier(seed=seed), data(20), out=tmp_path / name, shard=(i, 2), part_size=4)
    strange = tmp_path / "a" / "shard-0001-of-0002"
    shutil.rmtree(strange)
    shutil.copytree(tmp_path / "b" / strange.name, strange)
    said = r"part-00000000-.* is of another run than this folder: seed is '1', not '0'"
    with pytest.raises(FingerprintMismatchError, match=said):
        diffcls.merge_shards(tmp_path / "a")
    with pytest.raises(FingerprintMismatchError, match=said):
        diffcls.evaluate(classifier(), data(20), out=tmp_path / "a", shard=(1, 2))


def test_shards_of_other_sizes_and_counts_are_refused(tmp_path):
    images = data(20)
    diffcls.evaluate(classifier(), images, out=tmp_path, shard=(0, 2))
    with pytest.raises(InputError, match="is cut into 2 shards, and shard says 3"):
        diffcls.evaluate(classifier(), images, out=tmp_path, shard=(0, 3))
    with pytest.raises(InputError, match="of 2 shards in .*, 1 not done"):
        merge_shards(tmp_path)
    with pytest.raises(FingerprintMismatchError, match=r"data sets with \[20, 24\] images"):
        diffcls.evaluate(classifier(), data(24), out=tmp_path, shard=(1, 2))


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), 3, (0, 1, 2), ("0", 2), (True, 2)])
def test_impossible_shards(tmp_path, shard):
    with pytest.raises(InputError, match="shard is .*, must be"):
        diffcls.evaluate(classifier(), data(3), out=tmp_path, shard=shard)


# ---- whose folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed is '1', not '0'"),
        ({"policy": diffcls.Fixed(3)}, "policy is .*Fixed"),
        ({"loss": "l1"}, "loss is 'l1', not 'l2'"),
        ({"weighting": "min_snr"}, "weighting is"),
        ({"priors": [0.5, 0.25, 0.25]}, "priors is"),
        ({"temperature": 2.0}, "temperature is '2.0', not '1.0'"),
        ({"noise": "antithetic"}, "noise is 'antithetic', not 'counter'"),
        ({"prompts": ["ant", "bee"]}, "classes is"),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(tmp_path, changed, named):
    diffcls.evaluate(classifier(), data(5), out=tmp_path, labels=False)
    before = results(tmp_path)
    with pytest.raises(FingerprintMismatchError, match=named):
        diffcls.evaluate(classifier(**changed), data(5), out=tmp_path, labels=False)
    assert results(tmp_path) == before


def test_the_batch_size_is_no_other_run(tmp_path):
    images = data(20)
    diffcls.evaluate(classifier(), images, out=tmp_path / "a")
    diffcls.evaluate(classifier(batch_size=7), images, out=tmp_path / "b")
    assert results(tmp_path / "a") == results(tmp_path / "b")
    diffcls.evaluate(classifier(batch_size=9), images, out=tmp_path / "b")


def test_torch_weights_are_in_the_fingerprint(tmp_path):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((1,), weight))

        def forward(self, x_t, t, cond):
            return x_t * self.weight + cond[:, None]

    given = [lambda net: net, lambda net: net.forward, lambda net: lambda x_t, t, cond: net(x_t, t, cond)]
    for i, predict in enumerate([*given, lambda net: partial(Net.forward, net)]):
        refuses_other_weights(lambda weight: predict(Net(weight)), tmp_path / str(i), "torch")  # noqa: B023


def refuses_other_weights(predict, out, framework):
    def made(weight):
        denoiser = diffcls.Denoiser(
            predict(weight), shape=(4,), schedule=MODEL.schedule, n_classes=K, name="net", framework=framework
        )
        return diffcls.Classifier(denoiser, policy=diffcls.Fixed(2))

    diffcls.evaluate(made(1.0), data(5), out=out)
    diffcls.evaluate(made(1.0), data(5), out=out)
    with pytest.raises(FingerprintMismatchError, match="model is 'net .*, not 'net "):
        diffcls.evaluate(made(1.5), data(5), out=out)


def test_arrays_that_a_function_holds_are_in_the_fingerprint(tmp_path):
    class Model:
        def __init__(self, weight):
            self.layers = [{"w": np.full(4, weight, np.float32)}]

        def predict(self, x_t, t, cond):
            return x_t * self.layers[0]["w"]

    def closure(weight):
        scale = np.float32([weight])

        def helper(x_t):
            return x_t * scale

        return lambda x_t, t, cond: helper(x_t)

    refuses_other_weights(closure, tmp_path / "closure", "numpy")
    refuses_other_weights(lambda weight: Model(weight).predict, tmp_path / "method", "numpy")

    def in_module(weight):
        names = {"scale": np.float32([weight])}
        exec("def predict(x_t, t, cond): return x_t * scale", names)
        return names["predict"]

    refuses_other_weights(in_module, tmp_path / "module", "numpy")


def test_another_data_set_is_refused(tmp_path):
    x, labels = data(20)
    named = [(f"n{i}", image, label) for i, (image, label) in enumerate(zip(x, labels, strict=True))]
    diffcls.evaluate(classifier(), named, out=tmp_path, part_size=8)
    swapped = [named[1], named[0], *named[2:]]
    with pytest.raises(FingerprintMismatchError, match="of image 0, its id is 'n1', not 'n0'"):
        diffcls.evaluate(classifier(), swapped, out=tmp_path)
    with pytest.raises(FingerprintMismatchError, match="of image 17, its label is"):
        diffcls.evaluate(classifier(), [*named[:17], ("n17", x[17], (labels[17] + 1) % K), *named[18:]], out=tmp_path)
    for fewer in (5, 8, 19):
        with pytest.raises(FingerprintMismatchError, match=f"rows beyond the {fewer} of this data set"):
            diffcls.evaluate(classifier(), named[:fewer], out=tmp_path)


def test_a_data_set_that_grew_goes_on(tmp_path):
    x, labels = data(30)
    diffcls.evaluate(classifier(), (x[:20], labels[:20]), out=tmp_path / "grown", part_size=8)
    assert diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "grown", part_size=8).n_images == 30
    diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "whole", part_size=8)
    assert results(tmp_path / "grown") == results(tmp_path / "whole")


def test_no_resume_wants_an_empty_folder(tmp_path):
    diffcls.evaluate(classifier(), data(5), out=tmp_path / "out", resume=False)
    with pytest.raises(InputError, match="holds results of this run already"):
        diffcls.evaluate(classifier(), data(5), out=tmp_path / "out", resume=False)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds thesis.tex and no results"):
        diffcls.evaluate(classifier(), data(5), out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "thesis.tex"]
    with pytest.raises(InputError, match="holds no results: it has no run.json"):
        diffcls.Report.load(tmp_path)


def test_a_second_process_is_refused(tmp_path):
    images = data(5)
    diffcls.evaluate(classifier(), images, out=tmp_path)
    with open(shard_folder(tmp_path, 0, 1) / "lock", "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=f"process {os.getpid()} is writing into .*shard="):
            diffcls.evaluate(classifier(), images, out=tmp_path)
    diffcls.evaluate(classifier(), images, out=tmp_path)


CHILD = """
import sys
sys.path[:0] = {path!r}
from evaluations import classifier, data
import diffcls
diffcls.evaluate(classifier(), data(300), out={out!r}, part_size=16, shard=({index}, {n}))
"""


def start(out, index, n, **environment):
    here = Path(__file__).parent
    code = CHILD.format(path=[str(here)], out=str(out), index=index, n=n)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ, **environment})


def test_the_table_does_not_depend_on_what_the_processor_can_do(tmp_path):
    """Shards of machines that differ: NumPy's loops for AVX-512 and AVX2, and our own."""
    less = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3", "DIFFCLS_SIMD": "scalar"}
    for name, environment in (("here", {}), ("there", less)):
        process = start(tmp_path / name, 0, 1, **environment)
        assert process.wait() == 0, process.stderr.read().decode()
    assert results(tmp_path / "here") == results(tmp_path / "there")


def test_processes_that_start_at_once(tmp_path):
    """Shards of one folder share the work; of two for the same shard one is refused, or finds it done."""
    diffcls.evaluate(classifier(), data(300), out=tmp_path / "whole", part_size=16)
    processes = [start(tmp_path / "out", index, 3) for index in (0, 1, 2, 1, 0)]
    ends = [(process.communicate()[1].decode(), process.returncode) for process in processes]
    assert all(code == 0 or "is writing into" in said for said, code in ends), ends
    for index in range(3):
        assert any(code == 0 for (_, code), of in zip(ends, (0, 1, 2, 1, 0), strict=True) if of == index)
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("*.journal")) and not list((tmp_path / "out").rglob("*.tmp"))


def test_a_denoiser_that_breaks_loses_what_is_in_flight(tmp_path):
    images, calls = data(60), []

    def predict(x_t, t, cond):
        calls.append(len(t))
        if len(calls) == 40:
            raise RuntimeError("out of memory")
        return MODEL.predict(x_t, t, cond)

    def made():
        denoiser = diffcls.Denoiser(predict, shape=(4,), schedule=MODEL.schedule, n_classes=K, name="breaks")
        return diffcls.Classifier(denoiser, policy=diffcls.Fixed(8), batch_size=24)

    with pytest.raises(RuntimeError, match="out of memory"):
        diffcls.evaluate(made(), images, out=tmp_path / "out", part_size=16)
    assert len(stored(tmp_path / "out")) > 0
    diffcls.evaluate(made(), images, out=tmp_path / "out", part_size=16)
    diffcls.evaluate(made(), images, out=tmp_path / "whole", part_size=16)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"results can not be written into .*file/out \(Not a directory\)"):
        diffcls.evaluate(classifier(), data(5), out=tmp_path / "file" / "out")


# ---- audit, progress, log --------------------------------------------------------------------------------------------


def test_audit_asks_the_full_pool(tmp_path):
    x, labels = data(60)
    hasty = {"policy": diffcls.Staged((1, 24), (1, 1))}
    report = diffcls.evaluate(classifier(**hasty), (x, labels), out=tmp_path / "all", audit=1.0)
    full, fast = classifier(policy=diffcls.Fixed(24))(x), classifier(**hasty)(x)
    differ = np.flatnonzero(full.index != fast.index)
    assert 0 < len(differ) < 60
    assert report.audit.disagreeing == differ.tolist()
    assert report.audit.n_evals_full == full.n_evals.sum() and report.audit.n_evals == fast.n_evals.sum()
    some = diffcls.evaluate(classifier(**hasty), (x, labels), out=tmp_path / "some", audit=0.4)
    assert 10 < some.audit.n_images < 40
    assert set(some.audit.disagreeing) == set(differ.tolist()) & set(some.audit.indices)
    assert diffcls.evaluate(classifier(**hasty), (x, labels), out=tmp_path / "none").audit is None


def test_progress_counts_images_and_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr("diffcls.evaluation.progress.SHOW_SECONDS", 0.0)
    monkeypatch.setattr("diffcls.evaluation.progress.LOG_SECONDS", 0.0)
    images, moments = data(40), []
    report = diffcls.evaluate(classifier(), images, out=tmp_path, progress=moments.append)
    assert [moment.images for moment in moments] == sorted(moment.images for moment in moments)
    assert moments[-1].images == moments[-1].n_images == 40 and moments[-1].eta == 0.0
    assert moments[-1].evals == report.n_evals.sum()
    middle = [moment for moment in moments if 0 < moment.images < 40]
    for moment in middle:
        assert moment.eta == pytest.approx((40 - moment.images) * moment.seconds / moment.images)
    events = [json.loads(line) for line in (shard_folder(tmp_path, 0, 1) / "log.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "start" and events[0]["n_images"] == 40
    assert events[-1]["event"] == "done" and events[-1]["images"] == 40
    assert {"images", "n_images", "evals", "eta"} <= set(next(e for e in events if e["event"] == "progress"))


def test_the_clock_may_go_back(tmp_path, monkeypatch):
    """Wall time stands in the log alone."""
    images = data(20)
    diffcls.evaluate(classifier(), images, out=tmp_path / "a", part_size=8)

    class Backwards:
        now = 1e9

        @classmethod
        def stamp(cls, zone):
            cls.now -= 3600
            from datetime import datetime as real

            return real.fromtimestamp(cls.now, zone)

    class Datetime:
        now = staticmethod(Backwards.stamp)

    monkeypatch.setattr("diffcls.evaluation.progress.datetime", Datetime)
    monkeypatch.setattr("time.time", lambda: Backwards.now)
    moments = []
    diffcls.evaluate(classifier(), images, out=tmp_path / "b", part_size=8, progress=moments.append)
    diffcls.evaluate(classifier(), images, out=tmp_path / "b", part_size=8)
    assert moments[-1].seconds >= 0
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_pictures_that_are_unlike_the_training_pictures_say_so(tmp_path):
    """The row keeps the judgement and the sentence of the result."""
    from diffcls.models.demo_pictures import load

    pictures, truth = load()[:2]
    few = list(pictures[:2]) + [np.random.default_rng(0).random((28, 28))]
    embedded = diffcls.Classifier(policy=diffcls.Race(pool=64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)
        diffcls.evaluate(embedded, few, out=tmp_path, labels=[*truth[:2], truth[0]])
        expected = embedded(few)
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["unlike_training"] for row in rows] == expected.unlike_training
    assert [row["warnings"] for row in rows] == expected.warnings
    assert rows[2]["unlike_training"]
