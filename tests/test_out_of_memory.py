"""A denoiser whose memory is full is asked for less at once: the same results, one warning."""

import warnings

import numpy as np
import pytest

import diffcls
from diffcls import DeviceWarning, Fixed, Race


class OutOfMemoryError(RuntimeError):
    """By the name that PyTorch and CuPy have for it."""


def limited(gaussian, most, error=MemoryError):
    """A denoiser that takes so many rows, and the batches that it was asked for."""
    asked = []

    def predict(x_t, t, cond):
        asked.append(len(x_t))
        if len(x_t) > most:
            raise error(f"no memory for {len(x_t)} rows")
        return gaussian.predict(x_t, t, cond).astype(np.float32)

    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5}
    return diffcls.Denoiser(predict, **facts), asked


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError])
def test_the_batch_is_halved(gaussian, rng, error):
    x, policy = gaussian.sample([0, 1, 2, 3], rng), Race(pool=60, n_min=4)
    wanted = diffcls.classify(x, model=limited(gaussian, 1000)[0], policy=policy)
    model, asked = limited(gaussian, 9, error)
    classifier = diffcls.Classifier(model, policy=policy, batch_size=64)
    with pytest.warns(DeviceWarning, match="out of memory for 64 rows.*results are the same") as seen:
        results = classifier(x)
    assert len(seen) == 1
    assert [n for n in asked if n > 9] == [64, 32, 16] and classifier.batch_size == 8
    for result, one in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(result.losses, one.losses)
        assert result.n_evals == one.n_evals
    asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(x)  # the next call begins with what fits
    assert max(asked) == 8


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError])
def test_one_row_is_the_end(gaussian, rng, error):
    model, asked = limited(gaussian, 0, error)
    with pytest.warns(DeviceWarning), pytest.raises(error, match="no memory for 1 rows"):
        diffcls.classify(gaussian.sample([0], rng)[0], model=model, policy=Fixed(8), batch_size=4)
    assert asked == [4, 2, 1]


def test_other_errors_are_no_lack_of_memory(gaussian, rng):
    model, asked = limited(gaussian, 3, RuntimeError)
    with pytest.raises(RuntimeError, match="no memory for 8 rows"):
        diffcls.classify(gaussian.sample([0], rng)[0], model=model, policy=Fixed(8), batch_size=8)
    assert asked == [8]


def test_a_warning_may_be_an_error(gaussian, rng):
    model, _ = limited(gaussian, 3)
    with warnings.catch_warnings(), pytest.raises(DeviceWarning):
        warnings.simplefilter("error", DeviceWarning)
        diffcls.classify(gaussian.sample([0], rng)[0], model=model, policy=Fixed(8), batch_size=8)


@pytest.mark.torch
def test_pytorch(gaussian, rng):
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def forward(self, x_t, t, cond):
            if len(x_t) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 0.5 * x_t + 0.01 * cond[:, None] + 0.001 * t[:, None]

    facts = {"shape": (12,), "schedule": gaussian.schedule, "n_classes": 5}
    classifier = diffcls.Classifier(diffcls.Denoiser(Module(), **facts), policy=Fixed(8), batch_size=12)
    x = gaussian.sample([2], rng)[0]
    with pytest.warns(DeviceWarning, match="for 12 rows"):
        losses = classifier(x).losses
    assert classifier.batch_size == 3
    small = diffcls.Classifier(diffcls.Denoiser(Module(), **facts), policy=Fixed(8), batch_size=3)
    np.testing.assert_array_equal(losses, small(x).losses)
