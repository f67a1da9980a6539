"""Functions of one name are told apart by their code and what they were made of, in every process alike."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gaussian import GaussianClasses

import diffcls
from diffcls import Fixed, Shortlist
from diffcls.fingerprint import run_fingerprint


@pytest.fixture(scope="module")
def world():
    return GaussianClasses(n_classes=12, dimension=8, seed=5)


@pytest.fixture
def listed(world):
    denoiser = world.denoiser()
    return lambda scorer: diffcls.Classifier(denoiser, policy=Fixed(4), shortlist=Shortlist(scorer, 3))


@pytest.fixture
def x(world, rng):
    labels = rng.integers(0, 12, 6)
    return world.sample(labels, rng), labels


WEIGHT = 1.0


def of_module(image, classes):
    return WEIGHT * np.arange(len(classes))


def scorers():
    """Pairs: the same one made twice, then others of its name."""

    def make(weights, scale=1.0, cache=None):
        def scorer(image, classes):
            if cache is not None:
                cache.append(len(classes))
            return scale * weights[: len(classes)]

        return scorer

    def of_partial(image, classes, weights):
        return weights[: len(classes)]

    one, other = np.arange(12.0), -np.arange(12.0)
    yield make(one), make(one.copy()), [make(other), make(one, 2.0)]
    cache = [1, 2]
    yield make(one, cache=[]), make(one, cache=cache), [make(one)]  # a list changes while a run goes on
    yield (
        functools.partial(of_partial, weights=one),
        functools.partial(of_partial, weights=one.copy()),
        [functools.partial(of_partial, weights=other)],
    )
    yield (lambda image, classes: one), (lambda image, classes: one), [lambda image, classes: other]


@pytest.mark.parametrize("kind", range(4))
def test_functions_of_one_name_are_told_apart(listed, kind):
    one, same, others = list(scorers())[kind]
    known = run_fingerprint(listed(scorer=one))["shortlist"]
    assert run_fingerprint(listed(scorer=same))["shortlist"] == known
    for other in others:
        assert run_fingerprint(listed(scorer=other))["shortlist"] != known


def test_a_global_that_a_scorer_reads_is_part_of_it(listed, monkeypatch):
    known = run_fingerprint(listed(scorer=of_module))["shortlist"]
    monkeypatch.setattr("test_callables.WEIGHT", 2.0)
    assert run_fingerprint(listed(scorer=of_module))["shortlist"] != known


def test_a_scorer_is_the_same_in_another_process(listed):
    """Hash seeds change the order of sets, and nothing here."""
    code = (
        "import test_callables as t; from diffcls.callables import described; print(described(t.odd, lambda v: None))"
    )
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**env, "PYTHONHASHSEED": seed}, text=True, capture_output=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1 and "odd" in told.pop()


def odd(image, classes):
    return [float(name in {"c1", "c2", "c3", "c4", "c5"}) for name in classes]


def test_another_function_of_the_same_name_does_not_go_on(tmp_path, listed, x, world):
    pytest.importorskip("pyarrow")
    diffcls.evaluate(listed(scorer=lambda image, classes: world.means[:, 0]), x, out=tmp_path)
    with pytest.raises(diffcls.FingerprintMismatchError, match="shortlist is"):
        diffcls.evaluate(listed(scorer=lambda image, classes: world.means[:, 1]), x, out=tmp_path)
