"""Error maps: their mean is the error table's difference, and each element is what the method's formula says."""

import numpy as np
import pytest

import diffcls
from diffcls.error_maps import smooth
from diffcls.errors import InputError, NonFiniteError, ShapeError
from diffcls.models import demo_pictures
from diffcls.testing import GaussianMixture

SHAPE = (2, 5, 7)


@pytest.fixture
def mixture():
    means = np.random.default_rng(4).normal(size=(4, *SHAPE))
    return GaussianMixture(means, 0.5)


def losses(classifier, image, n_samples):
    return diffcls.replay(classifier.error_table(image, n_samples=n_samples)).losses[0]


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
@pytest.mark.parametrize("noise", [None, "antithetic", "given"])
def test_mean_is_the_difference_of_the_losses(mixture, loss, noise, rng):
    if noise == "given":
        noise = rng.normal(size=(30, *SHAPE)).astype(np.float32)
    for prediction_type in ("epsilon", "v_prediction", "sample"):
        denoiser = mixture.denoiser(prediction_type=prediction_type)
        classifier = diffcls.Classifier(denoiser, loss=loss, noise=noise, weighting=np.linspace(0, 2, 1000), seed=5)
        x = mixture.sample(1, rng)[0][0]
        of = losses(classifier, x, 30)
        found = diffcls.error_map(classifier, x, "3", 1, n_samples=30)
        assert (found.a, found.b, found.n_trials, found.n_evals) == ("3", "1", 30, 60)
        assert found.difference.shape == SHAPE
        assert found.mean == pytest.approx(of[1] - of[3], rel=1e-5, abs=1e-7)


def test_the_embedded_model():
    picture = demo_pictures.load()[0][3]
    classifier = diffcls.Classifier()
    of = losses(classifier, picture, 12)
    found = diffcls.error_map(classifier, picture, "digit seven", "digit one", n_samples=12)
    a, b = classifier.classes.index("digit seven"), classifier.classes.index("digit one")
    assert found.mean == pytest.approx(of[b] - of[a], rel=1e-5) and found.mean > 0
    x_start = classifier.encode(picture)[0]
    np.testing.assert_allclose(found.picture, (x_start[0] + 1) / 2, atol=1e-6)
    back = diffcls.error_map(classifier, picture, "digit one", "digit seven", n_samples=12)
    np.testing.assert_allclose(back.difference, -found.difference, atol=1e-12)


def test_elements_against_the_formula(mixture, rng):
    """x_t, target and error of every trial written out in float64 from the closed form."""
    schedule = diffcls.Schedule.linear(1000)
    classifier = diffcls.Classifier(mixture.denoiser(schedule), seed=9)
    x = mixture.sample(1, rng)[0][0]
    trials = diffcls.Classifier(mixture.denoiser(schedule), seed=9, policy=diffcls.Fixed(20)).trials
    terms = []
    for t, index in zip(trials["timestep"], trials["noise_index"], strict=True):
        eps = diffcls.ops.normal(SHAPE, seed=9, index=int(index), timestep=int(t)).astype(np.float64)
        alpha, sigma = schedule.alpha[[t, t]], schedule.sigma[[t, t]]
        x_t = np.stack([alpha[0] * x + sigma[0] * eps] * 2)
        error = (mixture.denoise(x_t, alpha, sigma, [0, 2])[1] - eps) ** 2
        terms.append(error[1] - error[0])
    found = diffcls.error_map(classifier, x, 0, 2, n_samples=20)
    np.testing.assert_allclose(found.difference, np.mean(terms, axis=0), atol=2e-6)
    np.testing.assert_allclose(found.stderr, np.std(terms, axis=0, ddof=1) / np.sqrt(20), atol=2e-6)


def test_evidence_lies_where_classes_differ(rng):
    """Classes that differ in one corner only: elsewhere there is none, not even by chance, since trials are paired."""
    means = np.zeros((2, 1, 8, 8))
    means[1, 0, :3, :3] = 2.0
    mixture = GaussianMixture(means, 1.0)
    x = mixture.means[1].astype(np.float32)
    found = diffcls.error_map(diffcls.Classifier(mixture.denoiser()), x, 1, 0, n_samples=40)
    inside = np.zeros((8, 8), bool)
    inside[:3, :3] = True
    assert (found.spatial()[inside] > 0).all() and np.allclose(found.spatial()[~inside], 0.0, atol=1e-7)


def test_prompts_pooled_by_their_mean(mixture, rng):
    prompts = {"even": [0, 2], "odd": [1, 3]}
    classifier = diffcls.Classifier(mixture.denoiser(), prompts, pool="mean")
    x = mixture.sample(1, rng)[0][0]
    of = losses(classifier, x, 10)
    found = diffcls.error_map(classifier, x, "odd", "even", n_samples=10)
    assert found.mean == pytest.approx(of[0] - of[1], rel=1e-5) and found.n_evals == 40
    with pytest.raises(InputError, match="class 'odd' has 2 prompts: an error map needs one, or pool='mean'"):
        diffcls.error_map(diffcls.Classifier(mixture.denoiser(), prompts), x, "odd", "even")


