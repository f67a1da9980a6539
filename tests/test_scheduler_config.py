"""`Schedule.from_config` against diffusers' own schedulers, every class and every setting."""

import inspect

import numpy as np
import pytest

import diffcls
from diffcls import Schedule
from diffcls.scheduler_config import _BETA_CLASSES, _EDM_CLASSES, _FLOW_CLASSES

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # diffusers' own, of NumPy 2
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CLOSE = {"rtol": 0, "atol": 1e-6}
N = 60  # rows: enough for both ends of every schedule, and for a look-up a row

# a value other than the default of every setting that any of the classes has
OTHER = {
    "num_train_timesteps": 37, "beta_start": 3e-4, "beta_end": 0.03, "beta_schedule": "scaled_linear",
    "trained_betas": np.linspace(1e-3, 0.3, N).tolist(), "prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
    "timestep_type": "continuous", "variance_type": "fixed_large", "clip_sample": False, "clip_sample_range": 2.0,
    "set_alpha_to_one": False, "steps_offset": 1, "skip_prk_steps": True, "thresholding": True,
    "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0, "timestep_spacing": "trailing", "solver_order": 3,
    "algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "lower_order_final": False, "euler_at_final": True,
    "final_sigmas_type": "sigma_min", "lambda_min_clipped": -5.0, "interpolation_type": "log_linear",
    "use_karras_sigmas": True, "use_exponential_sigmas": True, "use_beta_sigmas": True, "use_lu_lambdas": True,
    "use_flow_sigmas": True, "flow_shift": 3.0, "use_dynamic_shifting": True, "time_shift_type": "linear",
    "sigma_min": 0.01, "sigma_max": 50.0, "original_inference_steps": 30, "timestep_scaling": 5.0, "predict_x0": False,
    "disable_corrector": [0], "solver_p": None, "shift": 3.0, "base_shift": 0.4, "max_shift": 1.3,
    "base_image_seq_len": 200, "max_image_seq_len": 3000, "invert_sigmas": True, "shift_terminal": 0.1,
    "stochastic_sampling": True, "scale_factors": [0.5, 1.0], "upscale_mode": "nearest", "sigma_data": 1.0,
    "sigma_schedule": "exponential", "rho": 5.0,
}  # fmt: skip
REFUSED = {"use_flow_sigmas", "use_dynamic_shifting", "shift_terminal", "invert_sigmas"}
CLASSES = (*_BETA_CLASSES, *_FLOW_CLASSES, *_EDM_CLASSES)


def keys(name):
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return [key for key in parameters if key not in ("self", "args", "kwargs")]


def make(name, **settings):
    return getattr(diffusers, name)(**{"num_train_timesteps": N, **settings})


def check(scheduler, schedule):
    """Coefficients, what the model is fed, x_t and the target of every row of a constructed scheduler."""
    name = type(scheduler).__name__
    rng = np.random.default_rng(1)
    x, eps = rng.standard_normal((2, len(schedule), 5))
    x_t = schedule.alpha[:, None] * x + schedule.sigma[:, None] * eps
    if name in _FLOW_CLASSES:
        s = scheduler.sigmas.double().numpy()[::-1][-len(schedule) :]
        alpha, sigma, time = 1 - s, s, scheduler.timesteps.numpy()[::-1]
    elif name in _EDM_CLASSES:
        s = scheduler.sigmas[:-1].double()
        c_in = scheduler.precondition_inputs(torch.ones(1, dtype=torch.float64), s)
        alpha, sigma, time = ((c_in * k).numpy()[::-1] for k in (1, s, 0))
        time = scheduler.timesteps.numpy()[::-1]
    else:
        bar = scheduler.alphas_cumprod.double().numpy()
        alpha, sigma, time = np.sqrt(bar), np.sqrt(1 - bar), np.arange(len(bar))
        if getattr(scheduler, "timesteps", None) is not None and name.startswith("EulerDiscrete"):
            time = scheduler.timesteps.numpy()[::-1]
    np.testing.assert_allclose(schedule.alpha, alpha, **CLOSE)
    np.testing.assert_allclose(schedule.sigma, sigma, **CLOSE)
    np.testing.assert_allclose(schedule.time, time, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(x_t, alpha[:, None] * x + sigma[:, None] * eps, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in CLASSES for key in ["", *keys(name)]])
