"""Trials and the race again, in plain NumPy: slow, and written straight from their formulas.

The twins of csrc/method: `trials.h` and `race.h` state what is computed here.  Sums run in the order of the trials, as the
core's do, so that decisions, counts and traces are equal, not close.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .core_types import Policy, Trials

Floats = NDArray[np.float64]


def radical_inverse(n: int) -> list[int]:
    """0 .. n - 1 by their reversed bits: every prefix is spread evenly."""
    bits = (n - 1).bit_length()
    reversed_bits = (int(f"{i:b}".zfill(bits)[::-1], 2) for i in range(1 << bits))
    return [j for j in reversed_bits if j < n]


def trials_pool(
    n: int, n_timesteps: int, weighting: Floats | None = None, density: Floats | None = None, antithetic: bool = False
) -> Trials:
    """Row j sits at the quantile (j + 1/2) / rows of the density; rows are read in bit-reversed order."""
    w = np.ones(n_timesteps) if weighting is None else weighting
    q = np.where(w > 0, 1.0 if density is None else density, 0.0)
    share = 2 if antithetic else 1
    rows = -(-n // share)
    edges = np.cumsum(q)
    order = np.repeat(radical_inverse(rows), share)[:n]
    t = np.searchsorted(edges, (order + 0.5) * edges[-1] / rows, side="right")
    weight = w[t] / q[t]
    return {
        "timestep": t.astype(np.uint32),
        "noise_index": order.astype(np.uint32),
        "eps_sign": np.where(np.arange(n) % share, -1.0, 1.0).astype(np.float32),
        "weight": weight / weight.mean(),
    }


def trials_published(n_samples: Sequence[int], n_timesteps: int) -> tuple[list[int], list[int]]:
    """The published code's stages (Li et al., 2023): timesteps in order of evaluation, cumulative counts."""
    n = max(n_samples)
    step = n_timesteps // n
    grid = [step // 2 + i * step for i in range(n)]
    seen: list[int] = []
    ends = []
    for samples in n_samples:
        stride = n // samples
        seen += [t for t in grid[stride // 2 :: stride][:samples] if t not in seen]
        ends.append(len(seen))
    return seen, ends


def anytime_radius(n: int, level: float) -> float:
    """Half-width, in sample standard deviations, of the confidence sequence of race.h after n trials."""
    g = (-2 * np.log(level) + np.log(1 - 2 * np.log(level))) / 16
    growth = 1 + n * g
    b = (np.sqrt(growth) / level) ** (2 / n)
    return float(np.sqrt((n - 1) / n * (b - 1) / (1 - b / growth))) if b < growth else np.inf


@dataclass
class RaceReference:
    """A race over a table, run to its end by `run`.

    Parameters
    ----------
    errors : (n_arms, N) float64
        Unweighted errors of every arm at every trial; with `ask`, room for them.
    weights : (N,) float64
    policy : Policy
        As the core is given it.
    isf : callable (p, df)
        Quantile of Student's t, ``scipy.stats.t.isf``.
    class_of_arm : (n_arms,) int
    ask : callable or None
        ``ask(arms, trials) -> errors (len(arms), len(trials))`` of the arms alive at a range of trials, when they are needed:
        a race of numbers that come from anywhere.
    """

    errors: Floats
    weights: Floats
    policy: Policy
    isf: Callable[[float, float], float]
    class_of_arm: Sequence[int]
    ask: Callable[[list[int], range], Floats] | None = None
    n: int = 0
    n_evals: int = 0
    decided: bool = False
    status: str = "running"
    trace: list[tuple[int, int, int]] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    n_done: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alive = list(range(len(self.errors)))
        self.n_done = [0] * len(self.errors)
        self.loss = self.errors * self.weights

    @property
    def pool(self) -> int:
        return int(self.errors.shape[1])

    def mean(self, arm: int) -> float:
        """Loss of an arm over its own trials, added up in order."""
        return float(np.cumsum(self.loss[arm, : self.n_done[arm]])[-1]) / self.n_done[arm]

    def excess(self) -> Floats:
        """(n_arms,): mean loss above the leader's over the trials that both have."""
        b = self.leader()
        return np.array([np.mean(self.loss[arm, :n] - self.loss[b, :n]) for arm, n in enumerate(self.n_done)])

    def leader(self) -> int:
        return min(self.alive, key=lambda arm: (self.mean(arm), arm))

    def run(self) -> RaceReference:
        caps = [(int(trials), int(keep)) for trials, keep in self.policy["caps"]]
        while self.status == "running":
            m = self.round_length(caps)
            if m == 0:
                self.status = "decided" if self.decided else "budget"
                break
            if self.ask is not None:
                at = np.ix_(self.alive, range(self.n, self.n + m))
                self.errors[at] = self.ask(list(self.alive), range(self.n, self.n + m))
                self.loss[at] = self.errors[at] * self.weights[self.n : self.n + m]
            self.n += m
            self.n_evals += m * len(self.alive)
            for arm in self.alive:
                self.n_done[arm] = self.n
            if self.policy["risk"] > 0 and 1 < self.n < self.pool and len(self.alive) > 1:
                self.test()
            for trials, keep in caps:
                if trials == self.n and (self.policy["risk"] == 0 or self.n < self.pool):
                    self.cap(keep)
            n_classes = len({self.class_of_arm[arm] for arm in self.alive})
            self.trace.append((self.n, n_classes, self.n_evals))
            self.decided = n_classes == 1 and (self.policy["risk"] > 0 or self.n == self.pool)
            if self.decided and (self.n == self.pool or self.n >= self.policy["n_winner"]):
                self.status = "decided"
            elif self.decided:
                self.alive = [self.leader()]
            elif self.n == self.pool:
                self.status = "pool_exhausted"
        return self

    def round_length(self, caps: list[tuple[int, int]]) -> int:
        survivors, policy = len(self.alive), self.policy
        left = min([trials for trials, _ in caps if trials > self.n] + [self.pool]) - self.n
        m = left
        if self.decided:
            m = min(policy["n_winner"], self.pool) - self.n
        elif policy["risk"] > 0:
            m = policy["n_min"] if self.n == 0 else max(2, self.n // 4)
            fill = policy["fill"]
            m = min(left, max(m, -(-m * survivors // fill) * fill // survivors))
        return min(m, (policy["max_evals"] - self.n_evals) // survivors) if policy["max_evals"] else m

    def test(self) -> None:
        """Drop what is worse than the leader by more than the radius of race.h, less min_gap."""
        n, b, policy = self.n, self.leader(), self.policy
        excess = {c: self.mean(c) - self.mean(b) for c in self.alive}
        differences = {c: self.weights[:n] * (self.errors[c, :n] - self.errors[b, :n]) for c in self.alive}
        variance = {c: float(np.sum((differences[c] - excess[c]) ** 2)) / (n - 1) for c in self.alive}
        moderate = len(self.alive) > 2 and not policy["anytime"]
        d0 = min(policy["prior_weight"], max(4, (len(self.alive) - 1) * (n - 1))) if moderate else 0.0
        median = float(np.median([variance[c] for c in self.alive if c != b]))
        if policy["anytime"]:
            factor = anytime_radius(n, policy["risk"] / (len(self.errors) - 1))
        else:
            level = policy["risk"] * (min(1.0, n / policy["ramp"]) ** 2 if policy["ramp"] else 1.0)
            factor = self.isf(level, n - 1 + d0) * np.sqrt(1 / n - 1 / self.pool)
        moderated = {c: (d0 * median + (n - 1) * variance[c]) / (d0 + n - 1) for c in self.alive}
        self.alive = [
            c for c in self.alive if c == b or not excess[c] + policy["min_gap"] > factor * np.sqrt(moderated[c])
        ]

    def cap(self, keep: int) -> None:
        """The best classes stay: arms by rising mean until one of a further class comes."""
        kept: list[int] = []
        for arm in sorted(self.alive, key=lambda arm: (self.mean(arm), arm)):
            classes = {self.class_of_arm[other] for other in kept}
            if self.class_of_arm[arm] not in classes and len(classes) == keep:
                break
            kept.append(arm)
        self.alive = sorted(kept)
