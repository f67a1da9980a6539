"""The whole path of a CUDA tensor through Python, on the shim of tests/cuda: what the device computes is the CPU's to the bit.

`diffcls._cuda` is built from the same sources by a host compiler, and a stand-in for CuPy gives tensors of its device.
"""

import ctypes
import gc
import importlib.util
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from fake_cupy import FakeCupy, OldArray
from test_dit import pack, tiny_config, tiny_tensors

import diffcls
from diffcls import Fixed, Race, _core, cuda, ops
from diffcls.errors import DenoiserError, DeviceError, DTypeError, InputError, NonFiniteError, ShapeError
from diffcls.native import NativeDenoiser

HERE = Path(__file__).resolve().parent / "cuda"

pytestmark = [
    pytest.mark.installed,  # its own build
    pytest.mark.skipif(not (HERE / "Makefile").exists(), reason="the tests are not in a whole checkout"),
    pytest.mark.skipif(
        shutil.which("g++") is None or shutil.which("make") is None, reason="the shim needs g++ and make"
    ),
]


@pytest.fixture(scope="module")
def module():
    subprocess.run(["make", "-s", "-C", HERE, "module", f"PYTHON={sys.executable}"], check=True)
    path = HERE.parents[1] / "build" / "cuda" / "_cuda.so"
    spec = importlib.util.spec_from_file_location("diffcls._cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cupy(module, monkeypatch):
    fake = FakeCupy(ctypes.CDLL(module.__file__))
    monkeypatch.setitem(sys.modules, "diffcls._cuda", module)
    monkeypatch.setattr(diffcls, "_cuda", module, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda, "_asked", set())  # other tests' processes may fork
    yield fake
    fake.shim.shim_set_devices(1, 13000)
    cuda._kept.__dict__.clear()
    gc.collect()
    fake.wait()
    fake.close()
    assert fake.shim.shim_reports() == 0, fake.shim.shim_last_report().decode()
    fake.shim.shim_reset()
    assert fake.shim.shim_live() == 0  # neither memory nor events are left


def rows(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


# ---- availability ----------------------------------------------------------------------------------------------------


def test_availability(cupy):
    assert diffcls.cuda.is_available() and diffcls.cuda.why_not() is None
    cupy.shim.shim_set_devices(0, 13000)
    assert "finds no device" in diffcls.cuda.why_not() and not diffcls.cuda.is_available()
    cupy.shim.shim_set_devices(1, 11080)
    assert "is for CUDA 11.8, this build needs 13.0" in diffcls.cuda.why_not()
    with pytest.raises(DeviceError, match="can not compute on cuda:0: the NVIDIA driver is for CUDA 11.8"):
        ops.add_noise(cupy.empty((1, 2)), 1.0, 1.0, seed=1, index=0, timestep=0)
    cupy.shim.shim_set_devices(1, 13000)


# ---- ops -------------------------------------------------------------------------------------------------------------


def test_normal(cupy):
    wanted = ops.normal((3, 5, 7), seed=3, index=4, timestep=5)
    out = cupy.empty((3, 5, 7))
    assert ops.normal((3, 5, 7), seed=3, index=4, timestep=5, out=out) is out
    np.testing.assert_array_equal(out.get(), wanted)
    assert out.streams == [cupy.current.ptr]
    with pytest.raises(DTypeError, match="dtype is float64, must be float32 on a device"):
        ops.normal(3, seed=1, index=1, out=cupy.empty(3), dtype="float64")
    with pytest.raises(ShapeError, match=r"out has shape \(3,\), must have \(4,\)"):
        ops.normal(4, seed=1, index=1, out=cupy.empty(3))
    with pytest.raises(DeviceError, match="out is on cuda:0"):
        ops.normal(3, seed=1, index=1, out=cupy.empty(3), device="cuda:1")


def test_add_noise(cupy, rng):
    x, eps = rows(rng, 4, 3, 11), rows(rng, 4, 3, 11)
    alpha, sigma = rng.random(4), rng.random(4)
    key = {"seed": 9, "index": [0, 1, 2, 3], "timestep": 7}
    there = cupy.asarray(x)
    made = ops.add_noise(there, alpha, sigma, **key)
    np.testing.assert_array_equal(made.get(), ops.add_noise(x, alpha, sigma, **key))
    given = ops.add_noise(there, alpha, 0.5, eps=cupy.asarray(eps), out=cupy.empty(x.shape))
    np.testing.assert_array_equal(given.get(), ops.add_noise(x, alpha, 0.5, eps=eps))
    target = ops.target(there, cupy.asarray(eps), alpha, sigma, "v_prediction")
    np.testing.assert_array_equal(target.get(), ops.target(x, eps, alpha, sigma, "v_prediction"))
    assert cupy.alive and there.streams == [cupy.current.ptr] * 3
    np.testing.assert_array_equal(there.get(), x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
def test_eps_error(cupy, rng, dtype, loss):
    prediction, target = rng.standard_normal((3, 2, 700)).astype(dtype), rows(rng, 3, 2, 700)
    weight = rng.random(3)
    options = {"loss": loss, "delta": 0.3}
    there, wanted = cupy.asarray(prediction), cupy.asarray(target)
    errors = ops.eps_error(there, wanted, **options)
    np.testing.assert_array_equal(errors.get(), ops.eps_error(prediction, target, **options))
    weighted = ops.eps_error(there, wanted, weight=weight, out=cupy.empty(3, "float64"), **options)
    np.testing.assert_array_equal(weighted.get(), ops.eps_error(prediction, target, weight=weight, **options))


def test_rows_apart(cupy, rng):
    """The first half of a learned-sigma answer: rows are dense, but not next to each other."""
    both, target = rows(rng, 3, 8, 9), rows(rng, 3, 4, 9)
    errors = ops.eps_error(cupy.asarray(both)[:, :4], cupy.asarray(target))
    np.testing.assert_array_equal(errors.get(), ops.eps_error(both[:, :4], target))


def test_streams(cupy, rng):
    x = cupy.asarray(rows(rng, 2, 5))
    other = cupy.stream(0)
    options = {"seed": 1, "index": 0, "timestep": 0}
    with other:
        inside = ops.add_noise(x, 1.0, 1.0, **options)
        assert x.streams[-1] == other.ptr  # the framework's stream of the moment
    named = ops.add_noise(x, 1.0, 1.0, stream=other, **options)
    assert x.streams[-1] == other.ptr
    assert np.isnan(named.host).all()  # it only began
    with other:
        np.testing.assert_array_equal(named.get(), inside.get())
    for stream in (0, -1, True, "default"):
        with pytest.raises(DTypeError, match="stream is"):
            ops.add_noise(x, 1.0, 1.0, stream=stream, **options)
    ops.add_noise(x, 1.0, 1.0, stream=1, **options)
    assert x.streams[-1] == 1
    cupy.shim.cudaStreamSynchronize(1)


def test_devices(cupy, rng):
    """The tensor's device rules, and a tensor of another is refused by name."""
    cupy.shim.shim_set_devices(2, 13000)
    x = rows(rng, 2, 5)
    here = cupy.asarray(x)
    with cupy.cuda.Device(1):
        there, stream = cupy.asarray(x), cupy.stream(1)
    options = {"seed": 1, "index": 0, "timestep": 0, "stream": stream}
    with pytest.raises(DeviceError, match="out is on cuda:0, must be on cuda:1"):
        ops.add_noise(there, 1.0, 1.0, out=cupy.empty((2, 5)), **options)
    with pytest.raises(DeviceError, match="target is on cuda:0, must be on cuda:1"):
        ops.eps_error(there, here, stream=stream)
    with pytest.raises(DeviceError, match="eps is on DLPack device 1, must be on cuda:1"):
        ops.add_noise(there, 1.0, 1.0, eps=x, stream=stream)
    made = ops.add_noise(there, 1.0, 1.0, **options)
    cupy.shim.cudaStreamSynchronize(stream.ptr)
    assert made.device == 1
    np.testing.assert_array_equal(made.host, ops.add_noise(x, 1.0, 1.0, seed=1, index=0, timestep=0))
    cuda._kept.__dict__.clear()
    cupy.shim.shim_set_devices(1, 13000)
    with pytest.raises(DeviceError, match="device is cuda:1, there are 1"):
        ops.add_noise(there, 1.0, 1.0, **options)


def test_bad_tensors(cupy, rng):
    x = cupy.asarray(rows(rng, 4, 6))
    key = {"seed": 1, "index": 0, "timestep": 0}
    wrong = [
        (lambda: ops.add_noise(x[:, ::2], 1, 1, **key), ShapeError, "x_start must be C-contiguous"),
        (lambda: ops.add_noise(x[::-1], 1, 1, **key), ShapeError, "x_start must be C-contiguous"),
        (lambda: ops.add_noise(cupy.asarray(np.zeros((2, 2))), 1, 1, **key), DTypeError, "x_start must be of float32"),
        (lambda: ops.add_noise(cupy.asarray(np.zeros((2, 2), int)), 1, 1, **key), DTypeError, "DLPack type code 0"),
        (lambda: ops.add_noise(x, 1, 1), InputError, "needs eps, or seed"),
        (lambda: ops.add_noise(x, 1, 1, eps=x[:2]), ShapeError, "eps has shape"),
        (lambda: ops.add_noise(x, 1, 1, out=x[:2], **key), ShapeError, "out has shape"),
        (lambda: ops.add_noise(x, x[:, 0], 1, **key), DeviceError, "alpha is on DLPack device 2, must be on the CPU"),
        (lambda: ops.add_noise(cupy.empty(()), 1, 1, **key), ShapeError, "x_start has no axes"),
        (lambda: ops.eps_error(x, x[:2]), ShapeError, "they must be the same"),
        (
            lambda: ops.eps_error(x[:, ::2], x[:, :3]),
            ShapeError,
            "C-contiguous or channels-last, aligned rows on cuda:0",
        ),
        (lambda: ops.eps_error(x, x, out=cupy.empty(4)), DTypeError, "out must be of float64"),
        (lambda: ops.eps_error(x, x, out=cupy.empty(3, "float64")), ShapeError, "out has shape"),
        (lambda: ops.eps_error(x, x, loss="huber", delta=0.0), InputError, "delta must be positive"),
    ]
    for call, error, words in wrong:
        with pytest.raises(error, match=words):
            call()
    x.host.flags.writeable = False
    with pytest.raises(InputError, match="out must be writeable"):
        ops.normal((4, 6), seed=1, index=0, out=x)
    x.host.flags.writeable = True


def test_old_producers(cupy, rng):
    """Without max_version there is no versioned capsule; the stream is asked for all the same."""
    x = rows(rng, 2, 5)
    old = OldArray(cupy, cupy.asarray(x).host, 0)
    made = ops.add_noise(old, 1.0, 0.5, seed=1, index=0, timestep=0)
    np.testing.assert_array_equal(made.get(), ops.add_noise(x, 1.0, 0.5, seed=1, index=0, timestep=0))
    assert old.streams == [cupy.current.ptr]


def test_nothing_to_do(cupy):
    assert ops.add_noise(cupy.empty((0, 5)), 1.0, 1.0, seed=1, index=0, timestep=0).shape == (0, 5)
    assert ops.eps_error(cupy.empty((0, 5)), cupy.empty((0, 5))).shape == (0,)
    assert ops.normal((0,), seed=1, index=0, out=cupy.empty((0,))).shape == (0,)


@pytest.mark.parametrize("call", ["cudaLaunchKernelEx", "cudaMemcpyAsync", "cudaMalloc"])
def test_a_call_that_fails(cupy, rng, call):
    """One clear error; the next call works, and so does the CPU."""
    x = cupy.asarray(rows(rng, 2, 5))
    key = {"seed": 1, "index": 0, "timestep": 0}
    cupy.shim.shim_fail(call.encode(), 0, 2)
    with pytest.raises((DeviceError, MemoryError), match="CUDA failed in .*out of memory"):
        ops.add_noise(x, 1.0, 1.0, **key)
    wanted = ops.add_noise(x.host, 1.0, 1.0, **key)
    np.testing.assert_array_equal(ops.add_noise(x, 1.0, 1.0, **key).get(), wanted)


# ---- the loop --------------------------------------------------------------------------------------------------------


def on_device(cupy, gaussian, answer=None, **options):
    """The denoiser that knows the exact answer, as one of CuPy; `answer` changes what it says."""

    def predict(x_t, t, cond):
        said = gaussian.predict(x_t.get(), t.get(), cond.get())
        return cupy.asarray(said.astype(np.float32) if answer is None else answer(said, t.get(), cond.get()))

    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5, "framework": "cupy"}
    return diffcls.Denoiser(predict, **{**facts, **options})


def on_host(gaussian):
    def predict(x_t, t, cond):
        return gaussian.predict(x_t, t, cond).astype(np.float32)

    return diffcls.Denoiser(predict, shape=(12,), schedule=gaussian.schedule, n_classes=5, framework="numpy")


@pytest.mark.parametrize("noise", [None, "antithetic", "given"])
def test_classify(cupy, gaussian, rng, noise):
    x = gaussian.sample([0, 1, 2, 3, 4, 1], rng)
    given = rows(rng, 60, 12) if noise == "given" else noise
    options = {"policy": Race(pool=60, n_min=4), "noise": given, "batch_size": 7, "keep_errors": True}
    wanted = diffcls.classify(x, model=on_host(gaussian), **options)
    classifier = diffcls.Classifier(on_device(cupy, gaussian), **options)
    assert classifier.device == 0 and classifier.run["device"] == "cuda:0"
    results = classifier(x)
    for result, one in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(result.losses, one.losses)
        np.testing.assert_array_equal(result.errors, one.errors)
        assert result.n_evals == one.n_evals and result.label == one.label


def test_x_t_is_one_tensor_and_conditions_are_rows(cupy, gaussian, rng):
    """x_t is written to the same place again; conditions go to the device once."""
    seen = []

    def predict(x_t, t, cond):
        seen.append((x_t.host.ctypes.data, x_t.shape, cond["embedding"].get().copy(), cond["id"].get().copy()))
        return cupy.asarray(gaussian.predict(x_t.get(), t.get(), cond["id"].get()).astype(np.float32))

    table = {"embedding": rows(rng, 5, 3), "id": np.arange(5)}
    denoiser = diffcls.Denoiser(predict, shape=(12,), schedule=gaussian.schedule, conditions=table, framework="cupy")
    result = diffcls.classify(gaussian.means[2].astype(np.float32), model=denoiser, policy=Fixed(8), batch_size=16)
    assert result.n_evals == 40 and len({address for address, *_ in seen}) == 1
    for _, shape, embedding, ids in seen:
        assert shape == (len(ids), 12)
        np.testing.assert_array_equal(embedding, table["embedding"][ids])


def test_half_precision(cupy, gaussian, rng):
    """dtype is that of x_t; a half answer is read as it is."""
    kinds = set()

    def predict(x_t, t, cond):
        kinds.add(str(x_t.dtype))
        return cupy.asarray(gaussian.predict(x_t.get(), t.get(), cond.get()).astype(np.float16))

    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5, "framework": "cupy", "dtype": "float16"}
    x = gaussian.sample([3], rng)[0]
    result = diffcls.classify(x, model=diffcls.Denoiser(predict, **facts), policy=Fixed(20))
    assert kinds == {"float16"} and result.label == "3"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda said, t, c: said[:, :5].astype(np.float32), ShapeError, r"has shape \(\d+, 5\), must have \(\d+, 12\)"),
        (lambda said, t, c: said.astype(int), DTypeError, "must be float32, float64, float16 or bfloat16"),
        (lambda said, t, c: np.where(c[:, None] == 3, np.nan, said), NonFiniteError, "class '3' at timestep"),
    ],
)
def test_wrong_answers(cupy, gaussian, rng, answer, error, words):
    x = gaussian.sample([1, 2, 3], rng)
    with pytest.raises(error, match=words):
        diffcls.classify(x, model=on_device(cupy, gaussian, answer), policy=Fixed(20), batch_size=16)


