"""`diffcls.torch.add_noise` and `eps_error`: PyTorch's own checks of operators and gradients, and the core's numbers."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from diffcls import DeviceError, DTypeError, InputError, ShapeError, ops

torch = pytest.importorskip("torch")
import diffcls.torch as dt  # noqa: E402

pytestmark = pytest.mark.torch
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LOSSES = ["l2", "l1", "huber"]
KEY = {"seed": 2**64 - 3, "index": torch.tensor([0, 1, 2, 2]), "timestep": torch.tensor([5, 5, 6, 7])}


@pytest.fixture
def given():
    """x_start, eps (4, 3, 5); alpha, sigma (4,): float64."""
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=generator)
    alpha, sigma = torch.rand(2, 4, dtype=torch.float64, generator=generator)
    return x, eps, alpha, sigma


def stacked_noise():
    names = zip(KEY["index"].tolist(), KEY["timestep"].tolist(), strict=True)
    rows = [ops.normal((3, 5), seed=KEY["seed"], index=index, timestep=t) for index, t in names]
    return torch.from_numpy(np.stack(rows))


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_add_noise_has_the_bits_of_the_core(given, dtype):
    x, eps, alpha, sigma = given
    x = x.to(dtype)
    for options in (KEY, {"eps": eps.to(dtype)}):
        core = ops.add_noise(x, alpha, sigma, **options)
        made = dt.add_noise(x, alpha, sigma, **options)
        assert made.dtype == dtype
        if dtype == torch.float64:  # wider than the core's arithmetic: the same eps, mixed by PyTorch
            noise = stacked_noise().double() if "eps" not in options else options["eps"]
            core = alpha[:, None, None] * x + sigma[:, None, None] * noise
        assert torch.equal(made, core.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_eps_error_has_the_bits_of_the_core(given, loss, dtype):
    prediction, target, weight, _ = given
    options = {"loss": loss, "delta": 0.7, "weight": weight}
    made = dt.eps_error(prediction.to(dtype), target.to(dtype), **options)
    assert made.dtype == torch.float64
    if dtype == torch.float64:
        functional = {"l2": "mse_loss", "l1": "l1_loss", "huber": "huber_loss"}[loss]
        extra = {"delta": 0.7} if loss == "huber" else {}
        terms = getattr(torch.nn.functional, functional)(prediction, target, reduction="none", **extra)
        torch.testing.assert_close(made, weight * terms.mean((1, 2)), rtol=1e-14, atol=0)
    else:
        assert torch.equal(made, ops.eps_error(prediction.to(dtype), target.to(dtype), **options))


def test_strided_and_empty_tensors(given):
    x, eps, alpha, sigma = given
    x, eps = x.float().transpose(1, 2), eps.float().transpose(1, 2)
    dense = dt.add_noise(x.contiguous(), alpha, sigma, eps=eps.contiguous())
    assert torch.equal(dt.add_noise(x, alpha, sigma, eps=eps), dense)
    assert torch.equal(dt.eps_error(x, eps), dt.eps_error(x.contiguous(), eps.contiguous()))
    for dtype in (torch.float32, torch.float64):
        for shape in ((0, 3), (3, 0), (3,)):
            z = torch.zeros(shape, dtype=dtype, requires_grad=True)
            error = dt.eps_error(dt.add_noise(z, 0.5, 0.0, seed=0, index=0, timestep=0), z)
            error.sum().backward()
            assert error.shape == shape[:1] and torch.equal(z.grad, torch.zeros(shape, dtype=dtype))


# ---- what PyTorch checks of an operator -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(given, dtype):
    x, eps, alpha, sigma = given
    x, eps = x.to(dtype).requires_grad_(), eps.to(dtype).requires_grad_()
    add_noise, eps_error = torch.ops.diffcls.add_noise.default, torch.ops.diffcls.eps_error.default
    torch.library.opcheck(add_noise, (x, alpha, sigma, None, KEY["index"], KEY["timestep"], -3))
    strided = x.transpose(1, 2), eps.transpose(1, 2)
    torch.library.opcheck(add_noise, (strided[0], alpha, sigma.requires_grad_(), strided[1], None, None, 0))
    for loss in LOSSES:
        torch.library.opcheck(eps_error, (x, eps, alpha.detach().requires_grad_(), loss, 0.7))
        torch.library.opcheck(eps_error, (*strided, None, loss, 0.7))


def test_gradients_of_add_noise(given):
    """To x_start, alpha, sigma and eps; the second time too."""
    x, eps, alpha, sigma = (tensor.requires_grad_() for tensor in given)

    def with_eps(x, alpha, sigma, eps):
        return dt.add_noise(x, alpha, sigma, eps=eps).sin()

    def made(x, alpha, sigma):
        return dt.add_noise(x, alpha, sigma, **KEY).sin()

    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(with_eps, (x, alpha, sigma, eps)) and check(made, (x, alpha, sigma))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_eps_error(given, loss):
    prediction, target, weight, _ = (tensor.requires_grad_() for tensor in given)

    def error(prediction, target, weight):
        return dt.eps_error(prediction, target, loss=loss, delta=0.7, weight=weight)

    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(error, (prediction, target, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_of_half_precision(given, dtype):
    """Those of the same numbers in float32, rounded once."""
    x, target, alpha, sigma = given
    half = [x.to(dtype).requires_grad_(), target.to(dtype).requires_grad_()]
    wide = [tensor.detach().float().requires_grad_() for tensor in half]
    for pair in (half, wide):
        dt.eps_error(pair[0], pair[1], loss="huber", weight=alpha).sum().backward()
    for narrow, full in zip(half, wide, strict=True):
        assert narrow.grad.dtype == dtype and torch.equal(narrow.grad, full.grad.to(dtype))


def test_compile_without_a_graph_break(given):
    x, eps, alpha, sigma = given
    x, eps = x.float(), eps.float()

    def step(x, eps, alpha, sigma, index, timestep, seed):
        x_t = dt.add_noise(x, alpha, sigma, seed=seed, index=index, timestep=timestep)
        x_t = x_t + dt.add_noise(x, alpha, 0.5, eps=eps)
        return dt.eps_error(2 * x_t, x, loss="huber", weight=alpha).sum()

    backend = "inductor" if shutil.which("g++") else "aot_eager"
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for seed, rows in ((1, 4), (2, 4), (2**64 - 1, 3)):
        results = []
        for function in (step, compiled):
            leaves = [tensor[:rows].detach().clone().requires_grad_() for tensor in (x, eps, alpha, sigma)]
            value = function(*leaves, KEY["index"][:rows], KEY["timestep"][:rows], seed)
            results.append([value, *torch.autograd.grad(value, leaves)])
        torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)


# ---- a training step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "huber_loss"])
def test_training_reaches_the_losses_of_plain_pytorch(loss):
    """Forty steps of a small denoiser, the same noise: losses agree to 1e-5 at every step."""
    schedule = torch.linspace(0.99, 0.05, 50, dtype=torch.float64)
    alpha, sigma = schedule.sqrt(), (1 - schedule).sqrt()
    data = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))

    def train(ours):
        torch.manual_seed(2)
        model = torch.nn.Sequential(torch.nn.Linear(7, 32), torch.nn.SiLU(), torch.nn.Linear(32, 6))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses = []
        for step in range(40):
            t = torch.randint(0, 50, (64,), generator=torch.Generator().manual_seed(step))
            index = torch.arange(64) + 64 * step
            names = zip(index.tolist(), t.tolist(), strict=True)
            eps = torch.from_numpy(np.stack([ops.normal(6, seed=5, index=i, timestep=s) for i, s in names]))
            if ours:
                x_t = dt.add_noise(data, alpha[t], sigma[t], seed=5, index=index, timestep=t)
            else:
                x_t = alpha[t, None].float() * data + sigma[t, None].float() * eps
            prediction = model(torch.cat([x_t, t[:, None] / 50], 1))
            if ours:
                value = dt.eps_error(prediction, eps, loss=loss.removesuffix("_loss").replace("mse", "l2")).mean()
            else:
                value = getattr(torch.nn.functional, loss)(prediction, eps)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        return np.array(losses)

    ours, plain = train(True), train(False)
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-5)
    assert plain[-1] < 0.9 * plain[0]  # it did train


# ---- without PyTorch, and before it is used ----------------------------------------------------------------------------


def test_it_is_imported_on_use_and_its_extra_is_named():
    script = """
