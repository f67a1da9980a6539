"""Noised diffusion classifiers against the mixture whose densities are blurred, and the papers' sums written out."""

import pickle

import numpy as np
import pytest
from scipy.special import softmax

import diffcls
from diffcls.testing import GaussianMixture
from diffcls.weightings import likelihood_temperature

MEANS = np.array([[2.0, 0.0, 0.5], [-1.0, 1.0, 0.0], [0.0, -2.0, -1.0]])
VARIANCES = np.array([0.5, 1.0, 2.0])
TAU = 0.4
CLEAN, BLURRED = GaussianMixture(MEANS, VARIANCES), GaussianMixture(MEANS, VARIANCES + TAU**2)
"""x_start + TAU eps of a Gaussian is a Gaussian, its variance larger by TAU^2: written here, not taken from the code."""

SCHEDULES = {
    "epsilon": diffcls.Schedule.linear(1000),
    "v_prediction": diffcls.Schedule.squaredcos_cap_v2(400),
    "sample": diffcls.Schedule.squaredcos_cap_v2(400),
    "flow_prediction": diffcls.Schedule.flow(300),
    "edm": diffcls.Schedule.edm(np.geomspace(0.01, 80.0, 200), sigma_data=0.5),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_it_is_the_perfect_denoiser_of_the_blurred_mixture(kind, rng):
    """Rows are x_tau with less noise on it, so what the clean model predicts is the best guess of the new target."""
    schedule = SCHEDULES[kind]
    model = diffcls.noised(CLEAN.denoiser(schedule, kind), TAU)
    with np.errstate(divide="ignore"):
        ratio = schedule.sigma / schedule.alpha
        level = model.schedule.sigma / model.schedule.alpha
    kept = ratio > TAU * (1 + 1e-6)
    np.testing.assert_array_equal(model.schedule.time, schedule.time[kept])
    np.testing.assert_allclose(model.schedule.alpha, schedule.alpha[kept])
    np.testing.assert_allclose(np.hypot(level, TAU), ratio[kept], rtol=1e-9)  # noise upon noise
    rows = rng.integers(len(model.schedule), size=64)
    classes, x_t = rng.integers(3, size=64), 2.0 * rng.standard_normal((64, 3)).astype(np.float32)
    fed = model.time_of(model.schedule.time[rows])
    best = BLURRED.denoiser(model.schedule, (model.p, model.q)).predict(x_t, fed, classes)
    np.testing.assert_allclose(model.predict(x_t, fed, classes), best, rtol=2e-4, atol=2e-4 * np.abs(best).max())


def test_losses_are_log_likelihoods_of_the_blurred_mixture(rng):
    """Under weighting "likelihood" the posterior of x_tau, not that of x_start, comes out."""
    schedule = diffcls.Schedule.edm(np.geomspace(2e-3, 300.0, 1500), sigma_data=1.0)
    model = diffcls.noised(CLEAN.denoiser(schedule, "epsilon"), TAU)
    x_tau = (CLEAN.sample(6, rng)[0] + TAU * rng.standard_normal((6, 3))).astype(np.float32)
    classifier = diffcls.Classifier(
        model, policy=diffcls.Fixed(6000), weighting="likelihood", noise="antithetic",
        temperature=likelihood_temperature(model), progress=False,
    )  # fmt: skip
    results = classifier(x_tau)
    exact = BLURRED.log_likelihood(x_tau)
    excess = results.losses / likelihood_temperature(model)
    spread = results.stderr / likelihood_temperature(model)
    differences = (excess[:, :1] - excess) - (exact - exact[:, :1])
    assert (np.abs(differences) < 4 * np.hypot(spread, spread[:, :1]) + 0.02).all()
    np.testing.assert_allclose(softmax(exact, axis=1), BLURRED.posterior(x_tau), rtol=1e-9)
    assert (results.index == exact.argmax(1)).all()


def test_the_papers_sum_is_these_errors_with_its_weights(rng):
    """|mean of q - mean of p|^2 / (2 variance), term by term, as the module's head has it, from the plain model's h."""
    s = np.geomspace(0.05, 20.0, 80)
    model = diffcls.noised(CLEAN.denoiser(diffcls.Schedule.edm(s, sigma_data=1.0), "epsilon"), TAU)
    levels = s[s > TAU]
    x_tau, eps = rng.standard_normal(3), rng.standard_normal((len(levels), 3))
    for j in range(1, len(levels)):
        s_i, s_j = levels[j - 1], levels[j]
        x_j = x_tau + np.sqrt(s_j**2 - TAU**2) * eps[j]
        for k in range(3):
            h, _ = CLEAN.denoise(x_j[None], [1.0], [s_j], [k])
            p_mean = ((s_j**2 - s_i**2) * h[0] + s_i**2 * x_j) / s_j**2
            q_mean = ((s_j**2 - s_i**2) * x_tau + (s_i**2 - TAU**2) * x_j) / (s_j**2 - TAU**2)
            variance = (s_i**2 - TAU**2) * (s_j**2 - s_i**2) / (s_j**2 - TAU**2)
            term = np.sum((q_mean - p_mean) ** 2) / (2.0 * variance)
            row, alpha = np.array([j]), model.schedule.alpha[j]
            prediction = model.predict(
                (alpha * x_j)[None].astype(np.float32), model.time_of(model.schedule.time[row]), np.array([k])
            )
            target = model.p[j] * x_tau + model.q[j] * eps[j]
            in_eps = (model.schedule.sigma[j] / (alpha * s_j)) ** 2  # own error in units of eps'
            error = np.sum((prediction[0] - target) ** 2) * in_eps
            weight = (s_j**2 - s_i**2) / (2.0 * (s_i**2 - TAU**2))
            np.testing.assert_allclose(term, weight * error, rtol=2e-3, atol=1e-4)


def test_its_own_weighting_is_in_units_of_its_noise(rng):
    """The noise alone, which every class's error holds, then weighs 1 on every row."""
    plain = CLEAN.denoiser()
    model = diffcls.noised(plain, TAU)
    np.testing.assert_allclose(model.weighting * model.q**2, 1.0)
    plain.weighting = np.arange(1000.0)
    np.testing.assert_allclose(diffcls.noised(plain, TAU).weighting * model.q**2, np.arange(1000.0)[-len(model.q) :])


def test_posterior_mean_is_the_mixtures(rng):
    """At a level of the schedule exactly; every prediction type."""
    x = rng.standard_normal((5, 3)).astype(np.float32)
    for kind, schedule in SCHEDULES.items():
        row = int(np.flatnonzero(schedule.sigma > 0.7 * schedule.alpha)[0])
        level = float(schedule.sigma[row] / schedule.alpha[row])
        model = CLEAN.denoiser(schedule, kind)
        expected, _ = CLEAN.denoise(x, np.ones(5), np.full(5, level), np.full(5, 1))
        np.testing.assert_allclose(diffcls.posterior_mean(model, x, level, 1), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(
            diffcls.posterior_mean(model, x, level * 1.0001, 1), diffcls.posterior_mean(model, x, level, 1)
        )


def labelled(n, rng):
    x, labels = CLEAN.sample(n, rng)
    return (x + TAU * rng.standard_normal(x.shape)).astype(np.float32), labels


def test_both_kinds_nearly_answer_as_bayes(rng):
    """On noised inputs: EPNDC follows the blurred posterior; APNDC's one denoising step, without a class, loses little."""
    mixture = GaussianMixture([*MEANS, MEANS.mean(0)], [*VARIANCES, 3.0])
    x, _ = labelled(200, rng)
    best = BLURRED.posterior(x).argmax(1)
    model = mixture.denoiser(class_names=["a", "b", "c", "none"])
    agreement = {}
    for posterior, weighting in (("exact", "likelihood"), ("approximate", None)):
        classify = diffcls.NoisedClassifier(
            model, ["a", "b", "c"], sigma=TAU, posterior=posterior, unconditional="none", weighting=weighting,
            policy=diffcls.Fixed(200), noise="antithetic",
        )  # fmt: skip
        answer = classify(x)
        assert answer.shape == (200,) and answer.dtype == np.int64
        agreement[posterior] = np.mean(answer == best)
    assert agreement["exact"] > 0.93 and agreement["approximate"] > 0.75


def test_approximate_is_the_plain_classifier_of_what_was_denoised(rng):
    """Rows with less noise than sigma count nothing."""
    model = GaussianMixture([*MEANS, MEANS.mean(0)], 1.0).denoiser(class_names=["a", "b", "c", "none"])
    classify = diffcls.NoisedClassifier(
        model, ["a", "b", "c"], sigma=TAU, posterior="approximate", unconditional="none", policy=diffcls.Fixed(64)
    )
    x, _ = labelled(20, rng)
    h = diffcls.posterior_mean(model, x, TAU, 3)
    above = (model.schedule.sigma > TAU * model.schedule.alpha).astype(float)
    plain = diffcls.Classifier(model, ["a", "b", "c"], policy=diffcls.Fixed(64), weighting=above, progress=False)
    assert classify(x).tolist() == list(plain(h).index)
    again = pickle.loads(pickle.dumps(classify))
    assert again(x).tolist() == classify(x).tolist() and again.sigma == TAU
    assert (classify.classifier.trials["timestep"] >= np.flatnonzero(above)[0]).all()


def test_a_certificate_of_a_noised_classifier():
    """Two Gaussians of one variance: noised or not, the better class is a matter of the plane between them."""
    mixture = GaussianMixture([[0.8, 0.0], [-0.8, 0.0]], 0.2)
    classify = diffcls.NoisedClassifier(mixture.denoiser(), sigma=0.5, policy=diffcls.Fixed(64), noise="antithetic")
    found = diffcls.certify(classify, np.array([0.8, 0.3], np.float32), n_choose=20, n=1000)
    assert found.index == 0 and 0.5 < found.radius < 0.85  # the plane is 0.8 away
    with pytest.raises(ValueError, match="sigma is 0.25, and classify is made for inputs noised by 0.5"):
        diffcls.certify(classify, np.zeros(2, np.float32), sigma=0.25)
    with pytest.raises(ValueError, match="sigma is None, and classify has none of its own"):
        diffcls.certify(lambda rows: np.zeros(len(rows), int), np.zeros(2, np.float32))


def test_the_embedded_model_reads_noised_pictures():
    """Demo pictures under noise that the plain classifier was never asked about: the noised one loses fewer."""
    from diffcls.models.demo_pictures import load

    images, labels = (kept[::2] for kept in load())
    plain = diffcls.load(prepare=False)
    x = np.stack([2.0 * np.float32(image)[None] / 255.0 - 1.0 for image in images])
    eps = diffcls.ops.normal(x.shape[1:], seed=5, index=0)
    noisy = (x + 1.0 * eps).astype(np.float32)
    answer = diffcls.NoisedClassifier(plain, sigma=1.0, policy=diffcls.Fixed(8))(noisy)
    as_is = plain._copy()
    as_is.encode = as_is.world = None
    before = diffcls.Classifier(as_is, policy=diffcls.Fixed(8), progress=False)(noisy).index
    assert np.mean(answer == labels) > np.mean(before == labels) + 0.2


def test_it_pickles_and_its_runs_are_told_apart():
    plain = diffcls.load()
    model = diffcls.noised(plain, 0.5)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.q, model.q)
    assert again.noise == 0.5 and again.plain.digest == plain.digest and model.encode is None
    x = np.zeros((1, 28, 28), np.float32)
    one, two = (diffcls.Classifier(m, ["0", "1"], policy=diffcls.Fixed(4), progress=False) for m in (model, again))
    assert (one(x).losses == two(x).losses).all()
    assert one.run["model"] != diffcls.Classifier(plain, ["0", "1"], policy=diffcls.Fixed(4)).run["model"]


def test_prompts_are_encoded_for_the_noised_model():
    def encode_prompts(prompts):
        return np.array([MEANS[int(prompt)] for prompt in prompts], np.float32)

    def predict(x_t, t, cond):
        schedule = SCHEDULES["epsilon"]
        a, s = schedule.alpha[t, None], schedule.sigma[t, None]
        return (s * (x_t - a * cond)).astype(np.float32)

    model = diffcls.Denoiser(predict, shape=(3,), schedule=SCHEDULES["epsilon"], encode_prompts=encode_prompts)
    named = diffcls.noised(model, TAU).with_prompts(["2", "0"])
    assert isinstance(named, type(diffcls.noised(model, TAU))) and named.plain.class_names == ["2", "0"]
    assert diffcls.classify(MEANS[0].astype(np.float32), ["2", "0"], model=diffcls.noised(model, TAU)).label == "0"


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m: diffcls.noised(m, 0.0), ValueError, "sigma is 0.0, must be a number above 0"),
        (lambda m: diffcls.noised(m, 1e6), ValueError, r"sigma is 1e\+06, and the schedule's noise ends at sigma / alpha = 157"),
        (lambda m: diffcls.noised("m", 0.5), TypeError, "denoiser is 'm', must be of type Denoiser"),
        (lambda m: diffcls.NoisedClassifier(m, sigma=0.5, posterior="no"), ValueError, "posterior is 'no', must be 'exact' or"),
        (lambda m: diffcls.NoisedClassifier(m, sigma=0.5, posterior="approximate"), ValueError, "must name its null class"),
        (lambda m: diffcls.certify(m, np.zeros(3), sigma=1.0), TypeError, "classify is Denoiser, must be a function"),
        (lambda m: diffcls.certify(len, np.full(3, np.nan), sigma=1.0), ArithmeticError, "x_start holds NaN or infinity"),
        (lambda m: diffcls.certify(len, np.array(["a"]), sigma=1.0), TypeError, "x_start is of dtype <U1, must be of real"),
    ],
)  # fmt: skip
def test_bad_input(call, error, said):
    with pytest.raises(error, match=said):
        call(CLEAN.denoiser())
