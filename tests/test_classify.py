"""`classify` and `Classifier` against closed forms, and what may not change a number."""

import sys
import threading
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from gaussian import GaussianClasses

import diffcls
from diffcls import Fixed, Race, Staged
from diffcls.models import demo_pictures


def test_converges_to_the_closed_form(gaussian, rng):
    """The mean of 4,000 trials is within five of its standard errors of the exact expectation, for every class."""
    x = gaussian.sample([2], rng)[0]
    result = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(4000))
    for k in range(5):
        assert abs(result.losses[k] - gaussian.expected_loss(x, k)) < 5 * result.stderr[k]
        assert result.stderr[k] < 0.02 * result.losses[k] + 0.05


@pytest.mark.parametrize(
    "policy", [Race(), Fixed(60), Staged((20, 60), (3, 1)), Staged((20, 50), (3, 1), nested=False)]
)
def test_answers_the_nearest_class(gaussian, rng, policy):
    """With equal priors and one variance the best class is the one with the nearest mean."""
    x = gaussian.sample(rng.integers(0, 5, 40), rng)
    nearest = ((x[:, None] - gaussian.means) ** 2).sum(axis=2).argmin(axis=1)
    results = diffcls.classify(x, model=gaussian.denoiser(), policy=policy)
    assert (results.index == nearest).mean() >= 0.95
    assert results.label == [str(i) for i in results.index]


def test_race_answers_as_the_full_pool_for_less(gaussian, rng):
    x = gaussian.sample(rng.integers(0, 5, 60), rng)
    raced = diffcls.classify(x, model=gaussian.denoiser())
    full = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(500))
    assert (raced.index == full.index).mean() >= 0.95
    assert raced.n_evals.sum() * 5 < full.n_evals.sum() == 60 * 2500


def equal(a, b):
    for name in ("losses", "stderr", "excess", "n_trials", "alive", "n_evals", "index"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 3, 32, 1000])
def test_batches_change_nothing(gaussian, rng, batch_size):
    x = gaussian.sample(rng.integers(0, 5, 9), rng)
    equal(
        diffcls.classify(x, model=gaussian.denoiser(), batch_size=batch_size),
        diffcls.classify(x, model=gaussian.denoiser()),
    )


def test_company_and_order_change_nothing(gaussian, rng):
    x = gaussian.sample(rng.integers(0, 5, 100), rng)
    together = diffcls.classify(x, model=gaussian.denoiser())
    order = rng.permutation(100)
    equal(together[7], diffcls.classify(x[7], model=gaussian.denoiser()))
    shuffled = diffcls.classify(x[order], model=gaussian.denoiser())
    for position, original in enumerate(order):
        equal(shuffled[position], together[int(original)])


def test_threads_change_nothing(gaussian, rng):
    pictures = demo_pictures.load()[0][:6]
    classifier = diffcls.Classifier()
    before = diffcls.get_num_threads()
    try:
        diffcls.set_num_threads(1)
        one = classifier(pictures)
        diffcls.set_num_threads(3)
        equal(classifier(pictures), one)
    finally:
        diffcls.set_num_threads(before)


def test_seed_changes_the_noise_and_nothing_else_does(gaussian, rng):
    x = gaussian.sample([1], rng)[0]
    a, b, c = (diffcls.classify(x, model=gaussian.denoiser(), seed=s, policy=Fixed(20)) for s in (0, 0, 2**64 - 1))
    equal(a, b)
    assert not np.array_equal(a.losses, c.losses)


def test_a_subset_of_classes_sees_the_same_noise(gaussian, rng):
    x = gaussian.sample([1], rng)[0]
    full = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(30))
    some = diffcls.classify(x, [3, 1], model=gaussian.denoiser(), policy=Fixed(30))
    assert some.classes == ["3", "1"]
    np.testing.assert_array_equal(some.losses, full.losses[[3, 1]])


