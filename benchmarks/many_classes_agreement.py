"""On how many pictures of 20, 100 and 1000 classes does the quick race answer otherwise than the full pool?

The full pool costs up to a million evaluations a picture, so another race stands in for it: at the level 1e-8 and without
caps it drops only what the rest of the pool can hardly bring back, and reads the others to the pool's end.  Where a table
of the whole pool is at hand (``frontier.py --many --tables FOLDER``) its answers are compared with the pool's.  Of the first
pictures the paper's own stages are asked too, with their grids as published.  Test pictures other than those of that table.
"lost" and "gained" count answers that were right in the reference alone and in the race alone; the accuracy that the race
may have cost, at most, is the upper end of lost's 95 % interval.  ``DIFFCLS_MODELS`` names the folder of `many_classes_train.py`'s network.
"""

import argparse
import functools
from pathlib import Path

import common
import frontier
import many_classes
import numpy as np

import diffcls
from diffcls.intervals import clopper_pearson

REFERENCE = diffcls.policies.quick(risk=1e-8, caps=None)
SIZES = (20, 100, 1000)


def against(winners: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How the answers of the race and of a reference differ, and in whose favour."""
    n, same = len(labels), int((winners == reference).sum())
    lost = int(((winners != labels) & (reference == labels)).sum())
    return {
        "n": n, "agree": same / n, "agree_low": clopper_pearson(same, n)[0], "accuracy": float((reference == labels).mean()),
        "lost": lost, "lost_high": clopper_pearson(lost, n)[1],
        "gained": int(((winners == labels) & (reference != labels)).sum()),
    }  # fmt: skip


def compare(k: int, n: int, n_published: int, first: int, table: Path) -> dict[str, object]:
    model = diffcls.load(many_classes.NAME, prepare=False)
    images, labels = many_classes.pictures(n, k, train=False, first=first)
    ask = functools.partial(diffcls.Classifier, model, list(model.class_names[:k]))
    race, pool = ask(policy=diffcls.policies.quick())(images), ask(policy=REFERENCE)(images)
    winners = np.array(race.index)
    row: dict[str, object] = {
        "classes": k, "evals": float(np.mean(race.n_evals)), "evals_p95": float(np.quantile(race.n_evals, 0.95)),
        "accuracy": float((winners == labels).mean()), "stated_disagreement": float(np.mean(race.p_disagree)),
        "full_pool": {"evals": float(np.mean(pool.n_evals))} | against(winners, np.array(pool.index), labels),
    }  # fmt: skip
    if n_published:
        some = np.linspace(0, n - 1, n_published).astype(int)  # of both data sets
        stages = ask(policy=diffcls.policies.paper(frontier.PAPER[k]))([images[i] for i in some])
        row["published"] = {"evals": float(np.mean(stages.n_evals))} | against(
            winners[some], np.array(stages.index), labels[some]
        )
    if table.exists():
        stored = diffcls.ErrorTable.load(table)
        full = frontier.whole(stored).mean(axis=2).argmin(axis=1)
        known, _ = many_classes.pictures(len(stored), k, train=False)
        answers = np.array(ask(policy=REFERENCE)(known).index)
        row |= {"reference_checked": len(full), "reference_wrong": int((answers != full).sum())}
    return row


def main() -> None:
    question = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--images", type=int, nargs=3, default=(1500, 1500, 1000), help="of 20, 100 and 1000 classes")
    parser.add_argument(
        "--published", type=int, nargs=3, default=(800, 800, 24), help="how many of them the paper's stages see too"
    )
    parser.add_argument("--first", type=int, default=1000, help="test pictures of each set that are passed over")
    parser.add_argument("--tables", type=Path, default=Path(), help="folder of frontier.py's tables")
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    options.seed, options.repeats = 0, 1
    rows = [
        compare(k, n, n_published, options.first, options.tables / f"test-{k}.arrow")
        for k, n, n_published in zip(SIZES, options.images, options.published, strict=True)
        if n
    ]
    common.record("many-classes-agreement", question, rows, options)


if __name__ == "__main__":
    main()
