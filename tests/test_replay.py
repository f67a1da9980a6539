"""Replay against live runs, to the bit, and against the expectation that a weighting names."""

import dataclasses

import numpy as np
import pytest
from gaussian import GaussianClasses
from hypothesis import given, settings
from hypothesis import strategies as st

import diffcls
from diffcls import ErrorTable, Fixed, Race, Staged, Weighting, policies
from diffcls.profile import schedule_fingerprint

GAUSSIAN = GaussianClasses(n_classes=6, dimension=8, seed=11)
FIELDS = (
    "index",
    "losses",
    "stderr",
    "excess",
    "n_trials",
    "alive",
    "probabilities",
    "n_evals",
    "p_disagree",
    "status",
)


def equal(replayed, live):
    """Bit by bit: stacked, and image by image."""
    assert len(replayed) == len(live) and replayed.classes == live.classes and replayed.label == live.label
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(replayed, name), getattr(live, name), err_msg=name)
    assert replayed.trace == live.trace and replayed.warnings == live.warnings
    for a, b in zip(replayed, live, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@st.composite
def caps(draw, pool):
    ends = sorted(draw(st.sets(st.integers(1, pool + 5), max_size=3)))
    return [(end, draw(st.integers(1, 6))) for end in ends]


@st.composite
def any_policy(draw):
    pool = draw(st.integers(2, 60))
    kind = draw(st.sampled_from(["race", "list", "fixed", "staged", "published"]))
    if kind == "fixed":
        return Fixed(pool)
    if kind in ("staged", "published"):
        ends = sorted(draw(st.sets(st.integers(1, pool), min_size=1, max_size=3)))
        keep = draw(st.lists(st.integers(1, 6), min_size=len(ends), max_size=len(ends)))
        # a published stage that adds no trial is no stage: powers of two always add
        ends = ends if kind == "staged" else [2 ** (i + 1) for i in range(len(ends))]
        return Staged(ends, keep, n_trials=2 * draw(st.integers(1, 2)), nested=kind == "staged")
    options = {
        "risk": draw(st.sampled_from([1e-6, 0.02, 0.3])), "n_min": draw(st.integers(2, 12)), "ramp": draw(st.integers(0, 40)),
        "caps": draw(st.one_of(st.sampled_from(["default", None]), caps(pool))), "fill": draw(st.integers(1, 30)),
        "max_evals": draw(st.one_of(st.none(), st.integers(12, 400))),
    }  # fmt: skip
    if kind == "race":
        return Race(pool=pool, **options)
    rows = draw(st.lists(st.integers(100, 999), min_size=2, max_size=40))
    return Race(timesteps=[t for t in rows for _ in range(2)], **options)  # in pairs: as antithetic noise needs them


PROMPTS = [
    (None, "min"),
    ([4, 0, 2], "min"),
    ([3], "min"),
    ({"a": [0, 1, 2], "b": 3, "c": [5, 4]}, "mean"),
    ({"a": [0, 1, 2], "b": 3, "c": [5, 4]}, "logmeanexp"),
]


@given(
    any_policy(), st.sampled_from(PROMPTS), st.sampled_from([None, "antithetic", "given"]), st.booleans(), st.booleans(),
    st.sampled_from(["l2", "l1"]), st.integers(0, 2**32),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_replay_is_live_for_every_policy(tmp_path_factory, policy, prompts, noise, weighted, with_priors, loss, seed):
    rng = np.random.default_rng(seed)
    weighting = None
    if weighted:
        weighting = rng.random(1000) * (rng.random(1000) < 0.7)
        weighting[100:] += 0.1  # a list of timesteps of weight 0 alone is an error
        weighting[:100] = 0.0
    if noise == "given":
        noise = rng.standard_normal((200, 8)).astype(np.float32)
    n_classes = 6 if prompts[0] is None else len(prompts[0])
    classifier = diffcls.Classifier(
        GAUSSIAN.denoiser(), prompts[0], pool=prompts[1], policy=policy, weighting=weighting, noise=noise, loss=loss, seed=seed,
        priors=rng.random(n_classes) + 0.1 if with_priors else None, temperature=float(rng.random() + 0.01),
    )  # fmt: skip
    x = GAUSSIAN.sample(rng.integers(0, 6, 4), rng)
    table = classifier.error_table(x, policy=policy)
    live = classifier(x)
    equal(diffcls.replay(table, policy), live)
    if seed % 8 == 0:
        pytest.importorskip("pyarrow")
        path = tmp_path_factory.mktemp("replay") / "t.arrow"
        table.save(path)
        equal(diffcls.replay(ErrorTable.load(path, classifier=classifier), policy), live)


@pytest.mark.parametrize("name", ["cifar10", "stl10", "pets"])
def test_replay_of_the_papers_settings(name, rng):
    policy, x = policies.paper(name), GAUSSIAN.sample([0, 4], rng)
    classifier = diffcls.Classifier(GAUSSIAN.denoiser(), policy=policy)
    equal(diffcls.replay(classifier.error_table(x, policy=policy), policy), classifier(x))


def test_one_table_of_the_pool_serves_many_policies(rng):
    x = GAUSSIAN.sample(rng.integers(0, 6, 5), rng)
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(x, n_samples=500)
    for policy in (Race(), Race(risk=0.2, caps=None, ramp=0), Staged((50, 500), (3, 1)), Staged((25, 250), (3, 1), n_trials=2),
                   Fixed(500), Race(max_evals=77)):  # fmt: skip
        equal(diffcls.replay(table, policy), diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=policy))
    equal(diffcls.replay(table), diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=Fixed(500)))


