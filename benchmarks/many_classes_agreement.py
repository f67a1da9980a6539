"""On how many pictures of 20, 100 and 1000 classes does the quick race answer otherwise than the full pool?

The full pool costs up to a million evaluations a picture, so another race stands in for it: at the level 1e-8 and without
caps it drops only what the rest of the pool can hardly bring back, and reads the others to the pool's end.  Where a table
of the whole pool is at hand (``frontier.py --many --tables FOLDER``) its answers are compared with the pool's.  Test pictures
other than those of that table.  ``DIFFCLS_MODELS`` names the folder of `many_classes_train.py`'s network.
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


def compare(k: int, n: int, first: int, table: Path) -> dict[str, object]:
    model = diffcls.load(many_classes.NAME, prepare=False)
    images, labels = many_classes.pictures(n, k, train=False, first=first)
    ask = functools.partial(diffcls.Classifier, model, list(model.class_names[:k]), progress=False)
    race, pool = ask(policy=diffcls.policies.quick())(images), ask(policy=REFERENCE)(images)
    winners, reference = np.array(race.index), np.array(pool.index)
    same, lost = winners == reference, (winners != labels) & (reference == labels)
    gained = (winners == labels) & (reference != labels)
    row = {
        "classes": k, "n": n, "evals": float(np.mean(race.n_evals)), "evals_p95": float(np.quantile(race.n_evals, 0.95)),
        "evals_reference": float(np.mean(pool.n_evals)), "agree": float(same.mean()),
        "agree_low": clopper_pearson(int(same.sum()), n)[0], "accuracy": float((winners == labels).mean()),
        "accuracy_reference": float((reference == labels).mean()), "lost": int(lost.sum()), "gained": int(gained.sum()),
        "lost_high": clopper_pearson(int(lost.sum()), n)[1], "stated_disagreement": float(np.mean(race.p_disagree)),
    }  # fmt: skip
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
    parser.add_argument("--images", type=int, nargs=3, default=(300, 400, 40), help="of 20, 100 and 1000 classes")
    parser.add_argument("--first", type=int, default=1000, help="test pictures of each set that are passed over")
    parser.add_argument("--tables", type=Path, default=Path(), help="folder of frontier.py's tables")
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    options.seed, options.repeats = 0, 1
    rows = [
        compare(k, n, options.first, options.tables / f"test-{k}.arrow")
        for k, n in zip(SIZES, options.images, strict=True)
        if n
    ]
    common.record("many-classes-agreement", question, rows, options)


if __name__ == "__main__":
    main()
