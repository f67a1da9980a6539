"""Bad input of `diffcls.evaluate`: images, labels, ids and options."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluations import MODEL, K, classifier, data, results, stored

import diffcls
from diffcls import InputError, ShapeError, UnknownClassError

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


def test_ids_that_are_no_utf_8(tmp_path):
    x, _ = data(3)
    names = ["a", os.fsdecode(b"\xff.png"), "\N{SNOWMAN}"]
    images = list(zip(names, [x[0], np.zeros(7, np.float32), x[2]], [0, 1, 2], strict=True))
    report = diffcls.evaluate(classifier(), images, out=tmp_path)
    assert report.ids.to_pylist() == ["a", "\\udcff.png", "\N{SNOWMAN}"]
    assert diffcls.evaluate(classifier(), images, out=tmp_path).n_errors == 1


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
