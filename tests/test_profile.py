"""Profiles and `calibrate`: the estimand stays, the noise of a trial shrinks, files say what they belong to."""

import json

import numpy as np
import pytest
from gaussian import GaussianClasses

import diffcls
from diffcls import Fixed, InputError, Profile, Race
from diffcls.profile import FLOOR, schedule_fingerprint


def make_profile(spread, schedule=None, model="toy"):
    schedule = schedule or diffcls.Schedule.linear(len(spread))
    return Profile(np.asarray(spread, float), schedule_fingerprint(schedule), model, {})


def test_any_profile_estimates_the_same_loss(gaussian, rng):
    """A profile drawn at random: every class's loss is within five standard errors of its closed form."""
    x = gaussian.sample([2], rng)[0]
    profile = make_profile(rng.gamma(0.5, size=1000), gaussian.schedule)
    policy = Race(timesteps=profile, pool=4000, risk=1e-9, ramp=10**6, caps=None)
    result = diffcls.classify(x, model=gaussian.denoiser(), policy=policy)
    for k in range(5):
        assert abs(result.losses[k] - gaussian.expected_loss(x, k)) < 5 * result.stderr[k]


def test_weighted_draws_are_exact_in_the_limit(rng):
    """The weighted sum over the pool converges to the objective: a function of the timestep alone has no other noise."""
    weighting, f = rng.random(50) * (rng.random(50) < 0.8), rng.random(50)
    profile = make_profile(rng.gamma(0.5, size=50))
    exact = np.sum(weighting * f) / weighting.sum()
    for n, tolerance in ((1000, 2e-2), (100_000, 3e-4)):
        terms = diffcls.policies.Terms(3, 50, weighting)
        trials = diffcls.policies.lower(Race(timesteps=profile, pool=n), terms).trials
        assert np.mean(trials["weight"] * f[trials["timestep"]]) == pytest.approx(exact, abs=tolerance)


def test_density_is_floored_and_follows_the_weighting(rng):
    weighting = rng.random(200) * (rng.random(200) < 0.7)
    profile = make_profile(np.where(np.arange(200) < 100, 0.0, rng.gamma(0.3, size=200)))
    q, w = profile.density(weighting), weighting / weighting.sum()
    assert q.sum() == pytest.approx(1.0)
    assert np.all(q[w == 0] == 0)
    assert np.max(w[w > 0] / q[w > 0]) == pytest.approx(1 / FLOOR)  # where classes never differ
    ratio = (q - FLOOR * w)[100:] / np.maximum(w * profile.spread, 1e-300)[100:]
    np.testing.assert_allclose(ratio[w[100:] > 0], ratio[w[100:] > 0][0])  # q follows w * spread above the floor


def exact_spread(gaussian, x):
    """Root mean square of the two classes' error difference at each timestep, over noise, in closed form.

    With x_start - x_hat_k = (1 - g a)(x - m_k) - g s eps: d = (a / s)^2 (mean of squares' difference + 2 (1 - g a) g s
    mean(eps (m_c - m_b))), the second part normal.
    """
    a, s, v = gaussian.schedule.alpha, gaussian.schedule.sigma, gaussian.v
    g = a * v / (a * a * v + s * s)
    gap = np.diff(((x[:, None] - gaussian.means) ** 2).mean(axis=2))  # (N, 1)
    apart = ((gaussian.means[1] - gaussian.means[0]) ** 2).mean() / gaussian.means.shape[1]
    square = (a / s) ** 4 * ((1 - g * a) ** 4 * gap**2 + 4 * (1 - g * a) ** 2 * (g * s) ** 2 * apart)
    return np.sqrt((square / square.mean(axis=1, keepdims=True)).mean(axis=0))


def test_calibrate_finds_the_closed_form(rng):
    gaussian = GaussianClasses(n_classes=2, dimension=12, seed=3)
    x = gaussian.sample(rng.integers(0, 2, 300), rng)
    profile = diffcls.calibrate(diffcls.Classifier(gaussian.denoiser()), x)
    exact = exact_spread(gaussian, x)
    smooth = np.exp(-0.5 * ((np.arange(1000)[:, None] - np.arange(1000)) / 40) ** 2)
    exact = np.sqrt(smooth @ exact**2 / smooth.sum(axis=1))
    np.testing.assert_allclose(profile.spread, exact / exact.mean(), atol=0.25)
    assert exact.max() > 3 * exact.min()  # the toy's profile is far from flat
    assert profile.run["n_images"] == 300 and profile.run["n_evals"] == 300 * 2 * 96


