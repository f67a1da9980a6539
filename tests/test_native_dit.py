"""The core's own DiT, read from diffusers' folders and from original checkpoints, against diffusers and PyTorch."""

import json
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import pipelines  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import diffcls  # noqa: E402
from diffcls import _core  # noqa: E402
from diffcls.diffusers import load_dit  # noqa: E402
from diffcls.models.torch_dit import Config, DiT  # noqa: E402

pytestmark = pytest.mark.torch
SMALL = {
    "sample_size": 8,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "num_embeds_ada_norm": 10,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def transformer(seed=5, std=0.3, **config):
    """Every weight random, so each block's embedder differs from the others'."""
    model = diffusers.DiTTransformer2DModel(**{"patch_size": 2, "in_channels": 4, "out_channels": 8, **SMALL, **config})
    with torch.no_grad():
        for parameter in pipelines.randomise(model, seed).parameters():
            parameter.mul_(std / 0.3)
    return model


def asked(model, n=5):
    size, channels, classes = model.config.sample_size, model.config.in_channels, model.config.num_embeds_ada_norm
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, channels, size, size, generator=generator)
    return x, torch.tensor([0, 999, 500, 3, 42])[:n], torch.randint(0, classes + 1, (n,), generator=generator)


def theirs(model, x, t, y):
    with torch.no_grad():
        return model(x, timestep=t, class_labels=y).sample.numpy()


def ours(denoiser, x, t, y):
    native, t, y = denoiser.native, t.numpy().astype(np.float64), y.numpy()
    return native.forward(x.numpy(), t, y, backend=_core.Cpu())


def equal(model, denoiser, bound=1e-4, n=5):
    x, t, y = asked(model, n)
    expected = theirs(model, x, t, y)
    assert np.abs(ours(denoiser, x, t, y) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"out_channels": None},
        {"norm_eps": 1e-2},
        {"sample_size": 12, "patch_size": 4, "in_channels": 3, "out_channels": 6, "attention_head_dim": 12},
        {"num_layers": 1, "num_embeds_ada_norm": 1},
        {"sample_size": 32, "attention_head_dim": 64, "num_attention_heads": 6, "num_layers": 2, "std": 0.05},
        {"sample_size": 64, "attention_head_dim": 72, "num_attention_heads": 1, "num_layers": 1, "std": 0.1},
    ],
    ids=["small", "no variance", "eps", "patch 4", "one", "S/2 at 256, 2 blocks", "tokens of 512"],
)
def test_equals_diffusers(tmp_path, config):
    model = transformer(**config)
    model.save_pretrained(tmp_path)
    denoiser = load_dit(tmp_path, native=True)
    equal(model, denoiser, n=2 if model.config.sample_size > 12 else 5)
    classes, size = model.config.num_embeds_ada_norm, model.config.sample_size
    assert denoiser.n_classes == classes and denoiser.shape == (model.config.in_channels, size, size)
    assert denoiser.native.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    with pytest.raises(ValueError, match=f"class label {classes + 1}, must be 0 to {classes}"):
        x, t, y = asked(model, 1)
        ours(denoiser, x, t, 0 * y + classes + 1)


def test_embedders_that_are_equal_are_kept_once(tmp_path):
    model = transformer(num_layers=4)
    same = [model.transformer_blocks[i].norm1.emb for i in (0, 1, 3)]
    for embedder in same[1:]:
        embedder.load_state_dict(same[0].state_dict())
    model.save_pretrained(tmp_path)
    denoiser = load_dit(tmp_path, native=True)
    equal(model, denoiser)
    once = sum(parameter.numel() for parameter in same[0].parameters())
    assert denoiser.native.n_parameters == sum(parameter.numel() for parameter in model.parameters()) - 2 * once
    for name in (
        "timestep_embedder.linear_2.bias",
        "class_embedder.embedding_table.weight",
    ):  # nearly equal is not equal
        with torch.no_grad():
            model.transformer_blocks[3].norm1.emb.get_parameter(name).view(-1)[-1] += 1.0
        model.save_pretrained(tmp_path)
        equal(model, load_dit(tmp_path, native=True))
        model.transformer_blocks[3].norm1.emb.load_state_dict(same[0].state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_widened(tmp_path, dtype):
    transformer().to(dtype).save_pretrained(tmp_path, variant="half")
    model = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path, variant="half", dtype=torch.float32)
    assert model.proj_out_1.weight.dtype == torch.float32
    equal(model.eval(), load_dit(tmp_path, native=True))


