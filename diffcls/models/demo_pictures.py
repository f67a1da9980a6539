"""The bundled pictures: test pictures that no model here was trained on.  ``python -m diffcls.models.demo_pictures`` makes the file.

24 of MNIST's and 24 of Fashion-MNIST's test sets, drawn by a seeded generator without looking at any answer.
The package's licences (LICENSE-pictures.txt) have their terms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PATH = Path(__file__).with_name("demo.npz")
N_EACH = 24
SEED = 20260101


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (48, 28, 28) uint8 and their class ids (48,) in the embedded model's twenty."""
    with np.load(PATH) as stored:
        return stored["pictures"], stored["labels"]


def main() -> None:
    from . import data

    rng = np.random.default_rng(SEED)
    pictures, labels = [], []
    for family, name in enumerate(data.DATASETS):
        images, truth = data.load(name, train=False)
        chosen = rng.choice(len(truth), N_EACH, replace=False)
        pictures.append(images[chosen])
        labels.append(truth[chosen] + 10 * family)
    np.savez_compressed(PATH, pictures=np.concatenate(pictures), labels=np.concatenate(labels))


if __name__ == "__main__":
    main()
