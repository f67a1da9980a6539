"""Weightings: conversions on error tables, closed forms, and integrals against SciPy."""

import numpy as np
import pytest
from scipy import integrate, stats

import diffcls
from diffcls import Fixed, Schedule, weightings
from diffcls.testing import GaussianMixture

TYPES = ["epsilon", "v_prediction", "sample", "flow_prediction", "edm"]
SCHEDULES = {
    "linear": Schedule.linear(200),
    "cosine": Schedule.squaredcos_cap_v2(200),
    "flow": Schedule.flow(200, 3.0),
    "edm": Schedule.edm(np.geomspace(0.002, 80.0, 200)),
}


def with_edm(schedule):
    """Prediction type edm needs sigma_data."""
    return Schedule(schedule.alpha, schedule.sigma, schedule.time, discrete=schedule.is_discrete, sigma_data=0.5)


def free_of_ends(schedule):
    """Without the rows where eps says nothing: every conversion exists."""
    keep = (schedule.alpha > 0) & (schedule.sigma > 0)
    return Schedule(
        schedule.alpha[keep], schedule.sigma[keep], schedule.time[keep], discrete=schedule.is_discrete, sigma_data=0.5
    )


@pytest.fixture
def mixture(rng):
    covariance = np.stack([np.cov(rng.standard_normal((6, 30))) for _ in range(3)])
    return GaussianMixture(rng.standard_normal((3, 6)), covariance)


def snr(schedule):
    return schedule.alpha**2 / schedule.sigma**2


@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_errors_of_one_denoiser_in_every_parameterisation_convert_by_weight(mixture, name, loss, rng):
    schedule = free_of_ends(SCHEDULES[name])
    x, _ = mixture.sample(3, rng)
    p, q = rng.random((2, len(schedule))) + 0.5
    types = [*TYPES, (p, -q)]

    def table(kind):
        return diffcls.Classifier(mixture.denoiser(schedule, kind), loss=loss).error_table(x, n_samples=100)

    tables = [table(kind) for kind in types]
    for source, have in zip(types, tables, strict=True):
        for target, want in zip(types, tables, strict=True):
            weight = schedule.loss_weight(source, target, loss=loss)[have.timesteps]
            # predictions are float32, so an error far below its target's square is rounded
            np.testing.assert_allclose(have.errors * weight, want.errors, rtol=2e-3, atol=2e-6 * weight.max())


def test_loss_weight_in_closed_form():
    schedule = Schedule.linear(50)
    ratio = snr(schedule)
    np.testing.assert_allclose(schedule.loss_weight("sample", "epsilon"), ratio, rtol=1e-12)
    np.testing.assert_allclose(schedule.loss_weight("sample", "v_prediction"), ratio + 1, rtol=1e-12)
    np.testing.assert_allclose(schedule.loss_weight("epsilon", "v_prediction"), 1 + 1 / ratio, rtol=1e-12)
    np.testing.assert_allclose(schedule.loss_weight("epsilon", "sample", loss="l1"), ratio**-0.5, rtol=1e-12)
    flow = Schedule.flow(50)
    keep = slice(0, -1)
    np.testing.assert_allclose(
        flow.loss_weight("flow_prediction", "epsilon")[keep], (1 - flow.sigma[keep]) ** 2, rtol=1e-9
    )


def test_what_no_weight_can_convert():
    zero = Schedule.from_config({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True})
    with pytest.raises(ValueError, match="at row 999 of the schedule the error of epsilon is zero for every model"):
        zero.loss_weight("epsilon", "v_prediction")
    assert zero.loss_weight("v_prediction", "epsilon")[-1] == 0.0
    with pytest.raises(ValueError, match="loss is 'huber'"):
        zero.loss_weight("v_prediction", "epsilon", loss="huber")


def closed_forms(schedule):
    ratio, n = snr(schedule), len(schedule)
    t = np.linspace(0, 1, n)
    on_x = {
        "epsilon": ratio, "v_prediction": ratio + 1, "sample": np.ones(n), "flow_prediction": (np.sqrt(ratio) + 1) ** 2,
        "snr": ratio, "min_snr": np.minimum(ratio, 5), "truncated_snr": np.maximum(ratio, 1), "clark_jaini": np.exp(-7 * t),
    }  # fmt: skip
    return on_x


@pytest.mark.parametrize("name", ["linear", "cosine", "edm"])
@pytest.mark.parametrize("kind", TYPES)
def test_names_are_the_published_weights_on_x_start_for_every_prediction_type(name, kind):
    schedule = free_of_ends(SCHEDULES[name])
    for weighting, on_x in closed_forms(schedule).items():
        expected = on_x * schedule.loss_weight(kind, "sample")
        np.testing.assert_allclose(weightings.named(weighting, schedule, kind), expected, rtol=1e-9)