def test_priors_and_temperature_of_a_replay(rng):
    x, priors = GAUSSIAN.sample([0, 1, 2], rng), {str(i): i + 1.0 for i in range(6)}
    table = diffcls.Classifier(GAUSSIAN.denoiser(), temperature=9.0, priors=[6, 5, 4, 3, 2, 1]).error_table(
        x, n_samples=40
    )
    live = diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=Fixed(40), priors=priors, temperature=0.2)
    replayed = diffcls.replay(table, Fixed(40), priors=priors, temperature=0.2)
    equal(replayed, live)
    assert replayed.run["temperature"] == 0.2 and replayed.run["priors"][5] == pytest.approx(6 / 21)
    pooled = diffcls.Classifier(GAUSSIAN.denoiser(), {"a": [0, 1], "b": 2}, pool="logmeanexp", temperature=0.5)
    with pytest.raises(
        ValueError, match="temperature is 0.2, but the table's prompts were pooled by 'logmeanexp' at 0.5"
    ):
        diffcls.replay(pooled.error_table(x, n_samples=4), temperature=0.2)


def test_a_calibration_is_replayed_as_live(rng):
    """Its temperature and biases, with and without priors, on a table that had none or another."""
    labels = rng.integers(0, 6, 60)
    x, policy = GAUSSIAN.sample(labels, rng) + rng.standard_normal((60, 8)).astype(np.float32), Race(pool=60)
    plain = diffcls.Classifier(GAUSSIAN.denoiser(), policy=policy)
    fitted = diffcls.fit_temperature(plain(x), labels, bias=True)
    assert fitted.bias.any()
    tables = [
        diffcls.Classifier(GAUSSIAN.denoiser(), policy=policy, **options).error_table(x, policy=policy)
        for options in ({}, {"temperature": fitted})
    ]
    priors = [1, 2, 3, 4, 5, 6]
    for options in ({"temperature": fitted}, {"temperature": fitted, "priors": priors}, {"temperature": 0.3}):
        live = diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=policy, **options)
        for table in tables:
            replayed = diffcls.replay(table, policy, **options)
            np.testing.assert_allclose(replayed.probabilities, live.probabilities, rtol=1e-12)
            assert replayed.calibrated == live.calibrated == (options["temperature"] is fitted)
    live = diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=policy, temperature=fitted, priors=priors)
    equal(diffcls.replay(tables[1], policy, priors=priors), live)
    assert not diffcls.replay(tables[1], policy, weighting=np.linspace(1, 2, 1000)).calibrated
    with pytest.raises(diffcls.FingerprintMismatchError, match="the calibration was fitted with loss"):
        other = diffcls.Classifier(GAUSSIAN.denoiser(), loss="l1").error_table(x[:2], policy=policy)
        diffcls.replay(other, policy, temperature=fitted)
    part = diffcls.replay(tables[1].select(classes=[4, 1]), policy, priors=[1, 2])  # biases go with their classes
    live = diffcls.classify(x, [4, 1], model=GAUSSIAN.denoiser(), policy=policy, temperature=fitted, priors=[1, 2])
    np.testing.assert_allclose(part.probabilities, live.probabilities, rtol=1e-12)
    assert part.calibrated and part.run["classes"] == live.run["classes"] == ["4", "1"]


