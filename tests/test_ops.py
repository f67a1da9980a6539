"""`diffcls.ops`: arrays of several frameworks in and out, and what is refused."""

import numpy as np
import pytest

import diffcls
from diffcls import ops


def test_normal_is_one_stream(rng):
    whole = ops.normal((3, 5), seed=7, index=2, timestep=9)
    assert whole.dtype == np.float32 and whole.shape == (3, 5)
    np.testing.assert_array_equal(ops.normal(15, seed=7, index=2, timestep=9), whole.ravel())
    np.testing.assert_array_equal(ops.normal((3, 5), seed=7, index=2, timestep=9, dtype="float64"), whole)
    out = np.empty((3, 5), np.float32)
    assert ops.normal((3, 5), seed=7, index=2, timestep=9, out=out) is out
    np.testing.assert_array_equal(out, whole)
    for other in ({"seed": 8}, {"index": 3}, {"timestep": 8}):
        assert not np.array_equal(ops.normal((3, 5), **{"seed": 7, "index": 2, "timestep": 9, **other}), whole)
    assert ops.normal((0, 4), seed=0, index=0).shape == (0, 4)
    assert ops.normal((), seed=0, index=0).shape == ()


def test_add_noise(rng):
    x = rng.standard_normal((4, 3, 5)).astype(np.float32)
    alpha, sigma = rng.random(4), rng.random(4)
    eps = np.stack(
        [ops.normal((3, 5), seed=1, index=i, timestep=t) for i, t in zip([0, 1, 2, 2], [5, 5, 6, 7], strict=True)]
    )
    expected = alpha[:, None, None].astype(np.float32) * x + sigma[:, None, None].astype(np.float32) * eps
    made = ops.add_noise(x, alpha, sigma, seed=1, index=[0, 1, 2, 2], timestep=[5, 5, 6, 7])
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(ops.add_noise(x, alpha, sigma, eps=eps), expected)
    np.testing.assert_array_equal(ops.add_noise(x, 0.5, 0.25, eps=eps), np.float32(0.5) * x + np.float32(0.25) * eps)


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
def test_eps_error(rng, loss):
    prediction, target = rng.standard_normal((2, 6, 2, 700)).astype(np.float32)
    d = (prediction - target).astype(np.float64)
    terms = {"l2": d * d, "l1": abs(d), "huber": np.where(abs(d) <= 0.7, 0.5 * d * d, 0.7 * (abs(d) - 0.35))}[loss]
    weight = rng.random(6)
    got = ops.eps_error(prediction, target, loss=loss, delta=0.7, weight=weight)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, weight * terms.mean(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("name", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_target(rng, name):
    x, eps = rng.standard_normal((2, 3, 8)).astype(np.float32)
    a, s = 0.8, 0.6
    expected = {"epsilon": eps, "v_prediction": a * eps - s * x, "sample": x, "flow_prediction": eps - x}[name]
    np.testing.assert_allclose(ops.target(x, eps, a, s, name), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.torch
def test_torch_in_torch_out(rng):
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 9)
    x_t = ops.add_noise(x, 0.9, 0.1, seed=0, index=0, timestep=3)
    assert isinstance(x_t, torch.Tensor) and x_t.dtype == torch.float32
    np.testing.assert_array_equal(x_t.numpy(), ops.add_noise(x.numpy(), 0.9, 0.1, seed=0, index=0, timestep=3))
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 1e-6), (torch.bfloat16, 1e-6)):
        prediction = torch.randn(4, 9).to(dtype)
        error = ops.eps_error(prediction, x)
        expected = torch.nn.functional.mse_loss(prediction.float(), x, reduction="none").mean(1)
        assert isinstance(error, torch.Tensor)
        torch.testing.assert_close(error.float(), expected, rtol=tolerance, atol=1e-7)
    out = torch.empty(4, 9)
    assert ops.add_noise(x, 0.9, 0.1, eps=x, out=out) is out
    torch.testing.assert_close(out, 0.9 * x + 0.1 * x)
    with pytest.raises(TypeError, match="requires gradients"):
        ops.add_noise(x.requires_grad_(), 0.9, 0.1, eps=x.detach())


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_torch_out_of_every_dtype(dtype):
    """The float32 result rounded as PyTorch rounds it, in out's own memory, strided too."""
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 9)
    exact = ops.add_noise(x, 0.9, 0.1, eps=x)
    for out in (torch.zeros(4, 9, dtype=getattr(torch, dtype)), torch.zeros(9, 4, dtype=getattr(torch, dtype)).t()):
        address = out.data_ptr()
        assert ops.add_noise(x, 0.9, 0.1, eps=x, out=out) is out and out.data_ptr() == address
        assert torch.equal(out, exact.to(out.dtype))
    noise = torch.zeros(3, 5, dtype=getattr(torch, dtype))
    ops.normal((3, 5), seed=1, index=2, out=noise)
    assert torch.equal(noise, torch.from_numpy(ops.normal((3, 5), seed=1, index=2)).to(noise.dtype))


