"""Shortlists: what is left out has no trial, what is kept races as it would alone, and the miss rate is counted."""

import json

import numpy as np
import pytest
from gaussian import GaussianClasses

import diffcls
from diffcls import Fixed, Race, Shortlist


@pytest.fixture(scope="module")
def world():
    return GaussianClasses(n_classes=12, dimension=8, seed=5)


@pytest.fixture(scope="module")
def denoiser(world):
    return diffcls.Denoiser(
        world.predict, shape=(8,), schedule=world.schedule, class_names=[f"c{i}" for i in range(12)]
    )


def nearest(world, wrong=()):
    """Scores by distance to the class means; for pictures whose position is in `wrong`, the other way round."""
    seen = []

    def scorer(image, classes):
        seen.append(len(classes))
        distance = np.square(world.means - image).sum(axis=1)
        return distance if len(seen) - 1 in wrong else -distance

    return scorer


@pytest.fixture
def x(world, rng):
    labels = rng.integers(0, 12, 20)
    return world.sample(labels, rng), labels


def test_the_kept_race_as_they_would_alone(world, denoiser, x):
    """The same losses to the bit as a classifier of these classes only."""
    pictures, _ = x
    result = diffcls.classify(pictures[0], model=denoiser, shortlist=Shortlist(nearest(world), 4), keep_errors=True)
    chosen = [int(name[1:]) for name in result.run["shortlist"]["chosen"]]
    wanted = sorted(np.argsort(np.square(world.means - pictures[0]).sum(axis=1))[:4].tolist())
    assert chosen == wanted
    alone = diffcls.classify(pictures[0], [f"c{i}" for i in chosen], model=denoiser, keep_errors=True)
    for name in ("losses", "stderr", "excess", "n_trials", "alive", "probabilities", "errors"):
        np.testing.assert_array_equal(getattr(result, name)[chosen], getattr(alone, name))
    out = np.setdiff1d(np.arange(12), chosen)
    assert result.label == alone.label and result.n_evals == alone.n_evals and result.status == alone.status
    assert not result.alive[out].any() and not result.n_trials[out].any() and not result.probabilities[out].any()
    assert np.isnan(result.losses[out]).all() and np.isnan(result.errors[out]).all()


SAME = ("losses", "stderr", "excess", "n_trials", "alive", "n_evals", "p_disagree", "probabilities")


@pytest.mark.parametrize("policy", [Race(pool=60), Race(pool=60, guarantee="anytime"), Fixed(9)])
@pytest.mark.parametrize("batch_size", [10, 512])
def test_many_in_flight_are_each_as_alone(world, denoiser, x, policy, batch_size):
    """Lists of their own, of different lengths in prompts too; what is in flight beside a picture is not seen."""
    prompts = {"a": ["c0", "c1", "c2"], "b": ["c3"], "c": ["c4", "c5"], **{f"d{i}": [f"c{i}"] for i in range(6, 12)}}
    classes = [ids for ids in prompts.values()]
    means = np.array([world.means[[int(name[1:]) for name in ids]].mean(axis=0) for ids in classes])

    def scorer(image, names):
        return -np.square(means - image).sum(axis=1)

    options = {"model": denoiser, "policy": policy}
    listed = Shortlist(scorer, 3)
    together = diffcls.classify(x[0], prompts, shortlist=listed, batch_size=batch_size, **options)
    lengths = set()
    for picture, result in zip(x[0], together, strict=True):
        chosen = result.run["shortlist"]["chosen"]
        at = [result.classes.index(name) for name in chosen]
        alone = diffcls.classify(picture, {name: prompts[name] for name in chosen}, **options)
        lengths.add(sum(len(prompts[name]) for name in chosen))
        assert result.label == alone.label and result.status == alone.status and result.trace == alone.trace
        for name in SAME[:5]:
            np.testing.assert_array_equal(getattr(result, name)[at], getattr(alone, name), err_msg=name)
        np.testing.assert_allclose(result.probabilities[at], alone.probabilities, rtol=1e-14)  # sums of 9 and of 3
        assert (result.n_evals, result.p_disagree) == (alone.n_evals, alone.p_disagree)
        by_itself = diffcls.classify(picture, prompts, shortlist=listed, **options)
        assert all(np.array_equal(getattr(result, name), getattr(by_itself, name), equal_nan=True) for name in SAME)
    assert len(lengths) > 1


