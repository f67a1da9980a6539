"""Tiny pipelines whose prompts a language model reads: Sana, FLUX.2, Qwen-Image, Z-Image, Lumina 2.  Needs transformers 5."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from pipelines import CHARACTERS, flow, randomise, vae
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def gemma(length=600, width=16):
    ends = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = [*ends, "\u2581", "\n", *CHARACTERS, *CHARACTERS.upper()[:26]]
    tokenizer = GemmaTokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=length)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2, sliding_window=512,
    )  # fmt: skip
    return tokenizer, randomise(Gemma2Model(config), 20)


def qwen_tokenizer():
    words = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=600)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(tokenizer, kind=Qwen3Model, layers=3, width=16):
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=512,
    )  # fmt: skip
    return randomise(kind(config), 21)


def sana():
    tokenizer, encoder = gemma()
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16, sample_size=8,
        patch_size=1, mlp_ratio=1.5, timestep_scale=0.5,
    )  # fmt: skip
    codec = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"), encoder_block_out_channels=(4, 8), decoder_block_out_channels=(4, 8),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()), downsample_block_type="conv", upsample_block_type="interpolate",
        decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41407,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=1
    )
    return SanaPipeline(tokenizer, encoder, randomise(codec, 9), randomise(transformer, 10), scheduler)


def flux2_parts(guidance_embeds):
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=8, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance_embeds,
    )  # fmt: skip
    codec = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(4, 8),
        layers_per_block=1, latent_channels=4, norm_num_groups=2, sample_size=16,
    )  # fmt: skip
    randomise(codec, 11)
    codec.bn.running_mean.copy_(torch.linspace(-1.0, 1.0, 16))
    codec.bn.running_var.copy_(torch.linspace(0.5, 2.0, 16))
    return {"transformer": randomise(transformer, 12), "vae": codec, "scheduler": flow(use_dynamic_shifting=True)}


def flux2_klein():
    tokenizer = qwen_tokenizer()
    encoder = qwen3(tokenizer, Qwen3ForCausalLM, layers=28)
    return Flux2KleinPipeline(text_encoder=encoder, tokenizer=tokenizer, is_distilled=False, **flux2_parts(False))


class FlatTokenizer:
    """In the place of FLUX.2 dev's processor, whose real class needs torchvision: its chats hold lists of texts."""

    def __init__(self):
        self.tokenizer = qwen_tokenizer()

    def apply_chat_template(self, chats, **options):
        flat = [[{"role": m["role"], "content": m["content"][0]["text"]} for m in chat] for chat in chats]
        flat = [chat[-1:] for chat in flat]  # the system's message would fill a test's few tokens
        return self.tokenizer.apply_chat_template(flat, **options)


def flux2():
    tokenizer = FlatTokenizer()
    encoder = qwen3(tokenizer.tokenizer, Qwen3ForCausalLM, layers=31)
    return Flux2Pipeline(text_encoder=encoder, tokenizer=tokenizer, **flux2_parts(True))


def qwen_image():
    tokenizer = qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=len(tokenizer) - 1, video_token_id=len(tokenizer) - 1,
        vision_start_token_id=len(tokenizer) - 1, vision_end_token_id=len(tokenizer) - 1,
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    codec = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[-0.7, 0.1, 0.5, 1.1], latents_std=[2.8, 1.4, 0.5, 3.1],
    )  # fmt: skip
    return QwenImagePipeline(
        scheduler=flow(
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            max_image_seq_len=8192,
            shift=1.0,
            shift_terminal=0.02,
        ),
        vae=randomise(codec, 13),
        text_encoder=randomise(Qwen2_5_VLForConditionalGeneration(config), 14),
        tokenizer=tokenizer,
        transformer=randomise(transformer, 15),
    )


def z_image():
    tokenizer = qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16, rope_theta=256.0,
        axes_dims=[8, 4, 4], axes_lens=[512, 32, 32],
    )  # fmt: skip
    return ZImagePipeline(
        scheduler=flow(),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=qwen3(tokenizer),
        tokenizer=tokenizer,
        transformer=randomise(transformer, 16),
    )


def lumina2():
    tokenizer, encoder = gemma()
    transformer = Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1,
        num_attention_heads=3, num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2), axes_lens=(600, 16, 16),
        cap_feat_dim=16,
    )  # fmt: skip
    return Lumina2Pipeline(
        transformer=randomise(transformer, 17),
        scheduler=flow(shift=6.0),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


FAMILIES = {
    "sana": sana,
    "flux2_klein": flux2_klein,
    "flux2": flux2,
    "qwen_image": qwen_image,
    "z_image": z_image,
    "lumina2": lumina2,
}
