"""`watch`: what stands after a round is what a race over the same errors says there, and the last word is `classify`'s."""

import numpy as np
import pytest
from scipy import stats

import diffcls
from diffcls.reference_race import RaceReference

POLICY = diffcls.Race(risk=0.05, n_min=4, ramp=0, pool=60)
SAME = ("losses", "stderr", "excess", "n_trials", "alive", "probabilities")


@pytest.fixture
def classifier(gaussian):
    return diffcls.Classifier(gaussian.denoiser(), policy=POLICY, keep_errors=True)


def test_the_last_is_the_answer_and_the_others_lead_to_it(classifier, gaussian, rng):
    for x in gaussian.sample(rng.integers(0, 5, 6), rng):
        rounds, answer = list(diffcls.watch(classifier, x)), classifier(x)
        for name in (*SAME, "errors"):
            np.testing.assert_array_equal(getattr(rounds[-1], name), getattr(answer, name))
        assert (rounds[-1].status, rounds[-1].p_disagree, rounds[-1].run) == (
            answer.status,
            answer.p_disagree,
            answer.run,
        )
        assert [r.trace for r in rounds] == [answer.trace[: i + 1] for i in range(len(answer.trace))]
        assert [r.status for r in rounds[:-1]] == ["running"] * (len(rounds) - 1)


def test_a_round_stands_as_the_reference_has_it(classifier, gaussian, rng):
    """RaceReference with a budget that ends at the round: means over what was evaluated, and who is left."""
    n_rounds = 0
    for x in gaussian.sample(rng.integers(0, 5, 6), rng):
        rounds = list(diffcls.watch(classifier, x))
        n_rounds += len(rounds)
        weight = classifier.trials["weight"]
        table = np.nan_to_num(rounds[-1].errors, nan=1e9)  # never looked at, or the answer would change
        for told in rounds:
            policy = {**classifier._lowered.policy, "max_evals": told.n_evals}
            twin = RaceReference(table, weight, policy, stats.t.isf, range(5)).run()
            assert told.trace[-1]["n_evals"] == twin.n_evals == told.n_evals
            assert told.n_trials.tolist() == twin.n_done
            assert twin.alive == np.flatnonzero(told.alive).tolist()
            np.testing.assert_allclose(told.losses, [twin.mean(k) for k in range(5)], rtol=1e-12)
            assert np.isfinite(told.errors).sum() == told.n_evals
    assert n_rounds > 12


def test_who_stops_reading_stops_the_race(gaussian, rng):
    asked = []

    def counting(x_t, t, cond):
        asked.append(len(t))
        return gaussian.predict(x_t, t, cond)

    denoiser = diffcls.Denoiser(counting, shape=(12,), schedule=gaussian.schedule, n_classes=5)
    rounds = diffcls.watch(diffcls.Classifier(denoiser, policy=diffcls.Race(n_min=8)), gaussian.means[0])
    assert asked == []  # nothing is evaluated before the first round is asked for
    assert next(rounds).n_evals == sum(asked) == 40
    rounds.close()
    assert sum(asked) == 40


def test_progress_can_end_it_inside_a_round(gaussian):
    class LeftError(Exception):
        pass

    def leave(done, most):
        raise LeftError

    classifier = diffcls.Classifier(gaussian.denoiser(), policy=diffcls.Fixed(400), batch_size=5, progress=leave)
    with pytest.raises(LeftError):
        next(diffcls.watch(classifier, gaussian.means[0]))


def test_a_shortlist_races_alone(gaussian, rng):
    shortlist = diffcls.Shortlist(lambda image, classes: np.arange(len(classes), dtype=float), k=2)
    classifier = diffcls.Classifier(gaussian.denoiser(), policy=POLICY, shortlist=shortlist)
    rounds = list(diffcls.watch(classifier, gaussian.means[4]))
    assert (rounds[0].n_trials > 0).tolist() == [False, False, False, True, True]
    np.testing.assert_array_equal(rounds[-1].losses, classifier(gaussian.means[4]).losses)


def test_the_embedded_model_and_its_warning(rng):
    classifier = diffcls.Classifier()
    noise = rng.integers(0, 255, (28, 28), dtype=np.uint8)
    with pytest.warns(diffcls.OutOfWorldWarning):
        answer = classifier(noise)
    with pytest.warns(diffcls.OutOfWorldWarning):
        rounds = list(diffcls.watch(classifier, noise))
    assert answer.unlike_training and rounds[-1].unlike_training and rounds[-1].warnings == answer.warnings
    assert {r.unlike_training for r in rounds[:-1]} == {None}
    np.testing.assert_array_equal(rounds[-1].picture, answer.picture)
    assert "classes left" in rounds[0]._repr_html_()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda c, x: diffcls.watch(7, x), diffcls.DTypeError, "classifier is"),
        (lambda c, x: diffcls.watch(c, np.stack([x, x])), diffcls.InputError, "image is 2 pictures, must be one"),
        (lambda c, x: diffcls.watch(c, x[:3]), diffcls.ShapeError, "image"),
    ],
)
def test_mistakes_are_told_at_the_call(classifier, gaussian, make, error, sentence):
    with pytest.raises(error, match=sentence):
        make(classifier, gaussian.means[0])
