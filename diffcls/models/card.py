"""Writes the model's card and the README's figures from what was measured: ``python -m diffcls.models.card``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAME = "digits-and-clothes"
SETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def interval(part: dict[str, Any]) -> str:
    low, high = part["interval"]
    return f"{100 * low:.2f} to {100 * high:.2f}"


def accuracy_table(measured: dict[str, Any]) -> str:
    lines = [
        "| test set, asked among | accuracy | 95 % interval | evaluations a picture | of 500 trials each |",
        "|---|---|---|---|---|",
    ]
    for key, title in SETS.items():
        for question, classes in (("own ten", 10), ("all twenty", 20)):
            part = measured["accuracy"][key][question]
            saving = 500 * classes / part["evals_mean"]
            lines.append(
                f"| {title} ({part['n']:,} pictures), {question} | {percent(part['accuracy'])} | {interval(part)} | "
                f"{part['evals_mean']:.0f} (95th percentile {part['evals_p95']:.0f}) | {saving:.0f}x fewer |"
            )
    return "\n".join(lines)


def probabilities_table(measured: dict[str, Any]) -> str:
    lines = [
        "| test set, asked among | mean probability of the answer | accuracy | calibration error | of that by chance |",
        "|---|---|---|---|---|",
    ]
    for key, title in SETS.items():
        for question in ("own ten", "all twenty"):
            part = measured["accuracy"][key][question]
            low, high = part["ece_interval"]
            lines.append(
                f"| {title}, {question} | {percent(part['confidence'])} | {percent(part['accuracy'])} | "
                f"{percent(part['ece'])} ({100 * low:.2f} to {100 * high:.2f}) | {percent(part['ece_if_calibrated'])} |"
            )
    return "\n".join(lines)


def agreement_line(measured: dict[str, Any]) -> str:
    both = measured["agreement"]["both"]
    return (
        f"The embedded model's own policy, `policies.quick()`, gives the answer of `Fixed(500)` on {percent(both['same'])} of {both['n']:,} test pictures "
        f"(95 % interval {interval(both)}) for {both['factor']:.0f} times fewer evaluations."
    )


def pictures_table(measured: dict[str, Any]) -> str:
    variants = list(measured["pictures"]["mnist"])
    lines = ["| pictures | " + " | ".join(SETS.values()) + " |", "|---|---|---|"]
    for variant in variants:
        cells = (percent(measured["pictures"][key][variant]["accuracy"]) for key in SETS)
        lines.append(f"| {variant.replace('_', '-')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


GROUPS = {
    "looked at": "looked at when the score was chosen",
    "new": "made afterwards",
    "arguable": "arguably of a known class",
}


def false_alarm_table(measured: dict[str, Any]) -> str:
    lines = ["| test pictures | warned of | 95 % interval |", "|---|---|---|"]
    for key, title in SETS.items():
        lines += [
            f"| {title} ({part['n']:,}), {question} | {percent(part['warned'])} | {interval(part)} |"
            for question, part in measured["world"]["false alarms"][key].items()
        ]
    return "\n".join(lines)


def world_table(measured: dict[str, Any]) -> str:
    lines = ["| other pictures | warned of | 95 % interval | kind |", "|---|---|---|---|"]
    for group, title in GROUPS.items():
        lines += [
            f"| {name} ({part['n']}) | {percent(part['warned'])} | {interval(part)} | {title} |"
            for name, part in measured["world"][group].items()
        ]
    return "\n".join(lines)


def card(description: dict[str, Any], measured: dict[str, Any], n_bytes: int) -> str:
    trained, config = description["trained"], description["dit"]
    held_out = description["held_out_accuracy"]
    return f"""# {NAME}

A DiT (adaLN-zero; width {config["hidden_size"]}, depth {config["depth"]}, {config["num_heads"]} heads, patch
{config["patch_size"]}, 28 x 28 grey) that predicts x_start on a cosine schedule of 1,000 timesteps. {n_bytes / 1e6:.1f} MB,
float16 on disk, float32 in use. Licence {description["licence"]}.

## What it was trained on

