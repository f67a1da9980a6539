"""`GaussianMixture` against SciPy and Monte Carlo, and the exact posterior from the estimator's losses."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

import diffcls
from diffcls import Fixed, Schedule, weightings
from diffcls.testing import GaussianMixture

TYPES = ["epsilon", "v_prediction", "sample", "flow_prediction", "edm"]


def full(rng, k, d):
    factors = rng.standard_normal((k, d, d)) * 0.4
    return factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(d)


def covariances(rng, k, d):
    return {"one": 0.3, "isotropic": rng.random(k) + 0.1, "diagonal": rng.random((k, d)) + 0.1, "full": full(rng, k, d)}


@pytest.mark.parametrize("kind", ["one", "isotropic", "diagonal", "full"])
def test_log_likelihood_and_posterior(kind, rng):
    k, shape = 4, (2, 3)
    covariance = covariances(rng, k, 6)[kind]
    means, priors = rng.standard_normal((k, *shape)), np.array([0.1, 0.2, 0.3, 0.4])
    mixture = GaussianMixture(means, covariance, priors=7 * priors)
    matrices = {
        "one": lambda i: covariance * np.eye(6), "isotropic": lambda i: covariance[i] * np.eye(6),
        "diagonal": lambda i: np.diag(covariance[i]), "full": lambda i: covariance[i],
    }  # fmt: skip
    x, _ = mixture.sample(10, rng)
    expected = np.stack(
        [stats.multivariate_normal(means[i].ravel(), matrices[kind](i)).logpdf(x.reshape(10, 6)) for i in range(k)],
        axis=1,
    )
    np.testing.assert_allclose(mixture.log_likelihood(x), expected, rtol=1e-6)
    np.testing.assert_allclose(mixture.posterior(x), softmax(expected + np.log(priors), axis=1), rtol=1e-5, atol=1e-12)


def test_samples_have_the_moments(rng):
    covariance = full(rng, 2, 3)
    mixture = GaussianMixture(rng.standard_normal((2, 3)), covariance, priors=[1, 3])
    x, classes = mixture.sample(40000, rng)
    assert np.mean(classes == 1) == pytest.approx(0.75, abs=0.01)
    for k in range(2):
        np.testing.assert_allclose(x[classes == k].mean(axis=0), mixture.means[k], atol=0.05)
        np.testing.assert_allclose(np.cov(x[classes == k].T), covariance[k], atol=0.06)


def test_denoise_is_the_conditional_mean(rng):
    """Of the joint Gaussian of (x_start, x_t), by the textbook's formula with a matrix inverse."""
    covariance = full(rng, 1, 4)[0]
    mixture = GaussianMixture(rng.standard_normal((1, 4)), covariance[None])
    x_t = rng.standard_normal((1, 4))
    for a, s in ((0.9, 0.3), (0.2, 1.1), (1.0, 0.0), (0.0, 1.0)):
        x, eps = mixture.denoise(x_t, [a], [s], [0])
        gain = a * covariance @ np.linalg.inv(a * a * covariance + s * s * np.eye(4))
        expected = mixture.means[0] + gain @ (x_t[0] - a * mixture.means[0])
        np.testing.assert_allclose(x[0], expected, atol=1e-10)
        np.testing.assert_allclose(a * x + s * eps, x_t, atol=1e-10)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_expected_errors_are_what_the_loop_measures(prediction_type, rng):
    base = Schedule.linear(20, 0.01, 0.3)
    schedule = Schedule(base.alpha, base.sigma, base.time, sigma_data=0.5)
    mixture = GaussianMixture(rng.standard_normal((3, 5)), full(rng, 3, 5))
    x, _ = mixture.sample(1, rng)
    table = diffcls.Classifier(mixture.denoiser(schedule, prediction_type)).error_table(x, n_samples=40000)
    exact = mixture.expected_errors(x, schedule, prediction_type)[0]
    for row in range(0, 20, 5):
        errors = table.errors[0][:, table.timesteps == row]
        margin = 5 * errors.std(axis=1) / np.sqrt(errors.shape[1])
        assert np.all(np.abs(errors.mean(axis=1) - exact[:, row]) < margin + 1e-6)


