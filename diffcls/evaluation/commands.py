"""``diffcls evaluate`` and ``diffcls report``."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core_types import LOSSES
from ..datasets.commands import add_options, settle
from ..errors import InputError, OutOfWorldWarning

if TYPE_CHECKING:
    from .report import Report


def add_commands(commands: Any) -> None:
    """To the parsers of the command line."""
    evaluate = commands.add_parser(
        "evaluate",
        help="classify a data set, resumably",
        description=(
            "Classify a data set into the folder OUT.  Killed at any moment, the same command goes on; with --shard several "
            "processes share the work, in one folder.  Prints the report as markdown."
        ),
        epilog=(
            "FOLDER with a folder of pictures for each class: diffcls evaluate FOLDER --out OUT. Where these folders' names are "
            "not the model's classes, --prompts with these names asks for them. The paper's row: "
            "diffcls evaluate pets --data DIR --model FOLDER --protocol paper --out OUT. Later: diffcls report OUT."
        ),
    )
    evaluate.add_argument(
        "dataset",
        metavar="DATASET",
        help="image folder, Parquet, WebDataset tar (files or folders of them), .npz, or a name with --data",
    )
    evaluate.add_argument("--out", required=True, type=Path, help="folder of results")
    evaluate.add_argument(
        "--model", help="embedded model, folder in diffusers' layout or hub id (default: digits-and-clothes)"
    )
    evaluate.add_argument(
        "--prompts", nargs="+", metavar="CLASS", help="classes to choose from (default: all of the model's)"
    )
    evaluate.add_argument("--template", metavar="TEXT", help="prompt of a class, with {} for its name")
    evaluate.add_argument(
        "--policy",
        help="race:risk=0.05, quick, fixed:100, staged:50,500/5,1, paper:NAME (default: the model's own, or race)",
    )
    evaluate.add_argument("--loss", choices=LOSSES, default="l2", help="of a prediction's error (default: %(default)s)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    evaluate.add_argument("--batch-size", type=int, metavar="N", help="rows that the denoiser is asked at once")
    evaluate.add_argument("--device", help="where the model computes, such as cuda:0")
    evaluate.add_argument("--dtype", help="in what the model computes, such as float16")
    evaluate.add_argument(
        "--labels", choices=["own", "index", "none"], default="own",
        help="the data set's labels as they are, as positions in the classes, or not at all (default: %(default)s)",
    )  # fmt: skip
    for role in ("image", "label", "id"):
        evaluate.add_argument(f"--{role}-column", metavar="NAME", help=f"column of Parquet or .npz with the {role}s")
    evaluate.add_argument(
        "--shard", default="0/1", metavar="I/N", help="only images I, I + N, ... (default: %(default)s)"
    )
    evaluate.add_argument(
        "--audit", type=float, default=0.0, metavar="SHARE", help="of the images to run to the full pool too"
    )
    evaluate.add_argument("--strict", action="store_true", help="an image that can not be read stops the run")
    evaluate.add_argument("--retry-errors", action="store_true", help="try images again that had an error")
    evaluate.add_argument("--no-resume", action="store_true", help="OUT must hold nothing yet")
    evaluate.add_argument("--quiet", action="store_true", help="no progress")
    add_options(evaluate)
    _add_output(evaluate)
    evaluate.set_defaults(run=_evaluate)

    report = commands.add_parser(
        "report",
        help="print what an evaluation found",
        description="Merge the shards in OUT where that is not done yet, and print the report as markdown.",
    )
    report.add_argument("out", type=Path, metavar="OUT", help="folder of results")
    report.add_argument("--compare", type=Path, metavar="OTHER", help="another folder, of the same images")
    _add_output(report)
    report.set_defaults(run=_report)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as json")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page too")


def _evaluate(options: argparse.Namespace) -> None:
    from ..classifier import Classifier
    from ..policy_text import parse_policy
    from .run import evaluate

    policy = None if options.policy is None else parse_policy(options.policy)
    if policy is None and options.policy is not None:
        raise InputError("policy is 'full', which only a table of errors has; fixed:N asks every class N times")
    dataset, prompts, published = settle(options)
    classifier = Classifier(
        options.model,
        prompts,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
        **{"policy": policy, "templates": options.template, "loss": options.loss, **published},
    )
    columns = {role: getattr(options, f"{role}_column") for role in ("image", "label", "id")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfWorldWarning)  # each row says it of its own image
            report = evaluate(
                classifier,
                dataset,
                out=options.out,
                labels={"own": None, "index": "index", "none": False}[options.labels],
                resume=not options.no_resume,
                shard=_shard(options.shard),
                columns={role: name for role, name in columns.items() if name is not None},
                audit=options.audit,
                strict=options.strict,
                retry_errors=options.retry_errors,
                progress=False if options.quiet else None,
            )
    except KeyboardInterrupt:
        print(f"diffcls: what is finished stays in {options.out}; the same command goes on", file=sys.stderr)
        raise
    _print(report, options)


def _shard(text: str) -> tuple[int, int]:
    index, slash, n = text.partition("/")
    if not (slash and index.isdecimal() and n.isdecimal() and int(index) < int(n)):
        raise InputError(f"shard is {text!r}, must be I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(n)


def _report(options: argparse.Namespace) -> None:
    reports = [_load(out) for out in (options.out, options.compare) if out is not None]
    if len(reports) == 1:
        _print(reports[0], options)
        return
    comparison = reports[0].compare(reports[1])
    print(json.dumps(comparison.to_dict()) if options.json else comparison)
    _write_html(reports[0], options)


def _load(out: Path) -> Report:
    """Merged first where that is not done, or the table is damaged."""
    from .merging import RESULTS, merge_shards
    from .report import Report

    if (out / RESULTS).exists():
        with suppress(InputError):
            return Report.load(out)
    merge_shards(out)
    return Report.load(out)


def _print(report: Report, options: argparse.Namespace) -> None:
    print(json.dumps(report.to_dict()) if options.json else report.to_markdown())
    _write_html(report, options)


def _write_html(report: Report, options: argparse.Namespace) -> None:
    if options.html is not None:
        options.html.write_text(report.to_html(), encoding="utf-8")