def test_answers_from_elsewhere(cupy, gaussian, rng):
    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5, "framework": "cupy"}
    x = gaussian.sample([1], rng)[0]
    for predict, error, words in [
        (lambda x_t, t, c: x_t.get(), DeviceError, "prediction is on DLPack device 1, must be on cuda:0"),
        (lambda x_t, t, c: [1.0], DenoiserError, "must be a tensor on cuda:0"),
        (
            lambda x_t, t, c: x_t[:, ::-1],
            ShapeError,
            "prediction must have C-contiguous or channels-last, aligned rows on cuda:0",
        ),
        (lambda x_t, t, c: 1 / 0, ZeroDivisionError, "division"),
    ]:
        with pytest.raises(error, match=words):
            diffcls.classify(x, model=diffcls.Denoiser(predict, **facts), policy=Fixed(5))


def test_the_device_is_lost(cupy, gaussian, rng):
    """A kernel that fails in the middle ends the call with one error; the CPU goes on, and so does CUDA when it is back."""
    x, policy = gaussian.sample([1, 2, 3], rng), Fixed(30)
    classifier = diffcls.Classifier(on_device(cupy, gaussian), policy=policy, batch_size=16)
    cupy.shim.shim_fail(b"execution", 5, 700)
    with pytest.raises(DeviceError, match="CUDA failed in .* an illegal memory access"):
        classifier(x)
    wanted = diffcls.classify(x, model=on_host(gaussian), policy=policy)
    gc.collect()
    cupy.shim.shim_reset()
    np.testing.assert_array_equal(classifier(x).losses, wanted.losses)


