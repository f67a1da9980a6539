"""UNet2DModel (DDPM and EDM), original DiT checkpoints, k-diffusion's interface: against diffusers' schedulers and blocks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import door  # noqa: E402
import pipelines  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import diffcls  # noqa: E402
from diffcls.models.torch_dit import Config, DiT  # noqa: E402

pytestmark = pytest.mark.torch
N = 40


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def pixel_unet(channels=3, **config):
    made = diffusers.UNet2DModel(
        sample_size=8, in_channels=channels, out_channels=channels, layers_per_block=1, block_out_channels=(4, 8),
        norm_num_groups=2, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        **{"num_class_embeds": 5, **config},
    )  # fmt: skip
    return pipelines.randomise(made, 30)


def saved(folder, scheduler, **config):
    diffusers.DDPMPipeline(pixel_unet(**config), scheduler).save_pretrained(folder)
    return diffcls.load(folder)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_pixel_unet_is_asked_what_its_scheduler_steps_with(tmp_path, rng, prediction_type):
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    denoiser = saved(tmp_path, scheduler)
    assert denoiser.shape == (3, 8, 8) and denoiser.class_names == list("01234") and denoiser.preparation == "paper"
    schedule, (p, q) = denoiser.schedule, denoiser.target
    x_start, eps = (torch.from_numpy(rng.standard_normal((1, 3, 8, 8))) for _ in range(2))
    scheduler.set_timesteps(10)
    for t in (900, 500, 100):
        x_t = scheduler.add_noise(x_start, eps, torch.tensor([t]))
        ours = schedule.alpha[t] * x_start + schedule.sigma[t] * eps
        np.testing.assert_allclose(ours.numpy(), x_t.numpy(), atol=1e-5)
        found = scheduler.step(p[t] * x_start + q[t] * eps, t, x_t).pred_original_sample
        np.testing.assert_allclose(found.numpy(), x_start.numpy(), atol=1e-4)
    seen = []
    t, cond = torch.tensor([3, 700]), torch.tensor([4, 0])
    x = torch.randn(2, 3, 8, 8)
    with door.planted(denoiser.module, seen):
        prediction = denoiser.predict(x, t, cond)
    door.same(seen[0], {"sample": x, "timestep": t, "class_labels": cond}, "door")
    assert prediction.shape == x.shape


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_an_edm_unet_gets_the_preconditioned_input_and_its_raw_output_is_the_target(
    tmp_path, rng, kind, prediction_type
):
    scheduler = getattr(diffusers, kind)(prediction_type=prediction_type, num_train_timesteps=N)
    denoiser = saved(tmp_path, scheduler)
    schedule, (p, q) = denoiser.schedule, denoiser.target
    x_start, eps = (torch.from_numpy(rng.standard_normal((1, 3, 8, 8))).float() for _ in range(2))
    for row in range(0, len(schedule), 6):
        sigma = float(schedule.sigma[row] / schedule.alpha[row])
        noisy = x_start + sigma * eps
        ours = schedule.alpha[row] * x_start + schedule.sigma[row] * eps
        np.testing.assert_allclose(ours.numpy(), scheduler.precondition_inputs(noisy, sigma).numpy(), atol=1e-5)
        np.testing.assert_allclose(schedule.time[row], scheduler.precondition_noise(sigma).numpy(), atol=1e-5)
        raw = (p[row] * x_start + q[row] * eps).float()
        found = scheduler.precondition_outputs(noisy, raw, torch.tensor(sigma))
        np.testing.assert_allclose(found.numpy(), x_start.numpy(), atol=1e-5 * max(1.0, sigma))
    image = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    result = diffcls.classify(image, ["0", "3"], model=denoiser, policy=diffcls.Fixed(4))
    assert np.isfinite(result.losses).all() and np.ptp(result.losses) > 0


def test_a_grey_unet_gets_grey_pictures(tmp_path, rng):
    denoiser = saved(tmp_path, diffusers.DDPMScheduler(), channels=1)
    grey = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    pixels, _ = denoiser.encode(grey)
    np.testing.assert_allclose(pixels[0], grey / 127.5 - 1.0, atol=1e-6)


# ---- original DiT ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A state dict of the original code's names, learned variance and null class among them, and its file."""
    config = Config(
        input_size=8, patch_size=2, in_channels=4, hidden_size=16, depth=2, num_heads=2, num_classes=7, learn_sigma=True
    )
    state = pipelines.randomise(DiT(config), 31).state_dict()
    path = tmp_path_factory.mktemp("dit") / "dit.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return state, path


