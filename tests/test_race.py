"""The C race against its twin, hand-checkable cases, and what its result says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffcls import _core
from diffcls.policies import Fixed, Race, Staged, Terms, lower
from diffcls.reference_race import RaceReference, anytime_radius

POLICY = {
    "risk": 0.02,
    "n_min": 8,
    "n_winner": 0,
    "ramp": 32,
    "prior_weight": 4.0,
    "fill": 10,
    "caps": np.empty((0, 2), np.int64),
}


def make_policy(**settings):
    return {**POLICY, "max_evals": 0, "anytime": False, "min_gap": 0.0, **settings}


def make_trials(n, weight=None):
    return {
        "timestep": np.zeros(n, np.uint32),
        "noise_index": np.arange(n, dtype=np.uint32),
        "eps_sign": np.ones(n, np.float32),
        "weight": np.ones(n) if weight is None else weight,
    }


def run(errors, policy, weight=None, class_of_arm=None):
    n_arms, n = errors.shape
    class_of_arm = np.arange(n_arms) if class_of_arm is None else np.array(class_of_arm)
    return replay_image(errors, make_trials(n, weight), policy, class_of_arm)


def replay_image(errors, trials, policy, class_of_arm):
    """One image's row of what the core says of a table of one image; trial i lies at i."""
    result = _core.replay(
        errors[None], columns=np.arange(len(trials["timestep"])), n_classes=int(class_of_arm.max()) + 1,
        class_of_arm=class_of_arm.astype(np.int64), cost_of_arm=np.ones(len(errors), np.int64), trials=trials,
        policy=policy, backend=_core.Cpu(),
    )  # fmt: skip
    return {name: value if name.startswith("trace") else value[0] for name, value in result.items()}


def random_errors(rng, k, n, gap):
    shared = rng.gamma(2.0, size=n)
    return shared + gap * np.arange(k)[rng.permutation(k)][:, None] + 0.3 * rng.standard_normal((k, n)) * shared


@given(
    st.integers(1, 12), st.integers(2, 120), st.sampled_from([0.0, 0.001, 0.02, 0.3]), st.integers(2, 12),
    st.integers(0, 40), st.sampled_from([0.0, 4.0, 16.0]), st.integers(1, 64), st.booleans(), st.integers(0, 2**32),
    st.sampled_from([0.0, 0.02, 0.3]), st.booleans(), st.sampled_from([0.0, 0.05]), st.sampled_from([0, 9, 40]),
)  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_core_and_twin_decide_alike(
    k, n, risk, n_min, ramp, d0, fill, with_caps, seed, gap, anytime, min_gap, n_winner
):
    rng = np.random.default_rng(seed)
    errors, weight = random_errors(rng, k, n, gap), rng.random(n) + 0.5
    caps = sorted({int(c) for c in rng.integers(1, n + 1, 3)}) if with_caps else []
    caps = np.array([(c, max(1, k - 2 * i)) for i, c in enumerate(caps)], np.int64).reshape(-1, 2)
    budget = int(rng.integers(k, 3 * k * n)) if rng.random() < 0.3 else 0
    class_of_arm = np.sort(rng.integers(0, k, k)) if rng.random() < 0.5 else np.arange(k)
    class_of_arm = np.unique(class_of_arm, return_inverse=True)[1]
    policy = make_policy(
        risk=risk, n_min=n_min, ramp=ramp, prior_weight=d0, fill=fill, caps=caps, max_evals=budget, anytime=anytime,
        min_gap=min_gap, n_winner=n_winner,
    )  # fmt: skip
    result = run(errors, policy, weight, class_of_arm)
    twin = RaceReference(errors, weight, policy, stats.t.isf, class_of_arm.tolist()).run()
    assert result["index"] == class_of_arm[twin.leader()]
    assert [tuple(row) for row in result["trace"].tolist()] == twin.trace
    assert result["status"] == twin.status
    assert result["n_evals"] == twin.n_evals
    for c in range(class_of_arm.max() + 1):
        arms = [a for a in range(k) if class_of_arm[a] == c]
        best = max(arms, key=lambda a: (twin.n_done[a], -twin.mean(a), -a))
        assert result["n_trials"][c] == twin.n_done[best]
        assert result["losses"][c] == pytest.approx(twin.mean(best), rel=1e-12)
        assert result["alive"][c] == any(a in twin.alive for a in arms)