def test_an_abandoned_stream_leaks_nothing(cupy, gaussian, rng):
    classifier = diffcls.Classifier(on_device(cupy, gaussian), policy=Fixed(20), batch_size=16)
    results = classifier.stream(list(gaussian.sample([1, 2, 3, 4], rng)))
    next(results)
    results.close()  # a batch is under way; the fixture sees what is left


# ---- the native model ------------------------------------------------------------------------------------------------


@pytest.fixture
def native(cupy, module, monkeypatch):
    """A small native DiT, and the shim's cuBLASLt, which is in the module itself."""
    monkeypatch.setattr(cuda, "find_cublaslt", lambda: module.__file__)
    rng = np.random.default_rng(5)
    config = {**tiny_config(), "num_classes": 3}
    tensors = {**tiny_tensors(rng), "y_embedder.embedding_table.weight": rows(rng, 3, 4)}
    tensors = {name: 0.5 * tensor for name, tensor in tensors.items()}
    denoiser = NativeDenoiser(_core.DiT(pack(tensors), config), schedule=diffcls.Schedule.linear(50), n_classes=3)
    yield denoiser
    denoiser.placed._copies.clear()  # pytest still holds it when the memory is counted


@pytest.mark.parametrize(("dtype", "bound"), [(None, 1e-5), ("tf32", 3e-3), ("float16", 3e-3), ("bfloat16", 3e-2)])
def test_the_native_model_on_a_device(native, rng, dtype, bound):
    x = rows(rng, 5, 1, 4, 4)
    options = {"policy": Fixed(12), "batch_size": 7, "keep_errors": True}
    wanted = diffcls.classify(x, model=native, **options)
    classifier = diffcls.Classifier(native, device="cuda", dtype=dtype, **options)
    assert classifier.device == 0 and classifier.run["device"] == "cuda:0"
    assert classifier.run["dtype"] == (dtype or "float32")
    errors = classifier(x).errors
    np.testing.assert_allclose(errors, wanted.errors, rtol=bound, atol=bound * np.mean(wanted.errors))
    assert classifier._entry.open()[0] is classifier._entry.open()[0]  # placed once
    assert diffcls.Classifier(native.to("cuda", dtype))._entry.open()[0] is classifier._entry.open()[0]


