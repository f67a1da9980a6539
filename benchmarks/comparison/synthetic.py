"""The baseline of synthetic data: the diffusion model's own samples, kept in parts, on which a ResNet is trained."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

import diffcls
from diffcls import durable

from .samples import ddim
from .settings import Setting
from .tasks import Labelled


def pictures(setting: Setting, folder: Path) -> Labelled:
    """As many samples of each of the twenty classes as the setting says; classes that are there already are only read.

    Parameters
    ----------
    setting : Setting
    folder : path
        Gets a file a class.
    """
    denoiser = diffcls.load()
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = [], []
    for k in range(denoiser.n_classes):
        path, chosen = folder / f"{k:02d}.npy", np.full(setting.synthetic, k)
        if not path.exists():
            drawn = ddim(denoiser, chosen, n_steps=setting.ddim_steps, seed=1000 * setting.seed + k)[:, 0]
            buffer = io.BytesIO()
            np.save(buffer, drawn)
            durable.write(path, buffer.getvalue())
        images.append(np.load(path))
        labels.append(chosen)
    return Labelled(np.concatenate(images), np.concatenate(labels))
