"""Schedules against their closed forms in NumPy, and what is refused."""

import numpy as np
import pytest

import diffcls
from diffcls import Schedule


def check_alphas_cumprod(schedule, betas):
    bar = np.cumprod(1 - betas)
    np.testing.assert_allclose(schedule.alpha, np.sqrt(bar), rtol=1e-12)
    np.testing.assert_allclose(schedule.sigma, np.sqrt(1 - bar), rtol=1e-9)
    np.testing.assert_array_equal(schedule.time, np.arange(len(betas)))


def test_linear():
    check_alphas_cumprod(Schedule.linear(1000, 1e-4, 0.02), np.linspace(1e-4, 0.02, 1000))


def test_scaled_linear():
    check_alphas_cumprod(Schedule.scaled_linear(), np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def test_squaredcos():
    u = np.arange(1001) / 1000
    bar = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    check_alphas_cumprod(Schedule.squaredcos_cap_v2(1000), np.minimum(1 - bar[1:] / bar[:-1], 0.999))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(shift):
    schedule = Schedule.flow(50, shift)
    u = np.arange(1, 51) / 50
    s = shift * u / (1 + (shift - 1) * u)
    np.testing.assert_allclose(schedule.sigma, s, rtol=1e-14)
    np.testing.assert_allclose(schedule.alpha, 1 - s, atol=1e-14)
    np.testing.assert_allclose(schedule.time, 50 * s, rtol=1e-14)
    assert not schedule.is_discrete  # the model is fed s * n, rounded or not


def test_edm():
    sigmas, sd = np.geomspace(0.002, 80, 40), 0.5
    schedule = Schedule.edm(sigmas, sigma_data=sd)
    c_in = 1 / np.sqrt(sigmas**2 + sd**2)
    np.testing.assert_allclose(schedule.alpha, c_in, rtol=1e-14)
    np.testing.assert_allclose(schedule.sigma, c_in * sigmas, rtol=1e-14)
    np.testing.assert_allclose(schedule.time, np.log(sigmas) / 4, rtol=1e-14)


def test_edm_target_is_what_a_perfect_network_outputs(rng):
    """D = c_skip y + c_out F (Karras et al., eq. 7): with F the target, D is x_start."""
    sigmas, sd = np.geomspace(0.002, 80, 40), 0.5
    schedule = Schedule.edm(sigmas, sigma_data=sd)
    p, q = schedule.target("edm")
    x, eps = rng.standard_normal((2, 40))
    y = x + sigmas * eps
    c_skip, c_out = sd**2 / (sigmas**2 + sd**2), sigmas * sd / np.sqrt(sigmas**2 + sd**2)
    np.testing.assert_allclose(c_skip * y + c_out * (p * x + q * eps), x, atol=1e-9)


def test_targets():
    schedule = Schedule.linear(10)
    one, zero = np.ones(10), np.zeros(10)
    expected = {
        "epsilon": (zero, one),
        "v_prediction": (-schedule.sigma, schedule.alpha),
        "sample": (one, zero),
        "flow_prediction": (-one, one),
    }
    for name, (p, q) in expected.items():
        np.testing.assert_array_equal(schedule.target(name), (p, q))
    np.testing.assert_array_equal(schedule.target((2.0, np.arange(10.0))), (2 * one, np.arange(10.0)))


def test_from_config_reads_what_diffusers_writes():
    config = {
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False, "steps_offset": 1, "prediction_type": "epsilon",
    }  # fmt: skip
    np.testing.assert_allclose(Schedule.from_config(config).alpha, Schedule.scaled_linear().alpha, rtol=0, atol=1e-6)
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    np.testing.assert_array_equal(Schedule.from_config(flow).sigma, Schedule.flow(1000, 3.0).sigma)


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_its_beginning():
    config = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "rescale_betas_zero_snr": True}
    schedule = Schedule.from_config(config)
    assert schedule.alpha[-1] == 0.0
    assert schedule.alpha[0] == pytest.approx(Schedule.linear().alpha[0], rel=1e-7)


@pytest.mark.parametrize("setting", [{"beta_schedule": "exp"}, {"some_new_setting": 3}])
def test_from_config_refuses_what_it_does_not_know(setting):
    with pytest.raises(ValueError, match="beta_schedule is|not known"):
        Schedule.from_config({"_class_name": "DDPMScheduler", **setting})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule.from_alphas_cumprod([0.9, 0.95]), "must be below"),
        (lambda: Schedule.from_alphas_cumprod([1.2, 0.5]), r"must be in \[0, 1\]"),
        (lambda: Schedule.from_alphas_cumprod([0.9, np.nan]), "must be"),
        (lambda: Schedule.from_alphas_cumprod([]), "0 timesteps"),
        (lambda: Schedule.linear(10**7), "10000000 timesteps"),
        (lambda: Schedule.linear(0), "0 timesteps"),
        (lambda: Schedule.linear(10, 0.0, 0.02), "beta_start"),
        (lambda: Schedule([1.0, 0.9], [0.1, 0.05], [0, 1]), "not monotone"),
        (lambda: Schedule([1.0, np.inf], [0.1, 0.2], [0, 1]), "finite"),
        (lambda: Schedule([1.0], [0.1, 0.2], [0, 1]), "same number"),
        (lambda: Schedule([[1.0]], [0.1], [0]), r"must be \(T,\)"),
        (lambda: Schedule.edm([1.0, -1.0]), "positive"),
        (lambda: Schedule.flow(10, 0.0), "shift"),
        (lambda: Schedule.linear(10).target("eps"), "prediction_type is 'eps'"),
    ],
)
def test_impossible_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_length_must_be_an_integer():
    with pytest.raises(TypeError, match="must be an integer"):
        Schedule.linear(10.5)


def test_coefficients_can_not_be_changed_behind_a_classifier():
    with pytest.raises(ValueError, match="read-only"):
        diffcls.Schedule.linear(10).alpha[0] = 0.0
