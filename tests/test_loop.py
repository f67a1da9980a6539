"""The loop: what is counted, and that nothing but time depends on batches, images in flight, their order or threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import diffcls
from diffcls import Schedule, _core, reference
from diffcls.policies import Fixed, Race, Staged, Terms, lower, paper
from diffcls.reference_race import RaceReference

K, SHAPE, N_IMAGES = 6, (3, 5), 5
SCHEDULE = Schedule.scaled_linear(200)
OPTIONS = {"pool_temperature": 0.0, "loss": "l2", "delta": 1.0, "seed": 3, "noise": None, "batch_size": 64,
           "max_in_flight": 3, "progress": None, "keep_errors": True}  # fmt: skip


def predict(x_t, timesteps, time, condition):
    """Every row by itself: x_t, pulled a little towards a pattern of the class."""
    pattern = np.sin(np.arange(15, dtype=np.float32).reshape(SHAPE) * (1 + condition[:, None, None]))
    return (x_t * np.float32(0.7) + np.float32(0.2) * pattern).astype(np.float32)


def images():
    return np.random.default_rng(1).standard_normal((N_IMAGES, *SHAPE)).astype(np.float32)


def make_loop(policy, *, call=predict, n_threads=1, **options):
    lowered = lower(policy, Terms(n_classes=K, n_timesteps=len(SCHEDULE), weighting=None))
    p, q = SCHEDULE.target("epsilon")
    return _core.Loop(
        call, backend=_core.Cpu(n_threads=n_threads), shape=SHAPE, alpha=SCHEDULE.alpha, sigma=SCHEDULE.sigma,
        time=SCHEDULE.time, p=p, q=q, n_classes=K, class_of_arm=np.arange(K), condition_offset=np.arange(K + 1),
        conditions=np.arange(K), trials=lowered.trials, policy=lowered.policy, **{**OPTIONS, **options},
    )  # fmt: skip


def run(loop, order=range(N_IMAGES)):
    """Results by image, whatever the order of asking and of finishing."""
    results, queue, x = {}, list(order), images()
    while queue or len(results) < N_IMAGES:
        while queue and loop.wants_image():
            tag = queue.pop(0)
            loop.add(x[tag], tag)
        answer = loop.advance(drain=not queue)
        if answer is not None:
            results[answer[0]] = answer[1]
    assert loop.advance(drain=True) is None
    return [results[i] for i in range(N_IMAGES)]


POLICY = Race(risk=0.05, n_min=8, ramp=0, pool=60)


@pytest.fixture(scope="module")
def expected():
    return run(make_loop(POLICY, batch_size=1, max_in_flight=1))


@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 3), st.permutations(range(N_IMAGES)))
@settings(deadline=None, max_examples=40)
def test_results_depend_on_the_images_alone(expected, batch_size, max_in_flight, n_threads, order):
    loop = make_loop(POLICY, batch_size=batch_size, max_in_flight=max_in_flight, n_threads=n_threads)
    for got, wanted in zip(run(loop, order), expected, strict=True):
        for name in ("losses", "stderr", "excess", "n_trials", "alive", "trace", "errors"):
            np.testing.assert_array_equal(got[name], wanted[name])
        for name in ("index", "n_evals", "p_disagree", "status"):
            assert got[name] == wanted[name]


def test_classes_were_dropped_and_images_differ(expected):
    assert all(result["n_evals"] < 60 * K for result in expected)
    assert len({tuple(result["losses"]) for result in expected}) == N_IMAGES


def test_errors_are_the_definition(expected):
    """mean over elements of (prediction - eps)^2, eps and x_t from the NumPy reference."""
    trials = lower(POLICY, Terms(n_classes=K, n_timesteps=len(SCHEDULE), weighting=None)).trials
    x, errors = images()[2], expected[2]["errors"]
    for s in range(8):  # n_min: every class
        t, index = int(trials["timestep"][s]), int(trials["noise_index"][s])
        eps = reference.normal(3, index, t, 0, x.size).astype(np.float64).reshape(SHAPE)
        x_t = SCHEDULE.alpha[t] * x + SCHEDULE.sigma[t] * eps
        answer = predict(np.tile(x_t, (K, 1, 1)), None, None, np.arange(K))
        np.testing.assert_allclose(errors[:, s], np.mean((answer - eps) ** 2, axis=(1, 2)), rtol=1e-5)


def test_the_loop_decides_as_the_twin_does_on_its_own_errors(expected):
    lowered = lower(POLICY, Terms(n_classes=K, n_timesteps=len(SCHEDULE), weighting=None))
    for result in expected:
        table = np.nan_to_num(result["errors"], nan=1e9)  # never looked at, or the answer would change
        weight = lowered.trials["weight"]
        twin = RaceReference(table, weight, lowered.policy, stats.t.isf, list(range(K))).run()
        assert result["trace"].tolist() == [list(row) for row in twin.trace]
        assert (result["index"], result["n_trials"].tolist()) == (twin.leader(), twin.n_done)


@pytest.mark.parametrize(
    ("policy", "n_evals"),
    [
        (Fixed(17), 17 * K),
        (Staged((4, 10), (2, 1)), 4 * K + 6 * 2),
        (Staged((4, 10, 20), (4, 2, 1), nested=False), 4 * K + 8 * 4 + 8 * 2),
        (Staged((4, 10), (2, 1), n_trials=3), 12 * K + 18 * 2),
        (Race(risk=1e-9, n_min=8, n_winner=0, prior_weight=4, caps=None, pool=30, max_evals=100), 96),
    ],
)
def test_evaluations_are_counted(policy, n_evals):
    rows = []
    loop = make_loop(policy, call=lambda *args: rows.append(len(args[0])) or predict(*args), batch_size=32)
    results = run(loop)
    assert [result["n_evals"] for result in results] == [n_evals] * N_IMAGES
    stats_of_loop = loop.stats
    assert stats_of_loop["n_evals"] == sum(rows) == n_evals * N_IMAGES
    assert stats_of_loop["n_batches"] == len(rows) and max(rows) == 32
    assert stats_of_loop["fill"] == pytest.approx(sum(rows) / (32 * len(rows)))


def test_classes_of_a_trial_are_neighbours_and_share_their_noise():
    seen = []
    run(make_loop(Fixed(4), call=lambda *args: seen.append((args[0].copy(), args[3].copy())) or predict(*args),
                  batch_size=4 * K, max_in_flight=1))  # fmt: skip
    for x_t, condition in seen:
        np.testing.assert_array_equal(condition, np.tile(np.arange(K), 4))
        for trial in x_t.reshape(4, K, *SHAPE):
            assert (trial == trial[0]).all()


def test_images_so_large_that_a_batch_can_not_keep_all_their_noise():
    """More than a million elements at five trials a batch: some noise is kept, some made again, none of it differs."""
    shape = (500, 501)
    pattern = np.sin(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
    denoiser = diffcls.Denoiser(
        lambda x_t, t, cond: x_t * np.float32(0.7) + pattern * (cond[:, None, None] == 1),
        shape=shape, schedule=SCHEDULE, n_classes=2,
    )  # fmt: skip
    together, alone = (
        diffcls.classify(pattern, model=denoiser, policy=Fixed(7), batch_size=size).losses for size in (14, 2)
    )
    np.testing.assert_array_equal(together, alone)


def test_a_seed_is_another_noise(expected):
    other = run(make_loop(POLICY, seed=4))
    assert not np.array_equal(other[0]["errors"][:, :8], expected[0]["errors"][:, :8])


def test_a_nan_names_its_class_timestep_and_noise():
    def broken(x_t, timesteps, time, condition):
        answer = predict(x_t, timesteps, time, condition)
        answer[(condition == 4) & (timesteps == 150), 0, 0] = np.nan
        return answer

    loop = make_loop(Fixed(2), call=broken)
    with pytest.raises(ArithmeticError, match="class 4 at timestep 150, noise index 1"):
        run(loop)
    with pytest.raises(RuntimeError, match="failed before"):
        loop.advance(drain=True)


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("max_in_flight", 0)])
def test_impossible_numbers(option, value):
    with pytest.raises(ValueError, match=f"{option} is 0"):
        make_loop(Fixed(2), **{option: value})


def test_paper_counts_evaluations_as_published():
    """A thousand classes through the loop itself: 124,500 rows."""
    lowered = lower(paper("imagenet"), Terms(n_classes=1000, n_timesteps=1000, weighting=None))
    schedule = Schedule.scaled_linear()
    p, q = schedule.target("epsilon")
    loop = _core.Loop(
        lambda x_t, timesteps, time, condition: (condition / 1000).astype(np.float32)[:, None],
        backend=_core.Cpu(), shape=(1,), alpha=schedule.alpha, sigma=schedule.sigma, time=schedule.time, p=p, q=q,
        n_classes=1000, class_of_arm=np.arange(1000), condition_offset=np.arange(1001), conditions=np.arange(1000),
        trials=lowered.trials, policy=lowered.policy, **{**OPTIONS, "batch_size": 4096},
    )  # fmt: skip
    loop.add(np.zeros(1, np.float32), 0)
    _, result = loop.advance(drain=True)
    assert result["n_evals"] == 124_500
    assert result["trace"].tolist() == [[50, 500, 50_000], [150, 50, 100_000], [550, 10, 120_000], [1000, 1, 124_500]]
