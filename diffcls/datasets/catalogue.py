"""The table of data sets, and `load`: from a name and a folder to what `Classifier` and `evaluate` take."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import arguments
from ..audit import choose
from ..errors import DiffclsError, InputError
from ..evaluation.sources import Source
from ..protocols import PublishedProtocol, protocol
from . import binaries, imagenet, photographs
from .files import Listing, Ways, find


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A data set as it is given out.

    `n_images`: of each split, the first is the paper's; None where the count could not be verified.  `needs(split)`: what must
    exist, in one of several ways.  `inner`: folders that its archives make.  `protocol`: the paper's row of policy and loss.
    """

    title: str
    read: Callable[[Path, str], Listing]
    n_classes: int
    n_images: dict[str, int | None]
    needs: Callable[[str], Ways]
    inner: tuple[str, ...]
    home: str
    template: str | None = None
    protocol: str | None = None
    notes: tuple[str, ...] = ()


_KNOWN = {
    "cifar10": _Known(
        title="CIFAR-10",
        read=binaries.cifar10,
        n_classes=10,
        n_images={"test": 10_000, "train": 50_000},
        needs=binaries.cifar10_needs,
        inner=("cifar-10-batches-bin", "cifar-10-batches-py", "cifar10"),
        home="CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html: unpack cifar-10-binary.tar.gz there",
        protocol="cifar10",
        notes=("figures on a JPEG re-encoding are not exactly those on the original",),
    ),
    "stl10": _Known(
        title="STL-10",
        read=binaries.stl10,
        n_classes=10,
        n_images={"test": 8_000, "train": 5_000},
        needs=lambda split: ((f"{split}_X.bin", f"{split}_y.bin", "class_names.txt"),),
        inner=("stl10_binary",),
        home="STL-10 is at https://cs.stanford.edu/~acoates/stl10: unpack stl10_binary.tar.gz there",
        protocol="stl10",
    ),
    "pets": _Known(
        title="Oxford-IIIT Pet",
        read=photographs.pets,
        n_classes=37,
        n_images={"test": 3_669, "trainval": 3_680},
        needs=lambda split: (("images", f"annotations/{split}.txt"),),
        inner=("oxford-iiit-pet",),
        home=(
            "The Oxford-IIIT Pets are at https://www.robots.ox.ac.uk/~vgg/data/pets: unpack images.tar.gz and "
            "annotations.tar.gz there"
        ),
        protocol="pets",
    ),
    "food": _Known(
        title="Food-101",
        read=photographs.food,
        n_classes=101,
        n_images={"test": 25_250, "train": 75_750},
        needs=lambda split: (("images", "meta/classes.txt", f"meta/{split}.txt"),),
        inner=("food-101",),
        home="Food-101 is at https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101: unpack food-101.tar.gz there",
        protocol="food",
    ),
    "aircraft": _Known(
        title="FGVC-Aircraft",
        read=photographs.aircraft,
        n_classes=100,
        n_images={"test": 3_333, "trainval": 6_667},
        needs=lambda split: (("data/images", "data/variants.txt", f"data/images_variant_{split}.txt"),),
        inner=("fgvc-aircraft-2013b",),
        home=(
            "FGVC-Aircraft is at https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft: unpack fgvc-aircraft-2013b.tar.gz there"
        ),
        protocol="aircraft",
    ),
    "flowers": _Known(
        title="Oxford Flowers 102",
        read=photographs.flowers,
        n_classes=102,
        n_images={"test": 6_149, "train": 1_020, "val": 1_020},
        needs=lambda split: (("jpg", "imagelabels.mat", "setid.mat"),),
        inner=("flowers-102",),
        home=(
            "Oxford Flowers 102 is at https://www.robots.ox.ac.uk/~vgg/data/flowers/102: unpack 102flowers.tgz there, beside "
            "imagelabels.mat and setid.mat"
        ),
        protocol="flowers",
        notes=("the files do not name the classes: names are those of the published prompts, which are CLIP's",),
    ),
    "imagenet": _Known(
        title="ImageNet, ILSVRC 2012",
        read=imagenet.validation,
        n_classes=1000,
        n_images={"val": 50_000},
        needs=lambda split: ((split,),),
        inner=("imagenet",),
        home=(
            "ImageNet is at https://www.image-net.org/download.php, for those who register: sort the pictures of "
            "ILSVRC2012_img_val.tar into val/<WordNet id>/"
        ),
        protocol="imagenet",
        notes=(
            "the paper classified 4 pictures a class and does not say which: per_class=4 takes 4 by seed",
            "'missile' and 'sunglasses' are the words of two classes each: no prompt tells them apart, so they are one class, 998 "
            "in all.  In the published runs they tie, and the lower id wins",
        ),
    ),
    "imagenet-v2": _Known(
        title="ImageNet-V2, matched frequency",
        read=imagenet.version_2,
        n_classes=1000,
        n_images={"test": 10_000},
        needs=lambda split: (("0",),),
        inner=("imagenetv2-matched-frequency-format-val",),
        home=(
            "ImageNet-V2 is at https://github.com/modestyachts/ImageNetV2: unpack imagenetv2-matched-frequency.tar.gz there"
        ),
        protocol="imagenet",
        notes=("words as for 'imagenet'",),
    ),
    "imagenet-a": _Known(
        title="ImageNet-A",
        read=imagenet.adversarial,
        n_classes=200,
        n_images={"test": 7_500},
        needs=lambda split: (("n01498041",),),
        inner=("imagenet-a",),
        home="ImageNet-A is at https://github.com/hendrycks/natural-adv-examples: unpack imagenet-a.tar there",
        protocol="imagenet",
        notes=("asked among its own 200 classes; words as for 'imagenet'",),
    ),
    "objectnet": _Known(
        title="ObjectNet, the classes that ImageNet has",
        read=imagenet.objectnet,
        n_classes=113,
        n_images={"test": None},
        needs=lambda split: (
            ("images", "mappings/folder_to_objectnet_label.json", "mappings/objectnet_to_imagenet_1k.json"),
        ),
        inner=("objectnet-1.0",),
        home="ObjectNet is at https://objectnet.dev: unpack objectnet-1.0.zip there",
        protocol="objectnet",
        notes=("how many pictures the 113 classes have is not checked: no count of them was at hand to verify",),
    ),
    "mnist": _Known(
        title="MNIST",
        read=binaries.mnist,
        n_classes=10,
        n_images={"test": 10_000, "train": 60_000},
        needs=binaries.idx_needs,
        inner=("mnist", "MNIST/raw"),
        home="MNIST is the four files train-images-idx3-ubyte.gz, ... of http://yann.lecun.com/exdb/mnist",
        template="a photo of the number: '{}'.",
        notes=("the paper has its template and no stages",),
    ),
    "fashion-mnist": _Known(
        title="Fashion-MNIST",
        read=binaries.fashion_mnist,
        n_classes=10,
        n_images={"test": 10_000, "train": 60_000},
        needs=binaries.idx_needs,
        inner=("fashion-mnist", "FashionMNIST/raw"),
        home="Fashion-MNIST is at https://github.com/zalandoresearch/fashion-mnist; on Debian, dataset-fashion-mnist",
        notes=("not in the paper",),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A split of a data set on this machine: what `Classifier` and `evaluate` take.

    Attributes
    ----------
    name, title, split : str
    source : evaluation.Source
        For `diffcls.evaluate`.
    prompts : dict
        Class, as the data set names it, to its word; or, with `by_id`, to the ImageNet ids that mean it: for `Classifier`.
    by_id : bool
    n_images : int
    n_published : int or None
        What the split has as it is given out.
    protocol : PublishedProtocol or None
        The paper's row with Stable Diffusion.
    template : str or None
        The paper's.
    notes : tuple of str
        What a reader must know before comparing a number with the paper's.
    """

    name: str
    title: str
    split: str
    source: Source = field(repr=False)
    prompts: dict[str, Any] = field(repr=False)
    by_id: bool
    n_images: int
    n_published: int | None
    protocol: PublishedProtocol | None = field(repr=False)
    template: str | None
    notes: tuple[str, ...] = field(repr=False)

    @property
    def classes(self) -> list[str]:
        """(K,) names, in the order of the labels."""
        return list(self.prompts)

    def options(self) -> dict[str, Any]:
        """Options of `Classifier` that make the paper's row: with Stable Diffusion, or with DiT where classes are ids.

        Without a row of its own: the template, where there is one.

        Returns
        -------
        dict
        """
        if self.by_id:
            return protocol("dit").options()
        return {"templates": self.template} if self.protocol is None else self.protocol.options()


def names() -> list[str]:
    """Data sets that `load` knows.

    Returns
    -------
    list of str
    """
    return list(_KNOWN)


def load(
    name: str,
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    per_class: int | None = None,
    seed: int = 0,
    by_id: bool = False,
    partial: bool = False,
) -> Dataset:
    """A data set in the layout that its authors give it out in.

    Parameters
    ----------
    name : str
        One of `names`.
    data : path
        Its folder, or the one in which its archive was unpacked.
    split : str or None
        None: the paper's, "test" or "val".
    per_class : int or None
        Of each class as many images, chosen by Philox words of `seed`; in the data set's order.
    seed : int
    by_id : bool
        Prompts are ImageNet's class ids, for a model that knows these, as DiT does.  Else they are words, and classes with
        one word are one class.
    partial : bool
        Take what is there, though it is fewer than the data set has.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        No such data set or split; files are missing (the message says where they are to be had), or there are fewer classes
        or images than the data set has; `by_id` of one that ImageNet's classes do not name.
    """
    if name not in _KNOWN:
        raise InputError(f"name is {arguments.shown(name)}, must be one of {', '.join(_KNOWN)}")
    known, root = _KNOWN[name], Path(data)
    split = next(iter(known.n_images)) if split is None else split
    if split not in known.n_images:
        raise InputError(f"split is {arguments.shown(split)}, {known.title} has {', '.join(known.n_images)}")
    if not root.is_dir():
        raise InputError(f"data is {str(root)!r}: there is no such folder. {known.home}")
    folder = find(root, known.needs(split), known.inner, known.home)
    try:
        listing = known.read(folder, split)
    except DiffclsError:
        raise
    except (ValueError, TypeError, KeyError, EOFError, OSError) as error:  # what NumPy, SciPy and tarfile say
        raise InputError(f"{folder} can not be read as {known.title} ({type(error).__name__}: {error})") from error
    published = known.n_images[split]
    if not partial:
        _check_counts(known, listing, split, published)
    if not len(listing.entries):
        raise InputError(f"{root} has no image of {known.title}. {known.home}")
    if not by_id:
        listing = _merged(listing)
    elif listing.ids is None:
        raise InputError(f"{known.title} is not asked in ImageNet's class ids: leave by_id out")
    if per_class is not None:
        listing = _some(listing, arguments.integer("per_class", per_class, at_least=1), seed)
    row = None if known.protocol is None else protocol(known.protocol)
    return Dataset(
        name=name,
        title=known.title,
        split=split,
        source=Source(listing.items, len(listing.entries), listing.classes),
        prompts=dict(zip(listing.classes, listing.ids if by_id and listing.ids else listing.words, strict=True)),
        by_id=by_id,
        n_images=len(listing.entries),
        n_published=published,
        protocol=row,
        template=known.template if row is None else row.template,
        notes=(*known.notes, *(() if row is None else row.notes)),
    )


def _check_counts(known: _Known, listing: Listing, split: str, published: int | None) -> None:
    """
    Raises
    ------
    ValueError
        Not as many classes or images as the data set has.
    """
    for what, found, wanted in (
        ("classes", len(listing.classes), known.n_classes),
        ("images", len(listing.entries), published),
    ):
        if wanted is not None and found != wanted:
            raise InputError(
                f"{known.title}, {split}, has {wanted:,} {what}, and here are {found:,}: partial=True, --partial, takes what is there. "
                f"{known.home}"
            )


def _merged(listing: Listing) -> Listing:
    """Classes with one word are one class, named by it: no prompt tells them apart."""
    doubled = {word for word in listing.words if listing.words.count(word) > 1}
    if not doubled:
        return listing
    names = [word if word in doubled else name for name, word in zip(listing.classes, listing.words, strict=True)]
    classes = list(dict.fromkeys(names))
    at = {name: i for i, name in enumerate(classes)}
    words = dict(zip(names, listing.words, strict=True))
    entries = [entry._replace(label=at[names[entry.label]]) for entry in listing.entries]
    return Listing(classes, [words[name] for name in classes], entries)


def _some(listing: Listing, per_class: int, seed: int) -> Listing:
    """`per_class` images of each class, all where it has no more."""
    labels = np.array([entry.label for entry in listing.entries])
    kept: list[int] = []
    for label in range(len(listing.classes)):
        where = np.flatnonzero(labels == label)
        kept += where[choose(len(where), per_class, seed)].tolist()
    entries = [listing.entries[i] for i in sorted(kept)]
    return Listing(listing.classes, listing.words, entries, listing.ids)
