"""Reliability diagrams and risk-coverage curves: scikit-learn's and SciPy's numbers, cases worked by hand, the pictures."""

import itertools

import numpy as np
import pytest
import scipy.stats
from gaussian import GaussianClasses

import diffcls
from diffcls import reliability_curve, risk_coverage_curve
from diffcls.errors import InputError, ShapeError
from diffcls.intervals import wilson
from diffcls.plotting import ReliabilityDisplay, RiskCoverageDisplay


@pytest.fixture
def guessed(rng):
    """(probabilities, labels): 600 pictures, 4 classes, overconfident."""
    truth = rng.dirichlet([0.5] * 4, 600)
    labels = np.array([rng.choice(4, p=row) for row in truth])
    sharper = truth**1.5
    return sharper / sharper.sum(axis=1, keepdims=True), labels


def two_classes(confidence, right):
    """(probabilities, labels) of answers of class 0 with these probabilities."""
    confidence = np.array(confidence, float)
    return np.column_stack([confidence, 1 - confidence]), np.where(right, 0, 1)


# ---- reliability -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_bins_are_those_of_scikit_learn(guessed, strategy, n_bins):
    from sklearn.calibration import calibration_curve

    p, labels = guessed
    p = (20 * p).round()  # many equal values, some on the edges
    p /= p.sum(axis=1, keepdims=True)
    curve = reliability_curve(p, labels, n_bins=n_bins, strategy=strategy, n_bootstrap=2)
    right = p.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, p.max(axis=1), n_bins=n_bins, strategy=strategy)
    full = curve.count > 0
    np.testing.assert_allclose(curve.accuracy[full], accuracy, rtol=1e-12)
    np.testing.assert_allclose(curve.confidence[full], confidence, rtol=1e-12)
    assert np.isnan(curve.accuracy[~full]).all() and curve.count.sum() == 600
    gaps = np.abs(accuracy - confidence)
    assert curve.ece == pytest.approx(np.average(gaps, weights=curve.count[full]), rel=1e-9)


def test_a_case_by_hand():
    """Two bins: (0.6, 0.7 | one right of two) and (0.9, 1.0, 0.8 | two right of three)."""
    p, labels = two_classes([0.6, 0.9, 0.7, 1.0, 0.8], [True, True, False, False, True])
    curve = reliability_curve(p, labels, n_bins=4, n_bootstrap=2)
    assert curve.count.tolist() == [0, 0, 2, 3]
    np.testing.assert_allclose(curve.accuracy[2:], [1 / 2, 2 / 3])
    np.testing.assert_allclose(curve.confidence[2:], [0.65, 0.9])
    assert curve.ece == pytest.approx(2 / 5 * 0.15 + 3 / 5 * (0.9 - 2 / 3))


def test_bins_of_equal_mass(guessed):
    curve = reliability_curve(*guessed, n_bins=10, strategy="quantile", n_bootstrap=2)
    assert curve.count.tolist() == [60] * 10 and curve.strategy == "quantile"


def test_what_chance_alone_gives_is_a_binomial_deviation():
    """All at 0.7 in one bin: the ece of N calibrated answers is |B / N - 0.7|, B binomial."""
    p, labels = two_classes([0.7] * 50, [True] * 50)
    curve = reliability_curve(p, labels, n_bins=1, n_bootstrap=20_000)
    b = np.arange(51)
    exact = np.abs(b / 50 - 0.7) @ scipy.stats.binom.pmf(b, 50, 0.7)
    spread = np.sqrt((b / 50 - 0.7) ** 2 @ scipy.stats.binom.pmf(b, 50, 0.7))
    assert curve.ece_if_calibrated == pytest.approx(exact, abs=5 * spread / np.sqrt(20_000))
    assert curve.ece == pytest.approx(0.3) and curve.ece_interval == pytest.approx((0.3, 0.3))


