"""`diffcls.evaluate`: the rows are the classifier's, whatever happened on the way."""

import fcntl
import json
import os
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluations import MODEL, K, classifier, data, journal, results, stored

import diffcls
from diffcls import FingerprintMismatchError, InputError, ShapeError, StoreError, UnknownClassError
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

    def made(weight):
        denoiser = diffcls.Denoiser(Net(weight), shape=(4,), schedule=MODEL.schedule, n_classes=K, name="net")
        return diffcls.Classifier(denoiser, policy=diffcls.Fixed(2))

    diffcls.evaluate(made(1.0), data(5), out=tmp_path)
    diffcls.evaluate(made(1.0), data(5), out=tmp_path)
    with pytest.raises(FingerprintMismatchError, match="model is 'net "):
        diffcls.evaluate(made(1.5), data(5), out=tmp_path)


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


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"results can not be written into .*file/out \(Not a directory\)"):
        diffcls.evaluate(classifier(), data(5), out=tmp_path / "file" / "out")


# ---- bad images ------------------------------------------------------------------------------------------------------


def with_bad(x, bad):
    return [np.zeros(7, np.float32) if i in bad else image for i, image in enumerate(x)]


def test_a_bad_image_is_a_row_with_an_error(tmp_path):
    x, labels = data(40)
    bad = {0, 7, 8, 39}
    report = diffcls.evaluate(
        classifier(), list(zip(with_bad(x, bad), labels, strict=True)), out=tmp_path, part_size=16
    )
    table = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert {row["position"] for row in table if row["error"]} == bad
    assert table[7]["error"] == "image 7 gives x_start of shape (7,), must have (4,)"
    assert table[7]["losses"] is None and table[7]["prediction"] is None and table[7]["n_evals"] == 0
    assert report.n_errors == 4 and report.n_judged == 36
    good = [i for i in range(40) if i not in bad]
    assert report.accuracy == np.mean(classifier()(x[good]).index == labels[good])
    assert [table[i]["prediction"] for i in good] == classifier()(x[good]).label


def test_all_bad(tmp_path):
    report = diffcls.evaluate(classifier(), with_bad(data(5)[0], range(5)), out=tmp_path)
    assert report.n_errors == 5 and np.isnan(report.accuracy)
    assert "predictions only" in report.to_markdown()


def test_strict_stops_and_goes_on(tmp_path):
    x, labels = data(100)
    with pytest.raises(ShapeError, match="image 90 gives x_start of shape"):
        diffcls.evaluate(classifier(), list(zip(with_bad(x, {90}), labels, strict=True)), out=tmp_path, strict=True)
    assert len(stored(tmp_path)) == 90
    assert diffcls.evaluate(classifier(), (x, labels), out=tmp_path, strict=True).n_errors == 0


