"""How fast is the native DiT on one image's race, against PyTorch eager and torch.compile with the same weights?

160 rows (20 classes, 8 trials: the first round of a race) in batches of 32, 64 and 160, on one and two threads.
Targets: twice eager, 1.3 times compiled.  GFLOP/s count two operations a multiply-add of the products alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
from safetensors.torch import save

from diffcls import _core
from diffcls.models.torch_dit import Config, DiT

ROWS = 160


def flops(config: Config) -> float:
    """Of one row's matrix products and attention."""
    d, side = config.hidden_size, config.input_size // config.patch_size
    t, patch = side * side, config.patch_size**2 * config.in_channels
    token = 2 * patch * d + config.depth * (4 * d * d + 2 * d * int(d * config.mlp_ratio))
    row = 256 * d + d * d + config.depth * (6 * d * d + 2 * t * t * d) + 2 * d * d
    return 2.0 * (t * token + row)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    torch.manual_seed(options.seed)
    config = Config()
    module = DiT(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
    native = _core.DiT(save(module.state_dict()), config.to_dict())
    x, t = torch.randn(ROWS, 1, 28, 28), torch.randint(0, 1000, (ROWS,))
    y = torch.arange(ROWS) % config.num_classes
    arrays = x.numpy(), t.numpy().astype(np.float64), y.numpy()
    compiled = torch.compile(module, dynamic=False)
    peak, results = common.peak_flops(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (32, 64, 160):
            calls = candidates(native, module, compiled, (x, t, y), arrays, threads, batch)
            expected = calls["eager"]()
            for name, call in calls.items():
                assert np.abs(call() - expected).max() <= 1e-5 * np.abs(expected).max(), name
            clock = time.thread_time if threads == 1 else time.perf_counter
            times = common.measure(calls, repeats=options.repeats, clock=clock, seed=options.seed)
            for name in calls:
                ratio = times.ratio(name, "native")
                row: dict[str, Any] = {"threads": threads, "batch": batch, "candidate": name}
                row["rows_per_second"] = ROWS / times.median(name)
                row["gflops"] = flops(config) * ROWS / times.median(name) / 1e9
                if peak is not None:
                    row["of_peak"] = row["gflops"] * 1e9 / (peak * threads)
                row.update({"times native": ratio["median"], "interval": [round(ratio[k], 2) for k in ("low", "high")]})
                results.append(row)
    common.record("dit", __doc__.splitlines()[0], results, options)


def candidates(
    native: _core.DiT, module: DiT, compiled: Any, tensors: Any, arrays: Any, threads: int, batch: int
) -> dict[str, Callable[[], np.ndarray]]:
    cpu = _core.Cpu(n_threads=threads)
    parts = [slice(i, i + batch) for i in range(0, ROWS, batch)]

    def by(call: Callable[..., torch.Tensor]) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with torch.no_grad():
                return torch.cat([call(*(tensor[part] for tensor in tensors)) for part in parts]).numpy()

        return run

    def ours() -> np.ndarray:
        return np.concatenate([native.forward(*(array[part] for array in arrays), backend=cpu) for part in parts])

    return {"native": ours, "eager": by(module), "compiled": by(compiled)}


if __name__ == "__main__":
    main()