def softmax(excess, temperature):
    p = np.exp(-excess / temperature)
    return p / p.sum(axis=1, keepdims=True)


def test_a_new_weighting_takes_the_calibration_out_and_the_old_one_leaves_it(rng):
    labels = rng.integers(0, 6, 60)
    x, policy = GAUSSIAN.sample(labels, rng) + rng.standard_normal((60, 8)).astype(np.float32), Race(pool=60)
    fitted = diffcls.fit_temperature(diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=policy), labels, bias=True)
    table = diffcls.Classifier(GAUSSIAN.denoiser(), policy=policy, temperature=fitted).error_table(x, policy=policy)
    own = diffcls.replay(table, policy)
    for same in ("uniform", np.ones(T)):
        again = diffcls.replay(table, policy, weighting=same)
        equal(again, own)
        assert again.calibrated and again.run["temperature"] == fitted.temperature
    assert diffcls.replay(table, policy, weighting="uniform").run == own.run
    moved = diffcls.replay(table, policy, weighting=np.linspace(1, 2, T))
    assert moved.run["calibration"] is None and not moved.calibrated
    np.testing.assert_allclose(moved.probabilities, softmax(moved.excess, fitted.temperature), rtol=1e-9)
    assert np.abs(own.probabilities - softmax(own.excess, fitted.temperature)).max() > 1e-3  # biases that matter


def test_every_trial_is_said_to_be_what_it_was(rng):
    """Not the policy that the table was made for: a calibration of the one is none of the other."""
    labels = rng.integers(0, 6, 60)
    x = GAUSSIAN.sample(labels, rng) + rng.standard_normal((60, 8)).astype(np.float32)
    race = Race(pool=60)
    table = diffcls.Classifier(GAUSSIAN.denoiser(), policy=race).error_table(x, policy=race)
    full = diffcls.replay(table)
    assert full.run["policy"] == {"name": "Fixed", "n_samples": 60}
    equal(full, diffcls.classify(x, model=GAUSSIAN.denoiser(), policy=Fixed(60)))
    fitted = diffcls.fit_temperature(full, labels)
    with pytest.raises(diffcls.FingerprintMismatchError, match="with policy "):
        diffcls.Classifier(GAUSSIAN.denoiser(), policy=race, temperature=fitted)
    assert diffcls.classify(x[:2], model=GAUSSIAN.denoiser(), policy=Fixed(60), temperature=fitted).calibrated
    first, second = (table.select(trials=part) for part in (slice(30), slice(30, 60)))
    told = [diffcls.replay(part).run["policy"] for part in (first, second)]
    assert [entry["name"] for entry in told] == ["full", "full"] and [entry["n_trials"] for entry in told] == [30, 30]
    assert told[0] != told[1] and first.run["policy"]["name"] == "a selection"
    with pytest.raises(diffcls.FingerprintMismatchError, match="with policy "):
        diffcls.replay(second, temperature=diffcls.fit_temperature(diffcls.replay(first), labels))
    listed = Race(timesteps=[900, 500, 100])
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(x, policy=listed)
    assert diffcls.replay(table).run["policy"]["name"] == "full"
    moved = diffcls.replay(table, weighting=np.linspace(1, 2, T)).run["policy"]
    assert moved["name"] == "full" and moved != diffcls.replay(table).run["policy"]


def test_a_fitted_weighting_is_one_live_and_replayed(rng):
    """Its calibration goes both ways."""
    labels = rng.integers(0, 6, 60)
    x = GAUSSIAN.sample(labels, rng) + rng.standard_normal((60, 8)).astype(np.float32)
    fitted, policy = (
        Weighting(np.linspace(1, 2, T), schedule_fingerprint(GAUSSIAN.schedule), "gaussian", "l2", "epsilon", {}),
        Race(pool=60),
    )
    options = {"model": GAUSSIAN.denoiser(), "policy": policy, "weighting": fitted}
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(x, policy=policy)
    live, replayed = diffcls.classify(x, **options), diffcls.replay(table, policy, weighting=fitted)
    assert replayed.run["weighting"] == live.run["weighting"] == fitted.to_dict()
    of_live, of_replay = (diffcls.fit_temperature(results, labels) for results in (live, replayed))
    assert diffcls.classify(x[0], **options, temperature=of_replay).calibrated
    assert diffcls.replay(table, policy, weighting=fitted, temperature=of_live).calibrated
    with pytest.raises(diffcls.FingerprintMismatchError, match="with weighting "):
        diffcls.replay(table, policy, temperature=of_live)


