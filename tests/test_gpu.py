"""PyTorch and CuPy on a real device: what the shim can not have.  Skipped where there is none; `make gpu` runs it.

Kernels and the loop below Python have their own tests on the device (`make -C tests/cuda check-real`).
"""

import threading

import numpy as np
import pytest

import diffcls
from diffcls import DeviceWarning, Fixed, Race, ops
from diffcls.errors import DeviceError, NonFiniteError

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU"),
    pytest.mark.skipif(not diffcls.cuda.is_available(), reason=f"diffcls can use no GPU: {diffcls.cuda.why_not()}"),
]

SCHEDULE = diffcls.Schedule.linear(1000)
SHAPE, CLASSES = (4, 16, 16), 5
KEY = {"seed": 3, "index": 1, "timestep": 2}


class Net(torch.nn.Module):
    """Convolutions, so that layouts matter; classes differ by a table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(4, 16, 3, padding=1), torch.nn.Conv2d(16, 4, 3, padding=1)
        self.classes = torch.nn.Embedding(CLASSES, 16)
        self.seen = []

    def forward(self, x_t, t, cond):
        self.seen.append((x_t.dtype, x_t.is_contiguous(memory_format=torch.channels_last), x_t.data_ptr(), len(x_t)))
        own = self.classes(cond)[:, :, None, None] + (t.to(x_t.dtype) / 1000)[:, None, None, None]
        return self.last(torch.relu(self.first(x_t) + own))


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((6, *SHAPE)).astype(np.float32)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """No TF32, no algorithms that are chosen by timing."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def model(net, **options):
    return diffcls.Denoiser(net, shape=SHAPE, schedule=SCHEDULE, n_classes=CLASSES, **options)


def pointwise(x_t, t, cond):
    """A denoiser whose every operation is rounded alike on every device."""
    return x_t * 0.5 + (cond.to(x_t.dtype) * 0.125)[:, None, None, None]


def as_torch(predict, device):
    options = {"framework": "torch", "device": device}
    return diffcls.Denoiser(predict, shape=SHAPE, schedule=SCHEDULE, n_classes=CLASSES, **options)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_noise_is_the_hosts_to_the_bit():
    out = torch.empty(1 << 24, device="cuda")
    ops.normal(out.shape, out=out, **KEY)
    np.testing.assert_array_equal(out.cpu().numpy(), ops.normal(tuple(out.shape), **KEY))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("last", [False, True])
