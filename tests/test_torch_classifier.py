"""`diffcls.torch.DiffusionClassifier` against `diffcls.Classifier` on the same denoiser, and its gradients."""

import copy
import pickle

import numpy as np
import pytest

import diffcls
from diffcls import Fixed, InputError, Race, ShapeError
from diffcls.models import demo_pictures

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

import diffcls.torch as dt  # noqa: E402

pytestmark = pytest.mark.torch


class Net(torch.nn.Module):
    """A small denoiser of 3 x 2 values that is given embeddings."""

    def __init__(self, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6 + 1 + 4, width), torch.nn.Tanh(), torch.nn.Linear(width, 6))

    def forward(self, x_t, t, cond):
        time = t[:, None].to(x_t.dtype) / 100
        return self.layers(torch.cat([x_t.flatten(1), time, cond.to(x_t.dtype)], 1)).reshape(x_t.shape)


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    return diffcls.Denoiser(
        Net().double().float(),
        shape=(3, 2),
        schedule=diffcls.Schedule.linear(100),
        prediction_type="v_prediction",
        conditions=torch.randn(4, 4),
        class_names=list("abcd"),
    )


@pytest.fixture
def x():
    return torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(3))


# ---- the same losses as the core's -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "l1", "batch_size": 7},
        {"loss": "huber", "noise": "antithetic", "seed": 9},
        {"noise": np.random.default_rng(0).standard_normal((6, 3, 2)).astype(np.float32)},
        {"weighting": np.linspace(0.1, 2, 100), "priors": [0.1, 0.2, 0.3, 0.4], "temperature": 0.3},
        {"prompts": {"x": [0, 2], "y": [1, 3]}},
        {"prompts": {"x": [0, 2, 1], "y": [3]}, "pool": "mean"},
        {"prompts": {"x": [0, 2, 1], "y": [3]}, "pool": "logmeanexp", "temperature": 0.2},
        {"prompts": ["d", "a"], "batch_size": 1},
    ],
)
def test_losses_are_the_classifiers(denoiser, x, options):
    model = dt.DiffusionClassifier(denoiser, n_samples=6, **options)
    results = diffcls.Classifier(denoiser, policy=Fixed(6), **options)(x)
    with torch.no_grad():
        np.testing.assert_allclose(model.losses(x), results.losses, rtol=0, atol=1e-6)
        np.testing.assert_allclose(model(x).softmax(1), results.probabilities, rtol=0, atol=1e-5)
    assert model.classes == results[0].classes and model.losses(x).argmin(1).tolist() == [r.index for r in results]


def test_explicit_timesteps(denoiser, x):
    model = dt.DiffusionClassifier(denoiser, timesteps=[50, 20, 70])
    table = diffcls.Classifier(denoiser, policy=Race(timesteps=[50, 20, 70])).error_table(
        x, policy=Race(timesteps=[50, 20, 70])
    )
    with torch.no_grad():
        np.testing.assert_allclose(model.losses(x), table.errors.mean(2), rtol=0, atol=1e-6)


def test_one_class_an_image_and_another_draw(denoiser, x):
    model = dt.DiffusionClassifier(denoiser, n_samples=4, batch_size=5)
    labels = torch.tensor([3, 0, 1, 2, 3])
    with torch.no_grad():
        whole = model.losses(x)
        torch.testing.assert_close(model.losses(x, classes=labels), whole[torch.arange(5), labels], rtol=1e-6, atol=0)
        assert not torch.equal(model.losses(x, draw=1), whole)
        # the noise of another draw: that of other indices at the same timesteps
        names = zip((model._index + 4).tolist(), model._timestep.tolist(), strict=True)
        eps = np.stack([diffcls.ops.normal((3, 2), seed=0, index=index, timestep=t) for index, t in names])
        given = dt.DiffusionClassifier(denoiser, n_samples=4, noise=eps)
        torch.testing.assert_close(model.losses(x, draw=1), given.losses(x), rtol=1e-6, atol=0)


