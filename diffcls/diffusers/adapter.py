"""What every component class has in common, and what each must say for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..errors import InputError
from ..schedule import Schedule
from . import refusals
from .latents import Latents, channels_of, compression
from .settings import Settings

Kwargs = dict[str, Any]
PICTURE_CHANNELS = (1, 3)


class Adapter:
    """Between the method and one component class of diffusers.

    A subclass states facts as class attributes and writes three things: `encode_prompts` (or `class_names`), `arguments`
    (what the module is called with) and, where it is not the module's output itself, `prediction`.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Borrowed; its modules are called, and moved only by `Settings.text_encoders` and `vae`.
    settings : Settings
    index : mapping
        Content of the model_index.json that the pipeline was loaded from; empty where there was none.

    Raises
    ------
    ValueError
        The components contradict each other, or the model is one of those that can not classify.
    """

    # ---- facts: read by people through `families`, by the loader, and by the code below ----
    component: ClassVar[str]
    """Class of the denoiser in diffusers."""
    slot: ClassVar[str] = "transformer"
    """Its place in a pipeline."""
    pipeline: ClassVar[str | None]
    """The pipeline that components are put into when they come alone; None: the class does not tell which."""
    models: ClassVar[str]
    """For people: published models of this kind."""
    predicts: ClassVar[tuple[str, ...]]
    """Prediction types that go with the class; the scheduler's config says which."""
    time: ClassVar[str]
    """For people: what the module is fed."""
    latents: ClassVar[str | None]
    """Rule of `Latents`; None: pixels, as in a pipeline without a VAE whose module takes a picture's channels."""
    conditions: ClassVar[str]
    """For people: what a class becomes."""
    half: ClassVar[str] = "bfloat16"
    """Type of the weights on a GPU, unless told otherwise."""
    preprocess: ClassVar[str] = "paper"
    """Preparation of pictures, unless told otherwise."""
    proven: ClassVar[str] = "its pipeline"
    """For people: what the tests hold it against."""
    text_parts: ClassVar[tuple[str, ...]] = ()
    """Components that prompts can not be encoded without."""
    in_windows: ClassVar[bool] = False
    """Prompts of any length can be encoded window by window."""

    def __init__(self, pipe: Any, settings: Settings, index: Mapping[str, Any]) -> None:
        self.pipe, self.settings, self.index = pipe, settings, index
        self.place = pipe._execution_device  # of now: parts may be put elsewhere later
        self.module = getattr(pipe, self.slot)
        self.config: Mapping[str, Any] = self.module.config
        refusals.check(self)
        vae = getattr(pipe, "vae", None)
        if self.latents is not None and vae is None and self.latent_channels not in PICTURE_CHANNELS:
            raise InputError(
                f"{self.component} takes {self.latent_channels} channels, so it works on latents, and the pipeline has no VAE"
            )
        self.encoder = None if self.latents is None or vae is None else Latents(vae, self.latents)
        self.size = settings.resolution or self.default_size()
        self.shape = self.x_start_shape()
        self.schedule = settings.schedule or self.read_schedule()
        refusals.check_prediction(self)
        self.check()

    # ---- what a subclass may say otherwise ----

    def check(self) -> None:
        """Of what only this class can contradict."""

    def default_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that the model was trained on: from its config."""
        sample = self.config.get("sample_size")
        if sample is None:
            raise InputError(
                f"{self.component}'s config has no sample_size; give resolution=, the picture's side in pixels"
            )
        sides = sample if isinstance(sample, Sequence) else (sample, sample)
        return int(sides[0]) * self.stride, int(sides[1]) * self.stride

    @property
    def stride(self) -> int:
        """Pixels a side of one element of x_start."""
        return 1 if self.encoder is None else compression(self.encoder.vae)

    @property
    def patch(self) -> int:
        """A side of one token, in elements of x_start."""
        patch = self.config.get("patch_size")
        return patch if isinstance(patch, int) else 1

    @property
    def granularity(self) -> int:
        """A side of the picture must be a multiple of it, in pixels."""
        return self.stride * self.patch

    @property
    def latent_channels(self) -> int:
        """Channels of the module's input that are the noisy picture."""
        return int(self.config["in_channels"])

    @property
    def picture_channels(self) -> int:
        """Of the pixels: 1 for a model of grey pictures."""
        return 3 if self.encoder is not None else self.latent_channels

    def latent_channels_of(self, vae: Any) -> int | None:
        """What the VAE makes of a picture, as the module takes it."""
        return channels_of(vae)

    def x_start_shape(self) -> tuple[int, int, int]:
        height, width = self.size
        if height % self.granularity or width % self.granularity:
            raise InputError(f"resolution is {self.size}, must be multiples of {self.granularity} for this model")
        if self.encoder is not None:
            refusals.check_channels(self.component, self.latent_channels, self.latent_channels_of(self.encoder.vae))
        return self.latent_channels, height // self.stride, width // self.stride

    def read_schedule(self) -> Schedule:
        """Of the pipeline's scheduler."""
        scheduler = getattr(self.pipe, "scheduler", None)
        if scheduler is None:
            raise InputError("the pipeline has no scheduler; give schedule=, a diffcls.Schedule")
        return Schedule.from_config(scheduler)

    # ---- what a subclass must say ----

    @property
    def class_names(self) -> list[str] | None:
        """Of a class-conditional model; None: any prompt is a class."""
        return None

    synonyms: Mapping[str, Sequence[str]] = {}

    def token_limits(self) -> dict[str, int]:
        """Of each tokenizer that cuts prompts: the tokens that are read, ends included."""
        return {}

    def as_read(self, prompts: list[str]) -> list[str]:
        """Prompts as the tokenizers get them."""
        return prompts

    def encode_prompts(self, prompts: list[str], n_windows: int) -> Mapping[str, Any]:
        """Tensors (B, ...) of B prompts, as the pipeline itself makes them."""
        raise NotImplementedError

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        """What the module is called with.

        Parameters
        ----------
        x : (B, *shape) tensor
        t : (B,) tensor
            The schedule's own time.
        cond : mapping of (B, ...) tensors, or (B,) class ids
        """
        raise NotImplementedError

    def prediction(self, output: Any, x: Any) -> Any:
        """The target's estimate (B, *shape) from the module's output: of learned variances the mean's half."""
        return first_half(output, self.latent_channels)

    # ---- the call ----

    def predict(self, x: Any, t: Any, cond: Any) -> Any:
        output = self.module(**self.arguments(x, t, cond), return_dict=False)[0]
        return self.prediction(output, x)

    @property
    def facts(self) -> dict[str, Any]:
        """Plain data for run records and fingerprints."""
        facts: dict[str, Any] = {"component": self.component, "resolution": list(self.size)}
        if self.encoder is not None:
            facts["latents"] = self.encoder.rule
        return facts