def test_errors_are_kept_unless_they_are_to_be_tried_again(tmp_path):
    x, labels = data(40)
    diffcls.evaluate(
        classifier(), list(zip(with_bad(x, {3, 20}), labels, strict=True)), out=tmp_path / "a", part_size=8
    )
    assert diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "a").n_errors == 2
    assert diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "a", retry_errors=True).n_errors == 0
    diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "b", part_size=8)
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_nan_for_one_image_is_its_own_row(tmp_path):
    x, labels = data(40)
    x[11] = 1e30  # the closed form overflows float32 there

    def predict(x_t, t, cond):
        prediction = MODEL.predict(np.where(abs(x_t) > 1e20, 0, x_t), t, cond)
        prediction[(abs(x_t) > 1e20).any(axis=1)] = np.nan
        return prediction

    denoiser = diffcls.Denoiser(predict, shape=(4,), schedule=MODEL.schedule, n_classes=K, name="fragile")
    fragile = diffcls.Classifier(denoiser, policy=diffcls.Fixed(6), batch_size=16)
    report = diffcls.evaluate(fragile, (x, labels), out=tmp_path)
    assert [id for id, _ in report.errors] == ["11"]
    assert "fragile predicted NaN or infinity for class" in report.errors[0][1]
    good = np.arange(40) != 11
    assert np.array_equal(report.prediction[good], fragile(x[good]).index)


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_no_labels(tmp_path):
    x, _ = data(10)
    report = diffcls.evaluate(classifier(), x, out=tmp_path)
    assert report.n_judged == 0 and np.isnan(report.accuracy) and np.isnan(report.mean_per_class_accuracy)
    assert np.array_equal(report.prediction, classifier()(x).index)
    assert report.to_dict()["accuracy"] is None
    with pytest.raises(InputError, match="nothing to calibrate"):
        report.reliability()


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        ([0, 1, 2, 3], UnknownClassError, "image 3 of the data set: labels has 3, must be .* 0 to 2"),
        (["ant", "bee", "cow", "dog"], UnknownClassError, "image 3 of the data set: labels has 'dog'"),
        ({0: "ant", 1: "bee"}, UnknownClassError, "image . of the data set: labels, a mapping, has nothing for 2"),
        ([0, 1, 2], ShapeError, "labels has 3 entries, and the data set 4 images"),
        ("names", diffcls.DTypeError, "labels is 'names', must be None, False, 'index'"),
        ([0, 1.5, 2, 1], UnknownClassError, "image 1 of the data set"),
    ],
)
def test_impossible_labels(tmp_path, labels, error, said):
    x, _ = data(4)
    with pytest.raises(error, match=said):
        diffcls.evaluate(classifier(), (x, np.arange(4) % 3), out=tmp_path, labels=labels)


def test_labels_of_every_kind(tmp_path):
    x, labels = data(12)
    names = [("ant", "bee", "cow")[label] for label in labels]
    given = {
        "own": ((x, labels), None),
        "listed": (x, labels),
        "names": (x, names),
        "mapped": ((x, labels + 10), {10: "ant", 11: "bee", 12: 2}),
        "one by one": (list(zip(x, names, strict=True)), None),
    }
    for name, (images, told) in given.items():
        diffcls.evaluate(classifier(), images, out=tmp_path / name, labels=told)
    assert len({results(tmp_path / name) for name in given}) == 1


def test_too_many_labels_for_an_iterator(tmp_path):
    x, labels = data(5)
    with pytest.raises(InputError, match="labels has 4 entries, and the data set more images"):
        diffcls.evaluate(classifier(), iter(x), out=tmp_path / "a", labels=labels[:4])
    with pytest.raises(InputError, match="labels has 5 entries, and the data set 4 images"):
        diffcls.evaluate(classifier(), iter(x[:4]), out=tmp_path / "b", labels=labels)


def test_ids_that_stand_twice(tmp_path):
    x, _ = data(4)
    named = [("a", x[0], None), ("b", x[1], None), ("a", x[2], None)]
    with pytest.raises(InputError, match="id 'a' stands twice in the data set, at images 0 and 2"):
        diffcls.evaluate(classifier(), named, out=tmp_path)


@pytest.mark.parametrize("empty", [[], iter(()), np.zeros((0, 4), np.float32)])
def test_no_images(tmp_path, empty):
    with pytest.raises(InputError, match="the data set has no images"):
        diffcls.evaluate(classifier(), empty, out=tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"audit": 2.0}, InputError, "audit is 2.0, must be a number from 0 to 1"),
        ({"part_size": 0}, InputError, "part_size is 0, must be an integer of 1"),
        ({"columns": {"picture": "x"}}, InputError, "columns is .*, must be a mapping with any of"),
        ({"progress": 3}, diffcls.DTypeError, "progress is 3, must be"),
    ],
)
def test_impossible_options(tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        diffcls.evaluate(classifier(), data(3), out=tmp_path, **options)


def test_what_is_no_classifier_or_data_set(tmp_path):
    with pytest.raises(diffcls.DTypeError, match="classifier is 'model', must be a diffcls.Classifier"):
        diffcls.evaluate("model", data(3), out=tmp_path)
    with pytest.raises(diffcls.DTypeError, match="dataset is int, must be a folder"):
        diffcls.evaluate(classifier(), 5, out=tmp_path)
    with pytest.raises(InputError, match="there is no such file or folder"):
        diffcls.evaluate(classifier(), tmp_path / "none", out=tmp_path)


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
