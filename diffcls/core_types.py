"""What the compiled core takes and gives as dicts of arrays."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

LOSSES = ("l2", "l1", "huber")
"""Names of rho, in the order of `dc_loss` (csrc/formulas/diffusion.h)."""

Backend = Any
"""A `_core.Cpu`, or a capsule of `_cuda.open`: a device and a stream of it."""


class Policy(TypedDict):
    risk: float
    n_min: int
    n_winner: int
    ramp: int
    anytime: bool
    min_gap: float
    prior_weight: float
    fill: int
    caps: NDArray[np.int64]  # (n, 2): trials, keep
    max_evals: int


class Trials(TypedDict):
    timestep: NDArray[np.uint32]
    noise_index: NDArray[np.uint32]
    eps_sign: NDArray[np.float32]
    weight: NDArray[np.float64]


class RaceResult(TypedDict):
    index: int
    losses: NDArray[np.float64]  # (K,)
    stderr: NDArray[np.float64]
    excess: NDArray[np.float64]
    n_trials: NDArray[np.int64]
    alive: NDArray[np.bool_]
    n_evals: int
    p_disagree: float
    status: str  # "decided" | "pool_exhausted" | "budget"; after a round that is not the last: "running"
    trace: NDArray[np.int64]  # (n_rounds, 3): trials, classes alive, evaluations; cumulative
    errors: NDArray[np.float64] | None  # (n_arms, S), NaN where not evaluated


class ReplayResult(TypedDict):
    """Of N images; the rounds of image i are ``trace[trace_offset[i] : trace_offset[i + 1]]``."""

    index: NDArray[np.int64]  # (N,)
    losses: NDArray[np.float64]  # (N, K)
    stderr: NDArray[np.float64]
    excess: NDArray[np.float64]
    n_trials: NDArray[np.int64]
    alive: NDArray[np.bool_]
    n_evals: NDArray[np.int64]  # (N,)
    p_disagree: NDArray[np.float64]
    status: list[str]
    trace: NDArray[np.int64]  # (rounds of all images, 3)
    trace_offset: NDArray[np.int64]  # (N + 1,)