def test_sharded_files(tmp_path):
    model = transformer()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    denoiser = load_dit(tmp_path, native=True)
    equal(model, denoiser)
    shards = sorted(tmp_path.glob("*.safetensors"))
    with pytest.raises(diffcls.WeightsError, match="the weights file has no tensor"):
        save_file({}, shards[1])
        load_dit(tmp_path, native=True)
    with pytest.raises(diffcls.WeightsError, match=f"{shards[1].name} can not be read"):
        shards[1].unlink()
        load_dit(tmp_path, native=True)


def test_every_tensor_is_needed_and_no_other_is_taken(tmp_path):
    transformer(num_layers=1).save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    for name in state:
        save_file({key: tensor for key, tensor in state.items() if key != name}, path)
        with pytest.raises(diffcls.WeightsError, match=f"no tensor {name}"):
            load_dit(tmp_path, native=True)
    save_file({**state, "one_more": torch.zeros(1)}, path)
    with pytest.raises(diffcls.WeightsError, match=f"has {len(state) + 1} tensors, the model has {len(state)}"):
        load_dit(tmp_path, native=True)


def test_a_pipeline_classifies_as_with_pytorch(tmp_path, rng):
    pipelines.dit().save_pretrained(tmp_path)
    native, twin = load_dit(tmp_path, native=True), diffcls.load(tmp_path)
    assert native.class_names == twin.class_names and native.shape == twin.shape and native.preparation == "adm"
    assert native.schedule == twin.schedule or np.array_equal(native.schedule.alpha, twin.schedule.alpha)
    images = [rng.integers(0, 256, (20, 16, 3), dtype=np.uint8) for _ in range(3)]
    given = {"policy": diffcls.Fixed(6)}
    found, expected = (diffcls.Classifier(model, **given)(images) for model in (native, twin))
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
    assert found.label == expected.label and found[0].run["preparation"] == expected[0].run["preparation"]
    again = diffcls.Classifier(pickle.loads(pickle.dumps(native)), **given)(images)
    np.testing.assert_array_equal(found.losses, again.losses)
    x, t, y = asked(twin.module)
    alone = native.predict(x.numpy(), t.numpy(), y.numpy() % 10)
    assert alone.shape == (5, 4, 8, 8)


def test_latents_are_classified_without_a_vae(tmp_path, rng):
    model = transformer()
    model.save_pretrained(tmp_path)
    denoiser = load_dit(tmp_path, native=True, class_names=list("abcdefghij"), schedule=diffcls.Schedule.linear(50))
    x_start = rng.standard_normal((4, 8, 8)).astype(np.float32)
    result = diffcls.classify(x_start, model=denoiser, policy=diffcls.Fixed(4))
    schedule = denoiser.schedule
    errors = np.zeros(10)
    for trial in range(4):
        timestep = int(diffcls.Classifier(denoiser, policy=diffcls.Fixed(4)).trials["timestep"][trial])
        index = int(diffcls.Classifier(denoiser, policy=diffcls.Fixed(4)).trials["noise_index"][trial])
        eps = diffcls.ops.normal((4, 8, 8), seed=0, index=index, timestep=timestep)
        x_t = schedule.alpha[timestep] * x_start + schedule.sigma[timestep] * eps
        x = torch.from_numpy(np.repeat(x_t[None], 10, 0).astype(np.float32))
        predicted = theirs(model, x, torch.full((10,), timestep), torch.arange(10))[:, :4]
        errors += ((predicted - eps) ** 2).mean(axis=(1, 2, 3)) / 4
    np.testing.assert_allclose(result.losses, errors, rtol=1e-4)
    assert result.classes[0] == "a"


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_an_original_checkpoint(tmp_path, learn_sigma):
    config = Config(
        input_size=8, patch_size=2, in_channels=4, hidden_size=16, depth=2, num_heads=2, num_classes=7, learn_sigma=learn_sigma
    )  # fmt: skip
    module, path = pipelines.randomise(DiT(config), 31), tmp_path / "dit.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    given = {"n_classes": 6, "num_heads": 2}
    native, twin = load_dit(path, native=True, **given), load_dit(path, device="cpu", **given)
    x, t, y = torch.randn(5, 4, 8, 8), torch.tensor([0, 3, 500, 999, 42]), torch.tensor([5, 0, 1, 2, 3])
    expected = twin.predict(x, t, y).numpy()
    got = native.predict(x.numpy(), t.numpy(), y.numpy())
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max() and got.shape == expected.shape
    assert native.n_classes == twin.n_classes == 6 and native.digest == twin.digest
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(diffcls.WeightsError, match="no safetensors file"):
        load_dit(path, native=True, **given)


