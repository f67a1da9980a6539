"""Parts of the paper's comparison, each against what somebody else computes or a closed form."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import diffcls

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benchmarks").exists():
    pytest.skip("the tests are not in a whole checkout", allow_module_level=True)
sys.path.insert(0, str(ROOT / "benchmarks"))
for needed in ("torch", "transformers", "diffusers", "sklearn", "skimage", "pyarrow", "safetensors"):
    pytest.importorskip(needed)

import torch  # noqa: E402
from comparison import cells, contrastive, features, networks, questions, robustness, samples, settings, shifts, tasks  # noqa: E402
from scipy import ndimage, special, stats  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::UserWarning")]
SMALL = settings.SMALL


def task_of(n, names, rng, k=2):
    candidates = [tuple(rng.choice(names, k, replace=False)) for _ in range(n)]
    return tasks.Task(
        "t", "shapes", [np.full((1, 1), i, np.uint8) for i in range(n)], candidates, np.zeros(n, np.int64)
    )


def test_the_best_of_the_candidates_is_the_answer(rng):
    names = [f"class {i}" for i in range(7)]
    task, scores = task_of(40, names, rng, 3), rng.normal(size=(40, 7))
    allowed = np.array([[name in asked for name in names] for asked in task.candidates])
    best = np.where(allowed, scores, -np.inf).argmax(axis=1)
    got = cells.among(scores, names, task)
    assert [task.candidates[i][k] for i, k in enumerate(got)] == [names[k] for k in best]


class Cut(Exception):
    pass


class Stream:
    """Pictures of noise; at step `cut` the process dies."""

    def __init__(self, cut=None):
        self.cut = cut

    def take(self, step, size):
        if step == self.cut:
            raise Cut
        generator = torch.Generator().manual_seed(step)
        return torch.randn(size, 1, 28, 28, generator=generator), torch.randint(0, 20, (size,), generator=generator)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_training_that_was_cut_ends_on_the_same_bits(kind, tmp_path, monkeypatch):
    def fresh():
        torch.manual_seed(3)
        return networks.resnet(4, 20, 1) if kind == "resnet" else networks.vit(32, 1, 20, 1, 28, 7)

    whole = networks.train(fresh(), Stream(), 5, 4, tmp_path / "whole.pt")
    monkeypatch.setattr(networks, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(Cut):
        networks.train(fresh(), Stream(cut=3), 5, 4, tmp_path / "cut.pt")
    resumed = networks.train(fresh(), Stream(), 5, 4, tmp_path / "cut.pt")
    start, states = fresh().state_dict(), (whole.state_dict(), resumed.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], start[name]) for name in start)


def test_a_networks_answer_is_of_the_picture_alone(rng):
    torch.manual_seed(0)
    model = networks.resnet(4, 20, 1).eval()
    network = networks.Network(model, tasks.class_names(), tasks.prepared, {})
    images = tasks.clean(SMALL)[0].images
    together = network.logits(images)
    alone = np.concatenate([network.logits([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


# ---- samples ---------------------------------------------------------------------------------------------------------


def gaussian_pixels(means, spread):
    """The exact denoiser of classes N(mean, spread^2) of pixels (1, 2, 2): E[x_start | x_t]."""
    schedule = diffcls.Schedule.squaredcos_cap_v2(1000)
    means = np.asarray(means, np.float32)

    def predict(x_t, t, cond):
        alpha, sigma = (c[t.astype(int), None, None, None] for c in (schedule.alpha, schedule.sigma))
        mean = means[cond][:, None, None, None]
        gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
        return (mean + gain * (x_t - alpha * mean)).astype(np.float32)

    return diffcls.Denoiser(
        predict, shape=(1, 2, 2), schedule=schedule, n_classes=len(means), prediction_type="sample", framework="numpy"
    )


def test_ddim_of_a_point_mass_ends_on_it():
    drawn = samples.ddim(gaussian_pixels([-0.6, 0.2], 0.0), np.array([0, 1, 1]), n_steps=4, seed=0)
    assert drawn.shape == (3, 1, 2, 2) and drawn.dtype == np.uint8
    expected = np.round((np.array([-0.6, 0.2, 0.2]) + 1) * 127.5)
    np.testing.assert_array_equal(drawn, np.broadcast_to(expected[:, None, None, None], drawn.shape))


def test_ddim_of_a_gaussian_is_its_flow():
    """Along the probability flow of N(m, s^2), x_start = m + s noise, when all is noise at the beginning."""
    drawn = samples.ddim(gaussian_pixels([0.1], 0.2), np.zeros(6, int), n_steps=1000, seed=4)
    noise = np.stack([np.random.default_rng((4, i)).standard_normal((1, 2, 2)) for i in range(6)])
    np.testing.assert_allclose(drawn / 127.5 - 1, 0.1 + 0.2 * noise, atol=0.01)


@pytest.mark.parametrize("name", ["digits-and-clothes", "shapes"])
def test_the_sampler_asks_what_the_classifier_asks(name, rng):
    """The classifier's error is the mean square of prediction - x_start, at the same (t, eps)."""
    model, asked = diffcls.load(name), ["digit two", "bag"]
    if name == "shapes":
        asked = ["a red circle", "a blue square"]
    classifier = diffcls.Classifier(model, asked, noise=rng.standard_normal((2, *model.shape)).astype(np.float32))
    image = rng.integers(0, 256, (28, 28) if name != "shapes" else (32, 32, 3)).astype(np.uint8)
    x_start, denoiser = classifier.encode(image).x_start, classifier.denoiser
    table = classifier.error_table([image], policy=diffcls.Race(timesteps=[300, 700]))
    places = np.array([denoiser.class_names.index(prompt) for prompt in asked])
    for s in range(2):
        t, eps = int(table.trials["timestep"][s]), classifier.noise[int(table.trials["noise_index"][s])]
        x_t = (denoiser.schedule.alpha[t] * x_start + denoiser.schedule.sigma[t] * eps).astype(np.float32)
        predicted = samples.predicted(denoiser, torch.from_numpy(np.stack([x_t, x_t])), t, places).numpy()
        np.testing.assert_allclose(((predicted - x_start) ** 2).mean((1, 2, 3)), table.errors[0, :, s], rtol=1e-4)


