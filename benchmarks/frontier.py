"""How many evaluations does each way of dropping classes need for the full pool's answer, and at what accuracy?

Error tables of Gaussian classes (closed-form denoiser; always at hand); with ``--model``, of the embedded model on test
pictures; or, with ``--many``, of the network of `many_classes_train.py` for 20, 100 and 1000 classes (``DIFFCLS_MODELS`` names its
folder).  Every rule reads the same trials; a rule with a knob is shown at several levels, so compare curves and not points.
The calibrated race draws its own trials, live, with a profile of 24 other pictures (6 at 1000 classes).

The pool has 500 trials, or 1000 at 1000 classes.  Tables of ``--many`` are not full: what is worst after many trials is not
evaluated further (`SURVEYS`), and for every rule such a class is lost there.  The paper's stages then read nested grids; what
they cost is counted as published.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import common
import many_classes
import numpy as np

import diffcls
from diffcls import Race, _core
from diffcls.intervals import clopper_pearson
from diffcls.policies import paper, quick
from diffcls.reference_race import radical_inverse, trials_published

ROUNDS = [8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 500, 640, 800, 1000]
PAPER = {10: "cifar10", 20: "cifar10", 100: "aircraft", 1000: "imagenet"}
SURVEYS = {
    20: diffcls.Staged((64, 500), (8, 1)),
    100: diffcls.Staged((32, 100, 500), (20, 8, 1)),
    1000: diffcls.Staged((20, 64, 200, 1000), (100, 20, 6, 1)),
}
"""What is evaluated of the trained network: all classes at the first trials, the best ones at more."""
Answer = tuple[int, int]  # class, evaluations


@dataclass
class Case:
    """One question: a classifier, pictures to calibrate on and to judge on, and the judged ones' full table."""

    name: str
    make: Callable[..., diffcls.Classifier]
    tuning: Sequence[object]
    images: Sequence[object]
    labels: np.ndarray

    survey: diffcls.Staged | None = None
    path: Path | None = None
    """Of the table: made if it is not there."""

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            self.table = diffcls.ErrorTable.load(self.path, classifier=self.make())
        else:
            survey = self.survey or diffcls.Fixed(500)
            self.table = self.make().error_table(
                self.images, policy=survey, every_class=False, labels=self.labels, path=self.path
            )
        self.read = whole(self.table)
        grid = np.argsort(self.table.trials["noise_index"], kind="stable")
        self.grid = self.read[:, :, grid]  # in the order of the schedule
        self.full = self.read.mean(axis=2).argmin(axis=1)


def whole(table: diffcls.ErrorTable) -> np.ndarray:
    """Weighted errors (N, K, pool) in the order of reading; infinite where a survey dropped the class."""
    losses = table.errors * table.trials["weight"]
    return np.where(np.isnan(losses), np.inf, losses)


def gaussians(k: int, n: int, seed: int) -> Case:
    """K classes N(mean_k, v I) in 24 dimensions: the denoiser is exact, the best class is the nearest mean."""
    rng = np.random.default_rng(seed)
    means, v = (0.6 * rng.standard_normal((k, 24))).astype(np.float32), 0.5
    schedule = diffcls.Schedule.linear(1000)

    def predict(x_t: np.ndarray, t: np.ndarray, cond: np.ndarray) -> np.ndarray:
        a, s = schedule.alpha[t][:, None], schedule.sigma[t][:, None]
        return (s / (a * a * v + s * s) * (x_t - a * means[cond])).astype(np.float32)

    denoiser = diffcls.Denoiser(predict, shape=(24,), schedule=schedule, n_classes=k, name="gaussians")
    labels = rng.integers(0, k, n + 24)
    x = (means[labels] + math.sqrt(v) * rng.standard_normal((n + 24, 24))).astype(np.float32)
    return Case(
        f"{k} Gaussians",
        lambda policy=None: diffcls.Classifier(denoiser, policy=policy, progress=False),
        x[:24], x[24:], labels[24:],
    )  # fmt: skip


