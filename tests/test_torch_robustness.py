"""`diffcls.torch.maximize_likelihood` against the Gaussian's closed form, and what attacks and it refuse."""

import numpy as np
import pytest

import diffcls

torch = pytest.importorskip("torch")

import diffcls.torch as dt  # noqa: E402

pytestmark = pytest.mark.torch

MEANS = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.5, 0.5, 0.5]])
SCHEDULE = diffcls.Schedule.linear(100)
ALPHA, SIGMA = (torch.tensor(column, dtype=torch.float32) for column in (SCHEDULE.alpha, SCHEDULE.sigma))


def predict(x_t, t, cond):
    """E[eps | x_t, class] of x_start ~ N(mean, I)."""
    return SIGMA[t, None] * (x_t - ALPHA[t, None] * MEANS[cond])


def diffusion(classes=("right", "left", "top"), **options):
    model = diffcls.Denoiser(
        predict, shape=(3,), schedule=SCHEDULE, framework="torch", class_names=["right", "left", "top", "none"]
    )
    return dt.DiffusionClassifier(model, list(classes), **{"n_samples": 16, **options})


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)) * 2.0


def test_one_class_goes_to_its_mean(x):
    """The null class's loss is a parabola around its mean: Adam's first step is lr along each axis, the last ones are there."""
    prior = diffusion(["none"], noise="antithetic")  # the noise's own gradient cancels
    first = dt.maximize_likelihood(prior, x, n_steps=1, lr=0.01)
    torch.testing.assert_close(first - x, 0.01 * (MEANS[3] - x).sign(), rtol=1e-3, atol=1e-6)
    last = dt.maximize_likelihood(prior, x, n_steps=400, lr=0.1)
    assert (last - MEANS[3]).abs().max() < 0.15 < (x - MEANS[3]).abs().max()


def test_several_classes_are_their_mixture(x):
    """The first step follows the sign of d/dx of -log sum_k p(k) exp(-loss_k / temperature), by finite differences."""
    model = diffusion(temperature=0.05, priors=[0.5, 0.3, 0.2])

    def objective(inputs):
        losses = model.losses(inputs).detach().numpy()
        return -np.log((np.array([0.5, 0.3, 0.2]) * np.exp(-losses / 0.05)).sum(1))

    step = dt.maximize_likelihood(model, x, n_steps=1, lr=0.01) - x
    for axis in range(3):
        nudge = 1e-2 * torch.eye(3)[axis]
        slope = objective(x + nudge) - objective(x - nudge)
        clear = np.abs(slope) > 1e-3
        assert clear.sum() >= 4 and (np.sign(slope) == -np.sign(step[:, axis].numpy()))[clear].all()


def test_noise_is_fresh_at_every_step_but_where_it_was_given(x, monkeypatch):
    draws = []
    forward = dt.DiffusionClassifier.forward

    def watched(self, x_start, *, draw=0):
        draws.append(draw)
        return forward(self, x_start, draw=draw)

    monkeypatch.setattr(dt.DiffusionClassifier, "forward", watched)
    dt.maximize_likelihood(diffusion(), x, n_steps=3)
    dt.maximize_likelihood(diffusion(noise=np.zeros((16, 3), np.float32)), x, n_steps=2)
    assert draws == [0, 1, 2, 0, 0]


def test_bounds_radius_and_weights(x):
    inside = x.clamp(-1.0, 1.0)
    found = dt.maximize_likelihood(diffusion(), inside, n_steps=8, lr=0.3, radius=0.4, low=-1.0, high=1.0)
    distance = (found - inside).norm(dim=1)
    assert distance.max() <= 0.4 * (1 + 1e-6) and distance.min() > 0.1 and found.abs().max() <= 1.0
    torch.testing.assert_close(inside, x.clamp(-1.0, 1.0))