def test_a_sample_does_not_depend_on_those_beside_it():
    model = diffcls.load()
    three = samples.ddim(model, np.array([3, 5, 7]), n_steps=5, seed=9)
    np.testing.assert_array_equal(three[:2], samples.ddim(model, np.array([3, 5]), n_steps=5, seed=9))
    assert not np.array_equal(three, samples.ddim(model, np.array([3, 5, 7]), n_steps=5, seed=10))


# ---- features --------------------------------------------------------------------------------------------------------


def test_the_last_blocks_features_are_what_the_prediction_is_made_of(rng):
    x_start = tasks.prepared(tasks.clean(SMALL)[0].images[:3])
    activations = features.Activations(0)
    found, module, schedule = activations.of(x_start, 200), activations.module, activations.denoiser.schedule
    eps = np.stack([activations._noise(picture) for picture in x_start])
    x_t = torch.from_numpy((schedule.alpha[200] * x_start + schedule.sigma[200] * eps).astype(np.float32))
    t, cond = torch.full((3,), 200), activations.no_class.expand(3, -1)
    with torch.no_grad():
        tokens = torch.from_numpy(found[-1]).reshape(3, 16, -1)
        made = module._unpatchify(module.final_layer(tokens, module.t_embedder(t) + cond))
        torch.testing.assert_close(made, module(x_t, t, cond))
    assert len(found) == len(module.blocks) == 6 and not np.allclose(found[0], found[1])


def test_the_probe_is_the_best_on_validation_pictures():
    probe, judged = features.fit(SMALL), tasks.validation(SMALL, SMALL.probe_validation)
    score = probe.estimator.score(probe.features(list(judged.images)), judged.labels)
    assert probe.facts["validation accuracy"] == score
    assert probe.timestep in SMALL.probe_timesteps and probe.facts["block"] == probe.block + 1
    taught = tasks.training(SMALL, 2 * SMALL.probe_training)
    others = features._candidates(probe.activations, SMALL.probe_timesteps, taught, judged)
    assert score == max(accuracy for accuracy, *_ in others)


