"""Temperatures and biases: scikit-learn's fits, closed forms, the conditions of a maximum, and files."""

import json

import numpy as np
import pytest
from gaussian import GaussianClasses

import diffcls
from diffcls import Calibration, Fixed, Race, fit_temperature
from diffcls.errors import DTypeError, FingerprintMismatchError, InputError, ShapeError
from diffcls.models import demo_pictures
from diffcls.policies import quick
from diffcls.temperature import negative_log_likelihood

N = 400


def draw(rng, n=N, k=4, temperature=0.02, bias=None):
    """Losses, and labels drawn from softmax(bias - losses / temperature)."""
    losses = 1.0 + 0.05 * rng.random((n, k))
    logits = (0.0 if bias is None else np.asarray(bias)) - losses / temperature
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return losses, np.array([rng.choice(k, p=row) for row in p])


def probabilities(losses, calibration):
    logits = (0.0 if calibration.bias is None else calibration.bias) - losses / calibration.temperature
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def raced():
    """(classifier, results, labels) of overlapping Gaussian classes under the default race."""
    gaussian = GaussianClasses(n_classes=4, dimension=6, seed=11)
    rng = np.random.default_rng(12)
    labels = rng.integers(0, 4, N)
    classifier = diffcls.Classifier(gaussian.denoiser())
    return classifier, classifier(gaussian.sample(labels, rng)), labels


# ---- the fit ---------------------------------------------------------------------------------------------------------


def test_two_classes_are_a_logistic_regression(rng):
    from sklearn.linear_model import LogisticRegression

    losses, labels = draw(rng, k=2)
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    slope.fit((losses[:, :1] - losses[:, 1:]) * 100, labels)
    assert fit_temperature(losses, labels).temperature == pytest.approx(1 / (100 * slope.coef_[0, 0]), rel=1e-4)


