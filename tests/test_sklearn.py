"""The scikit-learn estimator: its own checks, linear discriminant analysis as the oracle, and its tools around it."""

import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")
from gaussian import GaussianClasses  # noqa: E402
from sklearn import clone  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.datasets import load_iris, make_blobs  # noqa: E402
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.metrics import log_loss  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import diffcls  # noqa: E402
from diffcls import Fixed, Race, fit_temperature  # noqa: E402
from diffcls.errors import DTypeError, InputError, ShapeError, UnknownClassError  # noqa: E402
from diffcls.models import demo_pictures  # noqa: E402
from diffcls.sklearn import DiffusionClassifier, gaussian_denoiser  # noqa: E402

EXACT = {"policy": Fixed(2000), "noise": "antithetic", "batch_size": 4096}
"""Every timestep with a noise and its negative: what is linear in the noise cancels."""


@pytest.fixture(scope="module")
def blobs():
    """150 rows of 3 overlapping classes, features of very different scales."""
    X, y = make_blobs(150, 4, centers=3, cluster_std=4.0, random_state=5)
    return X @ np.diag([1.0, 1e3, 1e-3, 1.0]) + [0, 1e4, 0, -3], np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def pictures():
    """(pictures, names of their classes) of the embedded model's world: digits only."""
    images, labels = demo_pictures.load()
    names = np.array(diffcls.load().class_names)
    return images[labels < 10], names[labels[labels < 10]]


# Nothing is expected to fail.  scikit-learn itself skips `check_array_api_input` without SCIPY_ARRAY_API=1 and
# `check_classifier_data_not_an_array` without pandas; both pass where they run.
@parametrize_with_checks(
    [DiffusionClassifier(), DiffusionClassifier(policy=Fixed(16), noise="antithetic", temperature=0.1)],
    expected_failed_checks=lambda estimator: {},
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# ---- the Gaussian model ----------------------------------------------------------------------------------------------


def test_gaussians_are_a_linear_discriminant_analysis(blobs):
    X, y = blobs
    theirs = LinearDiscriminantAnalysis("lsqr", priors=[1 / 3] * 3).fit(X, y).predict_proba(X)
    ours = DiffusionClassifier(**EXACT).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs, atol=1e-3)
    assert theirs.max(axis=1).min() < 0.6  # classes do overlap


def test_the_race_answers_as_linear_discriminant_analysis(blobs):
    X, y = blobs
    theirs = LinearDiscriminantAnalysis(priors=[1 / 3] * 3).fit(X, y)
    ours = DiffusionClassifier().fit(X, y)
    sure = theirs.predict_proba(X).max(axis=1) > 0.8
    assert sure.sum() > 75 and (ours.predict(X) == theirs.predict(X))[sure].mean() > 0.98
    assert (ours.classify(X).n_evals < 3 * 500).all()


def test_priors_are_those_of_linear_discriminant_analysis(blobs):
    X, y = blobs
    flat = LinearDiscriminantAnalysis("lsqr", priors=[1 / 3] * 3).fit(X, y).predict_proba(X)
    theirs = flat * [0.8, 0.15, 0.05]  # its own priors would weigh the covariances too
    theirs /= theirs.sum(axis=1, keepdims=True)
    for priors in ([16, 3, 1], {"c": 1, "b": 3, "a": 16}):
        ours = DiffusionClassifier(priors=priors, **EXACT).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), theirs, atol=1e-3)
        assert (ours.predict(X) == ours.classes_[theirs.argmax(axis=1)]).mean() > 0.99


def test_two_classes_have_one_decision(blobs):
    X, y = blobs[0][blobs[1] != "c"], blobs[1][blobs[1] != "c"]
    ours = DiffusionClassifier(**EXACT).fit(X, y)
    theirs = LinearDiscriminantAnalysis("lsqr", priors=[0.5, 0.5]).fit(X, y)
    assert ours.decision_function(X).shape == (100,)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(ours.predict(X), np.where(ours.decision_function(X) > 0, "b", "a"))


def test_constant_and_redundant_features_change_nothing(blobs):
    X, y = blobs
    padded = np.column_stack([X, np.full(150, 0.1), X[:, 0]])
    ours = DiffusionClassifier(**EXACT).fit(padded, y).predict_proba(padded)
    np.testing.assert_allclose(ours, DiffusionClassifier(**EXACT).fit(X, y).predict_proba(X), atol=2e-3)


# ---- scikit-learn's tools --------------------------------------------------------------------------------------------


