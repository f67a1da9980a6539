"""eps-error: mean of rho(prediction - target) a row, against float64 and PyTorch, and the twin's bits.

Bound.  The difference, its square, and at most 32 additions into one float32 lane are rounded, all terms are positive,
and what follows is float64: relative error below (3 + 32) 2^-24, 40 2^-24 with Huber's own products.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcls import _core, reference

SIMD = _core.Cpu.available()
LOSSES = ["l2", "l1", "huber"]
SIZES = [1, 3, 31, 33, 784, 1023, 1024, 1025, 3000]
RTOL = 40 * 2.0**-24
DELTA = 0.75


def eps_error(prediction, target, *, loss="l2", delta=DELTA, simd="auto", n_threads=1):
    out = np.full(len(target), np.nan)
    backend = _core.Cpu(simd=simd, n_threads=n_threads)
    _core.eps_error(out, prediction, target, loss=loss, delta=delta, backend=backend)
    return out


def exact(prediction, target, loss):
    d = np.abs(np.asarray(prediction, np.float64) - target)
    terms = {"l2": d**2, "l1": d, "huber": np.where(d <= DELTA, d**2 / 2, DELTA * (d - DELTA / 2))}[loss]
    return terms.reshape(len(target), -1).mean(axis=1)


def rows(n_rows, n_elem, seed=0):
    return np.random.default_rng(seed).standard_normal((2, n_rows, n_elem)).astype(np.float32)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_elem", SIZES)
def test_float32(n_elem, loss, simd):
    prediction, target = rows(5, n_elem)
    errors = eps_error(prediction, target, loss=loss, simd=simd)
    np.testing.assert_allclose(errors, exact(prediction, target, loss), rtol=RTOL)
    assert np.array_equal(errors, reference.eps_error(prediction, target, loss, DELTA))


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None)
@given(n_rows=st.integers(1, 4), n_elem=st.integers(1, 2500), seed=st.integers(0, 2**32), scale=st.floats(1e-3, 1e3))
def test_any_size_equals_the_twin(loss, simd, n_rows, n_elem, seed, scale):
    prediction, target = rows(n_rows, n_elem, seed) * np.float32(scale)
    errors = eps_error(prediction, target, loss=loss, simd=simd)
    assert np.array_equal(errors, reference.eps_error(prediction, target, loss, DELTA))


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_numpy_dtypes(dtype, simd):
    """A prediction is what its dtype holds, as float32: exactly for halves, rounded once for float64."""
    prediction, target = rows(3, 1500)
    prediction = prediction.astype(dtype)
    errors = eps_error(prediction, target, simd=simd)
    assert np.array_equal(errors, reference.eps_error(prediction.astype(np.float32), target))
    np.testing.assert_allclose(errors, exact(prediction, target, "l2"), rtol=RTOL)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_as_pytorch_computes_it(loss, dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    functions = {
        "l2": functional.mse_loss,
        "l1": functional.l1_loss,
        "huber": lambda *a, **k: functional.huber_loss(*a, delta=DELTA, **k),
    }
    prediction, target = (torch.from_numpy(x) for x in rows(4, 1111))
    prediction = prediction.to(getattr(torch, dtype))
    wanted = functions[loss](prediction.double(), target.double(), reduction="none").mean(dim=1)
    np.testing.assert_allclose(eps_error(prediction, target, loss=loss), wanted.numpy(), rtol=RTOL)


def test_equal_is_zero_and_image_shapes_are_rows():
    prediction, target = rows(4, 3 * 5 * 7)
    assert (eps_error(target, target) == 0).all()
    shaped = eps_error(prediction.reshape(4, 3, 5, 7), target)
    assert np.array_equal(shaped, eps_error(prediction, target))


def test_huber_between_l2_and_l1():
    """A large delta is half of L2; below its smallest difference it is delta * (L1 - delta / 2)."""
    prediction, target = rows(3, 700)
    np.testing.assert_allclose(
        eps_error(prediction, target, loss="huber", delta=1e3) * 2, eps_error(prediction, target)
    )
    small = eps_error(prediction + np.float32(10), target, loss="huber", delta=0.5)
    wanted = 0.5 * (eps_error(prediction + np.float32(10), target, loss="l1") - 0.25)
    np.testing.assert_allclose(small, wanted, rtol=1e-5)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_predictions_show(bad, loss, simd):
    """Wherever it stands, in the last incomplete block too, and only in its own row."""
    for place in (0, 1023, 1024, 1029):
        prediction, target = rows(3, 1030)
        prediction[1, place] = bad
        errors = eps_error(prediction, target, loss=loss, simd=simd)
        assert list(np.isfinite(errors)) == [True, False, True]


def test_threads_and_neighbours_change_nothing():
    prediction, target = rows(40, 4096)
    one = eps_error(prediction, target)
    assert np.array_equal(one, eps_error(prediction, target, n_threads=3))
    assert all(eps_error(prediction[r : r + 1], target[r : r + 1])[0] == one[r] for r in (0, 13, 39))


def test_inputs_are_left_alone():
    prediction, target = rows(2, 1030)
    before = prediction.copy(), target.copy()
    eps_error(prediction, target)
    assert np.array_equal(prediction, before[0]) and np.array_equal(target, before[1])
