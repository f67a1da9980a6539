"""How much of everything a table is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes of a run; a table is of one setting.

    Attributes
    ----------
    name : str
    bundled : bool
        Pictures are the 48 of the package, half of them for training: for tests of the machinery, its figures mean nothing.
        False: MNIST and Fashion-MNIST.
    seed : int
    n_test : int
        Test pictures of each data set, and of each of its shifts.
    shifts : tuple of str
        Of `shifts.SHIFTS`.
    n_shapes, n_kinds : int
        Pictures of `shapes` for each question with two captions, and for each with one thing among many.
    steps, batch : int
        Of every network's training: all see as many pictures, whatever their number of different ones.
    width : int
        Of the ResNet that is compared with the others: channels of its first stage, the last has eight times as many.
    other_widths, other_sizes : tuple of int
        ResNets beside it: of other widths, and trained on so many pictures only.
    vit_width, vit_depth : int
    synthetic : int
        Samples of each class.
    ddim_steps : int
    probe_training, probe_validation : int
        Pictures of each data set that the probe is fitted to, and that its layer and timestep are chosen on.
    probe_timesteps : tuple of int
    fixed : tuple of int
        Numbers of trials of the policies without elimination.
    stages : str
        A row of the paper, whose stages are run.
    contrastive_steps, contrastive_batch : int
        Of the small contrastive model on ``shapes``.
    """

    name: str
    bundled: bool = False
    seed: int = 0
    n_test: int
    shifts: tuple[str, ...]
    n_shapes: int
    n_kinds: int
    steps: int
    batch: int = 128
    width: int = 16
    other_widths: tuple[int, ...]
    other_sizes: tuple[int, ...]
    vit_width: int = 96
    vit_depth: int = 4
    synthetic: int
    ddim_steps: int
    probe_training: int
    probe_validation: int
    probe_timesteps: tuple[int, ...]
    fixed: tuple[int, ...]
    stages: str = "cifar10"
    contrastive_steps: int
    contrastive_batch: int = 128

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


SHIFTS = ("shot noise", "impulse noise", "blur", "rotation", "shear", "edges")

SMALL = Setting(
    name="small", bundled=True, n_test=6, shifts=("impulse noise", "optical digits"), n_shapes=4, n_kinds=3, steps=6, batch=16,
    width=8, other_widths=(4,), other_sizes=(12,), vit_width=32, vit_depth=1, synthetic=2, ddim_steps=3, probe_training=12,
    probe_validation=12, probe_timesteps=(50, 400), fixed=(1, 2), stages="pets", contrastive_steps=2, contrastive_batch=4,
)  # fmt: skip
QUICK = Setting(
    name="quick", n_test=200, shifts=(*SHIFTS, "optical digits"), n_shapes=200, n_kinds=100, steps=400, other_widths=(32,),
    other_sizes=(200, 5000), synthetic=200, ddim_steps=25, probe_training=2000, probe_validation=500,
    probe_timesteps=(100, 300), fixed=(1, 4, 16), stages="pets", contrastive_steps=1500,
)  # fmt: skip
HOUR = Setting(
    name="hour", n_test=500, shifts=(*SHIFTS, "optical digits"), n_shapes=500, n_kinds=200, steps=4000, other_widths=(8, 32),
    other_sizes=(200, 2000, 20000), synthetic=500, ddim_steps=25, probe_training=4000, probe_validation=1000,
    probe_timesteps=(50, 100, 200, 400), fixed=(1, 4, 16, 50), contrastive_steps=1500,
)  # fmt: skip
NIGHT = Setting(
    name="night", n_test=2000, shifts=(*SHIFTS, "optical digits"), n_shapes=1000, n_kinds=500, steps=12000, width=32,
    other_widths=(8, 16, 64), other_sizes=(200, 2000, 20000), vit_width=128, vit_depth=6, synthetic=2000, ddim_steps=50,
    probe_training=10000, probe_validation=2000, probe_timesteps=(25, 50, 100, 200, 400, 600),
    fixed=(1, 4, 16, 50, 250), contrastive_steps=6000, contrastive_batch=256,
)  # fmt: skip
SETTINGS = {setting.name: setting for setting in (SMALL, QUICK, HOUR, NIGHT)}
