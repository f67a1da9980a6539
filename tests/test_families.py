"""Every family against its own pipeline: what arrives at the module's door, the schedule, the latents, the loop."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import door  # noqa: E402
import pipelines  # noqa: E402
from diffusers import FluxPipeline  # noqa: E402

import diffcls  # noqa: E402

pytestmark = pytest.mark.torch
PROMPTS = ["a red cat", "2 dogs", "an owl."]
TEXT = {"prompt": PROMPTS, "guidance_scale": 1.0, "height": 16, "width": 16}


@dataclass
class Family:
    """How its pipeline is called without guidance, and how its samples are laid out."""

    call: dict[str, Any] = field(
        default_factory=lambda: {"prompt": PROMPTS, "guidance_scale": 1.0, "height": 16, "width": 16}
    )
    prompts: list[Any] = field(default_factory=lambda: list(PROMPTS))
    slot: str = "unet"
    door: str = "sample"
    options: dict[str, Any] = field(default_factory=dict)
    pack: Any = lambda x: x
    unpack: Any = lambda x: x
    x_of: Any = lambda x: x
    saved: bool = True

    def x_at(self, call):
        """x_t of one call of the module."""
        return self.x_of(call[self.door])


SHORT = {"max_sequence_length": 20}


def pack(x):
    return FluxPipeline._pack_latents(x, len(x), 4, 8, 8)


def unpack(x):
    scale = 2 if tuple(map(int, diffusers.__version__.split(".")[:2])) > (0, 30) else 4  # it counted the packing in
    return FluxPipeline._unpack_latents(x, 16, 16, scale)


FAMILIES = {
    "sd": Family(),
    "sd_v": Family(),
    "sdxl": Family(),
    "sd3": Family(
        {**TEXT, "max_sequence_length": 20},
        slot="transformer",
        door="hidden_states",
        options={"max_sequence_length": 20},
    ),
    "flux": Family(
        {**TEXT, "max_sequence_length": 20, "guidance_scale": 2.5},
        slot="transformer",
        door="hidden_states",
        options={"resolution": 16, "max_sequence_length": 20, "guidance": 2.5},
        pack=pack,
        unpack=unpack,
        x_of=unpack,
    ),
    "sd_euler": Family(),
    "sd_zero_snr": Family(),
    "sdxl_edm": Family(),
    "sd3_without_t5": Family(dict(TEXT), slot="transformer", door="hidden_states", saved=False),
    "flux2": Family(
        {**TEXT, "max_sequence_length": 60, "guidance_scale": 3.0},
        slot="transformer",
        door="hidden_states",
        options={"resolution": 16, "max_sequence_length": 60, "guidance": 3.0},
        pack=lambda x: x.flatten(2).transpose(1, 2),
        unpack=lambda x: x.transpose(1, 2).reshape(-1, 16, 4, 4),
        x_of=lambda x: x.transpose(1, 2).reshape(-1, 16, 4, 4),
        saved=False,  # its processor needs torchvision
    ),
    "pixart_alpha": Family(
        {**TEXT, **SHORT, "use_resolution_binning": False},
        slot="transformer",
        door="hidden_states",
        options={**SHORT, "resolution": 16},
    ),
    "pixart": Family(
        {**TEXT, **SHORT, "use_resolution_binning": False}, slot="transformer", door="hidden_states", options=SHORT
    ),
    "sana": Family(
        {**TEXT, **SHORT, "use_resolution_binning": False, "height": 32, "width": 32},
        slot="transformer",
        door="hidden_states",
        options={**SHORT, "resolution": 32},
    ),
    "lumina2": Family(
        {**TEXT, "max_sequence_length": 240},
        slot="transformer",
        door="hidden_states",
        options={"max_sequence_length": 240},
    ),
    "z_image": Family(
        {**TEXT, "guidance_scale": 0.0},
        slot="transformer",
        door="x",
        options={"resolution": 16},
        x_of=lambda x: torch.cat([row[None, :, 0] for row in x]),
    ),
    "qwen_image": Family(
        {key: TEXT[key] for key in ("prompt", "height", "width")},
        slot="transformer",
        door="hidden_states",
        options={"resolution": 16},
        pack=pack,
        unpack=unpack,
        x_of=unpack,
    ),
    "flux2_klein": Family(
        {**TEXT, "max_sequence_length": 60},
        slot="transformer",
        door="hidden_states",
        options={"resolution": 16, "max_sequence_length": 60},
        pack=lambda x: x.flatten(2).transpose(1, 2),
        unpack=lambda x: x.transpose(1, 2).reshape(-1, 16, 4, 4),
        x_of=lambda x: x.transpose(1, 2).reshape(-1, 16, 4, 4),
    ),
    "dit": Family({"class_labels": [3, 1, 7], "guidance_scale": 1.0}, [3, 1, 7], "transformer", "hidden_states"),
}


MAKERS = dict(pipelines.FAMILIES)
if pipelines.TRANSFORMERS >= 5:
    import pipelines_llm

    MAKERS |= pipelines_llm.FAMILIES


NAMES = [name for name in FAMILIES if name in MAKERS]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each family once: built, saved in the real layout, loaded by diffusers and by us, run by its pipeline."""
    made = {}

    def make(name):
        if name not in made:
            family, folder = FAMILIES[name], tmp_path_factory.mktemp(name)
            pipe = MAKERS[name]()
            if family.saved:
                pipe.save_pretrained(folder)
            denoiser = diffcls.load(folder if family.saved else pipe, **family.options)
            if name == "lumina2":
                denoiser.pipe.vae_scale_factor = 2  # its pipeline has its own VAE's written in
            seen = door.record(
                denoiser.pipe, family.slot, **deepcopy(family.call)
            )  # one pipeline writes into its prompts
            made[name] = family, denoiser, denoiser.pipe, seen
        return made[name]

    return make