def test_losses_are_the_method_written_out(gaussian, rng):
    """Noise from `ops.normal`, everything else NumPy in float64."""
    x = gaussian.sample([4], rng)[0]
    result = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(16), loss="l1", seed=5, keep_errors=True)
    table = diffcls.Classifier(gaussian.denoiser(), loss="l1", seed=5).error_table(x[None], n_samples=16)
    s = gaussian.schedule
    for j, (t, index) in enumerate(zip(table.trials["timestep"], table.trials["noise_index"], strict=True)):
        eps = diffcls.ops.normal(12, seed=5, index=int(index), timestep=int(t)).astype(np.float64)
        x_t = s.alpha[t] * x + s.sigma[t] * eps
        for k in range(5):
            predicted = gaussian.predict(x_t[None], np.array([t]), np.array([k]))[0]
            assert result.errors[k, j] == pytest.approx(np.abs(predicted - eps).mean(), rel=2e-4, abs=1e-6)
    np.testing.assert_allclose(result.losses, result.errors.mean(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(table.errors[0], result.errors)


def test_given_noise_is_used(gaussian, rng):
    x, eps = gaussian.sample([0], rng)[0], rng.standard_normal((7, 12)).astype(np.float32)
    result = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(7), noise=eps, keep_errors=True)
    table = diffcls.Classifier(gaussian.denoiser(), noise=eps).error_table(x[None], n_samples=7)
    s = gaussian.schedule
    for j, t in enumerate(table.timesteps):
        x_t = (s.alpha[t] * x + s.sigma[t] * eps[j]).astype(np.float32)
        predicted = gaussian.predict(x_t[None], np.array([t]), np.array([2]))[0]
        assert result.errors[2, j] == pytest.approx(((predicted - eps[j]) ** 2).mean(), rel=1e-3, abs=1e-6)
    with pytest.raises(ValueError, match="noise has 7 rows, the policy makes 8 trials"):
        diffcls.classify(x, model=gaussian.denoiser(), policy=Staged((8,), (1,), nested=False), noise=eps)


def test_antithetic_pairs_cancel_the_linear_term(gaussian, rng):
    x = gaussian.sample([0], rng)[0]
    seen = []

    def predict(x_t, t, cond):
        seen.append((x_t.copy(), t.copy(), cond.copy()))
        return gaussian.predict(x_t, t, cond)

    diffcls.classify(x, [0], model=diffcls.Denoiser(predict, shape=(12,), schedule=gaussian.schedule, n_classes=5),
                     policy=Fixed(10), noise="antithetic")  # fmt: skip
    x_t, t = np.concatenate([s[0] for s in seen]), np.concatenate([s[1] for s in seen])
    np.testing.assert_array_equal(t[0::2], t[1::2])
    middle = gaussian.schedule.alpha[t[0::2], None] * x
    np.testing.assert_allclose(x_t[0::2] + x_t[1::2], 2 * middle, atol=1e-5)


def test_pools(gaussian, rng):
    x = gaussian.sample([3], rng)[0]
    prompts = {"low": ["0", "1"], "high": ["3", "4"], "two": "2"}
    options = {"model": gaussian.denoiser(), "policy": Fixed(25)}
    single = diffcls.classify(x, **options, keep_errors=True)
    best = diffcls.classify(x, prompts, **options)
    np.testing.assert_array_equal(best.losses, [single.losses[:2].min(), single.losses[3:].min(), single.losses[2]])
    assert best.label == "high" and best.n_evals == 125
    mean = diffcls.classify(x, prompts, pool="mean", **options)
    np.testing.assert_allclose(mean.losses, [single.losses[:2].mean(), single.losses[3:].mean(), single.losses[2]])
    soft = diffcls.classify(x, prompts, pool="logmeanexp", temperature=0.05, **options)
    e = single.errors[3:]
    expected = (-0.05 * np.log(np.exp(-(e - e.min(0)) / 0.05).mean(axis=0)) + e.min(0)).mean()
    assert soft.losses[1] == pytest.approx(expected, rel=1e-9)


def test_weighting_is_a_weighted_mean(gaussian, rng):
    x = gaussian.sample([3], rng)[0]
    weighting = np.zeros(1000)
    weighting[300:500] = 1.0
    result = diffcls.classify(x, model=gaussian.denoiser(), weighting=weighting, policy=Fixed(40), keep_errors=True)
    table = diffcls.Classifier(gaussian.denoiser(), weighting=weighting).error_table(x[None], n_samples=40)
    assert table.timesteps.min() >= 300 and table.timesteps.max() < 500
    np.testing.assert_allclose(result.losses, result.errors.mean(axis=1), rtol=1e-12)


def test_priors_and_temperature(gaussian, rng):
    x = gaussian.sample([3], rng)[0]
    priors = {"0": 1, "1": 1, "2": 1, "3": 5, "4": 2}
    result = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(20), priors=priors, temperature=0.3)
    logits = np.log([0.1, 0.1, 0.1, 0.5, 0.2]) - result.excess / 0.3
    np.testing.assert_allclose(result.probabilities, np.exp(logits) / np.exp(logits).sum(), rtol=1e-12)


