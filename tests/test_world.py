"""The warning that a picture is unlike the training pictures: its score, its fit, and how it is told."""

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

import diffcls
from diffcls.cli import main
from diffcls.errors import OutOfWorldWarning, WeightsError
from diffcls.models import demo_pictures
from diffcls.models.fit_world import fit_world
from diffcls.world import FEATURES, FLOOR, World, look

Image = pytest.importorskip("PIL.Image")
TIMESTEPS = np.array([0, 400, 200, 600])


def pretend(rng, n):
    """`n` pictures of two classes, every other one faint: (errors (n, 4), x_starts, classes (n,), faint (n,))."""
    classes, faint = np.arange(n) // 2 % 2, np.arange(n) % 2
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, 1, 12, 12)), (0, 0, 1, 1)) * rng.lognormal(
        0, 0.2, (n, 1, 1, 1)
    )
    light = 0.5 + 0.5 * np.tanh(np.where(classes[:, None, None, None] == 0, smooth, smooth**2))
    x_starts = 2 * light / (1 + faint[:, None, None, None]) - 1
    errors = np.exp(rng.normal(size=(n, 1)) * 0.3 + rng.normal(size=(n, 4)) * 0.1 - 4 + 0.002 * TIMESTEPS)
    return errors, x_starts.astype(np.float32), classes, faint


@pytest.fixture
def world(rng):
    errors, x_starts, classes, faint = pretend(rng, 400)
    return fit_world(errors, TIMESTEPS, x_starts, classes, faint, n_classes=2, false_alarm=0.05)


def noise(rng):
    return rng.integers(0, 256, (28, 28), dtype=np.uint8)


# ---- the score -------------------------------------------------------------------------------------------------------


def test_a_look_is_scipys_derivatives_and_moments(rng):
    x_start = rng.uniform(-1, 1, (1, 9, 11)).astype(np.float32)
    light = (x_start[0].astype(np.float64) + 1) / 2
    down, right = (ndimage.correlate1d(light, [-1, 1], axis=a, origin=-1) for a in (0, 1))
    down, right = down[:-1], right[:, :-1]
    laplacian = ndimage.laplace(light)[1:-1, 1:-1]
    spreads = [np.sqrt(np.cov(np.arange(n), aweights=light.sum(axis=1 - a), ddof=0)) for a, n in ((0, 9), (1, 11))]
    expected = [
        np.log((light**2).mean() + FLOOR**2),
        np.log(np.abs(down).mean() + np.abs(right).mean() + FLOOR),
        np.log((down**2).mean() + (right**2).mean() + FLOOR**2),
        np.log((laplacian**2).mean() + FLOOR**2),
        np.log(spreads[0] / spreads[1]),
    ]
    assert len(expected) == len(FEATURES) - 1
    np.testing.assert_allclose(look(x_start), expected, rtol=1e-3)
    np.testing.assert_allclose(look(x_start)[:4], expected[:4], rtol=1e-9)


def test_score_is_scipys_density(world, rng):
    """Of the mixture of two Gaussians; the loss is relative to what is usual at each timestep."""
    errors, x_starts, classes, _ = pretend(rng, 8)
    usual = np.array([world.log_errors[list(world.timesteps).index(t)] for t in TIMESTEPS])
    for row, x_start, k in zip(errors, x_starts, classes, strict=True):
        found = [np.mean(np.log(row) - usual), *look(x_start)]
        each = [stats.multivariate_normal(world.mean[k, m], world.covariance[k, m]).pdf(found) for m in range(2)]
        assert world.score(row, TIMESTEPS, x_start, k) == pytest.approx(np.log(np.mean(each)), rel=1e-6)


def test_usual_errors_lie_on_straight_lines_between_the_timesteps(world, rng):
    (errors, *_), (x_start, *_), *_ = pretend(rng, 4)
    between = np.array([100, 300, 500, 599])
    scaled = errors * np.exp(np.interp(between, world.timesteps, world.log_errors) - world.log_errors[[0, 2, 1, 3]])
    expected = world.score(errors, TIMESTEPS, x_start, 0)
    assert world.score(scaled, between, x_start, 0) == pytest.approx(expected, rel=1e-9)


def test_later_trials_change_no_score_and_too_few_give_none(world, rng):
    (errors, *_), (x_start, *_), *_ = pretend(rng, 4)
    score = world.score(errors, TIMESTEPS, x_start, 0)
    beyond = np.array([900, *TIMESTEPS, 100, 300])  # one above the last timestep, two after the first four
    assert world.score(np.array([5.0, *errors, 7.0, np.nan]), beyond, x_start, 0) == score
    assert world.score(errors[:3], TIMESTEPS[:3], x_start, 0) is None
    assert world.score(np.where(TIMESTEPS == 200, np.nan, errors), TIMESTEPS, x_start, 0) is None