def test_uniform_needs_no_target_that_the_table_keeps(rng):
    """A model whose target is a pair of arrays of its own: here eps all the same."""
    model = GAUSSIAN.denoiser(prediction_type=(np.zeros(T), np.ones(T)))
    w = np.linspace(1, 2, T)
    table = diffcls.Classifier(model, weighting=w).error_table(GAUSSIAN.sample([0, 1], rng), n_samples=50)
    replayed = diffcls.replay(table, weighting="uniform")
    importance = 1 / w[table.timesteps]
    np.testing.assert_allclose(
        replayed.losses, table.errors @ (importance * table.trials["weight"]) / (importance @ table.trials["weight"]),
    )  # fmt: skip
    assert ("weighting", "uniform") in {(row["ablation"], row["setting"]) for row in diffcls.ablation.ablate(table)}
    with pytest.raises(diffcls.InputError, match="a target of its own"):
        diffcls.replay(table, weighting="epsilon")


# ---- another weighting -----------------------------------------------------------------------------------------------

T = 1000
MEAN = np.stack([np.sin(np.arange(T) / 100.0 * (k + 1)) + 2.0 for k in range(3)])
"""Error of class k at timestep t: no noise in it, so that a weighted mean is a sum over the schedule."""


def weights_over(low, high, rng):
    w = np.zeros(T)
    w[low:high] = rng.random(high - low) + 0.05
    return w


def exact_table(rng, *, n_samples=None, policy=None, **options):
    schedule = diffcls.Schedule.linear(T)
    model = diffcls.Denoiser(lambda x, t, c: x, shape=(1,), schedule=schedule, n_classes=3)
    table = diffcls.Classifier(model, **options).error_table(np.zeros((2, 1)), n_samples=n_samples, policy=policy)
    errors = np.repeat(MEAN[None, :, table.timesteps], 2, axis=0)
    return dataclasses.replace(table, errors=errors)


def expectation(w):
    return MEAN @ w / w.sum()


def test_a_uniform_table_gives_any_weighted_expectation(rng):
    """With every timestep once the importance-weighted mean is the expectation itself."""
    table = exact_table(rng, n_samples=T)
    for w in (weights_over(0, T, rng), weights_over(300, 500, rng)):
        results = diffcls.replay(table, weighting=w)
        np.testing.assert_allclose(results.losses, np.tile(expectation(w), (2, 1)), rtol=1e-12)
        assert (results.n_trials == np.count_nonzero(w)).all() and results.run["weighting"] == w.tolist()
    np.testing.assert_allclose(diffcls.replay(table).losses[0], MEAN.mean(axis=1), rtol=1e-12)


def test_a_weighted_table_gives_other_expectations(rng):
    """Trials drawn under one weighting: the quantiles' steps are all that is left of an error."""
    drawn = weights_over(0, T, rng) * np.linspace(0.2, 2.0, T)
    table = exact_table(rng, n_samples=200_000, weighting=drawn)
    wrong = MEAN @ (drawn * drawn) / np.sum(drawn * drawn)  # what a forgotten 1 / q would give
    for w in (np.ones(T), drawn, weights_over(200, 900, rng), weights_over(0, T, rng)):
        losses = diffcls.replay(table, weighting=w).losses[0]
        np.testing.assert_allclose(losses, expectation(w), atol=1e-3)
        assert np.abs(losses - wrong).max() > 0.02
    np.testing.assert_allclose(diffcls.replay(table, weighting="uniform").losses[0], MEAN.mean(axis=1), atol=1e-3)


def test_live_and_reweighted_agree_within_their_errors(rng):
    """Both estimate one expectation, from different draws of timesteps and noise."""
    x, w = GAUSSIAN.sample([2], rng), np.linspace(1.0, 0.1, T)
    live = diffcls.classify(x[0], model=GAUSSIAN.denoiser(), weighting=w, policy=Fixed(3000))
    table = diffcls.Classifier(GAUSSIAN.denoiser(), seed=1).error_table(x, n_samples=3000)
    again = diffcls.replay(table, Fixed(3000), weighting=w)[0]
    assert np.all(np.abs(live.losses - again.losses) < 4 * np.hypot(live.stderr, again.stderr))
    uniform = diffcls.replay(table)[0]
    assert np.any(np.abs(live.losses - uniform.losses) > 8 * np.hypot(live.stderr, uniform.stderr))


