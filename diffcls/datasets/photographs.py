"""Readers of data sets that come as picture files with lists beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingExtraError
from .files import Entry, Listing, lines, packaged, picture

# ---- Oxford-IIIT Pet -------------------------------------------------------------------------------------------------

_SPECIES = {"1": "cat", "2": "dog"}


def pets(root: Path, split: str) -> Listing:
    """``images/Abyssinian_201.jpg``; ``annotations/test.txt`` has a line an image: name, class from 1, species, breed.

    A word is the breed in capitals with its species; the published prompt of American Bulldogs has no species.
    """
    words: dict[int, tuple[str, str]] = {}
    entries = []
    for line in lines(root / "annotations" / f"{split}.txt"):
        name, number, species, *_ = [*line.split(), "", ""]
        if not number.isdigit() or species not in _SPECIES:
            raise InputError(f"annotations/{split}.txt has the line {line!r}, must have name, class, species 1 or 2")
        breed = name.rpartition("_")[0]
        word = breed.replace("_", " ").title()
        if word != "American Bulldog":
            word = f"{word} {_SPECIES[species]}"
        words[int(number)] = breed, word
        entries.append((f"images/{name}.jpg", int(number)))
    at = {number: i for i, number in enumerate(sorted(words))}
    return Listing(
        [words[number][0] for number in at],
        [words[number][1] for number in at],
        [Entry(name, at[number], picture(root, name)) for name, number in entries],
    )


# ---- Food-101 --------------------------------------------------------------------------------------------------------


def food(root: Path, split: str) -> Listing:
    """``images/apple_pie/1011328.jpg``; ``meta/test.txt`` has ``apple_pie/1011328`` a line, ``meta/classes.txt`` the classes."""
    classes = lines(root / "meta" / "classes.txt")
    at = {name: i for i, name in enumerate(classes)}
    entries = []
    for line in lines(root / "meta" / f"{split}.txt"):
        name = f"images/{line}.jpg"
        entries.append(Entry(name, _known(at, line.partition("/")[0], "meta/classes.txt"), picture(root, name)))
    return Listing(classes, [name.replace("_", " ") for name in classes], entries)


# ---- FGVC-Aircraft ---------------------------------------------------------------------------------------------------


def aircraft(root: Path, split: str) -> Listing:
    """``data/images/0034309.jpg``; ``data/images_variant_test.txt`` has ``1514522 707-320`` a line, ``data/variants.txt`` the classes."""
    classes = lines(root / "data" / "variants.txt")
    at = {name: i for i, name in enumerate(classes)}
    entries = []
    for line in lines(root / "data" / f"images_variant_{split}.txt"):
        number, _, variant = line.partition(" ")
        name = f"data/images/{number}.jpg"
        entries.append(Entry(name, _known(at, variant, "data/variants.txt"), picture(root, name)))
    return Listing(classes, classes, entries)


# ---- Oxford Flowers 102 ----------------------------------------------------------------------------------------------

_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def flowers(root: Path, split: str) -> Listing:
    """``jpg/image_00001.jpg``; ``imagelabels.mat`` has classes from 1, ``setid.mat`` the splits.

    The files do not name the classes.  Names are those of the published prompts, which are those of CLIP's
    (Radford et al., 2021, MIT licence).
    """
    classes = packaged("flowers.txt")
    labels = _matrix(root / "imagelabels.mat", "labels")
    entries = []
    for number in _matrix(root / "setid.mat", _SPLITS[split]):
        name = f"jpg/image_{number:05d}.jpg"
        if not (0 < number <= len(labels) and 0 < labels[number - 1] <= len(classes)):
            raise InputError(f"{root / 'imagelabels.mat'} has no class from 1 to {len(classes)} for image {number}")
        entries.append(Entry(name, labels[number - 1] - 1, picture(root, name)))
    return Listing(classes, classes, entries)


def _matrix(path: Path, name: str) -> list[int]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise MissingExtraError(f"{path} needs SciPy: pip install 'diffcls[sklearn]'") from None
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
    except MatReadError as error:
        raise InputError(f"{path} can not be read ({error})") from None
    if name not in content:
        raise InputError(f"{path} has no {name}, it has {', '.join(key for key in content if key[0] != '_')}")
    return [int(value) for value in np.ravel(content[name])]


def _known(at: dict[str, int], name: str, where: str) -> int:
    """
    Raises
    ------
    ValueError
        A list names a class that the list of classes does not.
    """
    if name not in at:
        raise InputError(f"a list names class {name!r}, which {where} does not")
    return at[name]