class FlowAdapter(Adapter):
    """A rectified flow: the schedule's time is ``num_train_timesteps * sigma``.

    A shift, static or by the picture's size, moves which noise levels are visited; the pairs of noise level and time stay
    (Esser et al., 2024, eq. 23).  ``shift_terminal`` stretches a sampler's last steps and is left out for the same reason.
    """

    predicts = ("flow_prediction",)

    def read_schedule(self) -> Schedule:
        scheduler = getattr(self.pipe, "scheduler", None)
        if scheduler is None:
            raise InputError("the pipeline has no scheduler; give schedule=, a diffcls.Schedule")
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        config.pop("shift_terminal", None)
        by_size = bool(config.get("use_dynamic_shifting")) and not config.get("use_flow_sigmas")
        return Schedule.from_config(config, image_seq_len=self.image_seq_len if by_size else None)

    @property
    def image_seq_len(self) -> int:
        """Tokens of a picture."""
        return (self.shape[1] // self.patch) * (self.shape[2] // self.patch)


class PackedFlow(FlowAdapter):
    """A token is a 2x2 patch of the latents, packed before the module (`pack`), so its config knows no patch."""

    patch = 2

    @property
    def latent_channels(self) -> int:
        return int(self.config["in_channels"]) // 4

    def default_size(self) -> tuple[int, int]:
        """The pipeline's own: the config has none."""
        side = int(self.pipe.default_sample_size) * self.stride
        return side, side


def first_half(output: Any, channels: int) -> Any:
    """Without learned variances, which are the second half of twice the channels."""
    return output[:, :channels] if output.shape[1] == 2 * channels else output


def pack(x: Any) -> Any:
    """(B, C, h, w) to tokens (B, h/2 * w/2, 4 C): a token is a 2x2 patch, channel by channel."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, (h // 2) * (w // 2), 4 * c)


def unpack(tokens: Any, shape: Sequence[int]) -> Any:
    """What `pack` did, undone: to (B, *shape)."""
    c, h, w = shape
    return tokens.reshape(-1, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, c, h, w)