import sys, diffcls
assert "torch" not in sys.modules and "torch" in dir(diffcls)
sys.modules["torch"] = None
try:
    diffcls.torch
except diffcls.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "pip install 'diffcls[torch]'" in done.stdout, done.stderr


# ---- what is refused --------------------------------------------------------------------------------------------------


def test_bad_arguments_of_add_noise():
    x = torch.zeros(2, 3)
    good = {"x_start": x, "alpha": 1.0, "sigma": 1.0, "eps": x}
    key = {"eps": None, "seed": 1, "index": 0, "timestep": 0}
    for change, error, message in [
        ({"x_start": np.zeros((2, 3))}, DTypeError, "x_start is ndarray, must be a torch.Tensor"),
        ({"x_start": x.long()}, DTypeError, "x_start is of torch.int64"),
        ({"x_start": x.to("meta")}, DeviceError, "x_start is on meta, must be on the CPU or a CUDA device"),
        ({"x_start": torch.zeros(())}, ShapeError, r"x_start has no axes, must be \(B, \*shape\)"),
        ({"eps": x[:1]}, ShapeError, r"eps has shape \(1, 3\), must have \(2, 3\)"),
        ({"eps": x.to("meta")}, DeviceError, "eps is on meta, x_start on cpu; they must be on one device"),
        ({"eps": x.long()}, DTypeError, "eps is of torch.int64"),
        ({"eps": None}, InputError, "add_noise needs eps, or seed, index and timestep"),
        ({"alpha": torch.ones(3)}, ShapeError, r"alpha has shape \(3,\), must be \(\) or \(2,\)"),
        ({"sigma": torch.ones(2, dtype=torch.complex64)}, DTypeError, "sigma is of torch.complex64"),
        ({**key, "seed": -1}, InputError, r"seed is -1, must be 0 to 2\*\*64 - 1"),
        ({**key, "index": torch.ones(2)}, InputError, "index is of torch.float32, must be of integers"),
        ({**key, "timestep": torch.zeros(3, dtype=torch.int64)}, ShapeError, r"timestep has shape \(3,\)"),
        ({**key, "index": -1}, InputError, r"index reaches from -1 to -1, must be from 0 to 2\*\*32 - 1"),
    ]:
        with pytest.raises(error, match=message) as caught:
            dt.add_noise(**{**good, **change})
        assert "\n" not in str(caught.value)


