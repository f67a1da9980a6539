"""What does one standard normal cost, on one core, against NumPy's and PyTorch's generators and a plain copy?

Targets: at most 1.0 ns with AVX-512 and 1.6 ns with AVX2; 8 times NumPy's float32 `standard_normal`, 3 times `torch.randn`.
"""

from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch

from diffcls import _core, reference

SIZES = (2**14, 2**20, 2**24)  # one latent of Stable Diffusion; beyond the second cache; beyond the third
FLOPS = 20.5  # float operations of gaussian.h a normal; the integer work of Philox comes on top


def ours(out: np.ndarray, simd: str) -> Callable[[], None]:
    backend = _core.Cpu(n_threads=1, simd=simd)
    return lambda: _core.normal(out, seed=1, noise_index=2, timestep=3, first=0, backend=backend)


def check(simd: str) -> None:
    out = np.empty(2**18, np.float32)
    ours(out, simd)()
    assert np.array_equal(out, reference.normal(1, 2, 3, 0, out.size)), f"{simd} differs from the NumPy twin"


def candidates(n: int, seed: int) -> dict[str, Callable[[], object]]:
    out, source, tensor = np.empty(n, np.float32), np.ones(n, np.float32), torch.empty(n)
    calls: dict[str, Callable[[], object]] = {simd: ours(out, simd) for simd in _core.Cpu.available()}
    for name in ("PCG64", "SFC64", "Philox"):
        rng = np.random.Generator(getattr(np.random, name)(seed))
        calls[f"numpy {name}"] = lambda rng=rng: rng.standard_normal(dtype=np.float32, out=out)
    calls["torch.randn"] = lambda: torch.randn(n, out=tensor)
    calls["copy"] = lambda: np.copyto(out, source)
    return calls


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    for simd in _core.Cpu.available():
        check(simd)
    peak, best = common.peak_flops(), _core.Cpu.available()[-1]
    results: list[dict[str, Any]] = []
    for n in SIZES:
        times = common.measure(candidates(n, options.seed), repeats=options.repeats, seed=options.seed)
        for name in times.seconds:
            row: dict[str, Any] = {"n": n, "candidate": name, "ns_per_number": times.median(name) / n * 1e9}
            if name in _core.Cpu.available():
                row["fraction_of_copy_rate"] = times.median("copy") / times.median(name)
                row["fraction_of_fma_peak"] = FLOPS * n / times.median(name) / peak if peak else None
            else:
                ratio = times.ratio(name, best)
                row.update({f"times_{best}": ratio["median"], "low": ratio["low"], "high": ratio["high"]})
            results.append(row)
    common.record("noise", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
