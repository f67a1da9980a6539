"""DiTTransformer2DModel: class-conditional DiT (Peebles and Xie, 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
        """Words of each class between commas, as ImageNet has them, and its number where another has the same or it has
        none."""
        named = [", ".join(words) for words in self._words()]
        return [f"{name} ({i})" if name and named.count(name) > 1 else name or str(i) for i, name in enumerate(named)]

    @property
    def synonyms(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]
        return dict(zip(self.class_names, self._words(), strict=True))

    def _words(self) -> list[list[str]]:
        """Of each class: from the index's ``id2label``, else from the pipeline's own ``labels``, which sorts them."""
        words: list[list[str]] = [[] for _ in range(int(self.config["num_embeds_ada_norm"]))]
        told = self.index.get("id2label")
        if told:
            for number, label in told.items():
                words[int(number)] = [word.strip() for word in str(label).split(",")]
        else:
            for word, number in (getattr(self.pipe, "labels", None) or {}).items():
                words[int(number)].append(word)
        return words

    def arguments(self, x: Any, t: Any, cond: Any) -> Kwargs:
        return {"hidden_states": x, "timestep": t, "class_labels": cond}