@pytest.mark.parametrize(("n", "level"), [(8, 0.05), (20, 0.01), (64, 0.001), (150, 0.02)])
def test_anytime_radius_is_where_the_bayes_factor_says_so(n, level):
    """Marginal over effect sizes N(0, g) of the noncentral t density, over the central one: 1 / level at the radius."""
    g = (-2 * np.log(level) + np.log(1 - 2 * np.log(level))) / 16
    t = anytime_radius(n, level) * np.sqrt(n)
    sizes = np.linspace(-8, 8, 4001) * np.sqrt(g)
    marginal = np.trapezoid(stats.nct.pdf(t, n - 1, np.sqrt(n) * sizes) * stats.norm.pdf(sizes, 0, np.sqrt(g)), sizes)
    assert marginal / stats.t.pdf(t, n - 1) == pytest.approx(1 / level, rel=1e-5)


def test_anytime_radius_becomes_the_asymptotic_one():
    n, level = 20000, 0.01
    g = (-2 * np.log(level) + np.log(1 - 2 * np.log(level))) / 16
    asymptotic = np.sqrt(2 * (n * g + 1) / (n * n * g) * np.log(np.sqrt(n * g + 1) / level))
    assert anytime_radius(n, level) == pytest.approx(asymptotic, rel=1e-3)
    assert anytime_radius(2, level) == np.inf  # two trials can not prove it


def test_anytime_keeps_the_best_class_at_every_round(rng):
    """Under the null (all classes equally good) class 0 is dropped in at most `risk` of 1,000 races; the t race drops more."""
    dropped = {True: 0, False: 0}
    for _ in range(1000):
        errors = rng.standard_normal((3, 400)) + 3 * rng.standard_normal(400)
        for anytime in dropped:
            result = run(errors, make_policy(risk=0.2, ramp=0, n_min=2, fill=1, anytime=anytime))
            dropped[anytime] += not result["alive"][0]
    assert dropped[True] <= stats.binom.isf(1e-4, 1000, 0.2)
    assert dropped[True] > 0 and dropped[False] > 400


def test_min_gap_ends_near_ties(rng):
    """Two classes 0.01 apart, indifference 0.05: decided early, for one that is at most so much worse."""
    shared = rng.standard_normal(400)
    errors = np.stack([shared, shared + 0.01 + 0.1 * rng.standard_normal(400), shared + 1])
    exact, indifferent = (run(errors, make_policy(min_gap=gap)) for gap in (0.0, 0.05))
    assert indifferent["status"] == "decided" and 2 * indifferent["n_evals"] < exact["n_evals"]
    assert errors[indifferent["index"]].mean() - errors.mean(axis=1).min() <= 0.05
    tied = run(np.tile(shared, (3, 1)), make_policy(min_gap=0.05))
    assert (tied["index"], tied["status"]) == (0, "decided")


def test_losses_errors_and_excess_are_what_they_say(rng):
    errors, weight = random_errors(rng, 6, 200, 0.05), rng.random(200) + 0.5
    result = run(errors, make_policy(), weight)
    b, n = result["index"], result["n_trials"]
    for c in range(6):
        own, both = weight[: n[c]] * errors[c, : n[c]], weight[: n[c]] * (errors[c, : n[c]] - errors[b, : n[c]])
        assert result["losses"][c] == pytest.approx(own.mean(), rel=1e-12)
        assert result["stderr"][c] == pytest.approx(own.std(ddof=1) / np.sqrt(n[c]), rel=1e-10)
        assert result["excess"][c] == pytest.approx(both.mean(), rel=1e-9, abs=1e-15)
    assert result["excess"][b] == 0.0
    assert n[b] == n.max() and result["alive"][b]