def test_temperature_is_that_of_scikit_learn(rng):
    pytest.importorskip("sklearn", "1.8")
    from sklearn import calibration
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.frozen import FrozenEstimator

    class Scores(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, X):
            return -100.0 * X

        def predict(self, X):
            return X.argmin(axis=1)

    losses, labels = draw(rng)
    theirs = calibration.CalibratedClassifierCV(FrozenEstimator(Scores().fit(losses, labels)), method="temperature")
    beta = theirs.fit(losses, labels).calibrated_classifiers_[0].calibrators[0].beta_
    assert fit_temperature(losses, labels).temperature == pytest.approx(1 / (100 * float(beta)), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_moments_match_at_the_maximum(rng, scale):
    """The derivatives of the likelihood: mean loss as expected, each class as often as expected but for its prior."""
    losses, labels = draw(rng, bias=[1.0, 0.0, -1.0, 0.5])
    losses *= scale
    for bias in (False, True):
        fitted = fit_temperature(losses, labels, bias=bias)
        p = probabilities(losses, fitted)
        excess = losses - losses.min(axis=1, keepdims=True)
        assert (p * excess).sum(axis=1).mean() == pytest.approx(excess[np.arange(N), labels].mean(), rel=1e-5)
    frequency = np.bincount(labels, minlength=4) / N
    np.testing.assert_allclose(p.mean(axis=0) - frequency, -fitted.bias / N, atol=1e-6)
    assert abs(fitted.bias.sum()) < 1e-4


def test_truth_is_found(rng):
    truth = np.array([1.0, 0.0, -1.0, 0.0])
    losses, labels = draw(rng, n=20_000, bias=truth)
    fitted = fit_temperature(losses, labels, bias=True)
    assert fitted.temperature == pytest.approx(0.02, rel=0.06)
    np.testing.assert_allclose(fitted.bias - fitted.bias.mean(), truth, atol=0.1)


def test_only_differences_within_a_row_count_and_classes_without_a_trial_are_out(rng):
    losses, labels = draw(rng)
    expected = fit_temperature(losses, labels).temperature
    assert fit_temperature(losses + rng.random((N, 1)), labels).temperature == pytest.approx(expected, rel=1e-5)
    padded = np.column_stack([losses, np.full(N, np.nan)])
    assert fit_temperature(padded, labels).temperature == pytest.approx(expected, rel=1e-6)


def test_far_away_losses_do_not_disturb(rng):
    losses, labels = draw(rng)
    far = np.where((np.arange(4) == 3) & (labels[:, None] != 3), 1e9, losses)
    gone = np.where(far == 1e9, np.nan, losses)
    for bias in (False, True):
        expected = fit_temperature(gone, labels, bias=bias)
        assert fit_temperature(far, labels, bias=bias).temperature == pytest.approx(expected.temperature, rel=1e-5)


def test_a_class_that_never_occurs_gets_a_finite_bias(rng):
    losses, labels = draw(rng)
    fitted = fit_temperature(np.column_stack([losses, losses[:, 0]]), labels, bias=True)
    assert np.isfinite(fitted.bias).all() and fitted.bias[4] == fitted.bias.min()


def test_gaussian_classes_get_their_closed_form_temperature():
    """Excess is c (|x - m_k|^2 - |x - m_w|^2) / d, the posterior's log odds the same difference over -2 v: T = 2 v c / d."""
    gaussian = GaussianClasses(n_classes=4, dimension=6, seed=11)
    rng = np.random.default_rng(13)
    labels = rng.integers(0, 4, 800)
    a, s = gaussian.schedule.alpha, gaussian.schedule.sigma
    keep = (np.arange(1000) >= 200).astype(float)  # without the clean end, where 1 / s^2 makes the estimate noisy
    g = a * gaussian.v / (a * a * gaussian.v + s * s)
    c = np.average((a / s) ** 2 * (1 - g * a) ** 2, weights=keep)
    classifier = diffcls.Classifier(gaussian.denoiser(), weighting=keep, policy=Fixed(200), noise="antithetic")
    fitted = fit_temperature(classifier(gaussian.sample(labels, rng)), labels)
    assert fitted.temperature == pytest.approx(2 * gaussian.v * c / 6, rel=0.15)


@pytest.mark.parametrize("bias", [False, True])
def test_standard_error_is_the_bootstraps(rng, bias):
    losses, labels = draw(rng, bias=[0.7, 0.0, -0.7, 0.0])
    labels[:8] = (labels[:8] + 1) % 4  # a few that the model can not explain
    drawn = [rng.integers(N, size=N) for _ in range(300)]
    logs = [np.log(fit_temperature(losses[rows], labels[rows], bias=bias).temperature) for rows in drawn]
    assert fit_temperature(losses, labels, bias=bias).stderr == pytest.approx(np.std(logs), rel=0.2)


def test_likelihood_is_log_loss(rng):
    from sklearn.metrics import log_loss

    losses, labels = draw(rng)
    fitted = fit_temperature(losses, labels)
    expected = log_loss(labels, probabilities(losses, fitted))
    assert fitted.negative_log_likelihood == pytest.approx(expected, rel=1e-9)
    assert negative_log_likelihood(losses, labels, fitted.temperature) == pytest.approx(expected, rel=1e-9)
    worse = [negative_log_likelihood(losses, labels, fitted.temperature * factor) for factor in (0.95, 1.05)]
    assert min(worse) > expected


# ---- in use ----------------------------------------------------------------------------------------------------------


def test_a_calibration_is_used_and_said(raced, tmp_path):
    classifier, results, labels = raced
    assert not results.calibrated and "uncalibrated probability" in repr(results[0])
    fitted = fit_temperature(results, labels, bias=True)
    assert fitted.n_images == N and fitted.classes == ["0", "1", "2", "3"]
    fitted.save(tmp_path / "calibration.json")
    stored = Calibration.load(tmp_path / "calibration.json")
    assert stored.to_dict() == fitted.to_dict()
    gaussian = GaussianClasses(n_classes=4, dimension=6, seed=11)
    x = gaussian.sample([0, 1, 2, 3], np.random.default_rng(0))
    now = diffcls.classify(x, model=gaussian.denoiser(), temperature=stored)
    np.testing.assert_array_equal(now.losses, classifier(x).losses)
    np.testing.assert_allclose(now.probabilities, probabilities(now.excess, fitted), rtol=1e-12)
    assert now.calibrated and "uncalibrated" not in repr(now[0]) and "uncalibrated" not in now[0]._repr_html_()
    assert json.loads(json.dumps(now[0].to_dict()))["calibrated"] and not results[0].to_dict()["calibrated"]


def test_biases_follow_the_names(raced):
    classifier, results, labels = raced
    fitted = fit_temperature(results, labels, bias=True)
    swapped = diffcls.Classifier(classifier.denoiser, [2, 0], temperature=fitted)
    np.testing.assert_allclose(swapped.log_prior, np.log(0.5) + fitted.bias[[2, 0]] - np.log(0.5), rtol=1e-12)


def test_labels_may_be_names(raced):
    _, results, labels = raced
    by_name = fit_temperature(list(results), [str(label) for label in labels])
    assert by_name.to_dict() == fit_temperature(results, labels).to_dict()


def test_priors_of_the_run_are_kept_apart_from_the_bias(raced):
    """With priors the fitted probabilities match the moments too: the priors are in the likelihood."""
    classifier, results, labels = raced
    priors = [1, 2, 3, 4]
    x = GaussianClasses(n_classes=4, dimension=6, seed=11).sample(labels, np.random.default_rng(12))
    options = {"model": classifier.denoiser, "priors": priors}
    fitted = fit_temperature(diffcls.classify(x, **options), labels)
    again = diffcls.classify(x, **options, temperature=fitted)
    excess = again.excess
    expected = excess[np.arange(N), labels].mean()
    assert (again.probabilities * excess).sum(axis=1).mean() == pytest.approx(expected, rel=1e-5)
    assert fitted.temperature != pytest.approx(fit_temperature(results, labels).temperature, rel=1e-3)
    assert again.run["priors"] == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"policy": Race(risk=0.1)}, "policy"),
        ({"policy": Fixed(20)}, "policy"),
        ({"loss": "l1"}, "loss"),
        ({"weighting": np.linspace(0, 1, 1000)}, "weighting"),
        ({"pool": "mean"}, "pool"),
    ],
)
def test_another_run_is_refused(raced, options, name):
    classifier, results, labels = raced
    fitted = fit_temperature(results, labels)
    with pytest.raises(FingerprintMismatchError, match=f"with {name} "):
        diffcls.Classifier(classifier.denoiser, temperature=fitted, **options)
    assert not diffcls.Classifier(classifier.denoiser, temperature=fitted.temperature, **options).calibration