def schedules():
    return {
        "linear": Schedule.linear(1000),
        "zero snr": Schedule.from_config({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}),
        "cosine": Schedule.squaredcos_cap_v2(1000),
        "flow": Schedule.flow(1000, 3.0),
        "edm": Schedule.edm(np.geomspace(0.002, 80.0, 300)),
    }


@pytest.mark.parametrize("name", ["linear", "zero snr", "cosine", "flow", "edm"])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_weighted_integral_of_errors_is_the_log_likelihood(name, prediction_type, rng):
    """No noise drawn: expected errors, summed under "likelihood", differ by exact log-likelihoods up to quadrature."""
    base = schedules()[name]
    schedule = Schedule(base.alpha, base.sigma, base.time, discrete=base.is_discrete, sigma_data=0.5)
    mixture = GaussianMixture(0.7 * rng.standard_normal((4, 6)), full(rng, 4, 6))
    x, _ = mixture.sample(20, rng)
    weight = weightings.likelihood(schedule, prediction_type)
    found = -0.5 * 6 * mixture.expected_errors(x, schedule, prediction_type) @ weight
    exact = mixture.log_likelihood(x)
    found, exact = (values - values.mean(axis=1, keepdims=True) for values in (found, exact))
    # what is lost beyond the schedule's ends, and at the steps of its clean end
    np.testing.assert_allclose(found, exact, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_estimator_converges_to_the_exact_posterior_within_its_error(prediction_type, rng):
    base = Schedule.linear(1000)
    schedule = Schedule(base.alpha, base.sigma, base.time, sigma_data=0.5)
    priors = np.array([0.5, 0.2, 0.3])
    mixture = GaussianMixture(0.35 * rng.standard_normal((3, 6)), full(rng, 3, 6), priors=priors)
    model = mixture.denoiser(schedule, prediction_type)
    temperature = weightings.likelihood_temperature(model)
    x, _ = mixture.sample(6, rng)
    exact = mixture.log_likelihood(x)
    previous = np.inf
    for n in (300, 20000):
        classifier = diffcls.Classifier(
            model, weighting="likelihood", temperature=temperature, priors=priors, policy=Fixed(n), keep_errors=True
        )
        results = classifier(x)
        weight = classifier._lowered.trials["weight"]
        worst = 0.0
        for i, result in enumerate(results):
            gaps = (result.errors - result.errors[result.index]) * weight / temperature
            stated = gaps.std(axis=1, ddof=1) / np.sqrt(n)  # of the log-likelihood ratio, trials taken as independent
            ratio = exact[i, result.index] - exact[i]
            assert np.all(np.abs(gaps.mean(axis=1) - ratio) <= 4 * stated + 0.03)
            np.testing.assert_allclose(gaps.mean(axis=1), result.excess / temperature, rtol=1e-6, atol=1e-9)
            worst = max(worst, np.abs(result.probabilities - mixture.posterior(x)[i]).max())
        assert worst < previous
        previous = worst
    # on x_start the weight is SNR times more at the clean end, where trials then crowd and tell little of the classes
    assert worst < (0.2 if prediction_type == "sample" else 0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 1.0],), r"means has shape \(2,\)"),
        ((np.zeros((2, 3)), np.ones((3, 3))), r"covariance has shape \(3, 3\)"),
        ((np.zeros((2, 3)), -1.0), "positive definite"),
        ((np.zeros((2, 3)), np.triu(np.ones((2, 3, 3)))), "symmetric"),
        ((np.zeros((2, 3)), np.nan), "finite"),
    ],
)
def test_impossible_mixtures(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)
    with pytest.raises(ValueError, match="priors must be 2 positive numbers"):
        GaussianMixture(np.zeros((2, 3)), priors=[1, -1])


def test_a_time_that_is_not_on_the_schedule_is_an_error(rng):
    model = GaussianMixture(np.zeros((2, 3))).denoiser()
    with pytest.raises(ValueError, match="must be times of the schedule"):
        model.predict(np.zeros((1, 3)), np.array([1000]), np.array([0]))