def test_cross_validation_pipeline_and_search():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), DiffusionClassifier())
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.94
    search = GridSearchCV(
        DiffusionClassifier(noise="antithetic"),
        {"policy": [Fixed(20), Race(risk=0.1)], "temperature": [1e4, 0.05]},
        scoring="neg_log_loss",
        cv=3,
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_["temperature"] == 0.05
    assert search.cv_results_["params"][0]["policy"] == Fixed(20)
    flat = search.cv_results_["mean_test_score"][0]
    assert flat == pytest.approx(-np.log(3), abs=0.01)  # so hot that all classes are as likely


def test_calibrated_classifier_cv_mends_a_wrong_temperature(blobs):
    X, y = blobs
    cold = DiffusionClassifier(temperature=0.002, policy=Fixed(40), noise="antithetic")
    mended = CalibratedClassifierCV(cold, cv=3).fit(X[::2], y[::2])
    raw = log_loss(y[1::2], cold.fit(X[::2], y[::2]).predict_proba(X[1::2]))
    assert log_loss(y[1::2], mended.predict_proba(X[1::2])) < 0.7 * raw


def test_clones_and_pickles(blobs, pictures):
    gaussian = GaussianClasses(n_classes=3, dimension=4, seed=1)
    model = gaussian.denoiser()
    estimator = DiffusionClassifier(model, policy=Fixed(9))
    assert clone(estimator).model is model and clone(estimator).policy == Fixed(9)
    x = gaussian.sample([0, 1, 2], np.random.default_rng(0))
    for fitted, given in (
        (estimator.fit(x, [0, 1, 2]), x),
        (DiffusionClassifier(model="digits-and-clothes", policy=Fixed(3)).fit(*pictures), pictures[0][:2]),
    ):
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.decision_function(given), fitted.decision_function(given))


# ---- a model that is trained already ---------------------------------------------------------------------------------


def test_pictures_are_classified_as_by_the_function(pictures):
    images, names = pictures
    options = {"seed": 3, "policy": Fixed(8)}
    fitted = DiffusionClassifier(**options).fit(images, names)
    expected = diffcls.classify(images, sorted(set(names)), **options)
    np.testing.assert_array_equal(fitted.predict(images), expected.label)
    np.testing.assert_array_equal(fitted.predict_proba(images[:3]), expected.probabilities[:3])
    assert np.mean(np.array(expected.label) == names) >= 20 / 24
    assert not hasattr(fitted, "n_features_in_") and fitted.calibration_ is None


def test_flat_pixels_lists_and_files_are_the_same_pictures(pictures, tmp_path):
    from PIL import Image

    images, names = pictures
    options = {"policy": Fixed(4)}
    expected = DiffusionClassifier(**options).fit(images, names).predict_proba(images[:3])
    flat = DiffusionClassifier(image_shape=(28, 28), **options).fit(images.reshape(24, 784), names)
    assert flat.n_features_in_ == 784
    np.testing.assert_array_equal(flat.predict_proba(images[:3].reshape(3, 784)), expected)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image).save(path)
    listed = DiffusionClassifier(**options).fit(list(images), list(names))
    for given in (list(images[:3]), paths, np.array([str(path) for path in paths]), [Image.open(p) for p in paths]):
        np.testing.assert_array_equal(listed.predict_proba(given), expected)


def test_labels_are_explained_by_prompts(pictures):
    images, names = pictures
    odd = np.array(
        [int(name in ("digit one", "digit three", "digit five", "digit seven", "digit nine")) for name in names]
    )
    prompts = {1: ["1", "3", "5", "7", "9"], 0: [0, 2, "digit four", 6, 8]}
    fitted = DiffusionClassifier(prompts=prompts, policy=Fixed(8)).fit(images, odd)
    assert fitted.classes_.tolist() == [0, 1] and fitted.score(images, odd) > 0.9
    with pytest.raises(InputError, match="nothing for label 2"):
        DiffusionClassifier(prompts=prompts).fit(images, odd + 1)
    with pytest.raises(DTypeError, match="prompts is list"):
        DiffusionClassifier(prompts=["a"]).fit(images, odd)
    with pytest.raises(UnknownClassError, match="'cat'"):
        DiffusionClassifier().fit(images, ["cat"] * 24)


def test_integer_labels_are_class_ids_and_missing_ones_are_not_asked():
    gaussian = GaussianClasses(n_classes=5, dimension=4, seed=1)
    labels = np.array([4, 1, 4, 1, 1])
    x = gaussian.sample(labels, np.random.default_rng(0))
    fitted = DiffusionClassifier(gaussian.denoiser(), policy=Fixed(8)).fit(x, labels)
    expected = diffcls.classify(x, [1, 4], model=gaussian.denoiser(), policy=Fixed(8))
    assert fitted.classes_.tolist() == [1, 4]
    np.testing.assert_array_equal(fitted.predict_proba(x), expected.probabilities)


def test_cross_validation_of_pictures(pictures):
    images, names = pictures
    kinds = np.where(np.isin(names, ["digit zero", "digit one", "digit two", "digit three"]), "low", "high")
    prompts = {"low": [0, 1, 2, 3], "high": [4, 5, 6, 7, 8, 9]}
    estimator = DiffusionClassifier(prompts=prompts, policy=Fixed(2))
    answers = cross_val_predict(estimator, images, kinds, cv=2)
    np.testing.assert_array_equal(
        answers, estimator.fit(images, kinds).predict(images)
    )  # nothing is learned from a fold


# ---- factories and temperatures --------------------------------------------------------------------------------------