def handwritten(word):
    return word


def twice(word):
    return word


def test_functions_as_templates_are_known_in_every_process(raced):
    """By name, and those without one by what they make: never by an address."""
    denoiser, fixed = raced[0].denoiser, Fixed(20)

    def told(templates, prompts=("0", "1")):
        classifier = diffcls.Classifier(denoiser, list(prompts), templates=templates, policy=fixed)
        assert "0x" not in classifier.run["templates"]
        return classifier.run["templates"]

    def make():
        return lambda word: word

    assert told(handwritten) == f"{__name__}.handwritten" != told(twice)
    assert told("{}") == "'{}'" and told(["{}"]) == told(("{}",)) == "['{}']"
    assert told(make()) == told(make()) and "<lambda>" in told(make())
    assert told(lambda word: word) != told(lambda word: {"0": "1", "1": "0"}[word])
    assert told([handwritten, lambda word: {"0": "2", "1": "3"}[word]]).startswith(f"[{__name__}.handwritten, ")
    assert told(str.strip).startswith("str.strip making ")
    x, labels = (
        GaussianClasses(n_classes=4, dimension=6, seed=11).sample([0, 1] * 50, np.random.default_rng(1)),
        [0, 1] * 50,
    )
    options = {"prompts": ["0", "1"], "model": denoiser, "policy": Fixed(2)}
    fitted = fit_temperature(diffcls.classify(x, **options, templates=make()), labels)
    assert diffcls.classify(x[0], **options, templates=make(), temperature=fitted).calibrated
    with pytest.raises(FingerprintMismatchError, match="with templates "):
        diffcls.classify(x[0], **options, templates=handwritten, temperature=fitted)


