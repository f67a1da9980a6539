"""The compiled core, CPU.  Memory, dtypes and shapes are checked here; meaning is checked in the Python above it."""

from collections.abc import Callable, Sequence
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from .core_types import Backend, Policy, RaceResult, ReplayResult, Trials

@final
class Cpu:
    """The CPU backend: its threads and its instruction set.  Immutable; safe to share between threads."""

    def __new__(cls, *, n_threads: int = 1, simd: str = "auto") -> Self: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def simd(self) -> str: ...  # "scalar" | "avx2" | "avx512"
    @staticmethod
    def available() -> tuple[str, ...]: ...  # instruction sets of this machine, slowest first

@final
class DiT:
    """A native DiT: immutable weights, the forward pass of csrc/dit."""

    # weights: a buffer with a safetensors file, or several in a sequence; copied
    def __new__(cls, weights: Any, config: dict[str, Any]) -> Self: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def device(self) -> str: ...  # "cpu", "cuda:0"
    @property
    def dtype(self) -> str: ...  # of what products read: "float32", "tf32", "float16", "bfloat16"
    def place(self, backend: Any, dtype: str, /) -> Self: ...  # a copy on the backend's device, for every backend there
    def forward(
        self, x_t: NDArray[np.float32], timesteps: NDArray[np.float64], class_labels: NDArray[np.int64], *, backend: Cpu
    ) -> NDArray[np.float32]: ...

@final
class Loop:
    """One run of the method over any number of images (method/loop.h).  Not for use by two threads at once.

    `denoiser` is a `DiT` (conditions are its class labels) or a callable ``(x_t, timesteps, time, condition)`` of NumPy
    arrays (B, *shape) float32, (B,) int64, (B,) float64, (B,) int64 that returns (B, *shape) as any array on the CPU.  With
    a device's backend x_t and the answer are tensors there, and ``denoiser.input(B)`` gives the one x_t is written to.
    `progress(n_evals)` is called after a batch at most every 0.05 s.
    """

    def __new__(
        cls,
        denoiser: DiT | Callable[..., Any],
        *,
        backend: Backend,
        shape: Sequence[int],
        alpha: NDArray[np.float64],
        sigma: NDArray[np.float64],
        time: NDArray[np.float64],
        p: NDArray[np.float64],
        q: NDArray[np.float64],
        n_classes: int,
        class_of_arm: NDArray[np.int64],
        condition_offset: NDArray[np.int64],
        conditions: NDArray[np.int64],
        pool_temperature: float,
        trials: Trials,
        policy: Policy,
        loss: str,
        delta: float,
        seed: int,
        noise: NDArray[np.float32] | None,
        batch_size: int,
        max_in_flight: int,
        progress: Callable[[int], None] | None,
        keep_errors: bool,
    ) -> Self: ...
    def add(self, x_start: NDArray[np.float32], tag: int, arms: NDArray[np.int64] | None = None, /) -> None: ...
    def wants_image(self) -> bool: ...
    def advance(self, *, drain: bool) -> tuple[int, RaceResult] | None: ...
    @property
    def stats(self) -> dict[str, float]: ...  # n_evals, n_batches, fill, batch_size: what fits in the denoiser's memory

def replay(
    errors: NDArray[np.float64],  # (N, n_arms, S)
    *,
    columns: NDArray[np.int64],  # (n_trials,) where each of the policy's trials lies among the S stored ones
    n_classes: int,
    class_of_arm: NDArray[np.int64],
    cost_of_arm: NDArray[np.int64],
    trials: Trials,
    policy: Policy,
    backend: Cpu,
) -> ReplayResult: ...

# schedules (method/schedule.h); every array (T,) float64
def schedule_linear(n: int, first: float, last: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def schedule_scaled_linear(n: int, first: float, last: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def schedule_squaredcos(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def schedule_from_alphas_cumprod(
    alphas_cumprod: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def schedule_flow(n: int, shift: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
def schedule_edm(
    sigmas: NDArray[np.float64], sigma_data: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
def schedule_check(alpha: NDArray[np.float64], sigma: NDArray[np.float64], time: NDArray[np.float64]) -> None: ...
def schedule_target(
    alpha: NDArray[np.float64], sigma: NDArray[np.float64], prediction_type: str, sigma_data: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

# trials (method/trials.h)
def trials_pool(
    n_trials: int,
    n_timesteps: int,
    *,
    weighting: NDArray[np.float64] | None,
    density: NDArray[np.float64] | None,
    antithetic: bool,
) -> Trials: ...
def trials_list(
    timesteps: NDArray[np.int64], n_timesteps: int, *, weighting: NDArray[np.float64] | None, antithetic: bool
) -> Trials: ...
def trials_published(
    n_samples: Sequence[int], n_timesteps: int, n_trials: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...  # timesteps in order of evaluation, cumulative stage ends
def student_sf(t: float, df: float) -> float: ...
def student_isf(p: float, df: float) -> float: ...
def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]: ...

# the operations below diffcls.ops: batches are (B, n_elem) float32, errors (B,) float64; with a device's backend they are
# dense tensors there, (B, *shape), and the call only begins
def normal(out: Any, *, seed: int, noise_index: int, timestep: int, first: int, backend: Backend) -> None: ...
def add_noise(
    out: Any,
    x_start: Any,
    alpha: NDArray[np.float64],
    sigma: NDArray[np.float64],
    *,
    eps: Any | None,
    seed: int,
    noise_index: NDArray[np.uint32] | None,
    timestep: NDArray[np.uint32] | None,
    backend: Backend,
) -> None: ...
def eps_error(out: Any, prediction: Any, target: Any, *, loss: str, delta: float, backend: Backend) -> None: ...