def test_min_snr_by_prediction_type_as_hang_et_al_state_it():
    schedule = Schedule.linear(100)
    ratio = snr(schedule)
    for gamma in (1.0, 5.0):
        low = np.minimum(ratio, gamma)
        np.testing.assert_allclose(weightings.min_snr(schedule, "sample", gamma=gamma), low, rtol=1e-9)
        np.testing.assert_allclose(weightings.min_snr(schedule, "epsilon", gamma=gamma), low / ratio, rtol=1e-9)
        np.testing.assert_allclose(
            weightings.min_snr(schedule, "v_prediction", gamma=gamma), low / (ratio + 1), rtol=1e-9
        )


@pytest.mark.torch
def test_snr_is_diffusers_compute_snr():
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    from diffusers.training_utils import compute_snr

    scheduler = diffusers.DDPMScheduler(100)
    theirs = compute_snr(scheduler, torch.arange(100)).double().numpy()
    np.testing.assert_allclose(weightings.snr(Schedule.from_config(scheduler), "sample"), theirs, rtol=1e-3)


def test_uniform_is_one_and_each_types_own_name_is_uniform():
    for name, schedule in SCHEDULES.items():
        assert np.all(weightings.named("uniform", schedule, "sample") == 1.0)
        own = {"flow": "flow_prediction"}.get(name, "v_prediction" if name in ("linear", "cosine") else None)
        if own:
            np.testing.assert_allclose(weightings.named(own, schedule, own), 1.0, rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "flow", "edm"])
def test_edm_is_an_expectation_over_log_normal_noise_on_any_schedule(name):
    """lambda(s) is 1 / c_out^2, so on the network's own error only the density of ln(s) is left."""
    if name == "linear":
        schedule = with_edm(Schedule.linear(4000, 1e-6, 0.02))
    elif name == "flow":
        schedule = free_of_ends(Schedule.flow(20000))
    else:
        schedule = Schedule.edm(np.geomspace(1e-4, 500.0, 400))

    def f(level):
        return 1.0 / (1.0 + np.exp(level)) + 0.1 * level

    weight = weightings.edm(schedule, "edm")
    level = np.log(schedule.sigma / schedule.alpha)
    mean = np.sum(weight * f(level)) / weight.sum()
    expected = integrate.quad(lambda z: f(z) * stats.norm.pdf(z, -1.2, 1.2), -12, 10)[0]
    assert mean == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (0.5, 0.8)])
def test_logit_normal_is_an_expectation_over_sd3s_times_whatever_rows_are_visited(shift, mean, spread):
    schedule = Schedule.flow(4000, shift)
    weight = weightings.logit_normal(schedule, "flow_prediction", mean=mean, spread=spread)
    s = schedule.sigma
    found = np.sum(weight * np.sin(3 * s)) / weight.sum()
    expected = integrate.quad(
        lambda u: np.sin(3 * u) * stats.norm.pdf(np.log(u / (1 - u)), mean, spread) / (u * (1 - u)), 0, 1
    )[0]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in weightings.names() if name != "uniform"])
def test_a_name_is_the_same_classifier_whatever_the_model_predicts(mixture, name, rng):
    """The exact weighted mean of the errors is one number, up to a factor that no class or picture has."""
    x, _ = mixture.sample(4, rng)
    schedule = free_of_ends(Schedule.linear(100))
    losses = []
    for kind in TYPES:
        weight = weightings.named(name, schedule, kind)
        errors = mixture.expected_errors(x, schedule, kind)
        losses.append(errors @ weight)
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-9)


def test_classify_takes_a_name_and_draws_its_trials_by_it(mixture, rng):
    x, _ = mixture.sample(1, rng)
    model = mixture.denoiser(Schedule.linear(100))
    classifier = diffcls.Classifier(model, weighting="min_snr", policy=Fixed(4000))
    weight = weightings.min_snr(model.schedule, "epsilon")
    expected = mixture.expected_errors(x, model.schedule)[0] @ (weight / weight.sum())
    np.testing.assert_allclose(classifier(x[0]).losses, expected, rtol=0.03)
    assert diffcls.Classifier(model, weighting="uniform").weighting is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weighting": "best"},
            "weighting is 'best', must be one of uniform, epsilon, .*min_snr.*likelihood, or an array",
        ),
        ({"weighting": "min_snr", "loss": "l1"}, "'min_snr' is defined for squared errors, and loss is 'l1'"),
    ],
)
def test_bad_names(mixture, options, message):
    with pytest.raises(ValueError, match=message):
        diffcls.Classifier(mixture.denoiser(), **options)


def test_a_weight_that_is_infinite_somewhere_is_an_error():
    zero = Schedule.from_config({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True})
    with pytest.raises(ValueError, match="weighting 'truncated_snr' is infinite at row 999"):
        weightings.named("truncated_snr", zero, "epsilon")
    assert np.isfinite(weightings.named("truncated_snr", zero, "v_prediction")).all()
    for name in ("likelihood", "logit_normal", "edm"):
        assert weightings.named(name, zero, "epsilon")[-1] == 0.0
    with pytest.raises(ValueError, match="gamma is -1"):
        weightings.min_snr(zero, "sample", gamma=-1)
