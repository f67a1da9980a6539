"""Image-text matching: losses against plain NumPy, scores by hand, intervals, the usual layout, retrieval."""

import json

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest

import diffcls
from diffcls.reference_race import RaceReference
from diffcls.testing import GaussianMixture

MEANS = {"a red cup": [3.0, 0.0], "a blue cup": [-3.0, 0.0], "a red hat": [0.0, 3.0], "a blue hat": [0.0, -3.0]}
EMPTY = [0.0, 0.0]
SCHEDULE = diffcls.Schedule.linear(1000)


def predict(x_t, t, cond):
    """E[eps | x_t, text] of x_start ~ N(the text's mean, I)."""
    alpha, sigma = SCHEDULE.alpha[t, None], SCHEDULE.sigma[t, None]
    return (sigma * (x_t - alpha * cond)).astype(np.float32)


@pytest.fixture
def asked():
    return []


@pytest.fixture
def model(asked):
    """A text-to-image model that is a closed form; remembers what it was asked to encode."""

    def encode_prompts(prompts):
        asked.append(list(prompts))
        return np.array([{**MEANS, "": EMPTY}[prompt] for prompt in prompts], np.float32)

    return diffcls.Denoiser(predict, shape=(2,), schedule=SCHEDULE, encode_prompts=encode_prompts, name="words")


def plain_losses(x, mean, trials, seed=0):
    """(S,) squared errors by the definition."""
    errors = []
    for t, index in zip(trials["timestep"].tolist(), trials["noise_index"].tolist(), strict=True):
        eps = diffcls.ops.normal((2,), seed=seed, index=index, timestep=t).astype(np.float64)
        x_t = SCHEDULE.alpha[t] * x + SCHEDULE.sigma[t] * eps
        errors.append(np.mean((SCHEDULE.sigma[t] * (x_t - SCHEDULE.alpha[t] * np.array(mean)) - eps) ** 2))
    return np.array(errors)


def trials_of(model, n):
    return diffcls.Classifier(model, list(MEANS), policy=diffcls.Fixed(n)).trials


def pair(i, one, two, tag="Object", images=None):
    pictures = images or (np.array(MEANS[one], np.float32), np.array(MEANS[two], np.float32))
    return {
        "id": i,
        "caption_0": one,
        "caption_1": two,
        "image_0": pictures[0],
        "image_1": pictures[1],
        "collapsed_tag": tag,
    }


def test_losses_are_the_definition_and_paired(model, asked):
    """The first pair's captions are met in the other order by the second; noise is the same for every image and text."""
    rng = np.random.default_rng(1)
    names = list(MEANS)
    pairs = [
        pair(i, a, b, images=tuple(rng.standard_normal((2, 2)).astype(np.float32)))
        for i, (a, b) in enumerate([(names[0], names[1]), (names[1], names[0]), (names[3], names[2])])
    ]
    report = diffcls.winoground(model, pairs, n_samples=40, batch_size=7)
    assert asked == [[names[0], names[1], names[3], names[2], ""]]  # once, each text one time
    trials = trials_of(model, 40)
    for n, one in enumerate(pairs):
        for i in range(2):
            x = one[f"image_{i}"].astype(np.float64)
            for c in range(2):
                expected = plain_losses(x, MEANS[one[f"caption_{c}"]], trials).mean()
                np.testing.assert_allclose(report.losses[n, i, c], expected, rtol=1e-5)
            np.testing.assert_allclose(report.unconditional[n, i], plain_losses(x, EMPTY, trials).mean(), rtol=1e-5)
    assert report.ids == ["0", "1", "2"]


def test_the_image_score_needs_the_image_prior(model):
    """A far image has large losses under every text: each text prefers the near one, until that is taken away."""
    far = (np.array([9.0, 9.0], np.float32), np.array([-3.0, 0.0], np.float32))
    report = diffcls.winoground(model, [pair(0, "a red cup", "a blue cup", images=far)], n_samples=50)
    assert {kind: report.score(kind) for kind in ("text", "image", "group")} == {
        "text": 1.0,
        "image": 0.0,
        "group": 0.0,
    }
    assert report.score("image", normalised=True) == report.score("group", normalised=True) == 1.0
    assert report.gain("image") == (1.0, (1.0, 1.0)) and report.gain("text")[0] == 0.0


def planted(losses, prior, tags):
    return diffcls.WinogroundReport(np.array(losses), prior, tags, [str(i) for i in range(len(tags))], {})


