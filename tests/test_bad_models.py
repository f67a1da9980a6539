"""Models that can not classify and input that makes no sense: one sentence each, before the first evaluation."""

import json
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import pipelines  # noqa: E402

import diffcls  # noqa: E402
from diffcls.diffusers import load_diffusers  # noqa: E402

pytestmark = pytest.mark.torch
PICTURE = np.full((16, 16, 3), 128, np.uint8)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def parts(pipe, **changes):
    """A pipeline's components, some of them others; None takes one away."""
    made = {**pipe.components, **changes}
    return {name: part for name, part in made.items() if part is not None}


def refused(said, model, error=diffcls.InputError, **options):
    with pytest.raises(error, match=said) as caught:
        load_diffusers(model, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 600
    return sentence


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["text_encoder", "tokenizer"])
def test_a_pipeline_without_its_text_encoder(missing):
    refused(f"no {missing}, so prompts can not be encoded.*diffcls.Denoiser", parts(pipelines.sd(), **{missing: None}))


def test_a_pipeline_without_a_vae():
    refused(
        "has no VAE|not given: vae", parts(pipelines.sd(), vae=None)
    )  # some versions' pipelines want one themselves


def test_an_inpainting_unet():
    refused(
        "9 input channels and a latent of its VAE has 4: an inpainting model",
        parts(pipelines.sd(), unet=pipelines.unet(in_channels=9)),
    )
    refused("a model of depth maps", parts(pipelines.sd(), unet=pipelines.unet(in_channels=5)))
    refused("an editing model", parts(pipelines.sd(), unet=pipelines.unet(in_channels=8)))


@pytest.mark.skipif(
    diffusers.__version__.startswith("0.30."), reason="its FluxTransformer2DModel knows no out_channels"
)
def test_a_flux_model_that_edits():
    wide = pipelines.flux_transformer(in_channels=96, out_channels=16)
    said = "takes 96 channels and gives 16: an editing or inpainting model"
    refused(said, parts(pipelines.flux(), transformer=wide), resolution=16)


@pytest.mark.parametrize("name", ["sdxl-turbo", "SDXL-Lightning", "stable-diffusion-v1-5-LCM", "FLUX.1-schnell"])
def test_a_model_that_is_named_as_distilled(tmp_path, name):
    folder = tmp_path / name
    pipelines.sd().save_pretrained(folder)
    said = refused("says it is distilled: few-step models", folder)
    assert name in said and "allow_distilled=True" in said
    assert load_diffusers(folder, allow_distilled=True).n_classes == 0


def test_a_distilled_model_in_the_hubs_cache(tmp_path):
    folder = tmp_path / "models--stabilityai--sdxl-turbo" / "snapshots" / "71153311d3dbb46851df1931d3ca6e939de83304"
    pipelines.sd().save_pretrained(folder)
    refused("is named 'sdxl-turbo'", folder)


def test_a_model_whose_config_says_that_it_is_distilled():
    refused("time_cond_proj_dim", parts(pipelines.sd(), unet=pipelines.unet(time_cond_proj_dim=8)))
    refused("scheduler is LCMScheduler", parts(pipelines.sd(), scheduler=diffusers.LCMScheduler()))
    if pipelines.TRANSFORMERS >= 5:
        import pipelines_llm

        pipe = pipelines_llm.flux2_klein()
        pipe.register_to_config(is_distilled=True)
        refused("is_distilled", pipe, resolution=16)


def test_a_word_inside_another_is_no_distilled_name(tmp_path):
    pipelines.sd().save_pretrained(tmp_path / "turbot-and-hyperbola")
    assert load_diffusers(tmp_path / "turbot-and-hyperbola").n_classes == 0