def embedded(n: int) -> Iterator[Case]:
    from diffcls.models import data

    names = list(diffcls.load().class_names)
    for family, name in enumerate(data.DATASETS):
        tuning, (images, labels) = data.load(name, train=True)[0][-24:], data.load(name, train=False)
        for classes, offset in ((names[10 * family : 10 * family + 10], 0), (names, 10 * family)):
            yield Case(
                f"{name}, {len(classes)} classes",
                lambda policy=None, classes=classes: diffcls.Classifier(None, classes, policy=policy, progress=False),
                list(tuning), list(images[:n]), labels[:n] + offset,
            )  # fmt: skip


def many(n: dict[int, int], folder: Path) -> Iterator[Case]:
    """Of `n[K]` test pictures each, tables kept in `folder`; the tuning pictures are training pictures, never fitted."""
    model = diffcls.load(many_classes.NAME, prepare=False)
    for k, count in n.items():
        tuning, _ = many_classes.pictures(24 if k < 1000 else 6, k, train=True)
        images, labels = many_classes.pictures(count, k, train=False)
        classes = list(model.class_names[:k])
        yield Case(
            f"trained network, {k} classes",
            lambda policy=None, classes=classes: diffcls.Classifier(model, classes, policy=policy, progress=False),
            tuning, images, labels, SURVEYS[k], folder / f"test-{k}.arrow",
        )  # fmt: skip


# ---- rules: losses (K, pool) in reading order, a level -> (class, evaluations) ----------------------------------------


def paper_stages(losses: np.ndarray, grid: np.ndarray | None) -> Answer:
    """Li et al. (2023): the published grids, which do not nest, of `grid`, in the order of the schedule; None: nested ones,
    counted as if they were the published."""
    k, pool = losses.shape
    published = paper(PAPER[k])
    order, ends = trials_published(published.n_samples, pool)
    errors = losses if grid is None else grid[:, order]
    alive, cost, done = np.arange(k), 0, 0
    for end, n, keep in zip(ends, published.n_samples, published.to_keep, strict=True):
        cost, done = cost + (end - done) * len(alive), end
        means = errors[alive, : n if grid is None else end].mean(axis=1)
        alive = alive[np.argsort(means, kind="stable")[:keep]]
    return int(alive[0]), cost


def eliminate(losses: np.ndarray, rounds: Sequence[int], radius: Callable[..., np.ndarray]) -> Answer:
    """Drop what is worse than the leader by more than radius(n, paired differences (A, n))."""
    alive, cost, done = np.arange(len(losses)), 0, 0
    for n in rounds:
        cost, done = cost + (n - done) * len(alive), n
        means = losses[alive, :n].mean(axis=1)
        leader = alive[means.argmin()]
        if n < losses.shape[1]:
            alive = alive[means - means.min() <= radius(n, losses[alive, :n] - losses[leader, :n])]
        if len(alive) == 1 or n == losses.shape[1]:
            break
    return int(leader), cost


def clark_jaini(losses: np.ndarray, level: float) -> Answer:
    """Clark and Jaini (2023): a paired Student test against the leader after every trial, from the twentieth on."""
    return eliminate(
        losses,
        range(20, losses.shape[1] + 1),
        lambda n, d: _core.student_isf(level, n - 1) * d.std(axis=1, ddof=1) / math.sqrt(n),
    )


def fixed_threshold(losses: np.ndarray, level: float) -> Answer:
    """Sift and refine: a class leaves when its running mean is above the smallest by a constant (here: a share of the
    median gap after 20 trials of every class, which no user has); 25 trials, then 125 on what is left."""
    means = losses[:, :20].mean(axis=1)
    gaps = means - means.min()
    threshold = level * np.median(gaps[gaps > 0])
    winner, cost = eliminate(losses, range(1, 26), lambda n, d: np.full(len(d), threshold))
    means = losses[:, :25].mean(axis=1)
    alive = np.flatnonzero(means - means.min() <= threshold)
    if len(alive) == 1:
        return winner, cost
    return int(alive[losses[alive, :125].mean(axis=1).argmin()]), cost + 100 * len(alive)


