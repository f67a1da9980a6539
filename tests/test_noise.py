"""Noise: bit-equal everywhere, a pure function of its key, and normal.

Statistical tests run on fixed keys: they can not flicker.  Each states the chance p that a perfect generator fails it.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffcls import _core, reference

SIMD = _core.Cpu.available()
N = 2**20

PINS_ZERO = """0x1.074f88p-1 0x1.7fb6e4p-2 -0x1.427c28p-1 0x1.840b52p-1
0x1.1e8f60p+0 -0x1.1cd102p+0 0x1.f011f4p-1 0x1.545076p-1"""
PINS_FAR = "-0x1.46450ep-3 0x1.04a5c0p-2 0x1.5f4992p+0 0x1.4efe36p+0"


def normal(n, *, seed=0, noise_index=0, timestep=0, first=0, simd="auto", n_threads=1):
    out = np.empty(n, np.float32)
    backend = _core.Cpu(simd=simd, n_threads=n_threads)
    _core.normal(out, seed=seed, noise_index=noise_index, timestep=timestep, first=first, backend=backend)
    return out


def bits(x):
    return x.view(np.uint32)


# ---------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("simd", SIMD)
def test_equals_the_twin(simd):
    got = normal(N, seed=0xFEDCBA9876543210, noise_index=3, timestep=999, first=5, simd=simd)
    assert np.array_equal(bits(got), bits(reference.normal(0xFEDCBA9876543210, 3, 999, 5, N)))


@pytest.mark.parametrize("simd", SIMD)
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    noise_index=st.integers(0, 2**32 - 1),
    timestep=st.integers(0, 2**32 - 1),
    first=st.integers(0, 2**50 - 4000),
    n=st.integers(0, 3000),
)
def test_any_slice_equals_the_twin(simd, seed, noise_index, timestep, first, n):
    got = normal(n, seed=seed, noise_index=noise_index, timestep=timestep, first=first, simd=simd)
    assert np.array_equal(bits(got), bits(reference.normal(seed, noise_index, timestep, first, n)))


def test_first_normals_are_pinned():
    """Version 1 of the file format.  These numbers never change."""
    assert normal(8).tolist() == [float.fromhex(text) for text in PINS_ZERO.split()]
    far = normal(4, seed=2**63 + 1, noise_index=2, timestep=3, first=2**34)
    assert far.tolist() == [float.fromhex(text) for text in PINS_FAR.split()]


@pytest.mark.parametrize("simd", SIMD)
def test_a_slice_is_a_slice(simd):
    whole = normal(5000, seed=9, simd=simd)
    for first, n in [(0, 0), (0, 1), (1, 1), (3, 2), (4, 4), (5, 1023), (1023, 1025), (4999, 1)]:
        assert np.array_equal(normal(n, seed=9, first=first, simd=simd), whole[first : first + n])


@pytest.mark.parametrize("simd", SIMD)
def test_unaligned_output_and_nothing_beside_it(simd):
    for offset in range(17):
        memory = np.full(1200, -7.5, np.float32)
        out = memory[offset : offset + 1001]
        _core.normal(out, seed=1, noise_index=0, timestep=0, first=0, backend=_core.Cpu(simd=simd))
        assert np.array_equal(out, normal(1001, seed=1))
        assert (memory[:offset] == -7.5).all() and (memory[offset + 1001 :] == -7.5).all()


def test_threads_change_nothing():
    assert np.array_equal(normal(N + 3, seed=4, n_threads=3), normal(N + 3, seed=4))


# ---------------------------------------------------------------------------------------------------------- normality


def test_moments():
    """First six moments of 2^22 numbers within 4.5 standard errors: p = 7e-6 each."""
    x = normal(2**22, seed=1).astype(np.float64)
    for k in range(1, 7):
        expected = math.prod(range(1, k, 2)) if k % 2 == 0 else 0  # (k - 1)!!
        variance = math.prod(range(1, 2 * k, 2)) - expected**2
        assert abs(np.mean(x**k) - expected) < 4.5 * math.sqrt(variance / len(x))


def test_kolmogorov_smirnov():
    """2^20 numbers at p = 1e-4; and the p-values of 256 keys are themselves uniform, at p = 1e-4."""
    assert stats.kstest(normal(N, seed=2), "norm").pvalue > 1e-4
    pvalues = [stats.kstest(normal(4096, seed=seed), "norm").pvalue for seed in range(256)]
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-4


def test_tails():
    """Counts beyond 3, 4, 4.5 and 5 of 2^24 numbers, each side, binomial at p = 1e-4 each; nothing beyond 5.77."""
    x = normal(2**24, seed=3)
    for side in (x, -x):
        for limit in (3.0, 4.0, 4.5, 5.0):
            count = int((side > limit).sum())
            assert stats.binomtest(count, len(x), stats.norm.sf(limit)).pvalue > 1e-4
    assert np.abs(x).max() <= 5.77


def test_signs_of_neighbours_are_fair():
    """The 2^4 sign patterns of a block of four are equally likely: chi-square at p = 1e-4."""
    patterns = (normal(2**22, seed=5).reshape(-1, 4) > 0) @ np.array([1, 2, 4, 8])
    assert stats.chisquare(np.bincount(patterns, minlength=16)).pvalue > 1e-4


# -------------------------------------------------------------------------------------------------------- independence

OTHERS = {
    "seed": {"seed": 8},
    "seed's high word": {"seed": 7 + 2**32},
    "noise index": {"noise_index": 1},
    "timestep": {"timestep": 1},
    "noise index far": {"noise_index": 2**31},
    "next element": {"first": 1},
    "pair": {"first": 2},
    "third": {"first": 3},
    "next block": {"first": 4},
    "next image row": {"first": 28},
    "next word of the block number": {"first": 2**34},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_streams_are_independent(other):
    """Correlations of x, x^2 and |x| between two streams below 4.5 / sqrt(n) (p = 7e-6 each); their joint distribution
    over a 16 x 16 grid of quantiles is flat (chi-square, p = 1e-5)."""
    x = normal(N, seed=7)
    y = normal(N, **{"seed": 7, **other})
    assert not np.array_equal(x, y)
    for f in (lambda v: v, np.square, np.abs):
        assert abs(np.corrcoef(f(x), f(y))[0, 1]) < 4.5 / math.sqrt(N)
    edges = stats.norm.ppf(np.linspace(0, 1, 17)[1:-1])
    cells = np.bincount(np.searchsorted(edges, x) * 16 + np.searchsorted(edges, y), minlength=256)
    assert stats.chisquare(cells).pvalue > 1e-5


def test_index_and_timestep_are_different_axes():
    a, b = normal(64, noise_index=1, timestep=2), normal(64, noise_index=2, timestep=1)
    assert not (a == b).any()
