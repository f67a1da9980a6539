"""ImageNet and the sets that ask its classes: V2, A, ObjectNet.

Words are OpenAI's cleaned names, as the published prompts have them (Radford et al., 2021, MIT licence), in the order of the
classes, which is that of the sorted WordNet ids.  Two of the words belong to two classes each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..images import decode
from .files import Entry, Listing, folders_in, packaged, picture, pictures_in


@cache
def wordnet() -> dict[str, tuple[int, str]]:
    """WordNet id to (class id, word), in the order of the class ids."""
    rows = (line.split("\t") for line in packaged("imagenet.tsv"))
    return {wnid: (i, word) for i, (wnid, word) in enumerate(rows)}


def validation(root: Path, split: str) -> Listing:
    """``val/n01440764/ILSVRC2012_val_00000293.JPEG``: one folder a class, named by its WordNet id."""
    return _by_wordnet(root, f"{split}/", all_classes=True)


def adversarial(root: Path, split: str) -> Listing:
    """ImageNet-A: ``n01498041/....jpg``; its classes are those that have a folder."""
    return _by_wordnet(root, "", all_classes=False)


def version_2(root: Path, split: str) -> Listing:
    """ImageNet-V2: ``0/....jpeg`` to ``999/``: one folder a class, named by its class id."""
    found = []
    for folder in sorted((name for name in folders_in(root) if name.isdigit()), key=int):
        if int(folder) >= len(wordnet()):
            raise InputError(f"{root} has folder {folder}, classes are 0 to {len(wordnet()) - 1}")
        found += [(f"{folder}/{name}", int(folder)) for name in pictures_in(root / folder)]
    return _listing(root, found, list(range(len(wordnet()))))


def _by_wordnet(root: Path, prefix: str, *, all_classes: bool) -> Listing:
    found, known = [], wordnet()
    for folder in folders_in(root / prefix):
        if folder not in known:
            raise InputError(f"{root / prefix} has folder {folder!r}, which is no WordNet id of ImageNet's classes")
        found += [(f"{prefix}{folder}/{name}", known[folder][0]) for name in pictures_in(root / prefix / folder)]
    asked = list(range(len(known))) if all_classes else sorted({class_id for _, class_id in found})
    return _listing(root, found, asked)


def _listing(root: Path, found: Sequence[tuple[str, int]], asked: Sequence[int]) -> Listing:
    """Of images with class ids.  A class is named by its word; one of two with the same word by its WordNet id too."""
    rows = list(wordnet().items())
    words = [word for _, (_, word) in rows]
    names = [word if words.count(word) == 1 else f"{word} ({wnid})" for wnid, (_, word) in rows]
    at = {class_id: i for i, class_id in enumerate(asked)}
    return Listing(
        [names[class_id] for class_id in asked],
        [words[class_id] for class_id in asked],
        [Entry(name, at[class_id], picture(root, name)) for name, class_id in found],
        [[class_id] for class_id in asked],
    )


# ---- ObjectNet -------------------------------------------------------------------------------------------------------


def objectnet(root: Path, split: str) -> Listing:
    """``images/alarm_clock/....png``; ``mappings/`` says what a folder is called and which ImageNet classes it is.

    Only the classes that ImageNet has too; a border of two pixels is cut off.  A word is the file's own label in small letters.
    """
    mappings = root / "mappings"
    label_of = _json(mappings / "folder_to_objectnet_label.json")
    in_imagenet = _json(mappings / "objectnet_to_imagenet_1k.json")
    classes = sorted(folder for folder, label in label_of.items() if label in in_imagenet)
    entries = [
        Entry(f"images/{folder}/{name}", i, _without_border(root, f"images/{folder}/{name}"))
        for i, folder in enumerate(classes)
        if (root / "images" / folder).is_dir()
        for name in pictures_in(root / "images" / folder)
    ]
    words = [str(label_of[folder]).lower() for folder in classes]
    return Listing(classes, words, entries, _imagenet_ids(mappings, [in_imagenet[label_of[name]] for name in classes]))


def _without_border(root: Path, name: str) -> Callable[[], Any]:
    return partial(_crop, root, name)


def _crop(root: Path, name: str) -> Any:
    whole = decode(root / name, name)
    width, height = whole.size
    return whole.crop((2, 2, width - 2, height - 2))


def _imagenet_ids(mappings: Path, listed: Sequence[str]) -> list[list[int]] | None:
    """Of each entry, ImageNet names separated by "; ", the ids; None without the two files that tell them."""
    names, numbers = mappings / "imagenet_to_label_2012_v2", mappings / "pytorch_to_imagenet_2012_id.json"
    if not names.exists() or not numbers.exists():
        return None
    class_of_line = {int(line): int(class_id) for class_id, line in _json(numbers).items()}
    at = {name.strip(): class_of_line[i] for i, name in enumerate(names.read_text().splitlines()) if i in class_of_line}
    missing = [name for entry in listed for name in entry.split("; ") if name not in at]
    if missing:
        raise InputError(f"{names} does not have {missing[0]!r}, which objectnet_to_imagenet_1k.json names")
    return [[at[name] for name in entry.split("; ")] for entry in listed]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} can not be read as json ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is a {type(content).__name__}, must be a json object")
    return content