def test_stream_reads_only_what_it_needs_and_keeps_the_order(gaussian, rng):
    x = gaussian.sample(rng.integers(0, 5, 300), rng)
    read = []

    def source():
        for i, row in enumerate(x):
            read.append(i)
            yield row

    classifier = diffcls.Classifier(gaussian.denoiser())
    stream = classifier.stream(source())
    first = next(stream)
    assert len(read) < 300
    together = classifier(x)
    equal(first, together[0])
    for i, result in enumerate(stream, start=1):
        equal(result, together[i])
    assert i == 299


@pytest.mark.parametrize("policy", [Race(), Race(risk=0.2, ramp=0, caps=None), Staged((10, 100), (2, 1)), Fixed(500)])
def test_replay_equals_live(gaussian, rng, policy):
    x = gaussian.sample(rng.integers(0, 5, 10), rng)
    classifier = diffcls.Classifier(gaussian.denoiser(), policy=policy)
    n = 100 if isinstance(policy, Staged) else 500
    equal(diffcls.replay(classifier.error_table(x, n_samples=n), policy), classifier(x))


def test_replay_of_trials_that_the_table_lacks(gaussian, rng):
    table = diffcls.Classifier(gaussian.denoiser()).error_table(gaussian.sample([0], rng), n_samples=20)
    with pytest.raises(ValueError, match="the table lacks"):
        diffcls.replay(table, Fixed(64))


@pytest.mark.parametrize(
    "shell", [None, SimpleNamespace(), SimpleNamespace(kernel=1)], ids=["none", "terminal", "kernel"]
)
def test_a_bar_comes_in_a_notebook_and_not_where_one_was_only_imported(shell, gaussian, rng, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "tqdm.auto", pytest.importorskip("tqdm"))
    diffcls.classify(gaussian.sample([0], rng), model=gaussian.denoiser(), policy=Fixed(8), progress=True)
    assert ("eval" in capsys.readouterr().err) == hasattr(shell, "kernel")


def test_progress_counts_evaluations(gaussian, rng):
    seen = []
    x = gaussian.sample(rng.integers(0, 5, 3), rng)

    def slow(x_t, t, cond):
        threading.Event().wait(0.06)
        return gaussian.predict(x_t, t, cond)

    denoiser = diffcls.Denoiser(slow, shape=(12,), schedule=gaussian.schedule, n_classes=5)
    result = diffcls.classify(
        x, model=denoiser, policy=Fixed(20), progress=lambda done, most: seen.append((done, most))
    )
    assert [most for _, most in seen] == [300] * len(seen) and len(seen) >= 3
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert result.n_evals.sum() == 300


