"""`diffcls.torch` inside training loops: Evaluator and its callbacks, adaptation, plug-ins, attacks."""

import os
import random
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import diffcls
from diffcls import Fixed, InputError

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

import diffcls.torch as dt  # noqa: E402

pytestmark = pytest.mark.torch


class Means(torch.nn.Module):
    """E[eps | x_t, class] of classes N(mean_k, I), with the means as weights, and a dropout that would disturb it."""

    def __init__(self, means):
        super().__init__()
        self.means = torch.nn.Parameter(torch.as_tensor(means, dtype=torch.float32))
        self.dropout = torch.nn.Dropout(0.5)
        schedule = diffcls.Schedule.linear(100)
        self.register_buffer("alpha", torch.tensor(schedule.alpha, dtype=torch.float32))
        self.register_buffer("sigma", torch.tensor(schedule.sigma, dtype=torch.float32))

    def forward(self, x_t, t, cond):
        means = cond if cond.is_floating_point() else self.means[cond]
        return self.dropout(self.sigma[t, None] * (x_t - self.alpha[t, None] * means))


MEANS = np.array([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)


def facts(**more):
    return {"shape": (3,), "schedule": diffcls.Schedule.linear(100), "n_classes": 3, **more}


@pytest.fixture
def model():
    return Means(MEANS)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    return (MEANS[labels] + 0.7 * rng.standard_normal((12, 3))).astype(np.float32), labels


@pytest.fixture
def evaluator(model, data):
    return dt.Evaluator(diffcls.Denoiser(model, **facts()), *data, max_evals=12 * 60, every=2)


# ---- Evaluator -------------------------------------------------------------------------------------------------------


def test_evaluator_is_the_classifier_on_a_budget(evaluator, model, data):
    found = evaluator(step=7)
    results = diffcls.Classifier(
        diffcls.Denoiser(model.eval(), **facts()), policy=diffcls.Race(max_evals=60), progress=False
    )(data[0])
    assert found.accuracy == np.mean([r.index == label for r, label in zip(results, data[1], strict=True)])
    assert found.n_evals == results.n_evals.sum() <= 12 * 60 and found.n_images == 12 and found.step == 7
    assert found.low < found.accuracy <= found.high and evaluator.history == [found]
    assert evaluator.step(3) is None and evaluator.step(4).to_dict()["zero_shot/accuracy"] == found.accuracy


def test_evaluator_leaves_no_trace(model, data):
    """Weights to the bit, every training flag, every random state, also where the model draws and fails."""

    def predict(x_t, t, cond):
        torch.rand(1), np.random.random(), random.random()  # noqa: NPY002
        assert not model.training and torch.equal(model.means, averaged.means)
        if fails:
            raise RuntimeError("on purpose")
        return model(x_t, t, cond)

    averaged, fails = Means(MEANS[::-1].copy()), False
    denoiser = diffcls.Denoiser(predict, framework="torch", **facts())
    evaluate = dt.Evaluator(denoiser, *data, policy=Fixed(4), weights=lambda: averaged, module=model)
    model.train()
    model.dropout.eval()
    before = model.means.detach().clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for fails in (False, True):
        if fails:
            with pytest.raises(RuntimeError, match="on purpose"):
                evaluate()
        else:
            evaluate()
        assert torch.equal(model.means, before) and model.training and not model.dropout.training
        assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
        np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_averaged_weights_of_every_kind(model):
    other = Means(MEANS[::-1].copy())
    x, t, cond = torch.ones(1, 3), torch.tensor([3]), torch.tensor([0])
    expected = other.eval()(x, t, cond)
    swa = torch.optim.swa_utils.AveragedModel(other)
    for weights in (other, swa, other.state_dict(), [other.means], iter([other.means])):
        with dt.borrowed(model, weights):
            assert torch.equal(model(x, t, cond), expected)
        assert torch.equal(model.means, torch.as_tensor(MEANS))
    for weights, message in [
        ({"means": other.means}, "weights are not of this module: 'alpha' is in one of the two only"),
        ([], "weights are 0 tensors, the module has 1 parameters"),
        ([torch.zeros(2, 3)], r"weights have a tensor of shape \(2, 3\) for one of \(3, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message), dt.borrowed(model, weights):
            pass


def test_evaluator_refuses(model, data):
    denoiser, (x, labels) = diffcls.Denoiser(model, **facts()), data
    for arguments, options, message in [
        ((denoiser, x, labels), {}, "either max_evals or policy must be given"),
        ((denoiser, x, labels), {"max_evals": 35}, "max_evals is 35, 12 pictures of 3 prompts need 36"),
        ((denoiser, x, labels[:3]), {"max_evals": 99}, "must be 12 integers, one a picture"),
        ((denoiser, x, labels + 1), {"max_evals": 99}, "labels reaches from 1 to 3, must be 0 to 2"),
    ]:
        with pytest.raises(InputError, match=message):
            dt.Evaluator(*arguments, **options)
    function = diffcls.Denoiser(lambda *a: model(*a), framework="torch", **facts())
    with pytest.raises(InputError, match="predict is a function; give module="):
        dt.Evaluator(function, x, labels, max_evals=99)
    with pytest.raises(TypeError, match="weights is OrderedDict, must be a function"):
        dt.Evaluator(denoiser, x, labels, max_evals=99, weights=model.state_dict())
    with pytest.raises(InputError, match="loss is 'foo'"):
        dt.Evaluator(denoiser, x, labels, max_evals=99, loss="foo")


def test_two_processes_share_the_pictures(evaluator, tmp_path):
    """Of torch.distributed, through accelerate's own loop: both get the answer of one process."""
    pytest.importorskip("accelerate")
    alone = evaluator()
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.path.insert(0, sys.argv[1])
            import numpy as np, torch, diffcls, diffcls.torch as dt
            from accelerate import Accelerator
            from test_torch_training import MEANS, Means, facts
            accelerator = Accelerator(cpu=True)
            assert accelerator.num_processes == 2 and torch.distributed.get_backend() == "gloo"
            labels = np.arange(12) % 3
            x = (MEANS[labels] + 0.7 * np.random.default_rng(0).standard_normal((12, 3))).astype(np.float32)
            model = accelerator.prepare(Means(MEANS))
            denoiser = diffcls.Denoiser(accelerator.unwrap_model(model), **facts())
            found = dt.Evaluator(denoiser, x, labels, max_evals=720)()
            print("found", found.accuracy, found.n_images, found.n_evals, flush=True)
            """
        )
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([os.path.dirname(os.path.dirname(diffcls.__file__)), os.environ.get("PYTHONPATH", "")])
    shared = {**os.environ, "PYTHONPATH": path, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    shared |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, str(script), here]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen(command, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, **options) for i in range(2)
    ]
    try:
        said = [process.communicate(timeout=240) for process in both]
    finally:
        for process in both:
            process.kill()
    for out, err in said:
        assert f"found {alone.accuracy} 12 {alone.n_evals}" in out, err


def test_lightning(evaluator, model):
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model

        def training_step(self, batch, _):
            return self.net.means.square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    trainer = lightning.Trainer(
        max_steps=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[dt.lightning_callback(evaluator)],
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.zeros(8, 1)))
    assert [found.step for found in evaluator.history] == [2, 4]
    assert float(trainer.callback_metrics["zero_shot/accuracy"]) == pytest.approx(evaluator.history[-1].accuracy)


def test_transformers_trainer(evaluator, model, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return {"loss": self.net.means.square().mean() + 0.0 * x.sum()}

    options = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=5, per_device_train_batch_size=1, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = [{"x": torch.zeros(1)} for _ in range(8)]
    callbacks = [dt.trainer_callback(evaluator)]
    trainer = transformers.Trainer(model=Module(), args=options, train_dataset=data, callbacks=callbacks)
    trainer.train()
    logged = {
        entry["step"]: entry["zero_shot/accuracy"]
        for entry in trainer.state.log_history
        if "zero_shot/accuracy" in entry
    }
    assert logged == {found.step: found.accuracy for found in evaluator.history} and set(logged) == {2, 4}


# ---- adaptation, plug-ins, attacks -----------------------------------------------------------------------------------


def test_adapt_moves_to_what_the_diffusion_model_sees(model, data):
    """A linear classifier that is biased to class 0; the exact denoiser's mixed condition pulls it to the truth."""
    x, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    denoiser = diffcls.Denoiser(model.eval(), **facts(conditions=torch.from_numpy(MEANS)))
    diffusion = dt.DiffusionClassifier(denoiser, n_samples=16)
    classifier = torch.nn.Linear(3, 3)
    with torch.no_grad():
        classifier.weight.copy_(0.3 * torch.from_numpy(MEANS))
        classifier.bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
    before = [parameter.detach().clone() for parameter in classifier.parameters()]
    first = F.cross_entropy(classifier(x), labels)
    options = {"n_steps": 30, "lr": 0.1}
    logits = dt.adapt(classifier, diffusion, x, **options)
    assert F.cross_entropy(logits, labels) < 0.5 * first
    for parameter, value in zip(classifier.parameters(), before, strict=True):
        assert torch.equal(parameter, value) and parameter.grad is None
    assert model.means.grad is None
    normed = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    normed[1].bias.grad = torch.ones(3)
    was = {name: value.clone() for name, value in normed.state_dict().items()}
    dt.adapt(normed, diffusion, x, **options)
    assert all(torch.equal(value, was[name]) for name, value in normed.state_dict().items())
    assert torch.equal(normed[1].bias.grad, torch.ones(3))
    kept = dt.adapt(classifier, diffusion, x, parameters=[classifier.bias], keep=True, **options)
    assert torch.equal(classifier.weight, before[0]) and not torch.equal(classifier.bias, before[1])
    torch.testing.assert_close(classifier(x).detach(), kept)
    one_hot = torch.eye(3)[labels]
    torch.testing.assert_close(
        diffusion.mixed_losses(x, one_hot), diffusion.losses(x, classes=labels), rtol=1e-6, atol=1e-7
    )
    with pytest.raises(InputError, match="are no floating-point numbers that could be mixed"):
        ids = dt.DiffusionClassifier(diffcls.Denoiser(model, **facts()), n_samples=2)
        dt.adapt(classifier, ids, x)


def test_masks_of_conditions_can_be_mixed(data):
    """A class alone has its own mask; what all share stays; whole numbers of another kind are refused."""
    x, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    rows = torch.from_numpy(MEANS)[:, None].repeat(1, 2, 1)
    rows[:, 1] *= torch.tensor([0.5, 3.0, -0.5])[:, None]
    mask = torch.tensor([[1, 0], [1, 1], [0, 1]])
    conditions = {"rows": rows, "mask": mask, "size": torch.full((3, 2), 512)}

    def predict(x_t, t, cond):
        assert cond["mask"].dtype == torch.int64 and (cond["size"] == 512).all()
        kept = cond["mask"].float()
        means = (cond["rows"] * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        alpha, sigma = (torch.tensor(column, dtype=torch.float32) for column in (schedule.alpha, schedule.sigma))
        return sigma[t, None] * (x_t - alpha[t, None] * means)

    schedule = diffcls.Schedule.linear(100)
    model = dt.DiffusionClassifier(
        diffcls.Denoiser(predict, shape=(3,), schedule=schedule, conditions=conditions, framework="torch"), n_samples=4
    )
    one_hot = torch.eye(3)[labels]
    torch.testing.assert_close(model.mixed_losses(x, one_hot), model.losses(x, classes=labels), rtol=1e-6, atol=1e-7)
    weights = torch.tensor([[0.4, 0.35, 0.25], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]], requires_grad=True)
    from diffcls.torch.conditions import mix

    assert mix(conditions, weights)["mask"].tolist() == [[1, 1], [1, 0], [0, 1]]
    (gradient,) = torch.autograd.grad(model.mixed_losses(x[:3], weights).sum(), weights)
    assert (gradient != 0).all()
    with pytest.raises(InputError, match="ids of the conditions are whole numbers in which classes differ"):
        mix({"rows": rows, "ids": torch.arange(3)[:, None]}, weights)


def test_adapt_takes_the_shapes_model():
    """Whose conditions hold a mask of int64 beside embeddings."""
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = dt.DiffusionClassifier(
        diffcls.load("shapes"), ["a red circle left of a blue square", "a blue square", "a green ring"], n_samples=2
    )
    x = model.encode(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
    before = small(x)
    after = dt.adapt(small, model, x, n_steps=2, lr=1e-2)
    assert after.shape == (2, 3) and torch.isfinite(after).all() and not torch.equal(after, before)


def test_class_lora(data):
    """Nothing at first; then each class's update reaches its own rows only, and fits what the denoising loss asks."""
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(3, 8), torch.nn.Linear(8, 3)

        def forward(self, x_t, t, cond):
            return self.last(torch.tanh(self.first(x_t)))

    denoiser = diffcls.Denoiser(Net(), **facts())
    lora = dt.ClassLoRA(denoiser, rank=2)
    x, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    plain, model = (dt.DiffusionClassifier(d, n_samples=8) for d in (denoiser, lora.denoiser))
    assert torch.equal(model.losses(x), plain.losses(x))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 4 and all(len(parameter) == 3 for parameter in trained)
    of_one = labels == 1
    model.losses(x[of_one], classes=labels[of_one]).mean().backward()
    up = lora.model.last.up.grad
    assert up[1].abs().sum() > 0 and not up[[0, 2]].any()
    optimizer = torch.optim.Adam(trained, lr=0.02)
    for step in range(60):
        optimizer.zero_grad()
        model.losses(x, classes=labels, draw=step).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert model.losses(x, classes=labels).mean() < 0.9 * plain.losses(x, classes=labels).mean()
        assert (model.losses(x).argmin(1) == labels).float().mean() > 0.8  # the network ignored the class
        assert dt.ClassLoRA(denoiser, layers=["last"]).denoiser.predict.model.first.__class__ is torch.nn.Linear
    with pytest.raises(InputError, match="no linear layer has such a name"):
        dt.ClassLoRA(denoiser, layers=["attention"])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_lowers_accuracy_within_its_ball(model, data, norm):
    x, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    classifier = dt.DiffusionClassifier(diffcls.Denoiser(model.eval(), **facts()), n_samples=8, temperature=0.1)
    attacked = dt.pgd(classifier, x, labels, radius=1.2, norm=norm)
    moved = (attacked - x).flatten(1)
    length = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert length.max() <= 1.2 * (1 + 1e-5) and not attacked.requires_grad
    right = [(classifier(images).argmax(1) == labels).sum() for images in (x, attacked)]
    assert right[1] < right[0]
    inside = x.clamp(-1.0, 0.5)
    with torch.no_grad():
        boxed = dt.pgd(classifier, inside, labels, radius=1.2, norm=norm, low=-1.0, high=0.5)
    assert boxed.min() >= -1.0 and boxed.max() <= 0.5 and not torch.equal(boxed, inside)
    with pytest.raises(InputError, match="x_start is .*, must be in low=-1.0 to high=0.5"):
        dt.pgd(classifier, x, labels, radius=1.2, norm=norm, low=-1.0, high=0.5)
    assert dt.pgd(classifier, inside, labels, radius=1.2, norm=norm, high=0.5).max() <= 0.5
    with pytest.raises(InputError, match="step_size"):
        dt.pgd(classifier, x, labels, radius=1.2, step_size=float("nan"))
    with pytest.raises(InputError, match="norm is 'l1', must be 'linf' or 'l2'"):
        dt.pgd(classifier, x, labels, radius=1.0, norm="l1")