def test_p_disagree_is_the_sum_of_tails(rng):
    errors = random_errors(rng, 6, 100, 0.15)
    result = run(errors, make_policy(max_evals=6 * 30))
    b, n, total = result["index"], result["n_trials"], 0.0
    differences = [errors[c, : n[c]] - errors[b, : n[c]] for c in range(6) if c != b]
    assert len({len(d) for d in differences}) > 1
    for d in differences:
        there = [other.var(ddof=1) for other in differences if len(other) >= len(d)]
        d0 = 4 if len(there) > 1 else 0  # the policy's prior_weight joins the degrees of freedom
        df = d0 + len(d) - 1
        s2 = (d0 * np.median(there) + (len(d) - 1) * d.var(ddof=1)) / df
        total += stats.t.sf(d.mean() / np.sqrt(s2 * (1 / len(d) - 1 / 100)), df)
    assert result["p_disagree"] == pytest.approx(min(1.0, total), rel=1e-9)
    assert run(errors, make_policy(risk=0.0))["p_disagree"] == 0.0  # the whole pool was seen


def test_a_case_to_check_by_hand():
    """Differences 1, 1, ... with variance 0: dropped at the first test, after n_min trials."""
    errors = np.array([[2.0] * 40, [1.0] * 40, [3.0] * 40])
    result = run(errors, make_policy(fill=1))
    assert (result["index"], result["n_evals"], result["status"]) == (1, 24, "decided")
    assert result["trace"].tolist() == [[8, 1, 24]]
    assert result["excess"].tolist() == [1.0, 0.0, 2.0]


def test_ties_stay_and_go_to_the_lowest_index():
    errors = np.tile(np.linspace(1, 2, 30), (4, 1))
    result = run(errors, make_policy())
    assert (result["index"], result["status"], result["n_evals"]) == (0, "pool_exhausted", 120)
    assert result["alive"].all()


@pytest.mark.parametrize("caps", [[], [(60, 1)]])
def test_what_the_pool_never_separated_is_said(rng, caps):
    """Two classes of one distribution and a hopeless one: the smaller mean of all 60 wins, both are alive."""
    errors = rng.standard_normal((3, 60)) + np.array([[0.0], [0.0], [50.0]])
    errors[1] += errors[0].mean() - errors[1].mean() - 1e-3  # means 0.001 apart, far below any radius
    result = run(errors, make_policy(risk=0.001, caps=np.array(caps, np.int64).reshape(-1, 2)))
    assert (result["index"], result["status"]) == (1, "pool_exhausted")
    assert result["alive"].tolist() == [True, True, False]
    assert result["n_trials"][:2].tolist() == [60, 60] and result["n_trials"][2] < 60
    assert result["trace"][-1].tolist() == [60, 2, result["n_evals"]]
    staged = run(errors, make_policy(risk=0.0, caps=np.array([(60, 1)])))  # without a test a cap is a rule, to the end
    assert (staged["index"], staged["status"]) == (1, "decided")


def test_one_and_two_classes():
    one = run(np.ones((1, 30)), make_policy())
    assert (one["index"], one["status"], one["n_evals"]) == (0, "decided", 10)  # n_min 8, raised to fill
    two = run(np.array([[2.0] * 30, [1.0] * 30]), make_policy(n_min=12, fill=1))
    assert (two["index"], two["status"], two["n_evals"]) == (1, "decided", 24)


def test_budget_is_kept(rng):
    errors = random_errors(rng, 5, 100, 0.0)
    for budget in (5, 44, 203):
        result = run(errors, make_policy(max_evals=budget))
        assert result["status"] == "budget" and result["n_evals"] <= budget < result["n_evals"] + 5
    with pytest.raises(ValueError, match="max_evals is 4, must allow one trial of every prompt, 5"):
        run(errors, make_policy(max_evals=4))