def test_scores_by_loops(rng):
    """Against the definition written as loops; ties are wrong; Wilson's interval is SciPy's."""
    losses = rng.integers(0, 4, (60, 2, 2)).astype(float)  # with ties
    prior = rng.integers(0, 4, (60, 2)).astype(float)
    tags = [("Object", "Relation", "Both")[i % 3] for i in range(60)]
    report = planted(losses, prior, tags)
    for normalised in (False, True):
        right = {"text": [], "image": [], "group": []}
        for n in range(60):
            s = {(c, i): (prior[n, i] if normalised else 0.0) - losses[n, i, c] for c in range(2) for i in range(2)}
            text = s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1]
            image = s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0]
            for kind, value in (("text", text), ("image", image), ("group", text and image)):
                right[kind].append(value)
        for kind, values in right.items():
            assert report.right(normalised=normalised)[kind].tolist() == values
            for row in report.scores():
                if (row["kind"], row["normalised"]) != (kind, normalised):
                    continue
                chosen = [v for v, tag in zip(values, tags, strict=True) if row["tag"] in (tag, "all")]
                assert (row["n"], row["right"], row["score"]) == (len(chosen), sum(chosen), np.mean(chosen))
                ends = binomtest(sum(chosen), len(chosen)).proportion_ci(method="wilson")
                np.testing.assert_allclose((row["low"], row["high"]), ends, atol=1e-12)
    assert len(report.scores()) == 4 * 6
    gain, (low, high) = report.gain("image")
    assert gain == report.score("image", normalised=True) - report.score("image") and low <= gain <= high
    each = report.right(normalised=True)["image"].astype(float) - report.right()["image"]
    assert (high - low) / 2 == pytest.approx(1.96 * each.std() / np.sqrt(60), rel=0.15)
    lines = report.to_markdown().splitlines()
    assert len(lines) == 2 + 4 and lines[2].startswith("| all | 60 |") and lines[0].count("normalised") == 3


def test_plot_draws_the_scores():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    report = planted([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 2.0]]], np.array([[1.0, 1.0], [1.0, 3.0]]), ["", ""])
    ax = report.plot().ax_
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == [row["score"] for row in report.scores()] == [1.0, 0.5, 0.5, 1.0, 1.0, 1.0]


def test_text_scores_do_not_depend_on_the_prior(rng):
    losses = 0.5 + 1e-15 * rng.standard_normal((40, 2, 2))  # what rounding would turn around
    report = planted(losses, 1e3 * rng.random((40, 2)), [""] * 40)
    assert (report.right(normalised=True)["text"] == report.right()["text"]).all() and 0 < report.score("text") < 1


