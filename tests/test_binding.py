"""The callable's side of the core: memory, exceptions, interruption, re-entrance."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import memory
import numpy as np
import pytest

import diffcls
from diffcls import Fixed


def make(gaussian, predict, **options):
    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5}
    return diffcls.Denoiser(predict, **{**facts, **options})


@pytest.fixture
def x(gaussian, rng):
    return gaussian.sample([1, 2, 3], rng)


def test_x_t_is_lent_and_its_memory_used_again(gaussian, x):
    addresses = []

    def predict(x_t, t, cond):
        addresses.append(x_t.ctypes.data)
        return gaussian.predict(x_t, t, cond)

    diffcls.classify(x, model=make(gaussian, predict), policy=Fixed(50), batch_size=10)
    assert len(addresses) == 75 and len(set(addresses)) == 1


def test_a_kept_x_t_stays_as_it_was(gaussian, x):
    kept, copies = [], []

    def predict(x_t, t, cond):
        kept.append(x_t[1:])  # a view holds the memory too
        copies.append(x_t[1:].copy())
        return gaussian.predict(x_t, t, cond)

    diffcls.classify(x, model=make(gaussian, predict), policy=Fixed(50), batch_size=10)
    gc.collect()
    for view, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(view, copy)
    assert len({view.ctypes.data for view in kept}) == len(kept)


@pytest.mark.torch
def test_torch_shares_memory_both_ways(gaussian, x):
    torch = pytest.importorskip("torch")
    seen, given = [], []

    def predict(x_t, t, cond):
        assert t.dtype == torch.int64 and not torch.is_grad_enabled()
        seen.append(x_t.data_ptr())
        answer = torch.from_numpy(gaussian.predict(x_t.numpy(), t.numpy(), cond.numpy()))
        given.append(weakref.ref(answer))
        return answer

    expected = diffcls.classify(x, model=make(gaussian, gaussian.predict))
    got = diffcls.classify(x, model=make(gaussian, predict, framework="torch"))
    np.testing.assert_array_equal(got.losses, expected.losses)
    assert len(set(seen)) == 1
    gc.collect()
    assert all(reference() is None for reference in given)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_dtype_is_read(gaussian, x, dtype):
    torch = pytest.importorskip("torch")

    def predict(x_t, t, cond):
        return torch.from_numpy(gaussian.predict(x_t.numpy(), t.numpy(), cond.numpy())).to(getattr(torch, dtype))

    def rounded(x_t, t, cond):
        return torch.from_numpy(gaussian.predict(x_t, t, cond)).to(getattr(torch, dtype)).float().numpy()

    got = diffcls.classify(x, model=make(gaussian, predict, framework="torch"), policy=Fixed(20))
    np.testing.assert_array_equal(
        got.losses, diffcls.classify(x, model=make(gaussian, rounded), policy=Fixed(20)).losses
    )


@pytest.mark.torch
def test_a_torch_module_is_evaluated_and_left_as_it_was(gaussian, x):
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.9)
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x_t, t, cond):
            return self.drop(self.weight * torch.from_numpy(gaussian.predict(x_t.numpy(), t.numpy(), cond.numpy())))

    model = Model().train()
    got = diffcls.classify(x, model=make(gaussian, model))
    np.testing.assert_array_equal(got.losses, diffcls.classify(x, model=make(gaussian, gaussian.predict)).losses)
    assert model.training and model.drop.training


def test_strided_answers_are_read_right(gaussian, x):
    def predict(x_t, t, cond):
        wide = np.full((len(t), 36), np.nan, np.float32)
        wide[:, ::-3] = gaussian.predict(x_t, t, cond)
        return wide[:, ::-3]

    expected = diffcls.classify(x, model=make(gaussian, gaussian.predict))
    np.testing.assert_array_equal(diffcls.classify(x, model=make(gaussian, predict)).losses, expected.losses)
    reverse = make(gaussian, lambda x_t, t, c: gaussian.predict(x_t, t, c)[::-1][::-1])
    np.testing.assert_array_equal(diffcls.classify(x, model=reverse).losses, expected.losses)
    flat = make(gaussian, lambda x_t, t, c: memoryview(gaussian.predict(x_t, t, c)))
    np.testing.assert_array_equal(diffcls.classify(x, model=flat).losses, expected.losses)


def test_a_denoiser_may_scribble_on_its_input(gaussian, x):
    def predict(x_t, t, cond):
        answer = gaussian.predict(x_t, t, cond)
        x_t[:] = np.nan
        return answer

    expected = diffcls.classify(x, model=make(gaussian, gaussian.predict))
    np.testing.assert_array_equal(diffcls.classify(x, model=make(gaussian, predict)).losses, expected.losses)


def test_an_answer_that_is_the_input(gaussian, x):
    result = diffcls.classify(x, model=make(gaussian, lambda x_t, t, c: x_t), policy=Fixed(10), batch_size=7)
    assert np.isfinite(result.losses).all() and (result.index == 0).all()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda p: None, diffcls.DenoiserError, "the denoiser's prediction is <class 'NoneType'>"),
        (lambda p: "noise", diffcls.DenoiserError, "<class 'str'>"),
        (lambda p: list(p), diffcls.DenoiserError, "<class 'list'>"),
        (lambda p: p[:-1], diffcls.ShapeError, r"has shape \(\d+, 12\), must have \(\d+, 12\)"),
        (lambda p: p[:, :5], diffcls.ShapeError, r"must have \(\d+, 12\) like x_t"),
        (lambda p: p[..., None], diffcls.ShapeError, "must have"),
        (lambda p: p.astype(np.int32), diffcls.DTypeError, "dtype int32"),
        (lambda p: p.astype(complex), diffcls.DTypeError, "dtype complex128"),
        (lambda p: p.astype(">f4"), diffcls.DTypeError, "byte order"),
    ],
)
def test_wrong_answers(gaussian, x, answer, error, message):
    denoiser = make(gaussian, lambda x_t, t, c: answer(gaussian.predict(x_t, t, c)))
    with pytest.raises(error, match=message):
        diffcls.classify(x, model=denoiser)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("element", [0, 11])
def test_a_prediction_that_is_not_finite_is_an_error(gaussian, x, bad, element):
    def predict(x_t, t, cond):
        answer = gaussian.predict(x_t, t, cond)
        answer[(cond == 3) & (t > 500), element] = bad
        return answer

    with pytest.raises(diffcls.NonFiniteError, match="NaN or infinity for class '3' at timestep") as caught:
        diffcls.classify(x, model=make(gaussian, predict))
    assert isinstance(caught.value, ArithmeticError)
    assert caught.value.class_index == 3 and caught.value.timestep > 500


def test_exceptions_pass_through_and_nothing_breaks(gaussian, x):
    class Mine(Exception):
        pass

    calls = []

    def predict(x_t, t, cond):
        calls.append(1)
        if len(calls) == 3:
            raise Mine("in the third batch")
        return gaussian.predict(x_t, t, cond)

    classifier = diffcls.Classifier(make(gaussian, predict), batch_size=10)
    with pytest.raises(Mine, match="third"):
        classifier(x)
    np.testing.assert_array_equal(
        classifier(x).losses, diffcls.classify(x, model=make(gaussian, gaussian.predict)).losses
    )


def test_a_denoiser_may_classify(gaussian, x):
    inner = diffcls.Classifier(make(gaussian, gaussian.predict), policy=Fixed(10))
    expected = inner(x)
    seen = []

    def predict(x_t, t, cond):
        seen.append(inner(x).losses)
        return gaussian.predict(x_t, t, cond)

    result = diffcls.classify(x, model=make(gaussian, predict), policy=Fixed(10))
    np.testing.assert_array_equal(result.losses, expected.losses)
    for losses in seen:
        np.testing.assert_array_equal(losses, expected.losses)


def test_a_denoiser_may_use_another_thread(gaussian, x):
    def predict(x_t, t, cond):
        box = []
        worker = threading.Thread(target=lambda: box.append(gaussian.predict(x_t, t, cond)))
        worker.start()
        worker.join()
        return box[0]

    expected = diffcls.classify(x, model=make(gaussian, gaussian.predict))
    np.testing.assert_array_equal(diffcls.classify(x, model=make(gaussian, predict)).losses, expected.losses)


def test_a_loop_is_not_for_its_own_callbacks(gaussian, x):
    box = []

    def predict(x_t, t, cond):
        box[0].advance(drain=True)

    classifier = diffcls.Classifier(make(gaussian, predict))
    box.append(classifier.make_loop())
    box[0].add(x[0], 0)
    with pytest.raises(RuntimeError, match="is running"):
        box[0].advance(drain=True)
    with pytest.raises(RuntimeError, match="has failed before"):
        box[0].advance(drain=True)


def test_an_image_that_runs_the_loop_while_it_is_added(gaussian, x):
    """Its conversion to an array starts the loop in another thread: the addition is refused."""
    started, go_on = threading.Event(), threading.Event()

    def predict(x_t, t, cond):
        started.set()
        go_on.wait(10)
        return gaussian.predict(x_t, t, cond)

    loop = diffcls.Classifier(make(gaussian, predict), policy=Fixed(2)).make_loop()
    loop.add(x[0], 0)
    worker = threading.Thread(target=lambda: loop.advance(drain=True))

    class Image:
        def __array__(self, dtype=None, copy=None):
            worker.start()
            started.wait(10)
            return x[1]

    with pytest.raises(RuntimeError, match="is running"):
        loop.add(Image(), 1)
    go_on.set()
    worker.join()


def test_cycles_are_collected(gaussian):
    class Predict:
        def __call__(self, x_t, t, cond):
            return gaussian.predict(x_t, t, cond)

    predict = Predict()
    classifier = diffcls.Classifier(make(gaussian, predict))
    predict.loop = classifier.make_loop()
    watch = weakref.ref(predict)
    del predict, classifier
    gc.collect()
    assert watch() is None


def test_conditions_are_given_as_rows(gaussian, x):
    conditions = {"mean": gaussian.means, "id": np.arange(5)}

    def predict(x_t, t, cond):
        np.testing.assert_array_equal(gaussian.means[cond["id"]], cond["mean"])
        return gaussian.predict(x_t, t, cond["id"])

    denoiser = make(gaussian, predict, conditions=conditions, n_classes=None)
    expected = diffcls.classify(x, model=make(gaussian, gaussian.predict))
    np.testing.assert_array_equal(diffcls.classify(x, model=denoiser).losses, expected.losses)


def test_continuous_time_is_float32(gaussian, rng):
    schedule, seen = diffcls.Schedule.flow(100), []

    def predict(x_t, t, cond):
        seen.append(t.copy())
        return np.zeros_like(x_t)

    denoiser = make(gaussian, predict, schedule=schedule, prediction_type="flow_prediction")
    diffcls.classify(gaussian.sample([0], rng)[0], model=denoiser, policy=Fixed(100))
    assert {t.dtype for t in seen} == {np.dtype(np.float32)}
    np.testing.assert_allclose(np.unique(np.concatenate(seen)), schedule.time.astype(np.float32))


@pytest.mark.parametrize("native", [False, True])
def test_interrupt_stops_within_a_batch(native):
    """Ctrl-C during a long run: KeyboardInterrupt at once, and the classifier works afterwards."""
    model = "None" if native else "slow"
    script = f"""
        import signal, time
        import numpy as np
        import diffcls
        from diffcls.models import demo_pictures

        def predict(x_t, t, cond):
            time.sleep(0.01)
            return np.zeros_like(x_t)

        slow = diffcls.Denoiser(predict, shape=(28, 28), schedule=diffcls.Schedule.linear(), n_classes=20)
        pictures = demo_pictures.load()[0]
        images = pictures if {native} else pictures / np.float32(255)
        classifier = diffcls.Classifier({model}, policy=diffcls.Fixed(1000))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        began = time.monotonic()
        try:
            classifier(images)
        except KeyboardInterrupt:
            assert time.monotonic() - began < 20, "it went on"
            quick = diffcls.Classifier({model}, policy=diffcls.Fixed(2))
            assert len(quick(images[:2])) == 2
            print("stopped")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "stopped", done.stderr


@pytest.mark.memory
@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_memory_does_not_grow():
    assert memory.growth(2000) < memory.LIMIT


def test_signals_reach_the_default_handler_again():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
