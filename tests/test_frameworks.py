"""Denoisers of other frameworks as far as they are ours: what is imported when, what is missing, CuPy by a stand-in."""

import subprocess
import sys
import types

import numpy as np
import pytest

import diffcls
from diffcls import Fixed


@pytest.fixture
def x(gaussian, rng):
    return gaussian.sample([1, 2, 3], rng)


def make(gaussian, predict, **options):
    return diffcls.Denoiser(predict, **{"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5, **options})


def test_nothing_is_imported_before_it_is_used():
    script = """
import sys, numpy as np, diffcls
make = lambda framework: diffcls.Denoiser(
    lambda x_t, t, cond: x_t, shape=(3,), schedule=diffcls.Schedule.linear(10), n_classes=2, framework=framework)
denoisers = [make(name) for name in ("torch", "jax", "cupy", "numpy")]
diffcls.classify(np.zeros(3, np.float32), model=denoisers[-1], policy=diffcls.Fixed(2))
print(sorted({"jax", "jaxlib", "torch", "cupy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", ["torch", "jax", "cupy"])
def test_a_missing_framework_is_named_when_it_is_needed(gaussian, x, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # what import finds for a package that is not there
    denoiser = make(gaussian, gaussian.predict, framework=name)
    with pytest.raises(diffcls.MissingExtraError, match=f"framework '{name}' needs the package {name}, which is not"):
        diffcls.classify(x, model=denoiser)


def test_cupy_arrays_in_and_numpy_arrays_out(gaussian, x, monkeypatch):
    """A stand-in with the two functions that are used: device arrays are of a type that the core can not read."""

    class DeviceArray:
        def __init__(self, host):
            self.host = host

        def __getitem__(self, ids):
            return DeviceArray(self.host[ids.host])

    stand_in = types.ModuleType("cupy")
    stand_in.asarray = lambda host, dtype=None: DeviceArray(np.array(host, dtype))
    stand_in.asnumpy = lambda array: array.host
    monkeypatch.setitem(sys.modules, "cupy", stand_in)

    def predict(x_t, t, cond):
        assert x_t.host.dtype == np.float64 and t.host.dtype == np.int64
        np.testing.assert_array_equal(gaussian.means[cond["id"].host], cond["mean"].host)
        return DeviceArray(gaussian.predict(x_t.host.astype(np.float32), t.host, cond["id"].host))

    conditions = {"mean": gaussian.means, "id": np.arange(5)}
    denoiser = make(gaussian, predict, framework="cupy", conditions=conditions, dtype="float64")
    expected = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(20))
    np.testing.assert_array_equal(diffcls.classify(x, model=denoiser, policy=Fixed(20)).losses, expected.losses)
