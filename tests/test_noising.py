"""Noising: x_t = alpha * x_start + sigma * eps, against float64 within the roundings it makes, and the twin's bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffcls import _core, reference

SIMD = _core.Cpu.available()
SHAPES = [(1, 1), (3, 1, 5), (5, 1, 28, 28), (2, 1023), (2, 1025), (3, 3, 32, 33)]
FLOATS = st.floats(-100, 100, width=32)


def coefficients(n):
    alpha = np.linspace(0.999, 0.05, n)
    return alpha, np.sqrt(1 - alpha**2)


def add_noise(x_start, alpha, sigma, *, simd="auto", n_threads=1, **noise):
    rows = x_start.reshape(len(x_start), -1)
    out = np.full(rows.shape, np.nan, np.float32)
    options = {"eps": None, "seed": 0, "noise_index": None, "timestep": None, **noise}
    _core.add_noise(out, rows, alpha, sigma, **options, backend=_core.Cpu(simd=simd, n_threads=n_threads))
    return out.reshape(x_start.shape)


def check_against_float64(x_t, x_start, alpha, sigma, eps):
    """Each coefficient is rounded to float32, then each product and the sum once: 2^-24 relative each, or half the
    smallest subnormal, 2^-150, times the factor beside it."""
    wide = (-1,) + (1,) * (x_start.ndim - 1)
    clean, noise = (c.reshape(wide) * v.astype(np.float64) for c, v in ((alpha, x_start), (sigma, eps)))
    bound = 2.0**-24 * (2 * np.abs(clean) + 2 * np.abs(noise) + np.abs(clean + noise)) * 1.0001
    bound += 2.0**-150 * (np.abs(x_start) + np.abs(eps) + 4).astype(np.float64)
    assert (np.abs(x_t - (clean + noise)) <= bound).all()


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("shape", SHAPES)
def test_made_noise(shape, simd):
    rng = np.random.default_rng(0)
    x_start, (alpha, sigma) = rng.uniform(-1, 1, shape).astype(np.float32), coefficients(shape[0])
    index = np.arange(5, 5 + shape[0], dtype=np.uint32)
    timestep = index * np.uint32(7)
    x_t = add_noise(x_start, alpha, sigma, seed=2**40 + 1, noise_index=index, timestep=timestep, simd=simd)
    rows = [reference.normal(2**40 + 1, i, t, 0, x_start[0].size) for i, t in zip(index, timestep, strict=True)]
    eps = np.stack(rows).reshape(shape)
    check_against_float64(x_t, x_start, alpha, sigma, eps)
    flat = reference.add_noise(x_start.reshape(shape[0], -1), alpha, sigma, eps.reshape(shape[0], -1))
    assert np.array_equal(x_t, flat.reshape(shape))


@pytest.mark.parametrize("simd", SIMD)
@settings(deadline=None)
@given(data=st.data())
def test_given_noise(simd, data):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 70)))
    x_start, eps = (data.draw(hnp.arrays(np.float32, shape, elements=FLOATS)) for _ in range(2))
    alpha, sigma = (data.draw(hnp.arrays(np.float64, shape[0], elements=st.floats(0, 1))) for _ in range(2))
    x_t = add_noise(x_start, alpha, sigma, eps=eps, simd=simd)
    check_against_float64(x_t, x_start, alpha, sigma, eps)
    assert np.array_equal(x_t, reference.add_noise(x_start, alpha, sigma, eps))


def test_inputs_are_left_alone():
    x_start, (alpha, sigma), eps = np.ones((2, 9), np.float32), coefficients(2), np.ones((2, 9), np.float32)
    before = [array.copy() for array in (x_start, alpha, sigma, eps)]
    add_noise(x_start, alpha, sigma, eps=eps)
    assert all(np.array_equal(a, b) for a, b in zip((x_start, alpha, sigma, eps), before, strict=True))


def test_threads_change_nothing():
    """Large enough for the pool; rows alone and together are the same too."""
    x_start = np.random.default_rng(0).uniform(-1, 1, (40, 4096)).astype(np.float32)
    alpha, sigma = coefficients(40)
    index = np.arange(40, dtype=np.uint32)
    one = add_noise(x_start, alpha, sigma, seed=3, noise_index=index, timestep=index)
    assert np.array_equal(one, add_noise(x_start, alpha, sigma, seed=3, noise_index=index, timestep=index, n_threads=3))
    for row in (0, 17, 39):
        only = slice(row, row + 1)
        alone = add_noise(
            x_start[only], alpha[only], sigma[only], seed=3, noise_index=index[only], timestep=index[only]
        )
        assert np.array_equal(one[only], alone)


def test_ends_of_the_schedule():
    """alpha = 1, sigma = 0 gives x_start itself; alpha = 0, sigma = 1 gives eps itself."""
    x_start = np.random.default_rng(1).uniform(-1, 1, (2, 100)).astype(np.float32)
    zero = np.zeros(2, np.uint32)
    x_t = add_noise(x_start, np.array([1.0, 0.0]), np.array([0.0, 1.0]), seed=6, noise_index=zero, timestep=zero)
    assert np.array_equal(x_t[0], x_start[0])
    assert np.array_equal(x_t[1], reference.normal(6, 0, 0, 0, 100))
