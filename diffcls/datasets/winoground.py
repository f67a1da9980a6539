"""Winoground (Thrush et al., CVPR 2022): two pictures and two captions of the same words an example."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from .files import find, lines

N_EXAMPLES = 400
TAGS = ("Object", "Relation", "Both")
"""Of an example: what the captions swap.  The published table has a row for each, and one for all."""

_KEYS = ("id", "caption_0", "caption_1", "image_0", "image_1", "collapsed_tag")
_HOME = (
    "Winoground is facebook/winoground on Hugging Face, for those who accept its licence: put data/examples.jsonl there and "
    "unpack data/images.zip beside it"
)


def load_winoground(data: str | os.PathLike[str], *, partial: bool = False) -> list[dict[str, Any]]:
    """``examples.jsonl`` and ``images/ex_0_img_0.png``: the examples as Hugging Face gives them, pictures as paths.

    The captions are the prompts, as they are.  The published run asked every timestep with L2, one noise for all:
    ``Fixed(1000)``.

    Parameters
    ----------
    data : path
        The folder with ``examples.jsonl`` and ``images``, or one that holds it as "winoground" or "data".
    partial : bool
        Take what is there, though it is fewer than 400 examples.

    Returns
    -------
    list of dict
        Of each: "id", "caption_0", "caption_1", "image_0", "image_1", "collapsed_tag" (one of `TAGS`).

    Raises
    ------
    ValueError
        Files are missing or damaged, or there are fewer than 400 examples and not `partial`.
    """
    root = find(Path(data), (("examples.jsonl", "images"),), ("winoground", "data"), _HOME)
    examples = [_example(root, i, line) for i, line in enumerate(lines(root / "examples.jsonl"), 1)]
    if not examples or (len(examples) != N_EXAMPLES and not partial):
        raise InputError(
            f"Winoground has {N_EXAMPLES} examples, and {root / 'examples.jsonl'} has {len(examples)}: partial=True takes "
            f"what is there. {_HOME}"
        )
    return examples


def _example(root: Path, number: int, line: str) -> dict[str, Any]:
    where = f"{root / 'examples.jsonl'}, line {number},"
    try:
        content = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} can not be read as json ({error})") from None
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"{where} has no {', '.join(missing)}")
    if content["collapsed_tag"] not in TAGS:
        raise InputError(f"{where} has collapsed_tag {content['collapsed_tag']!r}, must be one of {', '.join(TAGS)}")
    example = {key: content[key] for key in _KEYS}
    for key in ("image_0", "image_1"):
        path = root / "images" / f"{content[key]}.png"
        if not path.is_file():
            raise InputError(f"{where} names {key} {content[key]!r}, and there is no {path}")
        example[key] = str(path)
    return example
