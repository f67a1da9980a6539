"""The native DiT at the published sizes against diffusers' DiTTransformer2DModel, from one file of random float32 weights.

    python tests/full_dit.py XL/2 --size 256

XL/2 writes 3 GB to a temporary folder and holds both models (7 GB).  Prints the largest difference, as a share of the largest
number, and ends with 1 if that is above 1e-4.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiTTransformer2DModel

from diffcls import _core
from diffcls.diffusers import load_dit

SIZES = {"S/2": (12, 6, 64), "B/2": (12, 12, 64), "L/2": (24, 16, 64), "XL/2": (28, 16, 72)}
"""Depth, heads, width of a head."""
BOUND = 1e-4


def make(name: str, size: int, *, one_embedder: bool) -> DiTTransformer2DModel:
    """Weights of N(0, 1 / inputs), biases and tables of N(0, 0.02): activations stay of the order of one, nothing is zero."""
    depth, heads, width = SIZES[name]
    model = DiTTransformer2DModel(
        num_layers=depth, num_attention_heads=heads, attention_head_dim=width, sample_size=size // 8, out_channels=8
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            is_table = parameter.dim() == 1 or "embedding_table" in key
            parameter.normal_(0.0, 0.02 if is_table else parameter[0].numel() ** -0.5, generator=generator)
        for block in model.transformer_blocks if one_embedder else ():
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SIZES)
    parser.add_argument("--size", type=int, choices=(256, 512), default=256)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--one-embedder", action="store_true", help="equal in all blocks, as in the published folders")
    options = parser.parse_args()
    side, n = options.size // 8, options.rows
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, side, side, generator=generator)
    t, y = torch.linspace(999, 0, n).long(), torch.linspace(1000, 0, n).long()  # the null class among them
    model = make(options.name, options.size, one_embedder=options.one_embedder)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size="20GB")
        with torch.no_grad():
            expected = model(x, timestep=t, class_labels=y).sample.numpy()
        del model
        began = time.monotonic()
        denoiser = load_dit(Path(folder), native=True)
        loaded = time.monotonic() - began
    assert denoiser.native is not None
    time_of, labels = t.numpy().astype(np.float64), y.numpy()
    got = denoiser.native.forward(x.numpy(), time_of, labels, backend=_core.Cpu())
    share = float(np.abs(got - expected).max() / np.abs(expected).max())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"DiT-{options.name} at {options.size}: {denoiser.native.n_parameters:,} parameters, {n} rows, largest difference "
        f"{share:.2e} of {np.abs(expected).max():.3g} (bound {BOUND:g}); loaded in {loaded:.1f} s, peak memory {peak:.1f} GB"
    )
    return int(not share <= BOUND)


if __name__ == "__main__":
    sys.exit(main())
