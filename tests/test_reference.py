"""The NumPy twin itself, against published words and float64 formulas, so that equality with it means something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcls import _core, reference

U32 = st.integers(0, 2**32 - 1)
KNOWN_ANSWERS = [  # Random123, kat_vectors: counter, key, words of philox4x32-10
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, words):
    assert _core.philox4x32(numbers(counter), numbers(key)) == numbers(words)
    assert tuple(reference.philox4x32(np.array(numbers(counter), np.uint32), numbers(key))) == numbers(words)


@settings(deadline=None)
@given(st.tuples(U32, U32, U32, U32), st.tuples(U32, U32))
def test_philox_is_the_textbook_in_python_integers(counter, key):
    w, (k0, k1) = list(counter), key
    for _ in range(10):
        high0, low0 = divmod(w[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(w[2] * 0xCD9E8D57, 2**32)
        w = [high1 ^ w[1] ^ k0, low1, high0 ^ w[3] ^ k1, low0]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    assert _core.philox4x32(counter, key) == tuple(w)
    assert tuple(reference.philox4x32(np.array(counter, np.uint32), key)) == tuple(w)


def test_transform_is_box_muller():
    """All 2^23 radii, and as many angles, against float64: absolute error below 2e-6 (radius times angle's error)."""
    word = np.arange(2**23, dtype=np.uint32) << np.uint32(9)
    u = (2.0 * np.arange(2**23) + 1) * 2.0**-24
    radius = np.sqrt(-2 * np.log(u))
    got = reference.radius(word)
    assert np.abs(got - radius).max() < 1e-6
    assert np.isfinite(got).all() and (got >= 0).all() and got.max() <= 5.77
    angle = np.arange(2**23, dtype=np.uint32) * np.uint32(2654435761)
    quarter = (angle >> np.uint32(30)) + (2.0 * ((angle >> np.uint32(7)) & np.uint32(0x7FFFFF)) + 1) * 2.0**-24 - 0.5
    c, s = reference.pair(word, angle)
    assert np.abs(c - radius * np.cos(np.pi / 2 * quarter)).max() < 2e-6
    assert np.abs(s - radius * np.sin(np.pi / 2 * quarter)).max() < 2e-6


def test_counter_layout():
    """Block low word, timestep, noise index, stream + block high word; key low word first."""
    block = (3 << 32) + 5
    words = reference.noise_words(0x1122334455667788, 11, 7, np.array([block], np.uint64))[0]
    assert tuple(words) == _core.philox4x32((5, 7, 11, 0xDC010003), (0x55667788, 0x11223344))


def test_eps_error_twin_is_a_mean():
    rng = np.random.default_rng(0)
    prediction, target = rng.standard_normal((2, 3, 5000)).astype(np.float32)
    d = prediction.astype(np.float64) - target
    huber = np.where(np.abs(d) <= 0.5, d**2 / 2, 0.5 * (np.abs(d) - 0.25))
    for loss, terms in {"l2": d**2, "l1": np.abs(d), "huber": huber}.items():
        np.testing.assert_allclose(reference.eps_error(prediction, target, loss, 0.5), terms.mean(axis=1), rtol=2.4e-6)


def test_target_of_v_prediction():
    """v = alpha eps - sigma x_start (Salimans and Ho, 2022) is the pair p = -sigma, q = alpha."""
    x_start, eps = np.random.default_rng(0).standard_normal((2, 2, 9)).astype(np.float32)
    alpha, sigma = np.array([0.8, 0.6]), np.array([0.6, 0.8])
    got = reference.target(x_start, eps, -sigma, alpha)
    np.testing.assert_allclose(got, alpha[:, None] * eps - sigma[:, None] * x_start, atol=1e-6)