def test_a_native_race_on_a_device(native, rng):
    x = rows(rng, 6, 1, 4, 4)
    policy = Race(pool=40, n_min=4)
    wanted = diffcls.classify(x, model=native, policy=policy)
    results = diffcls.classify(x, model=native, policy=policy, device="cuda:0")
    for result, one in zip(results, wanted, strict=True):
        assert result.label == one.label and result.n_evals == one.n_evals
        np.testing.assert_allclose(result.losses, one.losses, rtol=1e-5)


def test_where_a_native_model_computes(native):
    there = native.to("cuda:00", "torch.bfloat16")
    assert (there.device, there.dtype, there.dtype_name) == ("cuda:0", "bfloat16", "bfloat16")
    assert there.to("cpu").dtype_name == "float32" and native.device is None
    assert there.to(dtype=np.float16).dtype == "float16" and there.to(dtype="tf32").device == "cuda:0"
    for device, dtype, error, words in [
        ("tpu", None, DeviceError, "device is 'tpu', must be 'cpu', 'cuda' or 'cuda:' and a number"),
        ("cuda:1", None, DeviceError, "device is cuda:1, there are 1"),
        (None, "bfloat16", DTypeError, "the native DiT computes in float32 on the CPU"),
        ("cuda", "int8", DTypeError, "must be one of float32, tf32, float16, bfloat16"),
    ]:
        with pytest.raises(error, match=words):
            diffcls.Classifier(native, device=device, dtype=dtype).make_loop()
    with pytest.raises(InputError, match="memory_format is 'channels_last', which the native DiT does not take"):
        native.to(memory_format="channels_last")
    where = cuda.open_backend(0, 1, native=True)
    with pytest.raises(DTypeError, match="dtype is 'half', must be 'float32'"):
        native.native.place(where, "half")
    placed = native.native.place(where, "float16")
    assert (placed.device, placed.dtype, placed.n_parameters) == ("cuda:0", "float16", native.native.n_parameters)
    assert (native.native.device, native.native.dtype) == ("cpu", "float32")
    with pytest.raises(DeviceError, match="weights are on cuda:0, the backend computes elsewhere"):
        placed.forward(np.zeros((1, 1, 4, 4), np.float32), np.zeros(1), np.zeros(1, int), backend=_core.Cpu())


