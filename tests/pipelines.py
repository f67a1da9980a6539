"""Tiny pipelines of diffusers' and transformers' real classes, all weights random, no network: one function a family.

Sizes are the smallest that keep what an adapter can get wrong: two text encoders where there are two, masks that mask,
latents with a scale and a shift that are not 1 and 0, learned variances, packed tokens.
"""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

TRANSFORMERS = int(transformers.__version__.split(".")[0])
CHARACTERS = string.ascii_lowercase + string.digits + ".,:'!?-<>|_/\""


def randomise(module, seed):
    """Every weight from N(0, 0.3^2), norms around one: nothing is left at a zero that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return module.eval()


def clip_tokenizer(length=16):
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*CHARACTERS, *(c + "</w>" for c in CHARACTERS), *ends]
    vocab = {word: i for i, word in enumerate(words)}
    if TRANSFORMERS >= 5:
        return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        files[0].write_text(json.dumps(vocab))
        files[1].write_text("#version: 0.2\n")
        return CLIPTokenizer(*map(str, files), model_max_length=length)


def clip_encoder(tokenizer, width=8, seed=0, projection=False, layers=2):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return randomise(kind(config), seed)


def t5_tokenizer(length=24):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *((c, -3.0) for c in CHARACTERS)]
    if TRANSFORMERS >= 5:
        return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=length)
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=backend, extra_ids=0, model_max_length=length)


def t5_encoder(tokenizer, width=8, seed=0):
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=4,
        d_ff=16,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return randomise(T5EncoderModel(config), seed)


def vae(channels=4, seed=1, **config):
    made = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=16,
        **config,
    )
    return randomise(made, seed)


def ddim(prediction_type="epsilon"):
    """Of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def unet(seed=2, **config):
    config = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 8, **config}
    made = UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=8,
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **config,
    )
    return randomise(made, seed)


def sd(prediction_type="epsilon"):
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=vae(scaling_factor=0.18215),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet(),
        scheduler=ddim(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd_v():
    return sd("v_prediction")


def sd_euler():
    """A sampler of x_start + sigma eps, which scales what the module is fed."""
    pipe = sd()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
    return pipe


def sd_zero_snr():
    """v-prediction with a last row of pure noise (Lin et al., 2023)."""
    pipe = sd_v()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    return pipe


def sdxl_edm():
    """As Playground 2.5: EDM's scheduler and a VAE with moments."""
    pipe = sdxl()
    moments = {"latents_mean": [-1.6, 1.1, 0.5, 0.2], "latents_std": [8.4, 5.0, 5.3, 4.1]}
    pipe.register_modules(scheduler=EDMEulerScheduler(), vae=vae(scaling_factor=0.5, **moments))
    return pipe


def sdxl():
    tokenizer, tokenizer_2 = clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_encoder(tokenizer, seed=3),
        tokenizer=tokenizer,
        text_encoder_2=clip_encoder(tokenizer_2, width=12, seed=4, projection=True),
        tokenizer_2=tokenizer_2,
        unet=unet(
            cross_attention_dim=20,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 12,
        ),
        scheduler=ddim(),
        add_watermarker=False,
    )


def dit():
    transformer = DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=10,
    )
    names = ("tench, Tinca tinca", "goldfish", "hen", "owl", "newt", "boa", "snail", "crab", "duck", "hare")
    return DiTPipeline(
        transformer=randomise(transformer, 5),
        vae=vae(scaling_factor=0.18215),
        scheduler=DDIMScheduler(clip_sample=False),
        id2label=dict(enumerate(names)),
    )


def flow(shift=3.0, **config):
    return FlowMatchEulerDiscreteScheduler(shift=shift, **config)


def sd3():
    tokenizers = [clip_tokenizer(), clip_tokenizer(), t5_tokenizer()]
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=16,
        pooled_projection_dim=20,
        pos_embed_max_size=8,
    )
    return StableDiffusion3Pipeline(
        transformer=randomise(transformer, 6),
        scheduler=flow(),
        vae=vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=clip_encoder(tokenizers[0], seed=3, projection=True),
        tokenizer=tokenizers[0],
        text_encoder_2=clip_encoder(tokenizers[1], width=12, seed=4, projection=True),
        tokenizer_2=tokenizers[1],
        text_encoder_3=t5_encoder(tokenizers[2], width=24),
        tokenizer_3=tokenizers[2],
    )


def sd3_without_t5():
    pipe = sd3()
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    return pipe


def flux_transformer(**config):
    made = FluxTransformer2DModel(
        patch_size=1,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
        **{"in_channels": 16, **config},
    )
    return randomise(made, 7)


def flux():
    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(tokenizer_2, width=12),
        tokenizer_2=tokenizer_2,
        transformer=flux_transformer(),
    )


def pixart(sample_size=8, use_additional_conditions=False, kind=PixArtSigmaPipeline):
    tokenizer = t5_tokenizer()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=24,
        sample_size=sample_size, patch_size=2, caption_channels=12, use_additional_conditions=use_additional_conditions,
    )  # fmt: skip
    return kind(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer, width=12),
        vae=vae(scaling_factor=0.13025),
        transformer=randomise(transformer, 8),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02, solver_order=1),
    )


def pixart_alpha():
    """At 1024 pixels, the only size whose module embeds the picture's size; its latent has 128 places a side."""
    return pixart(128, True, PixArtAlphaPipeline)


FAMILIES = {
    "pixart": pixart,
    "pixart_alpha": pixart_alpha,
    "sd": sd,
    "sd_v": sd_v,
    "sd_euler": sd_euler,
    "sd_zero_snr": sd_zero_snr,
    "sdxl_edm": sdxl_edm,
    "sd3_without_t5": sd3_without_t5,
    "sdxl": sdxl,
    "dit": dit,
    "sd3": sd3,
    "flux": flux,
}
