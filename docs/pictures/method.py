"""The README's picture: `python docs/pictures/method.py` draws method.png beside this file (extra `plot`).

One of the bundled test pictures, noised once; what the embedded model takes it for when it is told each of three classes, and
how far off that is; and the race among all twenty.
"""

from pathlib import Path

import matplotlib
import numpy as np

import diffcls
from diffcls.models import demo_pictures

PICTURE, TOLD, TIMESTEP = 41, ("coat", "pullover", "digit seven"), 400

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def show(ax, image, title, colour="black"):
    ax.imshow(image[0], cmap="gray", vmin=-1.3, vmax=1.3)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=9, color=colour)


def main() -> None:
    classifier = diffcls.Classifier()
    model, schedule = classifier.denoiser, classifier.denoiser.schedule
    picture = demo_pictures.load()[0][PICTURE]
    x_start = classifier.encode(picture).x_start
    eps = diffcls.ops.normal(model.shape, seed=0, index=0, timestep=TIMESTEP)
    x_t = diffcls.ops.add_noise(x_start, schedule.alpha[TIMESTEP], schedule.sigma[TIMESTEP], eps=eps)
    ids = np.array([model.class_names.index(name) for name in TOLD])
    time = model.time_of(np.full(len(ids), schedule.time[TIMESTEP]))
    predicted = model.predict(np.repeat(x_t[None], len(ids), axis=0), time, ids)
    errors = ((predicted - x_start) ** 2).mean(axis=(1, 2, 3))

    figure = plt.figure(figsize=(10, 2.5), layout="constrained", dpi=120)
    pictures, race = figure.subfigures(1, 2, width_ratios=(1.5, 1))
    axes = pictures.subplots(1, 5)
    show(axes[0], x_start, "a picture")
    show(axes[1], x_t, f"noised, t = {TIMESTEP}")
    for ax, name, image, error in zip(axes[2:], TOLD, predicted, errors, strict=True):
        best = error == errors.min()
        show(ax, image, f"told {name!r}", "#0072B2" if best else "black")
        ax.set_xlabel(f"error {error:.3f}", fontsize=9, fontweight="bold" if best else "normal")
    diffcls.plotting.EliminationDisplay.from_estimator(classifier, picture, ax=race.subplots())
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
