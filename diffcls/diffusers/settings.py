"""What a caller may say about a diffusers model beside the model itself, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import integer, number, shown
from ..errors import DTypeError, InputError
from ..schedule import Schedule

PREPARATIONS = ("paper", "adm", "squash")
PLACES = ("keep", "offload", "free")
LONG_PROMPTS = ("warn", "error", "chunk")


@dataclass(frozen=True)
class Settings:
    """See `load_diffusers`; None: the model's own."""

    resolution: tuple[int, int] | None = None
    preprocess: str | Callable[[Any], Any] | None = None
    guidance: float = 1.0
    max_sequence_length: int | None = None
    long_prompts: str = "warn"
    prompt_batch_size: int = 32
    text_encoders: str = "keep"
    vae: str = "keep"
    schedule: Schedule | None = None
    allow_distilled: bool = False
    compile: bool | Mapping[str, Any] = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", _resolution(self.resolution))
        if self.preprocess is not None and not callable(self.preprocess) and self.preprocess not in PREPARATIONS:
            wanted = f"one of {', '.join(PREPARATIONS)} or a function of a PIL image"
            raise InputError(f"preprocess is {shown(self.preprocess)}, must be {wanted}")
        number("guidance", self.guidance, "a number of 1 or more", lambda x: 1.0 <= x < 1e6)
        if self.max_sequence_length is not None:
            integer("max_sequence_length", self.max_sequence_length, at_least=1)
        integer("prompt_batch_size", self.prompt_batch_size, at_least=1)
        for name, choices in (("long_prompts", LONG_PROMPTS), ("text_encoders", PLACES), ("vae", PLACES[:2])):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {shown(getattr(self, name))}, must be one of {', '.join(choices)}")
        if self.schedule is not None and not isinstance(self.schedule, Schedule):
            raise DTypeError(f"schedule is {type(self.schedule).__name__}, must be a diffcls.Schedule")


def _resolution(given: Any) -> tuple[int, int] | None:
    """(height, width) in pixels, of one number or two."""
    if given is None:
        return None
    sides = (given, given) if isinstance(given, (int, np.integer)) and not isinstance(given, bool) else given
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise InputError(f"resolution is {shown(given)}, must be a number of pixels or (height, width)")
    height, width = (integer("resolution", side, at_least=1) for side in sides)
    return height, width