def test_bad_arguments_of_eps_error():
    x = torch.zeros(2, 3)
    for arguments, options, error, message in [
        ((x, x[:, :2]), {}, ShapeError, r"prediction has shape \(2, 3\), target \(2, 2\); they must be the same"),
        ((x, np.zeros((2, 3))), {}, DTypeError, "target is ndarray"),
        ((x, x.to("meta")), {}, DeviceError, "target is on meta"),
        ((x, x), {"loss": "mse"}, InputError, "loss is 'mse', must be 'l2', 'l1' or 'huber'"),
        ((x, x), {"loss": "huber", "delta": 0.0}, InputError, "delta is 0.0, must be positive and finite"),
        ((x, x), {"weight": torch.ones(3)}, ShapeError, r"weight has shape \(3,\)"),
    ]:
        with pytest.raises(error, match=message):
            dt.eps_error(*arguments, **options)


def test_keys_are_whole_numbers():
    """A timestep of 3.9 is not 3."""
    x = torch.zeros(2, 3)
    for key in ({"timestep": 3.9, "index": 0}, {"timestep": 3, "index": [0.7, 1.0]}, {"timestep": 3, "index": True}):
        with pytest.raises(InputError, match="must be of integers"):
            dt.add_noise(x, 1.0, 1.0, seed=0, **key)