def test_run_says_how_to_repeat_it(gaussian, rng):
    run = diffcls.classify(gaussian.sample([0], rng)[0], model=gaussian.denoiser(), seed=9).run
    assert run["seed"] == 9 and run["model"] == "gaussian" and run["policy"]["name"] == "Race"
    assert {"versions", "schedule", "templates", "simd", "threads", "device"} <= set(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["1", ""]}, "a prompt is empty"),
        ({"prompts": ["1", "1"]}, "stands twice"),
        ({"prompts": ["1", "seven"]}, "'seven' is not a class of 'gaussian'"),
        ({"prompts": [7]}, "class id 7"),
        ({"prompts": {"a": []}}, "class 'a' has no prompt"),
        ({"prompts": {"a": "1", "b": "1"}}, "mean the same class"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": -1}, "seed is -1"),
        ({"loss": "mse"}, "loss is 'mse'"),
        ({"pool": "max"}, "pool is 'max'"),
        ({"weighting": "best"}, "weighting is 'best'"),
        ({"weighting": np.ones(3)}, r"weighting has shape \(3,\)"),
        ({"weighting": -np.ones(1000)}, "not negative"),
        ({"priors": [1, 2]}, "5 positive numbers"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"noise": "pink"}, "noise is 'pink'"),
        ({"noise": np.ones((3, 11))}, r"noise has shape \(3, 11\)"),
        ({"noise": np.full((3, 12), np.nan)}, "noise must be finite"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"templates": "a photo"}, "has no {}"),
    ],
)
def test_impossible_options(gaussian, options, message):
    with pytest.raises(ValueError, match=message):
        diffcls.classify(np.zeros(12, np.float32), model=gaussian.denoiser(), **options)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros(11, np.float32), ValueError, r"image has shape \(11,\)"),
        (np.zeros((2, 2, 12), np.float32), ValueError, "image has shape"),
        (np.full(12, np.nan, np.float32), ValueError, "must be finite"),
        (np.full(12, np.inf, np.float32), ValueError, "must be finite"),
        (np.zeros(12, complex), TypeError, "complex128"),
        (None, TypeError, "image is NoneType"),
        ("picture.png", TypeError, "image is str"),
    ],
)
def test_impossible_images(gaussian, image, error, message):
    with pytest.raises(error, match=message):
        diffcls.classify(image, model=gaussian.denoiser())


def test_awkward_arrays_are_read_right(gaussian, rng):
    x = gaussian.sample([1, 2], rng)
    expected = diffcls.classify(x, model=gaussian.denoiser())
    wide = np.zeros((2, 24), np.float32)
    wide[:, ::2] = x
    readonly = x.copy()
    readonly.flags.writeable = False
    for same in (wide[:, ::2], x.astype(">f4"), x.astype(np.float64), np.asfortranarray(x), readonly, list(x)):
        equal(diffcls.classify(same, model=gaussian.denoiser()), expected)
    assert len(diffcls.classify(x[:0], model=gaussian.denoiser())) == 0


@pytest.mark.parametrize("n_classes", [2, 3, 30])
def test_a_denoiser_without_a_condition_ties(n_classes):
    g = GaussianClasses(n_classes=n_classes, dimension=4, seed=0)
    deaf = diffcls.Denoiser(
        lambda x, t, c: g.predict(x, t, 0 * c), shape=(4,), schedule=g.schedule, n_classes=n_classes
    )
    result = diffcls.classify(np.ones(4, np.float32), model=deaf, policy=Race(pool=90))
    alive = result.alive.sum()  # the default caps hold for ties too
    assert (result.index, result.status) == (0, "pool_exhausted") and 2 <= alive <= n_classes
    assert result.alive[:alive].all() and (result.n_trials[:alive] == 90).all()
    assert not result.excess.any() and result.p_disagree == 0.0
    np.testing.assert_allclose(result.probabilities, 1 / n_classes)


def test_the_embedded_model_is_right_on_bundled_pictures():
    pictures, labels = demo_pictures.load()
    classifier = diffcls.Classifier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", diffcls.OutOfWorldWarning)
        results = classifier(pictures)
    assert (results.index == labels).mean() > 0.85
    assert results.n_evals.mean() * 15 < classifier.max_evals