@pytest.mark.parametrize("name", NAMES)
def test_the_door_sees_what_the_pipeline_shows_it(saved, name):
    family, denoiser, pipe, seen = saved(name)
    door.check_door(denoiser, seen, family.prompts, family.x_at, family.unpack)


@pytest.mark.parametrize("name", NAMES)
def test_schedule_and_target_are_the_schedulers(saved, name, rng):
    family, denoiser, pipe, seen = saved(name)
    door.check_schedule(denoiser, pipe, seen, rng, family.pack)


@pytest.mark.parametrize("name", NAMES)
def test_latents_are_what_the_pipeline_decodes(saved, name):
    family, denoiser, _, seen = saved(name)
    door.check_latents(denoiser, seen, family.unpack)


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_brings_noised_pictures_to_the_door(saved, name, rng):
    family, denoiser, pipe, _ = saved(name)
    image = rng.integers(0, 256, (21, 30, 3), dtype=np.uint8)
    door.check_loop(denoiser, pipe, family.prompts, image, lambda call: np.asarray(family.x_at(call)))


# ---- mistakes: each is planted into a good adapter, and the check that is named must fail ----


def rewritten(**changes):
    """`arguments` with some of them changed by functions of their value; None leaves one out."""

    def plant(denoiser, patch):
        real = denoiser.adapter.arguments

        def arguments(x, t, cond):
            made = real(x, t, cond)
            for name, change in changes.items():
                value = made.pop(name)
                if change is not None:
                    made[name] = change(value)
            return made

        patch.setattr(denoiser.adapter, "arguments", arguments)

    return plant


def rule(name):
    return lambda denoiser, patch: patch.setattr(denoiser.adapter.encoder, "rule", name)


def unscaled(denoiser, patch):
    patch.setattr(denoiser.adapter.encoder, "normalise", lambda z: z)


def raw_output(denoiser, patch):
    patch.setattr(denoiser.adapter, "prediction", lambda output, x: output)


def turned(denoiser, patch):
    real = denoiser.adapter.prediction
    patch.setattr(denoiser.adapter, "prediction", lambda output, x: -real(output, x))


def asked_for(prediction_type):
    def plant(denoiser, patch):
        p, q = denoiser.schedule.target(prediction_type)
        patch.setattr(denoiser, "p", p)
        patch.setattr(denoiser, "q", q)

    return plant


def scheduled(schedule):
    def plant(denoiser, patch):
        patch.setattr(denoiser, "schedule", schedule)

    return plant


