"""Does the native DiT's own product beat OpenBLAS at the DiT's shapes, on one core?

y = x weight^T + bias for one chunk of rows: the embedded model's layers and DiT-S/2's.  Ours is the backend's linear
operation with packed weights and its bias; OpenBLAS (package scipy-openblas32, one thread) multiplies alone, with no bias.
"""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import scipy_openblas32

SHAPES = (
    (144, 128, 384),
    (144, 128, 128),
    (144, 128, 512),
    (144, 512, 128),
    (144, 128, 49),
    (256, 384, 1152),
    (256, 1536, 384),
)

DRIVER = """
#include "cpu/cpu.h"
#include "dit/operations.h"

void *driver_backend(const char *simd)
{
    dc_backend *backend;
    dc_error err = {0};
    return dc_cpu_backend_new(&backend, 1, simd, &err) == DC_OK ? backend : NULL;
}

void driver_linear(const dc_backend *backend, float *y, const float *x, float *panels, float *bias, int64_t rows,
                   int64_t n_in, int64_t n_out)
{
    dc_linear layer = {n_in, n_out, panels, bias};
    backend->dit->linear(backend, y, x, &layer, rows, (dc_finish){.epilogue = DC_EPILOGUE_NONE});
}
"""


def build(folder: str) -> ctypes.CDLL:
    core = common.build_core(folder, DRIVER)
    core.driver_linear.argtypes = (ctypes.c_void_p,) * 5 + (ctypes.c_int64,) * 3
    core.driver_linear.restype = None
    return core


def pack(weight: np.ndarray) -> np.ndarray:
    """(n_out, n_in) to panels (ceil(n_out / 32), n_in, 32), zero-padded: csrc/dit/operations.h."""
    n_out, n_in = weight.shape
    padded = np.zeros((-(-n_out // 32) * 32, n_in), np.float32)
    padded[:n_out] = weight
    return np.ascontiguousarray(padded.reshape(-1, 32, n_in).transpose(0, 2, 1))


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    blas = ctypes.CDLL(str(Path(scipy_openblas32.get_lib_dir()) / scipy_openblas32.get_library(fullname=True)))
    blas.scipy_openblas_set_num_threads(1)
    sgemm, f, p, i = blas.scipy_cblas_sgemm, ctypes.c_float, ctypes.c_void_p, ctypes.c_int
    sgemm.argtypes, sgemm.restype = (i, i, i, i, i, i, f, p, i, p, i, f, p, i), None
    peak, results = common.peak_flops(), []
    with tempfile.TemporaryDirectory() as folder:
        core = build(folder)
        for m, k, n in SHAPES:
            rng = np.random.default_rng(options.seed)
            x, weight = rng.standard_normal((m, k), np.float32), rng.standard_normal((n, k), np.float32)
            panels, bias, y = pack(weight), np.zeros(-(-n // 32) * 32 + 32, np.float32), np.empty((m, n), np.float32)
            a, b, c = x.ctypes.data, weight.ctypes.data, y.ctypes.data
            calls = {
                "openblas": lambda a=a, b=b, c=c, m=m, n=n, k=k: sgemm(
                    101, 111, 112, m, n, k, 1.0, a, k, b, k, 0.0, c, n
                )
            }
            for simd in ("scalar", "avx2", "avx512"):
                backend = core.driver_backend(simd.encode())
                if backend:
                    args = (backend, c, a, panels.ctypes.data, bias.ctypes.data, m, k, n)
                    calls[simd] = lambda args=args: core.driver_linear(*args)
            for name, call in calls.items():
                y.fill(np.nan)
                call()
                assert np.abs(y - x @ weight.T).max() < 1e-4 * k, name
            times = common.measure(calls, repeats=options.repeats, seed=options.seed)
            best = list(calls)[-1]
            for name in calls:
                row: dict[str, Any] = {"rows": m, "in": k, "out": n, "candidate": name}
                row["gflops"] = 2.0 * m * n * k / times.median(name) / 1e9
                if peak is not None:
                    row["of_peak"] = row["gflops"] * 1e9 / peak
                row[f"times {best}"] = times.ratio(name, best)["median"]
                results.append(row)
    common.record("gemm", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
