"""Prompts to conditions: once, in batches, by the pipeline's own text encoders."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError, TruncationWarning, warn_caller
from ..framework_calls import evaluating

if TYPE_CHECKING:
    from .adapter import Adapter

Conditions = dict[str, Any]


class PromptEncoder:
    """What a text-to-image `Denoiser` encodes its prompts with.

    Encoders are where the pipeline has them, or on the CPU between calls ("offload"), or gone after the first ("free").
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.device = adapter, adapter.place
        self.freed = False
        check_encoders(adapter)
        if adapter.settings.text_encoders == "offload":
            for _, encoder in text_encoders(adapter.pipe):
                encoder.to("cpu")

    def __call__(self, prompts: list[str]) -> Conditions:
        """Tensors of K rows, of the denoiser's type, on its device.

        Raises
        ------
        ValueError
            Two prompts are the same to the tokenizers, one is too long and must not be, or the encoders were freed.
        """
        import torch

        if self.freed:
            raise InputError("the text encoders were freed after the first prompts; load the model again for others")
        adapter, settings = self.adapter, self.adapter.settings
        n_windows = check_tokens(adapter, prompts)
        parts = []
        with torch.no_grad(), self._awake():
            for start in range(0, len(prompts), settings.prompt_batch_size):
                parts.append(adapter.encode_prompts(prompts[start : start + settings.prompt_batch_size], n_windows))
        if settings.text_encoders == "free":
            self._free()
        joined = join(parts)
        return {key: self._as_given(torch, value) for key, value in joined.items()}

    def read_as(self, prompts: list[str]) -> list[Any]:
        """What each prompt is to the tokenizers: two prompts of one reading are one condition."""
        return _read(self.adapter, prompts)[0] if self.adapter.token_limits() else list(prompts)

    def _as_given(self, torch: Any, value: Any) -> Any:
        """Floats as the denoiser computes, whole numbers and masks as they are."""
        dtype = self.adapter.module.dtype if value.is_floating_point() else value.dtype
        return value.to(self.device, dtype)

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """Encoders in evaluation mode, and on the device while they are needed."""
        offloaded = self.adapter.settings.text_encoders == "offload"
        with ExitStack() as stack:
            for _, encoder in text_encoders(self.adapter.pipe):
                stack.enter_context(evaluating(encoder))
                if offloaded:
                    encoder.to(self.device)
                    stack.callback(encoder.to, "cpu")
            yield

    def _free(self) -> None:
        for name, _ in list(text_encoders(self.adapter.pipe)):
            setattr(self.adapter.pipe, name, None)
        self.freed = True


def text_encoders(pipe: Any) -> Iterator[tuple[str, Any]]:
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if getattr(pipe, name, None) is not None:
            yield name, getattr(pipe, name)


def tokenizers(pipe: Any) -> Iterator[tuple[str, Any]]:
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        if getattr(pipe, name, None) is not None:
            yield name, getattr(pipe, name)


def check_encoders(adapter: Adapter) -> None:
    """
    Raises
    ------
    ValueError
        A text encoder or tokenizer that the family needs is not there.
    """
    needed = adapter.text_parts
    missing = [name for name in needed if getattr(adapter.pipe, name, None) is None]
    if missing:
        raise InputError(
            f"the pipeline has no {' and no '.join(missing)}, so prompts can not be encoded; load it with its text encoders, "
            "or wrap the module in a diffcls.Denoiser with conditions= of your own"
        )


def check_tokens(adapter: Adapter, prompts: list[str]) -> int:
    """Warn of, or refuse, prompts that are cut; refuse two that are the same after it.

    Returns
    -------
    n_windows : int
        1, or with long_prompts="chunk" the number of windows that hold the longest prompt.

    Raises
    ------
    ValueError
    """
    how, limits = adapter.settings.long_prompts, adapter.token_limits()
    if how == "chunk" and not adapter.in_windows:
        raise InputError(
            f"long_prompts is 'chunk', which only CLIP text encoders alone can do, not those of {adapter.models}"
        )
    kept, cut, n_windows = _read(adapter, prompts)
    if cut and how != "chunk":
        first = min(cut)
        others = f" ({len(cut) - 1} more are too long)" if len(cut) > 1 else ""
        said = f"prompt {prompts[first]!r} has {cut[first]}{others}"
        if how == "error":
            raise InputError(f"{said}: shorten it, or choose long_prompts='warn'")
        warn_caller(f"{said}: the rest is not read", TruncationWarning)
    owner: dict[tuple[Any, ...], str] = {}
    for prompt, ids in zip(prompts, kept, strict=True):
        other = owner.setdefault(ids, prompt)
        if limits and other is not prompt:
            raise InputError(f"prompts {other!r} and {prompt!r} are the same to the model's tokenizers")
    return n_windows if how == "chunk" else 1