def test_batches_are_filled_from_many_pictures(world, x):
    rows = []

    def predict(x_t, t, cond):
        rows.append(len(t))
        return world.predict(x_t, t, cond)

    model = diffcls.Denoiser(predict, shape=(8,), schedule=world.schedule, n_classes=12)
    diffcls.classify(x[0], model=model, policy=Fixed(2), shortlist=Shortlist(nearest(world), 3), batch_size=60)
    assert rows == [60, 60]


def test_a_budget_that_no_trial_of_all_classes_fits_in(denoiser, world, x):
    policy = Race(pool=40, max_evals=8)
    result = diffcls.classify(x[0][0], model=denoiser, policy=policy, shortlist=Shortlist(nearest(world), 3))
    assert result.n_evals == 6
    with pytest.raises(diffcls.InputError, match="max_evals is 8, must allow one trial of every prompt, 12"):
        diffcls.classify(x[0][0], model=denoiser, policy=policy)


def test_nan_is_named_by_its_class(denoiser, world, x):
    def predict(x_t, t, cond):
        return np.where((cond == 7)[:, None], np.nan, world.predict(x_t, t, cond))

    model = diffcls.Denoiser(predict, shape=(8,), schedule=world.schedule, n_classes=12, name="broken")
    only = Shortlist(lambda image, classes: [float(name in "57") for name in classes], 2)
    with pytest.raises(diffcls.NonFiniteError, match="broken predicted NaN or infinity for class '7'"):
        diffcls.classify(x[0][0], model=model, policy=Fixed(2), shortlist=only)


# ---- data sets -------------------------------------------------------------------------------------------------------


class Cut(Exception):
    pass


def cut(pictures, labels, after):
    for i, pair in enumerate(zip(pictures, labels, strict=True)):
        if i == after:
            raise Cut
        yield pair


@pytest.fixture
def listed(world, denoiser):
    """A classifier whose lists depend on the picture alone."""

    def make(k=4, scorer=None, **counts):
        own = scorer or (lambda image, classes: -np.square(world.means - image).sum(axis=1))
        return diffcls.Classifier(denoiser, policy=Race(pool=40), batch_size=16, shortlist=Shortlist(own, k, **counts))

    return make


def test_evaluate_keeps_rows_of_lists(tmp_path, listed, x):
    pq = pytest.importorskip("pyarrow.parquet")
    pictures, labels = x
    classifier = listed()
    report = diffcls.evaluate(classifier, (pictures, labels), out=tmp_path, part_size=8, audit=1.0)
    results, table = classifier(pictures), pq.read_table(tmp_path / "results.parquet")
    for name in SAME:
        np.testing.assert_array_equal(np.array(table.column(name).to_pylist()), getattr(results, name), err_msg=name)
    assert table.column("prediction").to_pylist() == results.label
    assert table.column("warnings").to_pylist() == results.warnings
    assert ((results.n_trials > 0).sum(axis=1) == 4).all()
    assert report.run["shortlist"]["k"] == 4 and report.accuracy == np.mean(results.index == labels)
    places = [result.ranking().tolist().index(label) for result, label in zip(results, labels, strict=True)]
    assert report.rank.tolist() == places
    every = diffcls.classify(pictures, model=classifier.denoiser, policy=Fixed(40))
    full = np.array([report.classes.index(name) for name in every.label])
    assert report.full_prediction.tolist() == full.tolist()