def a_thousandth(t):
    return t / 1000


def a_thousandfold(t):
    return t * 1000


def everything_read(mask):
    return torch.ones_like(mask)


MISTAKES = {
    "scaling left out": ("latents", ("sd", "sd_v", "sdxl", "dit", "pixart", "sana", "sd3", "flux"), unscaled),
    "shift left out": ("latents", ("sd3", "flux", "lumina2", "z_image"), rule("scaling")),
    "moments left out": ("latents", ("qwen_image",), unscaled),
    "batch norm left out": ("latents", ("flux2_klein",), unscaled),
    "time of 0 to 1": ("door", ("sd3", "sd3_without_t5"), rewritten(timestep=a_thousandth)),
    "time of 0 to 1000": ("door", ("flux", "flux2_klein", "qwen_image", "lumina2"), rewritten(timestep=a_thousandfold)),
    "time not scaled": ("door", ("sana",), rewritten(timestep=lambda t: t * 2)),
    "time one row off": ("door", ("sd", "sd_euler", "dit", "pixart"), rewritten(timestep=lambda t: t + 1)),
    "time not turned": ("door", ("lumina2",), rewritten(timestep=lambda t: 1 - t)),
    "time of Z-Image not turned": ("door", ("z_image",), rewritten(t=lambda t: 1 - t)),
    "sign not turned": ("door", ("lumina2", "z_image"), turned),
    "mask ignored": ("door", ("pixart", "sana", "lumina2"), rewritten(encoder_attention_mask=everything_read)),
    "mask left out": ("door", ("pixart", "sana"), rewritten(encoder_attention_mask=None)),
    "mask of Qwen-Image ignored": ("door", ("qwen_image",), rewritten(encoder_hidden_states_mask=everything_read)),
    "padding read": ("door", ("z_image",), rewritten(cap_feats=lambda rows: [torch.cat([row, row[-1:]]) for row in rows])),
    "eps for v": ("schedule", ("sd_v", "sd_zero_snr"), asked_for("epsilon")),
    "v for eps": ("schedule", ("sd", "sdxl", "dit", "pixart"), asked_for("v_prediction")),
    "eps for a flow": ("schedule", ("sd3", "flux", "sana", "qwen_image", "z_image", "lumina2"), asked_for("epsilon")),
    "another schedule": ("schedule", ("sd", "sdxl"), scheduled(diffcls.Schedule.linear())),
    "learned variance kept": ("door", ("dit", "pixart"), raw_output),
    "pooled vector of another prompt": ("door", ("sd3", "flux"), rewritten(pooled_projections=lambda x: x.roll(1, 0))),
    "size of another picture": ("door", ("pixart_alpha",), rewritten(added_cond_kwargs=lambda d: {**d, "resolution": 1 + d["resolution"]})),
    "size conditions left out": ("door", ("sdxl", "sdxl_edm"), rewritten(added_cond_kwargs=lambda d: {**d, "time_ids": 0 * d["time_ids"]})),
    "another guidance": ("door", ("flux", "flux2"), rewritten(guidance=lambda g: g + 1)),
    "packed the other way": ("door", ("flux", "qwen_image"), rewritten(hidden_states=lambda x: x.roll(1, 2))),
    "rows and columns swapped": ("door", ("flux", "flux2_klein"), rewritten(img_ids=lambda x: x.flip(-1))),
    "prompts in another order": ("door", ("sd", "sdxl", "sd3"), rewritten(encoder_hidden_states=lambda x: x.flip(0))),
    "class numbers off by one": ("door", ("dit",), rewritten(class_labels=lambda x: x + 1)),
}  # fmt: skip


def checked(saved, rng, name, check):
    family, denoiser, pipe, seen = saved(name)
    if check == "door":
        door.check_door(denoiser, seen, family.prompts, family.x_at, family.unpack)
    elif check == "schedule":
        door.check_schedule(denoiser, pipe, seen, rng, family.pack)
    else:
        door.check_latents(denoiser, seen, family.unpack)