@pytest.mark.parametrize(
    ("pipe", "scheduler", "said"),
    [
        (
            pipelines.sd,
            diffusers.FlowMatchEulerDiscreteScheduler(),
            "FlowMatchEulerDiscreteScheduler.*'flow_prediction', UNet2DConditionModel predicts",
        ),
        (
            pipelines.sd3,
            diffusers.DDIMScheduler(),
            "DDIMScheduler.*'epsilon', SD3Transformer2DModel predicts flow_prediction",
        ),
        (pipelines.dit, diffusers.FlowMatchEulerDiscreteScheduler(), "DiTTransformer2DModel predicts"),
    ],
)
def test_a_scheduler_that_contradicts_the_model(pipe, scheduler, said):
    refused(said, parts(pipe(), scheduler=scheduler))


def test_a_schedule_of_the_callers_own_replaces_the_scheduler():
    schedule = diffcls.Schedule.flow(100, 2.0)
    refused("predicts None", pipelines.sd3(), schedule=schedule)  # it does not say what is predicted
    told = diffcls.Schedule(
        schedule.alpha, schedule.sigma, schedule.time, discrete=False, prediction_type="flow_prediction"
    )
    assert len(load_diffusers(pipelines.sd3(), schedule=told).schedule) == 100


def test_a_vae_of_another_family():
    refused("shift_factor 0.1", parts(pipelines.sd(), vae=pipelines.vae(shift_factor=0.1)))
    refused("no shift_factor", parts(pipelines.sd3(), vae=pipelines.vae()))
    refused("has 4 input channels and a latent of its VAE has 3", parts(pipelines.sd(), vae=pipelines.vae(3)))


def test_conditions_beside_the_prompt():
    refused("addition_embed_type is 'text'", parts(pipelines.sd(), unet=pipelines.unet(addition_embed_type="text")))
    refused("class labels beside the prompt", parts(pipelines.sd(), unet=pipelines.unet(num_class_embeds=3)))
    pipe = pipelines.sd()
    pipe.controlnet = torch.nn.Identity()
    refused("has a controlnet", pipe)


def test_the_refiner():
    components = pipelines.sdxl().components
    refused("refiner", diffusers.StableDiffusionXLImg2ImgPipeline(**components, requires_aesthetics_score=True))


def test_an_unconditional_unet():
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    refused("no class embedding", {"unet": unet, "scheduler": diffusers.DDPMScheduler()})


def test_an_unknown_component_class_says_which_are_known_and_how_to_wrap():
    class Another(torch.nn.Module):
        config = {}

    said = refused("the denoiser is a Another, which is not known", {"unet": Another()})
    assert "UNet2DConditionModel" in said and "ZImageTransformer2DModel" in said and "diffcls.Denoiser" in said
    refused("neither a unet nor a transformer", {"vae": pipelines.vae()})
    refused("components nonsense are not those", {**pipelines.sd().components, "nonsense": 1})
    refused("several pipelines", pipelines.pixart().components)


@pytest.mark.parametrize("model", [3, torch.nn.Linear(2, 2), object()])
def test_what_is_no_model(model):
    with pytest.raises(diffcls.DTypeError, match="must be a name, a folder, a diffusers pipeline"):
        diffcls.load(model)


# ---- names and files -------------------------------------------------------------------------------------------------


def test_a_hub_id_without_a_network_says_how_to_use_a_folder():
    refused("can not be had from the hub.*give the local folder", "no-such-owner/no-such-model")
    with pytest.raises(diffcls.InputError, match="give the local folder"):
        diffcls.classify(PICTURE, ["a", "b"], model="no-such-owner/no-such-model")


def test_a_name_that_is_neither_embedded_nor_a_hub_id():
    with pytest.raises(diffcls.InputError, match="there is no model 'digits-and-cloths'.*a hub id"):
        diffcls.load("digits-and-cloths")


