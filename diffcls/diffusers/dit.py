"""DiTTransformer2DModel: class-conditional DiT (Peebles and Xie, 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from .adapter import Adapter, Kwargs


class DiT(Adapter):
    component, pipeline = "DiTTransformer2DModel", "DiTPipeline"
    models = "DiT-XL/2 256 and 512, and original DiT checkpoints"
    predicts = ("epsilon", "v_prediction", "sample", "edm")
    time = "t, whole"
    latents = "scaling"
    conditions = "class number; the null class is not among the classes"
    half = "float16"
    preprocess = "adm"

    @property
    def class_names(self) -> list[str]:
        return names_of(self._words())

    @property
    def synonyms(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]
        return dict(zip(self.class_names, self._words(), strict=True))

    def _words(self) -> list[list[str]]:
        """Of each class: from the index's ``id2label``, else from the pipeline's own ``labels``, which sorts them."""
        n, told = int(self.config["num_embeds_ada_norm"]), self.index.get("id2label")
        if told:
            return class_words(told, n)
        words: list[list[str]] = [[] for _ in range(n)]
        for word, number in (getattr(self.pipe, "labels", None) or {}).items():
            words[int(number)].append(word)
        return words

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"hidden_states": x, "timestep": t, "class_labels": cond}


def class_words(id2label: Mapping[Any, Any] | None, n_classes: int) -> list[list[str]]:
    """Words of each class as ImageNet has them, between commas; none of a class that is not told of.

    Raises
    ------
    ValueError
        It is no mapping from numbers of classes.
    """
    words: list[list[str]] = [[] for _ in range(n_classes)]
    if not isinstance(id2label or {}, Mapping):
        raise InputError(f"id2label is {type(id2label).__name__}, must map numbers of classes to words")
    for number, label in (id2label or {}).items():
        if not str(number).isdecimal() or int(number) >= n_classes:
            raise InputError(f"id2label has the class {number!r}, must be 0 to {n_classes - 1}")
        words[int(number)] = [word.strip() for word in str(label).split(",")]
    return words


def names_of(words: Sequence[Sequence[str]]) -> list[str]:
    """Words of each class between commas, and its number where another has the same or it has none."""
    named = [", ".join(of_class) for of_class in words]
    return [f"{name} ({i})" if name and named.count(name) > 1 else name or str(i) for i, name in enumerate(named)]
