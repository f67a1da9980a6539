"""What arrives at a module's door: a pipeline's own run is the oracle for an adapter's.

`record` runs the pipeline for a few steps and keeps what its denoiser, its scheduler and its VAE were handed.  Each
``check_*`` then asks the adapter for the same and compares; a wrong adapter fails one of them by an AssertionError.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch

import diffcls

TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


@contextmanager
def planted(module, calls):
    """The module notes the arguments of each call, by name, before it answers."""
    names = inspect.signature(type(module).forward)

    def note(module, args, kwargs):
        bound = names.bind(module, *args, **kwargs).arguments
        calls.append(
            {
                key: value
                for key, value in bound.items()
                if key not in ("self", "return_dict") and value is not None and value != {}
            }
        )

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def noted(owner, name, calls):
    """A method's positional arguments and result."""
    real = getattr(owner, name)

    def call(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append((args, result))
        return result

    setattr(owner, name, call)
    try:
        yield calls
    finally:
        delattr(owner, name)


def record(pipe, slot, **call):
    """What a run of the pipeline hands to its parts.

    Returns
    -------
    door : list of dict
        Arguments of the denoiser, a step.
    steps : list of (args, result)
        Of ``scheduler.step``: args are (model_output, t, sample).
    decoded : list of (args, result)
        Of ``vae.decode``.
    """
    door, steps, decoded = [], [], []
    pipe.set_progress_bar_config(disable=True)
    with planted(getattr(pipe, slot), door), noted(pipe.scheduler, "step", steps), noted(pipe.vae, "decode", decoded):
        pipe(generator=torch.Generator().manual_seed(7), num_inference_steps=3, output_type="np", **call)
    return SimpleNamespace(door=door, steps=steps, decoded=decoded)


def same(ours, theirs, what):
    """Equal tensors, or trees of them; a number stands for a row of it."""
    if isinstance(theirs, dict):
        ours, theirs = ({k: v for k, v in tree.items() if v is not None} for tree in (ours, theirs))
        assert set(ours) == set(theirs), f"{what}: {sorted(ours)} against {sorted(theirs)}"
        for key in theirs:
            same(ours[key], theirs[key], f"{what}.{key}")
    elif isinstance(theirs, (list, tuple)) and theirs and torch.is_tensor(theirs[0]):
        assert len(ours) == len(theirs), what
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{what}[{i}]")
    elif torch.is_tensor(theirs):
        assert torch.is_tensor(ours), what
        if theirs.ndim == 0:
            theirs = theirs.expand(ours.shape)
        assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} against {tuple(theirs.shape)}"
        np.testing.assert_allclose(ours.double().numpy(), theirs.double().numpy(), err_msg=what, **TOLERANCE)
    else:
        assert ours == theirs, f"{what}: {ours} against {theirs}"


def conditions(denoiser, prompts):
    """What `predict` gets for the prompts, in their order: rows of conditions, or class ids."""
    if denoiser.encode_prompts is None:
        return torch.tensor(prompts)
    return denoiser.with_prompts(prompts).conditions


def check_door(denoiser, seen, prompts, x_of, unpack=lambda x: x):
    """The denoiser's module is handed what the pipeline hands it, and the answer is what the pipeline's scheduler gets."""
    cond = conditions(denoiser, prompts)
    assert len(seen.steps) == len(seen.door) > 0
    for theirs, ((output, t, _), _) in zip(seen.door, seen.steps, strict=True):
        ours = []
        x = x_of(theirs)
        with planted(denoiser.module, ours):
            prediction = denoiser.predict(x, t.expand(len(x)), cond)
        same(ours[0], theirs, denoiser.adapter.component)
        same(prediction, unpack(output.float()), "prediction")


def check_schedule(denoiser, pipe, seen, rng, pack=lambda x: x):
    """One step of the family's scheduler with the target that we ask for ends at the next noise level of the same eps.

    Samples of some schedulers have the picture's own size, ``x_t / alpha``, and are scaled for the module alone.
    """
    exploding = type(pipe.scheduler).__name__.startswith(("Euler", "EDM"))
    schedule, (p, q) = denoiser.schedule, denoiser.target
    x_start, eps = (torch.from_numpy(rng.standard_normal((1, *denoiser.shape))) for _ in range(2))
    times = [t for (_, t, _), _ in seen.steps]
    fed = [float(t) for t in times]
    if schedule.prediction_type == "flow_prediction":  # some samplers feed whole numbers, though their levels are not
        levels = [float(sigma) for sigma in pipe.scheduler.sigmas[: len(times)]]
        told = np.interp(levels, schedule.sigma, schedule.time)
        assert np.abs(told - fed).max() < (1.0 if times[0].dtype == torch.int64 else 1e-2)
        fed = told

    def at(
        time, column
    ):  # rows need not be those that a sampler visits; between them coefficients of flows are straight
        return float(np.interp(time, schedule.time, column))

    pipe.scheduler._step_index = None if hasattr(pipe.scheduler, "_step_index") else None
    for t, time, following in zip(times, fed, fed[1:], strict=False):
        x_t = at(time, schedule.alpha) * x_start + at(time, schedule.sigma) * eps
        target = at(time, p) * x_start + at(time, q) * eps
        sizes = [at(row, schedule.alpha) if exploding else 1.0 for row in (time, following)]
        stepped = pipe.scheduler.step(pack(target), t, pack(x_t / sizes[0]), return_dict=False)[0]
        wanted = at(following, schedule.alpha) * x_start + at(following, schedule.sigma) * eps
        close = (
            {"rtol": 2e-3, "atol": 2e-3} if exploding else {"rtol": 1e-4, "atol": 1e-4}
        )  # between rows it is not straight
        np.testing.assert_allclose(stepped.numpy(), pack(wanted / sizes[1]).numpy(), **close)


def check_latents(denoiser, seen, unpack=lambda x: x):
    """Our rule undoes what the pipeline does before it decodes."""
    ((z, *_), _), (_, result) = seen.decoded[-1], seen.steps[-1]
    final = unpack(result[0].float())
    z = z[:, :, 0] if z.ndim == 5 else z
    ours = denoiser.adapter.encoder.normalise(z.float())
    np.testing.assert_allclose(ours.numpy(), final.numpy(), rtol=1e-4, atol=1e-4)


def check_loop(denoiser, pipe, prompts, image, x_of):
    """In a real run the door sees alpha x_start + sigma eps at the time of each trial."""
    classifier = diffcls.Classifier(denoiser, prompts, policy=diffcls.Fixed(3), seed=11, batch_size=64)
    seen = []
    with planted(denoiser.module, seen):
        result = classifier(image)
    x_start = denoiser.encode(image)[0].astype(np.float64)
    rows = np.concatenate([x_of(call) for call in seen])
    wanted = []
    for timestep, index in zip(classifier.trials["timestep"], classifier.trials["noise_index"], strict=True):
        eps = diffcls.ops.normal(denoiser.shape, seed=11, index=int(index), timestep=int(timestep))
        row = denoiser.schedule.alpha[timestep] * x_start + denoiser.schedule.sigma[timestep] * eps
        wanted += [row] * len(classifier.classes)
    assert rows.shape == np.shape(wanted)
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-4)
    assert np.isfinite(result.losses).all() and np.ptp(result.losses) > 0
