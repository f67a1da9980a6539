"""Layouts, dtypes, memory and graphs of a device's loop through Python, on the shim of tests/cuda."""

import ctypes

import numpy as np
import pytest
from fake_cupy import ndarray
from test_cuda_shim import cupy, module, on_device, on_host, pytestmark, rows

import diffcls
from diffcls import DeviceWarning, DTypeError, Fixed, InputError, Race, ShapeError, cuda, ops

SHAPE = (3, 2, 2)  # of the same twelve numbers


def test_x_t_in_what_the_denoiser_wants(cupy, gaussian, rng):
    """Written once, in its dtype and with its channels last; the CPU's, rounded by NumPy, to the bit."""
    seen, host_seen = [], []

    def predict(x_t, t, cond):
        seen.append((x_t.host.dtype, x_t.host.strides, x_t.get().copy()))
        return cupy.asarray(gaussian.predict(x_t.get().reshape(-1, 12), t.get(), cond.get()).reshape(x_t.shape))

    def on_the_host(x_t, t, cond):
        x_t = x_t.astype(np.float16)
        host_seen.append(x_t.copy())
        return gaussian.predict(x_t.reshape(-1, 12), t, cond).reshape(x_t.shape)

    facts = {"shape": SHAPE, "schedule": gaussian.schedule, "n_classes": 5}
    images = gaussian.sample([0, 1, 2, 3], rng).reshape(-1, *SHAPE)
    options = {"policy": Race(pool=40, n_min=4), "batch_size": 7}
    layout = {"dtype": "float16", "memory_format": "channels_last"}
    model = diffcls.Denoiser(predict, framework="cupy", **facts, **layout)
    wanted = diffcls.classify(images, model=diffcls.Denoiser(on_the_host, framework="numpy", **facts), **options)
    for result, one in zip(diffcls.classify(images, model=model, **options), wanted, strict=True):
        np.testing.assert_array_equal(result.losses, one.losses)
    assert {(dtype, strides) for dtype, strides, _ in seen} == {(np.dtype("float16"), (24, 2, 12, 6))}
    np.testing.assert_array_equal(seen[0][2], host_seen[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_predictions_with_channels_last(cupy, gaussian, rng, dtype):
    """A channels-last answer, and one that is the first half of more channels: read where they are."""
    prediction, target = rng.standard_normal((3, 8, 5, 6)).astype(dtype), rows(rng, 3, 8, 5, 6)
    last = cupy.moveaxis(cupy.asarray(np.moveaxis(prediction, 1, -1)), -1, 1)
    wanted = ops.eps_error(prediction, target)
    np.testing.assert_array_equal(ops.eps_error(last, cupy.asarray(target)).get(), wanted)
    half = cupy.asarray(np.ascontiguousarray(target[:, :4]))
    wanted = ops.eps_error(prediction[:, :4], target[:, :4])
    np.testing.assert_array_equal(ops.eps_error(last[:, :4], half).get(), wanted)
    np.testing.assert_array_equal(
        ops.eps_error(np.moveaxis(last.host, 0, 0)[:, :4], target[:, :4]), wanted
    )  # the CPU's
    with pytest.raises(ShapeError, match="C-contiguous or channels-last"):
        ops.eps_error(last[:, 1::2], half)


def test_add_noise_writes_what_out_is(cupy, rng):
    x = rows(rng, 2, *SHAPE)
    key = {"seed": 1, "index": 0, "timestep": 0}
    wanted = ops.add_noise(x, 0.8, 0.6, **key)
    for dtype in ("float16", "float32", "float64"):
        plain, last = cupy.empty((2, *SHAPE), dtype), cupy.moveaxis(cupy.empty((2, 2, 2, 3), dtype), -1, 1)
        for out in (plain, last):
            np.testing.assert_array_equal(
                ops.add_noise(cupy.asarray(x), 0.8, 0.6, out=out, **key).get(), wanted.astype(dtype)
            )
    with pytest.raises(ShapeError, match="out must have dense rows"):
        ops.add_noise(cupy.asarray(x), 0.8, 0.6, out=cupy.empty((2, 6, 2, 2))[:, :3], **key)


def test_arrays_of_jax(cupy, rng):
    """JAX has no current stream: it is asked for the default one, and what it gives is not written to."""

    class Array(ndarray):
        pass

    Array.__module__ = "jaxlib._jax"
    x, target = rows(rng, 2, 5), rows(rng, 2, 5)
    there = Array(cupy, cupy.asarray(x).host, 0)
    out = ops.add_noise(there, 0.8, 0.6, out=cupy.empty((2, 5)), seed=1, index=0, timestep=0)
    errors = ops.eps_error(there, cupy.asarray(target), out=cupy.empty(2, "float64"))
    assert there.streams == [1, 1]
    cupy.shim.cudaStreamSynchronize(1)
    np.testing.assert_array_equal(out.host, ops.add_noise(x, 0.8, 0.6, seed=1, index=0, timestep=0))
    np.testing.assert_array_equal(errors.host, ops.eps_error(x, target))
    with pytest.raises(DTypeError, match="arrays of jaxlib on a device can not be written to; give out="):
        ops.eps_error(there, cupy.asarray(target))


def test_memory_formats_that_can_not_be(gaussian):
    facts = {"schedule": gaussian.schedule, "n_classes": 5}
    for shape, framework, wrong, error, words in [
        (SHAPE, "cupy", "channels_first", InputError, "must be 'channels_last'"),
        (SHAPE, "numpy", "channels_last", InputError, "arrays of numpy do not have"),
        ((12,), "cupy", "channels_last", ShapeError, r"shape \(12,\) can not have"),
        (SHAPE, "cupy", "channels_last_3d", ShapeError, "can not have"),
    ]:
        with pytest.raises(error, match=words):
            diffcls.Denoiser(lambda x, t, c: x, shape=shape, framework=framework, memory_format=wrong, **facts)
    model = diffcls.Denoiser(lambda x, t, c: x, shape=SHAPE, framework="cupy", **facts)
    assert model.to(memory_format="channels_last").channels_last and not model.channels_last
    with pytest.raises(InputError, match="cuda_graph needs a predict of torch, this one is of cupy"):
        model.with_cuda_graph()


def test_out_of_memory(cupy, gaussian, rng):
    class OutOfMemoryError(MemoryError):
        pass

    def answer(said, t, cond):
        if len(said) > 5:
            raise OutOfMemoryError("the pool is full")
        return said.astype(np.float32)

    x, policy = gaussian.sample([0, 1, 2], rng), Fixed(20)
    wanted = diffcls.classify(x, model=on_host(gaussian), policy=policy)
    classifier = diffcls.Classifier(on_device(cupy, gaussian, answer), policy=policy, batch_size=16)
    with pytest.warns(DeviceWarning, match="out of memory for 16 rows"):
        np.testing.assert_array_equal(classifier(x).losses, wanted.losses)
    assert classifier.batch_size == 4


# ---- graphs ----------------------------------------------------------------------------------------------------------


class Recorded:
    """What `diffcls.cuda_denoiser.DeviceCall` is for PyTorch, on the shim: its work is host functions in the stream."""

    is_recorded = True

    def __init__(self, cupy, gaussian, batch_size, fault=None):
        self.cupy, self.gaussian, self.fault, self.runtime = cupy, gaussian, fault, cupy.shim
        self.calls, self.replays, self.abandoned = 0, 0, 0
        self.answer = cupy._own(np.zeros((batch_size, 12), np.float32))
        self.numbers, self.graphs, self.running, self.alive = {}, {}, None, []
        self.kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        for name in ("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphLaunch", "cudaGraphDestroy"):
            getattr(self.runtime, name).argtypes = None
        self.stream = ctypes.c_void_p(cupy.current.ptr)

    def input(self, n_rows):
        self.x_t = self.cupy.empty((n_rows, 12))
        return self.x_t

    def later(self, work):
        self.alive.append(self.kind(lambda _: work()))
        assert self.runtime.cudaLaunchHostFunc(self.stream, self.alive[-1], None) == 0

    def __call__(self, x_t, timesteps, time, condition):
        self.calls += 1
        n, graph = len(time), self.running
        own = (
            self.numbers.setdefault(graph, [time.copy(), condition.copy()]) if graph is not None else [time, condition]
        )

        def work():
            said = self.gaussian.predict(self.x_t.host[:n], own[0].astype(np.int64), own[1])
            self.answer.host[:n] = said

        self.later(work)
        if graph is not None and self.fault == "waits":
            self.cupy.wait()
        if graph is not None and self.fault is not None and self.fault != "waits":
            raise self.fault
        return self.answer[:n]

    def record(self, graph):
        assert self.runtime.cudaStreamBeginCapture(self.stream, 0) == 0
        self.running = graph

    def recorded(self, graph):
        made = ctypes.c_void_p()
        self.running = None
        if self.runtime.cudaStreamEndCapture(self.stream, ctypes.byref(made)) != 0:
            raise RuntimeError("the capture was invalidated")
        self.graphs[graph] = made

    def abandon(self, graph):
        self.abandoned += 1
        made = ctypes.c_void_p()
        if self.running is not None and self.runtime.cudaStreamEndCapture(self.stream, ctypes.byref(made)) == 0:
            self.runtime.cudaGraphDestroy(made)
        self.running = None
        self.runtime.cudaGetLastError()

    def replay(self, graph, timesteps, time, condition):
        self.replays += 1
        self.numbers[graph][0][:] = time
        self.numbers[graph][1][:] = condition
        assert self.runtime.cudaGraphLaunch(self.graphs[graph], self.stream) == 0

    def close(self):
        for graph in self.graphs.values():
            self.runtime.cudaGraphDestroy(graph)


def loop_options(classifier, backend):
    denoiser, lowered = classifier.denoiser, classifier._lowered
    return {
        "backend": backend, "shape": denoiser.shape, "alpha": denoiser.schedule.alpha, "sigma": denoiser.schedule.sigma,
        "time": denoiser.schedule.time, "p": denoiser.p, "q": denoiser.q, "n_classes": len(classifier.classes),
        "class_of_arm": classifier.arms.class_of_arm, "condition_offset": classifier.arms.offset,
        "conditions": classifier.arms.conditions, "pool_temperature": 0.0, "trials": lowered.trials,
        "policy": lowered.policy, "loss": "l2", "delta": 1.0, "seed": 0, "noise": None, "batch_size": 8,
        "progress": None, "keep_errors": False,
    }  # fmt: skip


def run(entry, cupy, gaussian, images):
    """The loop itself with that entry: losses of every image."""
    classifier = diffcls.Classifier(on_device(cupy, gaussian), policy=Race(pool=60, n_min=4))
    options = {**loop_options(classifier, cuda.open_backend(0, cupy.current.ptr)), "max_in_flight": 4}
    loop, losses, waiting = diffcls._core.Loop(entry, **options), {}, list(enumerate(images))[::-1]
    while len(losses) < len(images):
        while waiting and loop.wants_image():
            tag, image = waiting.pop()
            loop.add(image, tag)
        finished = loop.advance(drain=not waiting)
        if finished is not None:
            losses[finished[0]] = finished[1]["losses"]
    entry.close()
    return np.stack([losses[i] for i in range(len(images))])


def test_graphs(cupy, gaussian, rng):
    images = gaussian.sample([0, 1, 2, 3, 4, 0], rng).astype(np.float32)
    wanted = diffcls.classify(images, model=on_host(gaussian), policy=Race(pool=60, n_min=4))
    entry = Recorded(cupy, gaussian, 8)
    np.testing.assert_array_equal(run(entry, cupy, gaussian, images), wanted.losses)
    assert entry.replays > 10 and entry.calls < 15 and entry.abandoned == 0 and set(entry.graphs) == {0, 1}


@pytest.mark.parametrize(
    ("fault", "words"),
    [("waits", "capture was invalidated"), (ValueError("a branch"), "a branch"), (MemoryError("full"), "full")],
)
def test_what_can_not_be_recorded_goes_on(cupy, gaussian, rng, fault, words):
    images = gaussian.sample([0, 1, 2], rng).astype(np.float32)
    wanted = diffcls.classify(images, model=on_host(gaussian), policy=Race(pool=60, n_min=4))
    entry = Recorded(cupy, gaussian, 8, fault)
    with pytest.warns(DeviceWarning, match=rf"can not be recorded as a CUDA graph.*{words}") as seen:
        losses = run(entry, cupy, gaussian, images)
    np.testing.assert_array_equal(losses, wanted.losses)
    assert len(seen) == 1 and entry.abandoned == 1 and entry.replays == 0


def test_an_interrupt_while_recording_stays_one(cupy, gaussian, rng):
    entry = Recorded(cupy, gaussian, 8, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(entry, cupy, gaussian, gaussian.sample([0, 1, 2], rng).astype(np.float32))
    assert entry.abandoned == 1
