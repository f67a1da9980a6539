"""What do noising and eps-error cost, noise included, against NumPy and PyTorch doing the same work on one core?

One step of the loop without its denoiser: eps of every trial, x_t for every row, then the mean squared error of every
row's prediction against eps.  Ours keeps eps for the batch, as the loop and the others do; "made twice" is what the loop
does where a batch's eps would not stay in the cache.  All write into arrays that exist already.  `copy` moves the bytes that no one can avoid: every prediction read, every x_t written.
Targets: 5 times NumPy with its default generator, 2.5 times PyTorch.
"""

import ctypes
import tempfile
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch

from diffcls import _core, reference

CASES = ((10, 20, 784), (32, 1, 784), (8, 1, 16384), (4, 10, 16384), (1, 64, 16384))  # trials, classes, elements
ALPHA, SIGMA = 0.8, 0.6

DRIVER = """
#include "cpu/cpu.h"

void *driver_backend(const char *simd)
{
    dc_backend *backend;
    dc_error err = {0};
    return dc_cpu_backend_new(&backend, 1, simd, &err) == DC_OK ? backend : NULL;
}

/* kept (n_groups, n_elem): where eps is kept between noising and eps-error, or NULL */
void driver_step(const dc_backend *backend, float *x_t, double *errors, const float *prediction, const float *x_start,
                 float *kept, int64_t n_groups, int64_t n_rows, int64_t n_elem)
{
    dc_group groups[64];
    for (int64_t g = 0; g < n_groups; g++) {
        float *eps = kept != NULL ? kept + g * n_elem : NULL;
        groups[g] = (dc_group){x_start, eps, {1, (uint32_t)g, 0}, 1.0f, 0.8f, 0.6f, 0.0f, 1.0f, n_rows};
    }
    if (kept != NULL)
        backend->noise_of_groups(backend, kept, groups, n_groups, n_elem);
    backend->noising(backend, x_t, groups, n_groups, n_elem, (dc_layout){DC_FLOAT32, 0});
    backend->eps_error(backend, errors, (dc_prediction){.data = prediction, .row_stride = n_elem}, groups, n_groups, n_elem,
                       DC_LOSS_L2, 0.0f);
}
"""


def build(folder: str) -> ctypes.CDLL:
    core = common.build_core(folder, DRIVER)
    core.driver_step.argtypes = (ctypes.c_void_p,) * 6 + (ctypes.c_int64,) * 3
    core.driver_step.restype = None
    return core


def with_numpy(prediction: np.ndarray, x_start: np.ndarray, rng: np.random.Generator) -> Callable[[], object]:
    n_groups, _, n_elem = prediction.shape
    eps, mixed = np.empty((2, n_groups, n_elem), np.float32)
    x_t, difference = np.empty_like(prediction), np.empty_like(prediction)

    def step() -> object:
        rng.standard_normal(dtype=np.float32, out=eps)
        np.multiply(eps, np.float32(SIGMA), out=mixed)
        np.add(mixed, np.float32(ALPHA) * x_start, out=mixed)
        x_t[:] = mixed[:, None]
        np.subtract(prediction, eps[:, None], out=difference)
        return np.einsum("gkd,gkd->gk", difference, difference) / n_elem

    return step


def with_torch(prediction: np.ndarray, x_start: np.ndarray) -> Callable[[], object]:
    p, x = torch.from_numpy(prediction), torch.from_numpy(x_start)
    n_groups, _, n_elem = p.shape
    eps, mixed = torch.empty(n_groups, n_elem), torch.empty(n_groups, n_elem)
    x_t, difference = torch.empty_like(p), torch.empty_like(p)

    def step() -> object:
        torch.randn(eps.shape, out=eps)
        torch.add(ALPHA * x, eps, alpha=SIGMA, out=mixed)
        x_t.copy_(mixed[:, None].expand_as(x_t))
        torch.sub(p, eps[:, None], out=difference)
        return torch.linalg.vecdot(difference, difference) / n_elem

    return step


def check(errors: np.ndarray, x_t: np.ndarray, prediction: np.ndarray, x_start: np.ndarray) -> None:
    """x_t and errors of the first and the last trial against the NumPy twin."""
    n_groups, n_rows, n_elem = prediction.shape
    for g in {0, n_groups - 1}:
        eps = reference.normal(1, g, 0, 0, n_elem)
        mixed = np.float32(ALPHA) * x_start + np.float32(SIGMA) * eps
        assert (x_t[g] == mixed).all(), "x_t differs from the NumPy twin"
        wanted = reference.eps_error(prediction[g], np.broadcast_to(eps, (n_rows, n_elem)))
        assert np.array_equal(errors[g], wanted), "errors differ from the NumPy twin"


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        core = build(folder)
        for n_groups, n_rows, n_elem in CASES:
            rng = np.random.default_rng(options.seed)
            prediction = rng.standard_normal((n_groups, n_rows, n_elem), np.float32)
            x_start = rng.uniform(-1, 1, n_elem).astype(np.float32)
            x_t, errors = np.empty_like(prediction), np.empty((n_groups, n_rows))
            kept = np.empty((n_groups, n_elem), np.float32)
            calls: dict[str, Callable[[], object]] = {}
            for simd in _core.Cpu.available():
                for name, eps in {simd: kept.ctypes.data, f"{simd} made twice": None}.items():
                    pointers = [a.ctypes.data for a in (x_t, errors, prediction, x_start)]
                    step = [core.driver_backend(simd.encode()), *pointers, eps, *prediction.shape]
                    calls[name] = lambda step=step: core.driver_step(*step)
                    x_t.fill(np.nan)
                    calls[name]()
                    check(errors, x_t, prediction, x_start)
            calls["numpy"] = with_numpy(prediction, x_start, np.random.default_rng(options.seed))
            fastest = np.random.Generator(np.random.SFC64(options.seed))
            calls["numpy SFC64"] = with_numpy(prediction, x_start, fastest)
            calls["torch"] = with_torch(prediction, x_start)
            calls["copy"] = lambda x=x_t, p=prediction: np.copyto(x, p)
            times, best = common.measure(calls, repeats=options.repeats, seed=options.seed), _core.Cpu.available()[-1]
            for name in calls:
                row: dict[str, Any] = {"trials": n_groups, "classes": n_rows, "elements": n_elem, "candidate": name}
                row["ns_per_element_row"] = times.median(name) / prediction.size * 1e9
                for ours in (best, f"{best} made twice"):
                    ratio = times.ratio(name, ours)
                    row.update(
                        {
                            f"times {ours}": ratio["median"],
                            f"interval {ours}": [round(ratio["low"], 3), round(ratio["high"], 3)],
                        }
                    )
                results.append(row)
    common.record("noising_error", __doc__.splitlines()[0], results, options)


if __name__ == "__main__":
    main()
