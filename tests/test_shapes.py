"""The model ``shapes``: pictures and captions agree, kinds stay held out, training resumes, the shipped folder answers."""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import pytest

import diffcls
from diffcls.models import shape_pictures as shapes
from diffcls.models.shape_pictures import COLOURS, KINDS, RELATIONS, Caption, Kind, Scenes

RED_CIRCLE, BLUE_SQUARE = Kind("red", "circle"), Kind("blue", "square")
TRUE, SWAPPED = "a red circle left of a blue square", "a blue square left of a red circle"


def scene(kinds, centres, vertical=False, radius=5.0):
    n_things = len(kinds)
    kind = [KINDS.index(k) for k in (kinds * 2)[:2]]
    centre = (centres * 2)[:2]
    return Scenes(
        np.array([kind]),
        np.array([vertical]),
        np.array([centre], float),
        np.full((1, 2), radius),
        np.ones((1, 2)),
        np.zeros(1),
        np.array([n_things]),
    )


def centres_of(picture, colour):
    """Mean (x, y) of the pixels nearest to a colour: found in the picture, not in the scene."""
    palette = np.array([(0, 0, 0), *COLOURS.values()], float)
    unit = palette / np.maximum(1, np.linalg.norm(palette, axis=1, keepdims=True))
    level = np.linalg.norm(picture.astype(float), axis=-1)
    saturation = picture.max(-1).astype(int) - picture.min(-1)
    lit = (saturation > 60) if colour != "white" else (saturation < 12) & (level > 250)
    own = (picture / np.maximum(level, 1)[..., None]) @ unit.T
    rows, columns = np.nonzero(lit & (own.argmax(-1) == 1 + list(COLOURS).index(colour)))
    return columns.mean() + 0.5, rows.mean() + 0.5


# ---- drawing and captions --------------------------------------------------------------------------------------------


def test_areas_are_those_of_geometry():
    r = 5.0
    wanted = {
        "circle": np.pi * r**2,
        "square": (1.7 * r) ** 2,
        "diamond": 2 * r**2,
        "ring": np.pi * r**2 * (1 - 0.5**2),
        "triangle": 0.5 * (2 * 0.95 * r) * (1.8 * r),
        "cross": r**2 * (2 * 1.9 * 0.66 - 0.66**2),
    }
    for shape, area in wanted.items():
        picture = shapes.draw(scene([Kind("white", shape)], [(15.3, 16.8)]))[0].astype(float)
        assert picture.sum() / (3 * 240) == pytest.approx(area, rel=0.04), shape


def test_captions_are_true_of_the_pixels(rng):
    drawn = shapes.sample(rng, 200, "training")
    for picture, caption in zip(shapes.draw(drawn), drawn.captions(), strict=True):
        for said in (caption, caption.reversed()):
            (x, y), (x2, y2) = (centres_of(picture, kind.colour) for kind in (said.first, said.second))
            gain = {"left of": x2 - x, "right of": x - x2, "above": y2 - y, "below": y - y2}[said.relation]
            across = abs(y2 - y) if said.relation in ("left of", "right of") else abs(x2 - x)
            assert gain > 6 and gain > across + 1, said


def test_things_stay_inside_and_apart(rng):
    drawn = shapes.sample(rng, 2000, alone=0.2, alike=True)
    two = drawn.n_things == 2
    edge = np.minimum(drawn.centre, shapes.SIZE - drawn.centre).min(-1) - drawn.radius
    assert edge[two].min() > 0 and edge[:, 0].min() > 0
    apart = np.abs(drawn.centre[:, 1] - drawn.centre[:, 0]).max(-1) - drawn.radius.sum(1)
    assert apart[two].min() >= shapes.GAP - 1e-9


def test_captions_parse_back():
    for caption in (Caption(RED_CIRCLE), Caption(Kind("orange", "ring"), "below", BLUE_SQUARE)):
        assert shapes.parse(str(caption)) == caption
    assert str(Caption(Kind("orange", "ring"))) == "an orange ring" and str(shapes.parse(TRUE).swapped()) == SWAPPED
    assert str(shapes.parse(TRUE).reversed()) == "a blue square right of a red circle"
    assert str(shapes.parse(TRUE).colours_exchanged()) == "a blue circle left of a red square"
    assert [str(Caption(RED_CIRCLE, r, BLUE_SQUARE).reversed().reversed()) for r in RELATIONS] == [
        str(Caption(RED_CIRCLE, r, BLUE_SQUARE)) for r in RELATIONS
    ]
    for text in ("a red cat", "red circle", "a red circle near a blue square", ""):
        with pytest.raises(diffcls.InputError, match="is no caption"):
            shapes.parse(text)


def test_splits_share_nothing_and_training_knows_every_word():
    sets = {split: set(shapes.kinds(split).tolist()) for split in shapes.SPLITS}
    assert sum(map(len, sets.values())) == len(set().union(*sets.values())) == shapes.N_KINDS
    assert len(sets["test"]) == len(sets["validation"]) == 8
    known = [KINDS[i] for i in sets["training"]]
    assert {k.colour for k in known} == set(COLOURS) and {k.shape for k in known} == set(shapes.SHAPES)
    with pytest.raises(diffcls.InputError, match="split is 'train'"):
        shapes.kinds("train")


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_held_out_kinds_are_in_no_training_picture_or_caption():
    train_shapes = trainer_module()
    allowed = {KINDS[i] for i in shapes.kinds("training")}
    rng = np.random.default_rng(0)
    for step in range(20):
        _, captions = train_shapes.Batches(0).take(step, 64)
        for caption in captions:
            false = train_shapes.false_captions(caption, rng)
            named = [kind for c in (caption, *false) for kind in (c.first, c.second) if kind]
            assert set(named) <= allowed
            assert len(false) == 2 and not {caption, caption.second and caption.reversed()} & set(false)