def test_another_model_and_other_classes_are_refused(raced):
    classifier, results, labels = raced
    fitted = fit_temperature(results, labels)
    other = GaussianClasses(n_classes=5, dimension=6, seed=11).denoiser(name="other")
    with pytest.raises(FingerprintMismatchError, match="model 'gaussian', this run has 'other'"):
        diffcls.Classifier(other, [0, 1, 2, 3], temperature=fitted)
    five = GaussianClasses(n_classes=5, dimension=6, seed=11).denoiser()
    with pytest.raises(FingerprintMismatchError, match="class '4'"):
        diffcls.Classifier(five, temperature=fitted)


def test_an_array_has_no_fingerprint_but_a_number_of_biases(raced, rng):
    classifier = raced[0]
    fitted = fit_temperature(*draw(rng, k=3), bias=True)
    assert fitted.fingerprint is None and fitted.classes is None
    assert diffcls.Classifier(classifier.denoiser, [0, 1, 2], temperature=fitted).calibration is fitted
    with pytest.raises(FingerprintMismatchError, match="3 classes, 4"):
        diffcls.Classifier(classifier.denoiser, temperature=fitted)


def test_a_replay_under_another_policy_is_uncalibrated(raced):
    classifier, results, labels = raced
    fitted = fit_temperature(results, labels)
    x = GaussianClasses(n_classes=4, dimension=6, seed=11).sample(labels[:5], np.random.default_rng(0))
    table = diffcls.Classifier(classifier.denoiser, temperature=fitted).error_table(x, n_samples=500)
    assert diffcls.replay(table, Race()).calibrated
    assert not diffcls.replay(table, Race(risk=0.1)).calibrated


def test_replayed_results_can_be_fitted(raced):
    classifier, _, labels = raced
    x = GaussianClasses(n_classes=4, dimension=6, seed=11).sample(labels, np.random.default_rng(12))
    table = classifier.error_table(x, n_samples=100)
    fitted = fit_temperature(diffcls.replay(table, Fixed(100)), labels)
    assert diffcls.Classifier(classifier.denoiser, policy=Fixed(100), temperature=fitted).calibration is fitted