@pytest.mark.parametrize(
    ("mistake", "name"), [(m, name) for m, (_, names, _) in MISTAKES.items() for name in names if name in MAKERS]
)
def test_a_planted_mistake_is_caught(saved, rng, monkeypatch, mistake, name):
    _, denoiser, _, _ = saved(name)
    check, _, plant = MISTAKES[mistake]
    plant(denoiser, monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):  # a module may refuse before we compare
        checked(saved, rng, name, check)


# ---- the five that every family could have: each is planted wherever it can be ----


def wrong_time(denoiser, patch, given):
    name = next(key for key in ("timestep", "t") if key in given)
    rewritten(**{name: lambda t: t / 1000 if t.abs().max() > 1 else t * 1000})(denoiser, patch)


def masks_ignored(denoiser, patch, given):
    rewritten(**{key: everything_read for key in given if key.endswith("mask")})(denoiser, patch)


def wrong_target(denoiser, patch, given):
    told = denoiser.schedule.prediction_type or denoiser.prediction_type
    asked_for("v_prediction" if told == "epsilon" else "epsilon")(denoiser, patch)


COMMON = {
    "scaling": ("latents", lambda denoiser, patch, given: unscaled(denoiser, patch)),
    "shift": ("latents", lambda denoiser, patch, given: rule("scaling")(denoiser, patch)),
    "time": ("door", wrong_time),
    "mask": ("door", masks_ignored),
    "target": ("schedule", wrong_target),
}
SHIFTED = {"sd3", "sd3_without_t5", "flux", "lumina2", "z_image"}
MASKED = {"pixart_alpha", "pixart", "sana", "lumina2", "qwen_image"}
"""Z-Image's text has no mask: "padding read" stands for it."""


@pytest.mark.parametrize("name", NAMES)
def test_which_of_the_five_a_family_can_have(saved, name):
    """By what it is, not by the lists here: nothing is left out because somebody forgot it."""
    _, denoiser, _, seen = saved(name)
    assert (denoiser.adapter.encoder.rule == "shifted") == (name in SHIFTED)
    assert any(key.endswith("mask") for key in seen.door[0]) == (name in MASKED)


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        (mistake, name)
        for mistake in COMMON
        for name in NAMES
        if name in {"shift": SHIFTED, "mask": MASKED}.get(mistake, FAMILIES)
    ],
)
def test_the_five_mistakes_are_caught_in_every_family(saved, rng, monkeypatch, mistake, name):
    _, denoiser, _, seen = saved(name)
    check, plant = COMMON[mistake]
    checked(saved, rng, name, check)  # good before
    plant(denoiser, monkeypatch, seen.door[0])
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        checked(saved, rng, name, check)


def test_every_family_has_a_check_and_a_mistake():
    known = {adapter["adapter"] for adapter in diffcls.diffusers.families()}
    assert known == {*ADAPTER_OF.values(), "PixelUNet"}  # of which test_other_denoisers.py tells
    assert {name for _, names, _ in MISTAKES.values() for name in names} == set(FAMILIES)
    assert set(ADAPTER_OF) == set(FAMILIES)


ADAPTER_OF = {
    "sd_euler": "StableDiffusion", "sd_zero_snr": "StableDiffusion", "sdxl_edm": "StableDiffusionXL",
    "sd3_without_t5": "StableDiffusion3", "flux2": "Flux2", "pixart_alpha": "PixArt", "sd": "StableDiffusion", "sd_v": "StableDiffusion", "sdxl": "StableDiffusionXL", "dit": "DiT", "sd3": "StableDiffusion3",
    "flux": "Flux", "pixart": "PixArt", "sana": "Sana", "lumina2": "Lumina2", "z_image": "ZImage",
    "qwen_image": "QwenImage", "flux2_klein": "Flux2",
}  # fmt: skip


def test_the_matrix_in_the_docs_is_the_registry():
    from diffcls.diffusers.table import markdown

    docs = Path(__file__).resolve().parents[1] / "docs" / "families.md"
    if not docs.exists():
        pytest.skip("the tests are not in a whole checkout")
    text = docs.read_text()
    assert markdown() in text, "python -m diffcls.diffusers.table > docs/families.md"
    assert re.search(r"Proven with diffusers \d+\.\d+\.\d+, torch \d", text)
