"""Threads and instruction sets: their two environment variables, `set_num_threads`, and that no number depends on them."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import diffcls
from diffcls import Fixed, _core
from diffcls.models import demo_pictures
from diffcls.threads import backend

SIMD = _core.Cpu.available()


def python(script, **variables):
    """A fresh process, where nothing has been set yet."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DIFFCLS_")}
    return subprocess.run(
        [sys.executable, "-c", script], env={**environment, **variables}, capture_output=True, text=True, timeout=120
    )


def output(script, **variables):
    done = python(script, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def threads_as_before():
    before = diffcls.get_num_threads()
    yield
    diffcls.set_num_threads(before)


ASK = "import diffcls; from diffcls.threads import backend; print(diffcls.get_num_threads(), backend().simd)"


def test_threads_are_the_processors_of_the_process_by_default():
    assert output(ASK) == [str(min(256, len(os.sched_getaffinity(0)))), SIMD[-1]]
    pinned = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); {ASK}"
    assert output(pinned)[0] == "1"


@pytest.mark.parametrize("n", ["1", "3", "256", "007"])
def test_number_of_threads_by_environment(n):
    assert output(ASK, DIFFCLS_NUM_THREADS=n)[0] == str(int(n))


@pytest.mark.parametrize("n", ["0", "257", "-1", "", "two", "1.5", "²", "9" * 40])
def test_a_wrong_number_by_environment_is_said_on_first_use(n):
    script = """
import diffcls
try:
    diffcls.get_num_threads()
except diffcls.InputError as error:
    print(error)
diffcls.set_num_threads(2)
print(diffcls.get_num_threads())
"""
    words = f"DIFFCLS_NUM_THREADS is {n!r}, must be an integer from 1 to 256"
    assert output(script, DIFFCLS_NUM_THREADS=n) == [*words.split(), "2"]


@pytest.mark.parametrize("simd", ["auto", *SIMD])
def test_instruction_set_by_environment(simd):
    chosen = SIMD[-1] if simd == "auto" else simd
    assert output(ASK, DIFFCLS_SIMD=simd)[1] == chosen
    script = "import diffcls; from diffcls.threads import backend; diffcls.set_num_threads(2); print(backend().simd)"
    assert output(script, DIFFCLS_SIMD=simd) == [chosen]


@pytest.mark.parametrize("simd", ["", "sse9", "AVX2", "neon"])
def test_a_wrong_instruction_set_by_environment(simd):
    done = python("import diffcls; diffcls.ops.normal(3, seed=0, index=0)", DIFFCLS_SIMD=simd)
    assert f"InputError: DIFFCLS_SIMD is {simd!r}, must be one of auto, scalar" in done.stderr
    command = [sys.executable, "-m", "diffcls", "info"]
    done = subprocess.run(
        command, env={**os.environ, "DIFFCLS_SIMD": simd}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_no_number_depends_on_the_variables():
    """Noise, losses and decisions around a callable, printed as bits."""
    script = """
import numpy as np, diffcls
schedule = diffcls.Schedule.linear(1000)
means = np.random.default_rng(0).standard_normal((4, 3000)).astype(np.float32)
predict = lambda x_t, t, cond: x_t * np.float32(0.5) - means[cond]
denoiser = diffcls.Denoiser(predict, shape=(3000,), schedule=schedule, n_classes=4)
result = diffcls.classify(means[:3], model=denoiser, policy=diffcls.Race(pool=60))
print(diffcls.ops.normal(5000, seed=1, index=2).tobytes().hex(), result.losses.tobytes().hex(), result.n_evals.tobytes().hex())
"""
    expected = output(script, DIFFCLS_SIMD="scalar", DIFFCLS_NUM_THREADS="1")
    for simd, n in zip(SIMD, ("4", "2", "5"), strict=False):
        assert output(script, DIFFCLS_SIMD=simd, DIFFCLS_NUM_THREADS=n) == expected


def test_set_num_threads(threads_as_before):
    for n in (1, 4, np.int64(3), 256):
        diffcls.set_num_threads(n)
        assert diffcls.get_num_threads() == backend().n_threads == n
    for wrong in (0, 257, -1, 2.0, "2", True, None):
        with pytest.raises(ValueError, match=f"n is {wrong!r}, must be an integer from 1 to 256"):
            diffcls.set_num_threads(wrong)
    assert diffcls.get_num_threads() == 256  # what is refused changes nothing


def test_threads_start_and_end_with_their_setting():
    """The caller is one of them; a smaller number ends the others."""
    script = """
import os, diffcls
from diffcls.threads import backend
before = len(os.listdir("/proc/self/task"))
for n in (1, 5, 2, 1):
    diffcls.set_num_threads(n)
    print(len(os.listdir("/proc/self/task")) - before)
"""
    assert output(script) == ["0", "4", "1", "0"]


def equal(a, b):
    for name in ("losses", "stderr", "excess", "n_trials", "alive", "n_evals", "index"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def in_threads(n, work):
    """What `work` gave in each of n threads that begin together."""
    got, together = [None] * n, threading.Barrier(n)

    def run(i):
        together.wait()
        got[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@pytest.mark.parametrize("native", [True, False])
def test_eight_threads_on_one_classifier_as_one_thread(native, gaussian, rng, threads_as_before):
    if native:
        images, classifier = demo_pictures.load()[0][:2], diffcls.Classifier(policy=Fixed(2))
    else:
        images = gaussian.sample(rng.integers(0, 5, 6), rng)
        classifier = diffcls.Classifier(gaussian.denoiser())
    diffcls.set_num_threads(1)
    expected = classifier(images)
    for n_threads in (1, 3):
        diffcls.set_num_threads(n_threads)
        for results in in_threads(8, lambda i: classifier(images)):
            equal(results, expected)
    streams = in_threads(8, lambda i: list(classifier.stream(images)))
    for results in streams:
        for got, wanted in zip(results, expected, strict=True):
            equal(got, wanted)


def test_threads_may_be_set_while_calls_run(gaussian, rng, threads_as_before):
    images = gaussian.sample(rng.integers(0, 5, 3), rng)
    classifier = diffcls.Classifier(gaussian.denoiser())
    expected = classifier(images)

    def work(i):
        if i == 0:
            for n in (1, 2, 3, 4, 2) * 5:
                diffcls.set_num_threads(n)
            return expected
        return classifier(images)

    for results in in_threads(6, work):
        equal(results, expected)