def test_a_perfect_prediction_has_a_score(world, rng):
    _, (x_start, *_), *_ = pretend(rng, 4)
    assert np.isfinite(world.score(np.zeros(4), TIMESTEPS, x_start, 0))


def test_false_alarms_are_as_many_as_asked(rng):
    """Of fresh pictures as they are; with so few to fit, a threshold from the fit's own scores would give 24 %, not 10."""
    shares = []
    for _ in range(6):
        errors, x_starts, classes, faint = pretend(rng, 160)
        world = fit_world(errors, TIMESTEPS, x_starts, classes, faint, n_classes=2, false_alarm=0.1)
        fresh = [(row, x, k) for row, x, k, changed in zip(*pretend(rng, 1000), strict=True) if not changed]
        shares.append(np.mean([world.score(row, TIMESTEPS, x, k) < world.threshold for row, x, k in fresh]))
    assert 0.05 < np.mean(shares) < 0.16
    assert world.quantile == 0.9


def test_a_class_that_never_wins_can_not_be_fitted(rng):
    errors, x_starts, classes, faint = pretend(rng, 40)
    with pytest.raises(ValueError, match="class 2 won 0 pictures of group 0"):
        fit_world(errors, TIMESTEPS, x_starts, classes, faint, n_classes=3, false_alarm=0.05)


# ---- stored ----------------------------------------------------------------------------------------------------------


def test_json_gives_the_same_world(world, rng):
    (errors, *_), (x_start, *_), *_ = pretend(rng, 4)
    again = World.from_json(world.to_json(), 2)
    assert again.score(errors, TIMESTEPS, x_start, 1) == pytest.approx(
        world.score(errors, TIMESTEPS, x_start, 1), rel=1e-3
    )
    assert again.threshold == pytest.approx(world.threshold, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"threshold": 0.05, "quantile": 0.99}, "lacks timesteps, log_errors, mean, covariance; export"),
        (lambda d: {**d, "mean": d["mean"][:1]}, r"mean of shape \(1, 2, 6\), must be finite of \(2, 2, 6\)"),
        (lambda d: {**d, "threshold": float("nan")}, "threshold"),
        (lambda d: {**d, "mean": "none"}, "no array of numbers"),
        (lambda d: {**d, "timesteps": d["timesteps"][::-1]}, "ascend"),
    ],
)
def test_a_description_that_is_none(world, change, message):
    with pytest.raises(WeightsError, match=message):
        World.from_json(change(world.to_json()), 2)


# ---- of the embedded model -------------------------------------------------------------------------------------------


def test_its_own_pictures_are_seldom_warned_of():
    pictures, _ = demo_pictures.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfWorldWarning)
        results = diffcls.classify(list(pictures))
    assert sum(results.unlike_training) <= 5  # of 48, each of which is judged


def checks(rng):
    n = int(rng.integers(3, 9))
    return np.kron(np.indices((n, n)).sum(axis=0) % 2 * 255, np.ones((8, 8))).astype(np.uint8)


def stripes(rng):
    period = rng.uniform(4, 10)
    return np.tile(np.round(127.5 * (1 + np.sin(np.arange(64) * 2 * np.pi / period))), (64, 1)).astype(np.uint8)


def blank(rng):
    return np.full((30, 30), rng.integers(0, 256), np.uint8)


@pytest.mark.parametrize("make", [noise, checks, stripes, blank])
@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_pictures_of_nothing_known_are_warned_of(make, rng):
    results = diffcls.classify([make(rng) for _ in range(10)])
    assert sum(results.unlike_training) >= 7
    assert all(result.label in result.classes and result.errors is None for result in results)


@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_the_policy_does_not_change_the_score(rng):
    """A race and the full evaluation see the same first trials, so they say the same, to the letter."""
    picture = noise(rng)
    policies = (None, diffcls.Fixed(500), diffcls.Race(risk=1e-9))
    raced, full, longer = (diffcls.classify(picture, ["coat"], policy=policy) for policy in policies)
    assert raced.warnings == full.warnings == longer.warnings != []
    assert raced.n_trials < full.n_trials


@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_what_can_not_be_judged_is_not(rng):
    picture = noise(rng)
    assert diffcls.classify(picture).unlike_training
    assert not diffcls.classify(picture, loss="l1").warnings
    assert diffcls.classify(picture, loss="l1").unlike_training is None
    clothes, digits = ["coat", "bag", "sandal"], ["0", "1", "8"]
    asked = {"clothes": clothes, "digits": digits}
    assert diffcls.classify(picture, asked).unlike_training  # the best prompt of the winner is one class
    assert not diffcls.classify(picture, asked, pool="mean").warnings


