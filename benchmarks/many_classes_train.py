"""Train one DiT for 20, 100 and 1000 classes: ``python benchmarks/many_classes_train.py --out RUN --compile``.

It goes on from the embedded model (`digits-and-clothes`) and has the same shape and the same two phases
(`diffcls.models.train`), but its class embedding is a sum of three learned tables: the object's, the view's and the mark's
(`many_classes.py`).  About 20 minutes of one core; a killed run resumes from its last checkpoint.  At the end it writes
RUN/many-classes.json and .safetensors, a plain DiT whose table of 1000 classes is that sum: ``DIFFCLS_MODELS=RUN`` finds
it, and its first 20 or 100 classes are the smaller questions.  Only pictures that the embedded model was trained on are
fitted; the weighting over timesteps is fitted on the last training pictures, which are held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import many_classes
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import diffcls
from diffcls import durable
from diffcls.models import registry, train
from diffcls.models.export import as_json, fit_weighting

N_OBJECT_NEGATIVES = 2
"""Wrong classes a picture that differ in the object alone; one more differs in the view or the mark."""


class SummedEmbedder(nn.Module):
    """A class is the sum of its object's, its view's and its mark's vectors."""

    def __init__(self, objects: nn.Embedding) -> None:
        super().__init__()
        self.objects = objects
        self.views = nn.Embedding(len(many_classes.VIEWS), objects.embedding_dim)
        self.marks = nn.Embedding(len(many_classes.MARKS), objects.embedding_dim)
        for added in (self.views, self.marks):
            nn.init.normal_(added.weight, std=0.02)

    def forward(self, classes: Tensor) -> Tensor:
        n_views, n_objects = many_classes.SHAPE[1:]
        others = classes // n_objects
        return self.objects(classes % n_objects) + self.views(others % n_views) + self.marks(others // n_views)


class Batches(train.Batches):
    """Prepared pictures, each in a view and with a mark drawn at random."""

    def take(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        x_start, objects = super().take(step, size)
        n_marks, n_views, _ = many_classes.SHAPE
        rng = np.random.default_rng((self.seed, step, 1))
        views, marks = rng.integers(n_views, size=size), rng.integers(n_marks, size=size)
        pictures = [many_classes.seen(x, v, m) for x, v, m in zip(x_start.numpy(), views, marks, strict=True)]
        classes = np.ravel_multi_index((marks, views, objects.numpy()), many_classes.SHAPE)
        return torch.from_numpy(np.stack(pictures)), torch.from_numpy(classes)

    def _seen(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return train.prepare(picture.astype(np.float32) / 255.0)[0]


class Trainer(train.Trainer):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        start = load_file(Path(registry.__file__).with_name(f"{registry.DEFAULT}.safetensors"))
        for model in (self.model, self.ema):
            model.load_state_dict(start)
            model.y_embedder = SummedEmbedder(model.y_embedder.embedding_table)
        self.ema.load_state_dict(self.model.state_dict())
        added = [self.model.y_embedder.views.weight, self.model.y_embedder.marks.weight]
        self.optimizer.add_param_group({"params": added})
        self.log_gain.data.fill_(np.log(100.0))  # the embedded model's ended at 26 to 245

    def negatives(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3) wrong classes: confusable objects in the same view with the same mark, then another view or mark."""
        n_marks, n_views, n_objects = many_classes.SHAPE
        objects, others = labels % n_objects, labels // n_objects
        weights = self.confusion[objects].scatter(1, objects[:, None], 0.0)
        wrong = torch.multinomial(weights, N_OBJECT_NEGATIVES, generator=generator)
        views, marks = others % n_views, others // n_views
        turn_view = torch.rand(len(labels), generator=generator) < 0.5
        other_view = (views + torch.randint(1, n_views, views.shape, generator=generator)) % n_views
        other_mark = (marks + torch.randint(1, n_marks, marks.shape, generator=generator)) % n_marks
        last = (
            torch.where(turn_view, marks, other_mark) * n_views + torch.where(turn_view, other_view, views)
        ) * n_objects
        return torch.cat([wrong + others[:, None] * n_objects, (last + objects)[:, None]], dim=1)

    def learn_confusion(self, labels: Tensor, negatives: Tensor, probability: Tensor) -> None:
        """Of objects alone."""
        labels, negatives = (classes[:, :N_OBJECT_NEGATIVES] % many_classes.SHAPE[2] for classes in (labels, negatives))
        super().learn_confusion(labels, negatives, probability[:, :N_OBJECT_NEGATIVES])


def export(run: Path) -> None:
    """The averaged weights as one plain DiT of 1000 classes, with the weighting that held-out training pictures say."""
    ema = torch.load(run / "checkpoint.pt", weights_only=True)["ema"]
    tables = [ema.pop(f"y_embedder.{name}.weight").float() for name in ("marks", "views", "objects")]
    summed = tables[0][:, None, None] + tables[1][:, None] + tables[2]
    ema["y_embedder.embedding_table.weight"] = summed.reshape(-1, summed.shape[-1])
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in ema.items()}
    save_file(weights, run / f"{many_classes.NAME}.safetensors")
    n_classes = len(weights["y_embedder.embedding_table.weight"])
    description = {
        "name": many_classes.NAME,
        "licence": "Apache-2.0",
        "classes": many_classes.names(n_classes),
        "dit": train.Config(num_classes=n_classes).to_dict(),
        "schedule": {"kind": "squaredcos_cap_v2", "n": train.N_TIMESTEPS},
        "prediction_type": "sample",
    }
    path = run / f"{many_classes.NAME}.json"
    durable.write(path, as_json(description).encode())
    pictures, labels = many_classes.pictures(60, 100, train=True)
    model = registry.EmbeddedModel(path, prepare=False)
    few = diffcls.Classifier(model, list(model.class_names[:100]), weighting="uniform", progress=True)
    table = few.error_table(pictures, n_samples=32)
    description["weighting"] = {
        "timesteps": train.KNOTS.tolist(),
        "weights": fit_weighting(table, labels).round(4).tolist(),
    }
    durable.write(path, as_json(description).encode())


def main() -> None:
    options = train.parse_options(__doc__.splitlines()[0], generative_steps=1500, discriminative_steps=2400, lr=1.5e-3)
    train.train(options, Trainer(options), Batches(*train.training_pictures(), options.seed))
    export(Path(options.out))


if __name__ == "__main__":
    main()