def halving(losses: np.ndarray, level: float) -> Answer:
    """Sequential halving on common trials (Baharav and Tse, 2019); level: evaluations of the budget a class."""
    k = len(losses)
    alive, cost, done, steps = np.arange(k), 0, 0, math.ceil(math.log2(k))
    while len(alive) > 1:
        n = min(losses.shape[1], done + max(1, int(level * k // (len(alive) * steps))))
        cost, done = cost + (n - done) * len(alive), n
        alive = alive[np.argsort(losses[alive, :n].mean(axis=1), kind="stable")[: (len(alive) + 1) // 2]]
    return int(alive[0]), cost


def label_tree(groups: list[np.ndarray]) -> Callable[[np.ndarray, float], Answer]:
    """Two levels: each group's first class speaks for it; the best third of the groups is raced within by Clark and Jaini's
    test.  The groups were learned from the tuning pictures' errors.  level: trials of the speakers."""

    def rule(losses: np.ndarray, level: float) -> Answer:
        n = int(level)
        scores = [losses[group[0], :n].mean() for group in groups]
        chosen = np.argsort(scores)[: max(2, -(-len(groups) // 3))]
        classes = np.concatenate([groups[i] for i in chosen])
        winner, cost = clark_jaini(losses[classes], 0.02)
        return int(classes[winner]), cost + n * (len(groups) - len(chosen))

    return rule


def learn_groups(errors: np.ndarray) -> list[np.ndarray]:
    """sqrt(K) groups of classes whose losses move together over pictures: farthest points first, then the nearest one."""
    means = errors.mean(axis=2)
    relative = (means - means.mean(axis=1, keepdims=True)).T  # (K, N)
    distance = np.linalg.norm(relative[:, None] - relative[None], axis=2)
    centres = [int(distance.sum(axis=1).argmin())]
    while len(centres) < round(math.sqrt(len(relative))):
        centres.append(int(distance[centres].min(axis=0).argmax()))
    owner = distance[centres].argmin(axis=0)
    rest = ([k for k in np.flatnonzero(owner == i) if k != c] for i, c in enumerate(centres))
    return [np.array([c, *others]) for c, others in zip(centres, rest, strict=True)]


def kim_nelson(losses: np.ndarray, level: float) -> Answer:
    """Kim and Nelson (2001) with common random numbers, alpha 0.05; level: indifference zone over the median gap."""
    k, n0 = len(losses), 8
    eta = ((2 * 0.05 / (k - 1)) ** (-2 / (n0 - 1)) - 1) / 2
    first = losses[:, :n0]
    gaps = first.mean(axis=1) - first.mean(axis=1).min()
    zone, covariance = level * np.median(gaps), np.cov(first)
    variance = np.diag(covariance)[:, None] + np.diag(covariance)[None] - 2 * covariance
    alive, cost, done = np.arange(k), 0, 0
    for n in ROUNDS:
        cost, done = cost + (n - done) * len(alive), n
        means = losses[alive, :n].mean(axis=1)
        width = np.maximum(0, 2 * eta * (n0 - 1) * variance[np.ix_(alive, alive)] / zone**2 - n) * zone / (2 * n)
        stay = ~((means[:, None] - means[None]) > width).any(axis=1)
        stay[means.argmin()] = True
        alive = alive[stay]
        if len(alive) == 1 or n == losses.shape[1]:
            break
    return int(alive[losses[alive, :n].mean(axis=1).argmin()]), cost


def empirical_bernstein(losses: np.ndarray, level: float) -> Answer:
    """Mnih et al. (2008), range estimated, union over classes and rounds."""
    log = math.log(3 * len(losses) * len(ROUNDS) / level)
    return eliminate(
        losses, ROUNDS, lambda n, d: d.std(axis=1) * math.sqrt(2 * log / n) + 3 * np.ptp(d, axis=1) * log / n
    )


def confidence_sequence(losses: np.ndarray, level: float) -> Answer:
    """Successive elimination outside of asymptotic confidence sequences (Waudby-Smith et al., 2024), union over classes."""
    a = level / (len(losses) - 1)
    g = (-2 * math.log(a) + math.log(1 - 2 * math.log(a))) / 64
    factor = [
        math.sqrt(2 * (n * g + 1) / (n * n * g) * math.log(math.sqrt(n * g + 1) / a))
        for n in range(1, losses.shape[1] + 1)
    ]
    return eliminate(losses, ROUNDS, lambda n, d: factor[n - 1] * d.std(axis=1, ddof=1))


def top_two(losses: np.ndarray, level: float) -> Answer:
    """The leader has the longest prefix of trials; the challenger with the smallest paired z, on its own, gets more."""
    k, pool = losses.shape
    count, lead = np.full(k, 8), int(losses[:, :8].mean(axis=1).argmin())

    def against_leader(c: int) -> float:
        n = count[c]  # the leader has as many
        if c == lead or n == pool or not np.isfinite(losses[c, n - 1]):
            return np.inf
        d = losses[c, :n] - losses[lead, :n]
        return float(d.mean() / max(d.std(ddof=1) * math.sqrt(1 / n - 1 / pool), 1e-300))

    z = np.array([against_leader(c) for c in range(k)])
    while True:
        rival = int(z.argmin())
        if z[rival] > level:
            return lead, int(count.sum())
        count[rival] = min(pool, max(count[rival] + 2, count[rival] * 5 // 4))
        count[lead] = max(count[lead], count[rival])
        if losses[rival, : count[rival]].mean() < losses[lead, : count[rival]].mean():
            lead = rival
            z = np.array([against_leader(c) for c in range(k)])
        else:
            z[rival] = against_leader(rival)


# ---- judging ---------------------------------------------------------------------------------------------------------


def rules(case: Case) -> Iterator[tuple[str, float, list[Answer]]]:
    """(name, level, answers): every rule at every level."""
    tuning = case.make().error_table(case.tuning, n_samples=16 if case.survey else 64)
    named: list[tuple[str, Callable[[np.ndarray, float], Answer], Sequence[float]]] = [
        ("paired t test (Clark, Jaini)", clark_jaini, (0.05, 0.02, 0.005)),
        ("fixed threshold (sift, refine)", fixed_threshold, (0.1, 0.3, 1.0)),
        ("sequential halving", halving, (10, 20, 40, 80)),
        ("label tree", label_tree(learn_groups(tuning.errors)), (8, 20, 50)),
        ("Kim-Nelson", kim_nelson, (0.02, 0.1, 0.3)),
        ("empirical Bernstein", empirical_bernstein, (0.1,)),
        ("confidence sequences", confidence_sequence, (0.05, 0.02)),
        ("top two", top_two, (1.8, 2.3, 2.8)),
    ]
    yield (
        "paper's stages",
        0.0,
        [
            paper_stages(losses, None if case.survey else grid)
            for losses, grid in zip(case.read, case.grid, strict=True)
        ],
    )
    for name, rule, levels in named:
        for level in levels:
            yield name, level, [rule(losses, level) for losses in case.read]
    profile = diffcls.calibrate(case.make(), case.tuning)
    races = {
        "race": Race,
        "race, quick": quick,
    }
    if case.survey is None:  # it reads more than a survey has
        races["race, anytime"] = partial(Race, n_min=4, guarantee="anytime")
    for name, make in races.items():
        for risk in (0.05, 0.02, 0.005):
            results = diffcls.replay(case.table, make(risk=risk))
            yield name, risk, [(result.index, result.n_evals) for result in results]
    for risk in (0.05, 0.02, 0.005):
        live = case.make(quick(risk=risk, timesteps=profile))(case.images)
        yield "race, quick, calibrated", risk, [(result.index, result.n_evals) for result in live]


def judge(case: Case) -> list[dict[str, object]]:
    published = None
    found = []
    for name, level, answers in rules(case):
        winners, evals = np.array([a for a, _ in answers]), np.array([e for _, e in answers])
        right = winners == case.labels
        published = right if published is None else published
        difference = right.astype(float) - published
        n = len(right)
        same = int((winners == case.full).sum())
        found.append(
            {
                "case": case.name, "rule": name, "level": level, "n": n, "evals": float(evals.mean()),
                "evals_p95": float(np.quantile(evals, 0.95)), "factor": float(found[0]["evals"] / evals.mean()) if found else 1.0,
                "agree": same / n, "agree_low": clopper_pearson(same, n)[0],
                "accuracy": float(right.mean()), "interval": clopper_pearson(int(right.sum()), n),
                "against_paper": float(difference.mean()),
                "against_paper_error": float(difference.std(ddof=1) / math.sqrt(n)),
            }
        )  # fmt: skip
    return found


COLORS = ("#0072B2", "#009E73", "#D55E00", "#E69F00")
"""Of the races (Okabe and Ito): told apart by the colour-blind, and from the others, which are grey, in print."""
MARKERS = ("s", "v", "^", "<", ">", "D", "P", "X", "*")


def draw(rows: list[dict[str, object]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, axes = pyplot.subplots(1, len(cases), figsize=(7 * len(cases), 5.5), squeeze=False)
    names = list(dict.fromkeys(row["rule"] for row in rows))
    ours, others = [[n for n in names if n.startswith("race") is mine] for mine in (True, False)]
    style = {name: {"fmt": "o-", "color": color, "ms": 5, "lw": 1.6} for name, color in zip(ours, COLORS, strict=False)}
    style |= {
        name: {"fmt": f"{m}:", "color": "#888888", "ms": 5, "lw": 0.8} for name, m in zip(others, MARKERS, strict=True)
    }
    for axis, case in zip(axes[0], cases, strict=True):
        for name in others + ours:
            points = sorted((r for r in rows if (r["case"], r["rule"]) == (case, name)), key=lambda r: r["evals"])
            error = 1.0 - np.array([r["accuracy"] for r in points])
            spread = np.abs(1.0 - np.array([r["interval"] for r in points]).T[::-1] - error)
            axis.errorbar([r["evals"] for r in points], error, spread, elinewidth=0.5, label=name, **style[name])
        axis.set(xscale="log", yscale="log", xlabel="evaluations an image", title=case)
        for scale, form in ((axis.xaxis, "{x:,.0f}"), (axis.yaxis, "{x:.2g}")):
            scale.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            scale.set_major_formatter(ticker.StrMethodFormatter(form))
            scale.set_minor_formatter(ticker.NullFormatter())
        axis.set_ylabel("share of wrong answers (95 % interval)")
    axes[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    question = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--images", type=int, default=100, help="judged, a case")
    parser.add_argument(
        "--model", action="store_true", help="the embedded model's test pictures too (data sets at hand)"
    )
    parser.add_argument(
        "--many",
        type=int,
        nargs=3,
        metavar="N",
        help="instead: judged pictures of the trained network's 20, 100 and 1000 classes; half of them digits",
    )
    parser.add_argument("--tables", type=Path, default=Path(), help="folder of the error tables of --many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    options.repeats = 1
    warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)
    name = "frontier-many" if options.many else "frontier"
    if options.many:
        cases = list(many(dict(zip((20, 100, 1000), options.many, strict=True)), options.tables))
    else:
        cases = [gaussians(k, options.images, options.seed) for k in (10, 100)]
        cases += list(embedded(options.images)) if options.model else []
    for case in cases:  # columns are in the order of reading
        assert radical_inverse(case.read.shape[2]) == case.table.trials["noise_index"].tolist()
    with np.errstate(invalid="ignore"):  # what a survey dropped is infinite, and so not a number in a difference
        rows = [row for case in cases for row in judge(case)]
    common.record(name, question, rows, options)
    if not options.dry:
        draw(rows, common.RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
