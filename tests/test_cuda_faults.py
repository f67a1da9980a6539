"""What can be wrong with a tensor on a device, with its stream or with the process: one clear error each, on the shim."""

import multiprocessing

import numpy as np
import pytest
from fake_cupy import OldArray, ndarray
from test_cuda_shim import cupy, module, on_device, on_host, pytestmark, rows

import diffcls
from diffcls import Fixed, cuda, ops
from diffcls.errors import DeviceError, DTypeError, InputError, ShapeError

KEY = {"seed": 1, "index": 0, "timestep": 0}


class Elsewhere(ndarray):
    """Memory that both sides reach: its kind of DLPack is another than 2."""

    kind = 13  # managed

    def __dlpack_device__(self):
        return (self.kind, self.device)


class Pinned(Elsewhere):
    kind = 3


class Twice(OldArray):
    """Gives one capsule again and again."""

    capsule = None

    def __dlpack__(self, *, stream=None):
        self.capsule = self.capsule or ndarray.__dlpack__(self, stream=stream)
        return self.capsule


class Freed(OldArray):
    """As JAX's arrays are after delete()."""

    def __dlpack__(self, *, stream=None):
        raise RuntimeError("Array has been deleted.")


Elsewhere.__module__ = Pinned.__module__ = Twice.__module__ = Freed.__module__ = "cupy"


def noised(x):
    return ops.add_noise(x, 0.8, 0.6, **KEY)


def test_managed_memory_is_everybodys(cupy, rng):
    """Beside a device's tensors it is the device's, in the order of its stream."""
    x = rows(rng, 2, 5)
    said, target = cupy.asarray(x), Elsewhere(cupy, cupy.asarray(x).host, 0)
    np.testing.assert_array_equal(ops.eps_error(said, target).get(), [0.0, 0.0])
    assert target.streams == [cupy.current.ptr]  # ready there, too


def test_managed_memory_without_a_device_is_the_hosts(cupy, rng):
    x = rows(rng, 2, 5)
    managed = Elsewhere(cupy, cupy.asarray(x).host, 0)
    assert cuda.device_of(managed) == 0
    made = ops.add_noise(managed, 0.8, 0.6, **KEY)
    assert managed.streams == [cupy.current.ptr]
    np.testing.assert_array_equal(made.get(), noised(x))
    cupy.shim.shim_set_devices(0, 0)
    assert cuda.device_of(managed) is None
    np.testing.assert_array_equal(ops.eps_error(managed, x), [0.0, 0.0])
    cupy.shim.shim_set_devices(1, 13000)


def test_pinned_memory_is_the_hosts(cupy, rng):
    x = rows(rng, 2, 5)
    pinned = Pinned(cupy, cupy.asarray(x).host, 0)
    with pytest.raises(DeviceError, match="target is on DLPack device 3, must be on cuda:0"):
        ops.eps_error(cupy.asarray(x), pinned)


def test_a_capsule_is_taken_once(cupy, rng):
    x = Twice(cupy, cupy.asarray(rows(rng, 2, 5)).host, 0)
    first = noised(x)
    with pytest.raises(DTypeError, match="x_start gives no DLPack capsule, or a used one"):
        noised(x)
    np.testing.assert_array_equal(first.get(), noised(x.host))


def test_a_freed_tensor(cupy, rng):
    with pytest.raises(DTypeError, match=r"x_start could not be exported through DLPack \(Array has been deleted"):
        noised(Freed(cupy, cupy.asarray(rows(rng, 2, 5)).host, 0))


def test_a_tensor_that_lives_no_longer_than_the_call(cupy, rng):
    """The call holds what it was given until all is asked; then memory is freed in the order of the stream."""
    x = rows(rng, 2, 5)
    made = noised(cupy.asarray(x))
    np.testing.assert_array_equal(made.get(), noised(x))