def test_a_list_of_timesteps_is_reweighted_as_it_would_be_live(rng):
    """Its trials do not depend on the weighting, so replay is live to the bit, also where the old weight was 0."""
    x, old = GAUSSIAN.sample([0, 3], rng), (np.arange(T) < 500).astype(float)
    policy = Race(timesteps=[900, 100, 450, 700, 20, 500] * 4, n_min=3)
    table = diffcls.Classifier(GAUSSIAN.denoiser(), weighting=old).error_table(x, policy=policy)
    for w in (rng.random(T), 1.0 - old, np.ones(T)):
        live = diffcls.classify(x, model=GAUSSIAN.denoiser(), weighting=w, policy=policy)
        equal(diffcls.replay(table, policy, weighting=w), live)
        np.testing.assert_allclose(
            diffcls.replay(table, weighting=w).losses, table.errors @ w[table.timesteps] / w[table.timesteps].sum()
        )


def test_a_policy_under_another_weighting_reads_the_tables_trials_in_order(rng):
    table = exact_table(rng, n_samples=T)
    w = weights_over(400, 600, rng)
    own = table.timesteps[w[table.timesteps] > 0]
    losses = diffcls.replay(table, Fixed(50), weighting=w).losses[0]
    np.testing.assert_allclose(losses, MEAN[:, own[:50]] @ w[own[:50]] / w[own[:50]].sum(), rtol=1e-12)
    raced = diffcls.replay(table, Race(pool=200), weighting=w)
    assert (raced.index == expectation(w).argmin()).all() and raced.n_evals.max() < 600
    with pytest.raises(ValueError, match="Fixed makes 201 trials, the table has 200 of weight above 0"):
        diffcls.replay(table, Fixed(201), weighting=w)


def test_weightings_that_a_table_can_not_give(rng):
    table = exact_table(rng, n_samples=100, weighting=weights_over(250, 750, rng))
    with pytest.raises(ValueError, match="positive at 500 timesteps where the table has no trial, first at 0"):
        diffcls.replay(table, weighting="uniform")
    with pytest.raises(ValueError, match="positive at 1 timesteps where the table has no trial, first at 800"):
        diffcls.replay(table, weighting=np.eye(T)[800])
    few = exact_table(rng, policy=Race(timesteps=[10, 20]))
    with pytest.raises(ValueError, match="the weighting is 0 at every one of the table's 2 trials"):
        diffcls.replay(few, weighting=np.eye(T)[800])
    with pytest.raises(ValueError, match=r"weighting has shape \(3,\)"):
        diffcls.replay(table, weighting=np.ones(3))


# ---- what can not be replayed, and edges -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "policy", "message"),
    [
        (
            {},
            Fixed(64),
            "lacks 64 of the 64 trials of Fixed, the first at timestep 7 with noise 0; it has the 20 of Fixed",
        ),
        ({}, Race(), "lacks 500 of the 500 trials of Race"),
        ({}, Race(timesteps=[25, 1]), "lacks 1 of the 2 trials of Race, the first at timestep 1 with noise 1"),
        ({"noise": "antithetic"}, Race(timesteps=[50, 50]), "the first at timestep 50 with noise 0 negated"),
        ({"noise": np.ones((25, 8))}, Fixed(26), "noise has 25 rows, the policy makes 26 trials"),
    ],
)
def test_trials_that_the_table_lacks(options, policy, message, rng):
    table = diffcls.Classifier(GAUSSIAN.denoiser(), **options).error_table(GAUSSIAN.sample([0], rng), n_samples=20)
    if "negated" in message:  # every trial but one
        table = diffcls.Classifier(GAUSSIAN.denoiser(), **options).error_table(
            GAUSSIAN.sample([0], rng), policy=Race(timesteps=[50, 50])
        ).select(trials=[0])  # fmt: skip
    with pytest.raises(diffcls.InputError, match=message):
        diffcls.replay(table, policy)


def test_what_is_no_policy(rng):
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(GAUSSIAN.sample([0], rng), n_samples=20)
    with pytest.raises(TypeError, match="policy is 'race', must be a Race, Staged or Fixed"):
        diffcls.replay(table, "race")