@pytest.mark.torch
def test_torch_tensors_that_can_not_be_used():
    """One sentence of ours, not PyTorch's own exception."""
    torch = pytest.importorskip("torch")
    x, n = torch.randn(2, 3), np.zeros((2, 3), np.float32)
    on_meta, leaf = torch.empty(2, 3, device="meta"), torch.zeros(2, 3, requires_grad=True)
    eighth, sparse = x.to(torch.float8_e5m2), x.to_sparse()
    cases = [
        ({"out": on_meta}, diffcls.DeviceError, "out is on no device that DLPack knows"),
        ({"out": on_meta.to(torch.bfloat16)}, diffcls.DeviceError, "out is on no device that DLPack knows"),
        ({"x_start": on_meta}, diffcls.DeviceError, "x_start is on no device that DLPack knows"),
        ({"eps": on_meta}, diffcls.DeviceError, "eps is on no device that DLPack knows"),
        ({"alpha": on_meta[:, 0]}, diffcls.DeviceError, "alpha is on no device that DLPack knows"),
        ({"out": leaf}, diffcls.DTypeError, "out requires gradients"),
        ({"out": leaf.detach().to(torch.bfloat16).requires_grad_()}, diffcls.DTypeError, "out requires gradients"),
        ({"out": eighth}, diffcls.DTypeError, "out is Tensor of torch.float8_e5m2, which NumPy can not read"),
        ({"x_start": eighth}, diffcls.DTypeError, "x_start is Tensor of torch.float8_e5m2"),
        ({"x_start": sparse}, diffcls.DTypeError, "x_start is Tensor of torch.float32, which NumPy can not read"),
        ({"out": torch.zeros(2, 3, dtype=torch.int32)}, diffcls.DTypeError, "out is of dtype int32"),
        ({"out": torch.zeros(3, 2, dtype=torch.bfloat16)}, diffcls.ShapeError, r"out has shape \(3, 2\)"),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            ops.add_noise(**{"x_start": x, "alpha": 1.0, "sigma": 1.0, "eps": n, **change})
        assert "\n" not in str(caught.value)
    for prediction, error, message in [
        (on_meta, diffcls.DeviceError, "prediction is on no device that DLPack knows"),
        (leaf, diffcls.DTypeError, "prediction could not be exported through DLPack .*gradient"),
        (sparse, diffcls.DTypeError, "prediction could not be exported through DLPack"),
        (eighth, diffcls.DTypeError, "prediction is of DLPack type code"),
    ]:
        with pytest.raises(error, match=message):
            ops.eps_error(prediction, n)
    with pytest.raises(diffcls.DeviceError, match="target is on no device"):
        ops.eps_error(n, on_meta)


@pytest.mark.parametrize(
    ("raised", "seen", "message"),
    [
        (
            BufferError("not today"),
            diffcls.DTypeError,
            r"prediction could not be exported through DLPack \(not today\)",
        ),
        (MemoryError("full"), MemoryError, "full"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_what_a_producer_raises(raised, seen, message):
    """Its words in our exception; but lack of memory and an interrupt are what they are."""

    class Producer:
        def __init__(self, place):
            self.place, self.shape = place, (2, 3)

        def __dlpack_device__(self):
            if self.place == "device":
                raise raised
            return (1, 0)

        def __dlpack__(self, **options):
            raise raised

    with pytest.raises(seen, match=message):
        ops.eps_error(Producer("capsule"), X)
    with pytest.raises(diffcls.DeviceError if seen is diffcls.DTypeError else seen):
        ops.eps_error(Producer("device"), X)


def test_awkward_inputs_are_read_right(rng):
    x = rng.standard_normal((4, 10)).astype(np.float32)
    expected = ops.eps_error(x, np.zeros_like(x))
    wide = np.full((4, 20), np.nan, np.float32)
    wide[:, ::2] = x
    for same in (wide[:, ::2], x[::-1][::-1], np.asfortranarray(x), x.astype(np.float64)):
        np.testing.assert_array_equal(ops.eps_error(same, np.zeros_like(x)), expected)
    offset = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 10)  # not aligned
    np.testing.assert_array_equal(ops.eps_error(offset, np.zeros_like(x)), expected)
    assert ops.eps_error(x[:0], x[:0]).shape == (0,)
    np.testing.assert_array_equal(ops.eps_error(x[:, :0], x[:, :0]), np.zeros(4))
    assert ops.add_noise(x[:0], 1.0, 1.0, eps=x[:0]).shape == (0, 10)


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.normal(3, seed=2**64, index=0), ValueError, "seed is 18446744073709551616"),
        (lambda: ops.normal(3, seed=-1, index=0), ValueError, "seed is -1"),
        (lambda: ops.normal(3, seed="a", index=0), TypeError, "seed is 'a'"),
        (lambda: ops.normal(3, seed=0, index=2**32), ValueError, "index is 4294967296"),
        (lambda: ops.normal(3, seed=0, index=0, timestep=-1), ValueError, "timestep is -1"),
        (lambda: ops.normal(3, seed=0, index=0, dtype="float16"), TypeError, "dtype is float16"),
        (lambda: ops.normal(3, seed=0, index=0, device="tpu"), diffcls.DeviceError, "device is 'tpu'"),
        (lambda: ops.normal(3, seed=0, index=0, stream=1), diffcls.DeviceError, "stream"),
        (lambda: ops.normal(3, seed=0, index=0, out=np.empty(4)), ValueError, r"out has shape \(4,\)"),
        (lambda: ops.normal(3, seed=0, index=0, out=[1, 2, 3]), TypeError, "out is list"),
        (lambda: ops.eps_error(np.ones((1,) * 64), np.ones((1,) * 64)), ValueError, "has 64 dimensions"),
        (lambda: ops.add_noise(X, 1.0, 1.0), ValueError, "needs eps, or seed"),
        (lambda: ops.add_noise(X, 1.0, 1.0, eps=X[:, :2]), ValueError, "eps has shape"),
        (lambda: ops.add_noise(X, [1.0] * 3, 1.0, eps=X), ValueError, r"alpha has shape \(3,\)"),
        (lambda: ops.add_noise(X, "a", 1.0, eps=X), TypeError, "alpha is 'a'"),
        (lambda: ops.add_noise(X, 1.0, 1.0, seed=0, index=[-1, 0], timestep=0), ValueError, "index reaches from -1"),
        (lambda: ops.add_noise(None, 1.0, 1.0, eps=X), TypeError, "x_start is NoneType"),
        (lambda: ops.add_noise(np.float32(1), 1.0, 1.0, eps=X), ValueError, "x_start has no axes"),
        (lambda: ops.add_noise(X.astype(complex), 1.0, 1.0, eps=X), TypeError, "complex128"),
        (lambda: ops.eps_error(X[:1], X), ValueError, "prediction has shape"),
        (lambda: ops.eps_error(X, X, loss="l3"), ValueError, "loss is 'l3'"),
        (lambda: ops.eps_error(X, X, loss="huber", delta=0.0), ValueError, "delta must be positive"),
        (lambda: ops.eps_error(X.astype(np.int32), X), TypeError, "dtype int32"),
        (lambda: ops.eps_error(X.astype(">f4"), X), TypeError, "byte order"),
        (lambda: ops.target(X, X, 1.0, 1.0, "noise"), ValueError, "prediction_type is 'noise'"),
    ],
)
def test_impossible_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_read_only_output_is_refused():
    out = np.zeros((2, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ops.add_noise(X, 1.0, 1.0, eps=X, out=out)
