"""`winoground`: text, image and group score (Thrush et al., CVPR 2022) of a diffusion model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.winoground import load_winoground
from ..errors import InputError
from ..intervals import Interval, bootstrap, interval, wilson
from ..models.registry import open_model
from ..policies import Fixed
from .losses import Floats, Matcher, check_options, first_read_alike

if TYPE_CHECKING:
    from ..plotting import WinogroundDisplay

KINDS = ("text", "image", "group")
ALL = "all"
_KEYS = ("caption_0", "caption_1", "image_0", "image_1")


@dataclass(frozen=True, eq=False)
class WinogroundReport:
    """Of N pairs.

    Attributes
    ----------
    losses : (N, 2, 2) float64
        Mean loss of image i under caption c at ``[:, i, c]``.
    unconditional : (N, 2) float64 or None
        Of image i without a text.
    tags : (N,) list of str
        What the captions swap ("Object", "Relation", "Both"), "" where an example does not tell.
    ids : (N,) list of str
    run : dict
    """

    losses: Floats = field(repr=False)
    unconditional: Floats | None = field(repr=False)
    tags: list[str] = field(repr=False)
    ids: list[str] = field(repr=False)
    run: dict[str, Any] = field(repr=False)

    @property
    def n_pairs(self) -> int:
        """Pairs of images and captions, N."""
        return len(self.losses)

    def right(self, *, normalised: bool = False) -> dict[str, NDArray[np.bool_]]:
        """(N,) of each kind: the pair is right.  Ties are wrong.

        With s(c, i) the score of caption c and image i, -l or l(unconditional) - l: text: s(0, 0) > s(1, 0) and s(1, 1) >
        s(0, 1), each image prefers its caption; image: s(0, 0) > s(0, 1) and s(1, 1) > s(1, 0), each caption prefers its
        image; group: both.  Normalising changes the image score only: a text's rivals see one image.

        Parameters
        ----------
        normalised : bool
            By ``l(unconditional) - l`` in place of ``-l``.

        Returns
        -------
        dict of str to (N,) bool
            "text", "image" and "group".

        Raises
        ------
        ValueError
            `normalised`, and there are no unconditional losses.
        """
        s = -self.losses
        if normalised:
            if self.unconditional is None:
                raise InputError(
                    "the losses without a text were not measured: unconditional= names the model's null class"
                )
            s = s + self.unconditional[:, :, None]
        text = (-self.losses[:, 0, 0] > -self.losses[:, 0, 1]) & (-self.losses[:, 1, 1] > -self.losses[:, 1, 0])
        image = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
        return {"text": text, "image": image, "group": text & image}

    def scores(self) -> list[dict[str, Any]]:
        """Scores of each tag and of all pairs, by kind and loss.

        Returns
        -------
        list of dict
            "tag" ("all": every pair), "kind", "normalised", "n", "right", "score", and "low" and "high", the ends of Wilson's 95 %
            interval.
        """
        tags, rows = np.array(self.tags), []
        for tag in [ALL, *sorted(set(self.tags) - {""})]:
            of_tag = np.ones(len(tags), bool) if tag == ALL else tags == tag
            n = int(of_tag.sum())
            for normalised in (False, True) if self.unconditional is not None else (False,):
                for kind, right in self.right(normalised=normalised).items():
                    count = int(right[of_tag].sum())
                    low, high = wilson(count, n)
                    rows.append(
                        {"tag": tag, "kind": kind, "normalised": normalised, "n": n, "right": count, "score": count / n}
                        | {"low": float(low), "high": float(high)}
                    )
        return rows

    def score(self, kind: str, *, normalised: bool = False) -> float:
        """Share of all pairs that are right.

        Parameters
        ----------
        kind : {"text", "image", "group"}
        normalised : bool
            As of `right`.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            No such `kind`, or `normalised`, and there are no unconditional losses.
        """
        if kind not in KINDS:
            raise InputError(f"kind is {kind!r}, must be one of {', '.join(KINDS)}")
        return float(self.right(normalised=normalised)[kind].mean())

    def gain(
        self, kind: str, *, confidence_level: float = 0.95, n_bootstrap: int = 10_000, seed: int = 0
    ) -> tuple[float, Interval]:
        """Normalised minus published score, with the percentile interval of a bootstrap over the pairs.

        Parameters
        ----------
        kind : {"text", "image", "group"}
        confidence_level : float
        n_bootstrap : int
            Resamples.
        seed : int
            Of the resamples.

        Returns
        -------
        gain : float
        (low, high) : pair of float

        Raises
        ------
        ValueError
            No such `kind`, there are no unconditional losses, or an impossible number.
        """
        difference = self.score(kind, normalised=True) - self.score(kind)
        each = self.right(normalised=True)[kind].astype(float) - self.right()[kind]
        values = [float(each[rows].mean()) for rows in bootstrap(self.n_pairs, n_bootstrap, seed)]
        return difference, interval(values, confidence_level)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects.

        Returns
        -------
        dict
        """
        return {"n_pairs": self.n_pairs, "scores": self.scores(), "run": self.run}

    def to_markdown(self) -> str:
        """A table, a row a tag: shares in percent with Wilson's 95 % interval.

        Returns
        -------
        str
        """
        cells: dict[str, list[str]] = {}
        heads = ["tag", "pairs"]
        for row in self.scores():
            of_tag = cells.setdefault(row["tag"], [row["tag"], str(row["n"])])
            of_tag.append(f"{100 * row['score']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})")
            if row["tag"] == ALL:
                heads.append(row["kind"] + (", normalised" if row["normalised"] else ""))
        lines = [heads, ["---"] * len(heads), *cells.values()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def plot(self, ax: Any = None) -> WinogroundDisplay:
        """Bars of all pairs' scores with their intervals, on matplotlib axes `ax` (needs matplotlib).

        Parameters
        ----------
        ax : matplotlib axes or None
            None: a new figure.

        Returns
        -------
        WinogroundDisplay

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from ..plotting import WinogroundDisplay

        return WinogroundDisplay(self).plot(ax=ax)

    def __repr__(self) -> str:
        told = ", ".join(f"{kind} {self.score(kind):.3f}" for kind in KINDS)
        return f"WinogroundReport({self.n_pairs} pairs, {told})"


def winoground(
    model: Any, pairs: Any, *, n_samples: int = 1000, unconditional: Any = None, **options: Any
) -> WinogroundReport:
    """Which caption is whose: of two images and two captions of the same words.

    All four losses of a pair, and the two without a text, are over the same trials: noise is in no image's or text's name.
    The published run (Li et al., ICCV 2023) asked every timestep with L2; its image score is low because images differ in
    how hard they are.  The normalised one takes the loss without a text away (Krojer et al., NeurIPS 2023): see `score`.

    Parameters
    ----------
    model : as `classify` takes it
    pairs : path or iterable of mappings
        A folder with ``examples.jsonl`` and ``images/`` (`diffcls.datasets.load_winoground`), or examples as Hugging Face
        has them: "caption_0", "caption_1", "image_0", "image_1", and where known "collapsed_tag" and "id".
    n_samples : int
        Trials of each image and text.
    unconditional : str, int or None
        As for `score`.
    **options
        Of `Classifier`.

    Returns
    -------
    WinogroundReport

    Raises
    ------
    ValueError
        No pairs, or one lacks a caption or an image, or has one caption twice, also in other words to the tokenizers than to
        us; or as `diffcls.classify`.  Captions of different pairs may be read alike: they never compete.
    TypeError, RuntimeError, ArithmeticError, ImportError
        As `diffcls.classify`.
    """
    examples = load_winoground(pairs) if isinstance(pairs, (str, os.PathLike)) else _check(pairs)
    captions = list(dict.fromkeys(str(example[key]) for example in examples for key in _KEYS[:2]))
    check_options(options)
    denoiser = open_model(model, options.pop("device", None), options.pop("dtype", None))
    read = first_read_alike(denoiser, captions)
    for i, example in enumerate(examples):
        one, other = (str(example[key]) for key in _KEYS[:2])
        if read[one] == read[other]:
            raise InputError(f"pairs[{i}]: captions {one!r} and {other!r} are the same to the model's tokenizers")
    asked_for = list(dict.fromkeys(read.values()))
    at = {caption: asked_for.index(first) for caption, first in read.items()}
    matcher = Matcher(denoiser, asked_for, unconditional, Fixed(n_samples), dict(options))
    asked = [sorted(at[str(example[key])] for key in _KEYS[:2]) for example in examples for _ in range(2)]
    found = matcher.errors((example[key] for example in examples for key in _KEYS[2:]), asked)
    losses = np.stack([own.mean(axis=1) for own, _ in found]).reshape(-1, 2, 2)
    backwards = np.array([at[str(example["caption_0"])] > at[str(example["caption_1"])] for example in examples])
    losses[backwards] = losses[backwards][:, :, ::-1]
    prior = [float(without.mean()) for _, without in found if without is not None]
    return WinogroundReport(
        losses=losses,
        unconditional=np.array(prior).reshape(-1, 2) if prior else None,
        tags=[str(example.get("collapsed_tag") or "") for example in examples],
        ids=[str(example.get("id", i)) for i, example in enumerate(examples)],
        run=matcher.classifier.run,
    )


def _check(pairs: Iterable[Any]) -> list[Mapping[str, Any]]:
    examples = list(pairs)
    if not examples:
        raise InputError("pairs is empty, must have one example or more")
    for i, example in enumerate(examples):
        missing = [key for key in _KEYS if not isinstance(example, Mapping) or key not in example]
        if missing:
            raise InputError(f"pairs[{i}] has no {', '.join(missing)}")
        if example["caption_0"] == example["caption_1"]:
            raise InputError(f"pairs[{i}] has the caption {example['caption_0']!r} twice")
    return examples
