"""`load_diffusers`: sources, pictures, prompts, memory, LoRA; and whole runs in which one prompt's prediction is perfect."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import pipelines  # noqa: E402
from PIL import Image  # noqa: E402

import diffcls  # noqa: E402
from diffcls.diffusers import load_diffusers  # noqa: E402
from diffcls.diffusers.dit import class_words  # noqa: E402
from diffcls.diffusers.pictures import prepare  # noqa: E402

pytestmark = pytest.mark.torch
PROMPTS = ["a red cat", "2 dogs", "an owl."]
LONG = "a red cat on the mat and 2 dogs under it"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (21, 30, 3), dtype=np.uint8)


def predicted(denoiser, prompts=PROMPTS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(prompts), *denoiser.shape, generator=generator)
    return denoiser.predict(x, torch.tensor([10, 400, 990][: len(prompts)]), denoiser.with_prompts(prompts).conditions)


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd", "sd_v", "sdxl", "sd3"])
def test_the_prompt_whose_prediction_is_perfect_wins(name, picture, monkeypatch):
    """The module is told x_start: for one prompt it answers as the family defines its output, for others half of that."""
    pipe = pipelines.FAMILIES[name]()
    denoiser = load_diffusers(pipe)
    x_start = torch.from_numpy(denoiser.encode(picture)[0])
    mine = denoiser.with_prompts(PROMPTS).conditions["encoder_hidden_states"][1]
    if name != "sd3":
        alphas_cumprod = pipe.scheduler.alphas_cumprod.double()

    def perfect(**given):
        x = given["sample"] if "sample" in given else given["hidden_states"]
        t = given["timestep"]
        if name == "sd3":
            sigma = (t.double() / 1000)[:, None, None, None]
            eps = (x - (1 - sigma) * x_start) / sigma
            output = eps - x_start
        else:
            alpha, sigma = (
                part[t][:, None, None, None] for part in (alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())
            )
            eps = (x - alpha * x_start) / sigma
            output = alpha * eps - sigma * x_start if name == "sd_v" else eps
        right = (given["encoder_hidden_states"] == mine).all(dim=(1, 2))[:, None, None, None]
        return (torch.where(right, output, 0.5 * output).float(),)

    monkeypatch.setattr(denoiser.adapter.module, "forward", perfect)
    result = diffcls.classify(picture, PROMPTS, model=denoiser, policy=diffcls.Fixed(12))
    assert result.label == PROMPTS[1]
    assert result.losses[1] < 1e-4 < 0.1 < min(result.losses[0], result.losses[2])


def test_a_folder_classifies_in_one_line(tmp_path, picture):
    pipelines.sd().save_pretrained(tmp_path)
    Image.fromarray(picture).save(tmp_path / "cat.png")
    result = diffcls.classify(
        tmp_path / "cat.png", ["cat", "dog"], templates="a {}.", model=str(tmp_path), policy=diffcls.Fixed(3)
    )
    assert result.classes == ["cat", "dog"] and np.isfinite(result.losses).all()
    assert result.run["model"] == str(tmp_path) and result.run["device"] == "cpu" and len(result.run["weights"]) == 64
    assert result.run["adapter"]["component"] == "UNet2DConditionModel" and result.run["templates"] == "'a {}.'"
    assert result.run["preparation"] == {"name": "paper", "size": (21, 30), "resolution": (16, 16)}
    assert result.run["versions"]["diffusers"] == diffusers.__version__
    json.dumps(result.to_dict())


def test_folder_pipeline_and_components_are_one_model(tmp_path, picture):
    pipe = pipelines.sdxl()
    pipe.save_pretrained(tmp_path)
    sources = (tmp_path, pipe, {name: part for name, part in pipe.components.items() if part is not None})
    made = [diffcls.load(source) for source in sources]
    results = [diffcls.classify(picture, PROMPTS, model=denoiser, policy=diffcls.Fixed(3)) for denoiser in made]
    assert len({denoiser.digest for denoiser in made}) == 1 and made[1].pipe is pipe
    for result in results[1:]:
        np.testing.assert_array_equal(result.losses, results[0].losses)


def test_several_prompts_a_class_and_many_pictures(picture):
    classifier = diffcls.Classifier(
        pipelines.sd(),
        {"cat": ["a cat", "a red cat"], "dog": ["2 dogs", "a dog"]},
        pool="mean",
        policy=diffcls.Fixed(4),
        batch_size=5,
    )
    results = classifier([picture, 255 - picture])
    assert results.losses.shape == (2, 2)
    alone = diffcls.Classifier(
        classifier.denoiser,
        {"cat": ["a cat", "a red cat"], "dog": ["2 dogs", "a dog"]},
        pool="mean",
        policy=diffcls.Fixed(4),
    )(picture)
    np.testing.assert_allclose(alone.losses, results[0].losses, rtol=1e-4)


def test_the_run_knows_what_changes_an_error():
    pipe = pipelines.sd()
    denoiser = load_diffusers(pipe)

    def parts(model=denoiser, prompts=PROMPTS, **options):
        return diffcls.Classifier(model, prompts, **options).run["fingerprint"]

    same = parts()
    assert parts() == same and parts(load_diffusers(pipe)) == same
    assert parts(templates="the {}")["prompts"] != same["prompts"]
    assert parts(load_diffusers(pipe, long_prompts="chunk"))["adapter"] != same["adapter"]
    with torch.no_grad():
        pipe.unet.conv_in.bias.add_(0.1)
    assert parts(load_diffusers(pipe))["model"] != same["model"]


def test_class_names_are_those_of_the_index(tmp_path, picture):
    pipelines.dit().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    words = ["tench, Tinca tinca", "crane", "crane", *map(str, range(3, 10))]
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"id2label": dict(enumerate(words))}))
    denoiser = diffcls.load(tmp_path)
    assert denoiser.class_names[:3] == ["tench, Tinca tinca", "crane (1)", "crane (2)"]
    result = diffcls.classify(picture, ["Tinca tinca", "crane (2)", 7], model=denoiser, policy=diffcls.Fixed(2))
    assert result.classes == ["Tinca tinca", "crane (2)", "7"]
    with pytest.raises(diffcls.UnknownClassError, match="may mean 'crane .1.', 'crane .2.'"):
        diffcls.classify(picture, ["crane"], model=denoiser)
    for bad, message in (({"10": "null"}, "has the class '10', must be 0 to 9"), ({"-1": "x"}, "has the class '-1'")):
        (tmp_path / "model_index.json").write_text(json.dumps(index | {"id2label": bad}))
        with pytest.raises(diffcls.InputError, match=f"id2label {message}"):
            diffcls.load(tmp_path)
    with pytest.raises(diffcls.InputError, match="id2label is list, must map numbers of classes to words"):
        class_words([1], 10)


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(21, 30, 3), (30, 21, 3), (16, 16, 3), (100, 33, 3)])
def test_paper_preparation_is_pillows_bicubic_and_a_centre_crop(rng, shape):
    picture = rng.integers(0, 256, shape, dtype=np.uint8)
    short = min(shape[:2])
    size = tuple(int(16 * side / short) for side in shape[1::-1])  # (width, height), as torchvision's Resize has it
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    left, top = (int(round((side - 16) / 2.0)) for side in size)
    wanted = np.asarray(resized.crop((left, top, left + 16, top + 16)), np.float32) / 127.5 - 1.0
    pixels, record = prepare(picture, (16, 16), "paper")
    np.testing.assert_allclose(pixels, wanted.transpose(2, 0, 1), atol=1e-6)
    assert record == {"name": "paper", "size": shape[:2], "resolution": (16, 16)}


@pytest.mark.parametrize("shape", [(70, 90, 3), (40, 31, 3), (10, 12, 3)])
def test_adm_preparation_halves_by_boxes_first(rng, shape):
    picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    image = picture
    while min(image.size) >= 32:
        image = image.resize(tuple(side // 2 for side in image.size), resample=Image.Resampling.BOX)
    scale = 16 / min(image.size)
    image = image.resize(tuple(round(side * scale) for side in image.size), resample=Image.Resampling.BICUBIC)
    array = np.asarray(image, np.float32)
    top, left = (array.shape[0] - 16) // 2, (array.shape[1] - 16) // 2
    wanted = array[top : top + 16, left : left + 16] / 127.5 - 1.0
    np.testing.assert_allclose(prepare(picture, (16, 16), "adm")[0], wanted.transpose(2, 0, 1), atol=1e-6)


def test_squash_is_what_diffusers_does(rng):
    picture = Image.fromarray(rng.integers(0, 256, (21, 30, 3), dtype=np.uint8))
    from diffusers.image_processor import VaeImageProcessor

    wanted = VaeImageProcessor(vae_scale_factor=2).preprocess(picture, height=16, width=20)[0]
    np.testing.assert_allclose(prepare(picture, (16, 20), "squash")[0], wanted.numpy(), atol=1e-6)


def test_pictures_of_all_kinds_become_colours(rng):
    grey = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    three = np.stack([grey] * 3, axis=-1)
    clear = np.concatenate([three, np.full((16, 16, 1), 128, np.uint8)], axis=-1)
    as_floats = three.astype(np.float32) / 255
    pixels = [prepare(image, (16, 16), "paper")[0] for image in (three, grey, Image.fromarray(grey), as_floats)]
    for other in pixels[1:]:
        np.testing.assert_allclose(other, pixels[0], atol=1e-6)
    over_white = as_floats * (128 / 255) + (127 / 255)
    np.testing.assert_allclose(prepare(clear, (16, 16), "paper")[0], 2 * over_white.transpose(2, 0, 1) - 1, atol=1e-5)
    smaller = prepare(as_floats, (8, 8), "paper")[0], prepare(three, (8, 8), "paper")[0]
    assert 0 < np.abs(smaller[0] - smaller[1]).max() < 2 / 127.5  # floats are not rounded to eight bits on the way


def test_the_latent_is_the_mean_and_no_sample(picture):
    denoiser = load_diffusers(pipelines.sd(), preprocess=lambda image: image.resize((16, 16)))
    vae = denoiser.pipe.vae
    first, second = denoiser.encode(picture)[0], denoiser.encode(picture)[0]
    np.testing.assert_array_equal(first, second)
    pixels = torch.from_numpy(np.asarray(Image.fromarray(picture).resize((16, 16)), np.float32) / 127.5 - 1.0)
    with torch.no_grad():
        posterior = vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist
    np.testing.assert_allclose(first, 0.18215 * posterior.mean[0].numpy(), rtol=1e-4, atol=1e-5)


def test_moments_of_some_sdxl_vaes(rng):
    from diffcls.diffusers.latents import Latents

    means, deviations = [-1.6, 1.1, 0.5, 0.2], [8.4, 5.0, 5.3, 4.1]
    latents = Latents(pipelines.vae(scaling_factor=0.5, latents_mean=means, latents_std=deviations), "scaling")
    z = torch.from_numpy(rng.standard_normal((1, 4, 2, 2)))
    wanted = (z.numpy() - np.reshape(means, (1, 4, 1, 1))) * 0.5 / np.reshape(deviations, (1, 4, 1, 1))
    np.testing.assert_allclose(latents.normalise(z).numpy(), wanted)


def test_a_vae_that_must_be_upcast_encodes_in_float32(picture):
    full, half = pipelines.sdxl(), pipelines.sdxl().to(torch.float16)
    wanted, found = (load_diffusers(pipe).encode(picture)[0] for pipe in (full, half))
    assert next(half.vae.parameters()).dtype == torch.float16
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=2e-3)  # weights were rounded, arithmetic was not


# ---- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_prompts_are_encoded_alike_in_any_batch(name):
    pipe = pipelines.FAMILIES[name]()
    whole, single = (load_diffusers(pipe, prompt_batch_size=n).with_prompts(PROMPTS).conditions for n in (32, 1))
    assert set(whole) == set(single)
    for key in whole:
        torch.testing.assert_close(single[key], whole[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_short_prompts_in_windows_are_as_without(name):
    pipe = pipelines.FAMILIES[name]()
    plain, chunked = (
        load_diffusers(pipe, long_prompts=how).with_prompts(PROMPTS).conditions for how in ("warn", "chunk")
    )
    for key in plain:
        torch.testing.assert_close(chunked[key], plain[key])


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_long_prompts_are_read_window_by_window(name):
    """Each window is what the pipeline makes of the window's own words: 14 letters, as many as a tokenizer of 16 takes."""
    pipe = pipelines.FAMILIES[name]()
    letters = "abcdefghijklmnopqrstuvwxyz"
    text, first, second = (" ".join(part) for part in (letters[:20], letters[:14], letters[14:20]))
    denoiser = load_diffusers(pipe, long_prompts="chunk")
    rows = denoiser.with_prompts([text, "b"]).conditions
    plain = load_diffusers(pipe)
    parts, empty = plain.with_prompts([first, second]).conditions, plain.with_prompts([""]).conditions
    states = "encoder_hidden_states"
    torch.testing.assert_close(rows[states][0], torch.cat(list(parts[states])))
    torch.testing.assert_close(rows[states][1, 16:], empty[states][0])
    if name == "sdxl":
        torch.testing.assert_close(rows["text_embeds"][0], parts["text_embeds"][0])
    x = torch.randn(2, *denoiser.shape)
    assert torch.isfinite(denoiser.predict(x, torch.tensor([5, 500]), rows)).all()