def as_diffusers(state):
    """The same weights in diffusers' blocks, whose time embedding is off by one frequency unless it is told."""
    model = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4, out_channels=8,
        num_embeds_ada_norm=6, norm_eps=1e-6,
    )  # fmt: skip
    new = {
        "pos_embed.proj.weight": state["x_embedder.proj.weight"], "pos_embed.proj.bias": state["x_embedder.proj.bias"],
        "proj_out_1.weight": state["final_layer.adaLN_modulation.1.weight"],
        "proj_out_1.bias": state["final_layer.adaLN_modulation.1.bias"],
        "proj_out_2.weight": state["final_layer.linear.weight"], "proj_out_2.bias": state["final_layer.linear.bias"],
    }  # fmt: skip
    for i in range(2):
        ours, theirs = f"blocks.{i}.", f"transformer_blocks.{i}."
        new[f"{theirs}norm1.emb.class_embedder.embedding_table.weight"] = state["y_embedder.embedding_table.weight"]
        for kind in ("weight", "bias"):
            new[f"{theirs}norm1.emb.timestep_embedder.linear_1.{kind}"] = state[f"t_embedder.mlp.0.{kind}"]
            new[f"{theirs}norm1.emb.timestep_embedder.linear_2.{kind}"] = state[f"t_embedder.mlp.2.{kind}"]
            new[f"{theirs}norm1.linear.{kind}"] = state[f"{ours}adaLN_modulation.1.{kind}"]
            for name, part in zip("qkv", state[f"{ours}attn.qkv.{kind}"].chunk(3), strict=True):
                new[f"{theirs}attn1.to_{name}.{kind}"] = part
            new[f"{theirs}attn1.to_out.0.{kind}"] = state[f"{ours}attn.proj.{kind}"]
            new[f"{theirs}ff.net.0.proj.{kind}"] = state[f"{ours}mlp.fc1.{kind}"]
            new[f"{theirs}ff.net.2.{kind}"] = state[f"{ours}mlp.fc2.{kind}"]
    model.load_state_dict(new, strict=True)
    model.pos_embed.pos_embed = state["pos_embed"]
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return model.eval()


def test_an_original_dit_gives_what_diffusers_blocks_give(original):
    state, path = original
    denoiser = diffcls.diffusers.load_dit(
        path, vae=pipelines.vae(scaling_factor=0.18215), n_classes=6, num_heads=2, device="cpu"
    )
    twin = as_diffusers(state)
    x, t, y = torch.randn(5, 4, 8, 8), torch.tensor([0, 3, 500, 999, 42]), torch.tensor([5, 0, 1, 2, 3])
    with torch.no_grad():
        expected = twin(x, timestep=t, class_labels=y).sample[:, :4]
    np.testing.assert_allclose(denoiser.predict(x, t, y).numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)
    assert denoiser.n_classes == 6 and denoiser.shape == (4, 8, 8) and denoiser.preparation == "adm"


def test_an_original_dit_classifies_a_picture(original, rng):
    _, path = original
    denoiser = diffcls.diffusers.load_dit(path, vae=pipelines.vae(), n_classes=7, num_heads=2, device="cpu")
    result = diffcls.classify(rng.random((20, 16, 3)).astype(np.float32), model=denoiser, policy=diffcls.Fixed(3))
    assert (
        len(result.classes) == 7 and np.ptp(result.losses) > 0 and result.run["preparation"]["resolution"] == (16, 16)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_classes": 1000}, "the weights of .*dit.safetensors have 7 labels"),
        ({"num_heads": None}, "give num_heads"),
        ({"vae": 3}, "vae is int"),
        ({"vae": "no-such-folder"}, "can not be loaded"),
        ({"vae": None, "channels": 3}, "takes latents of 4 channels, the VAE makes 3"),
        ({"path": "dit.pt"}, "is a pickle"),
        ({"path": "nothing.safetensors"}, "there is no file"),
    ],
)
def test_what_is_no_original_dit_is_told_in_one_sentence(original, change, said):
    given = {"path": original[1], "vae": pipelines.vae(change.pop("channels", 4)), "n_classes": 7, "num_heads": 2}
    given |= {key: value for key, value in change.items() if not (key == "vae" and value is None)}
    with pytest.raises(diffcls.DiffclsError, match=said):
        diffcls.diffusers.load_dit(given.pop("path"), **given)


def test_weights_of_something_else_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(diffcls.WeightsError, match="lack x_embedder"):
        diffcls.diffusers.load_dit(path, vae=pipelines.vae(), n_classes=7)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(diffcls.WeightsError, match="no safetensors file"):
        diffcls.diffusers.load_dit(path, vae=pipelines.vae(), n_classes=7)