@pytest.mark.parametrize(
    "policy", [diffcls.Fixed(2), diffcls.policies.quick(max_evals=41), diffcls.policies.quick(n_winner=0)]
)
def test_too_few_trials_are_said_to_be(policy, rng):
    """No Python warning, no judgement, and a sentence in its place."""
    pictures, _ = demo_pictures.load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [
            result for result in diffcls.Classifier(policy=policy).stream(pictures[:24]) if result.n_trials.max() < 8
        ]
    assert results
    for result in results:
        assert result.warnings == ["too few trials to tell whether the picture is unlike the training pictures"]
        assert result.unlike_training is None and result.to_dict()["unlike_training"] is None


@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_tables_and_figures_hold_the_judgement(rng):
    pytest.importorskip("pyarrow")
    own, foreign = demo_pictures.load()[0][0], noise(rng)
    asked = diffcls.Classifier(None, ["0", "bag"])
    results = asked([own, foreign])
    results = diffcls.Results([*results, diffcls.classify(own, ["0", "bag"], policy=diffcls.Fixed(2))], results.classes)
    assert results.to_arrow()["unlike_training"].to_pylist() == results.unlike_training
    assert results.unlike_training[1:] == [True, None] and isinstance(results.unlike_training[0], bool)
    assert results[1].to_arrow()["unlike_training"].to_pylist() == [True, True]


@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_the_sentence_names_the_models_own_class(rng):
    told = diffcls.classify(noise(rng), {"boots": "ankle boot"}).warnings
    assert len(told) == 1 and "unlike what 'digits-and-clothes' was trained on as 'ankle boot' (log density" in told[0]


@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_a_garment_among_digits_is_warned_of():
    pictures, labels = demo_pictures.load()
    digits = diffcls.Classifier(None, [str(i) for i in range(10)])
    assert np.mean(digits(list(pictures[labels >= 10])).unlike_training) > 0.5


def test_a_model_without_a_world_says_nothing(rng):
    model = diffcls.models.registry.load()
    model.world = None
    assert not diffcls.classify(noise(rng), model=model).warnings


# ---- how it is told --------------------------------------------------------------------------------------------------


def test_warns_at_the_callers_line_with_one_text(rng):
    pictures = [noise(rng) for _ in range(3)]
    classifier = diffcls.Classifier(None, ["coat", "bag"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [*classifier(pictures), *classifier.stream(pictures), diffcls.classify(pictures[0], ["coat", "bag"])]
        for result in classifier.stream(pictures):
            results.append(result)
    assert len(caught) == 10 == len(results)
    assert len({str(warning.message) for warning in caught}) == 1
    assert {warning.filename for warning in caught} == {__file__}
    assert all(len(result.warnings) == 1 for result in results)
    assert len({result.warnings[0] for result in results}) == 3  # each picture has its own score


SCRIPT = """import numpy as np, diffcls
pictures = np.random.default_rng(0).integers(0, 256, (70, 28, 28), dtype=np.uint8)
classifier = diffcls.Classifier(None, ["coat", "bag"])
for result in classifier.stream(pictures):
    assert result.warnings
"""


def test_python_shows_it_once(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    shown = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True).stderr
    assert shown.count("OutOfWorldWarning") == 1
    assert shown.startswith(f"{path}:4: OutOfWorldWarning: ")


def test_the_command_line_names_each_picture(tmp_path, rng, capsys):
    names = [str(tmp_path / f"{i}.png") for i in range(3)]
    for name in names:
        Image.fromarray(noise(rng)).save(name)
    assert main(["classify", *names, "--prompts", "coat", "bag"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": the picture is unlike")[0] for line in lines] == names


def test_a_world_that_finds_all_usual_is_silent(rng):
    model = diffcls.load()
    model.world = replace(model.world, threshold=-np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not diffcls.classify(noise(rng), model=model).warnings


@pytest.mark.filterwarnings("ignore::diffcls.OutOfWorldWarning")
def test_the_cards_figures_count_judgements_not_sentences(rng):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from diffcls.models import measure

    pictures = [noise(rng) for _ in range(3)]
    for policy, share in ((diffcls.Fixed(2), 0.0), (diffcls.Fixed(16), 1.0)):
        classifier = diffcls.Classifier(None, ["coat", "bag"], policy=policy)
        assert all(result.warnings for result in classifier(pictures))
        assert measure.warned(classifier, pictures)["warned"] == share
        assert measure.score(classifier, pictures, np.zeros(3, np.int64))["warned"] == share