@pytest.fixture
def folder(tmp_path):
    transformer().save_pretrained(tmp_path / "transformer")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "PixArtTransformer2DModel"}, "is of a 'PixArtTransformer2DModel'"),
        ({"activation_fn": "gelu"}, "activation_fn 'gelu'; the native DiT computes 'gelu-approximate' only"),
        ({"norm_type": "ada_norm"}, "norm_type 'ada_norm'"),
        ({"attention_bias": False}, "attention_bias False"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine True"),
        ({"out_channels": 5}, "out_channels 5, must be 4 or, with variances, 8"),
        ({"num_layers": None}, "num_layers None, must be a whole number"),
        ({"num_attention_heads": 2.0}, "num_attention_heads 2.0"),
        ({"norm_eps": 2.0}, "config.json has norm_eps 2.0, must be a number between 0 and 1"),
        ({"norm_eps": None}, "norm_eps None, must be a number"),
        ({"norm_eps": "small"}, "norm_eps 'small', must be a number"),
        ({"norm_eps": True}, "norm_eps True, must be a number"),
        ({"patch_size": 3}, "not a multiple of patch_size"),
        ({"attention_head_dim": 1}, "hidden_size 2 is not a multiple of 4"),
        ({"num_layers": 4}, "/.*: the weights file has no tensor transformer_blocks.3"),
        ({"num_layers": 2}, "tensors, the model has"),
        (
            {"num_embeds_ada_norm": 9},
            "embedding_table.weight has 2 dimensions, the first 11, must have 2, the first 10",
        ),
    ],
)
def test_configs_that_are_not_this_dits(folder, change, said):
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        load_dit(folder, native=True)


def test_the_name_that_the_class_had_before_is_known(folder):
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "Transformer2DModel"}))
    assert load_dit(folder, native=True).n_classes == 10


def test_folders_that_can_not_be_read(folder):
    inner = folder / "transformer"
    weights = inner / "diffusion_pytorch_model.safetensors"
    index = inner / "diffusion_pytorch_model.safetensors.index.json"

    def refused(said, **given):
        with pytest.raises(diffcls.DiffclsError, match=said):
            load_dit(given.pop("path", folder), **{"native": True, **given})

    refused("is a folder: give native=True", native=False)
    refused("n_classes goes with a state dict", n_classes=10)
    refused("num_heads goes with a state dict", num_heads=2)
    refused("device is 'tpu', must be 'cpu', 'cuda'", device="tpu")
    refused("the native DiT computes in float32 on the CPU", dtype="float16")
    refused("takes latents of 4 channels, the VAE makes 3", vae=pipelines.vae(3))
    refused("there is no file", path=folder / "nothing")
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    refused("which is not a file beside it")
    index.write_text("{}")
    refused("has no weight_map")
    index.write_text("[")
    refused("is no json")
    index.unlink()
    shutil.copy(weights, inner / "a.safetensors")
    weights.rename(inner / "b.safetensors")
    refused("and several others: a.safetensors, b.safetensors")
    (inner / "a.safetensors").unlink()
    assert load_dit(folder, native=True).n_classes == 10  # one variant alone
    (inner / "b.safetensors").rename(inner / "model.bin")
    refused("is a pickle")
    (inner / "model.bin").unlink()
    refused("has no diffusion_pytorch_model.safetensors")
    weights.write_bytes(b"")
    refused("can not be read")
    shutil.rmtree(inner)
    refused("has no config.json, in itself or in transformer")


def test_python_holds_no_copy_of_the_weights(tmp_path):
    """The file is mapped; the core packs from there (its own memory is not Python's)."""
    transformer(attention_head_dim=64, num_layers=2).save_pretrained(tmp_path)
    size = (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size
    tracemalloc.start()
    try:
        load_dit(tmp_path, native=True)
        assert tracemalloc.get_traced_memory()[1] < size / 4
    finally:
        tracemalloc.stop()