def test_textual_inversion_of_the_pipeline_is_used():
    pipe = pipelines.sd()
    pipe.load_textual_inversion(torch.full((2, 8), 0.5), token="<toy>")
    denoiser = load_diffusers(pipe)
    made = denoiser.with_prompts(["a <toy>", "a cat"]).conditions["encoder_hidden_states"]
    wanted = pipe.encode_prompt(["a <toy>", "a cat"], "cpu", 1, False)[0]
    torch.testing.assert_close(made, wanted.detach())
    plain = load_diffusers(pipelines.sd()).with_prompts(["a <toy>"]).conditions["encoder_hidden_states"]
    assert not torch.allclose(made[0], plain[0])


def test_a_lora_of_the_pipeline_or_by_name_is_used(tmp_path):
    peft = pytest.importorskip("peft")
    pipe = pipelines.sd()
    plain = predicted(load_diffusers(pipe))
    torch.manual_seed(3)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    mine = load_diffusers(pipe)
    with_lora = predicted(mine)
    assert not torch.allclose(with_lora, plain, atol=1e-3)
    pipe.save_lora_weights(tmp_path, unet_lora_layers=peft.get_peft_model_state_dict(pipe.unet))
    for lora in (tmp_path / "pytorch_lora_weights.safetensors", tmp_path):
        again = load_diffusers(pipelines.sd(), lora=lora)
        torch.testing.assert_close(predicted(again), with_lora)
        assert again.digest != load_diffusers(pipelines.sd()).digest