def test_calibrated_trials_are_less_noisy_on_other_pictures(gaussian, rng):
    """The t statistic of a pair grows as the trials' relative noise shrinks; and the race needs fewer evaluations."""
    classifier = diffcls.Classifier(gaussian.denoiser())
    profile = diffcls.calibrate(classifier, gaussian.sample(rng.integers(0, 5, 24), rng))
    x = gaussian.sample(rng.integers(0, 5, 100), rng)
    uniform, calibrated = (
        diffcls.classify(x, model=gaussian.denoiser(), policy=Race(timesteps=timesteps))
        for timesteps in ("uniform", profile)
    )
    nearest = ((x[:, None] - gaussian.means) ** 2).sum(axis=2).argmin(axis=1)
    assert calibrated.n_evals.sum() < 0.9 * uniform.n_evals.sum()
    assert (calibrated.index == nearest).mean() >= (uniform.index == nearest).mean() - 0.02


def test_calibrate_several_prompts_a_class(gaussian, rng):
    x = gaussian.sample([0, 1, 2], rng)
    prompts = {"low": ["0", "1"], "high": ["2", "3"]}
    profile = diffcls.calibrate(diffcls.Classifier(gaussian.denoiser(), prompts), x)
    assert profile.spread.shape == (1000,) and profile.run["n_images"] == 3


def test_save_and_load(tmp_path, gaussian, rng):
    profile = make_profile(rng.random(1000), gaussian.schedule)
    profile.save(tmp_path / "profile.json")
    again = Profile.load(tmp_path / "profile.json")
    np.testing.assert_array_equal(again.spread, profile.spread)
    assert (again.model, again.schedule, again.run) == (profile.model, profile.schedule, profile.run)
    x = gaussian.sample([1], rng)[0]
    results = [diffcls.classify(x, model=gaussian.denoiser(), policy=Race(timesteps=p)) for p in (profile, again)]
    assert results[0].losses.tolist() == results[1].losses.tolist()


def test_calibrated_means_the_models_own(gaussian, rng):
    denoiser, x = gaussian.denoiser(), gaussian.sample([1], rng)[0]
    with pytest.raises(InputError, match="the model carries no profile; measure one"):
        diffcls.classify(x, model=denoiser, policy=Race(timesteps="calibrated"))
    denoiser.profile = make_profile(rng.random(1000), gaussian.schedule)
    own = diffcls.classify(x, model=denoiser, policy=Race(timesteps="calibrated"))
    given = diffcls.classify(x, model=gaussian.denoiser(), policy=Race(timesteps=denoiser.profile))
    assert own.losses.tolist() == given.losses.tolist()


def test_the_run_record_holds_the_profile(gaussian, rng):
    profile = make_profile(rng.random(1000), gaussian.schedule)
    result = diffcls.classify(gaussian.sample([1], rng)[0], model=gaussian.denoiser(), policy=Race(timesteps=profile))
    record = json.loads(json.dumps(result.run))["policy"]["timesteps"]
    assert record["spread"] == profile.spread.tolist() and record["schedule"] == profile.schedule


def test_a_profile_of_another_schedule_is_refused(gaussian, rng):
    for schedule in (diffcls.Schedule.linear(500), diffcls.Schedule.squaredcos_cap_v2(1000)):
        profile = make_profile(rng.random(len(schedule)), schedule, "other")
        with pytest.raises(diffcls.FingerprintMismatchError, match="another noise schedule \\('other', "):
            diffcls.Classifier(gaussian.denoiser(), policy=Race(timesteps=profile))


@pytest.mark.parametrize(
    "content", ["", "[1, 2]", '{"format": "diffcls profile 9"}', '{"format": "diffcls profile 1"}']
)
def test_what_is_no_profile_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match="x.json"):
        Profile.load(tmp_path / "x.json")


@pytest.mark.parametrize("spread", [[], [0, 0], [1, -1], [1, np.nan], [[1, 2]]])
def test_impossible_spreads(spread):
    with pytest.raises(ValueError, match="spread"):
        Profile(np.array(spread, float), "", "", {})


def test_calibrate_refuses(gaussian, rng):
    classifier = diffcls.Classifier(gaussian.denoiser())
    x = gaussian.sample([1], rng)
    with pytest.raises(InputError, match="images is empty"):
        diffcls.calibrate(classifier, [])
    with pytest.raises(InputError, match="smoothing is 0.0"):
        diffcls.calibrate(classifier, x, smoothing=0.0)
    with pytest.raises(InputError, match="one class"):
        diffcls.calibrate(diffcls.Classifier(gaussian.denoiser(), ["1"]), x)
    blind = diffcls.Denoiser(lambda x_t, t, cond: x_t, shape=(12,), schedule=gaussian.schedule, n_classes=3)
    with pytest.raises(InputError, match="ignores its condition"):
        diffcls.calibrate(diffcls.Classifier(blind), x)


def test_fixed_pools_do_not_move(gaussian):
    """A model's profile changes no policy that did not ask for it."""
    denoiser = gaussian.denoiser()
    plain = diffcls.Classifier(denoiser, policy=Fixed(50))._lowered.trials
    denoiser.profile = make_profile(np.arange(1000) + 1.0, gaussian.schedule)
    carrying = diffcls.Classifier(denoiser, policy=Fixed(50))._lowered.trials
    np.testing.assert_array_equal(plain["timestep"], carrying["timestep"])