def test_folders_that_are_no_pipelines(tmp_path):
    refused("does not exist", tmp_path / "nothing")
    refused("has no model_index.json", tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text("{")
    refused("is no json", tmp_path)
    index.write_text(
        json.dumps({"_class_name": ["pipeline", "MyPipeline"], "unet": ["diffusers", "UNet2DConditionModel"]})
    )
    refused("of its own code, which is not run", tmp_path)
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    refused("neither a unet nor a transformer", tmp_path)


def test_pickles_are_not_opened(tmp_path):
    refused("is a pickle, which may run code", write(tmp_path / "model.ckpt"))
    pipelines.sd().save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    write(tmp_path / "unet" / "diffusion_pytorch_model.bin")
    refused("is a pickle, which may run code, and there is no safetensors", tmp_path)


def write(path):
    path.write_bytes(b"pickle")
    return path


def test_a_lora_that_is_missing_or_a_pickle(tmp_path):
    refused("lora .*none.safetensors.* can not be loaded", pipelines.sd(), lora=tmp_path / "none.safetensors")
    refused("a pickle, which may run code", pipelines.sd(), lora=tmp_path / "lora.bin")
    refused("can not be loaded", pipelines.sd(), lora={"nonsense": torch.zeros(2)})
    refused("takes none", pipelines.dit(), lora=tmp_path)


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolution": 17}, r"resolution is \(17, 17\), must be multiples of 4"),
        ({"resolution": (16,)}, "must be a number of pixels or"),
        ({"resolution": 0}, "must be an integer of 1 or more"),
        ({"preprocess": "crop"}, "preprocess is 'crop', must be one of paper, adm, squash"),
        ({"guidance": 0.5}, "guidance is 0.5, must be a number of 1 or more"),
        ({"long_prompts": "cut"}, "long_prompts is 'cut', must be one of"),
        ({"text_encoders": "gone"}, "must be one of keep, offload, free"),
        ({"vae": "free"}, "vae is 'free', must be one of keep, offload"),
        ({"prompt_batch_size": 0}, "prompt_batch_size is 0"),
        ({"max_sequence_length": 0}, "max_sequence_length is 0"),
        ({"strength": 0.5}, "has no options strength"),
        ({"revision": "main"}, "revision go with a model's name"),
    ],
)
def test_options_without_sense(options, said):
    refused(said, pipelines.sd(), **options)


def test_a_schedule_that_is_none():
    refused("schedule is dict", pipelines.sd(), error=diffcls.DTypeError, schedule={})


def test_options_of_diffusers_models_are_not_those_of_others():
    with pytest.raises(diffcls.InputError, match="is an embedded model, so resolution can not be given"):
        diffcls.load("digits-and-clothes", resolution=28)
    with pytest.raises(diffcls.InputError, match="a Denoiser is ready"):
        diffcls.load(diffcls.load(), guidance=2.0)


def test_positions_that_the_model_does_not_have():
    refused("has positions for 32 pixels a side", pipelines.sd3(), resolution=64)


# ---- devices ---------------------------------------------------------------------------------------------------------


def test_mixed_devices():
    pipe = pipelines.sd()
    pipe.vae.to("meta")
    refused("the pipeline's .* is on (cpu|meta) and the pipeline on (meta|cpu)", pipe, error=diffcls.DeviceError)


def test_a_pipeline_is_used_where_it_is(tmp_path):
    pipe = pipelines.sd()
    refused("the pipeline is on cpu; move it", pipe, error=diffcls.DeviceError, device="meta")
    refused("is torch.float32; convert it", pipe, error=diffcls.DTypeError, dtype="float16")
    assert load_diffusers(pipe, device="cpu", dtype=torch.float32).pipe is pipe
    if not torch.cuda.is_available():
        pipe.save_pretrained(tmp_path)
        refused("PyTorch finds no GPU here", tmp_path, error=diffcls.DeviceError, device="cuda")


def test_a_vae_that_overflows_in_half_precision():
    pipe = pipelines.sd()
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.mul_(1e5)
    denoiser = load_diffusers(pipe.to(torch.float16))
    with pytest.raises(diffcls.NonFiniteError, match="the VAE gave NaN or infinity in float16"):
        denoiser.encode(PICTURE)