def test_caps_count_classes_not_prompts():
    """The best class's three prompts do not fill the shortlist."""
    errors = np.array([1.0, 1.1, 1.2, 1.3, 1.4])[:, None] * np.ones((5, 20))
    policy = make_policy(risk=0.0, caps=np.array([[5, 2]]))
    result = run(errors, policy, class_of_arm=[0, 0, 0, 1, 2])
    assert result["alive"].tolist() == [True, True, False]
    assert result["n_trials"].tolist() == [20, 20, 5]


@pytest.mark.parametrize(
    ("name", "k", "evals"),
    [
        ("cifar10", 10, 2750), ("stl10", 10, 3000), ("pets", 37, 2050), ("flowers", 102, 5590), ("food", 101, 5570),
        ("aircraft", 100, 5550), ("objectnet", 113, 14400), ("imagenet", 1000, 124500), ("dit", 20, 5000),
    ],
)  # fmt: skip
def test_published_evaluation_counts(name, k, evals, rng):
    from diffcls.policies import paper

    lowered = lower(paper(name), Terms(k, 1000, None))
    n = len(lowered.trials["timestep"])
    errors = rng.random((k, n))
    result = replay_image(errors, lowered.trials, lowered.policy, np.arange(k))
    assert result["n_evals"] == evals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Race(risk=0.0), "risk is 0.0"),
        (lambda: Race(risk=1.0), "risk is 1.0"),
        (lambda: Race(risk="low"), "risk is 'low'"),
        (lambda: Race(n_min=1), "n_min is 1"),
        (lambda: Race(ramp=-1), "ramp is -1"),
        (lambda: Race(pool=1), "pool is 1"),
        (lambda: Race(max_evals=0), "max_evals is 0"),
        (lambda: Race(caps="none"), "caps is 'none'"),
        (lambda: Race(timesteps="random"), "timesteps is 'random'"),
        (lambda: Race(guarantee="always"), "guarantee is 'always'"),
        (lambda: Race(guarantee="anytime", caps=((10, 2),)), "drop classes without a test"),
        (lambda: Race(min_gap=-0.1), "min_gap is -0.1"),
        (lambda: Race(min_gap=float("nan")), "min_gap is nan"),
        (lambda: Race(prior_weight=-1), "prior_weight is -1"),
        (lambda: Race(timesteps=[1, 2], pool=5), "the list is the pool"),
        (lambda: Fixed(0), "n_samples is 0"),
        (lambda: Fixed(2.5), "n_samples is 2.5"),
        (lambda: Staged((50, 500), (5,)), "2 stages and to_keep 1"),
        (lambda: Staged((500, 50), (5, 1)), "must rise"),
        (lambda: Staged((50, 500), (0, 1)), r"to_keep is \(0, 1\)"),
        (lambda: Staged((50,), (5,), n_trials=0), "n_trials is 0"),
    ],
)
def test_impossible_policies(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_core_refuses_impossible_policies_too():
    errors = np.ones((3, 10))
    bad = [
        {"risk": 1.0},
        {"risk": -0.1},
        {"n_min": 1},
        {"ramp": -1},
        {"prior_weight": -1.0},
        {"fill": 0},
        {"max_evals": -1},
        {"min_gap": -1.0},
    ]
    bad += [{"caps": np.array([[5, 0]])}, {"caps": np.array([[5, 2], [5, 1]])}, {"caps": np.array([[0, 1]])}]
    for settings_ in bad:
        with pytest.raises(ValueError, match=next(iter(settings_))):
            run(errors, make_policy(**settings_))


def test_a_table_with_holes_is_refused():
    errors = np.ones((3, 10))
    errors[1, 4] = np.nan
    with pytest.raises(ValueError, match="no finite error for prompt 1 at trial 4"):
        run(errors, make_policy())