@pytest.mark.torch
def test_a_run_that_was_cut_ends_on_the_same_bits(tmp_path):
    torch = pytest.importorskip("torch")
    train_shapes = trainer_module()
    from diffcls.models.train import train

    torch.set_num_threads(1)
    options = {
        "generative_steps": 3, "discriminative_steps": 3, "discriminative": 0.2, "batch": 8, "lr": 1e-3, "seed": 5,
        "width": 32, "depth": 1, "patch": 8, "text_width": 16, "compile": False, "checkpoint_every": 1e9, "log_every": 100,
    }  # fmt: skip

    def run(folder, cut):
        given = argparse.Namespace(**options, out=str(tmp_path / folder))
        trainer, batches = train_shapes.ShapesTrainer(given), train_shapes.Batches(given.seed)
        if cut:
            taken = batches.take
            batches.take = lambda step, size: (
                (_ for _ in ()).throw(KeyboardInterrupt) if step == 4 else taken(step, size)
            )
            given.checkpoint_every = -1.0  # after every step
            with pytest.raises(KeyboardInterrupt):
                train(given, trainer, batches)
            return run(folder, False)
        train(given, trainer, batches)
        return torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)

    whole, resumed = run("whole", False), run("cut", True)
    assert whole["step"] == resumed["step"] == 6
    for part in ("model", "ema"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), name
    fresh = train_shapes.ShapesTrainer(argparse.Namespace(**options, out="")).model.state_dict()
    assert any(not torch.equal(tensor, fresh[name]) for name, tensor in whole["model"].items())


@pytest.mark.torch
def test_the_exported_folder_is_the_trained_network(tmp_path):
    torch = pytest.importorskip("torch")
    trainer_module()
    from diffcls.models.export_shapes import save_pipeline
    from diffcls.models.shapes_model import ShapesModel, read, tokenizer

    torch.manual_seed(0)
    model = ShapesModel(width=32, depth=1, patch=8, text_width=16).eval()
    torch.nn.init.normal_(model.transformer.proj_out.weight)
    rounded = copy.deepcopy(model)
    rounded.load_state_dict({name: tensor.half() for name, tensor in model.state_dict().items()})
    save_pipeline(model, tmp_path / "pipe")
    denoiser = diffcls.load(str(tmp_path / "pipe"))
    assert denoiser.shape == (3, 32, 32) and denoiser.prediction_type == "sample" and denoiser.schedule.is_discrete
    x_t, t = torch.randn(2, 3, 32, 32), torch.tensor([10, 900])
    conditions = denoiser.with_prompts([TRUE, "an Orange ring"]).conditions
    with torch.no_grad():
        wanted = rounded(x_t, t, *read(tokenizer(), [TRUE, "an orange ring"]))
    torch.testing.assert_close(denoiser.predict(x_t, t, conditions), wanted, rtol=1e-5, atol=1e-5)


def trainer_module():
    for name in ("torch", "diffusers", "transformers", "tokenizers", "scipy"):
        pytest.importorskip(name)
    from diffcls.models import train_shapes

    return train_shapes


# ---- the shipped model -----------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_the_shipped_model_tells_swapped_captions_apart(rng):
    for name in ("torch", "diffusers", "transformers"):
        pytest.importorskip(name)
    assert set(shapes.parse(TRUE)[::2]) <= {KINDS[i] for i in (*shapes.kinds("test"), *shapes.kinds("training"))}
    left = shapes.draw(scene([RED_CIRCLE, BLUE_SQUARE], [(8, 15), (23, 17)]))[0]
    right = shapes.draw(scene([BLUE_SQUARE, RED_CIRCLE], [(8, 15), (23, 17)]))[0]
    results = diffcls.classify([left, right, left[:, ::-1]], [TRUE, SWAPPED], model="shapes")
    assert results.label == [TRUE, SWAPPED, SWAPPED]
    drawn = shapes.sample(rng, 6, "test")
    for picture, caption in zip(shapes.draw(drawn), drawn.captions(), strict=True):
        asked = [str(caption.swapped()), str(caption)]
        assert diffcls.classify(picture, asked, model="shapes", policy=diffcls.Fixed(16)).label == str(caption)


@pytest.mark.torch
def test_words_that_it_does_not_know_are_refused():
    for name in ("torch", "diffusers", "transformers"):
        pytest.importorskip(name)
    picture = shapes.draw(scene([RED_CIRCLE], [(16, 16)]))[0]
    with pytest.raises(diffcls.UnknownClassError, match="has the word 'cat'; 'shapes' knows: a, above, an"):
        diffcls.classify(picture, ["a red circle", "a red cat"], model="shapes")
    with pytest.raises(diffcls.InputError, match="takes any text, so it must be told the classes"):
        diffcls.classify(picture, model="shapes")


def test_it_is_listed():
    (entry,) = [model for model in diffcls.models() if model["name"] == "shapes"]
    assert entry["bytes"] < 8_000_000 and "circle" in entry["words"] and not entry["classes"] and entry["licence"]
    assert entry["accuracy"]["test kinds, things swapped, Race()"] >= 0.9


@pytest.mark.torch
def test_its_card_and_its_figures_are_of_these_weights():
    pytest.importorskip("diffusers")
    folder = Path(diffcls.models.__file__).parent
    digest = diffcls.load("shapes").digest
    assert json.loads((folder / "shapes.measured.json").read_text())["weights"] == digest
    assert digest in (folder / "shapes.md").read_text()