SHAPES = {
    "x_embedder.proj.weight": (384, 4, 2, 2),
    "pos_embed": (1, 16, 384),
    "y_embedder.embedding_table.weight": (11, 384),
    "final_layer.linear.weight": (32, 384),
    "blocks.0.mlp.fc1.weight": (1536, 384),
}


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("x_embedder.proj.weight", (384, 4), r"has shape \(384, 4\), must be \(width, channels, patch, patch\)"),
        ("x_embedder.proj.weight", (384, 4, 2, 3), "has patches of 2 x 3 and 16 of them: both must be squares"),
        ("x_embedder.proj.weight", (383, 4, 2, 2), "num_heads is 6, and does not divide the width"),
        ("pos_embed", (16,), r"has shape \(16,\), must be \(1, side \* side, width\)"),
        ("pos_embed", (1, 15, 384), "has patches of 2 x 2 and 15 of them"),
        ("y_embedder.embedding_table.weight", (), r"has shape \(\), must be \(labels, width\)"),
        ("blocks.0.mlp.fc1.weight", (0, 3), r"has shape \(0, 3\), must be \(hidden, width\)"),
        ("blocks.x.mlp", (3,), "has blocks 0, x, must be 0 to 1"),
        ("blocks.2.mlp", (3,), "has blocks 0, 2, must be 0 to 1"),
        ("other", (3,), "no state dict of the original DiT|: the weights file has no tensor"),
    ],
)
def test_odd_shapes_are_told_with_the_file(tmp_path, native, key, shape, said):
    path = tmp_path / "odd.safetensors"
    save_file({name: torch.zeros(size) for name, size in {**SHAPES, key: shape}.items()}, path)
    with pytest.raises(diffcls.DiffclsError, match=said) as found:
        diffcls.diffusers.load_dit(path, native=native, n_classes=10, num_heads=6)
    assert "odd.safetensors" in str(found.value) and "\n" not in str(found.value)


def test_a_path_that_is_none():
    with pytest.raises(diffcls.DTypeError, match="path is int, must be a file or a folder"):
        diffcls.diffusers.load_dit(3)


# ---- k-diffusion and EDM ---------------------------------------------------------------------------------------------


class Preconditioned(torch.nn.Module):
    """D(x, sigma) around a raw network as EDM has it (Karras et al., 2022, eq. 7), by diffusers' own preconditioning."""

    def __init__(self, raw, n_classes):
        super().__init__()
        self.raw, self.scheduler = raw, diffusers.EDMEulerScheduler(sigma_data=0.5)
        self.embed = torch.nn.Embedding(n_classes, 6)

    def network(self, x_in, t, numbers):
        return self.raw(x_in) + self.embed(numbers) * torch.cos(t)[:, None]

    def forward(self, x, sigma, class_labels):
        assert class_labels.shape[1:] == (4,) and class_labels.dtype == torch.float32
        level = sigma[:, None]
        x_in = self.scheduler.precondition_inputs(x, level)
        raw = self.network(x_in, torch.log(sigma) / 4, class_labels.argmax(1))
        return self.scheduler.precondition_outputs(x, raw, level)


def test_a_k_denoiser_has_the_errors_of_the_network_inside_it(rng):
    torch.manual_seed(2)
    model = Preconditioned(torch.nn.Linear(6, 6), 4)
    sigmas = np.geomspace(0.01, 50.0, N)
    outside = diffcls.k_denoiser(
        model, shape=(6,), sigmas=sigmas[::-1], condition="class_labels", one_hot=True, n_classes=4
    )
    inside = diffcls.Denoiser(
        model.network,
        shape=(6,),
        schedule=diffcls.Schedule.edm(sigmas),
        prediction_type="edm",
        n_classes=4,
        framework="torch",
    )
    x = (0.5 * rng.standard_normal((3, 6))).astype(np.float32)
    ours, theirs = (diffcls.Classifier(d).error_table(x, n_samples=N) for d in (outside, inside))
    rows = theirs.trials["timestep"]
    factor = inside.schedule.loss_weight("edm", "epsilon")[rows]
    np.testing.assert_allclose(ours.errors, theirs.errors * factor, rtol=2e-3)


def test_a_k_denoiser_takes_the_models_own_levels():
    model = Preconditioned(torch.nn.Linear(6, 6), 4)
    with pytest.raises(diffcls.InputError, match="sigmas must be given"):
        diffcls.k_denoiser(model, shape=(6,), condition="class_labels", n_classes=4)
    model.sigmas = torch.tensor([0.1, 1.0, 10.0])
    denoiser = diffcls.k_denoiser(model, shape=(6,), condition="class_labels", n_classes=4)
    np.testing.assert_allclose(denoiser.schedule.time, [0.1, 1.0, 10.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": 3}, "must be callable"),
        ({"condition": "class cond"}, "must be the name"),
        ({"sigmas": [1.0, 0.0]}, "positive and finite"),
        ({"sigmas": [1.0, 1.0]}, "each once"),
        ({"one_hot": True, "n_classes": None, "conditions": np.eye(2)}, "conditions were given"),
    ],
)
def test_a_k_denoiser_without_sense_is_refused(change, said):
    given = {
        "model": lambda x, sigma: x,
        "shape": (6,),
        "condition": "c",
        "sigmas": [1.0, 2.0],
        "n_classes": 4,
        **change,
    }
    with pytest.raises(diffcls.DiffclsError, match=said):
        diffcls.k_denoiser(given.pop("model"), **given)
