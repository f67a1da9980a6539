"""`diffcls.certify` against the closed form: classes that a plane parts have a known radius, the distance to it."""

import numpy as np
import pytest
from scipy import stats

import diffcls

NORMAL = np.array([3.0, -4.0, 0.0], np.float32) / 5


def side(x):
    """Two Gaussians of one covariance: the better class is a matter of a plane."""
    return (x @ NORMAL > 0.25).astype(np.int64)


@pytest.mark.parametrize("distance", [0.2, 0.5, 0.9])
def test_radius_of_a_plane(distance):
    """P(right) = Phi(distance / sigma), so the exact radius is the distance; the bound lies below, and near it."""
    x, sigma, n = (0.25 + distance) * NORMAL, 0.5, 20_000
    found = diffcls.certify(side, x, sigma=sigma, n=n, alpha=0.001, seed=4)
    assert found.index == 1 and 0.9 * distance < found.radius <= distance
    p = stats.beta.ppf(0.001, found.count, n - found.count + 1)  # Clopper and Pearson's lower bound
    np.testing.assert_allclose([found.p_lower, found.radius], [p, sigma * stats.norm.ppf(p)], rtol=1e-9)
    assert abs(found.count / n - stats.norm.cdf(distance / sigma)) < 4 * np.sqrt(0.25 / n)


def test_the_bound_holds_as_often_as_it_says():
    """At level 0.2 about a fifth of 300 certificates may exceed the exact radius, 0.4: not half of them, and some do."""
    x = (0.25 + 0.4) * NORMAL
    wrong = sum(diffcls.certify(side, x, sigma=0.5, n=200, alpha=0.2, seed=seed).radius > 0.4 for seed in range(300))
    assert 20 < wrong < 80


def test_it_abstains_on_the_plane_and_where_noise_drowns_the_class():
    found = diffcls.certify(side, 0.25 * NORMAL, sigma=0.5, n=500)
    assert found.index is None and found.radius == 0.0 and found.p_lower < 0.5


def test_batches_change_nothing():
    x = 0.6 * NORMAL
    one = diffcls.certify(side, x, sigma=0.5, n=300, batch_size=7)
    assert one == diffcls.certify(side, x, sigma=0.5, n=300, batch_size=1000)
    assert one != diffcls.certify(side, x, sigma=0.5, n=300, seed=1)


def test_a_diffusion_classifier_is_certified(gaussian, rng):
    """Its answers to noised inputs: those of the nearest mean, nearly, so the radius is at most half the distance to another."""
    denoiser = gaussian.denoiser()
    classifier = diffcls.Classifier(denoiser, policy=diffcls.Fixed(8), progress=False)
    x = gaussian.means[2]
    found = diffcls.certify(lambda rows: [r.index for r in classifier(rows)], x, sigma=0.3, n_choose=20, n=200)
    others = np.delete(gaussian.means, 2, axis=0)
    assert found.index == 2 and 0.0 < found.radius < np.linalg.norm(others - x, axis=1).min() / 2


def test_bad_arguments():
    x = np.zeros(3, np.float32)
    for options, message in [
        ({"sigma": 0.0}, "sigma is 0.0, must be a number above 0"),
        ({"sigma": 0.5, "alpha": 1.0}, "alpha is 1.0"),
        ({"sigma": 0.5, "n": 0}, "n is 0, must be an integer of 1 or more"),
        ({"sigma": 0.5, "seed": -1}, "seed is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            diffcls.certify(side, x, **options)
    with pytest.raises(ValueError, match=r"classify gave float32 of shape \(64, 3\), must give 64 class numbers"):
        diffcls.certify(lambda rows: rows, x, sigma=0.5)