# ---- contrastive models ----------------------------------------------------------------------------------------------


def tiny_clip(folder, kind):
    """A folder with random weights as a user has one, and its logits asked directly: (images, texts) to (N, K)."""
    import transformers as tf

    from diffcls.models.shapes_model import tokenizer

    words = tokenizer()
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(words), "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 0}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    torch.manual_seed(1)
    if kind == "clip":
        text |= {"eos_token_id": words.eos_token_id, "projection_dim": 16}
        model = tf.CLIPModel(
            tf.CLIPConfig(text_config=text, vision_config=vision | {"projection_dim": 16}, projection_dim=16)
        )
        processor = tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    else:
        model = tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision))
        processor = tf.SiglipImageProcessor(size={"height": 32, "width": 32})
    for weights in model.parameters():  # large enough that pictures are told apart
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.5)
    words.model_max_length = 64
    for part in (model.eval(), words, processor):
        part.save_pretrained(folder)

    @torch.no_grad()
    def logits(images, texts):
        pixels = processor([contrastive.rgb(image) for image in images], return_tensors="pt")
        padding = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
        tokens = words(texts, return_tensors="pt", **padding)
        return model(**tokens, **pixels).logits_per_image.numpy()

    return logits


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_models_of_transformers_answer_as_their_own_logits(kind, tmp_path):
    logits = tiny_clip(tmp_path, kind)
    task = questions.one_thing("t", "training", questions.TRAINING_KINDS, 12, seed=0)
    system = contrastive.of_transformers(str(tmp_path))
    texts = list(task.candidates[0])
    expected = logits(task.images, texts)
    assert np.ptp(expected, axis=0).max() > 0.01 and np.ptp(expected, axis=1).max() > 0.01
    np.testing.assert_allclose(system.similarities(task.images, texts), expected, atol=1e-5)
    np.testing.assert_array_equal(system.answer(task, tmp_path).prediction, expected.argmax(axis=1))
    assert system.facts["training pictures"] is None and system.facts["parameters"] > 1000


