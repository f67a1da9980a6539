"""Every figure of the card of ``shapes``: ``python -m diffcls.models.measure_shapes`` (extra ``diffusers``).

Writes ``shapes.measured.json`` beside the model.  Each picture is asked with its true caption against one false one, through
`diffcls.Classifier`:

things swapped      a red circle left of a blue square | a blue square left of a red circle
colours exchanged   a red circle left of a blue square | a blue circle left of a red square
other relation      a red circle left of a blue square | a red circle above a blue square

of test kinds (both things held out of training), validation kinds and training kinds, the two things unlike in colour and in
shape; and one thing of a held-out kind among all 48.  With ``--baseline`` the contrastive model answers on the same pictures.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import diffcls
from diffcls import durable
from diffcls.intervals import wilson

from . import shape_pictures as shapes
from .export_shapes import HERE, NAME
from .shape_pictures import KINDS, RELATIONS, Caption
from .train_shapes import reworded, to_x_start

SEEDS = {"test": 3, "validation": 2, "training": 1}
POLICIES = {"Race()": diffcls.Race(), "Fixed(32)": diffcls.Fixed(32)}


def other_relation(caption: Caption) -> Caption:
    """Across: above or below for left or right, and the reverse."""
    return caption._replace(relation=RELATIONS[(RELATIONS.index(str(caption.relation)) + 1) % 4])


FALSE: dict[str, Callable[[Caption], Caption]] = {
    "things swapped": Caption.swapped,
    "colours exchanged": Caption.colours_exchanged,
    "other relation": other_relation,
}


def pictures(split: str, n: int) -> tuple[NDArray[np.uint8], list[Caption]]:
    rng = np.random.default_rng(SEEDS[split])
    scenes = shapes.sample(rng, n, split)
    return shapes.draw(scenes), [reworded(caption, rng) for caption in scenes.captions()]


def share(right: int, n: int) -> dict[str, Any]:
    return {"n": n, "accuracy": right / n, "interval": [float(end) for end in wilson(right, n)]}


def asked(model: diffcls.Denoiser, split: str, question: str, policy: Any, n: int) -> dict[str, Any]:
    """Accuracy; the false caption stands first, so that a tie is a mistake."""
    images, captions = pictures(split, n)
    groups: dict[Caption, list[NDArray[np.uint8]]] = {}
    for image, caption in zip(images, captions, strict=True):
        groups.setdefault(caption, []).append(image)
    right, evals = 0, []
    for caption, members in groups.items():
        classifier = diffcls.Classifier(model, [str(FALSE[question](caption)), str(caption)], policy=policy)
        for result in classifier(members):
            right += int(result.label == str(caption))
            evals.append(result.n_evals)
    return {**share(right, n), "evals_mean": float(np.mean(evals))}


def one_thing(model: diffcls.Denoiser, n: int) -> dict[str, Any]:
    """Of a held-out kind, among the names of all kinds."""
    scenes = shapes.sample(np.random.default_rng(SEEDS["test"]), n, "test", alone=1.0)
    classifier = diffcls.Classifier(model, [str(kind) for kind in KINDS])
    results = list(classifier(list(shapes.draw(scenes))))
    right = sum(r.label == str(c) for r, c in zip(results, scenes.captions(), strict=True))
    return {**share(right, n), "evals_mean": float(np.mean([r.n_evals for r in results]))}


def contrastive(folder: Path, n: int) -> dict[str, Any]:
    """The baseline's answers on the same pictures and captions, and how long it was trained."""
    from .train_shapes_baseline import Contrast, baseline

    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    contrast = Contrast(baseline().eval())
    contrast.model.load_state_dict(state["model"])
    found: dict[str, Any] = {"trained": {key: state[key] for key in ("step", "batch", "swapped", "seed")}}
    found["n_parameters"] = sum(parameter.numel() for parameter in contrast.model.parameters())
    for split in SEEDS:
        images, captions = pictures(split, n)
        x_start = to_x_start(images)
        found[split] = {
            question: share(int(contrast.prefers(x_start, captions, [make(c) for c in captions]).sum()), n)
            for question, make in FALSE.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=NAME)
    parser.add_argument("--pictures", type=int, default=1000, help="a question")
    parser.add_argument("--baseline", type=Path, nargs="*", default=[], help="runs of train_shapes_baseline")
    parser.add_argument("--first-phase", help="the same model as exported before its second phase")
    parser.add_argument("--out", type=Path, default=HERE / f"{NAME}.measured.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = diffcls.load(options.model)
    measured: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if measured.get("weights") != model.digest:
        measured = {"weights": model.digest, "accuracy": {}, "baselines": {}}
    measured["run"] = {"version": diffcls.__version__, "machine": platform.machine(), "libraries": dict(model.versions)}

    def keep() -> None:
        durable.write(options.out, (json.dumps(measured, indent=1) + "\n").encode())

    for folder in options.baseline:
        found = contrastive(folder, options.pictures)
        measured["baselines"]["CLIP, swapped negatives" if found["trained"]["swapped"] else "CLIP"] = found
        keep()
    if options.first_phase is not None:
        earlier = diffcls.load(options.first_phase)
        measured["first_phase"] = {
            question: asked(earlier, "test", question, POLICIES["Fixed(32)"], options.pictures) for question in FALSE
        }
        keep()
    for name, policy in POLICIES.items():
        for split in SEEDS if name == "Race()" else ("test",):
            for question in FALSE:
                part = measured["accuracy"].setdefault(f"{split} kinds", {})
                if f"{question}, {name}" not in part:
                    part[f"{question}, {name}"] = asked(model, split, question, policy, options.pictures)
                    print(split, question, name, part[f"{question}, {name}"], flush=True)
                    keep()
    single = measured["accuracy"].setdefault("one thing of a test kind", {})
    if not single:
        single["among 48, Race()"] = one_thing(model, options.pictures // 5)
        keep()


if __name__ == "__main__":
    main()