@pytest.mark.parametrize("after", [0, 7, 8, 19])
def test_evaluate_goes_on_to_the_byte(tmp_path, listed, x, after):
    pytest.importorskip("pyarrow")
    whole, broken = tmp_path / "whole", tmp_path / "cut"
    diffcls.evaluate(listed(), cut(*x, None), out=whole, part_size=8)
    with pytest.raises(Cut):
        diffcls.evaluate(listed(), cut(*x, after), out=broken, part_size=8)
    diffcls.evaluate(listed(), cut(*x, None), out=broken, part_size=8)
    assert (broken / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()
    for i in (1, 0):
        diffcls.evaluate(listed(), cut(*x, None), out=tmp_path / "shards", part_size=8, shard=(i, 2))
    rows, same = (diffcls.Report.load(out) for out in (tmp_path / "shards", whole))
    assert (rows.n_evals == same.n_evals).all() and (rows.prediction == same.prediction).all()


def test_another_list_is_another_run(tmp_path, listed, denoiser, x):
    pytest.importorskip("pyarrow")
    quick = [diffcls.Classifier(denoiser, policy=Fixed(n)) for n in (2, 3)]
    diffcls.evaluate(listed(scorer=quick[0]), x, out=tmp_path)
    for other in (listed(5, quick[0]), listed(scorer=quick[0], n_images=9, n_missed=1), listed(scorer=quick[1])):
        with pytest.raises(diffcls.FingerprintMismatchError, match="shortlist is"):
            diffcls.evaluate(other, x, out=tmp_path)
    with pytest.raises(diffcls.FingerprintMismatchError, match="shortlist is"):
        diffcls.evaluate(diffcls.Classifier(denoiser, policy=Race(pool=40)), x, out=tmp_path)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.nan, "gave NaN for class 'c0'"),
        (1.0, r"gave shape \(2,\), must be \(12,\)"),
        ("a", "gave 'a', must give 12 numbers"),
    ],
)
def test_a_broken_scorer_ends_the_evaluation(tmp_path, listed, x, world, answer, said):
    """It is no picture's fault: nothing is a row with an error, and what was under way is kept."""
    pytest.importorskip("pyarrow")
    whole = -np.square(world.means[None] - x[0][:, None]).sum(axis=2)

    def scorer(image, classes):
        if np.array_equal(image, x[0][3]):
            return {np.nan: np.full(12, np.nan), 1.0: [0.0, 1.0]}.get(answer, answer)
        return whole[np.abs(x[0] - image).sum(axis=1).argmin()]

    with pytest.raises(diffcls.ScorerError, match=f"the shortlist's scorer {said}"):
        diffcls.evaluate(listed(scorer=scorer), x, out=tmp_path)
    events = [json.loads(line) for path in tmp_path.glob("*/log.jsonl") for line in path.read_text().splitlines()]
    assert events[-1]["event"] == "stopped" and events[-1]["images"] == 3 and "ScorerError" in events[-1]["error"]


def test_stream_gives_what_was_before_a_failure(denoiser, listed, x, world):
    """Of the scorer, of the pictures' own iterator, and of a picture that is none."""

    def scorer(image, classes):
        if np.array_equal(image, x[0][4]):
            raise RuntimeError("no scores")
        return -np.square(world.means - image).sum(axis=1)

    def pictures():
        yield from x[0][:5]
        raise OSError("no more")

    odd = [*x[0][:6], np.zeros(3, np.float32), *x[0][6:]]
    plain = diffcls.Classifier(denoiser, policy=Race(pool=40))
    for classifier, images, error, n in (
        (listed(scorer=scorer), x[0], RuntimeError, 4),
        (plain, pictures(), OSError, 5),
        (plain, odd, diffcls.ShapeError, 6),
    ):
        got = []
        with pytest.raises(error):
            for result in classifier.stream(images):
                got.append(result)
        assert [r.index for r in got] == [r.index for r in classifier(x[0][:n])]


@pytest.mark.parametrize(
    ("images", "labels", "classes", "error", "said"),
    [
        ((i for i in range(2)), [0, 1], ["a", "b"], TypeError, "images is generator, must be a sequence of pictures"),
        ("cat.png", [0], ["a", "b"], TypeError, "images is str, must be a sequence of pictures"),
        ([1, 2], [0, 1], "ab", TypeError, "classes is 'ab', must be a list of names"),
        ([1, 2], [0, 1], None, TypeError, "classes is None, must be a list of names"),
        ([1, 2], [0, 1], ["a", "a"], ValueError, "must be one name or more, all different"),
        ([1, 2], [0, 1], [], ValueError, "must be one name or more"),
        ([1, 2], [0, 2], ["a", "b"], ValueError, "labels has 2, must be names of classes or 0 to 1"),
        ([1, 2], None, ["a", "b"], ValueError, r"labels has shape \(\), must be \(2,\)"),
        ([], [], ["a", "b"], ValueError, "images is empty"),
    ],
)
def test_measuring_odd_inputs(images, labels, classes, error, said):
    with pytest.raises(error, match=said):
        Shortlist(lambda image, names: np.arange(len(names)), 1).measure(images, labels, classes=classes)