def test_reads_the_usual_layout(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    lines = []
    for i in range(400):
        lines.append(
            {"id": i, "caption_0": "sandal", "caption_1": "bag", "image_0": f"ex_{i}_0", "image_1": f"ex_{i}_1"}
            | {"collapsed_tag": "Both"}
        )
        for j in range(2):
            image.fromarray(np.full((28, 28), 90 * j, np.uint8)).save(tmp_path / "images" / f"ex_{i}_{j}.png")
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    report = diffcls.winoground(None, tmp_path, n_samples=1)
    assert report.n_pairs == 400 and report.unconditional is None and set(report.tags) == {"Both"}
    assert (report.losses == report.losses[0]).all() and np.ptp(report.losses[0]) > 0
    with pytest.raises(diffcls.InputError, match="unconditional= names the model's null class"):
        report.score("image", normalised=True)


def test_score_is_the_closed_form_and_its_error():
    """Of a Gaussian mixture whose third class is the null class; the exact expectation is within four standard errors."""
    mixture = GaussianMixture([[2.0, 0.0], [-2.0, 0.0], [0.0, 0.0]], [1.0, 1.0, 4.0])
    model = mixture.denoiser(class_names=["right", "left", "none"])
    x = np.array([[1.5, 0.5], [-1.0, 2.0], [0.2, -0.1]], np.float32)
    found = diffcls.score(x, ["left", "right"], model=model, n_samples=400, unconditional="none")
    expected = mixture.expected_errors(x, model.schedule).mean(axis=2)
    assert found.normalised and found.score.shape == (3, 2)
    exact = expected[:, [2]] - expected[:, [1, 0]]
    assert (np.abs(found.score - exact) < 4 * found.stderr + 1e-3).all() and (found.stderr < 0.1).all()
    plain = diffcls.score(x[0], "right", model=model, n_samples=400)
    assert not plain.normalised and plain.unconditional is None and plain.score.shape == ()
    assert plain.score == -found.losses[0, 1]
    np.testing.assert_allclose(found.score, found.unconditional[:, None] - found.losses, rtol=1e-9)


def test_standard_errors_are_of_paired_differences(model):
    x, trials = np.array([1.0, 2.0], np.float32), trials_of(model, 30)
    own, empty = (plain_losses(x.astype(float), mean, trials) for mean in (MEANS["a red cup"], EMPTY))
    for normalised, values in ((True, empty - own), (False, -own)):
        found = diffcls.score(x, "a red cup", model=model, n_samples=30, normalised=normalised)
        np.testing.assert_allclose(found.score, values.mean(), rtol=1e-5)
        np.testing.assert_allclose(found.stderr, values.std(ddof=1) / np.sqrt(30), rtol=1e-4)


def test_retrieval(model):
    rng = np.random.default_rng(3)
    texts = list(MEANS)
    x = (np.array([MEANS[text] for text in texts]) + 0.3 * rng.standard_normal((4, 2))).astype(np.float32)
    for direction in ("text", "image"):
        found = diffcls.retrieve(x, texts, model=model, direction=direction, n_samples=60)
        assert (
            found.ranking[:, 0].tolist() == [0, 1, 2, 3] and found.recall(1) == 1.0 and found.rank.tolist() == [0] * 4
        )
        ends = binomtest(4, 4).proportion_ci(method="wilson")
        np.testing.assert_allclose(found.recall_interval(1), ends, atol=1e-12)
    assert found.n_evals == 60 * 4 * 5
    raced = diffcls.retrieve(x, texts, model=model, policy=diffcls.Race(pool=60))
    assert raced.n_evals < 60 * 4 * 4


def test_images_of_a_text_race(model):
    """Against the race over the whole table of differences, text by text; errors without a text are asked once."""
    rng = np.random.default_rng(5)
    texts, empty = list(MEANS), EMPTY
    x = (np.array([MEANS[text] for text in texts] * 2) + 1.5 * rng.standard_normal((8, 2))).astype(np.float32)
    policy = diffcls.Race(pool=48, n_min=4, ramp=16, caps=None)
    found = diffcls.retrieve(x, texts, model=model, direction="image", targets=[0, 1, 2, 3], policy=policy)
    whole = diffcls.Classifier(model, texts, policy=policy)
    lowered = whole.lower_for(8)
    trials, asked, n_evals = lowered.trials, np.zeros(8, int), 0
    prior = np.stack([plain_losses(one, empty, trials) for one in x])
    for m, text in enumerate(texts):
        table = np.stack([plain_losses(one, MEANS[text], trials) for one in x]) - prior
        race = RaceReference(table, trials["weight"], lowered.policy, stats.t.isf, range(8)).run()
        assert found.ranking[m, 0] == race.leader()
        n_evals += race.n_evals
        asked = np.maximum(asked, race.n_done)
        means = [np.mean(table[i, :n] - table[race.leader(), :n]) for i, n in enumerate(race.n_done)]
        assert found.ranking[m, 1:].tolist() == [i for i in np.argsort(means, kind="stable") if i != race.leader()]
    assert found.n_evals == n_evals + asked.sum() < 48 * 8 * 5
    with pytest.raises(diffcls.InputError, match="policy is .* and n_samples 3: a race, or so many"):
        diffcls.retrieve(x, texts, model=model, direction="image", policy=policy, n_samples=3, targets=[0] * 4)
    with pytest.raises(diffcls.InputError, match="max_evals allows no trial of 8 images"):
        diffcls.retrieve(x, texts, model=model, direction="image", policy=diffcls.Race(max_evals=7), targets=[0] * 4)


def test_image_retrieval_orders_by_the_normalised_score(model):
    x = np.array([[9.0, 9.0], [0.5, 0.0], [2.0, 0.0]], np.float32)
    texts, targets = ["a red cup", "a blue cup"], [2, 1]
    found = diffcls.retrieve(x, texts, model=model, direction="image", targets=targets, n_samples=40)
    score = diffcls.score(x, texts, model=model, n_samples=40).score
    assert found.ranking.tolist() == np.argsort(-score.T, axis=1).tolist()
    ranks = [found.ranking[m].tolist().index(target) for m, target in enumerate(targets)]
    assert found.rank.tolist() == ranks and found.recall(1) == np.mean(np.array(ranks) < 1)
    of_images = diffcls.retrieve(x, texts, model=model, targets=targets)
    assert of_images.rank[0] == -1 and (of_images.rank[1:] >= 0).all()  # no text is of the first image
    assert of_images.recall(1) == np.mean(of_images.rank[1:] < 1) and of_images.recall(2) == 1.0
    assert of_images.recall_interval(2) == pytest.approx(tuple(binomtest(2, 2).proportion_ci(method="wilson")))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m: diffcls.winoground(m, []), diffcls.InputError, "pairs is empty"),
        (
            lambda m: diffcls.winoground(m, [{"caption_0": "a"}]),
            diffcls.InputError,
            "pairs.0. has no caption_1, image_0",
        ),
        (lambda m: diffcls.winoground(m, [pair(0, "a red cup", "a red cup")]), diffcls.InputError, "twice"),
        (lambda m: diffcls.score(np.zeros(2, np.float32), 3, model=m), diffcls.DTypeError, "texts is int"),
        (lambda m: diffcls.score(np.zeros(2, np.float32), ["a", "a"], model=m), diffcls.InputError, "'a' twice"),
        (
            lambda m: diffcls.score(np.zeros(2, np.float32), "a red cup", model=m, policy=diffcls.Race()),
            diffcls.InputError,
            "policy can not be given: the texts are the prompts, and each is asked n_samples trials",
        ),
        (
            lambda m: diffcls.winoground(m, [pair(0, "a red cup", "a blue cup")], policy=diffcls.Race()),
            diffcls.InputError,
            "policy can not be given",
        ),
        (
            lambda m: diffcls.retrieve(np.zeros((4, 2)), list(MEANS), model=m, prompts=["a"]),
            diffcls.InputError,
            "prompts can not be given",
        ),
        (lambda m: diffcls.score([], "a red cup", model=m), diffcls.InputError, "image is empty"),
        (lambda m: diffcls.retrieve([], ["a"], model=m, direction="up"), diffcls.InputError, "direction is 'up'"),
        (lambda m: diffcls.retrieve([], list(MEANS), model=m), diffcls.InputError, "images is empty"),
        (
            lambda m: diffcls.retrieve(np.zeros((1, 2), np.float32), list(MEANS), model=m),
            diffcls.InputError,
            "numbers of images, 0 to 0",
        ),
    ],
)
def test_bad_input(model, call, error, said):
    with pytest.raises(error, match=said):
        call(model)


