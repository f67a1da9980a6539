"""`check_denoiser`: each fault planted in a perfect denoiser is named, and nothing is said of one without."""

import numpy as np
import pytest

import diffcls
from diffcls import Denoiser, Schedule
from diffcls.models import demo_pictures
from diffcls.testing import GaussianMixture, check_denoiser

K, SHAPE = 5, (1, 16, 16)
TYPES = ["epsilon", "v_prediction", "sample", "flow_prediction", "edm"]
BASE = Schedule.linear(1000)
SCHEDULE = Schedule(BASE.alpha, BASE.sigma, BASE.time, sigma_data=0.5)


@pytest.fixture(scope="module")
def mixture():
    """Like pictures: few directions have most of the variance, some have next to none."""
    rng = np.random.default_rng(5)
    variance = np.geomspace(1e-3, 1.0, 256)
    return GaussianMixture(0.6 * rng.standard_normal((K, *SHAPE)), np.repeat(variance[None], K, axis=0))


@pytest.fixture(scope="module")
def pictures(mixture):
    return mixture.sample(256, np.random.default_rng(6))[0]


def plug(predict, schedule=SCHEDULE, **options):
    return Denoiser(predict, **{"shape": SHAPE, "schedule": schedule, "n_classes": K, **options})


def names(report):
    return [finding.name for finding in report.findings]


def coefficient(values, t):
    return values[t].reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize(
    "schedule",
    [SCHEDULE, Schedule.scaled_linear(), Schedule.squaredcos_cap_v2(100), Schedule.flow(1000, 3.0), Schedule.edm(np.geomspace(0.002, 80, 200))],
    ids=["linear", "scaled", "cosine", "flow", "edm"],
)  # fmt: skip
def test_a_perfect_denoiser_passes(mixture, pictures, schedule, prediction_type):
    schedule = Schedule(schedule.alpha, schedule.sigma, schedule.time, discrete=schedule.is_discrete, sigma_data=0.5)
    report = check_denoiser(mixture.denoiser(schedule, prediction_type), pictures[:64])
    assert report.ok, str(report)
    assert "nothing wrong was found" in str(report)


def test_the_embedded_model_passes_with_real_pictures():
    model = diffcls.load(None)
    images, labels = demo_pictures.load()
    x_start = np.stack([model.encode(image)[0] for image in images[:24]])
    report = check_denoiser(model, x_start, labels=labels[:24])
    assert report.ok, str(report)
    assert "prediction type, scaling, time convention" in report.passed


@pytest.mark.parametrize(
    ("options", "spoil", "name"),
    [
        ({"prediction_type": "v_prediction"}, lambda x: x, "prediction_type"),
        ({"prediction_type": "sample"}, lambda x: 0.18215 * x, "scaling"),
        ({"prediction_type": "sample"}, lambda x: 127.5 * (x + 1), "scaling"),
    ],
)
def test_faults_around_a_trained_model_and_real_pictures(options, spoil, name):
    model = diffcls.load(None)
    images, labels = demo_pictures.load()
    x_start = spoil(np.stack([model.encode(image)[0] for image in images[:8]]))
    wrong = Denoiser(model.predict, shape=model.shape, schedule=model.schedule, n_classes=model.n_classes, **options)
    report = check_denoiser(wrong, x_start, labels=labels[:8])
    assert names(report) == [name], str(report)


def test_without_pictures_it_says_what_it_did_not_check(mixture):
    report = check_denoiser(mixture.denoiser(SCHEDULE))
    assert report.ok and "prediction_type, time and scaling" in report.skipped
    assert "not checked: prediction_type, time and scaling, give x_start" in str(report)


@pytest.mark.parametrize("declared", TYPES)
@pytest.mark.parametrize("true", TYPES)
def test_wrong_prediction_type(mixture, pictures, true, declared):
    if true == declared:
        return
    predict = mixture.denoiser(SCHEDULE, true).predict
    report = check_denoiser(plug(predict, prediction_type=declared), pictures)
    assert names(report) == ["prediction_type"], str(report)
    assert f"Set prediction_type={true!r}" in report.findings[0].advice


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_sign_turned_round(mixture, pictures, prediction_type):
    predict = mixture.denoiser(SCHEDULE, prediction_type).predict
    report = check_denoiser(plug(lambda *a: -predict(*a), prediction_type=prediction_type), pictures)
    assert names(report) == ["prediction_type"]
    assert f"minus {prediction_type!r}" in report.findings[0].seen


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_time_off_by_one(mixture, pictures, prediction_type, by):
    predict = mixture.denoiser(SCHEDULE, prediction_type).predict
    report = check_denoiser(
        plug(lambda x, t, c: predict(x, np.clip(t + by, 0, 999), c), prediction_type=prediction_type), pictures
    )
    assert names(report) == ["time_offset"], str(report)
    assert ("add 1" if by < 0 else "subtract 1") in report.findings[0].advice


@pytest.mark.parametrize("fault", ["reversed", "late"])
def test_time_convention(mixture, pictures, fault):
    predict = mixture.denoiser(SCHEDULE).predict
    change = {"reversed": lambda t: 999 - t, "late": lambda t: np.maximum(t - 400, 0)}[fault]
    report = check_denoiser(plug(lambda x, t, c: predict(x, change(t), c)), pictures)
    assert names(report) == ["time_convention"], str(report)
    assert ("runs the other way" in report.findings[0].advice) == (fault == "reversed")