def test_a_list_of_all_classes_is_no_list(world, denoiser, x):
    plain = diffcls.classify(x[0], model=denoiser, policy=Fixed(20))
    listed = diffcls.classify(x[0], model=denoiser, policy=Fixed(20), shortlist=Shortlist(nearest(world), 99))
    np.testing.assert_array_equal(listed.losses, plain.losses)
    assert listed[0].warnings == plain[0].warnings


def test_several_prompts_of_a_class_stay_together(denoiser, x):
    prompts = {"low": ["c0", "c1"], "high": ["c10", "c11"], "mid": ["c5"]}

    def scorer(image, classes):
        assert classes == ["low", "high", "mid"]
        return [0.0, 2.0, 1.0]

    for pool in ("min", "mean"):
        result = diffcls.classify(
            x[0][0], prompts, model=denoiser, pool=pool, policy=Fixed(5), shortlist=Shortlist(scorer, 2)
        )
        alone = diffcls.classify(
            x[0][0], {name: prompts[name] for name in ("high", "mid")}, model=denoiser, pool=pool, policy=Fixed(5)
        )
        np.testing.assert_array_equal(result.losses[1:], alone.losses)
        assert result.n_trials[0] == 0 and result.label == alone.label and result.n_evals == alone.n_evals


def test_the_miss_rate_is_counted_and_joins_the_risk(world, denoiser, x):
    pictures, labels = x
    classes = denoiser.class_names
    distance = np.square(pictures[:, None] - world.means).sum(axis=2)
    missed = int((np.argsort(np.argsort(distance, axis=1), axis=1)[np.arange(20), labels] >= 3).sum())
    measured = Shortlist(nearest(world), 3).measure(pictures, labels, classes=classes)
    assert (measured.n_missed, measured.n_images, measured.miss_rate) == (missed, 20, missed / 20)
    worse = Shortlist(nearest(world, wrong=range(5)), 3).measure(
        pictures, [classes[i] for i in labels], classes=classes
    )
    assert worse.miss_rate > measured.miss_rate and worse.interval[0] < worse.miss_rate < worse.interval[1]
    plain, told = (
        diffcls.classify(pictures[0], model=denoiser, shortlist=Shortlist(nearest(world), 3, *counts))
        for counts in ((), (20, 5))
    )
    assert told.p_disagree == pytest.approx(plain.p_disagree + 0.25)
    assert told.run["shortlist"]["miss_rate"] == 0.25 and told.run["shortlist"]["interval"][1] > 0.25
    assert any("not measured" in warning for warning in plain.warnings)
    assert not any("not measured" in warning for warning in told.warnings)
    assert diffcls.classify(pictures[0], model=denoiser, shortlist=Shortlist(nearest(world), 3, 1, 1)).p_disagree == 1.0


def test_a_smaller_classifier_may_make_the_list(world, denoiser, x):
    quick = diffcls.Classifier(denoiser, policy=Fixed(4), seed=7)
    full = diffcls.Classifier(denoiser, policy=Race(risk=0.001, pool=400))
    listed = diffcls.Classifier(denoiser, policy=Race(risk=0.001, pool=400), shortlist=Shortlist(quick, 6))
    results, all_classes = listed(x[0]), full(x[0])
    assert np.mean(np.array(results.label) == np.array(all_classes.label)) > 0.8
    assert results.n_evals.sum() < all_classes.n_evals.sum()
    with pytest.raises(diffcls.InputError, match="the shortlist's classifier has classes"):
        diffcls.classify(x[0][0], ["c1", "c2", "c3"], model=denoiser, shortlist=Shortlist(quick, 2))