def test_the_embedded_model_has_a_twin():
    pictures, _ = demo_pictures.load()
    model = dt.DiffusionClassifier(n_samples=3)
    results = diffcls.Classifier(policy=Fixed(3))(list(pictures[:4]))
    with torch.no_grad():
        x = model.encode(list(pictures[:4]))
        np.testing.assert_allclose(model.losses(x), results.losses, rtol=0, atol=1e-6)
        np.testing.assert_allclose(model(x).softmax(1), results.probabilities, rtol=0, atol=1e-4)
        mixed = dt.DiffusionClassifier(n_samples=3, learn="conditions")
        assert mixed.conditions.all().shape == (20, 128)
        torch.testing.assert_close(mixed.losses(x), model.losses(x), rtol=1e-6, atol=0)
    with pytest.raises(TypeError, match="must be an embedded model"):
        dt.twin(diffcls.Denoiser(lambda *a: a[0], shape=(2,), schedule=diffcls.Schedule.linear(4), n_classes=2))


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_to_image_noise_conditions_and_weights(denoiser, x):
    """Against finite differences, all in float64."""
    denoiser = denoiser.to(dtype="float64")
    denoiser.predict.double()
    model = dt.DiffusionClassifier(denoiser, n_samples=2, learn=("noise", "conditions"), batch_size=3)
    model.double()
    parameters = dict(model.named_parameters())
    assert {"noise", "conditions.rows", "model.layers.0.weight"} <= set(parameters)
    names = ["noise", "conditions.rows", "model.layers.2.bias"]

    def losses(x, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    leaves = [x[:2].double().requires_grad_(), *(parameters[name].detach().clone().requires_grad_() for name in names)]
    assert torch.autograd.gradcheck(losses, leaves)


def test_checkpointing_changes_no_gradient(denoiser, x):
    """And keeps fewer activations: what autograd saved for the backward pass is counted."""
    found, saved = [], []
    for checkpoint in (False, True):
        model = dt.DiffusionClassifier(denoiser, n_samples=8, checkpoint=checkpoint, batch_size=16, learn="conditions")
        image, total = x.clone().requires_grad_(), [0]

        def pack(tensor, total=total):
            total[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = F.cross_entropy(model(image), torch.tensor([0, 1, 2, 3, 0]))
        saved.append(total[0])
        found.append([value, *torch.autograd.grad(value, [image, *model.parameters()])])
    for kept, again in zip(*found, strict=True):
        assert torch.equal(kept, again)
    assert saved[1] < 0.5 * saved[0]


def test_copies_and_pickles_are_of_their_own_weights(denoiser, x):
    model = dt.DiffusionClassifier(denoiser, n_samples=3)
    before = model(x).detach()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            other.model.layers[2].bias += 1.0
        assert torch.equal(model(x).detach(), before) and not torch.equal(other(x).detach(), before)


def test_a_function_with_its_module(denoiser, x):
    """Weights behind a plain function are found by `module`; a mapping of conditions is learned where it is of floats."""
    net = denoiser.predict
    facts = {"shape": (3, 2), "schedule": denoiser.schedule, "prediction_type": "v_prediction", "framework": "torch"}
    conditions = {"rows": denoiser.conditions, "id": torch.arange(4)}
    wrapped = diffcls.Denoiser(lambda x_t, t, cond: net(x_t, t, cond["rows"]), conditions=conditions, **facts)
    model = dt.DiffusionClassifier(wrapped, n_samples=3, module=net, learn="conditions")
    torch.testing.assert_close(model(x), dt.DiffusionClassifier(denoiser, n_samples=3)(x), rtol=1e-6, atol=0)
    names = [name for name, _ in model.named_parameters()]
    assert "model.module.layers.0.weight" in names and [n for n in names if "cond" in n] == ["conditions.rows"]


def test_diffusers_models_have_gradients():
    """Their own `predict` is for inference only."""
    pytest.importorskip("diffusers")
    import pipelines

    denoiser = diffcls.load(pipelines.dit())
    model = dt.DiffusionClassifier(denoiser, n_samples=2)
    picture = np.random.default_rng(0).integers(0, 256, (*denoiser.adapter.size, 3), dtype=np.uint8)
    x = model.encode([picture]).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch 2.13's fused CPU backward gives NaN at these sizes
        model(x)[0, 0].backward()
    assert x.grad.abs().sum() > 0 and any(p.grad is not None for p in model.parameters())
    losses = diffcls.Classifier(denoiser, policy=Fixed(2))([picture]).losses
    np.testing.assert_allclose(model.losses(x.detach()).detach(), losses, rtol=1e-5)


# ---- what is refused --------------------------------------------------------------------------------------------------


def test_bad_arguments(denoiser, x):
    for options, error, message in [
        ({"learn": "weights"}, InputError, "learn is 'weights', must be of 'conditions' and 'noise'"),
        ({"learn": "noise", "noise": "antithetic"}, InputError, "learned noise has a row for every trial"),
        ({"n_samples": 0}, InputError, "n_samples is 0"),
    ]:
        with pytest.raises(error, match=message):
            dt.DiffusionClassifier(denoiser, **options)
    numpy = diffcls.Denoiser(lambda *a: a[0], shape=(2,), schedule=diffcls.Schedule.linear(4), n_classes=2)
    with pytest.raises(TypeError, match="computes with numpy, must be a Denoiser of framework 'torch'"):
        dt.DiffusionClassifier(numpy)
    with pytest.raises(InputError, match="given class ids and has no conditions that could be learned"):
        dt.DiffusionClassifier(
            diffcls.Denoiser(torch.nn.Identity(), shape=(2,), schedule=diffcls.Schedule.linear(4), n_classes=2),
            learn="conditions",
        )
    model = dt.DiffusionClassifier(denoiser, n_samples=2)
    for image, error, message in [
        (x.numpy(), TypeError, "x_start is ndarray, must be a torch.Tensor; `encode` makes one of pictures"),
        (x[0], ShapeError, r"x_start has shape \(3, 2\), must be \(N, 3, 2\)"),
        (x.long(), TypeError, "x_start is of torch.int64"),
    ]:
        with pytest.raises(error, match=message):
            model(image)
    with pytest.raises(InputError, match="classes reaches from 0 to 4, must be 0 to 3"):
        model.losses(x, classes=torch.tensor([0, 1, 2, 3, 4]))
    with pytest.raises(InputError, match="must be 5 integers, one an image"):
        model.losses(x, classes=torch.tensor([0.5] * 5))
    with pytest.raises(InputError, match="draw is 1, and given or learned noise has no other draws"):
        dt.DiffusionClassifier(denoiser, n_samples=2, learn="noise").losses(x, draw=1)