def test_the_attack_goes_through_it_as_if_it_did_nothing(x):
    """Identity backwards; so PGD works on the whole, and what a plain attack did is partly undone."""
    x = x.clone().requires_grad_()
    weights = torch.arange(18.0).reshape(6, 3)
    (gradient,) = torch.autograd.grad((weights * dt.maximize_likelihood(diffusion(), x)).sum(), x)
    torch.testing.assert_close(gradient, weights)
    x, labels = MEANS[:3].repeat(20, 1), torch.arange(3).repeat(20)
    x = x + 0.5 * torch.from_numpy(np.random.default_rng(1).standard_normal((60, 3)).astype(np.float32))
    model = diffusion(temperature=0.1)
    moved = dt.pgd(model, x, labels, radius=1.6, norm="l2")
    whole = dt.pgd(lambda rows: model(dt.maximize_likelihood(model, rows)), x, labels, radius=1.6, norm="l2", n_steps=3)
    assert not torch.equal(whole, x) and (whole - x).norm(dim=1).max() <= 1.6 * (1 + 1e-5)
    loss = [model.losses(rows).amin(1).mean() for rows in (moved, dt.maximize_likelihood(model, moved))]
    assert loss[1] < loss[0]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m, x: dt.maximize_likelihood(len, x), TypeError, "diffusion is <built-in function len>, must be of type Diff"),
        (lambda m, x: dt.maximize_likelihood(m, x.long()), TypeError, "x_start is of dtype torch.int64, must be a torch.Tensor of"),
        (lambda m, x: dt.maximize_likelihood(m, x, n_steps=0), ValueError, "n_steps is 0"),
        (lambda m, x: dt.maximize_likelihood(m, x, lr=-1.0), ValueError, "lr is -1.0, must be a number above 0"),
        (lambda m, x: dt.maximize_likelihood(m, x, radius=0), ValueError, "radius is 0, must be a number above 0"),
        (lambda m, x: dt.maximize_likelihood(m, x, low=1.0, high=-1.0), ValueError, "low is 1.0 and high is -1.0, must be low < high"),
        (lambda m, x: dt.maximize_likelihood(m, x, high="a"), ValueError, "high is 'a', must be a finite number"),
        (lambda m, x: dt.pgd(m, x.numpy(), torch.zeros(6).long(), radius=1.0), TypeError, "x_start is ndarray, must be"),
        (lambda m, x: dt.pgd(m, x.to(torch.uint8), torch.zeros(6).long(), radius=1.0), TypeError, "dtype torch.uint8"),
        (lambda m, x: dt.pgd(m, x[0, 0], torch.zeros(1).long(), radius=1.0), ValueError, r"shape \(\), must be \(N, \*shape\)"),
        (lambda m, x: dt.pgd(m, x * torch.nan, torch.zeros(6).long(), radius=1.0), ArithmeticError, "NaN or infinity"),
        (lambda m, x: dt.pgd(m, x, torch.zeros(6), radius=1.0), TypeError, "labels is of dtype torch.float32, must be a"),
        (lambda m, x: dt.pgd(m, x, [0] * 6, radius=1.0), TypeError, "labels is list, must be a torch.Tensor of integers"),
        (lambda m, x: dt.pgd(m, x, torch.zeros(5).long(), radius=1.0), ValueError, r"labels has shape \(5,\), must be \(6,\)"),
        (lambda m, x: dt.pgd(m, x, torch.full((6,), 3), radius=1.0), ValueError, "labels reach from 3 to 3, must be 0 to 2"),
        (lambda m, x: dt.pgd(lambda r: r[0], x, torch.zeros(6).long(), radius=1.0), ValueError, r"model gave shape \(3,\)"),
        (lambda m, x: dt.pgd(lambda r: r.detach(), x, torch.zeros(6).long(), radius=1.0), ValueError, "logits without a gradient"),
        (lambda m, x: m(x.long()), TypeError, "x_start is of torch.int64, must be float32"),
        (lambda m, x: m(x.to(torch.complex64)), TypeError, "x_start is of torch.complex64"),
        (lambda m, x: m.losses(x, classes=torch.zeros(6)), ValueError, "must be 6 integers, one an image"),
        (lambda m, x: m.losses(x, classes=["a"] * 6), ValueError, "must be 6 integers, one an image"),
        (lambda m, x: m.mixed_losses(x, torch.ones(6, 3).long()), ValueError, "no floating-point numbers that could be mixed"),
    ],
)  # fmt: skip
def test_bad_input(call, error, said, x):
    with pytest.raises(error, match=said):
        call(diffusion(), x)


def test_losses_that_are_nan_are_told(x):
    model = diffcls.Denoiser(
        lambda x_t, t, cond: x_t * torch.nan, shape=(3,), schedule=SCHEDULE, n_classes=2, framework="torch", name="bad"
    )
    with pytest.raises(diffcls.NonFiniteError, match="bad gave losses with NaN or infinity"):
        dt.maximize_likelihood(dt.DiffusionClassifier(model, n_samples=2), x)


def test_a_model_of_another_dtype_or_device_is_named(x):
    net = torch.nn.Linear(3, 3)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x_t, t, cond):
            return self.net(x_t)

    denoiser = diffcls.Denoiser(Net(), shape=(3,), schedule=SCHEDULE, n_classes=2)
    model = dt.DiffusionClassifier(denoiser, n_samples=2)
    with pytest.raises(
        diffcls.DTypeError, match="given torch.float64 and has weights of torch.float32: x_start must be of"
    ):
        model(x.double())
    assert dt.DiffusionClassifier(denoiser.to(dtype="float32"), n_samples=2)(x.double()).shape == (6, 2)
    net.to("meta")
    with pytest.raises(diffcls.DeviceError, match="x_start is on cpu, the model's weights on meta"):
        model(x)
    net.to_empty(device="cpu")

    def broken(x_t, t, cond):
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        dt.DiffusionClassifier(
            diffcls.Denoiser(broken, shape=(3,), schedule=SCHEDULE, n_classes=2, framework="torch"), n_samples=2
        )(x)
