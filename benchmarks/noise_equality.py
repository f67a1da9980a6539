"""Are 2^28 normals the same bits from every instruction set and from the NumPy twin?"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

import common
import numpy as np

from diffcls import _core, reference

CHUNK = 2**20


def mismatches(backends: dict[str, _core.Cpu], seed: int, index: int, timestep: int, first: int) -> dict[str, int]:
    """How many of CHUNK numbers from element `first` on differ from the twin's, for each instruction set."""
    wanted = reference.normal(seed, index, timestep, first, CHUNK).view(np.uint32)
    got, counts = np.empty(CHUNK, np.float32), {}
    for simd, backend in backends.items():
        got.fill(np.nan)
        _core.normal(got, seed=seed, noise_index=index, timestep=timestep, first=first, backend=backend)
        counts[simd] = int((got.view(np.uint32) != wanted).sum())
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log2", type=int, default=28, help="how many numbers (default 28)")
    parser.add_argument("--seed", type=int, default=0, help="of the keys that are tried")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, but do not write benchmarks/results")
    options = parser.parse_args()
    options.repeats = 1
    n_chunks = max(1, 2**options.log2 // CHUNK)
    backends = {simd: _core.Cpu(simd=simd) for simd in _core.Cpu.available()}
    rng = np.random.default_rng(options.seed)
    keys = zip(
        *(rng.integers(0, 2**bits, n_chunks, dtype=np.uint64).tolist() for bits in (64, 32, 32, 48)), strict=True
    )
    total = dict.fromkeys(backends, 0)
    with ThreadPoolExecutor(options.threads) as pool:
        for counts in pool.map(lambda key: mismatches(backends, *key), keys):
            total = {simd: total[simd] + counts[simd] for simd in total}
    rows = [{"instruction set": simd, "numbers": n_chunks * CHUNK, "mismatches": n} for simd, n in total.items()]
    common.record("noise_equality", __doc__, rows, options)
    return 0 if not any(total.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