def test_open_clip_answers_as_its_own_encoders(tmp_path):
    try:
        import open_clip
    except (ImportError, RuntimeError):
        with pytest.raises(diffcls.MissingExtraError, match="torchvision that fits PyTorch"):
            contrastive.of_open_clip("ViT-B-32", None)
        return
    config = {
        "embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }  # fmt: skip
    (tmp_path / "tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-for-tests")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    system = contrastive.of_open_clip("tiny-for-tests", str(tmp_path / "weights.pt"))
    task = questions.one_thing("t", "training", questions.TRAINING_KINDS, 12, seed=0)
    with torch.no_grad():
        pixels = torch.stack([preprocess(contrastive.rgb(image)) for image in task.images])
        of_pictures, of_texts, _ = model.eval()(pixels, open_clip.tokenize(list(task.candidates[0])))
        expected = (of_pictures @ of_texts.T).argmax(dim=1).numpy()
    np.testing.assert_array_equal(system.answer(task, tmp_path).prediction, expected)


def test_the_small_clip_is_resumed_and_asked_by_its_own_preference(tmp_path):
    first = contrastive.of_shapes(SMALL, tmp_path)
    again = contrastive.of_shapes(SMALL, tmp_path)
    task = questions.binding("things swapped", questions.Caption.swapped, 8)
    scores = [s.similarities(task.images, list(task.candidates[0])) for s in (first, again)]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(first.answer(task, tmp_path).prediction, again.answer(task, tmp_path).prediction)
    assert first.facts["training pictures"] == 8


def test_prompts_of_digits_are_the_papers():
    task = tasks.clean(SMALL)[0]
    assert task.prompts(task.candidates[0])[2] == "a photo of the number: 'two'."


# ---- questions and shifts --------------------------------------------------------------------------------------------


def test_each_cue_speaks_for_one_candidate():
    task = questions.cue_conflict(60, seed=0)
    truth = {str(caption) for caption in map(questions.shapes.parse, questions.TEST_KINDS)}
    assert set(np.bincount(task.labels)) != {60} and not {name for pair in task.candidates for name in pair} & truth
    scenes = questions.shapes.sample(np.random.default_rng((0, 13)), 60, "test", alone=1.0)
    for caption, pair, label in zip(scenes.captions(), task.candidates, task.labels, strict=True):
        kinds = [questions.shapes.parse(name).first for name in pair]
        assert kinds[label].shape == caption.first.shape and kinds[label].colour != caption.first.colour
        assert kinds[1 - label].colour == caption.first.colour and kinds[1 - label].shape != caption.first.shape


def test_a_thing_alone_is_named_right():
    for name, split, names in (("a", "training", questions.TRAINING_KINDS), ("b", "test", questions.TEST_KINDS)):
        task = questions.one_thing(name, split, names, 30, seed=2)
        for image, asked, label in zip(task.images, task.candidates, task.labels, strict=True):
            colour = np.array(questions.shapes.COLOURS[asked[label].split()[1]], float)
            ink = image.reshape(-1, 3)[image.reshape(-1, 3).max(1).argmax()].astype(float)
            assert ink @ colour / np.linalg.norm(ink) / np.linalg.norm(colour) > 0.99


def test_the_stream_of_kinds_is_labelled_as_the_task(rng):
    x_start, labels = questions.KindStream(0).take(3, 16)
    scenes = questions.shapes.sample(np.random.default_rng((0, 17, 3)), 16, "training", alone=1.0)
    assert [questions.TRAINING_KINDS[k] for k in labels] == [str(caption) for caption in scenes.captions()]
    np.testing.assert_allclose(
        x_start.permute(0, 2, 3, 1).numpy(), questions.shapes.draw(scenes) / 127.5 - 1.0, atol=1e-6
    )


@pytest.fixture
def picture(rng):
    return ndimage.gaussian_filter(rng.random((28, 28)), 2.0)


def test_blur_is_scipys(picture, rng):
    np.testing.assert_allclose(
        shifts.blur(picture, rng), ndimage.gaussian_filter(picture, 1.5, mode="nearest"), atol=1e-6
    )


def test_rotation_is_scipys(picture):
    picture = np.pad(picture[6:-6, 6:-6], 6)  # the two differ in what lies beyond the border
    for seed in range(4):
        side = np.random.default_rng(seed).choice([-1.0, 1.0])
        expected = ndimage.rotate(picture, 30.0 * side, reshape=False, order=1, mode="constant")
        np.testing.assert_allclose(shifts.rotation(picture, np.random.default_rng(seed)), expected, atol=1e-6)


def test_shear_moves_each_row_by_half_its_height(picture):
    side = np.random.default_rng(5).choice([-1.0, 1.0])
    columns = np.arange(28.0)
    expected = [
        np.interp(columns + 0.5 * side * (y - 13.5), columns, row, left=np.nan, right=np.nan)
        for y, row in enumerate(picture)
    ]
    got = shifts.shear(picture, np.random.default_rng(5))
    inside = np.isfinite(expected)
    np.testing.assert_allclose(got[inside], np.array(expected)[inside], atol=1e-6)
    assert inside.mean() > 0.6


def test_noise_has_the_moments_that_it_says():
    grey = np.full((400, 400), 0.4)
    grey[0] = np.linspace(0, 1, 400)  # all sixteen levels are there
    shot = shifts.shot_noise(grey, np.random.default_rng(0))[1:]
    np.testing.assert_allclose([shot.mean(), shot.var()], [0.4, 0.4 / 16], rtol=0.03)
    impulse = shifts.impulse_noise(np.full((400, 400), 0.4), np.random.default_rng(0))
    assert [round(float((impulse == value).mean()), 2) for value in (0.0, 0.4, 1.0)] == [0.05, 0.9, 0.05]


def test_edges_of_a_square_are_its_border():
    square = np.pad(np.ones((12, 12)), 8)
    found = shifts.edges(square, None)
    rows, columns = np.nonzero(found)
    assert set(np.unique(found)) == {0.0, 1.0}
    distance = np.maximum(abs(rows - 13.5), abs(columns - 13.5))
    assert 30 < len(rows) < 60 and (abs(distance - 6.0) <= 1.0).all()


def test_a_corruption_keeps_question_and_label_and_is_repeatable():
    task = tasks.clean(SMALL)[1]
    for name in shifts.SHIFTS:
        changed = shifts.corrupted(task, name, 0)
        assert changed.group == task.group and changed.candidates == task.candidates and changed.digest != task.digest
        np.testing.assert_array_equal(changed.labels, task.labels)
        assert changed.digest == shifts.corrupted(task, name, 0).digest
        assert {image.dtype for image in changed.images} == {np.dtype(np.uint8)}


def test_optical_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    task, found = shifts.optical_digits(SMALL), load_digits()
    rows = np.random.default_rng(SMALL.seed).permutation(len(found.target))[:6]
    np.testing.assert_array_equal(task.labels, found.target[rows])
    np.testing.assert_allclose(np.stack(task.images) / 255 * 16, found.images[rows], atol=0.04)


# ---- robustness ------------------------------------------------------------------------------------------------------


def answers(shares, n, rng):
    return np.array([rng.permutation(np.arange(n) < round(share * n)) for share in shares])


def test_the_line_is_that_of_linregress(rng):
    clean, shifted = rng.uniform(0.6, 0.99, 6), rng.uniform(0.3, 0.9, 6)
    standard = np.array([True, True, True, True, False, False])
    fit = stats.linregress(special.logit(clean[standard]), special.logit(shifted[standard]))
    expected = special.expit(fit.slope * special.logit(clean) + fit.intercept)
    np.testing.assert_allclose(robustness.expected(clean, shifted, standard, 10**9), expected, rtol=1e-9)


def test_systems_on_the_line_have_no_effective_robustness(rng):
    n, standard = 2000, np.array([True, True, True, True, False])
    clean = special.expit(np.array([0.5, 1.0, 1.5, 2.5, 2.0]))
    shifted = special.expit(special.logit(clean) - 1.0)
    shifted[-1] += 0.05
    found = robustness.robustness(
        answers(clean, n, rng), answers(shifted, n, rng)[:, None], standard, paired=False, seed=0
    )
    np.testing.assert_allclose(found.effective, [0, 0, 0, 0, 0.05], atol=0.002)
    assert (found.effective_low < found.effective).all() and (found.effective < found.effective_high).all()
    assert found.effective_low[-1] > 0.01


def test_the_mean_over_shifts_has_the_bootstraps_interval(rng):
    right = rng.random((1, 300)) < 0.8
    shifted = np.stack([right, right & (rng.random((1, 300)) < 0.7)], axis=1)
    found = robustness.robustness(right, shifted, np.array([False]), paired=True, seed=3)
    oracle = stats.bootstrap((shifted[0].mean(0),), np.mean, method="percentile", rng=rng).confidence_interval
    np.testing.assert_allclose([found.shifted_low[0], found.shifted_high[0]], oracle, atol=0.006)
    assert np.isnan(found.effective[0])


def test_pairs_are_resampled_together(rng):
    """Where the shift changes nothing, no resample sees a difference between the two."""
    clean = rng.random((4, 200)) < np.array([0.6, 0.7, 0.8, 0.9])[:, None]
    standard = np.array([True, True, True, False])
    together = robustness.robustness(clean, clean[:, None], standard, paired=True, seed=0)
    np.testing.assert_allclose([together.effective_low, together.effective_high], 0.0, atol=1e-9)
    apart = robustness.robustness(clean, clean[:, None], standard, paired=False, seed=0)
    assert (apart.effective_high - apart.effective_low > 0.02).all()


def test_resamples_without_a_line_are_left_out(rng):
    clean = answers([0.90, 0.91, 0.92, 0.9], 100, rng)
    found = robustness.robustness(clean, clean[:, None], np.array([True, True, True, False]), paired=False, seed=0)
    assert np.isfinite(found.effective_low).all() and np.isfinite(found.effective_high).all()


def test_few_standard_systems_make_no_line(rng):
    clean = answers([0.5, 0.7, 0.7, 0.9], 100, rng)
    found = robustness.robustness(clean, clean[:, None], np.array([True, True, True, False]), paired=True, seed=0)
    assert np.isnan(found.expected).all() and np.isfinite(found.shifted_low).all()
