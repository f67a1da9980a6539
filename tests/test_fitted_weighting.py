"""`fit_weighting` on tables whose misleading timesteps are planted, and `Weighting` as an option, a file and a record."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

import diffcls
from diffcls import ErrorTable, InputError, Weighting, fit_weighting
from diffcls.fitted_weighting import _average
from diffcls.profile import schedule_fingerprint

T, K, S = 200, 6, 40
SCHEDULE = diffcls.Schedule.linear(T)
TIMESTEPS = ((np.arange(S) + 0.5) * T / S).astype(int)


def planted(rng, n, bias, weighting=None, noisy=False):
    """Errors (n, K, S): the true class is 0.3 below the others; at the noisier half classes differ by `bias` on top, by
    an amount that is an image's own, so that no number of trials averages it away (noisy: a trial's own)."""
    labels = rng.integers(0, K, n)
    errors = 1 + 0.2 * rng.standard_normal((n, K, S)) + rng.gamma(2.0, size=(n, 1, S))
    errors[np.arange(n), labels] -= 0.3
    errors += bias * rng.standard_normal((n, K, S if noisy else 1)) * (TIMESTEPS > T / 2)
    columns = {"timestep": TIMESTEPS, "noise_index": np.arange(S), "eps_sign": np.ones(S), "weight": np.ones(S)}
    table = ErrorTable(
        errors=errors, trials=columns, schedule=SCHEDULE, weighting=weighting, classes=[str(k) for k in range(K)],
        run={"model": "planted", "loss": "l2", "prediction_type": "epsilon"}, cost=np.ones(K, np.int64), n_noise=None,
        log_prior=np.zeros(K), temperature=1.0, antithetic=False, listed=True,
    )  # fmt: skip
    return table, labels


def harder(rng, table):
    """So that errors are made."""
    return replace(table, errors=table.errors + 0.55 * rng.standard_normal(table.errors.shape))


def error(table, labels, weights):
    return np.mean((table.errors @ weights[TIMESTEPS]).argmin(axis=1) != labels)


@pytest.mark.parametrize("n", [50, 100, 400])
def test_labels_remove_most_of_the_planted_error(rng, n):
    table, labels = planted(rng, n, 1.0)
    fitted = fit_weighting(table, labels)
    held_out, truth = planted(rng, 3000, 1.0)
    uniform, best = (error(held_out, truth, w) for w in (np.ones(T), (np.arange(T) <= T / 2).astype(float)))
    assert uniform > 0.25 and best < 0.01
    assert error(held_out, truth, fitted.weights) < (uniform + best) / (2 if n == 50 else 4)
    assert fitted.weights[: T // 3].min() > 3 * fitted.weights[2 * T // 3 :].max()
    assert fitted.run["labelled"] and fitted.run["n_images"] == n
    assert fitted.run["default"]["share"] < 0.01 and fitted.run["best"]["knots"][1] < 6


def test_without_labels_a_part_of_it(rng):
    """Only noise is planted: misleading timesteps that agree with one another would be the majority."""
    table, _ = planted(rng, 200, 3.0, noisy=True)
    fitted = fit_weighting(table)
    held_out, truth = planted(rng, 3000, 3.0, noisy=True)
    assert error(held_out, truth, fitted.weights) < 0.85 * error(held_out, truth, np.ones(T))
    assert fitted.run["labelled"] is False


@pytest.mark.parametrize("labelled", [True, False])
def test_where_nothing_is_to_gain_nothing_is_lost(rng, labelled):
    """All timesteps are equally good: within 0.3 points of uniform, over 10 tables of 60 images."""
    held_out, truth = planted(rng, 4000, 0.0)
    held_out = harder(rng, held_out)
    uniform, fitted = error(held_out, truth, np.ones(T)), []
    for _ in range(10):
        table, labels = planted(rng, 60, 0.0)
        table = harder(rng, table)
        fitted.append(error(held_out, truth, fit_weighting(table, labels if labelled else None).weights))
    assert 0.005 < uniform < 0.3
    assert np.mean(fitted) <= uniform + 0.003


def test_zero_stays_zero_and_the_default_is_kept_where_it_is_best(rng):
    default = (np.arange(T) <= T / 2).astype(float)
    for labelled in (True, False):
        table, labels = planted(rng, 100, 1.0, default)
        table.trials["weight"][:] = default[TIMESTEPS] / default[TIMESTEPS].mean()
        fitted = fit_weighting(table, labels if labelled else None)
        assert np.all(fitted.weights[default == 0] == 0)
        assert fitted.weights[default > 0].min() > 0.3


def test_the_average_is_what_it_says(rng):
    """Three knots, spelt out: SciPy finds each candidate's temperature, and the evidence weighs them."""
    features, labels, consensus = rng.standard_normal((40, K, 3)), rng.integers(0, K, 40), np.array([0.4, -0.1, -0.3])
    features[np.arange(40), labels] -= np.array([0.9, 0.6, 0.1])
    candidates, evidence = [], []
    for share in (0.0, 0.5, 1.0):
        for inside in ([1, 1, 0], [0, 1, 1], [1, 1, 1]):
            candidate = inside * np.exp(share * consensus)
            losses = features @ candidate

            def unlikely(log_beta, losses=losses):
                return -log_softmax(-np.exp(log_beta) * losses, axis=1)[np.arange(40), labels].mean()

            beta = np.exp(minimize_scalar(unlikely, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).x)
            p = softmax(-beta * losses, axis=1)[np.arange(40), labels]
            candidates.append(candidate / np.abs(losses).mean())
            evidence.append(np.log(0.95 * p + 0.05 / K).sum())
    shares = softmax(
        np.array(evidence) + np.log([1, 1, 8, *[1] * 6])
    )  # the default, (0, whole range), a half beforehand
    wanted = shares @ np.array(candidates)
    found, run = _average(features, labels, consensus)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    best = int(np.argmax(shares))
    assert run["best"]["consensus"] == best // 3 / 2
    assert run["best"]["knots"] == [[0, 1], [1, 2], [0, 2]][best % 3]
    assert run["best"]["evidence"] == pytest.approx(evidence[best], abs=1e-6)
    assert run["default"]["share"] == pytest.approx(shares[2], rel=1e-5)