def test_without_cublaslt(native, monkeypatch, rng):
    """Everything else works; the native model says how to get it."""
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(
        DeviceError, match=r"needs cuBLASLt, which is not found \(the package cuda-pathfinder is not.*diffcls\[cuda\]"
    ):
        cuda.find_cublaslt()
    asked = []

    def load_nvidia_dynamic_lib(name):
        asked.append(name)
        if len(asked) == 1:
            raise RuntimeError("no such file")
        return types.SimpleNamespace(abs_path="/somewhere/libcublasLt.so.13")

    fake = types.SimpleNamespace(load_nvidia_dynamic_lib=load_nvidia_dynamic_lib)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", fake)
    with pytest.raises(DeviceError, match=r"not found \(neither a package nor"):
        cuda.find_cublaslt()
    assert cuda.find_cublaslt() == "/somewhere/libcublasLt.so.13" and asked == ["cublasLt"] * 2


def test_a_library_that_is_none(cupy, native, monkeypatch, rng):
    monkeypatch.setattr(cuda, "find_cublaslt", lambda: "libm.so.6")
    with pytest.raises(DeviceError, match=r"libm.so.6 has no cublasLtCreate"):
        diffcls.classify(rows(rng, 1, 4, 4), model=native, device="cuda", policy=Fixed(2))


@pytest.mark.parametrize(("call", "status"), [("cublasLtMatmul", 15), ("cudaMalloc", 2), ("execution", 700)])
def test_a_native_run_that_fails(cupy, native, rng, call, status):
    """One clear error; when the device is back, the next call works."""
    x, policy = rows(rng, 2, 1, 4, 4), Fixed(6)
    classifier = diffcls.Classifier(native, device="cuda", policy=policy)
    cupy.shim.shim_fail(call.encode(), 3, status)
    with pytest.raises((DeviceError, MemoryError), match="CUDA failed in "):
        classifier(x)
    gc.collect()
    cupy.shim.shim_reset()
    wanted = diffcls.classify(x, model=native, policy=policy)
    np.testing.assert_allclose(classifier(x).losses, wanted.losses, rtol=1e-5)
