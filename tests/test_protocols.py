"""The paper's rows as data, and half-precision coefficients against PyTorch's."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import diffcls
from diffcls import Schedule, policies

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "published-defects.md"

# name, loss, prompt of the word "W", classes, evaluations an image: the published commands and prompt files
ROWS = [
    ("cifar10", "l1", "a blurry photo of a W.", 10, 2_750),
    ("stl10", "l1", "a photo of a W.", 10, 3_000),
    ("pets", "l1", "a photo of a W, a type of pet.", 37, 2_050),
    ("flowers", "l1", "a photo of a W, a type of flower.", 102, 5_590),
    ("food", "l2", "a photo of W, a type of food.", 101, 5_570),
    ("aircraft", "l2", "a photo of a W, a type of aircraft.", 100, 5_550),
    ("objectnet", "l2", "a photo of a W.", 113, 14_400),
    ("imagenet", "l2", "a photo of a W.", 1000, 124_500),
    ("dit", "l2", None, 1000, 250_000),
]


def denoiser_of(prompts, schedule=None):
    """Its classes are whole prompts, as a text-to-image model's are; each has another, constant eps."""
    level = np.linspace(0.5, 1.5, len(prompts), dtype=np.float32)
    return diffcls.Denoiser(
        lambda x_t, t, cond: np.repeat(level[cond, None], 3, axis=1),
        shape=(3,),
        schedule=schedule or Schedule.scaled_linear(),
        class_names=prompts,
    )


@pytest.mark.parametrize(("name", "loss", "prompt", "n_classes", "n_evals"), ROWS)
def test_rows(name, loss, prompt, n_classes, n_evals):
    row = diffcls.protocol(name)
    assert (row.name, row.policy) == (name, policies.paper(name))
    assert (row.loss, row.n_classes, row.n_evals) == (loss, n_classes, n_evals)
    assert (row.template and row.template.replace("{}", "W")) == prompt
    latent, dtype = ((4, 32, 32), "float32") if name == "dit" else ((4, 64, 64), "float16")
    assert (row.latent_shape, row.resolution, row.dtype) == (latent, 8 * latent[1], dtype)
    assert row.images.startswith(
        {"objectnet": "the 113", "imagenet": "4 val", "dit": "a subset"}.get(name, "test split")
    )
    assert row.metrics == ("top-1 accuracy", "mean per-class accuracy")
    three = dataclasses.replace(row, n_classes=3)  # fewer classes than a stage keeps: all of them go on
    assert three.n_evals == 3 * max(row.policy.n_samples)
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.loss = "huber"


@pytest.mark.parametrize(("name", "loss", "prompt", "n_classes", "n_evals"), ROWS)
def test_options_make_the_row(name, loss, prompt, n_classes, n_evals):
    """Classifier(model, class_names, **options) asks the row's prompts, with its policy and loss, unweighted."""
    row, words = diffcls.protocol(name), [f"word {i}" for i in range(n_classes)]
    model = denoiser_of([prompt.replace("W", word) for word in words] if prompt else words, row.schedule())
    model.weighting = np.linspace(0.1, 1.0, 1000)  # a model's own weighting is not the paper's
    classifier = diffcls.Classifier(model, words, batch_size=5000, **row.options())
    result = classifier(np.zeros(3, np.float32))
    assert result.classes == words and result.n_evals == n_evals
    run = result.run
    assert (run["loss"], run["weighting"], run["policy"]["nested"]) == (loss, "uniform", False)
    assert run["templates"] == (None if prompt is None else repr(row.template))
    again = diffcls.classify(
        np.zeros(3, np.float32),
        model=model,
        policy=policies.paper(name),
        loss=loss,
        weighting="uniform",
        batch_size=5000,
    )
    np.testing.assert_array_equal(result.losses, again.losses)


def test_templates_are_applied_as_they_stand():
    row = diffcls.protocol("cifar10")
    model = denoiser_of(["a blurry photo of a airplane.", "a blurry photo of a bird."])
    assert diffcls.Classifier(model, ["airplane", "bird"], **row.options()).classes == ["airplane", "bird"]
    with pytest.raises(ValueError, match="'a blurry photo of a an airplane.' is not a class"):
        diffcls.Classifier(model, ["an airplane", "bird"], **row.options())


def test_words_that_differ_from_labels_are_a_mapping():
    """Pets: the label is the breed, the word has its species."""
    words = {"abyssinian": "Abyssinian cat", "basset hound": "Basset Hound dog"}
    model = denoiser_of(
        ["a photo of a Abyssinian cat, a type of pet.", "a photo of a Basset Hound dog, a type of pet."]
    )
    classifier = diffcls.Classifier(model, words, **diffcls.protocol("pets").options())
    assert classifier.classes == ["abyssinian", "basset hound"]