def test_differences_that_cancel_are_no_error(rng):
    features = np.zeros((30, 2, 4))
    features[:, 0, 1], features[:, 0, 2] = 2.0, -2.0
    found, _ = _average(features, rng.integers(0, 2, 30), np.zeros(4))
    assert np.isfinite(found).all() and (found >= 0).all()


def test_the_tables_own_labels_are_used(gaussian, rng):
    labels = rng.integers(0, 5, 60)
    x = gaussian.sample(labels, rng) + rng.standard_normal((60, 12)).astype(np.float32)
    table = diffcls.Classifier(gaussian.denoiser()).error_table(x, n_samples=50, labels=labels)
    bare = replace(table, labels=None)
    with_labels, without = fit_weighting(bare, labels).to_dict(), fit_weighting(bare).to_dict()
    assert with_labels["run"]["labelled"] and not without["run"]["labelled"]
    assert fit_weighting(table).to_dict() == with_labels
    assert fit_weighting(bare, [str(label) for label in labels]).to_dict() == with_labels
    assert fit_weighting(table, (labels + 1) % 5).to_dict() != with_labels
    assert fit_weighting(table, False).to_dict() == fit_weighting(bare, False).to_dict() == without


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("hole", [np.nan, np.inf])
@pytest.mark.parametrize("labelled", [True, False])
def test_an_error_that_is_not_finite_is_named(rng, hole, labelled):
    table, labels = planted(rng, 30, 0.0)
    table.errors[7, 2, 5] = table.errors[7, 4, 1] = table.errors[9, 0, 0] = hole
    table = replace(table, classes=[f"kind {k}" for k in range(K)])
    message = f"the table's error is {hole} for class 'kind 2' at trial 5 of image 7 .2 of that image are not finite, and 2 images have"
    with pytest.raises(InputError, match=message) as caught:
        fit_weighting(table, labels if labelled else None)
    assert "\n" not in str(caught.value)