def test_an_error_that_nothing_explains_is_told(mixture, pictures):
    """Time as a fraction, truncated to a whole number: no row of the schedule feeds the right one."""
    predict = mixture.denoiser(SCHEDULE).predict
    report = check_denoiser(plug(lambda x, t, c: predict(x, t // 999, c)), pictures)
    assert names(report) == ["large_error"], str(report)


@pytest.mark.parametrize("factor", [0.18215, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_scaled_output(mixture, pictures, factor, prediction_type):
    predict = mixture.denoiser(SCHEDULE, prediction_type).predict
    report = check_denoiser(plug(lambda *a: factor * predict(*a), prediction_type=prediction_type), pictures)
    assert names(report) == ["scaling"], str(report)


def test_scaled_input(mixture, pictures):
    """The model wants x_start + s eps, and is fed the variance-preserving form."""
    predict = mixture.denoiser(SCHEDULE).predict
    report = check_denoiser(plug(lambda x, t, c: predict(x * coefficient(SCHEDULE.alpha, t), t, c)), pictures)
    assert names(report) == ["scaling"], str(report)
    assert "x_start + (sigma / alpha) eps" in report.findings[0].seen


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: x / 0.18215, "multiplied by 0.1822"),
        (lambda x: 0.18215 * x, "multiplied by 5.49"),
        (lambda x: (x + 1) / 2, "turned from [0, 1] to [-1, 1]"),
        (lambda x: 127.5 * (x + 1), "turned from [0, 255] to [-1, 1]"),
    ],
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_pictures_in_another_unit(mixture, pictures, spoil, said, prediction_type):
    report = check_denoiser(mixture.denoiser(SCHEDULE, prediction_type), spoil(pictures))
    assert names(report) == ["scaling"], str(report)
    assert said in report.findings[0].seen


def counted(mixture, change):
    predict = mixture.denoiser(SCHEDULE).predict
    calls = iter(range(10**9))
    return plug(lambda x, t, c: change(predict, x, t, c, next(calls)))


FAULTS = {
    "condition_ignored": lambda f, x, t, c, i: f(x, t, np.zeros_like(c)),
    "same_condition": lambda f, x, t, c, i: f(x, t, np.where(c == 3, 1, c)),
    "time_ignored": lambda f, x, t, c, i: f(x, np.full_like(t, 500), c),
    "not_deterministic": lambda f, x, t, c, i: f(x, t, c) * (1 + 0.01 * i),
    "output_dtype": lambda f, x, t, c, i: f(x, t, c).astype(np.int32),
    "output_shape": lambda f, x, t, c, i: f(x, t, c)[:, 0],
    "non_finite": lambda f, x, t, c, i: np.where(t.reshape(-1, 1, 1, 1) == 999, np.nan, f(x, t, c)).astype(np.float32),
    "raises": lambda f, x, t, c, i: f(x, t, c, "too much"),
    "rows_influence": lambda f, x, t, c, i: f(x, np.full_like(t, t[0]), c),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("given", [True, False])
def test_faults_of_the_contract(mixture, pictures, name, given):
    report = check_denoiser(counted(mixture, FAULTS[name]), pictures if given else None)
    assert names(report) == [name], str(report)
    assert name in str(report) and report.n_evals > 0


@pytest.mark.parametrize("fault", ["batch mean", "first condition", "one row only"])
def test_other_ways_for_rows_to_influence_one_another(mixture, pictures, fault):
    def change(f, x, t, c, i):
        if fault == "batch mean":
            return (f(x, t, c) - x.mean(axis=0)).astype(np.float32)
        if fault == "first condition":
            return f(x, t, np.full_like(c, c[0]))
        if len(x) == 1:
            raise RuntimeError("squeezed away")
        return f(x, t, c)

    report = check_denoiser(counted(mixture, change), pictures)
    assert "rows_influence" in names(report), str(report)


def test_learned_variance_is_told_from_any_other_shape(mixture):
    report = check_denoiser(counted(mixture, lambda f, x, t, c, i: np.concatenate([f(x, t, c)] * 2, axis=1)))
    assert names(report) == ["output_shape"] and "learned variance" in report.findings[0].advice


def test_labels_save_the_search_for_the_class(mixture):
    x, labels = mixture.sample(16, np.random.default_rng(1))
    model = mixture.denoiser(SCHEDULE)
    with_labels, without = check_denoiser(model, x, labels=labels), check_denoiser(model, x)
    assert with_labels.ok and without.ok and with_labels.n_evals < without.n_evals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("not a denoiser",), TypeError, "denoiser is str, must be a diffcls.Denoiser"),
        ((None, np.zeros((2, 3))), ValueError, r"x_start has shape \(2, 3\), must be \(N, 1, 16, 16\)"),
        ((None, np.full((2, *SHAPE), np.nan)), ValueError, "x_start must be finite"),
        ((None, np.zeros((2, *SHAPE)), [0]), ValueError, "must be one class number a picture"),
        ((None, np.zeros((2, *SHAPE)), [0, K]), ValueError, "labels must be from 0 to 4"),
    ],
)
def test_bad_arguments(mixture, arguments, error, message):
    denoiser, x_start, labels = (*arguments, None, None)[:3]
    with pytest.raises(error, match=message):
        check_denoiser(denoiser or mixture.denoiser(), x_start, labels=labels)
