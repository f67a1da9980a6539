"""CUDA without a device: why not, in a sentence, and what the compiler makes of the kernels."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diffcls
from diffcls import cuda, ops
from diffcls.errors import DeviceError

ROOT = Path(__file__).resolve().parents[1]


class OnDevice:
    """A tensor that says it is on cuda:0 and has nothing more."""

    shape = (2, 3)

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        raise AssertionError("nothing is exported where nothing can be computed")


@pytest.fixture
def no_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffcls._cuda", None)
    monkeypatch.delattr(diffcls, "_cuda", raising=False)


def test_a_package_without_the_module_says_so(tmp_path):
    """The file is not there at all, which Python tells by another error than a module that must not be imported."""
    shutil.copytree(Path(diffcls.__file__).parent, tmp_path / "diffcls", ignore=shutil.ignore_patterns("_cuda*"))
    code = """if True:
        import sys
        sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]  # it would find the checkout's
        import diffcls
        print(diffcls.__file__)
        print(diffcls.cuda.why_not())
    """
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    where, reason = done.stdout.splitlines()
    assert where.startswith(str(tmp_path)) and reason.startswith("this build of diffcls has no CUDA module")


def test_a_build_without_cuda_says_so(no_module):
    assert not diffcls.cuda.is_available()
    assert "this build of diffcls has no CUDA module" in diffcls.cuda.why_not()


def test_a_build_with_cuda_says_what_is_missing():
    """Whatever this machine has: available and a reason exclude each other, and a second answer is the first."""
    reason = diffcls.cuda.why_not()
    assert diffcls.cuda.is_available() == (reason is None) and diffcls.cuda.why_not() == reason
    if reason is not None:
        assert reason.startswith(("this build of diffcls", "there is no NVIDIA driver", "the NVIDIA driver"))


def test_a_broken_module_is_no_missing_one(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "diffcls._cuda":
                raise ImportError("libnothing.so: cannot open", name="libnothing")
            return None

    monkeypatch.delitem(sys.modules, "diffcls._cuda", raising=False)
    monkeypatch.delattr(diffcls, "_cuda", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImportError, match="libnothing"):
        cuda.why_not()


def test_tensors_of_a_device_are_refused_with_the_reason(no_module):
    key = {"seed": 1, "index": 0, "timestep": 0}
    for call in (
        lambda: ops.add_noise(OnDevice(), 1.0, 1.0, **key),
        lambda: ops.eps_error(OnDevice(), OnDevice()),
        lambda: ops.normal((2, 3), out=OnDevice(), **key),
        lambda: ops.normal((2, 3), device="cuda:0", **key),
    ):
        with pytest.raises(DeviceError, match="can not compute on cuda:0: this build of diffcls has no CUDA module"):
            call()
    with pytest.raises(DeviceError, match="device is 'tpu', must be 'cpu', 'cuda' or 'cuda:' and a number"):
        ops.normal(3, device="tpu", **key)
    with pytest.raises(DeviceError, match="stream was given, the CPU has none"):
        ops.normal(3, stream=1, **key)


def test_device_of():
    assert cuda.device_of(OnDevice()) == 0
    for other in (np.zeros(3), None, 3, [1.0]):
        assert cuda.device_of(other) is None


def test_without_a_device_a_denoiser_stays_on_the_host(no_module, gaussian):
    assert diffcls.Classifier(gaussian.denoiser()).device is None


def test_the_core_does_not_take_any_capsule(gaussian):
    from datetime import datetime_CAPI

    with pytest.raises(TypeError, match="must be a Cpu"):
        diffcls._core.normal(np.empty(3, np.float32), seed=1, noise_index=0, timestep=0, first=0, backend=datetime_CAPI)


def test_import_costs_no_cuda():
    code = "import sys, diffcls.classifier, diffcls.ops; print('diffcls._cuda' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.fixture(scope="module")
def ptxas():
    if not (ROOT / "benchmarks" / "ptxas.py").exists():
        pytest.skip("the benchmarks are not in a whole checkout")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        module = importlib.import_module("ptxas")
    finally:
        sys.path.pop(0)
    if module.nvcc() is None:
        pytest.skip("nvcc is not in PATH: the kernels can not be compiled for a device")
    return module


DIT_KERNELS = {
    "modulate",
    "attention",
    "embedding",
    "condition",
    "patchify",
    "unpatchify",
    "gather",
    "pack",
    "add",
    "gate",
    "silu",
}


@pytest.mark.installed
def test_kernels_as_they_are_compiled(ptxas):
    """Nothing is spilled, and what moves memory moves 16 bytes at once; benchmarks/ptxas.py looks at all architectures."""
    table = ptxas.figures(ptxas.nvcc(), (75, 90), ("noise", "noising", "eps_error"))
    for architecture, kernels in table.items():
        of_dit = {name: kernel for name, kernel in kernels.items() if name.partition("_kernel")[0] in DIT_KERNELS}
        assert len(kernels) - len(of_dit) == 2 + 2 * 8  # noise and mean, and of two dtypes and layouts
        assert len(of_dit) == 3 + 3 * 14  # of any dtype, and of three: modulate and attention four times each
        for name, kernel in kernels.items():
            where = f"{name} on {architecture}"
            assert kernel["spill_bytes"] == kernel["stack_bytes"] == 0, where
            least = 8 if name.startswith("attention") and architecture == "sm_75" else 12  # its 64 KB shared memory
            assert kernel["warps_a_multiprocessor"] >= least, where
            if name in of_dit:
                if name.startswith(("modulate", "gate", "add", "gather")):
                    assert kernel["stores_of_16_bytes"] > 0 and kernel["loads_of_16_bytes"] > 0, where
                continue
            if name != "mean_kernel" and "channels last" not in name:
                assert kernel["stores_of_16_bytes"] > 0, where
            if "<" in name:
                assert kernel["loads_of_16_bytes"] > 0, where