def test_every_setting_of_every_class_is_honoured_or_refused(name, key):
    settings = {key: OTHER[key]} if key else {}
    if key == "sigma_max" and name not in _EDM_CLASSES:
        settings["use_karras_sigmas"] = True
    if key == "shift_terminal" and name not in _FLOW_CLASSES:
        settings["use_flow_sigmas"] = True
    if key == "solver_type" and name.startswith("UniPC"):
        settings["solver_type"] = "bh1"
    if key == "solver_type" and name.startswith("DEIS"):
        settings["solver_type"] = "logrho"
    if key == "algorithm_type" and name.startswith("DEIS"):
        settings["algorithm_type"] = "deis"
    if key == "time_shift_type" and name not in _FLOW_CLASSES:
        settings["time_shift_type"] = "exponential"
    scheduler = make(name, **settings)
    if key in REFUSED:
        with pytest.raises(diffcls.InputError, match="refused|image_seq_len"):
            Schedule.from_config(scheduler)
    else:
        check(scheduler, Schedule.from_config(scheduler))


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("n", [10, 100, 1000])
@pytest.mark.parametrize(("start", "end"), [(1e-4, 0.02), (0.00085, 0.012), (1e-5, 0.03)])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"])
def test_betas_of_every_shape_and_length(kind, start, end, n, zero_snr):
    settings = {"beta_schedule": kind, "beta_start": start, "beta_end": end, "rescale_betas_zero_snr": zero_snr}
    for name in ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"):
        if name == "DDPMScheduler" or kind not in ("sigmoid", "laplace"):
            scheduler = make(name, num_train_timesteps=n, **settings)
            bar = scheduler.alphas_cumprod
            if bar[-1] < bar[-2]:
                check(scheduler, Schedule.from_config(scheduler))
            else:  # the noise of diffusers' own last row is below that of the row before
                with pytest.raises(diffcls.InputError, match="raises the last alphas_cumprod"):
                    Schedule.from_config(scheduler)