@pytest.mark.parametrize("strides", [(20, 0), (0, 4), (-20, 4), (20, -4), (40, 8)])
def test_strides(cupy, strides):
    """Neither zero nor negative strides, nor gaps, but rows of a prediction that are one row again and again."""
    memory = cupy.asarray(np.arange(40, dtype=np.float32)).host
    start = memory[20:]
    host = np.lib.stride_tricks.as_strided(start, (2, 5), strides)
    view, target = ndarray(cupy, host, 0), np.zeros((2, 5), np.float32)
    with pytest.raises(ShapeError, match="x_start must be C-contiguous and aligned"):
        noised(view)
    if strides == (0, 4):
        errors = ops.eps_error(view, cupy.asarray(target)).get()
        np.testing.assert_array_equal(errors, ops.eps_error(host, target))
        return
    with pytest.raises(ShapeError, match="prediction must have C-contiguous or channels-last, aligned rows"):
        ops.eps_error(view, cupy.asarray(target))


def test_an_unaligned_view(cupy):
    memory = cupy.asarray(np.zeros(64, np.uint8)).host
    host = np.ndarray((2, 5), np.float32, memory.data, offset=2)
    aligned = ndarray(cupy, host, 0)
    with pytest.raises(ShapeError, match="aligned"):
        noised(aligned)
    with pytest.raises(ShapeError, match="aligned"):
        ops.eps_error(aligned, cupy.empty((2, 5)))


def test_a_stream_of_another_device(cupy, rng):
    cupy.shim.shim_set_devices(2, 13000)
    x, stream = cupy.asarray(rows(rng, 2, 5)), cupy.stream(1)
    with pytest.raises(DeviceError, match="CUDA failed in"):
        ops.add_noise(x, 1.0, 1.0, stream=stream, **KEY)
    cupy.shim.shim_set_devices(1, 13000)
    noised(x)  # on the right one


def test_no_driver(cupy):
    cupy.shim.shim_set_devices(0, 0)
    assert cuda.why_not() == "there is no NVIDIA driver"
    with pytest.raises(DeviceError, match="can not compute on cuda:0: there is no NVIDIA driver"):
        noised(cupy.empty((2, 5)))
    cupy.shim.shim_set_devices(1, 13000)


def test_noise_and_its_options_are_checked_before_the_device(cupy):
    for wrong in ({"seed": -1}, {"seed": 1 << 64}, {"index": -1}, {"timestep": 1 << 32}):
        with pytest.raises((InputError, OverflowError, DTypeError)):
            ops.add_noise(cupy.empty((2, 5)), 1.0, 1.0, **{**KEY, **wrong})


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
def test_fork(cupy, gaussian, rng, monkeypatch):
    """A driver that was found before the fork is none in the child, where the CPU still works."""
    monkeypatch.setattr(cuda, "_asked", set())
    x = gaussian.sample([1], rng)[0]
    classifier = diffcls.Classifier(on_device(cupy, gaussian), policy=Fixed(4))
    classifier(x)
    assert cuda.is_available()
    here, there = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_the_child_with, args=(there, classifier, x))
    child.start()
    name, words = here.recv()
    reason, losses = here.recv()
    child.join()
    assert name == "DeviceError" and "in use before this process was forked" in words and "spawn" in words
    assert reason in words
    host = diffcls.Denoiser(
        lambda x_t, t, c: x_t, shape=(12,), schedule=gaussian.schedule, n_classes=5, framework="numpy"
    )
    assert losses == diffcls.classify(x, model=host, policy=Fixed(4)).losses.tolist()
    assert cuda.is_available() and child.exitcode == 0


def in_the_child_with(pipe, classifier, x):
    """The classifier that was made before the fork."""
    try:
        classifier(x)
        pipe.send(("no error", ""))
    except Exception as error:
        pipe.send((type(error).__name__, str(error)))
    schedule = classifier.denoiser.schedule
    host = diffcls.Denoiser(lambda x_t, t, c: x_t, shape=(12,), schedule=schedule, n_classes=5, framework="numpy")
    pipe.send((cuda.why_not(), diffcls.classify(x, model=host, policy=Fixed(4)).losses.tolist()))
    pipe.close()