def test_add_noise_is_the_hosts_rounded(dtype, last, images):
    wanted = torch.from_numpy(ops.add_noise(images, 0.8, 0.6, **KEY)).to(getattr(torch, dtype))
    order = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(images.shape, dtype=getattr(torch, dtype), device="cuda", memory_format=order)
    ops.add_noise(torch.from_numpy(images).cuda(), 0.8, 0.6, out=out, **KEY)
    assert torch.equal(out.cpu(), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
def test_errors_are_the_hosts(dtype, last, loss, images):
    order = torch.channels_last if last else torch.contiguous_format
    said = torch.randn(6, 8, 16, 16).to(getattr(torch, dtype)).to(memory_format=order)
    target = torch.from_numpy(images)
    wanted = ops.eps_error(said[:, :4], images, loss=loss, delta=0.5)
    got = ops.eps_error(said.cuda()[:, :4], target.cuda(), loss=loss, delta=0.5)
    np.testing.assert_array_equal(got.cpu().numpy(), wanted)


def test_races_are_the_hosts(images):
    options = {"policy": Race(pool=60, n_min=4), "batch_size": 32}
    wanted = diffcls.classify(images, model=as_torch(pointwise, "cpu"), **options)
    for result, one in zip(diffcls.classify(images, model=as_torch(pointwise, "cuda"), **options), wanted, strict=True):
        np.testing.assert_array_equal(result.losses, one.losses)
        assert result.n_evals == one.n_evals


# ---- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("last", [False, True])
def test_the_module_is_given_what_it_wants(dtype, last, images):
    net = Net().to("cuda", getattr(torch, dtype)).eval()
    net = net.to(memory_format=torch.channels_last) if last else net
    denoiser = model(net, dtype=dtype, memory_format="channels_last" if last else None)
    result = diffcls.classify(images, model=denoiser, policy=Fixed(10), batch_size=16)
    assert {seen[0] for seen in net.seen} == {getattr(torch, dtype)} and all(seen[1] == last for seen in net.seen)
    assert len({seen[2] for seen in net.seen}) == 1  # one tensor, written again
    host = Net().eval()
    wanted = diffcls.classify(images, model=model(host), policy=Fixed(10), batch_size=16)
    np.testing.assert_allclose(
        result.losses, wanted.losses, rtol={"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[dtype]
    )


# ---- streams, threads, memory ----------------------------------------------------------------------------------------


def test_the_current_stream_is_used(images):
    side, x = torch.cuda.Stream(), torch.from_numpy(images).cuda()
    wanted = torch.from_numpy(ops.add_noise(images, 1.0, 0.5, **KEY))
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        x.mul_(1.0)
        made = ops.add_noise(x, 1.0, 0.5, **KEY)
        assert not side.query()  # nobody waited
    side.synchronize()
    assert torch.equal(made.cpu(), wanted)


def test_threads_have_their_own_streams(images):
    wanted = diffcls.classify(images, model=as_torch(pointwise, "cuda"), policy=Fixed(20)).losses
    got = [None] * 4

    def work(i):
        with torch.cuda.stream(torch.cuda.Stream()):
            got[i] = diffcls.classify(images, model=as_torch(pointwise, "cuda"), policy=Fixed(20)).losses

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for losses in got:
        np.testing.assert_array_equal(losses, wanted)


def test_a_full_memory_halves_the_batch(images):
    free = torch.cuda.mem_get_info()[0]

    def predict(x_t, t, cond):
        torch.empty(len(x_t) * free // 20, dtype=torch.uint8, device="cuda")  # 20 rows and more do not fit
        return pointwise(x_t, t, cond)

    wanted = diffcls.classify(images, model=as_torch(pointwise, "cuda"), policy=Fixed(20), batch_size=64)
    classifier = diffcls.Classifier(as_torch(predict, "cuda"), policy=Fixed(20), batch_size=64)
    with pytest.warns(DeviceWarning, match="out of memory for 64 rows"):
        np.testing.assert_array_equal(classifier(images).losses, wanted.losses)
    assert classifier.batch_size == 16


def test_nothing_is_leaked(images):
    classifier = diffcls.Classifier(as_torch(pointwise, "cuda").with_cuda_graph(), policy=Fixed(40), batch_size=8)
    classifier(images)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info()[0]
    for _ in range(5):
        classifier(images)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] >= before - (8 << 20)


def test_what_is_not_finite_is_named(images):
    def predict(x_t, t, cond):
        return torch.where((cond == 3)[:, None, None, None], torch.nan, pointwise(x_t, t, cond))

    with pytest.raises(NonFiniteError, match="class '3' at timestep") as told:
        diffcls.classify(images, model=as_torch(predict, "cuda"), policy=Fixed(20))
    assert told.value.class_index == 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one device")
def test_another_device_is_refused(images):
    with pytest.raises(DeviceError, match="is on cuda:1, must be on cuda:0"):
        ops.eps_error(torch.from_numpy(images).cuda(0), torch.from_numpy(images).cuda(1))


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_recorded_steps_give_the_same(images):
    net = Net().cuda().eval()
    options = {"policy": Race(pool=120, n_min=4), "batch_size": 16}
    wanted = diffcls.classify(images, model=model(net), **options)
    n_calls = len(net.seen)
    net.seen.clear()
    results = diffcls.classify(images, model=model(net, cuda_graph=True), **options)
    np.testing.assert_allclose(results.losses, wanted.losses, rtol=1e-6)
    assert 5 <= len(net.seen) < n_calls / 2  # most batches were replayed


def test_recorded_pointwise_steps_are_the_hosts(images):
    options = {"policy": Race(pool=120, n_min=4), "batch_size": 16}
    wanted = diffcls.classify(images, model=as_torch(pointwise, "cpu"), **options)
    results = diffcls.classify(images, model=as_torch(pointwise, "cuda").with_cuda_graph(), **options)
    np.testing.assert_array_equal(results.losses, wanted.losses)


def test_conditions_of_a_table_are_replayed(images):
    table = torch.randn(CLASSES, 7)

    def predict(x_t, t, cond):
        return x_t * 0.5 + cond["embedding"][:, :4, None, None] * 0.125

    facts = {"shape": SHAPE, "schedule": SCHEDULE, "conditions": {"embedding": table}, "framework": "torch"}
    options = {"policy": Fixed(60), "batch_size": 10}
    wanted = diffcls.classify(images, model=diffcls.Denoiser(predict, device="cuda", **facts), **options)
    graphs = diffcls.Denoiser(predict, device="cuda", cuda_graph=True, **facts)
    np.testing.assert_array_equal(diffcls.classify(images, model=graphs, **options).losses, wanted.losses)


def test_a_step_that_waits_goes_on_call_by_call(images):
    def predict(x_t, t, cond):
        x_t.sum().item()  # waits for the device
        return pointwise(x_t, t, cond)

    options = {"policy": Fixed(60), "batch_size": 10}
    wanted = diffcls.classify(images, model=as_torch(pointwise, "cuda"), **options)
    with pytest.warns(DeviceWarning, match="can not be recorded as a CUDA graph"):
        results = diffcls.classify(images, model=as_torch(predict, "cuda").with_cuda_graph(), **options)
    np.testing.assert_array_equal(results.losses, wanted.losses)
    torch.ones(3, device="cuda").sum().item()  # the device is as it was


# ---- the native DiT --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("tf32", 1e-2), ("float16", 1e-2), ("bfloat16", 5e-2)])
def test_the_embedded_model(dtype, bound):
    """Bounds that its rounding alone explains on random pictures; the shim's are in tests/cuda/test_dit.cc."""
    pictures = np.random.default_rng(1).uniform(0, 1, (4, 28, 28)).astype(np.float32)
    options = {"policy": Fixed(16), "batch_size": 64}
    model = diffcls.load(prepare=False)
    wanted = diffcls.classify(pictures, model=model, **options)
    results = diffcls.classify(pictures, model=model, device="cuda", dtype=dtype, **options)
    np.testing.assert_allclose(results.losses, wanted.losses, rtol=bound)
