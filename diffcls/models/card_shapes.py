"""Writes the card of ``shapes`` from what was measured: ``python -m diffcls.models.card_shapes``."""

from __future__ import annotations

import json
from typing import Any

from .. import durable
from .card import HERE, interval, percent

NAME = "shapes"


def row(title: str, question: str, part: dict[str, Any]) -> str:
    evals = f"{part['evals_mean']:.0f}" if "evals_mean" in part else "-"
    return f"| {title} | {question} | {part['n']:,} | {percent(part['accuracy'])} | {interval(part)} | {evals} |"


def table(measured: dict[str, Any]) -> str:
    lines = [
        "| things | question, policy | pictures | right | 95 % interval | evaluations |",
        "|---|---|---|---|---|---|",
    ]
    for kinds, questions in measured["accuracy"].items():
        lines += [row(kinds, question, part) for question, part in questions.items()]
    lines += [
        row("test kinds, first phase only", f"{question}, Fixed(32)", part)
        for question, part in measured.get("first_phase", {}).items()
    ]
    return "\n".join(lines)


def baselines(measured: dict[str, Any]) -> str:
    if not measured["baselines"]:
        return "No baseline was measured with these weights."
    lines = ["| baseline | question | pictures | right | 95 % interval | evaluations |", "|---|---|---|---|---|---|"]
    said = []
    for name, part in measured["baselines"].items():
        lines += [row(f"{name}, test kinds", question, score) for question, score in part["test"].items()]
        trained = part["trained"]
        said.append(
            f"{name}: {part['n_parameters']:,} parameters, {trained['step']:,} steps of {trained['batch']} pictures; of "
            f"training kinds it has {percent(part['training']['things swapped']['accuracy'])} of swapped captions right."
        )
    return "\n".join([*lines, "", *said])


def card(description: dict[str, Any], measured: dict[str, Any], n_bytes: int) -> str:
    trained, config = description["trained"], description["config"]
    second = trained["steps"] - trained["generative_steps"]
    negatives = (
        f"""then {second:,} steps with a discriminative term beside it: the errors of the true caption, of the one whose things
are swapped and of one that is false in another way (colours exchanged, a relation across, another thing), at the same
(t, eps), meet in a cross-entropy. **So it is not a purely generative model, and swapped captions were among its training
negatives**; those of held-out kinds were not"""
        if second
        else "and nothing else: it is purely generative"
    )
    return f"""# {NAME}

A text-to-image model of coloured shapes in relations, 32 x 32 pixels in colour: "a red circle left of a blue square".
PixArt's parts, small: a T5 encoder (width {config["text_width"]}, two layers, a token a word) and a transformer with
cross-attention (width {config["width"]}, depth {config["depth"]}, patch {config["patch"]}) that predicts x_start of pixels, without a VAE, on a cosine schedule of
1,000 timesteps. {description["n_parameters"]:,} parameters, {n_bytes / 1e6:.1f} MB, float16 on disk. Licence {description["licence"]}.

It is a folder in diffusers' layout: `diffcls.load("shapes")`, or
`diffusers.DiffusionPipeline.from_pretrained(folder, vae=None)`. Its words: {", ".join(description["words"])}.

## What it was trained on

Pictures that `diffcls/models/shape_pictures.py` draws, one or two things of 8 colours and 6 shapes, with captions. Of the 48
kinds of thing 8 are for tests and 8 for validation: neither is in any training picture or caption, true or false; every colour
and every shape is in some. {trained["generative_steps"]:,} steps of the mean squared error ({trained["batch"]} pictures a step, 8 % without caption), {negatives}. Seed {trained["seed"]}:
`python -m diffcls.models.train_shapes`, then `python -m diffcls.models.export_shapes`. (Some 800 first steps of
this run's second phase followed the learning rate of a longer one, 8,000 steps; its rest ran with `--compile`.)

## What it gets right

A picture's true caption against one false caption, both things of the named kinds, unlike in colour and in shape:
{measured["accuracy"]["test kinds"]["things swapped, Race()"]["n"]:,} pictures a row, the false caption first. "One thing" is asked among the names of all 48 kinds.

{table(measured)}

## Beside a contrastive model

`python -m diffcls.models.train_shapes_baseline`: a CLIP of as many parameters on the same stream of pictures and captions;
"swapped negatives" sees each caption's swap as a negative too, as the second phase above does. It was shown fewer pictures than
the model (its last line says how many); how far as many would take it was not tried.

{baselines(measured)}

## What it can not do

Anything but these words in this grammar: one thing, or two in one of four relations, on a plain dark ground, in the sizes and
colours of the drawing. It is there to make prompts, swaps and error maps real in tests and examples; its figures say nothing
about photographs or larger models. Its probabilities are not calibrated.

Every figure here: `python -m diffcls.models.measure_shapes`, then `python -m diffcls.models.card_shapes`. Digest of the weights:
`{measured["weights"]}`.
"""


def main() -> None:
    description = json.loads((HERE / f"{NAME}.json").read_text())
    measured = json.loads((HERE / f"{NAME}.measured.json").read_text())
    n_bytes = sum(path.stat().st_size for path in (HERE / NAME).rglob("*") if path.is_file())
    durable.write(HERE / f"{NAME}.md", card(description, measured, n_bytes).encode())


if __name__ == "__main__":
    main()