def test_pooled_losses_stay_those_that_were_fitted(raced):
    """pool="logmeanexp" pools at the temperature of the fit, not at the one that was found."""
    classifier, _, labels = raced
    gaussian = GaussianClasses(n_classes=4, dimension=6, seed=11)
    x = gaussian.sample(labels // 2 * 2, np.random.default_rng(5))
    options = {"prompts": {"a": [0, 1], "b": [2, 3]}, "pool": "logmeanexp", "policy": Fixed(20)}
    before = diffcls.Classifier(gaussian.denoiser(), temperature=0.3, **options)(x)
    fitted = fit_temperature(before, labels // 2)
    after = diffcls.Classifier(gaussian.denoiser(), temperature=fitted, **options)
    np.testing.assert_array_equal(after(x).losses, before.losses)
    assert after.temperature == fitted.temperature != 0.3


def test_the_embedded_model_says_when_its_temperature_holds():
    pictures, labels = demo_pictures.load()
    picture = pictures[labels == 0][0]
    assert diffcls.classify(picture, ["0", "boot"]).calibrated
    for policy in (Race(), quick(min_gap=10), Fixed(128), diffcls.Staged((64, 128), (2, 1))):
        assert not diffcls.classify(picture, ["0", "boot"], policy=policy).calibrated
    boots = {"0": ["0"], "footwear": ["boot", "sandal"]}
    for options in (
        {"loss": "l1"}, {"weighting": "uniform"}, {"temperature": 0.01}, {"prompts": boots}, {"prompts": boots, "pool": "mean"},
    ):  # fmt: skip
        assert not diffcls.Classifier(**options).calibration
    table = diffcls.Classifier(None, ["0", "boot"]).error_table([picture], n_samples=500)
    assert diffcls.replay(table, quick()).calibrated
    assert not diffcls.replay(table).calibrated and not diffcls.replay(table, Race()).calibrated
    assert not diffcls.replay(table, quick(), weighting=table.weighting**2).calibrated


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_can_not_be_fitted(rng):
    losses, labels = draw(rng)
    with pytest.raises(InputError, match="all 400 pictures are answered rightly"):
        fit_temperature(losses, losses.argmin(axis=1))
    with pytest.raises(InputError, match="say nothing about the labels"):
        fit_temperature(losses, losses.argmax(axis=1))
    with pytest.raises(InputError, match="same loss in every picture"):
        fit_temperature(np.ones((5, 3)), [0, 1, 2, 0, 1])
    with pytest.raises(InputError, match="has no trial"):
        fit_temperature(np.where(np.arange(4) == 1, np.nan, losses), np.ones(N, int))
    with pytest.raises(InputError, match="infinite"):
        fit_temperature(np.where(losses > 1.04, np.inf, losses), labels)


def test_labels_that_do_not_fit(rng, raced):
    losses, labels = draw(rng)
    with pytest.raises(ShapeError, match=r"labels has shape \(399,\), must be \(400,\)"):
        fit_temperature(losses, labels[1:])
    with pytest.raises(InputError, match="0 to 3"):
        fit_temperature(losses, labels + 1)
    with pytest.raises(InputError, match=r"labels has \d\.\d, must be 0 to 3"):
        fit_temperature(losses, labels / 2)
    with pytest.raises(InputError, match="labels has '0', must be 0 to 3"):
        fit_temperature(losses, ["0"] * N)
    with pytest.raises(InputError, match="labels has 'cat', which is none of the classes: 0, 1, 2, 3"):
        fit_temperature(raced[1], ["cat"] * N)
    with pytest.raises(ShapeError, match=r"\(400,\)"):
        fit_temperature(losses[:, 0], labels)


def test_results_of_another_kind(raced):
    classifier, results, _ = raced
    x = np.zeros((2, 6), np.float32)
    with pytest.raises(DTypeError, match="ErrorTable.* replayed first"):
        fit_temperature(classifier.error_table(x, n_samples=3), [0, 1])
    with pytest.raises(ShapeError, match=r"labels has shape \(0,\), must be \(1,\)"):
        fit_temperature(results[0], [])


def test_results_of_two_runs_are_not_mixed(raced):
    classifier, results, labels = raced
    x = GaussianClasses(n_classes=4, dimension=6, seed=11).sample(labels[:1], np.random.default_rng(12))
    other = diffcls.classify(x, model=classifier.denoiser, policy=Fixed(9))
    with pytest.raises(FingerprintMismatchError, match="different settings"):
        fit_temperature([*results[1:], *other], labels)
    with pytest.raises(InputError, match="empty"):
        fit_temperature(results[:0], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "calibration.json can not be read as json"),
        ("[]", "of format 'list', must be 'diffcls calibration 1'"),
        ('{"format": "diffcls calibration 2"}', "of format 'diffcls calibration 2', must be 'diffcls calibration 1'"),
        ('{"format": "diffcls calibration 1", "bias": null}', "without temperature, classes, n_images"),
    ],
)
def test_files_that_are_no_calibration(tmp_path, text, message):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Calibration.load(path)


@pytest.mark.parametrize(
    "change", [{"temperature": -1.0}, {"bias": [0.0]}, {"bias": [[0.0, 1.0]]}, {"temperature": "x"}]
)
def test_files_that_contradict_themselves(tmp_path, change, raced):
    path = tmp_path / "calibration.json"
    stored = fit_temperature(*raced[1:]).to_dict()
    path.write_text(json.dumps({**stored, **change}))
    with pytest.raises(InputError, match="damaged"):
        Calibration.load(path)
