"""Small networks of other kinds for `weighting.py` to judge on: ``python benchmarks/weighting_train.py --out RUNS``.

For each of three parameterisations and each of MNIST and Fashion-MNIST one class-conditional DiT of 0.7 M parameters is
trained on mean squared error alone, with uniform timesteps: x_start on a flow path, the raw output of EDM's preconditioned
network, and eps on the linear schedule.  Some five minutes each on one core; those that RUNS already holds are left alone.
The last 2,000 training pictures are held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import diffcls
from diffcls import durable
from diffcls.models import data
from diffcls.models.torch_dit import Config, DiT
from diffcls.models.train import N_HELD_OUT

KINDS = {
    "flow": (diffcls.Schedule.flow(1000), "sample"),
    "edm": (diffcls.Schedule.edm(np.geomspace(0.002, 80.0, 1000)), "edm"),
    "epsilon": (diffcls.Schedule.linear(1000, 1e-4, 0.02), "epsilon"),
}
CONFIG = Config(hidden_size=96, depth=4, num_classes=10)


class Network(DiT):
    """A DiT that is fed the row of the schedule instead of the schedule's own time, which spans too little."""

    def __init__(self, schedule: diffcls.Schedule) -> None:
        super().__init__(CONFIG)
        self.register_buffer("time", torch.tensor(schedule.time), persistent=False)

    def forward(self, x_t: torch.Tensor, time: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        rows = torch.searchsorted(self.time, time.double() - 1e-9 * self.time.abs().max())
        return super().forward(x_t, rows, class_labels)


def x_start(pictures: np.ndarray) -> np.ndarray:
    """(N, 1, 28, 28) float32 in [-1, 1]."""
    return pictures[:, None].astype(np.float32) / 127.5 - 1.0


def load(path: Path) -> diffcls.Denoiser:
    """The denoiser of one trained network, by the name of its file: KIND-DATASET.pt."""
    schedule, prediction_type = KINDS[path.stem.partition("-")[0]]
    network = Network(schedule)
    network.load_state_dict(torch.load(path, weights_only=True))
    return diffcls.Denoiser(
        network.eval(),
        shape=(1, 28, 28),
        schedule=schedule,
        prediction_type=prediction_type,
        n_classes=CONFIG.num_classes,
        name=path.stem,
    )


def train(kind: str, dataset: str, options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Weights, averaged over the last steps."""
    schedule, prediction_type = KINDS[kind]
    pictures, labels = (torch.from_numpy(array[:-N_HELD_OUT].copy()) for array in data.load(dataset, train=True))
    p, q = (torch.from_numpy(part).float() for part in schedule.target(prediction_type))
    alpha, sigma = (torch.from_numpy(part).float() for part in (schedule.alpha, schedule.sigma))
    torch.manual_seed(options.seed)
    network = Network(schedule)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.steps, pct_start=0.05)
    for step in range(options.steps):
        chosen = torch.randint(len(labels), (options.batch,))
        clean = torch.from_numpy(x_start(pictures[chosen].numpy()))
        rows = ((torch.randperm(options.batch) + torch.rand(options.batch)) / options.batch * len(alpha)).long()
        eps = torch.randn_like(clean)
        a, s, to_x, to_eps = (column[rows, None, None, None] for column in (alpha, sigma, p, q))
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted = network(a * clean + s * eps, network.time[rows], labels[chosen])
        loss = F.mse_loss(predicted.float(), to_x * clean + to_eps * eps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        averaged.update_parameters(network)
        if (step + 1) % 200 == 0:
            print(f"{kind} {dataset} {step + 1}: {float(loss.detach()):.4f}", flush=True)
    return averaged.module.state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for dataset in data.DATASETS:
        for kind in KINDS:
            path = options.out / f"{kind}-{dataset}.pt"
            if not path.exists():
                weights = train(kind, dataset, options)
                with durable.replacing(path) as temporary:
                    torch.save(weights, temporary)


if __name__ == "__main__":
    main()
