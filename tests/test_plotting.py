"""Displays: what the artists hold is the source's data; a few whole pictures against baselines.

``python test_plotting.py`` draws the baselines anew.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import diffcls
from diffcls.errors import InputError, ShapeError
from diffcls.testing import GaussianMixture

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from diffcls.plotting import (  # noqa: E402
    ConfusionMatrixDisplay,
    EliminationDisplay,
    ErrorMapDisplay,
    FrontierDisplay,
    LossCurveDisplay,
    ReliabilityDisplay,
    RiskCoverageDisplay,
)

BASELINES = Path(__file__).with_name("baselines")
TOLERANCE = 12
"""Root mean square of the levels: other fonts and antialiasing pass, a missing line or another colour does not."""

NAMES = ["ring", "bar", "dot", "cross", "field"]


def mixture():
    """Pictures of 8 x 8 that differ in where they are bright."""
    means = np.zeros((5, 1, 8, 8))
    means[0, 0, 1:7, 1:7], means[0, 0, 2:6, 2:6] = 1.5, 0.0
    means[1, 0, 3:5, :] = 1.5
    means[2, 0, 3:5, 3:5] = 1.5
    means[3, 0, 3:5, :], means[3, 0, :, 3:5] = 1.5, 1.5
    means[4] = 0.8
    return GaussianMixture(means, 0.4)


MODEL = mixture()
RNG = np.random.default_rng(11)
IMAGES, LABELS = MODEL.sample(24, RNG)
CLASSIFIER = diffcls.Classifier(MODEL.denoiser(class_names=NAMES), policy=diffcls.Race(pool=60, risk=0.2, n_min=3))
TABLE = CLASSIFIER.error_table(IMAGES, n_samples=60, labels=LABELS)


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def line(ax, label):
    (found,) = [each for each in ax.lines if each.get_label() == label]
    return found


# ---- all of them -----------------------------------------------------------------------------------------------------

MAKERS = {
    "elimination": lambda ax: EliminationDisplay.from_estimator(CLASSIFIER, IMAGES[0], ax=ax),
    "classes": lambda ax: EliminationDisplay.from_estimator(CLASSIFIER, IMAGES[0], ax=ax, kind="classes"),
    "loss": lambda ax: LossCurveDisplay.from_table(TABLE, 2, ax=ax, shown=2),
    "map": lambda ax: ErrorMapDisplay.from_estimator(CLASSIFIER, MODEL.means[3], "cross", "bar", n_samples=40, ax=ax),
    "frontier": lambda ax: FrontierDisplay.from_table(TABLE, {"full": None, "race": diffcls.Race(pool=60)}, ax=ax),
    "confusion": lambda ax: ConfusionMatrixDisplay.from_estimator(CLASSIFIER, IMAGES, LABELS, ax=ax),
    "reliability": lambda ax: ReliabilityDisplay.from_estimator(CLASSIFIER, IMAGES, LABELS, ax=ax, n_bootstrap=10),
    "risk": lambda ax: RiskCoverageDisplay.from_estimator(CLASSIFIER, IMAGES, LABELS, ax=ax, n_bootstrap=10),
}


@pytest.mark.parametrize("name", MAKERS)
def test_draws_on_the_given_axes_or_on_its_own(name):
    _, ax = pyplot.subplots()
    display = MAKERS[name](ax)
    assert display.ax_ is ax and display.figure_ is ax.figure and ax.has_data()
    again = display.plot()
    assert again is display and display.ax_ is not ax and display.figure_ is display.ax_.figure


@pytest.mark.parametrize("name", MAKERS)
def test_text_can_be_read_on_dark_and_light(name):
    """Of every text and the colour behind it, the contrast ratio of WCAG 2 is 3 at least."""
    for style in ("default", "dark_background"):
        with pyplot.style.context(style):
            display = MAKERS[name](None)
            behind = luminance(display.figure_.get_facecolor())
            inside = getattr(display, "image_", None)
            texts = display.ax_.findobj(matplotlib.text.Text)
            for text in texts:
                if text.get_text() and not (inside is not None and text in display.ax_.texts):
                    ratio = sorted((luminance(text.get_color()) + 0.05, behind + 0.05))
                    assert ratio[1] / ratio[0] >= 3.0, text
            display.figure_.canvas.draw()


def luminance(colour):
    c = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


# ---- pictures --------------------------------------------------------------------------------------------------------

DRAWN = ("classes", "loss", "map")


def draw(name, path):
    with pyplot.style.context("default"), matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        MAKERS[name](None).figure_.savefig(path, dpi=50, metadata={"Software": None})


@pytest.mark.parametrize("name", DRAWN)
def test_looks_like_its_baseline(name, tmp_path):
    from matplotlib.testing.compare import compare_images

    draw(name, tmp_path / f"{name}.png")
    assert compare_images(BASELINES / f"{name}.png", tmp_path / f"{name}.png", TOLERANCE) is None


# ---- elimination -----------------------------------------------------------------------------------------------------


def test_a_line_a_class():
    result = CLASSIFIER(IMAGES[0])
    ax = result.plot(kind="classes").ax_
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names[0] == result.label and sorted(names) == sorted(NAMES)
    for name, bar, end in zip(names, ax.lines[::2], ax.lines[1::2], strict=True):
        i = NAMES.index(name)
        assert list(bar.get_xdata()) == [0, result.n_trials[i]] and end.get_xdata() == [result.n_trials[i]]
        assert end.get_marker() == ("o" if result.alive[i] else "x")
    ends = [bar.get_xdata()[1] for bar in ax.lines[2::2]]
    assert ends == sorted(ends, reverse=True)
    assert result.plot(kind="classes", max_classes=2).ax_.get_ylabel() == "the last 2 of 5 classes"


def test_names_stand_where_few_left():
    result = CLASSIFIER(IMAGES[0])
    told = [text.get_text() for text in result.plot().ax_.texts]
    assert told[0] == result.label
    left = [i for i in range(5) if not result.alive[i]]
    assert {name for text in told[1:] for name in text.removeprefix("without ").split(", ")} <= {NAMES[i] for i in left}
    assert not EliminationDisplay.from_result(result, names=False).ax_.texts
    with pytest.raises(InputError, match="kind is 'tree', must be 'count' or 'classes'"):
        result.plot(kind="tree")
    with pytest.raises(InputError, match="image is 2 pictures"):
        EliminationDisplay.from_estimator(CLASSIFIER, IMAGES[:2])


# ---- loss curves -----------------------------------------------------------------------------------------------------


def test_bands_are_scipys_paired_standard_errors():
    stats = pytest.importorskip("scipy.stats")
    display = LossCurveDisplay.from_table(TABLE, 3, n_bins=4, shown=["bar", "dot"], n_stderr=1, reference="ring")
    errors, t = TABLE.errors[3], TABLE.timesteps
    edges = np.linspace(t.min(), t.max(), 5)
    bins = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, 3)
    for i, band in ((1, 0), (2, 1)):
        rows = [bins == b for b in range(4)]
        mean = [(errors[i] - errors[0])[row].mean() for row in rows]
        stderr = [stats.sem((errors[i] - errors[0])[row]) for row in rows]
        drawn = line(display.ax_, NAMES[i])
        np.testing.assert_allclose(drawn.get_ydata(), mean)
        np.testing.assert_allclose(drawn.get_xdata(), [t[row].mean() for row in rows])
        corners = display.ax_.collections[band].get_paths()[0].vertices
        np.testing.assert_allclose(corners[:, 1].max(), np.max(np.add(mean, stderr)))
        np.testing.assert_allclose(corners[:, 1].min(), np.min(np.subtract(mean, stderr)))
    assert (display.difference[0] == 0).all() and display.n_trials.sum() == 5 * 60


def test_paired_bands_are_narrower_than_the_errors_themselves():
    """What the pairing is for, on classes that share their hard trials."""
    display = LossCurveDisplay.from_table(TABLE, 3, n_bins=2)
    rival = display._rivals(1)[0]
    spread = [TABLE.errors[3][rival][TABLE.timesteps < 500].std(ddof=1) / np.sqrt(display.n_trials[rival, 0])]
    assert display.stderr[rival, 0] < spread[0]


def test_errors_themselves():
    display = LossCurveDisplay.from_table(TABLE, 3, n_bins=1).plot(kind="error", shown=4)
    for i, name in enumerate(NAMES):
        np.testing.assert_allclose(line(display.ax_, name).get_ydata(), TABLE.errors[3, i].mean())
    assert display.ax_.get_yscale() == "log"
    assert display.reference == TABLE.errors[3].mean(axis=1).argmin()


def test_a_race_that_kept_its_errors():
    racer = diffcls.Classifier(CLASSIFIER.denoiser, policy=CLASSIFIER.policy, keep_errors=True)
    i = int(np.ptp(racer(IMAGES).n_trials, axis=1).argmax())
    result = racer(IMAGES[i])
    display = LossCurveDisplay.from_result(result, racer.trials["timestep"], n_bins=3)
    assert display.reference == result.index and display.n_trials.sum(axis=1).tolist() == result.n_trials.tolist()
    excess = (display.difference * display.n_trials)[:, display.n_trials.sum(axis=0) > 0]
    np.testing.assert_allclose(np.nansum(excess, axis=1) / result.n_trials, result.excess, atol=1e-9)
    short = int(np.argmin(result.n_trials))
    limited = LossCurveDisplay.from_result(result, racer.trials["timestep"], n_bins=3, reference=short)
    assert (limited.n_trials.sum(axis=1) == result.n_trials[short]).all()  # pairs only
    assert result.n_trials[short] < result.n_trials[result.index]
    told = replace(result, index=short)  # a winner by priors need not have the smallest mean
    assert LossCurveDisplay.from_result(told, racer.trials["timestep"]).reference == short
    lucky = result.errors.copy()
    lucky[short] -= 100.0
    timesteps = racer.trials["timestep"]
    plain = LossCurveDisplay(classes=NAMES, errors=lucky, timesteps=timesteps)
    assert plain.reference == result.index  # of those with most trials
    with pytest.raises(InputError, match="the result has no errors: classify with keep_errors=True"):
        LossCurveDisplay.from_result(CLASSIFIER(IMAGES[i]), racer.trials["timestep"])
    with pytest.raises(ShapeError, match="errors has shape"):
        LossCurveDisplay(classes=NAMES, errors=result.errors, timesteps=[1, 2])
    with pytest.raises(InputError, match="kind is 'loss'"):
        display.plot(kind="loss")
    same = LossCurveDisplay.from_estimator(CLASSIFIER, IMAGES[i], n_samples=60)
    np.testing.assert_array_equal(same.errors, TABLE.errors[i])


# ---- error maps ------------------------------------------------------------------------------------------------------


def test_map_is_centred_and_holds_the_smoothed_difference():
    found = diffcls.error_map(CLASSIFIER, MODEL.means[3], "cross", "bar", n_samples=40)
    display = found.plot(smoothing=0.7)
    np.testing.assert_array_equal(display.image_.get_array(), found.spatial(0.7))
    low, high = display.image_.get_clim()
    assert -low == high == np.abs(found.spatial(0.7)).max()
    middle = np.array(display.image_.get_cmap()(0.5)[:3])
    assert np.ptp(middle) < 0.01 and middle.min() > 0.9
    alpha = display.image_.get_alpha()
    assert np.unravel_index(alpha.argmax(), alpha.shape) == np.unravel_index(
        np.abs(found.spatial(0.7)).argmax(), alpha.shape
    )
    shown = np.asarray(display.ax_.images[0].get_array())
    assert np.corrcoef(shown.ravel(), found.picture.ravel())[0, 1] < -0.99  # dark on light
    bar = display.figure_.axes[-1]
    assert [text.get_text() for text in bar.get_yticklabels()] == ["for bar", "0", "for cross"]
    bare = found.plot(picture=False, contours=False, colorbar=False, limit=3.0)
    assert len(bare.ax_.images) == 1 and not bare.ax_.collections and bare.image_.get_clim() == (-3.0, 3.0)
    with pytest.raises(InputError, match="limit is -1"):
        found.plot(limit=-1)


# ---- confusion, frontier ---------------------------------------------------------------------------------------------


def test_confusion_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    results = CLASSIFIER(IMAGES)
    display = ConfusionMatrixDisplay.from_results(results, LABELS)
    wanted = metrics.confusion_matrix(LABELS, results.index, labels=range(5))
    np.testing.assert_array_equal(display.counts, wanted)
    share = wanted / np.maximum(wanted.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(display.image_.get_array(), share)
    numbers = {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in display.ax_.texts}
    assert numbers == {(i, j): str(wanted[i, j]) for i, j in np.argwhere(wanted).tolist()}
    named = ConfusionMatrixDisplay.from_predictions([NAMES[i] for i in LABELS], results.label, NAMES, numbers=False)
    np.testing.assert_array_equal(named.counts, wanted)
    assert not named.ax_.texts
    taken = ConfusionMatrixDisplay.from_predictions([0, 0, 1], ["dot", "ring", "bar"], NAMES)  # rows are labels
    assert np.argwhere(taken.counts).tolist() == [[0, 0], [0, 2], [1, 1]]
    with pytest.raises(ShapeError, match=r"counts has shape \(2, 2\), must be \(3, 3\)"):
        ConfusionMatrixDisplay(np.eye(2), NAMES[:3])
    with pytest.raises(InputError, match="results is ndarray"):
        ConfusionMatrixDisplay.from_results(np.eye(2), [0, 1])


def test_frontier_holds_the_sweep():
    policies = {"full": None, "careful": diffcls.Race(pool=60, risk=0.01), "quick": diffcls.Race(pool=60, risk=0.3)}
    rows = {row["policy"]: row for row in diffcls.ablation.sweep(TABLE, policies)}
    display = FrontierDisplay.from_table(TABLE, policies)
    for container in display.ax_.containers:
        row = rows[container.get_label().split(" (")[0]]
        assert container[0].get_xydata().tolist() == [[row["evals_mean"], row["accuracy"]]]
        ((low, high),) = container[2][0].get_segments()[0][:, 1][None]
        assert (low, high) == pytest.approx((row["accuracy_low"], row["accuracy_high"]))
    joined = display.plot(y="agreement", lines={"careful": "race", "quick": "race"})
    (race,) = [each for each in joined.ax_.containers if each.get_label().startswith("race (")]
    assert race[0].get_ydata().tolist() == [rows["quick"]["agreement"], rows["careful"]["agreement"]]
    with pytest.raises(InputError, match="y is 'cost'"):
        display.plot(y="cost")
    all_right = [rows["full"] | {"agreement": 1.0, "agreement_high": 1.0 - 1e-16, "agreement_low": 0.9}]
    assert FrontierDisplay(all_right).plot(y="agreement").ax_.containers  # rounded below its own share

    bare = replace(TABLE, labels=None)
    assert FrontierDisplay.from_table(bare, policies).ax_.get_ylabel() == "agreement with the full pool"
    with pytest.raises(InputError, match="y is 'accuracy', and the rows have none: give labels"):
        FrontierDisplay.from_table(bare, policies, y="accuracy")
    with pytest.raises(InputError, match="rows is empty"):
        FrontierDisplay([])


if __name__ == "__main__":
    BASELINES.mkdir(exist_ok=True)
    for each in DRAWN:
        draw(each, BASELINES / f"{each}.png")
