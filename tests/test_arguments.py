"""Wrong arguments: one sentence of an error of diffcls that names the argument, and nothing taken in silence."""

import pickle

import numpy as np
import pytest

import diffcls
from diffcls import Calibration, Fixed, Profile, Race, Staged, ablation, policies
from diffcls.policy_text import parse_policy
from diffcls.profile import schedule_fingerprint


def refused(call, *words):
    with pytest.raises(diffcls.DiffclsError) as caught:
        call()
    told = str(caught.value)
    assert "\n" not in told and all(word in told for word in words), told


@pytest.fixture
def classifier(gaussian):
    return diffcls.Classifier(gaussian.denoiser())


@pytest.mark.parametrize(
    "caps",
    [25, "none", (25, 10), [(25, -1)], [(0, 0)], [(5.7, 2)], [(25, 10), (75,)], [(75, 5), (25, 10)], [(25, 9), (25, 5)], ["ab"]],
)  # fmt: skip
def test_caps(caps):
    refused(lambda: Race(caps=caps), "caps is ", "pairs (trials, keep)")


@pytest.mark.parametrize("timesteps", [None, ["a"], [0.5, 3.7], [], 10, [[1, 2]], [-1], [True, False], {1, 2}, "all"])
def test_timesteps(timesteps):
    refused(lambda: Race(timesteps=timesteps), "timesteps is ", "must be")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"risk": "a"}, "risk is 'a', must be a number between 0 and 1"), ({"risk": True}, "risk"), ({"risk": np.ones(2)}, "risk"),
        ({"risk": float("nan")}, "risk is nan"), ({"min_gap": -1}, "min_gap is -1"), ({"min_gap": float("inf")}, "min_gap is inf"),
        ({"guarantee": ["anytime"]}, "guarantee"), ({"pool": 1.5}, "pool is 1.5"),
    ],
)  # fmt: skip
def test_other_options_of_a_race(options, words):
    refused(lambda: Race(**options), words)


def test_arrays_and_numpys_numbers_are_taken():
    race = Race(
        risk=np.float32(0.25), min_gap=np.float32(0.5), prior_weight=np.int64(4), n_min=np.int32(8),
        caps=np.array([[25, 10], [75, 5]]), timesteps=np.arange(5),
    )  # fmt: skip
    assert race == Race(
        risk=0.25, min_gap=0.5, caps=((25, 10), (75, 5)), timesteps=[0, 1, 2, 3, 4], prior_weight=4.0, n_min=8
    )
    assert Staged(np.array([50, 500]), np.array([5, 1])) == Staged((50, 500), [5, 1])
    assert all(type(value) is int for pair in race.caps for value in pair)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ((5, 1), "n_samples is 5"), (([50.0], [1]), "n_samples is [50.0]"), (([50], [0]), "to_keep is [0]"), (([], []), "n_samples is []"),
        ((["a"], [1]), "n_samples"), (([50, 20], [5, 1]), "must rise"), (([50], [5, 1]), "same number"),
    ],
)  # fmt: skip
def test_stages(stages, words):
    refused(lambda: Staged(*stages), words)


def test_published_grids_and_antithetic_noise(gaussian):
    policy = Staged((20, 40), (3, 1), nested=False)
    refused(
        lambda: diffcls.Classifier(gaussian.denoiser(), policy=policy, noise="antithetic"),
        "noise='antithetic'", "n_trials is 1, must be even",
    )  # fmt: skip
    even = Staged((20, 40), (3, 1), n_trials=2, nested=False)
    trials = diffcls.Classifier(gaussian.denoiser(), policy=even, noise="antithetic").trials
    assert trials["eps_sign"].sum() == 0 and len(trials["timestep"]) == 80


@pytest.mark.parametrize(
    "policy", [Race(timesteps=np.arange(9)), Race(caps=np.array([[5, 2]])), Staged([9], np.array([1]))]
)
def test_policies_compare_hash_and_pickle(policy):
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy and hash(again) == hash(policy) and repr(again) == repr(policy)


def test_policies_with_a_profile_compare_by_value(rng):
    def profile(spread, **changes):
        parts = {"schedule": "s", "model": "m", "run": {"seed": 1}} | changes
        return Profile(spread, **parts)

    spread = rng.random(50)
    policy = Race(timesteps=profile(spread))
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy and hash(again) == hash(policy) and len({again, policy}) == 1
    others = [profile(spread[::-1]), profile(spread, schedule="t"), profile(spread, model="n"), profile(spread, run={})]
    assert all(Race(timesteps=other) != policy for other in others)
    assert profile(spread) != "profile" and policy != Race()


