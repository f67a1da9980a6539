"""The order of trials: grids, prefixes, weights, the published stages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcls import _core, reference_race


def pool(n, t, weighting=None, density=None, antithetic=False):
    return _core.trials_pool(n, t, weighting=weighting, density=density, antithetic=antithetic)


@pytest.mark.parametrize(("n", "t"), [(500, 1000), (250, 1000), (1000, 1000), (8, 8), (1, 7)])
def test_pool_is_the_even_grid(n, t):
    trials = pool(n, t)
    np.testing.assert_array_equal(np.sort(trials["timestep"]), (np.arange(n) + 0.5) * t // n)
    np.testing.assert_array_equal(np.sort(trials["noise_index"]), np.arange(n))
    np.testing.assert_array_equal(trials["weight"], np.ones(n))
    np.testing.assert_array_equal(trials["eps_sign"], np.ones(n))


def test_order_is_bit_reversal():
    np.testing.assert_array_equal(pool(8, 8)["timestep"], [0, 4, 2, 6, 1, 5, 3, 7])
    np.testing.assert_array_equal(pool(6, 6)["timestep"], [0, 4, 2, 1, 5, 3])


@given(st.integers(2, 600), st.integers(600, 2000))
@settings(deadline=None, max_examples=60)
def test_every_prefix_is_spread(n, t):
    """Discrepancy of van der Corput's sequence: at most log2(m) + 2 rows beyond an interval's share."""
    timesteps = pool(n, t)["timestep"] / t
    for m in {1, 2, n // 3 + 1, n}:
        count = np.searchsorted(np.sort(timesteps[:m]), np.linspace(0, 1, 9)[1:-1])
        assert np.abs(count - m * np.linspace(0, 1, 9)[1:-1]).max() <= np.log2(m) + 2 + m / n


@given(st.integers(1, 300), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_weights_keep_the_estimand(n_timesteps, seed):
    """Drawn from any density, the weighted mean of f is close to the one under the weighting itself."""
    rng = np.random.default_rng(seed)
    weighting = rng.random(n_timesteps) * (rng.random(n_timesteps) < 0.8)
    weighting[rng.integers(n_timesteps)] = 1.0
    density = rng.random(n_timesteps) + 0.2
    f = np.linspace(0, 1, n_timesteps)
    exact = np.sum(weighting * f) / weighting.sum()
    for q in (None, density):
        trials = pool(4000, n_timesteps, weighting, q)
        assert trials["weight"].mean() == pytest.approx(1.0)
        assert np.all(weighting[trials["timestep"]] > 0)
        assert np.mean(trials["weight"] * f[trials["timestep"]]) == pytest.approx(exact, abs=0.01)


@given(st.integers(1, 200), st.integers(1, 300), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=200)
def test_core_and_twin_agree(n, n_timesteps, weighted, dense, antithetic, seed):
    rng = np.random.default_rng(seed)
    weighting = rng.random(n_timesteps) * (rng.random(n_timesteps) < 0.8) if weighted else None
    if weighted:
        weighting[rng.integers(n_timesteps)] = 1.0
    density = rng.random(n_timesteps) + 0.01 if dense else None
    got = pool(n, n_timesteps, weighting, density, antithetic)
    wanted = reference_race.trials_pool(n, n_timesteps, weighting, density, antithetic)
    for name in ("timestep", "noise_index", "eps_sign"):
        np.testing.assert_array_equal(got[name], wanted[name])
    np.testing.assert_allclose(got["weight"], wanted["weight"], rtol=1e-12)


def test_drawn_from_the_weighting_all_count_the_same():
    weighting = np.array([0.0, 1.0, 3.0, 0.0])
    trials = pool(400, 4, weighting, weighting)
    np.testing.assert_allclose(trials["weight"], 1.0)
    assert np.bincount(trials["timestep"], minlength=4).tolist() == [0, 100, 300, 0]


def test_antithetic_pairs():
    trials = pool(10, 1000, antithetic=True)
    for name in ("timestep", "noise_index", "weight"):
        np.testing.assert_array_equal(trials[name][0::2], trials[name][1::2])
    np.testing.assert_array_equal(trials["eps_sign"], [1, -1] * 5)
    np.testing.assert_array_equal(np.sort(trials["timestep"][::2]), [100, 300, 500, 700, 900])  # the whole schedule


def test_antithetic_list_takes_each_timestep_twice():
    trials = _core.trials_list(np.array([5, 5, 2, 2]), 10, weighting=None, antithetic=True)
    assert trials["timestep"].tolist() == [5, 5, 2, 2]
    assert trials["noise_index"].tolist() == [0, 0, 2, 2]
    assert trials["eps_sign"].tolist() == [1, -1, 1, -1]


def test_list():
    trials = _core.trials_list(np.array([5, 2, 5]), 10, weighting=np.arange(10.0), antithetic=False)
    assert trials["timestep"].tolist() == [5, 2, 5]
    assert trials["noise_index"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(trials["weight"], np.array([5, 2, 5]) / 4)


# (n_samples, new rows a stage, first new timesteps of each stage): the paper's settings
PUBLISHED = [
    ([50, 500], [50, 450], [[11, 31, 51], [1, 3, 5]]),
    ([100, 500], [100, 400], [[5, 15, 25], [1, 3, 7]]),
    ([25, 250], [25, 225], [[22, 62, 102], [2, 6, 10]]),
    ([20, 50, 100, 500], [20, 50, 80, 350], [[25, 75, 125], [11, 31, 51], [5, 15, 35], [1, 3, 7]]),
    ([50, 100, 500, 1000], [50, 100, 400, 450], [[10, 30, 50], [5, 15, 25], [1, 3, 7], [0, 2, 4]]),
    ([128, 256, 500], [128, 171, 201], [[3, 9, 15], [1, 5, 7], None]),
]


@pytest.mark.parametrize(("n_samples", "rows", "firsts"), PUBLISHED)
def test_published_grids(n_samples, rows, firsts):
    timesteps, ends = _core.trials_published(n_samples, 1000, 1)
    starts = [0, *ends[:-1]]
    assert np.diff([0, *ends]).tolist() == rows
    assert len(set(timesteps.tolist())) == len(timesteps) == sum(rows)
    for start, first in zip(starts, firsts, strict=True):
        if first is not None:
            assert timesteps[start : start + 3].tolist() == first


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(60, 200))
@settings(deadline=None, max_examples=200)
def test_published_twin_agrees(n_samples, n_timesteps):
    timesteps, ends = _core.trials_published(n_samples, n_timesteps, 1)
    wanted, wanted_ends = reference_race.trials_published(n_samples, n_timesteps)
    assert timesteps.tolist() == wanted
    assert ends.tolist() == wanted_ends


def test_published_grid_loses_the_noisy_end():
    timesteps, _ = _core.trials_published([300], 1000, 1)
    assert timesteps.max() == 898


def test_published_trials_repeat_each_timestep():
    timesteps, ends = _core.trials_published([2, 4], 8, 3)
    assert ends.tolist() == [6, 12]
    assert timesteps.reshape(4, 3).tolist() == [[3] * 3, [7] * 3, [1] * 3, [5] * 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pool(0, 10), "0 trials"),
        (lambda: pool(10, 0), "0 timesteps"),
        (lambda: pool(10, 3, np.array([1.0, -1.0, 0.0])), r"weighting\[1\] is -1"),
        (lambda: pool(10, 3, np.array([1.0, np.nan, 0.0])), r"weighting\[1\]"),
        (lambda: pool(10, 3, np.zeros(3)), "sums to 0"),
        (lambda: pool(10, 3, np.ones(3), np.array([1.0, 0.0, 1.0])), r"density\[1\] is 0"),
        (lambda: pool(10, 3, np.ones(4)), "4 items, must have 3"),
        (lambda: _core.trials_list(np.array([3]), 3, weighting=None, antithetic=False), r"timesteps\[0\] is 3"),
        (lambda: _core.trials_list(np.array([-1]), 3, weighting=None, antithetic=False), r"timesteps\[0\] is -1"),
        (lambda: _core.trials_list(np.array([1, 2]), 3, weighting=None, antithetic=True), "1 and 2, must be equal"),
        (lambda: _core.trials_published([0, 5], 1000, 1), r"n_samples\[0\] is 0"),
        (lambda: _core.trials_published([2000], 1000, 1), r"n_samples\[0\] is 2000"),
        (lambda: _core.trials_published([5], 1000, 0), "n_trials"),
    ],
)
def test_impossible_trials(call, message):
    with pytest.raises(ValueError, match=message):
        call()
