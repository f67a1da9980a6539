"""Shortlists: what is left out has no trial, what is kept races as it would alone, and the miss rate is counted."""

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
    assert seen[-1][0] == results.n_evals.sum() == 20 * 6 * 3 and seen == sorted(seen)
    assert [result.label for result in classifier.stream(iter(x[0]))] == results.label
    assert results.losses.shape == (20, 12)


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (lambda image, classes: [1.0], "gave shape .1,., must be .12,."),
        (lambda image, classes: [np.nan, *range(11)], "gave NaN for class 'c0'"),
        (lambda image, classes: "many", "must be 12 numbers"),
    ],
)
def test_a_scorer_that_gives_no_scores(denoiser, x, scorer, said):
    with pytest.raises(diffcls.DiffclsError, match=said):
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
    result = diffcls.classify(picture, classes, model=pipelines.sd(), policy=Fixed(3), shortlist=shortlist)
    assert set(result.run["shortlist"]["chosen"]) == set(best[:2]) and result.label in best[:2]