@pytest.mark.torch
def test_a_denoiser_of_torch_in_small_batches(mixture, rng):
    torch = pytest.importorskip("torch")
    inner = mixture.denoiser()

    def predict(x_t, t, cond):
        return torch.from_numpy(inner.predict(x_t.numpy(), t.numpy(), cond.numpy()))

    options = {"shape": SHAPE, "schedule": inner.schedule, "n_classes": 4}
    same = diffcls.Denoiser(predict, framework="torch", **options)
    x = mixture.sample(1, rng)[0][0]
    a, b = (
        diffcls.error_map(diffcls.Classifier(model, batch_size=size), x, 0, 1, n_samples=9)
        for model, size in ((inner, None), (same, 3))
    )
    np.testing.assert_array_equal(a.difference, b.difference)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.5, 6.0])
def test_smoothing_is_scipys_and_keeps_the_mean(sigma, rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    values = rng.normal(size=(7, 11))
    np.testing.assert_allclose(smooth(values, sigma).mean(), values.mean(), atol=1e-12)
    if sigma:  # scipy cuts the kernel at truncate * sigma, rounded
        reach = np.ceil(4 * sigma)
        wanted = ndimage.gaussian_filter(values, sigma, mode="reflect", truncate=reach / sigma)
        np.testing.assert_allclose(smooth(values, sigma), wanted, atol=1e-12)


def test_what_is_wrong_is_said(mixture):
    x = mixture.means[:2].astype(np.float32)
    classifier = diffcls.Classifier(mixture.denoiser())
    with pytest.raises(InputError, match="a and b are both '1', must be two classes"):
        diffcls.error_map(classifier, x[0], 1, "1")
    with pytest.raises(InputError, match="image is 2 pictures, must be one"):
        diffcls.error_map(classifier, x, 0, 1)
    with pytest.raises(ValueError, match="b has 'dog'"):
        diffcls.error_map(classifier, x[0], 0, "dog")
    with pytest.raises(InputError, match="n_samples is 0"):
        diffcls.error_map(classifier, x[0], 0, 1, n_samples=0)
    with pytest.raises(TypeError, match="classifier"):
        diffcls.error_map(mixture, x[0], 0, 1)
    found = diffcls.error_map(classifier, x[0], 0, 1, n_samples=1)
    assert np.isnan(found.stderr).all() and np.isfinite(found.difference).all()
    with pytest.raises(InputError, match="smoothing is -1"):
        found.spatial(-1)
    flat = GaussianMixture(np.eye(3), 1.0)
    found = diffcls.error_map(diffcls.Classifier(flat.denoiser()), flat.means[0].astype(np.float32), 0, 1, n_samples=2)
    assert found.picture is None
    with pytest.raises(ShapeError, match=r"the map has shape \(3,\)"):
        found.spatial()


def test_nan_is_an_error(mixture):
    def predict(x_t, t, cond):
        return np.where(np.asarray(cond)[:, None, None, None] == 1, np.nan, 0.0 * x_t).astype(np.float32)

    bad = diffcls.Denoiser(predict, shape=SHAPE, schedule=diffcls.Schedule.linear(1000), n_classes=4)
    classifier = diffcls.Classifier(bad, {"b": "3", "a": ["0", "1"]}, pool="mean", policy=diffcls.Fixed(3))
    x = np.zeros(SHAPE, np.float32)
    with pytest.raises(NonFiniteError, match="predict predicted NaN or infinity for class 'a' at timestep") as found:
        diffcls.error_map(classifier, x, 0, 1, n_samples=3)
    with pytest.raises(NonFiniteError) as live:
        classifier(x)
    for where in ("class_index", "timestep", "noise_index"):
        assert getattr(found.value, where) == getattr(live.value, where)
    assert found.value.class_index == 1 and str(found.value) == str(live.value)
    small = diffcls.Denoiser(
        lambda x_t, t, cond: x_t[:, :1], shape=SHAPE, schedule=diffcls.Schedule.linear(1000), n_classes=2
    )
    with pytest.raises(ShapeError, match="prediction has shape"):
        diffcls.error_map(diffcls.Classifier(small), np.zeros(SHAPE, np.float32), 0, 1, n_samples=3)


@pytest.mark.torch
def test_latents_lie_over_the_picture_as_it_was_prepared():
    pytest.importorskip("diffusers")
    pipelines = pytest.importorskip("pipelines")
    classifier = diffcls.Classifier(pipelines.sd(), ["cat", "dog"], progress=False)
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    of = losses(classifier, [image], 6)
    found = diffcls.error_map(classifier, image, "cat", "dog", n_samples=6)
    assert found.difference.shape == classifier.denoiser.shape and found.spatial().shape == (8, 8)
    assert found.mean == pytest.approx(of[1] - of[0], rel=1e-3, abs=1e-9)  # rows of a batch differ in the last bits
    np.testing.assert_allclose(
        found.picture, image[:, 4:20] / 255.0, atol=1e-6
    )  # cut at the centre, as large as it was


def test_a_latent_of_no_known_picture_has_none(mixture):
    latent = GaussianMixture(np.zeros((2, 4, 6, 6)) + np.arange(2).reshape(2, 1, 1, 1), 1.0)
    x = latent.means[0].astype(np.float32)
    assert diffcls.error_map(diffcls.Classifier(latent.denoiser()), x, 0, 1, n_samples=2).picture is None