MNIST and Fashion-MNIST training pictures, 116,000 of 120,000; the last 2,000 of each set were held out. Every picture is
brought into one position first (`diffcls/prepare.py`), half of them changed anew each time (off-centre, enlarged, JPEG,
fainter); clothes are mirrored half of the time. {trained["generative_steps"]:,} steps of the mean squared error, then
{trained["steps"] - trained["generative_steps"]:,} steps with a discriminative term beside it: the errors of the true and of
three confusable classes, averaged over two shared (t, eps), meet in a cross-entropy. **So it is not a purely generative
model**: its accuracy says nothing about what generative training alone would reach. Seed {trained["seed"]}, one core, under
two hours: `python -m diffcls.models.train --compile`, then `python -m diffcls.models.export`. (This run's first 400
discriminative steps followed the learning rate of a longer phase, 11,000 steps.)

On the held-out training pictures, and nothing else, were chosen: the weighting over timesteps (cross-validated accuracy there
{percent(held_out["fitted"])} against {percent(held_out["uniform"])} uniform), the temperature of the probabilities, and what
is usual for each class.

## Accuracy, with its own policy, `policies.quick()`

{accuracy_table(measured)}

{agreement_line(measured)}

## Probabilities, with the same

Their one temperature was fitted to that policy's results on {description["calibration"]["n_images"]:,} held-out training pictures, each
among its own ten classes, half of them changed as above. Results of another policy, loss or weighting are marked as
uncalibrated. On the test pictures (expected calibration error of the answer, 15 bins, 95 % interval of the bootstrap):

{probabilities_table(measured)}

## Pictures as people have them

{measured["pictures"]["mnist"]["clean"]["n"]:,} test pictures of each set a row, among the set's own ten classes: enlarged 2 to 20 times, inverted, framed by margins of
2 to 20 pixels, each its own, so off-centre with nothing lost; off-centre in the 28 x 28 frame by up to 3 pixels each way, with
what leaves it cut off; JPEG at quality 50; dark ink of some colour on white.

{pictures_table(measured)}

## What it can not do

It knows these twenty classes: {", ".join(description["classes"])}. Any other picture gets one of these answers too, and a
warning when it is unlike the winning class's training pictures. Six numbers say what it is like: the winner's errors in its
first trials, and level, slope, steepness, curvature and elongation of the prepared picture (`diffcls/world.py`). Their log
density, under two Gaussians a class that were fitted to held-out training pictures as they are and changed as a user might,
is warned of below {description["world"]["threshold"]:.1f}: {100 * (1 - description["world"]["quantile"]):.0f} % of those that are as they are lie there. On test pictures (MNIST's
are by other writers than its training pictures) a warning is a false alarm:

{false_alarm_table(measured)}

On pictures of other things its absence is a miss:

{world_table(measured)}

A test picture asked among classes that leave out its own is mostly warned of too; with another loss than L2, or when the
winner pools several classes of the model, nothing is said.

The light object on a dark ground, or the reverse, must be alone: pictures with several objects, a busy background or strong
shadows are outside its world, whether or not the warning says so. Its probabilities are not calibrated on your pictures.

Every figure here: `python -m diffcls.models.measure` (with `--limit` for the numbers of pictures that the tables name; without
it, the whole test sets), then `python -m diffcls.models.card`. Weights' SHA-256:
`{measured["weights"]}`.
"""


def main() -> None:
    description = json.loads((HERE / f"{NAME}.json").read_text())
    measured = json.loads((HERE / f"{NAME}.measured.json").read_text())
    n_bytes = (HERE / f"{NAME}.safetensors").stat().st_size
    (HERE / f"{NAME}.md").write_text(card(description, measured, n_bytes))
    readme = HERE.parents[1] / "README.md"
    if readme.exists():
        block = f"{accuracy_table(measured)}\n\n{agreement_line(measured)}"
        text = re.sub(
            r"(<!-- figures: .*? -->\n).*?(\n<!-- end of figures -->)",
            lambda found: found[1] + block + found[2],
            readme.read_text(),
            flags=re.S,
        )
        readme.write_text(text)


if __name__ == "__main__":
    main()