def test_two_classes_with_one_name_are_told_apart_by_id():
    """ImageNet's "missile" and "sunglasses"."""
    model = denoiser_of(["missile", "tench", "missile"])
    with pytest.raises(ValueError, match="two of the model's classes are named 'missile'; give a mapping"):
        diffcls.Classifier(model)
    with pytest.raises(ValueError, match="'missile' is the name of classes 0, 2; say which id"):
        diffcls.Classifier(model, ["missile", "tench"])
    classes = {"missile (657)": 0, "tench": 1, "missile (744)": 2}
    assert diffcls.Classifier(model, classes).arms.conditions.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="'a photo of a missile.' is the name of classes 0, 1"):
        diffcls.Classifier(
            denoiser_of(["a photo of a missile."] * 2), ["missile"], **diffcls.protocol("imagenet").options()
        )


def test_a_name_is_not_a_synonym_of_another():
    model = denoiser_of(["tench", "goldfish"])
    model.synonyms = {"tench": ["goldfish", "fish"]}
    assert diffcls.Classifier(model, ["goldfish", "fish"]).arms.conditions.tolist() == [1, 0]


def test_unknown_row():
    with pytest.raises(ValueError, match="the paper has no setting 'cifar100'; there are cifar10, .* imagenet, dit"):
        diffcls.protocol("cifar100")


def test_schedules():
    roots = np.linspace(0.00085**0.5, 0.012**0.5, 1000)
    np.testing.assert_allclose(diffcls.protocol("food").schedule().alpha ** 2, np.cumprod(1 - roots**2), rtol=1e-12)
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(diffcls.protocol("dit").schedule().alpha ** 2, np.cumprod(1 - betas), rtol=1e-12)
    half = diffcls.protocol("food").schedule(half_precision=True)
    np.testing.assert_array_equal(half.sigma, Schedule.scaled_linear().half_precision().sigma)
    with pytest.raises(ValueError, match="row 'dit' was run in float32"):
        diffcls.protocol("dit").schedule(half_precision=True)


# ---- half precision --------------------------------------------------------------------------------------------------


def test_half_precision_is_off_by_what_was_published():
    exact, half = Schedule.scaled_linear(), Schedule.scaled_linear().half_precision()
    off = half.sigma / exact.sigma - 1
    np.testing.assert_allclose(off[:3], [0.072, -0.073, -0.024], atol=5e-4)
    assert np.count_nonzero(np.abs(off[:12]) > 0.01) == 8
    assert np.flatnonzero(np.abs(off) > 0.001).max() == 118
    assert np.abs(off).mean() == pytest.approx(5e-4, abs=0.5e-4)
    np.testing.assert_array_equal(half.time, exact.time)
    assert half.is_discrete


@pytest.mark.torch
def test_half_precision_is_pytorchs():
    torch = pytest.importorskip("torch")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    half = torch.cumprod(1 - betas, 0).half()
    schedule = Schedule.scaled_linear().half_precision()
    np.testing.assert_array_equal(schedule.alpha, (half**0.5).double())
    np.testing.assert_array_equal(schedule.sigma, ((1 - half) ** 0.5).double())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule.flow(10), "needs a schedule with"),
        (Schedule.edm([0.1, 1.0]), "needs a schedule with"),
        (Schedule.linear(), "not monotone"),
    ],
)
def test_half_precision_of_other_schedules_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        schedule.half_precision()


# ---- the page of defects ---------------------------------------------------------------------------------------------


def test_an_image_is_encoded_once():
    encoded = []

    def encode(image):
        encoded.append(image.shape)
        return image.mean(axis=(0, 1))

    model = denoiser_of([str(i) for i in range(20)])
    model.encode = encode
    diffcls.classify(np.zeros((4, 4, 3), np.float32), model=model, policy=policies.paper("dit"))
    assert encoded == [(4, 4, 3)]


@pytest.mark.skipif(not PAGE.exists(), reason="the tests are not in a whole checkout")
def test_every_defect_has_a_position_and_its_tests_exist():
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\| \d+ \|.*", PAGE.read_text(), re.M)
    ]
    assert [int(row[0]) for row in rows] == list(range(1, 25))
    tests = {
        name
        for path in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    for number, _, kind, _, shown in rows:
        assert kind in {"switch", "corrected", "does not arise"}, number
        named = re.findall(r"`(test_\w+)`", shown)
        assert set(named) <= tests, number
        assert named or kind == "does not arise", number
