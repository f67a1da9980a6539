"""What ``diffcls evaluate NAME --data DIR`` adds to the command line."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..errors import InputError
from .catalogue import Dataset, load, names


def add_options(parser: argparse.ArgumentParser) -> None:
    """To the parser of ``diffcls evaluate``."""
    group = parser.add_argument_group(
        "the paper's data sets",
        f"DATASET may be one of {', '.join(names())}, with --data the folder of its files as their authors give them out.",
    )
    group.add_argument("--data", metavar="DIR", help="folder of the files of a data set that is named")
    group.add_argument("--split", help="of a data set that is named (default: the paper's)")
    group.add_argument(
        "--protocol",
        choices=["paper", "dit"],
        help="policy, loss, template and prompts of the paper's row with Stable Diffusion, or with DiT",
    )
    group.add_argument("--per-class", type=int, metavar="N", help="N images of each class, chosen by the seed")
    group.add_argument("--partial", action="store_true", help="take what is there, though the data set has more")


def settle(options: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """(data set, prompts, options of `Classifier`) that ``--data`` and its companions say; notes go to stderr.

    Raises
    ------
    ValueError
        They contradict each other or the other options.
    """
    if options.data is None:
        for name in ("split", "protocol", "per_class", "partial"):
            if getattr(options, name):
                raise InputError(f"--{name.replace('_', '-')} goes with a named data set and --data DIR, where it is")
        if options.dataset in names():
            raise InputError(f"{options.dataset} needs --data DIR, the folder of its files")
        return options.dataset, options.prompts, {}
    dataset = load(
        options.dataset,
        options.data,
        split=options.split,
        per_class=options.per_class,
        seed=options.seed,
        by_id=options.protocol == "dit",
        partial=options.partial,
    )
    for note in dataset.notes:
        print(f"diffcls: note: {note}", file=sys.stderr)
    if options.protocol is None:
        return dataset.source, options.prompts or dataset.prompts, {}
    _check_protocol(dataset, options)
    return dataset.source, dataset.prompts, dataset.options()


def _check_protocol(dataset: Dataset, options: argparse.Namespace) -> None:
    """
    Raises
    ------
    ValueError
        An option says what the protocol says.
    """
    for name, unsaid in (("policy", None), ("loss", "l2"), ("template", None), ("prompts", None)):
        if getattr(options, name) != unsaid:
            raise InputError(f"--protocol {options.protocol} says the {name}: leave --{name} out")
    if options.protocol == "paper" and dataset.protocol is None:
        raise InputError(f"the paper has no row for {dataset.title}: leave --protocol out")