def test_a_loaded_profile_is_the_saved_one(tmp_path, rng):
    for _ in range(50):
        saved = Profile(rng.gamma(0.3, size=97), "s", "m", {"seed": 1})
        saved.save(tmp_path / "p.json")
        assert Profile.load(tmp_path / "p.json") == saved


@pytest.mark.parametrize("weighting", [["a"], np.array([object()]), {1: 2}, [[1], [1, 2]], [1j], object()])
def test_weightings(gaussian, weighting):
    refused(lambda: diffcls.Classifier(gaussian.denoiser(), weighting=weighting), "weighting is ", "array of numbers")


def test_losses_and_priors(gaussian):
    refused(lambda: diffcls.Classifier(gaussian.denoiser(), loss=np.array(["l2", "l1"])), "loss is ")
    refused(lambda: diffcls.Classifier(gaussian.denoiser(), priors=list("abcde")), "priors is ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("race:pool=200,caps=25", "caps is 25"),
        ("race:timesteps=none", "timesteps is None"),
        ("race:caps=25:-1", "caps is"),
    ],
)
def test_policies_as_words(text, words):
    refused(lambda: parse_policy(text), text, words)


def test_one_timestep_as_a_word():
    assert parse_policy("race:timesteps=10") == Race(timesteps=[10])


def test_what_is_no_table(rng):
    for call in (lambda table: diffcls.fit_weighting(table), lambda table: ablation.sweep(table, {}), ablation.ablate):
        for table in (rng.random((30, 5, 9)), None):
            refused(lambda call=call, table=table: call(table), "table is ", "ErrorTable")


def test_what_tables_are_asked(classifier, gaussian, rng):
    table = classifier.error_table(gaussian.sample([0, 1, 2], rng), n_samples=8, labels=[0, 1, 2])
    refused(lambda: ablation.sweep(table, [Fixed(8)]), "policies is ", "Mapping")
    for images in ([3], [-4], [0.5], 1, [True], "a", [[0]]):
        refused(lambda images=images: table.select(images=images), "images is ", "positions from 0 to 2")
    refused(lambda: table.select(trials=[8]), "trials is [8]", "positions from 0 to 7")
    assert len(table.select(images=[])) == 0 and len(table.select(images=table.labels > 0)) == 2
    np.testing.assert_array_equal(table.select(images=[-1, 0]).errors, table.errors[[2, 0]])
    np.testing.assert_array_equal(table.select(trials=range(3)).errors, table.errors[:, :, :3])


def test_what_classifiers_are_asked(classifier, gaussian, rng):
    x = gaussian.sample([0, 1], rng)
    refused(lambda: diffcls.calibrate(gaussian.denoiser(), x), "classifier is ", "Classifier")
    refused(lambda: diffcls.calibrate(classifier, x, smoothing="a"), "smoothing is 'a'")
    for confidence in ("a", None, 1.0):
        refused(lambda confidence=confidence: classifier.audit(x, confidence=confidence), "confidence is ")
    refused(lambda: policies.paper(["a"]), "no setting ['a']")


def test_curves():
    p, labels = np.full((3, 2), 0.5), [0, 1, 0]
    refused(lambda: diffcls.risk_coverage_curve(p, labels, score=["a"] * 3), "score is ", "array of numbers")
    for curve in (diffcls.risk_coverage_curve, diffcls.reliability_curve):
        refused(lambda curve=curve: curve(p, labels, confidence_level="a"), "confidence_level is 'a'")
        refused(lambda curve=curve: curve(p, labels, seed="a"), "seed is 'a'")
        refused(lambda curve=curve: curve(p, labels, n_bootstrap=0.5), "n_bootstrap is 0.5")


def test_files(tmp_path, gaussian):
    refused(lambda: Calibration.load(tmp_path), str(tmp_path))
    path = tmp_path / "p.json"
    Profile(np.ones(4), schedule_fingerprint(gaussian.schedule), "m", {}).save(path)
    path.write_text(path.read_text().replace("1.0", '"one"'))
    refused(lambda: Profile.load(path), "p.json is damaged: spread is ")