def test_a_model_that_does_not_fit(monkeypatch):
    denoiser = load_diffusers(pipelines.sd())
    monkeypatch.setattr(denoiser.adapter, "predict", full)
    with pytest.raises(diffcls.DeviceError, match="one row is out of memory"):
        diffcls.classify(PICTURE, ["a", "b"], model=denoiser, policy=diffcls.Fixed(2))


def full(x, t, cond):
    raise torch.OutOfMemoryError("no memory")


# ---- prompts and pictures --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return load_diffusers(pipelines.sd())


def test_a_text_model_must_be_told_its_classes(model):
    with pytest.raises(diffcls.InputError, match="takes any text, so it must be told the classes"):
        diffcls.classify(PICTURE, model=model)


@pytest.mark.parametrize("prompts", [[3, 4], {"a": 3}])
def test_numbers_are_no_prompts_of_a_text_model(model, prompts):
    with pytest.raises(diffcls.UnknownClassError, match="takes words"):
        diffcls.classify(PICTURE, prompts, model=model)


def test_two_classes_with_one_prompt(model):
    with pytest.raises(diffcls.InputError, match="'x' and 'y' mean the same"):
        diffcls.classify(PICTURE, {"x": "a cat", "y": "a cat"}, model=model)


def test_a_class_model_says_which_classes_it_knows():
    denoiser = load_diffusers(pipelines.dit())
    with pytest.raises(diffcls.UnknownClassError, match="'cat' is not a class .* which knows: .*goldfish"):
        diffcls.classify(PICTURE, ["cat", "hen"], model=denoiser)


LONG = ["a red cat on a mat and a dog", "a red cat on a mat and an owl"]  # one text to 14 tokens


def test_prompts_past_the_end_are_warned_of(model):
    with pytest.warns(diffcls.TruncationWarning, match="tokens for tokenizer, which takes 16.*the rest is not read"):
        model.with_prompts(["a red cat on the mat", "two dogs"])
    with pytest.raises(diffcls.InputError, match="are the same to the model's tokenizers"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.with_prompts(LONG)


def test_prompts_past_the_end_may_be_refused_or_read():
    strict = load_diffusers(pipelines.sd(), long_prompts="error")
    with pytest.raises(diffcls.InputError, match="shorten it"):
        strict.with_prompts(LONG)
    with pytest.raises(diffcls.InputError, match="long_prompts is 'chunk', which only CLIP text encoders alone can do"):
        load_diffusers(pipelines.sd3(), long_prompts="chunk").with_prompts(LONG)


def test_freed_text_encoders_encode_no_more():
    denoiser = load_diffusers(pipelines.sd(), text_encoders="free")
    denoiser.with_prompts(["a", "b"])
    assert denoiser.pipe.text_encoder is None
    with pytest.raises(diffcls.InputError, match="were freed"):
        denoiser.with_prompts(["c"])


@pytest.mark.parametrize("shape", [(3, 16, 20), (1, 16, 20)])
def test_channels_come_last(model, shape):
    with pytest.raises(diffcls.ShapeError, match="channels come last"):
        diffcls.classify(np.zeros(shape, np.uint8), ["a", "b"], model=model)


@pytest.mark.parametrize("shape", [(2, 3, 16, 20), (16, 16, 2, 5, 1), (5,)])
def test_pictures_of_other_channels(model, shape):
    with pytest.raises(diffcls.ShapeError, match="C one of 1, 3, 4"):
        diffcls.classify(np.zeros(shape, np.uint8), ["a", "b"], model=model)


def test_a_preparation_that_gives_another_size():
    denoiser = load_diffusers(pipelines.sd(), preprocess=lambda picture: picture.resize((8, 8)))
    with pytest.raises(diffcls.ShapeError, match=r"preprocess gave a picture of \(8, 8\), must be \(16, 16\)"):
        denoiser.encode(PICTURE)