def test_a_factory_is_given_positions(blobs):
    X, y = blobs
    seen = []

    def factory(rows, position):
        seen.append((rows, position))
        return gaussian_denoiser(rows, position)

    fitted = DiffusionClassifier(factory, policy=Fixed(10)).fit(X, y)
    np.testing.assert_array_equal(np.array(["a", "b", "c"])[seen[0][1]], y)
    np.testing.assert_array_equal(seen[0][0], X)
    expected = DiffusionClassifier(policy=Fixed(10)).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    with pytest.raises(InputError, match="knows 3 classes, y has 2"):
        DiffusionClassifier(lambda *unused: gaussian_denoiser(*seen[0])).fit(X[y != "c"], y[y != "c"])
    with pytest.raises(DTypeError, match="returned NoneType"):
        DiffusionClassifier(lambda *unused: None).fit(X, y)
    again = DiffusionClassifier(partial(factory), policy=Fixed(10)).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    with pytest.raises(InputError, match="made from the labels"):
        DiffusionClassifier(prompts={"a": 0}).fit(X, y)


@pytest.mark.parametrize("bias", [False, True])
def test_temperature_is_fitted_on_what_fit_is_given(bias):
    gaussian = GaussianClasses(n_classes=4, dimension=6, seed=11)
    labels = np.random.default_rng(1).integers(0, 4, 200)
    x = gaussian.sample(labels, np.random.default_rng(2))
    fitted = DiffusionClassifier(gaussian.denoiser(), temperature="fit", bias=bias).fit(x, labels)
    results = diffcls.classify(x, model=gaussian.denoiser())
    expected = fit_temperature(results, labels, bias=bias)
    assert fitted.calibration_.to_dict() == expected.to_dict()
    assert fitted.classify(x[:2]).calibrated
    plain = DiffusionClassifier(gaussian.denoiser()).fit(x, labels)
    assert log_loss(labels, fitted.predict_proba(x)) < log_loss(labels, plain.predict_proba(x))
    p = fitted.predict_proba(x)
    np.testing.assert_array_equal(fitted.predict(x), fitted.classes_[p.argmax(axis=1)])
    handed = DiffusionClassifier(gaussian.denoiser(), temperature=fitted.calibration_).fit(x, labels)
    np.testing.assert_array_equal(handed.predict_proba(x), p)


def test_what_tells_no_temperature_is_said():
    X = np.array([[0.0], [0.1], [9.0], [9.1]])
    with pytest.warns(UserWarning, match="all 4 pictures are answered rightly.*; the probabilities stay as they are"):
        fitted = DiffusionClassifier(temperature="fit").fit(X, [0, 0, 1, 1])
    assert fitted.calibration_ is None and fitted.score(X, [0, 0, 1, 1]) == 1.0
    with pytest.raises(InputError, match="temperature is 'auto'"):
        DiffusionClassifier(temperature="auto").fit(X, [0, 0, 1, 1])
    with pytest.raises(InputError, match="bias is fitted with temperature='fit' only"):
        DiffusionClassifier(bias=True).fit(X, [0, 0, 1, 1])


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_pictures_of_the_wrong_kind_are_told_by_fit(pictures):
    images, names = pictures
    with pytest.raises(ShapeError, match=r"\(784,\)"):
        DiffusionClassifier("digits-and-clothes").fit(images.reshape(24, 784), names)
    with pytest.raises(ShapeError, match=r"X has 784 columns, pictures of shape \(20, 20\) have 400"):
        DiffusionClassifier(image_shape=(20, 20)).fit(images.reshape(24, 784), names)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DiffusionClassifier().fit(images, names[1:])
    with pytest.raises(InputError, match="y is None"):
        DiffusionClassifier().fit(images, None)
    with pytest.raises(InputError, match="X is empty"):
        DiffusionClassifier().fit(images, names).predict(images[:0])
    with pytest.raises(DTypeError, match="model is Mystery"):
        DiffusionClassifier(Mystery()).fit(images, names)
    with pytest.raises(NotFittedError):
        DiffusionClassifier().predict(images)
    gaussian = GaussianClasses(n_classes=3, dimension=4, seed=1)
    with pytest.raises(ShapeError, match="X has 5 columns"):
        DiffusionClassifier(gaussian.denoiser()).fit(np.zeros((2, 5)), [0, 1])


class Mystery:
    def __call__(self, prompt):
        """As a pipeline: callable, but no factory."""


def test_what_was_fitted_is_what_is_taken(pictures, blobs):
    fitted = DiffusionClassifier().fit(*blobs)
    with pytest.raises(ValueError, match="Found array with dim 3"):
        fitted.predict(pictures[0])
    assert not hasattr(fitted.fit(*pictures), "n_features_in_")


def test_scikit_learn_is_an_extra():
    code = """
import sys
sys.modules["sklearn"] = None
import diffcls
from diffcls import *
assert "sklearn" in dir(diffcls)
try:
    diffcls.sklearn
except diffcls.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'diffcls[sklearn]'" in done.stdout


def test_scipy_is_of_the_same_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(diffcls.MissingExtraError, match=r"diffcls\[sklearn\]"):
        fit_temperature([[0.0, 1.0], [0.0, 1.0]], [0, 1])