def test_interval_is_the_bootstrap_of_scipy(guessed):
    p, labels = guessed
    gap = (p.argmax(axis=1) == labels) - p.max(axis=1)
    curve = reliability_curve(p, labels, n_bins=1, n_bootstrap=4000, confidence_level=0.8)
    theirs = scipy.stats.bootstrap(
        (gap,), lambda x, axis: np.abs(x.mean(axis=axis)), n_resamples=4000, method="percentile", confidence_level=0.8,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert curve.ece_interval == pytest.approx((theirs.low, theirs.high), abs=0.1 * (theirs.high - theirs.low))
    assert (
        curve.ece_interval
        == reliability_curve(p, labels, n_bins=1, n_bootstrap=4000, confidence_level=0.8).ece_interval
    )
    assert curve.ece_if_calibrated < curve.ece_interval[0]  # overconfident, and seen to be


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 40), (999, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_wilson_is_that_of_scipy(right, n, level):
    low, high = wilson(right, n, level)
    theirs = scipy.stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_results_give_the_winners_probability():
    gaussian = GaussianClasses(n_classes=4, dimension=6, seed=11)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 50)
    results = diffcls.classify(gaussian.sample(labels, rng), model=gaussian.denoiser(), priors=[1, 1, 1, 500])
    right = results.index == labels
    confidence = results.probabilities[np.arange(50), results.index]
    curve = reliability_curve(results, [str(label) for label in labels], n_bins=1, n_bootstrap=2)
    assert curve.accuracy == right.mean() and curve.confidence == pytest.approx(confidence.mean())
    assert (results.probabilities.max(axis=1) > confidence).any()  # the prior's favourite is not the winner


# ---- risk and coverage -----------------------------------------------------------------------------------------------


def test_risk_by_hand():
    p, labels = two_classes([0.9, 0.6, 0.8, 0.7], [True, False, False, True])
    curve = risk_coverage_curve(p, labels, n_bootstrap=2)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    np.testing.assert_allclose(curve.best_risk, [0, 0, 1 / 3, 2 / 4])
    assert curve.aurc == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4) and curve.e_aurc == pytest.approx(1 / 8)
    assert [curve.coverage_at(risk) for risk in (0, 0.4, 0.5)] == [0.25, 0.75, 1.0]


def test_equal_scores_stand_in_random_order():
    """The curve is the mean over every order of the tied pictures."""
    score = np.array([3.0, 2.0, 2.0, 2.0, 2.0, 1.0])
    wrong = np.array([0, 1, 0, 0, 1, 1])
    p, labels = two_classes([0.8] * 6, wrong == 0)
    orders = [[0, *middle, 5] for middle in itertools.permutations([1, 2, 3, 4])]
    expected = np.mean([np.cumsum(wrong[order]) / np.arange(1, 7) for order in orders], axis=0)
    curve = risk_coverage_curve(p, labels, score=score, n_bootstrap=2)
    np.testing.assert_allclose(curve.risk, expected, rtol=1e-12)
    assert curve.coverage_at(0.41) == pytest.approx(5 / 6)  # not 1/6 + half of the tie
    assert curve.coverage_at(0.3) == pytest.approx(1 / 6)


def test_best_and_worst_order(guessed):
    p, labels = guessed
    right = p.argmax(axis=1) == labels
    best, worst = (risk_coverage_curve(p, labels, score=sign * right, n_bootstrap=2) for sign in (1.0, -1.0))
    strict = risk_coverage_curve(p, labels, score=right + 1e-3 * np.arange(600), n_bootstrap=2)
    np.testing.assert_allclose(strict.best_risk, best.best_risk)
    assert best.e_aurc == pytest.approx(0, abs=1e-12) and worst.e_aurc > 0
    assert best.aurc < risk_coverage_curve(p, labels, n_bootstrap=2).aurc < worst.aurc
    assert best.coverage_at(0.0) == right.mean() and worst.coverage_at(0.0) == 0.0
    assert best.risk[-1] == worst.risk[-1] == pytest.approx(1 - right.mean())