# ---- memory and speed ------------------------------------------------------------------------------------------------


def test_encoders_and_vae_off_the_device_change_nothing(picture):
    pipe = pipelines.sd3()
    plain = diffcls.classify(picture, PROMPTS, model=load_diffusers(pipe), policy=diffcls.Fixed(2))
    for options in ({"text_encoders": "offload", "vae": "offload"}, {"text_encoders": "free"}):
        moved = diffcls.classify(picture, PROMPTS, model=load_diffusers(pipe, **options), policy=diffcls.Fixed(2))
        np.testing.assert_array_equal(moved.losses, plain.losses)
    assert pipe.text_encoder is None and pipe.text_encoder_3 is None


def test_a_batch_that_does_not_fit_is_cut(picture, monkeypatch):
    denoiser = load_diffusers(pipelines.sd())
    plain = diffcls.classify(picture, PROMPTS, model=denoiser, policy=diffcls.Fixed(6))
    real, sizes = denoiser.adapter.predict, []

    def small(x, t, cond):
        sizes.append(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("no memory for that many")
        assert len(x) == len(t) == len(cond["encoder_hidden_states"])
        return real(x, t, cond)

    monkeypatch.setattr(denoiser.adapter, "predict", small)
    cut = diffcls.classify(picture, PROMPTS, model=denoiser, policy=diffcls.Fixed(6))
    np.testing.assert_allclose(cut.losses, plain.losses, rtol=1e-4)
    assert sizes == [18, 9, 4, 4, 4, 4, 2]  # halved until it fits, and remembered


@pytest.mark.parametrize("options", [{"channels_last": True}, {"compile": {"backend": "eager"}}])
def test_layout_and_compilation_change_no_prediction(options):
    plain = predicted(load_diffusers(pipelines.sd()))
    torch.testing.assert_close(predicted(load_diffusers(pipelines.sd(), **options)), plain, rtol=1e-3, atol=1e-4)


def test_a_model_in_training_is_asked_in_evaluation_mode_and_left_in_training():
    pipe = pipelines.dit()
    denoiser = load_diffusers(pipe)
    x, t, y = torch.randn(64, 4, 8, 8), torch.full((64,), 500), torch.full((64,), 3)
    plain = denoiser.predict(x, t, y)
    pipe.transformer.train()  # now a tenth of its labels are dropped
    torch.testing.assert_close(denoiser.predict(x, t, y), plain)
    assert pipe.transformer.training and pipe.transformer.transformer_blocks[0].training


def test_half_precision_is_the_models_own(picture, tmp_path):
    pipelines.sd().save_pretrained(tmp_path)
    denoiser = diffcls.load(tmp_path, dtype="bfloat16")
    assert denoiser.dtype == torch.bfloat16 and denoiser.pipe.unet.dtype == torch.bfloat16
    result = diffcls.classify(picture, PROMPTS, model=denoiser, policy=diffcls.Fixed(4))
    full = diffcls.classify(picture, PROMPTS, model=tmp_path, policy=diffcls.Fixed(4))
    assert result.run["dtype"] == "bfloat16" and full.run["dtype"] == "float32"
    np.testing.assert_allclose(result.losses, full.losses, rtol=0.2)


def test_the_half_precision_of_a_family_comes_from_its_index():
    from diffcls.diffusers.families import half_of

    assert half_of({"unet": ["diffusers", "UNet2DConditionModel"]}) == "float16"
    assert half_of({"transformer": ["diffusers", "FluxTransformer2DModel"]}) == "bfloat16"
    assert half_of({"transformer": ["diffusers", "Unheard"]}) == "float32"


def test_the_digest_reads_every_byte():
    """One bit of one element anywhere, and any layout in memory; a pipeline put back has its digest back."""
    pipe = pipelines.sd()
    digest = load_diffusers(pipe).digest
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        tensor = max(part.parameters(), key=lambda p: p.numel()).data.view(-1)
        bits, at = tensor.view(torch.int32), tensor.numel() // 2 + 1
        bits[at] ^= 1
        assert load_diffusers(pipe).digest != digest
        bits[at] ^= 1
    assert load_diffusers(pipe).digest == digest
    pipe.unet.to(memory_format=torch.channels_last)
    assert load_diffusers(pipe).digest == digest