def _read(adapter: Adapter, prompts: list[str]) -> tuple[list[tuple[Any, ...]], dict[int, str], int]:
    """Each prompt's tokens as the encoders see them; of those that are cut, what is said of it; windows of the longest."""
    how, limits = adapter.settings.long_prompts, adapter.token_limits()
    n_windows = 1
    kept: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    cut: dict[int, str] = {}
    for name, tokenizer in tokenizers(adapter.pipe):
        if name not in limits:
            continue
        limit = limits[name]
        for i, ids in enumerate(tokenizer(adapter.as_read(prompts)).input_ids):
            kept[i].append(tuple(ids if how == "chunk" else ids[: limit - 1]))  # the last one closes the sequence
            n_windows = max(n_windows, -(-(len(ids) - 2) // (limit - 2)))
            if len(ids) > limit:
                cut.setdefault(i, f"{len(ids)} tokens for {name}, which takes {limit}")
    return [tuple(ids) for ids in kept], cut, n_windows


def encode(adapter: Adapter, prompts: list[str], **wanted: Any) -> tuple[Any, ...]:
    """The pipeline's ``encode_prompt`` for prompts alone, without guidance; settings that it does not know are left out."""
    pipe = adapter.pipe
    known = inspect.signature(pipe.encode_prompt).parameters
    given = {
        "prompt": list(prompts),
        "device": adapter.place,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": False,
        **{name: value for name, value in wanted.items() if value is not None},
    }
    for name, parameter in known.items():  # second prompts that must be given, and may be None
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            given.setdefault(name, None)
    result: tuple[Any, ...] = pipe.encode_prompt(**{name: value for name, value in given.items() if name in known})
    return result


def default_length(pipe: Any) -> int:
    """Tokens that the pipeline lets a prompt have."""
    return int(inspect.signature(pipe.encode_prompt).parameters["max_sequence_length"].default)


def join(parts: list[Mapping[str, Any]]) -> Conditions:
    """Batches one after the other; where their second axis differs, shorter ones are padded with zeros."""
    import torch

    joined = {}
    for key in parts[0]:
        rows = [part[key] for part in parts]
        if rows[0].ndim > 1:
            longest = max(row.shape[1] for row in rows)
            rows = [
                torch.cat([row, row.new_zeros(row.shape[0], longest - row.shape[1], *row.shape[2:])], dim=1)
                if row.shape[1] < longest
                else row
                for row in rows
            ]
        joined[key] = torch.cat(rows)
    return joined


def windows(tokenizer: Any, encoder: Any, prompts: list[str], n_windows: int, device: Any) -> list[Any]:
    """A CLIP text encoder's outputs, one a window of the prompts' tokens.

    A window has ``model_max_length - 2`` tokens between ends of its own, and is padded; a prompt with fewer than `n_windows`
    gets empty ones, so that all prompts have one length.
    """
    import torch

    room, with_mask = tokenizer.model_max_length - 2, getattr(encoder.config, "use_attention_mask", False)
    tokens = [ids[1:-1] for ids in tokenizer(prompts).input_ids]
    outputs = []
    for start in range(0, n_windows * room, room):
        rows = [[tokenizer.bos_token_id, *ids[start : start + room], tokenizer.eos_token_id] for ids in tokens]
        batch = tokenizer.pad({"input_ids": rows}, padding="max_length", max_length=room + 2, return_tensors="pt")
        mask = batch["attention_mask"].to(device) if with_mask else None
        ids = torch.as_tensor(batch["input_ids"]).to(device)
        outputs.append(encoder(ids, attention_mask=mask, output_hidden_states=True))
    return outputs