def test_an_audit_counts_what_the_list_missed(world, denoiser, x):
    blind = Shortlist(lambda image, classes: np.arange(len(classes)), 2)  # c10 and c11, whatever it shows
    classifier = diffcls.Classifier(denoiser, policy=Fixed(60), shortlist=blind)
    report = classifier.audit(x[0])
    full = diffcls.classify(x[0], model=denoiser, policy=Fixed(60))
    assert report.n_disagree == sum(label not in ("c10", "c11") for label in full.label) > 10


def test_streams_and_progress(world, denoiser, x):
    seen = []
    classifier = diffcls.Classifier(
        denoiser,
        policy=Fixed(6),
        shortlist=Shortlist(nearest(world), 3),
        progress=lambda done, most: seen.append((done, most)),
    )
    results = classifier(x[0])
    assert results.n_evals.sum() == 20 * 6 * 3
    assert seen and seen == sorted(seen) and {most for _, most in seen} == {20 * 6 * 12}
    assert 0 < seen[0][0] <= seen[-1][0] <= 20 * 6 * 3
    assert [result.label for result in classifier.stream(iter(x[0]))] == results.label
    assert results.losses.shape == (20, 12)


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (lambda image, classes: [1.0], "gave shape .1,., must be .12,."),
        (lambda image, classes: [np.nan, *range(11)], "gave NaN for class 'c0'"),
        (lambda image, classes: "many", "gave 'many', must give 12 numbers"),
    ],
)
def test_a_scorer_that_gives_no_scores(denoiser, x, scorer, said):
    with pytest.raises(diffcls.ScorerError, match=said):
        diffcls.classify(x[0][0], model=denoiser, shortlist=Shortlist(scorer, 2))


def test_what_is_no_shortlist(denoiser):
    with pytest.raises(diffcls.DTypeError, match="must be callable as scorer"):
        Shortlist("clip", 3)
    with pytest.raises(diffcls.InputError, match="k is 0"):
        Shortlist(len, 0)
    with pytest.raises(diffcls.DTypeError, match="must be a diffcls.Shortlist"):
        diffcls.Classifier(denoiser, shortlist=len)
    with pytest.raises(diffcls.InputError, match="images is empty"):
        Shortlist(len, 2).measure([], [], classes=["a"])


def test_a_pipeline_that_leaves_a_class_out_is_told():
    pytest.importorskip("PIL")

    class Forgetful:
        task = "zero-shot-image-classification"

        def __call__(self, image, candidate_labels):
            return [{"label": candidate_labels[0], "score": 1.0}]

    with pytest.raises(diffcls.ScorerError, match="scorer gave NaN for class 'dog'"):
        Shortlist(Forgetful(), 1).scores(np.zeros((4, 4, 3), np.uint8), ["cat", "dog"])


@pytest.mark.torch
def test_clip_makes_a_list():
    """A tiny CLIP of the real classes behind transformers' own zero-shot pipeline."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    import pipelines
    from PIL import Image

    torch.set_num_threads(1)
    tokenizer = pipelines.clip_tokenizer(40)
    vision = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    text = pipelines.clip_encoder(tokenizer).config.to_dict() | {"max_position_embeddings": 40}
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision | {"projection_dim": 8}, projection_dim=8)
    )
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pipe = transformers.pipeline(
        "zero-shot-image-classification",
        model=pipelines.randomise(model, 3),
        tokenizer=tokenizer,
        image_processor=processor,
    )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    classes = ["cat", "dog", "owl", "hen"]
    shortlist = Shortlist(pipe, 2)
    scores = shortlist.scores(picture, classes)
    best = [entry["label"] for entry in pipe(picture, candidate_labels=classes)]
    assert [classes[i] for i in np.argsort(-scores)] == best and np.ptp(scores) > 0
    for same in (np.asarray(picture), np.asarray(picture, np.float32) / 255):
        np.testing.assert_array_equal(shortlist.scores(same, classes), scores)
    result = diffcls.classify(picture, classes, model=pipelines.sd(), policy=Fixed(3), shortlist=shortlist)
    assert set(result.run["shortlist"]["chosen"]) == set(best[:2]) and result.label in best[:2]
