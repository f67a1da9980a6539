"""The network of the model ``shapes`` and the pipeline of diffusers that it goes into.

It has PixArt's parts (Chen et al., 2023), small: a T5 encoder over a vocabulary of words and a transformer with
cross-attention, on pixels, so there is no VAE.  It predicts x_start on the cosine schedule.
"""

from __future__ import annotations

from typing import Any

from diffusers import DDPMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from .shape_pictures import COLOURS, RELATIONS, SHAPES, SIZE

N_TOKENS = 10
"""Of a prompt: "a red circle left of a blue square" has eight words, and an end."""
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
HEAD_DIM = 32


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, lower case, closed by an end."""
    words = sorted({"a", "an", *COLOURS, *SHAPES, *(word for relation in RELATIONS for word in relation.split())})
    vocabulary = {word: number for number, word in enumerate([PAD, END, UNKNOWN, *words])}
    words_to_ids = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words_to_ids.normalizer = normalizers.Lowercase()
    words_to_ids.pre_tokenizer = pre_tokenizers.Whitespace()
    words_to_ids.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words_to_ids,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=N_TOKENS,
        padding_side="right",
    )


def read(tokenize: PreTrainedTokenizerFast, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, (B, N_TOKENS) both, as the pipeline makes them."""
    tokens = tokenize(prompts, padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt")
    return tokens.input_ids, tokens.attention_mask


class ShapesModel(nn.Module):
    """Text encoder and transformer, trained together.

    Parameters
    ----------
    width, depth : int
        Of the transformer; `width` is a multiple of `HEAD_DIM`.
    patch : int
        Side of a token in pixels.
    text_width : int
        Of the text encoder, which has two layers.
    """

    def __init__(self, *, width: int, depth: int, patch: int, text_width: int) -> None:
        super().__init__()
        words = tokenizer()
        self.text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(words),
                d_model=text_width,
                d_kv=16,
                d_ff=2 * text_width,
                num_layers=2,
                num_heads=text_width // 16,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                relative_attention_num_buckets=16,
                relative_attention_max_distance=16,
                pad_token_id=words.pad_token_id,
                eos_token_id=words.eos_token_id,
            )
        )
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=width // HEAD_DIM,
            attention_head_dim=HEAD_DIM,
            in_channels=3,
            out_channels=3,
            num_layers=depth,
            cross_attention_dim=width,
            sample_size=SIZE,
            patch_size=patch,
            caption_channels=text_width,
            use_additional_conditions=False,
        )
        nn.init.zeros_(self.transformer.proj_out.weight)

    def forward(self, x_t: Tensor, t: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """x_start's estimate (B, 3, SIZE, SIZE) of prompts (B, N_TOKENS)."""
        states = self.text_encoder(ids, attention_mask=mask)[0]
        return self.transformer(
            x_t,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")


def pipeline(model: ShapesModel) -> Any:
    """A pipeline of the model's own modules, without a VAE."""
    return PixArtAlphaPipeline(
        tokenizer=tokenizer(),
        text_encoder=model.text_encoder,
        vae=None,
        transformer=model.transformer,
        scheduler=scheduler(),
    )