def test_area_and_its_interval(guessed):
    p, labels = guessed
    curve = risk_coverage_curve(p, labels, n_bootstrap=500, confidence_level=0.8)
    order = np.argsort(-p.max(axis=1))
    wrong = (p.argmax(axis=1) != labels)[order]
    assert curve.aurc == pytest.approx(np.mean(np.cumsum(wrong) / np.arange(1, 601)))

    def area(rows, axis):
        ordered = np.take_along_axis(wrong[rows], np.argsort(rows, axis=axis), axis)
        return np.mean(np.cumsum(ordered, axis=axis) / np.arange(1, 601), axis=axis)

    theirs = scipy.stats.bootstrap(
        (np.arange(600),),
        area,
        n_resamples=500,
        method="percentile",
        confidence_level=0.8,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert curve.aurc_interval == pytest.approx((theirs.low, theirs.high), abs=0.2 * (theirs.high - theirs.low))


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_refusals(guessed):
    p, labels = guessed
    with pytest.raises(InputError, match="sum to 1"):
        reliability_curve(2 * p, labels)
    with pytest.raises(InputError, match="sum to 1"):
        reliability_curve(np.where(p > 0.9, np.nan, p), labels)
    with pytest.raises(ShapeError, match=r"\(600,\)"):
        reliability_curve(p[:, 0], labels)
    with pytest.raises(ShapeError, match="labels has shape"):
        risk_coverage_curve(p, labels[1:])
    with pytest.raises(ShapeError, match="score has shape"):
        risk_coverage_curve(p, labels, score=p)
    with pytest.raises(InputError, match="score has NaN"):
        risk_coverage_curve(p, labels, score=np.full(600, np.nan))
    for function in (reliability_curve, risk_coverage_curve):
        with pytest.raises(InputError, match=r"confidence_level is 95"):
            function(p, labels, confidence_level=95)
        with pytest.raises(InputError, match=r"n_bootstrap is 0"):
            function(p, labels, n_bootstrap=0)
    with pytest.raises(InputError, match=r"n_bins is 0"):
        reliability_curve(p, labels, n_bins=0)
    with pytest.raises(InputError, match=r"strategy is 'equal'"):
        reliability_curve(p, labels, strategy="equal")


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def axes():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, pair = pyplot.subplots(1, 2)
    yield pair
    pyplot.close(figure)


def test_reliability_display_draws_the_curve(guessed, axes):
    display = ReliabilityDisplay.from_results(*guessed, n_bins=12, n_bootstrap=20, ax=axes[0], name="raw")
    curve, full = display.curve, display.curve.count > 0
    assert display.ax_ is axes[0] and display.figure_ is axes[0].figure
    (points, _, (bars,)) = axes[0].containers[1]
    np.testing.assert_array_equal(points.get_xydata(), np.column_stack([curve.confidence, curve.accuracy])[full])
    ends = np.array(bars.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, np.column_stack([curve.accuracy_low, curve.accuracy_high])[full])
    heights = [patch.get_height() for patch in axes[0].containers[0]]
    np.testing.assert_allclose(heights, curve.count / 600)
    assert f"raw: ECE {curve.ece:.3f}" in axes[0].get_legend().get_texts()[-1].get_text()
    assert display.plot(ax=axes[1], histogram=False) is display and len(axes[1].containers) == 1


def test_risk_coverage_display_draws_the_curve(guessed, axes):
    display = RiskCoverageDisplay.from_results(*guessed, n_bootstrap=20, ax=axes[0])
    curve = display.curve
    lines = axes[0].get_lines()
    np.testing.assert_array_equal(lines[0].get_xydata(), np.column_stack([curve.coverage, curve.risk]))
    np.testing.assert_array_equal(lines[2].get_ydata(), curve.best_risk)
    assert list(lines[1].get_ydata()) == [curve.risk[-1]] * 2
    assert display.plot(ax=axes[1], references=False) is display and len(axes[1].get_lines()) == 1
