"""Denoisers and arrays of JAX, on its CPU."""

import numpy as np
import pytest

import diffcls
from diffcls import Fixed, ops
from diffcls.models import demo_pictures

jax = pytest.importorskip("jax")
jnp = jax.numpy
pytestmark = pytest.mark.jax


@pytest.fixture
def x(gaussian, rng):
    return gaussian.sample([1, 2, 3], rng)


def make(gaussian, predict, **options):
    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5, "framework": "jax"}
    return diffcls.Denoiser(predict, **{**facts, **options})


def in_jax(gaussian):
    """`gaussian.predict` in jax.numpy: the same formula, rounded in float32 throughout."""
    means, v = jnp.asarray(gaussian.means), gaussian.v
    alpha, sigma = jnp.asarray(gaussian.schedule.alpha, "float32"), jnp.asarray(gaussian.schedule.sigma, "float32")

    def predict(x_t, t, cond):
        a, s, mean = alpha[t][:, None], sigma[t][:, None], means[cond]
        best = mean + a * v / (a * a * v + s * s) * (x_t - a * mean)
        return (x_t - a * best) / s

    return predict


@pytest.mark.parametrize("compiled", [False, True])
def test_losses_are_those_of_the_numpy_denoiser(gaussian, x, compiled):
    predict = jax.jit(in_jax(gaussian)) if compiled else in_jax(gaussian)
    got = diffcls.classify(x, model=make(gaussian, predict), policy=Fixed(60), batch_size=64)
    wanted = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(60))
    # (x_t - a x_hat) / s cancels at small t: float32's rounding over s, 0.01 at least
    np.testing.assert_allclose(got.losses, wanted.losses, rtol=2e-5, atol=1e-6)
    assert got.label == wanted.label
    raced = diffcls.classify(x, model=make(gaussian, predict))
    assert raced.label == diffcls.classify(x, model=gaussian.denoiser()).label


def test_what_predict_is_given(gaussian, x):
    """JAX arrays on its CPU, equal to what a NumPy denoiser is given."""
    seen, wanted = [], []

    def predict(x_t, t, cond):
        assert all(isinstance(array, jax.Array) for array in (x_t, t, cond))
        assert x_t.dtype == jnp.float32 and t.dtype == cond.dtype == jnp.int32
        seen.append((x_t, t, cond))
        return x_t

    def in_numpy(x_t, t, cond):
        wanted.append((x_t.copy(), t.copy(), cond.copy()))
        return x_t

    got = diffcls.classify(x, model=make(gaussian, predict), policy=Fixed(20), batch_size=7)
    numpy = diffcls.classify(x, model=make(gaussian, in_numpy, framework="numpy"), policy=Fixed(20), batch_size=7)
    np.testing.assert_array_equal(got.losses, numpy.losses)
    assert len(seen) == len(wanted) == 43
    for ours, theirs in zip(seen, wanted, strict=True):  # kept until now: nobody wrote into them
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_out_and_in(gaussian, x, dtype):
    def rounded(x_t, t, cond):
        return np.asarray(jnp.asarray(gaussian.predict(x_t, t, cond)).astype(dtype).astype("float32"))

    def predict(x_t, t, cond):
        return jnp.asarray(gaussian.predict(np.asarray(x_t), np.asarray(t), np.asarray(cond))).astype(dtype)

    wanted = diffcls.classify(x, model=make(gaussian, rounded, framework="numpy"), policy=Fixed(20)).losses
    got = diffcls.classify(x, model=make(gaussian, predict), policy=Fixed(20)).losses
    np.testing.assert_array_equal(got, wanted)
    as_numpy = make(gaussian, lambda *arrays: np.asarray(predict(*arrays)))  # ml_dtypes' bfloat16
    np.testing.assert_array_equal(diffcls.classify(x, model=as_numpy, policy=Fixed(20)).losses, wanted)
    seen = []
    narrow = make(gaussian, lambda x_t, t, cond: seen.append(x_t.dtype) or x_t, dtype=dtype)
    narrow_losses = diffcls.classify(x, model=narrow, policy=Fixed(20)).losses
    assert set(seen) == {jnp.dtype(dtype)}
    as_rounded = make(gaussian, lambda x_t, t, cond: x_t.astype(dtype).astype("float32"))
    np.testing.assert_array_equal(narrow_losses, diffcls.classify(x, model=as_rounded, policy=Fixed(20)).losses)


