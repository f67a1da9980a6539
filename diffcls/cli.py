"""The command line: ``diffcls classify | evaluate | report | replay | models | info | demo | completion``.  Exit codes: 0 done, 1 a user's mistake, 2 wrong usage."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import DiffclsError, InputError, OutOfWorldWarning
from .evaluation.commands import add_commands
from .packages import package

if TYPE_CHECKING:
    from .tables import ErrorTable


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; prints to stdout, mistakes in one line to stderr."""
    options = _parse(arguments)
    try:
        code = int(options.run(options) or 0)
        sys.stdout.flush()  # a reader that left is told of here, not when the interpreter ends
        return code
    except BrokenPipeError:  # `| head` has what it wanted: as every other command, silent
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (DiffclsError, OSError) as error:
        print(f"diffcls: {_told(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("diffcls: interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Without a command: the help; a word too many: the usage of its command."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if options.command is None:
        parser.exit(2, parser.format_help())
    if unknown:
        options.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _told(error: Exception) -> str:
    """As every other command says it: the file, then what is wrong with it."""
    if isinstance(error, DiffclsError) or not isinstance(error, OSError) or error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror or 'can not be used'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffcls",
        description="Classify pictures with a conditional diffusion model (Li et al., ICCV 2023).",
        epilog="First: diffcls demo. Then: diffcls classify boot.png --prompts 'ankle boot' sandal. Each command has its own --help.",
    )
    parser.add_argument("--version", action="version", version=f"diffcls {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")

    classify = commands.add_parser(
        "classify",
        help="classify pictures",
        description="Classify pictures: for each one line with its best classes, their probabilities and what it cost.",
        epilog=(
            "Pictures come before --prompts: diffcls classify boot.png --prompts 'ankle boot' sandal. The embedded model knows "
            "handwritten digits and clothes (diffcls models lists them); other classes need a text-to-image model: "
            "diffcls classify cat.png --prompts 'a photo of a cat' 'a photo of a dog' --model FOLDER."
        ),
    )
    classify.add_argument("images", nargs="*", metavar="IMAGE", help="picture files")
    classify.add_argument(
        "--prompts", nargs="+", metavar="CLASS", help="classes to choose from (default: all of the model's)"
    )
    classify.add_argument(
        "--model",
        help="embedded model, folder in diffusers' layout or hub id (the last two: extra diffusers; default: %(default)s)",
        default="digits-and-clothes",
    )
    classify.add_argument("--risk", type=float, help="level of the race's test (default: 0.02, if the model has none)")
    classify.add_argument("--full", type=_at_least_one, metavar="N", help="no race: every class at N trials")
    classify.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    classify.add_argument(
        "--top", type=_at_least_one, default=3, metavar="K", help="classes to print (default: %(default)s)"
    )
    classify.add_argument("--json", action="store_true", help="print everything as json")
    classify.set_defaults(run=_classify)

    add_commands(commands)

    replay = commands.add_parser(
        "replay",
        help="decide again from an error table",
        description="What policies would have decided, from the errors in TABLE (ErrorTable.save); no model is asked.",
        epilog=(
            "Policies: race with options as name=value (race:risk=0.05,n_min=4,caps=25:20/75:10; caps=none), fixed:N, "
            "staged:N1,N2/KEEP1,KEEP2 (with /published at the end on the published grids), paper:NAME, full (every trial). A race's pool must be the table's: race:pool=N. "
            "Columns: accuracy and agreement with the full pool in percent with 95 % intervals, evaluations of an image, and "
            "how many times fewer they are than the full pool's. A policy that the table can not give is named at the end, and "
            "the exit code is 1."
        ),
    )
    replay.add_argument("table", metavar="TABLE", help="file of an error table")
    replay.add_argument(
        "--policy", nargs="+", metavar="POLICY", default=["race"], help="one or several, see below (default: race)"
    )
    replay.add_argument(
        "--uniform", action="store_true", help="every timestep weighs the same, whatever the table's run had"
    )
    replay.add_argument("--json", action="store_true", help="print as json, shares as fractions")
    replay.set_defaults(run=_replay)

    models = commands.add_parser("models", help="list embedded models", description="List embedded models.")
    models.add_argument("--json", action="store_true", help="print as json")
    models.set_defaults(run=_models)

    info = commands.add_parser(
        "info",
        help="versions and machine, for a bug report",
        description="Versions, machine, what of it is used, CUDA or why not, and which extras are installed: for a bug report.",
    )
    info.add_argument("--json", action="store_true", help="print as json")
    info.set_defaults(run=_info)

    demo = commands.add_parser(
        "demo",
        help="classify the bundled pictures",
        description=(
            "Classify the 48 bundled pictures, print a table, write a contact sheet (needs the extra plot). With --web: a page "
            "in the browser to try own pictures on (needs the extra web)."
        ),
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo.png"), help="contact sheet to write (default: %(default)s)"
    )
    demo.add_argument("--json", action="store_true", help="print the figures as json after the table")
    demo.add_argument("--web", action="store_true", help="serve a page to this machine's browser, until Ctrl-C")
    demo.add_argument("--port", type=int, metavar="N", help="with --web: where; 0: any that is free (default: 8320)")
    demo.add_argument("--no-browser", action="store_true", help="with --web: do not open the page")
    demo.set_defaults(run=_demo, usage_error=demo.error)

    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="Print a script that completes commands and options in a shell (needs the extra completion).",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # a command that is broken at a hyphen can not be copied
        epilog="bash:  diffcls completion bash > ~/.local/share/bash-completion/completions/diffcls\n"
        "zsh:   into a folder of $fpath, as _diffcls",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="whose script")
    completion.set_defaults(run=_completion)
    for command in commands.choices.values():
        command.set_defaults(usage_error=command.error)
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of 1 or more")
    return int(text)


