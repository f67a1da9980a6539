"""The race in plain Python, written from csrc/method/race.h's formulas with SciPy's Student t: slow, and easy to check."""

from __future__ import annotations

import numpy as np
from scipy import stats


def race(errors, weights, policy, class_of_arm=None):
    """errors (n_arms, N).  Returns (winner class, n_trials by arm, trace [(n, classes alive, evals)], status)."""
    n_arms, pool = errors.shape
    class_of_arm = list(range(n_arms)) if class_of_arm is None else list(class_of_arm)
    e = errors * weights
    caps = [tuple(cap) for cap in np.asarray(policy["caps"]).tolist()]
    alive, n, evals, trace = list(range(n_arms)), 0, 0, []
    done = [0] * n_arms
    while True:
        limit = min([trials for trials, _ in caps if trials > n] + [pool])
        if policy["risk"] == 0:
            m = limit - n
        else:
            m = policy["n_min"] if n == 0 else max(2, n // 4)
            fill = policy["fill"]
            m = min(max(m, -(-m * len(alive) // fill) * fill // len(alive)), limit - n)
        if policy["max_evals"]:
            m = min(m, (policy["max_evals"] - evals) // len(alive))
            if m == 0:
                status = "budget"
                break
        n += m
        evals += m * len(alive)
        for arm in alive:
            done[arm] = n
        if policy["risk"] > 0 and len(alive) > 1 and n > 1:
            alive = test(e, alive, n, pool, policy)
        for trials, keep in caps:
            if trials == n and len(alive) > 1:
                alive = cap(e, alive, n, keep, class_of_arm)
        classes = {class_of_arm[arm] for arm in alive}
        trace.append((n, len(classes), evals))
        if len(classes) == 1 and (policy["risk"] > 0 or n == pool):
            status = "decided"
            break
        if n == pool:
            status = "pool_exhausted"
            break
    return class_of_arm[leader(e, alive, n)], done, trace, status


def leader(e, alive, n):
    return min(alive, key=lambda arm: (mean(e[arm], n), arm))


def mean(row, n):
    total = 0.0
    for value in row[:n]:  # in order, as the core adds
        total += value
    return total / n


def test(e, alive, n, pool, policy):
    b = leader(e, alive, n)
    m = {c: mean(e[c], n) - mean(e[b], n) for c in alive}
    s2 = {c: np.sum((e[c, :n] - e[b, :n] - m[c]) ** 2) / (n - 1) for c in alive}
    d0 = policy["prior_weight"] if len(alive) > 2 else 0.0
    prior = np.median([s2[c] for c in alive if c != b])
    level = policy["risk"] * (min(1.0, n / policy["ramp"]) ** 2 if policy["ramp"] else 1.0)
    quantile = stats.t.isf(level, n - 1 + d0)
    factor = quantile * np.sqrt(max(0.0, 1 / n - 1 / pool))
    moderated = {c: (d0 * prior + (n - 1) * s2[c]) / (d0 + n - 1) for c in alive}
    return [c for c in alive if c == b or not m[c] > factor * np.sqrt(moderated[c])]


def cap(e, alive, n, keep, class_of_arm):
    kept, classes = [], set()
    for arm in sorted(alive, key=lambda arm: (mean(e[arm], n), arm)):
        if class_of_arm[arm] not in classes and len(classes) == keep:
            break
        classes.add(class_of_arm[arm])
        kept.append(arm)
    return sorted(kept)
