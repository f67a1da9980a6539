"""`Classifier.audit`: what it counts, which pictures it takes, and the exact interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import diffcls
from diffcls import Fixed, InputError, Staged
from diffcls.audit import choose
from diffcls.intervals import clopper_pearson


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@settings(deadline=None, max_examples=200)
def test_clopper_pearson_is_scipys(n, share, confidence):
    count, tail = round(share * n), (1 - confidence) / 2
    low, high = clopper_pearson(count, n, confidence)
    assert low == pytest.approx(stats.beta.ppf(tail, count, n - count + 1) if count else 0.0, rel=1e-8)
    assert high == pytest.approx(stats.beta.isf(tail, count + 1, n - count) if count < n else 1.0, rel=1e-8)


@pytest.mark.parametrize(
    ("count", "n", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 5, 0.0), (1, 5, 1.0)]
)
def test_impossible_counts(count, n, confidence):
    with pytest.raises(InputError, match="count is|confidence is"):
        clopper_pearson(count, n, confidence)


def test_counts_the_disagreements(gaussian, rng):
    """One trial decides: the pictures on which that differs from the pool of 200 are exactly those reported."""
    x = gaussian.sample(rng.integers(0, 5, 80), rng)
    hasty = Staged((1, 200), (1, 1))
    classifier = diffcls.Classifier(gaussian.denoiser(), policy=hasty)
    audit = classifier.audit(x, minimum=60)
    full = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(200))
    wrong = np.flatnonzero(classifier(x).index != full.index)
    assert 0 < len(wrong) < 80
    assert audit.indices == choose(80, 60, 0)
    assert audit.disagreeing == [i for i in audit.indices if i in wrong]
    assert (audit.n_images, audit.n_disagree) == (60, len(audit.disagreeing))
    assert audit.interval == clopper_pearson(audit.n_disagree, 60, 0.95)
    assert audit.n_evals_full == 60 * 5 * 200 and audit.n_evals == 60 * (5 + 199)
    assert str(audit).startswith(f"{audit.n_disagree} of 60 answers differ")
    assert audit.to_dict()["run"]["audit"]["seed"] == 0


def test_stated_risk_is_the_mean_p_disagree(gaussian, rng):
    x = gaussian.sample(rng.integers(0, 5, 30), rng)
    classifier = diffcls.Classifier(gaussian.denoiser())
    audit = classifier.audit(x)
    assert audit.n_images == 30  # fewer than the minimum: all
    assert audit.stated == pytest.approx(np.mean([result.p_disagree for result in classifier(x)]))


def test_choice_is_by_seed_and_even():
    assert choose(1000, 50, 3) == choose(1000, 50, 3) != choose(1000, 50, 4)
    assert len(set(choose(1000, 50, 3))) == 50
    count = np.zeros(20)
    for seed in range(2000):
        count[choose(20, 5, seed)] += 1
    assert stats.chisquare(count).pvalue > 1e-6
    assert set(choose(100, 10, 7)) & set(range(50)) <= set(
        choose(50, 10, 7)
    )  # a picture's place in the draw is its own


def test_refusals(gaussian, rng):
    classifier = diffcls.Classifier(gaussian.denoiser())
    x = gaussian.sample([1], rng)
    for options, message in (
        ({"share": 1.5}, "share"),
        ({"minimum": 0}, "minimum"),
        ({"confidence": 2.0}, "confidence"),
    ):
        with pytest.raises(InputError, match=message):
            classifier.audit(x, **options)
    with pytest.raises(InputError, match="empty"):
        classifier.audit([])