def test_conditions_are_given_as_rows(gaussian, x):
    predict, conditions = in_jax(gaussian), {"mean": gaussian.means, "id": np.arange(5)}

    @jax.jit
    def conditioned(x_t, t, cond):
        wrong = (jnp.asarray(gaussian.means)[cond["id"]] != cond["mean"]).any(axis=1, keepdims=True)
        return jnp.where(wrong, jnp.nan, predict(x_t, t, cond["id"]))

    got = diffcls.classify(x, model=make(gaussian, conditioned, conditions=conditions), policy=Fixed(20))
    wanted = diffcls.classify(x, model=make(gaussian, jax.jit(predict)), policy=Fixed(20))
    np.testing.assert_allclose(got.losses, wanted.losses, rtol=1e-6)  # compiled twice: fused in two ways


@pytest.mark.parametrize("device", [None, "cpu", jax.devices("cpu")[0]])
def test_device(gaussian, x, device):
    seen = []
    predict = in_jax(gaussian)
    denoiser = make(gaussian, lambda *arrays: seen.append(arrays) or predict(*arrays), device=device)
    diffcls.classify(x, model=denoiser, policy=Fixed(3))
    assert all(array.devices() == {jax.devices("cpu")[0]} for arrays in seen for array in arrays)
    with pytest.raises(diffcls.DeviceError, match="device is 'abacus', which JAX does not have here"):
        diffcls.classify(x, model=make(gaussian, predict, device="abacus"))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda p: None, diffcls.DenoiserError, "the denoiser's prediction is <class 'NoneType'>"),
        (lambda p: p[:-1], diffcls.ShapeError, r"has shape \(\d+, 12\), must have \(\d+, 12\)"),
        (lambda p: p[:, :5], diffcls.ShapeError, r"must have \(\d+, 12\) like x_t"),
        (lambda p: p.astype(jnp.int32), diffcls.DTypeError, "must be float32, float64, float16 or bfloat16"),
        (lambda p: p.astype(jnp.complex64), diffcls.DTypeError, "must be float32, float64, float16 or bfloat16"),
        (lambda p: p.astype(jnp.float8_e4m3fn), diffcls.DTypeError, "the denoiser's prediction"),
        (lambda p: p.at[0, 3].set(jnp.nan), diffcls.NonFiniteError, "NaN or infinity for class"),
    ],
)
def test_wrong_answers(gaussian, x, answer, error, message):
    predict = in_jax(gaussian)
    with pytest.raises(error, match=message):
        diffcls.classify(x, model=make(gaussian, lambda *arrays: answer(predict(*arrays))))


def test_an_error_inside_a_compiled_predict_passes_through(gaussian, x):
    @jax.jit
    def predict(x_t, t, cond):
        return x_t @ x_t

    with pytest.raises(TypeError, match="dot_general"):
        diffcls.classify(x, model=make(gaussian, predict))


def test_images_and_ops_take_jax_arrays(gaussian, x):
    wanted = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(10))
    got = diffcls.classify(jnp.asarray(x), model=gaussian.denoiser(), policy=Fixed(10))
    np.testing.assert_array_equal(got.losses, wanted.losses)
    picture = demo_pictures.load()[0][0]
    classifier = diffcls.Classifier(policy=Fixed(1))
    np.testing.assert_array_equal(classifier(jnp.asarray(picture)).losses, classifier(picture).losses)

    x_t = ops.add_noise(jnp.asarray(x), 0.8, 0.6, seed=1, index=2, timestep=3)
    assert isinstance(x_t, jax.Array) and x_t.dtype == jnp.float32
    np.testing.assert_array_equal(x_t, ops.add_noise(x, 0.8, 0.6, seed=1, index=2, timestep=3))
    errors = ops.eps_error(x_t, jnp.asarray(x))
    assert isinstance(errors, jax.Array)
    np.testing.assert_allclose(errors, ((np.asarray(x_t) - x) ** 2).mean(axis=1), rtol=1e-6)
    half = jnp.asarray(x).astype("bfloat16")
    widened = np.asarray(half.astype("float32"))
    for same in (half, np.asarray(half)):
        np.testing.assert_array_equal(
            ops.add_noise(same, 0.8, 0.6, eps=same), ops.add_noise(widened, 0.8, 0.6, eps=widened)
        )
        np.testing.assert_allclose(ops.eps_error(same, x), ops.eps_error(widened, x), rtol=1e-7)  # JAX: float32
    with pytest.raises(ValueError, match="out is read-only"):
        ops.add_noise(x, 0.8, 0.6, eps=x, out=jnp.zeros((3, 12)))