def _classify(options: argparse.Namespace) -> None:
    from .classifier import Classifier
    from .models.registry import load
    from .policies import Fixed, Race
    from .results import Results

    if not options.images:  # a list of classes takes all words that follow
        options.usage_error("no IMAGE was given; pictures come before --prompts")
    model = load(options.model)
    policy = model.policy
    if options.full is not None:
        policy = Fixed(options.full)
    elif options.risk is not None:
        policy = replace(policy if isinstance(policy, Race) else Race(), risk=options.risk)
    classifier = Classifier(model, options.prompts, policy=policy, seed=options.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfWorldWarning)  # printed below, with the picture's name
        results = classifier(options.images)  # not one by one: long work shows a bar
    assert isinstance(results, Results)
    if options.json:
        print(
            json.dumps(
                [{"image": name, **_plain(r.to_dict())} for name, r in zip(options.images, results, strict=True)]
            )
        )
        return
    for name, result in zip(options.images, results, strict=True):
        best = ", ".join(f"{entry['label']} {entry['score']:.3f}" for entry in result.to_list(options.top))
        print(f"{name}: {best}  ({result.n_evals} evaluations, {result.status})")
        for warning in result.warnings:
            print(f"{name}: {warning}", file=sys.stderr)


def _replay(options: argparse.Namespace) -> int:
    """Rows of the policies that the table can give; then a sentence for each that it can not."""
    from .ablation import each_policy
    from .policy_text import parse_policy
    from .tables import ErrorTable

    policies = {text: parse_policy(text) for text in options.policy}
    table = ErrorTable.load(options.table)
    told = dict(each_policy(table, policies, weighting="uniform" if options.uniform else None))
    rows = [row for row in told.values() if not isinstance(row, InputError)]
    refused = {text: str(error) for text, error in told.items() if isinstance(error, InputError)}
    if options.json:
        print(json.dumps(_plain({"table": options.table, "classes": table.classes, "rows": rows, "refused": refused})))
    elif rows:
        _print_rows(options.table, table, rows)
    for text, sentence in refused.items():
        print(f"diffcls: policy {text!r}: {sentence}", file=sys.stderr)
    return 1 if refused else 0


def _print_rows(name: str, table: ErrorTable, rows: list[dict[str, Any]]) -> None:
    n, k, s = table.errors.shape
    print(f"{name}: {n} images, {k} classes, {s} trials, {'no labels' if table.labels is None else 'labelled'}")
    width = max(6, *(len(row["policy"]) for row in rows))
    print(f"{'policy':{width}}  {'accuracy':>21}  {'agreement':>21}  {'evals':>9}  {'95th pct':>9}  {'factor':>7}")
    for row in rows:
        print(
            f"{row['policy']:{width}}  {_percent(row, 'accuracy'):>21}  {_percent(row, 'agreement'):>21}  "
            f"{row['evals_mean']:9.1f}  {row['evals_p95']:9.0f}  {row['factor']:6.1f}x"
        )


def _percent(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    share, low, high = (100 * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{share:.2f} ({low:.2f}-{high:.2f})"


def _plain(value: Any) -> Any:
    """NaN is no json: null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def _models(options: argparse.Namespace) -> None:
    from .models.registry import list_models

    found = list_models()
    if options.json:
        print(json.dumps(found))
        return
    for entry in found:
        print(f"{entry['name']}  ({entry['licence']}, {entry['bytes'] / 1e6:.1f} MB)")
        kind = "classes" if entry["classes"] else "words"
        print(f"  {kind}: {', '.join(entry[kind])}")
        for question, share in entry["accuracy"].items():
            print(f"  accuracy, {question}: {share:.2%}")


def _info(options: argparse.Namespace) -> None:
    from .info import collect, lines

    facts = collect()
    print(json.dumps(facts) if options.json else "\n".join(lines(facts)))


def _completion(options: argparse.Namespace) -> None:
    shtab = package("shtab", "completion needs shtab", "completion")
    print(shtab.complete(_parser(), options.shell))


def _demo(options: argparse.Namespace) -> None:
    if options.web:
        _serve(options)
        return
    if options.port is not None or options.no_browser:
        options.usage_error("--port and --no-browser go with --web")
    from .demo import run

    figures = run(options.out)
    if options.json:
        print(json.dumps(figures))


def _serve(options: argparse.Namespace) -> None:
    for name in ("PIL", "starlette", "uvicorn"):
        package(name, f"diffcls demo --web needs {name}", "web")
    from .web.server import PORT, serve

    serve(PORT if options.port is None else options.port, browser=not options.no_browser)