def test_a_hole_matters_only_when_it_is_read(rng):
    """The image, class and trial of the first hole that a race comes to; the same on any number of threads."""
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(GAUSSIAN.sample([0] * 9, rng), n_samples=100)
    errors = table.errors.copy()
    errors[7, 2, 0] = errors[8, 1, 1] = np.inf
    errors[:, 3, 99] = np.nan
    table = dataclasses.replace(table, errors=errors)
    before = diffcls.get_num_threads()
    try:
        for n in (1, 3):
            diffcls.set_num_threads(n)
            with pytest.raises(diffcls.InputError, match="no finite error for prompt 2 at trial 0 of image 7"):
                diffcls.replay(table, Race(pool=100))
    finally:
        diffcls.set_num_threads(before)
    assert len(diffcls.replay(table.select(images=slice(0, 7)), Race(pool=100, risk=0.3, max_evals=300))) == 7
    with pytest.raises(diffcls.InputError, match="no finite error for prompt 3 at trial 99 of image 0"):
        diffcls.replay(table)


def test_threads_change_nothing(rng):
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(
        GAUSSIAN.sample(rng.integers(0, 6, 40), rng), n_samples=100
    )
    before = diffcls.get_num_threads()
    try:
        diffcls.set_num_threads(1)
        one = diffcls.replay(table, Race(pool=100))
        diffcls.set_num_threads(4)
        equal(diffcls.replay(table, Race(pool=100)), one)
    finally:
        diffcls.set_num_threads(before)


def test_more_images_than_one_call_takes(rng):
    table = exact_table(rng, n_samples=8)
    big = dataclasses.replace(table, errors=np.tile(table.errors, (1025, 1, 1)) + rng.random((2050, 1, 1)))
    results = diffcls.replay(big, Fixed(8))
    np.testing.assert_allclose(results.losses, big.errors.mean(axis=2), rtol=1e-14)
    assert results[2049].trace == [{"n_trials": 8, "n_alive": 3, "n_evals": 24}]
    big.errors[1500, 0, 0] = np.nan
    with pytest.raises(ValueError, match="of image 1500"):
        diffcls.replay(big, Fixed(8))


def test_results_of_a_replay_are_a_sequence(rng):
    table = diffcls.Classifier(GAUSSIAN.denoiser()).error_table(GAUSSIAN.sample([0, 1, 2], rng), n_samples=40)
    results = diffcls.replay(table, Race(pool=40))
    assert results[-1].losses.tolist() == results.losses[2].tolist()
    assert [r.index for r in results[1:]] == results.index[1:].tolist() == [results[1].index, results[2].index]
    with pytest.raises(IndexError):
        results[3]
    results.losses[:] = 0.0  # a copy: nothing changes
    assert results.losses.all() and results.to_dict()["results"][0]["run"]["replayed"] is True
    none = diffcls.replay(table.select(images=slice(0, 0)), Race(pool=40))
    assert len(none) == 0 and none.losses.shape == (0, 6) and none.run == {} and none.label == []


def test_ties_are_said(rng):
    """Two classes that are one for ever, a denoiser that hears nothing, and one class alone."""
    x = GAUSSIAN.sample([1, 5], rng)

    def twins(x_t, t, cond):
        return GAUSSIAN.predict(x_t, t, np.where(cond == 5, 1, cond))

    model = diffcls.Denoiser(twins, shape=(8,), schedule=GAUSSIAN.schedule, n_classes=6)
    classifier = diffcls.Classifier(model, policy=Race(pool=60))
    live = classifier(x)
    equal(diffcls.replay(classifier.error_table(x, n_samples=60), Race(pool=60)), live)
    assert live[0].label == "1" and live[0].status == "pool_exhausted"
    assert live[0].warnings == ["'1', '5' tie: equal losses over 60 trials, the first of them is the answer"]
    deaf = diffcls.Denoiser(lambda x, t, c: x, shape=(8,), schedule=GAUSSIAN.schedule, n_classes=6)
    table = diffcls.Classifier(deaf).error_table(x, n_samples=30)
    result = diffcls.replay(table, Race(pool=30))[1]
    assert (result.index, result.n_evals, result.alive.all()) == (0, 180, True)
    assert result.warnings == [
        "'0', '1', '2', '3', '4', ... tie: equal losses over 30 trials, the first of them is the answer; the denoiser seems to "
        "ignore its condition"
    ]
    alone = diffcls.replay(table.select(classes=[3]), Race(pool=30))[0]
    assert (alone.label, alone.status, alone.warnings, alone.probabilities.tolist()) == ("3", "decided", [], [1.0])
