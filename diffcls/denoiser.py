"""Any conditional denoiser: a callable and its declared facts.  Nothing about a model is guessed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .errors import DeviceError, DTypeError, InputError, MissingExtraError, ShapeError
from .policies import Policy
from .profile import Profile
from .schedule import PredictionType, Schedule
from .world import World

Call = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]], Any]
Conditions = Any  # an array or a mapping of arrays, first axis K

FRAMEWORKS = ("numpy", "torch", "cupy", "jax")


class Denoiser:
    """What the method needs to know of a model.

    Parameters
    ----------
    predict : callable
        ``predict(x_t, t, cond) -> prediction``.  ``x_t`` (B, *shape) float32; ``t`` (B,): the schedule's own time of each
        row, integers for a discrete schedule, else float32; ``cond`` (B,) class ids when `conditions` is None, else
        those rows of `conditions`.  Rows of a batch may mix images, classes and timesteps.  Arrays are lent for the call.
    shape : tuple of int
        Of one x_start, without the batch axis.
    schedule : Schedule
    prediction_type : str, (p, q) or None
        "epsilon", "v_prediction", "sample", "flow_prediction", "edm", or arrays: the target is ``p * x_start + q * eps``.
        None: what the schedule's config says, where it was made from one, else "epsilon".
    conditions : array, mapping of arrays or None
        First axis K.  None: `predict` is given class ids.
    n_classes : int or None
        Needed when neither `conditions` nor `class_names` tells.
    class_names : sequence of str or None
    framework : {"numpy", "torch", "cupy", "jax"} or None
        What `predict` takes and gives.  None: torch for an ``nn.Module``, else numpy.
    device, dtype
        Of the arrays that `predict` is given; `t` stays as it is.  Device: torch's or JAX's own, or its name; cupy uses its
        current one.  dtype: the framework's own or its name, "float16".
    memory_format : {"channels_last", "channels_last_3d"}, torch.memory_format or None
        torch and cupy: ``x_t`` (B, C, ...) comes with its channels last in memory, as a module converted by
        ``.to(memory_format=torch.channels_last)`` likes it.  Predictions may have either order whatever this says.
    cuda_graph : bool
        torch on a CUDA device: steps of full batches are recorded once and replayed (see `with_cuda_graph`).
    encode : callable or None
        Picture to x_start.  None: images are x_start already.
    encode_prompts : callable or None
        A text-to-image model: a list of K prompts to `conditions`.  It has no classes of its own until it is asked for some
        (`with_prompts`, which a `Classifier` does), so `conditions`, `n_classes` and `class_names` stay away.
    name : str or None

    Raises
    ------
    TypeError, ValueError
        A fact is missing or contradicts another.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        *,
        shape: Sequence[int],
        schedule: Schedule,
        prediction_type: PredictionType | None = None,
        conditions: Conditions = None,
        n_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        framework: str | None = None,
        device: Any = None,
        dtype: Any = None,
        memory_format: Any = None,
        cuda_graph: bool = False,
        encode: Callable[[Any], Any] | None = None,
        encode_prompts: Callable[[list[str]], Conditions] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(predict):
            raise DTypeError(f"predict is {type(predict).__name__}, must be callable as predict(x_t, t, cond)")
        if not isinstance(schedule, Schedule):
            raise DTypeError(f"schedule is {type(schedule).__name__}, must be a diffcls.Schedule")
        self.predict = predict
        self.shape = _check_shape(shape)
        self.schedule = schedule
        prediction_type = _agree(prediction_type, schedule)
        self.prediction_type = prediction_type if isinstance(prediction_type, str) else "(p, q)"
        self.p, self.q = schedule.target(prediction_type)
        self.conditions, self.encode_prompts = conditions, encode_prompts
        if encode_prompts is None:
            self.n_classes = _count_classes(conditions, n_classes, class_names)
        else:
            _check_open(conditions, n_classes, class_names)
            self.n_classes, class_names = 0, []
        self.class_names = (
            [str(i) for i in range(self.n_classes)] if class_names is None else [str(c) for c in class_names]
        )
        self.framework = _check_framework(framework, predict)
        self.device, self.dtype, self.encode = device, dtype, encode
        self.channels_last = _check_memory_format(memory_format, self.framework, self.shape)
        self.cuda_graph = _check_cuda_graph(cuda_graph, self.framework)
        self.name = name or getattr(predict, "__name__", type(predict).__name__)

    channels_last: bool = False
    """x_t is given with its channels last in memory."""
    cuda_graph: bool = False
    """Steps are recorded."""

    # What an embedded model knows beside the facts above.
    synonyms: Mapping[str, Sequence[str]] = {}
    weighting: NDArray[np.float64] | None = None
    profile: Profile | None = None
    policy: Policy | None = None
    temperature: float | None = None
    """Fitted to results of the model's own policy, where it has one."""
    digest: str | None = None
    preparation: str | None = None
    native: _core.DiT | None = None
    world: World | None = None
    versions: Mapping[str, str] = {}
    """Of the libraries that compute the prediction."""
    takes_colours: bool = False
    """`encode` takes pictures in colour: an array (3, H, W) is none, and three grey ones are hardly meant."""
    pixels: Callable[[Any], NDArray[np.float32]] | None = None
    """Where x_start is a latent: the picture that it is of, (C, H, W) in [-1, 1], as the model is shown it.  None: x_start is
    the picture, or there is none."""
    facts: Mapping[str, Any] = {}
    """Plain data beside all that which changes a prediction: for run records and fingerprints."""

    @property
    def target(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(p, q), each (T,): `predict` is asked for ``p x_start + q eps``."""
        return self.p, self.q

    @property
    def dtype_name(self) -> str:
        """Of the tensors that `predict` is given."""
        return "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")

    def with_prompts(self, prompts: Sequence[str]) -> Denoiser:
        """A text-to-image model with `prompts` as its classes, each encoded once; it shares all else with this one.

        Parameters
        ----------
        prompts : sequence of str

        Returns
        -------
        Denoiser

        Raises
        ------
        ValueError
            The model has classes of its own, or `encode_prompts` gave another number of conditions.
        """
        if self.encode_prompts is None:
            raise InputError(f"{self.name} has classes of its own and takes no prompts")
        copy = self._copy()
        copy.class_names, copy.n_classes = list(prompts), len(prompts)
        copy.conditions = self.encode_prompts(list(prompts))
        if _first_axes(copy.conditions) != {len(prompts)}:
            raise ShapeError(
                f"encode_prompts gave conditions of {sorted(_first_axes(copy.conditions))} rows for {len(prompts)} prompts"
            )
        return copy

    def to(self, device: Any = None, dtype: Any = None, memory_format: Any = None) -> Denoiser:
        """A copy whose `predict` is given tensors of this device, dtype and order in memory.

        Parameters
        ----------
        device, dtype, memory_format
            As of the constructor; None: as before.

        Returns
        -------
        Denoiser
        """
        copy = self._copy()
        copy.device = self.device if device is None else device
        copy.dtype = self.dtype if dtype is None else dtype
        if memory_format is not None:
            copy.channels_last = _check_memory_format(memory_format, self.framework, self.shape)
        return copy

    def with_cuda_graph(self, wanted: bool = True) -> Denoiser:
        """A copy whose steps are recorded as CUDA graphs: noise, `predict` and errors in one launch of the host's.

        For small models on a fast device, where the host's calls are what costs.  `predict` must do the same work whatever
        numbers it is given: no branch on them, nothing that waits for the device, no state in Python, for none of that is
        run again.  It is on a stream of its own.  The first full batches run call by call; a step that can not be recorded
        goes on so, with one `DeviceWarning` that says why.  Recording costs about as much as some calls of `predict` and is
        done for every call of a classifier, so give many pictures to one call, or `Classifier.stream`.

        Parameters
        ----------
        wanted : bool

        Returns
        -------
        Denoiser

        Raises
        ------
        ValueError
            `predict` is not of PyTorch.
        """
        copy = self._copy()
        copy.cuda_graph = _check_cuda_graph(wanted, self.framework)
        return copy

    def with_predict(self, predict: Callable[..., Any]) -> Denoiser:
        """A copy with the same facts and another `predict`."""
        copy = self._copy()
        copy.predict = predict
        return copy

    def _copy(self) -> Denoiser:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def __repr__(self) -> str:
        classes = "any prompts" if self.encode_prompts and not self.n_classes else f"{self.n_classes} classes"
        return (
            f"Denoiser({self.name!r}, shape={self.shape}, {classes}, {self.prediction_type}, "
            f"{self.framework}, {self.schedule!r})"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Denoiser:
        """Itself: facts do not change, and scikit-learn's `clone` must not copy a model's weights."""
        return self

    def entry(self) -> _core.DiT | Call:
        """What the core calls: the native model, or a function of NumPy arrays around `predict`."""
        if self.native is not None:
            return self.native
        return {"numpy": _numpy_call, "torch": _torch_call, "jax": _jax_call, "cupy": _cupy_call}[self.framework](self)

    def time_of(self, time: NDArray[np.float64]) -> NDArray[Any]:
        """Time values as `predict` is given them."""
        return time.astype(np.int64) if self.schedule.is_discrete else time.astype(np.float32)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _agree(prediction_type: PredictionType | None, schedule: Schedule) -> PredictionType:
    """The caller's prediction type, or that of the schedule's config; they must not contradict each other."""
    told = schedule.prediction_type
    if prediction_type is None:
        return "epsilon" if told is None else told
    if told is not None and not np.allclose(schedule.target(prediction_type), schedule.target(told), rtol=0, atol=1e-9):
        here = repr(told) if isinstance(told, str) else "another (p, q)"
        raise InputError(f"prediction_type is {prediction_type!r}, the schedule's config says {here}")
    return prediction_type


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in shape)
    except (TypeError, ValueError):
        raise DTypeError(f"shape is {shape!r}, must be a sequence of integers") from None
    if any(size < 1 for size in sizes):
        raise ShapeError(f"shape is {sizes}, must be of positive sizes")
    return sizes


def _first_axes(conditions: Conditions) -> set[int]:
    values = conditions.values() if isinstance(conditions, Mapping) else [conditions]
    return {len(value) for value in values}


def _count_classes(conditions: Conditions, n_classes: int | None, class_names: Sequence[str] | None) -> int:
    told = {len(class_names)} if class_names is not None else set()
    if n_classes is not None:
        if isinstance(n_classes, bool) or not isinstance(n_classes, (int, np.integer)) or n_classes < 1:
            raise InputError(f"n_classes is {n_classes!r}, must be an integer of 1 or more")
        told.add(int(n_classes))
    if conditions is not None:
        told |= _first_axes(conditions)
    if not told:
        raise InputError("conditions, n_classes or class_names must tell how many classes there are")
    if len(told) > 1 or 0 in told:
        raise InputError(
            f"conditions, n_classes and class_names tell of {sorted(told)} classes, must agree on one number above 0"
        )
    return told.pop()


def _check_open(*told: object) -> None:
    if any(value is not None for value in told):
        raise InputError(
            "encode_prompts makes classes of prompts: conditions, n_classes and class_names must not be given"
        )


def _check_framework(framework: str | None, predict: Callable[..., Any]) -> str:
    if framework is None:
        torch = sys.modules.get("torch")
        return "torch" if torch is not None and isinstance(predict, torch.nn.Module) else "numpy"
    if framework not in FRAMEWORKS:
        raise InputError(f"framework is {framework!r}, must be one of {', '.join(FRAMEWORKS)}")
    return framework


def _check_memory_format(memory_format: Any, framework: str, shape: tuple[int, ...]) -> bool:
    """Whether channels are to come last."""
    if memory_format is None:
        return False
    name = str(memory_format).removeprefix("torch.")
    if name not in ("channels_last", "channels_last_3d"):
        raise InputError(f"memory_format is {memory_format!r}, must be 'channels_last' or 'channels_last_3d'")
    if framework not in ("torch", "cupy"):
        raise InputError(f"memory_format is {name!r}, which arrays of {framework} do not have")
    if len(shape) != {"channels_last": 3, "channels_last_3d": 4}[name]:
        raise ShapeError(f"memory_format is {name!r}, which x_start of shape {shape} can not have")
    return True


def _check_cuda_graph(wanted: bool, framework: str) -> bool:
    if wanted and framework != "torch":
        raise InputError(f"cuda_graph needs a predict of torch, this one is of {framework}")
    return bool(wanted)


def _framework_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(f"framework {name!r} needs the package {name}, which is not installed") from None


def _take(conditions: Conditions, take: Callable[[Any], Any]) -> Any:
    """The rows that `take` takes of one array, or of each of a mapping's."""
    if isinstance(conditions, Mapping):
        return {key: take(value) for key, value in conditions.items()}
    return take(conditions)


# ---- one small adapter a framework -----------------------------------------------------------------------------------


def _numpy_call(denoiser: Denoiser) -> Call:
    conditions = None if denoiser.conditions is None else _take(denoiser.conditions, np.asarray)

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        cond = condition if conditions is None else _take(conditions, lambda rows: rows[condition])
        return denoiser.predict(x_t, denoiser.time_of(time), cond)

    return call


def _torch_call(denoiser: Denoiser) -> Call:
    torch = _framework_module("torch")
    device, dtype = denoiser.device, _torch_dtype(torch, denoiser.dtype)
    parameters = getattr(denoiser.predict, "parameters", None)
    if device is None and parameters is not None:
        device = next((parameter.device for parameter in parameters()), None)
    host = device is None or torch.device(device).type == "cpu"
    conditions = (
        None if denoiser.conditions is None else _take(denoiser.conditions, lambda c: torch.as_tensor(c, device=device))
    )

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        x, t, ids = torch.from_numpy(x_t), torch.from_numpy(denoiser.time_of(time)), torch.from_numpy(condition)
        if device is not None or dtype is not None:
            x, t, ids = x.to(device=device, dtype=dtype), t.to(device), ids.to(device)
        if denoiser.channels_last:
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        cond = ids if conditions is None else _take(conditions, lambda rows: rows[ids])
        with torch.no_grad(), _evaluating(denoiser.predict):
            prediction = denoiser.predict(x, t, cond)
        return prediction if host or not hasattr(prediction, "cpu") else prediction.cpu()

    return call


def _torch_dtype(torch: Any, dtype: Any) -> Any:
    """A floating torch.dtype, given as itself or by its name; None stays None."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is None or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise DTypeError(f"dtype is {dtype!r}, must be a floating torch.dtype or its name, such as 'float16'")


def _evaluating(predict: Any) -> AbstractContextManager[Any]:
    """A module in training mode is put into evaluation mode for the call."""
    return _EvalMode(predict) if getattr(predict, "training", False) and hasattr(predict, "eval") else nullcontext()


class _EvalMode:
    def __init__(self, module: Any) -> None:
        self.modules = [part for part in module.modules() if part.training]

    def __enter__(self) -> None:
        for part in self.modules:
            part.training = False

    def __exit__(self, *unused: object) -> None:
        for part in self.modules:
            part.training = True


def _jax_device(jax: Any, device: Any) -> Any:
    """The first device of a platform's name; what JAX itself calls a device, or None, as it is."""
    if not isinstance(device, str):
        return device
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise DeviceError(f"device is {device!r}, which JAX does not have here ({error})") from None


def _jax_call(denoiser: Denoiser) -> Call:
    jax = _framework_module("jax")
    jnp, host, device = jax.numpy, jax.local_devices(backend="cpu")[0], _jax_device(jax, denoiser.device)
    conditions = (
        None
        if denoiser.conditions is None
        else _take(denoiser.conditions, lambda rows: jax.device_put(jnp.asarray(rows), device))
    )

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        # copies: JAX's arrays are immutable, and the memory of x_t and condition is written again
        arrays = jnp.array(x_t, dtype=denoiser.dtype), jnp.array(denoiser.time_of(time)), jnp.array(condition)
        x, t, ids = jax.device_put(arrays, device)
        cond = ids if conditions is None else _take(conditions, lambda rows: rows[ids])
        prediction = denoiser.predict(x, t, cond)
        if not isinstance(prediction, jax.Array):
            return prediction
        return jax.device_put(prediction, host).block_until_ready()

    return call


def _cupy_call(denoiser: Denoiser) -> Call:
    cupy = _framework_module("cupy")
    conditions = None if denoiser.conditions is None else _take(denoiser.conditions, cupy.asarray)

    def call(
        x_t: NDArray[np.float32], timesteps: NDArray[np.int64], time: NDArray[np.float64], condition: NDArray[np.int64]
    ) -> Any:
        ids = cupy.asarray(condition)
        cond = ids if conditions is None else _take(conditions, lambda rows: rows[ids])
        x = cupy.asarray(x_t, dtype=denoiser.dtype)
        if denoiser.channels_last:
            x = cupy.moveaxis(cupy.ascontiguousarray(cupy.moveaxis(x, 1, -1)), -1, 1)
        return cupy.asnumpy(denoiser.predict(x, cupy.asarray(denoiser.time_of(time)), cond))

    return call