def test_it_is_an_option_a_file_and_a_record(tmp_path, gaussian, rng):
    labels = rng.integers(0, 5, 30)
    classifier = diffcls.Classifier(gaussian.denoiser())
    x = gaussian.sample(labels, rng)
    fitted = fit_weighting(classifier.error_table(x, n_samples=50), labels)
    fitted.save(tmp_path / "weighting.json")
    again = Weighting.load(tmp_path / "weighting.json")
    assert again.to_dict() == fitted.to_dict()
    bent = Weighting(np.linspace(1, 0, 1000), fitted.schedule, fitted.model, "l2", "epsilon", {})
    by_object, by_array = (
        diffcls.classify(x[0], model=gaussian.denoiser(), weighting=w) for w in (bent, np.linspace(1, 0, 1000))
    )
    assert by_object.losses.tolist() == by_array.losses.tolist()
    assert json.loads(json.dumps(by_object.run))["weighting"] == json.loads(json.dumps(bent.to_dict()))
    other = Weighting(
        np.ones(1000), schedule_fingerprint(diffcls.Schedule.squaredcos_cap_v2(1000)), "other", "l2", "epsilon", {}
    )
    with pytest.raises(diffcls.FingerprintMismatchError, match="fitted on another noise schedule"):
        diffcls.Classifier(gaussian.denoiser(), weighting=other)


def test_it_holds_for_errors_of_its_kind(tmp_path, gaussian, rng):
    labels = rng.integers(0, 5, 30)
    x, denoiser = gaussian.sample(labels, rng), gaussian.denoiser()
    table = diffcls.Classifier(denoiser, loss="l1").error_table(x, n_samples=20)
    fitted = fit_weighting(table, labels)
    assert (fitted.loss, fitted.prediction_type) == ("l1", "epsilon")
    assert len(diffcls.replay(table, weighting=fitted)) == 30 and diffcls.Classifier(
        denoiser, loss="l1", weighting=fitted
    )
    with pytest.raises(diffcls.FingerprintMismatchError, match="fitted with loss 'l1', this run has 'l2'"):
        diffcls.Classifier(denoiser, weighting=fitted)
    squares = diffcls.Classifier(denoiser).error_table(x[:2], n_samples=20)
    with pytest.raises(diffcls.FingerprintMismatchError, match="fitted with loss 'l1', this run has 'l2'"):
        diffcls.replay(squares, weighting=fitted)
    other = diffcls.Denoiser(
        lambda x_t, t, c: x_t, shape=(12,), schedule=gaussian.schedule, prediction_type="sample", n_classes=2
    )
    with pytest.raises(diffcls.FingerprintMismatchError, match="prediction_type 'epsilon', this run has 'sample'"):
        diffcls.Classifier(other, loss="l1", weighting=fitted)
    old = {name: value for name, value in fitted.to_dict().items() if name not in ("loss", "prediction_type")}
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(
        InputError, match="old.json is a 'diffcls weighting 1' without loss, prediction_type: make it again"
    ):
        Weighting.load(tmp_path / "old.json")
    (tmp_path / "old.json").write_text(json.dumps({**fitted.to_dict(), "weights": ["a"]}))
    with pytest.raises(InputError, match="old.json is damaged: weights is"):
        Weighting.load(tmp_path / "old.json")


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, np.inf], [[1, 2]]])
def test_impossible_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        Weighting(np.array(weights, float), "", "", "l2", "epsilon", {})


def test_refusals(tmp_path, rng):
    table, labels = planted(rng, 30, 0.0)
    for bad, message in (
        (labels[:-1], r"labels has shape \(29,\), must be \(30,\)"), (labels / 2, "labels has .*, must be names of classes or 0 to 5"),
        (labels + 6, "labels has .*, must be names of classes or 0 to 5"), (["seven"] * 30, "labels has 'seven', which is none of"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            fit_weighting(table, bad)
    with pytest.raises(InputError, match="n_knots is 2"):
        fit_weighting(table, labels, n_knots=2)
    with pytest.raises(InputError, match="has 10 images"):
        fit_weighting(planted(rng, 10, 0.0)[0], labels[:10])
    with pytest.raises(InputError, match="one class"):
        fit_weighting(table.select(classes=[0]))
    (tmp_path / "x.json").write_text('{"format": "diffcls profile 1"}')
    with pytest.raises(InputError, match="'diffcls profile 1', must be 'diffcls weighting 1'"):
        Weighting.load(tmp_path / "x.json")
