"""Sweeps and ablations against NumPy and SciPy on the same table, and the command that prints them."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binomtest

import diffcls
from diffcls import Fixed, Race, Staged, ablation, cli, policies
from diffcls.policy_text import parse_policy


@pytest.fixture
def table(gaussian, rng):
    """Images between classes, so that answers change with every choice."""
    labels = rng.integers(0, 5, 60)
    x = gaussian.sample(labels, rng) + rng.standard_normal((60, 12)).astype(np.float32)
    return diffcls.Classifier(gaussian.denoiser()).error_table(x, n_samples=100, labels=labels)


def rows_by_name(rows):
    return {(row["ablation"], row["setting"]): row for row in rows}


def test_sweep_is_replay_counted(table):
    named = {"race": Race(pool=100, risk=0.3, n_min=2, ramp=0), "staged": Staged((10, 100), (2, 1)), "full": None}
    rows = ablation.sweep(table, named)
    answers = table.errors.mean(axis=2).argmin(axis=1)
    assert [row["policy"] for row in rows] == ["race", "staged", "full"]
    for row, policy in zip(rows, named.values(), strict=True):
        results = diffcls.replay(table, policy)
        hits = results.index == table.labels
        interval = binomtest(int(hits.sum()), 60).proportion_ci(method="wilson")
        assert row["accuracy"] == hits.mean() and row["n"] == 60
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((interval.low, interval.high), rel=1e-6)
        assert row["agreement"] == np.mean(results.index == answers)
        assert row["evals_mean"] == results.n_evals.mean() and row["factor"] == pytest.approx(500 / row["evals_mean"])
        assert row["evals_p95"] == np.percentile(results.n_evals, 95)
        assert row["decided"] == np.mean([status == "decided" for status in results.status])
    assert rows[0]["agreement"] < 1 < rows[0]["factor"] and rows[1]["evals_mean"] == 50 + 2 * 90
    assert rows[2]["agreement"] == rows[2]["factor"] == 1
    assert ablation.sweep(table, {"full": None}, labels=(table.labels + 1) % 5)[0]["accuracy"] != rows[2]["accuracy"]
    bare = ablation.sweep(dataclasses.replace(table, labels=None), {"full": None})[0]
    assert bare["accuracy"] is None and bare["agreement"] == 1


def test_each_ablation_is_what_it_says(table, rng):
    w, prior = rng.random(1000) ** 3, np.array([1, 2, 3, 4, 30.0])
    rows = rows_by_name(ablation.ablate(table, weightings={"mine": w}, priors={"skewed": prior}))
    t, labels, e = table.timesteps, table.labels, table.errors
    base = e.mean(axis=2)

    def check(key, losses, answer=None, log_prior=0.0, temperature=1.0, n=100):
        row = rows[key]
        answer = losses.argmin(axis=1) if answer is None else answer
        assert row["accuracy"] == np.mean(answer == labels), key
        assert row["agreement"] == np.mean(answer == base.argmin(axis=1)), key
        logits = log_prior - (losses - losses.min(axis=1, keepdims=True)) / temperature
        assert row["nll"] == pytest.approx(-log_softmax(logits, axis=1)[np.arange(60), labels].mean(), rel=1e-9), key
        assert row["n_trials"] == n, key

    check(("baseline", "as the table"), base)
    check(("weighting", "mine"), e @ w[t] / w[t].sum())
    for low, high in ((0.0, 0.25), (0.75, 1.0), (0.1, 0.9)):
        inside = (t >= 1000 * low) & (t < 1000 * high)
        check(("timesteps", f"{low:g} to {high:g}"), e[:, :, inside].mean(axis=2), n=inside.sum())
    for n in (1, 5, 50):
        check(("trials", str(n)), e[:, :, :n].mean(axis=2), n=n)
    check(("temperature", "0.25 x 1"), base, temperature=0.25)
    check(("temperature", "4 x 1"), base, temperature=4.0)
    posterior = np.log(prior / prior.sum()) - (base - base.min(axis=1, keepdims=True))
    check(("priors", "skewed"), base, answer=posterior.argmax(axis=1), log_prior=np.log(prior))
    votes = np.array([np.bincount(image.argmin(axis=0), minlength=5) for image in e])
    answers = [max(range(5), key=lambda k, v=v, m=m: (v[k], -m[k])) for v, m in zip(votes, base, strict=True)]
    vote = rows["aggregate", "vote"]
    assert vote["accuracy"] == np.mean(answers == labels) and vote["nll"] is None and vote["agreement"] < 1
    assert ("weighting", "uniform") not in rows and ("trials", "100") not in rows


def test_a_weighted_table_is_ablated_within_its_weighting(gaussian, rng):
    """Uniform is offered where the table can give it; ranges keep the weighting inside of them."""
    x, w = gaussian.sample([0, 1, 2], rng), np.linspace(1, 2, 1000)
    whole = diffcls.Classifier(gaussian.denoiser(), weighting=w).error_table(x, n_samples=50)
    rows = rows_by_name(ablation.ablate(whole))
    assert ("weighting", "uniform") in rows and rows["baseline", "as the table"]["accuracy"] is None
    half = np.where(np.arange(1000) < 500, w, 0)
    rows = rows_by_name(
        ablation.ablate(diffcls.Classifier(gaussian.denoiser(), weighting=half).error_table(x, n_samples=50))
    )
    assert ("weighting", "uniform") not in rows
    assert ("timesteps", "0.25 to 0.5") in rows and ("timesteps", "0.75 to 1") not in rows


def test_variants_are_of_the_same_model_and_images(gaussian, table, rng):
    x = gaussian.sample([0, 1, 2, 3], rng)

    def make(**options):
        return diffcls.Classifier(options.pop("model", gaussian.denoiser()), **options).error_table(x, n_samples=40)

    one = np.repeat(rng.standard_normal((1, 12)).astype(np.float32), 40, axis=0)
    variants = {
        "loss": {"l1": make(loss="l1")},
        "noise": {"one": make(noise=one), "antithetic": make(noise="antithetic")},
    }
    rows = rows_by_name(ablation.ablate(make(), variants=variants))
    l1 = diffcls.classify(x, model=gaussian.denoiser(), loss="l1", policy=Fixed(40))
    full = diffcls.classify(x, model=gaussian.denoiser(), policy=Fixed(40))
    assert rows["loss", "l1"]["agreement"] == np.mean(l1.index == full.index)
    assert {("noise", "one"), ("noise", "antithetic")} <= set(rows)
    with pytest.raises(
        diffcls.FingerprintMismatchError, match="variant a=b is not of the table's model: model is 'gaussian'"
    ):
        ablation.ablate(make(), variants={"a": {"b": make(model=gaussian.denoiser(name="other"))}})
    with pytest.raises(ValueError, match="variant a=b has 60 images, must have the table's 4"):
        ablation.ablate(make(), variants={"a": {"b": table}})
    with pytest.raises(ValueError, match="variant a=b has other labels"):
        other = dataclasses.replace(table, labels=table.labels[::-1].copy())
        ablation.ablate(table, variants={"a": {"b": other}})
    with pytest.raises(ValueError, match="the table has no image"):
        ablation.sweep(table.select(images=slice(0, 0)), {"full": None})


# ---- policies as words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("race", Race()),
        ("race:risk=0.05,n_min=4", Race(risk=0.05, n_min=4)),
        ("race:caps=25:20/75:10,pool=250", Race(caps=((25, 20), (75, 10)), pool=250)),
        ("race:caps=none,max_evals=100,fill=1", Race(caps=None, max_evals=100, fill=1)),
        ("race:timesteps=10/900/20", Race(timesteps=(10, 900, 20))),
        ("fixed:100", Fixed(100)),
        ("staged:50,500/5,1", Staged((50, 500), (5, 1))),
        ("staged:50,500/5,1/published", Staged((50, 500), (5, 1), nested=False)),
        ("paper:imagenet", policies.paper("imagenet")),
        (" full ", None),
    ],
)
def test_policies_as_words(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rase", "policy is 'rase', must be like race, "),
        ("full:1", "policy is 'full:1'"),
        ("fixed:", "policy is 'fixed:'"),
        ("fixed:0", "policy 'fixed:0': n_samples is 0"),
        ("race:risk", "'risk' is not name=value with one of risk, n_min"),
        ("race:level=1", "'level=1' is not name=value"),
        ("race:risk=2", "policy 'race:risk=2': risk is 2"),
        ("race:risk=high", "risk is 'high'"),
        ("race:n_min=3.5", "n_min is 3.5"),
        ("race:caps=25:x", "policy is 'race:caps=25:x'"),
        ("staged:50,500", "policy is 'staged:50,500'"),
        ("staged:50,500/5", "2 stages and to_keep 1"),
        ("staged:50,500/5,1/paper", "policy is 'staged:50,500/5,1/paper'"),
        ("paper:mnist", "the paper has no setting 'mnist'"),
        ("", "policy is ''"),
    ],
)
def test_words_that_are_no_policy(text, message):
    with pytest.raises(diffcls.InputError, match=message) as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def table_file(table, tmp_path):
    pytest.importorskip("pyarrow")
    table.save(tmp_path / "t.arrow")
    return str(tmp_path / "t.arrow")


def test_replay_command(table, table_file, capsys):
    named = ["race:pool=100,risk=0.3", "staged:10,100/2,1", "full"]
    assert cli.main(["replay", table_file, "--policy", *named]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{table_file}: 60 images, 5 classes, 100 trials, labelled" and out[1].split()[0] == "policy"
    assert [line.split()[0] for line in out[2:]] == named
    assert out[3].endswith("230.0        230     2.2x") and out[4].endswith("500.0        500     1.0x")
    assert cli.main(["replay", table_file, "--policy", *named, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == ablation.sweep(table, {text: parse_policy(text) for text in named})
    assert told["classes"] == table.classes
    dataclasses.replace(table, labels=None).save(table_file)
    assert cli.main(["replay", table_file, "--policy", "full"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["full", "-"]


def test_a_policy_that_the_table_lacks_costs_only_its_own_row(table, table_file, capsys):
    named = ["full", "fixed:50", "race:pool=100"]
    assert cli.main(["replay", table_file, "--policy", *named]) == 1
    streams = capsys.readouterr()
    assert [line.split()[0] for line in streams.out.splitlines()[2:]] == ["full", "race:pool=100"]
    sentence = "the table lacks 50 of the 50 trials of Fixed"
    assert streams.err.startswith(f"diffcls: policy 'fixed:50': {sentence}") and streams.err.count("\n") == 1
    assert cli.main(["replay", table_file, "--policy", *named, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["policy"] for row in told["rows"]] == ["full", "race:pool=100"]
    assert list(told["refused"]) == ["fixed:50"] and sentence in told["refused"]["fixed:50"]
    with pytest.raises(ValueError, match=sentence):
        ablation.sweep(table, {"some": Fixed(50)})


def test_replay_command_uniform(gaussian, rng, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    path = str(tmp_path / "w.arrow")
    w = np.linspace(1.0, 3.0, 1000)
    table = diffcls.Classifier(gaussian.denoiser(), weighting=w).error_table(
        gaussian.sample([0], rng), n_samples=50, labels=[0]
    )
    tilt = np.where(
        np.arange(5)[:, None] == 0, 0.0, np.where(table.timesteps < 500, 1.0, -0.8)
    )  # 0 is best, unweighted
    table = dataclasses.replace(table, errors=np.broadcast_to(2.0 + tilt, (1, 5, 50)))
    table.save(path)
    assert cli.main(["replay", path, "--policy", "full", "--uniform", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row == ablation.sweep(table, {"full": None}, weighting="uniform")[0]
    assert row["accuracy"] != ablation.sweep(table, {"full": None})[0]["accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE", "--policy", "race:pool=100", "rase"], "policy is 'rase'"),
        (["FILE"], "the table lacks 500 of the 500 trials of Race"),
        (["missing.arrow"], "No such file"),
        ([__file__], "is not an error table"),
    ],
)
def test_mistakes_are_one_line(arguments, message, table_file, capsys):
    assert cli.main(["replay", *(table_file if part == "FILE" else part for part in arguments)]) == 1
    streams = capsys.readouterr()
    assert message in streams.err and streams.err.count("\n") == 1 and not streams.out