def test_normalised_without_a_null_class():
    model = GaussianMixture([[2.0, 0.0], [-2.0, 0.0]]).denoiser(class_names=["right", "left"])
    with pytest.raises(diffcls.InputError, match="must name its null class"):
        diffcls.score(np.zeros(2, np.float32), "left", model=model, normalised=True)


@pytest.mark.torch
def test_stable_diffusion_of_random_weights():
    """The empty prompt goes through the pipeline's own text encoder, and normalises."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    import pipelines

    torch.set_num_threads(1)
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    found = diffcls.score(picture, ["cat", "dog"], model=pipelines.sd(), n_samples=4)
    by_class = diffcls.classify(picture, ["cat", "dog"], model=pipelines.sd(), policy=diffcls.Fixed(4))
    np.testing.assert_allclose(found.losses, by_class.losses, rtol=1e-5)
    assert found.unconditional not in found.losses and found.score.shape == (2,)


@pytest.mark.torch
def test_captions_of_different_pairs_may_be_read_alike():
    """Only those of one pair compete: the same pair in capitals has the same losses, whichever way around it stands."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    torch.set_num_threads(1)
    model = diffcls.load("shapes")
    one, two = "a red circle left of a blue square", "a blue square left of a red circle"
    pictures = tuple(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    pairs = [pair(0, one, two, images=pictures), pair(1, two.title(), one.upper(), images=pictures[::-1])]
    report = diffcls.winoground(model, pairs, n_samples=3)
    np.testing.assert_allclose(report.losses[1], report.losses[0][::-1, ::-1], rtol=1e-5)
    assert report.losses[0, 0, 0] != report.losses[0, 0, 1]
    same = [pair(0, one, two, images=pictures), pair(1, one, one.upper(), images=pictures)]
    with pytest.raises(
        diffcls.InputError, match=r"pairs\[1\]: captions 'a red .* and 'A RED .* are the same to the model's"
    ):
        diffcls.winoground(model, same, n_samples=3)
    with pytest.raises(diffcls.UnknownClassError, match="has the word 'dog'"):
        diffcls.winoground(model, [pair(0, "a dog", "a cat", images=pictures)], n_samples=3)
    with pytest.raises(diffcls.InputError, match="are the same to the model's tokenizers"):
        diffcls.score(pictures[0], [one, one.upper()], model=model, n_samples=3)
