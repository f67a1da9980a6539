"""How do the diffusion classifier and the paper's other systems compare, on the same pictures, at our scale?

The command is resumable: a killed run goes on from the cells, checkpoints and samples that its folder holds, and ends on the
same bytes.  ``--record`` copies the record into ``benchmarks/results`` and the table and pictures into ``docs``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import common
import torch
from comparison.cells import Cells
from comparison.figures import draw, sheets
from comparison.record import of_cells
from comparison.settings import SETTINGS, Setting
from comparison.systems import Plan
from comparison.table import markdown

import diffcls
from diffcls import durable
from diffcls.stored import as_json

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("diffcls", "numpy", "torch", "transformers", "diffusers", "scikit-learn", "scikit-image")
"""Whose versions change answers."""


def fingerprint(setting: Setting) -> dict[str, str]:
    """All that answers depend on beside the pictures, which each cell knows by a digest."""
    weights = {name: str(diffcls.load(name).digest)[:16] for name in ("digits-and-clothes", "shapes")}
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {**{key: str(value) for key, value in setting.to_dict().items()}, **weights, **versions}


def answer(plan: Plan, cells: Cells) -> None:
    """Every cell of the plan."""
    for planned in plan.systems():
        left = [task for task in planned.tasks if not cells.done(planned.name, task)]
        if not left:
            continue
        print(f"{planned.name}: {len(left)} of {len(planned.tasks)} tasks to do", flush=True)
        start = time.monotonic()
        system = planned.make()
        for task in left:
            cells.make(planned.name, task, system.answer, system.facts)
        print(f"{planned.name}: done in {time.monotonic() - start:.0f} s", flush=True)


def made(plan: Plan, cells: Cells) -> dict[str, Any]:
    """The record: what the cells say, and of which run they are."""
    machine = common.machine()
    del machine["load"], machine["versions"]  # the first is of the moment, and of the second more matter here
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    setting = as_json(plan.setting.to_dict())
    question = __doc__.splitlines()[0]
    return {"question": question, "machine": machine, "versions": versions, "setting": setting, **of_cells(plan, cells)}


def publish(record: dict[str, Any], results: Path, pictures: Path) -> None:
    """Record and table into one folder, figures and samples into another."""
    for folder in (results, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    durable.write(results / "paper_table.json", (json.dumps(record, indent=1) + "\n").encode())
    durable.write(results / "paper_table.md", markdown(record).encode())
    draw(record, pictures)
    sheets(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("build/paper-table"), help="folder of the run; an existing one goes on"
    )
    parser.add_argument("--setting", choices=list(SETTINGS), default="quick")
    parser.add_argument(
        "--clip", nargs="*", default=[], metavar="MODEL", help="CLIP or SigLIP of transformers: a folder or hub id"
    )
    parser.add_argument(
        "--open-clip", nargs="*", default=[], metavar="NAME:WEIGHTS", help="OpenCLIP, as its own library names it"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results and docs/figures too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    diffcls.set_num_threads(options.threads)
    setting = SETTINGS[options.setting]
    plan = Plan(setting, options.out, tuple(options.clip), tuple(options.open_clip))
    cells = Cells(options.out, fingerprint(setting))
    with cells.locked():
        answer(plan, cells)
        record = made(plan, cells)
        publish(record, options.out, options.out)
        if options.record:
            publish(record, common.RESULTS, ROOT / "docs" / "figures")
    print(markdown(record))


if __name__ == "__main__":
    main()