@pytest.mark.parametrize("name", CLASSES)
def test_a_config_without_its_class_is_read_where_the_settings_tell(name):
    scheduler = make(name)
    assert "_class_name" not in scheduler.config
    try:
        schedule = Schedule.from_config(scheduler.config)
    except diffcls.InputError as error:
        assert name == "FlowMatchLCMScheduler" and "scale_factors" in str(error), error
    else:
        check(scheduler, schedule)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_x_t_and_velocity_are_add_noise_and_get_velocity(name, zero_snr, rng):
    scheduler = make(name, rescale_betas_zero_snr=zero_snr, prediction_type="v_prediction")
    schedule = Schedule.from_config(scheduler)
    x, eps = torch.from_numpy(rng.standard_normal((2, N, 7)))
    t = torch.arange(N)
    a, s = schedule.alpha[:, None], schedule.sigma[:, None]
    np.testing.assert_allclose(a * x.numpy() + s * eps.numpy(), scheduler.add_noise(x, eps, t), **CLOSE)
    p, q = (part[:, None] for part in schedule.target(schedule.prediction_type))
    np.testing.assert_allclose(p * x.numpy() + q * eps.numpy(), scheduler.get_velocity(x, eps, t), **CLOSE)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("timestep_type", ["discrete", "continuous"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_euler_scales_what_the_model_is_fed_and_inverts_what_it_predicts(prediction_type, timestep_type, zero_snr, rng):
    scheduler = make(
        "EulerDiscreteScheduler", prediction_type=prediction_type, timestep_type=timestep_type, rescale_betas_zero_snr=zero_snr
    )  # fmt: skip
    schedule = Schedule.from_config(scheduler)
    p, q = schedule.target(schedule.prediction_type)
    x, eps = torch.from_numpy(rng.standard_normal((2, 1, 7)))
    for row in range(1, N):
        t = scheduler.timesteps[N - 1 - row]
        assert float(t) == pytest.approx(schedule.time[row], rel=1e-6, abs=1e-6)
        noisy = scheduler.add_noise(x, eps, t[None])
        fed = scheduler.scale_model_input(noisy, t)
        mine = schedule.alpha[row] * x.numpy() + schedule.sigma[row] * eps.numpy()
        np.testing.assert_allclose(mine, fed, **CLOSE)
        target = p[row] * x + q[row] * eps
        found = scheduler.step(target, t, noisy).pred_original_sample
        # dividing by alpha magnifies rounding: compare where x_start is determined
        np.testing.assert_allclose(schedule.alpha[row] * found, schedule.alpha[row] * x, rtol=0, atol=2e-6)
        scheduler._step_index = None


@pytest.mark.parametrize("name", _EDM_CLASSES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sigma_schedule", ["karras", "exponential"])
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_preconditioning(name, prediction_type, sigma_schedule, sigma_data, rng):
    """With the target as the network's output, diffusers' denoised picture is x_start."""
    scheduler = make(name, prediction_type=prediction_type, sigma_schedule=sigma_schedule, sigma_data=sigma_data)
    schedule = Schedule.from_config(scheduler)
    assert len(schedule) == len(scheduler.timesteps) and schedule.sigma_data == sigma_data
    p, q = (torch.from_numpy(part)[:, None] for part in schedule.target(schedule.prediction_type))
    s = torch.from_numpy(scheduler.sigmas.double().numpy()[:-1][::-1].copy())[:, None]
    x, eps = torch.from_numpy(rng.standard_normal((2, len(schedule), 7)))
    noisy = x + s * eps
    mine = schedule.alpha[:, None] * x.numpy() + schedule.sigma[:, None] * eps.numpy()
    np.testing.assert_allclose(mine, scheduler.precondition_inputs(noisy, s), **CLOSE)
    np.testing.assert_allclose(scheduler.precondition_outputs(noisy, p * x + q * eps, s), x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_flow_noise_and_time(shift, rng):
    scheduler = make("FlowMatchEulerDiscreteScheduler", shift=shift)
    schedule = Schedule.from_config(scheduler)
    assert schedule.prediction_type == "flow_prediction" and not schedule.is_discrete
    x, eps = torch.from_numpy(rng.standard_normal((2, N, 7)))
    expected = scheduler.scale_noise(x, scheduler.timesteps.flip(0), eps)
    mine = schedule.alpha[:, None] * x.numpy() + schedule.sigma[:, None] * eps.numpy()
    np.testing.assert_allclose(mine, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_dynamic_shifting_needs_the_images_size(kind, tokens):
    scheduler = make("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True, time_shift_type=kind, shift=3.0)
    with pytest.raises(ValueError, match="pass image_seq_len"):
        Schedule.from_config(scheduler)
    schedule = Schedule.from_config(scheduler, image_seq_len=tokens)
    scheduler.set_timesteps(N, mu=np.interp(tokens, [256, 4096], [0.5, 1.15]))  # as diffusers' pipelines do
    s = scheduler.sigmas.double().numpy()[:-1][::-1]
    np.testing.assert_allclose(schedule.sigma, s, **CLOSE)
    np.testing.assert_allclose(schedule.alpha, 1 - s, **CLOSE)
    np.testing.assert_allclose(schedule.time, scheduler.timesteps.numpy()[::-1], rtol=1e-6)


def test_hub_config_of_stable_diffusion():
    """Configs on the hub carry settings of other classes too."""
    config = {
        "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear",
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
        "use_karras_sigmas": False,
    }  # fmt: skip
    check(diffusers.EulerDiscreteScheduler.from_config(config), Schedule.from_config(config))


BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "DDPMScheduler", "some_new_setting": False}, "some_new_setting are not known"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid', must be one of"),
        (
            {"_class_name": "DDPMScheduler", "prediction_type": "flow_prediction"},
            "prediction_type is 'flow_prediction'",
        ),
        ({"_class_name": "DDPMScheduler", "timestep_type": "continuous"}, "has no timestep_type"),
        ({"_class_name": "DDPMScheduler", "shift": 3.0}, "shift are not known"),
        ({"_class_name": "DDPMScheduler", "beta_start": 0.0}, "between 0 and 1"),
        ({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 2.0]}, "numbers from 0 to 1"),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 0}, "num_train_timesteps is 0"),
        ({"_class_name": "CogVideoXDDIMScheduler"}, "_class_name is 'CogVideoXDDIMScheduler', must be one of DDPM"),
        ({**BETAS, "rescale_betas_zero_snr": True}, "no _class_name; pass the scheduler itself"),
        ({"num_train_timesteps": 1000}, "_class_name is None"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0.0}, "shift is 0, must be positive"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "run the other way"),
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 90.0}, "sigma_min below sigma_max"),
        ({"_class_name": "EDMEulerScheduler", "sigma_schedule": "cosine"}, "sigma_schedule is 'cosine'"),
    ],
)
def test_what_can_not_be_honoured_is_an_error(config, message):
    with pytest.raises(ValueError, match=message):
        Schedule.from_config(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (3, "config is int, must be a diffusers scheduler"),
        ({"_class_name": "DDPMScheduler", "beta_end": "much"}, "beta_end is 'much', must be a number"),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 10.5}, "must be an integer"),
        ({"_class_name": "DDPMScheduler", "rescale_betas_zero_snr": "yes"}, "must be True or False"),
        ({"_class_name": "DDPMScheduler", "trained_betas": "abc"}, "trained_betas is str"),
    ],
)
def test_settings_of_the_wrong_type(config, message):
    with pytest.raises(TypeError, match=message):
        Schedule.from_config(config)


def test_image_seq_len_without_dynamic_shifting_is_an_error():
    with pytest.raises(ValueError, match="image_seq_len is for configs with use_dynamic_shifting"):
        Schedule.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"}, image_seq_len=256)


def test_the_denoiser_takes_the_prediction_type_of_the_config():
    config = {"_class_name": "DDPMScheduler", "prediction_type": "v_prediction", "num_train_timesteps": 10}
    schedule = Schedule.from_config(config)

    def make_denoiser(schedule, **options):
        return diffcls.Denoiser(lambda x, t, c: x, shape=(2,), schedule=schedule, n_classes=2, **options)

    assert make_denoiser(schedule).prediction_type == "v_prediction"
    np.testing.assert_array_equal(make_denoiser(schedule).p, -schedule.sigma)
    assert make_denoiser(Schedule.linear(10)).prediction_type == "epsilon"
    assert make_denoiser(schedule, prediction_type="v_prediction").prediction_type == "v_prediction"
    with pytest.raises(ValueError, match="prediction_type is 'epsilon', the schedule's config says 'v_prediction'"):
        make_denoiser(schedule, prediction_type="epsilon")
