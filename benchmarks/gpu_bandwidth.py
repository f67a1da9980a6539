"""What fraction of the copy rate do noising and eps-error reach on a GPU?  Target: 85 % at the three shapes.

The kernels of whole runs of the loop around a denoiser that costs nothing, timed by the profiler, the cache flushed before each
batch by that denoiser; the rate is that of PyTorch's copy of as many bytes, flushed alike, in the same process.  `classes` rows
share one noise: with one the arithmetic of the noise is the bound on some devices (benchmarks/ptxas.py).
"""

from __future__ import annotations

from typing import Any

import gpu_common
import numpy as np
import torch
from gpu_common import Place, kernel_us

import diffcls

SHAPES = {
    "64 x 4x64x64": (64, (4, 64, 64)),
    "256 x 4x32x32": (256, (4, 32, 32)),
    "64 x 16x128x128": (64, (16, 128, 128)),
}
SMALL = {"4 x 4x8x8": (4, (4, 8, 8))}


def copy_rate(place: Place, n_bytes: int, repeats: int) -> float:
    """Bytes moved, read and written, a microsecond."""
    source = torch.empty(n_bytes // 4, device=place.name)
    target = torch.empty_like(source)

    def run() -> None:
        for _ in range(repeats):
            place.flush()
            target.copy_(source)

    kernels, _ = place.profile(run)
    return 2 * n_bytes / kernel_us(kernels, "Memcpy DtoD", "copy")


def run(
    place: Place, batch: int, shape: tuple[int, ...], classes: int, dtype: str, repeats: int
) -> dict[str, list[float]]:
    denoiser = gpu_common.free_denoiser(place, shape, classes, batch, dtype)
    answer = denoiser.predict

    def flushing(x_t: Any, t: Any, cond: Any) -> Any:
        place.flush()
        return answer(x_t, t, cond)

    trials = max(1, batch * repeats // classes)
    policy = diffcls.Fixed(trials)
    classifier = diffcls.Classifier(denoiser.with_predict(flushing), policy=policy, batch_size=batch)
    image = np.random.default_rng(place.seed).standard_normal(shape).astype(np.float32)
    classifier(image)
    kernels, _ = place.profile(lambda: classifier(image))
    return kernels


def main() -> None:
    options = gpu_common.arguments(__doc__.splitlines()[0])
    place, rows = Place(options), []
    for name, (batch, shape) in (SHAPES if place.is_real else SMALL).items():
        n_elem = int(np.prod(shape))
        for dtype, size in (("float32", 4), ("bfloat16", 2)):
            n_bytes = batch * n_elem * size
            rate = copy_rate(place, n_bytes, options.repeats)
            for classes in (1, 8, 64):
                kernels = run(place, batch, shape, min(classes, batch), dtype, options.repeats)
                x_start = 4 * n_elem * max(1, batch // classes)  # read once a noise
                noising, error = kernel_us(kernels, "noising_kernel"), kernel_us(kernels, "eps_error_kernel")
                mean = kernel_us(kernels, "mean_kernel")
                rows.append(
                    {
                        "shape": name,
                        "dtype": dtype,
                        "classes": classes,
                        "copy_gb_s": rate / 1e3,
                        "noising_us": noising,
                        "noising_of_copy": (n_bytes + x_start) / noising / rate,
                        "eps_error_us": error + mean,
                        "eps_error_of_copy": (n_bytes + x_start) / (error + mean) / rate,
                    }
                )
    gpu_common.record("gpu_bandwidth", __doc__.splitlines()[0], rows, options)


if __name__ == "__main__":
    main()
