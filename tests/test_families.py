"""Every family against its own pipeline: what arrives at the module's door, the schedule, the latents, the loop."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import door  # noqa: E402
import pipelines  # noqa: E402
import pipelines_llm  # noqa: E402
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
    ignore: tuple[str, ...] = ()


SHORT = {"max_sequence_length": 20}


def pack(x):
    return FluxPipeline._pack_latents(x, len(x), 4, 8, 8)


def unpack(x):
    return FluxPipeline._unpack_latents(x, 16, 16, 2)


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


MAKERS = {**pipelines.FAMILIES, **pipelines_llm.FAMILIES}


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
            MAKERS[name]().save_pretrained(folder)
            denoiser = diffcls.load(folder, **family.options)
            denoiser.pipe.vae_scale_factor = 2  # Lumina's pipeline has its own VAE's written in
            seen = door.record(
                denoiser.pipe, family.slot, **deepcopy(family.call)
            )  # one pipeline writes into its prompts
            made[name] = family, denoiser, denoiser.pipe, seen
        return made[name]

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_the_door_sees_what_the_pipeline_shows_it(saved, name):
    family, denoiser, pipe, seen = saved(name)
    door.check_door(denoiser, pipe, seen, family.prompts, family.unpack, family.ignore)


@pytest.mark.parametrize("name", FAMILIES)
def test_schedule_and_target_are_the_schedulers(saved, name, rng):
    family, denoiser, pipe, seen = saved(name)
    door.check_schedule(denoiser, pipe, seen, rng, family.pack)


@pytest.mark.parametrize("name", FAMILIES)
def test_latents_are_what_the_pipeline_decodes(saved, name):
    family, denoiser, _, seen = saved(name)
    door.check_latents(denoiser, seen, family.unpack)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loop_brings_noised_pictures_to_the_door(saved, name, rng):
    family, denoiser, pipe, _ = saved(name)
    image = rng.integers(0, 256, (21, 30, 3), dtype=np.uint8)
    door.check_loop(denoiser, pipe, family.prompts, image, lambda call: np.asarray(family.x_of(call[family.door])))
