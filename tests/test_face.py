"""Results in their several forms, the registry, the command line, and what an import costs."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import diffcls
from diffcls import cli
from diffcls.errors import UnknownClassError
from diffcls.models import demo_pictures


@pytest.fixture(scope="module")
def results():
    return diffcls.classify(demo_pictures.load()[0][:3])


def test_result_forms(results):
    one = results[1]
    ranked = one.to_list()
    assert len(ranked) == 20 and ranked[0] == {"label": one.label, "score": pytest.approx(one.probabilities.max())}
    assert [entry["score"] for entry in ranked] == sorted((entry["score"] for entry in ranked), reverse=True)
    assert one.to_list(top_k=3) == ranked[:3]
    plain = json.loads(json.dumps(one.to_dict()))
    assert plain["label"] == one.label and plain["losses"] == one.losses.tolist()
    assert one.label in repr(one) and "\n" not in repr(one)
    html = one._repr_html_()
    assert html.count("<tr") == 11 and "and 10 classes more" in html  # the head and the ten best
    assert one.label in html and len(html) < 20_000 and "<script" not in html
    assert one.probabilities.sum() == pytest.approx(1.0)


def test_results_stack(results):
    assert len(results) == 3 and results.losses.shape == (3, 20) and results.n_evals.shape == (3,)
    assert results.label == [result.label for result in results]
    np.testing.assert_array_equal(results.probabilities[2], results[2].probabilities)
    assert len(results[1:]) == 2 and results[-1].label == results.label[-1]
    assert results.to_dict()["results"][0]["index"] == results[0].index


def test_to_arrow(results):
    pytest.importorskip("pyarrow")
    table = results[0].to_arrow()
    assert table.num_rows == 20 and table["class"].to_pylist() == results.classes
    assert results.to_arrow().num_rows == 3


def test_html_is_escaped(gaussian):
    denoiser = gaussian.denoiser(class_names=["<b>", "&", "c", "d", "e"])
    text = diffcls.classify(gaussian.means[0], model=denoiser, policy=diffcls.Fixed(2))._repr_html_()
    told = replace(diffcls.classify(gaussian.means[0], model=denoiser, policy=diffcls.Fixed(2)), warnings=["<i>"])
    assert "&lt;i&gt;" in told._repr_html_() and "<i>" not in told._repr_html_()
    assert "<b><b>" not in text and "&lt;b&gt;" in text and text.count("<b>") == text.count("</b>") == 1


def shown(html):
    """The pictures of an html text, decoded."""
    image = pytest.importorskip("PIL.Image")
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_html_shows_the_picture(results):
    pictures = demo_pictures.load()[0][:3]
    np.testing.assert_array_equal(shown(results[1]._repr_html_())[0], pictures[1])
    several = results._repr_html_()
    assert len(several) < 20_000 and "<script" not in several and several.count("<tr") == 4
    np.testing.assert_array_equal(shown(several), pictures)
    assert "3 pictures" in several and str(results.n_evals[2]) in several
    assert "http" not in several.replace("data:", "")  # nothing is fetched


def test_html_of_many_classes_and_pictures():
    pictures = demo_pictures.load()[0][:14]
    several = diffcls.classify(pictures, ["7", "8"], policy=diffcls.Fixed(2))
    assert several._repr_html_().count("<img") == 12 and "and 2 pictures more" in several._repr_html_()
    assert "never told apart" in several[0]._repr_html_()
    assert several[:0]._repr_html_().count("0 pictures") == 1


def test_html_of_a_class_that_was_not_asked(results):
    listed = diffcls.Shortlist(lambda image, classes: range(len(classes)), k=3)
    classifier = diffcls.Classifier(None, ["7", "8", "1", "4"], policy=diffcls.Fixed(2), shortlist=listed)
    html = classifier(demo_pictures.load()[0][3])._repr_html_()
    assert html.count("not asked") == 1 and "nan" not in html


def test_the_picture_kept_is_small_and_the_users_stays_theirs(tmp_path):
    from diffcls.thumbnail import keep

    image = pytest.importorskip("PIL.Image")
    photo = np.full((300, 200, 3), [200, 10, 30], np.uint8)
    photo[:150] = 90
    kept = keep(photo)
    assert kept.shape == (75, 50, 3) and kept.dtype == np.uint8 and (kept[-1, -1] == [200, 10, 30]).all()
    many = np.random.default_rng(0).integers(0, 256, (192, 288), np.uint8)
    np.testing.assert_allclose(keep(many).astype(int), np.asarray(image.fromarray(many).reduce(3)), atol=1)
    large = np.tile(np.arange(2000) % 256 > 127, (3000, 1)).astype(np.uint8) * 200
    assert max(keep(large).shape) <= 96 and abs(keep(large).mean() - large.mean()) < 10
    frame = demo_pictures.load()[0][3].copy()
    result = diffcls.classify(frame, ["7", "8"], policy=diffcls.Fixed(2))
    frame[:] = 0
    assert shown(result._repr_html_())[0].max() > 200  # memory that is used again
    path = tmp_path / "a.png"
    image.fromarray(demo_pictures.load()[0][3]).save(path)
    result = diffcls.classify(path, ["7", "8"], policy=diffcls.Fixed(2))
    assert result.picture == path and len(shown(result._repr_html_())) == 1
    path.unlink()
    assert shown(result._repr_html_()) == []
    classifier = diffcls.Classifier(None, ["7", "8"], policy=diffcls.Fixed(2))
    assert next(classifier.stream([frame])).picture is None


@pytest.mark.parametrize(
    ("shape", "low", "high"), [((1, 6, 5), -1, 1), ((3, 6, 5), -3, 9), ((6, 5), 0, 1), ((6, 5), -0.5, 0.5)]
)
def test_x_start_as_a_picture(rng, shape, low, high):
    from diffcls.thumbnail import x_start_picture

    x = rng.uniform(low, high, shape).astype(np.float32)
    picture = x_start_picture(x)
    assert picture.shape == (6, 5, *(() if shape[0] != 3 else (3,)))
    scaled = x if low == 0 else (x + 1) / 2 if low >= -1 else (x - x.min()) / (x.max() - x.min())
    flat = scaled.transpose(1, 2, 0) if shape[0] == 3 else scaled.reshape(6, 5)
    np.testing.assert_allclose(picture, flat, atol=1e-6)
    assert x_start_picture(np.zeros(12, np.float32)) is None and x_start_picture(np.zeros((2, 3, 4, 5))) is None


def test_elimination_curve(results, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    display = results[0].plot()
    (step,) = [line for line in display.ax_.lines if line.get_drawstyle() == "steps-post"]
    trace = results[0].trace
    assert step.get_xdata().tolist() == [0, *(r["n_evals"] for r in trace)]
    assert step.get_ydata().tolist() == [20, *(r["n_alive"] for r in trace)]
    display.figure_.savefig(tmp_path / "curve.png")
    from matplotlib import pyplot

    pyplot.close(display.figure_)


# ---- registry and vocabulary -----------------------------------------------------------------------------------------


def test_models_are_listed():
    model, text_to_image = diffcls.models()
    assert text_to_image["name"] == "shapes"
    assert model["name"] == "digits-and-clothes" and len(model["classes"]) == 20 and model["bytes"] <= 5_000_000
    assert model["licence"] and model["accuracy"]


def test_load():
    denoiser = diffcls.load()
    assert denoiser.native is not None and diffcls.load(denoiser) is denoiser
    assert denoiser.digest == diffcls.load("digits-and-clothes").digest and len(denoiser.digest) == 64
    with pytest.raises(ValueError, match="there is no model 'imagenet'; there are: digits-and-clothes"):
        diffcls.load("imagenet")
    with pytest.raises(TypeError, match="model is int"):
        diffcls.load(3)


def test_synonyms():
    options = {"policy": diffcls.Fixed(2)}
    picture = demo_pictures.load()[0][0]
    by_name = diffcls.classify(picture, ["digit seven", "ankle boot", "T-shirt"], **options)
    for words in (["7", "boots", "tee"], ["a handwritten 7", "BOOT", "t-shirt"], ["seven", "ankle boots", "a T-shirt"]):
        result = diffcls.classify(picture, words, **options)
        assert result.classes == words
        np.testing.assert_array_equal(result.losses, by_name.losses)
    templated = diffcls.classify(picture, ["7", "8"], templates="a handwritten {}", **options)
    np.testing.assert_array_equal(templated.losses, diffcls.classify(picture, ["7", "8"], **options).losses)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["shoe", "bag"], "'shoe' may mean 'sandal', 'sneaker', 'ankle boot'; say which"),
        (["cat", "dog"], "'cat' is not a class of 'digits-and-clothes', which knows: digit zero, .*another model"),
        (["boot", "ankle boot"], "'boot' and 'ankle boot' mean the same class"),
        ({"footwear": ["boot", "ankle boot"]}, "two prompts of class 'footwear' mean the same"),
    ],
)
def test_unknown_and_ambiguous_prompts(prompts, message):
    with pytest.raises(ValueError, match=message) as caught:
        diffcls.classify(demo_pictures.load()[0][0], prompts)
    assert isinstance(caught.value, UnknownClassError) or "same" in message


def test_a_users_own_model_folder(tmp_path, monkeypatch):
    from diffcls.models.registry import folders

    source = folders()[0]
    description = json.loads((source / "digits-and-clothes.json").read_text()) | {"name": "mine"}
    (tmp_path / "mine.json").write_text(json.dumps(description))
    (tmp_path / "mine.safetensors").write_bytes((source / "digits-and-clothes.safetensors").read_bytes())
    monkeypatch.setenv("DIFFCLS_MODELS", str(tmp_path))
    assert [model["name"] for model in diffcls.models()] == ["digits-and-clothes", "shapes", "mine"]
    assert diffcls.load("mine").name == "mine"
    (tmp_path / "mine.safetensors").write_bytes(b"rubbish")
    with pytest.raises(diffcls.WeightsError, match="mine.safetensors: the weights file has 7 bytes"):
        diffcls.load("mine")
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(diffcls.WeightsError, match="lacks"):
        diffcls.load("mine")


# ---- command line ----------------------------------------------------------------------------------------------------


@pytest.fixture
def picture_file(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "seven.png"
    image.fromarray(255 - demo_pictures.load()[0][3]).resize((280, 280)).convert("RGB").save(path)
    return str(path)


def test_classify_command(picture_file, capsys):
    assert cli.main(["classify", picture_file, "--prompts", "one", "seven", "boot"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{picture_file}: seven ") and "evaluations" in out
    assert cli.main(["classify", picture_file, picture_file, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["label"] == "digit seven" and first == second
    assert cli.main(["classify", picture_file, "--full", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["n_evals"] == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "missing.png"], "there is no file missing.png"),
        (["classify", "FILE", "--prompts", "cat"], "'cat' is not a class"),
        (["classify", "FILE", "--model", "none"], "there is no model 'none'"),
        (["classify", "FILE", "--risk", "2"], "risk is 2.0"),
        (["replay", "missing.arrow"], "missing.arrow: No such file or directory"),
        (["demo", "--out", "."], "must be a file in a folder that is there"),
        (["demo", "--out", "missing/sheet.png"], "must be a file in a folder that is there"),
        (["evaluate", "FILE", "--out", "out", "--shard", "2/2"], "must be I/N with I from 0 to N - 1"),
    ],
)
def test_mistakes_are_one_line(arguments, message, picture_file, capsys):
    assert cli.main([picture_file if part == "FILE" else part for part in arguments]) == 1
    streams = capsys.readouterr()
    assert message in streams.err and streams.err.count("\n") == 1 and not streams.out


def test_usage(capsys):
    for arguments in (
        [],
        ["paint"],
        ["classify"],
        ["classify", "a.png", "--top", "x"],
        ["classify", "a.png", "--top", "0"],
        ["classify", "a.png", "--full", "0"],
        ["models", "--jsn"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        told = capsys.readouterr().err
        assert arguments or "diffcls demo" in told  # alone: what there is, and where to begin
        meant = f" {arguments[0]}" if arguments not in ([], ["paint"]) else ""
        assert f"usage: diffcls{meant} [-h]" in told
    with pytest.raises(SystemExit) as caught:
        cli.main(["classify", "--help"])
    assert caught.value.code == 0 and "--prompts" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_mistake():
    """`| head -1`: as other commands, neither a sentence nor a traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "diffcls", "models"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141 and not done.stderr


def test_info_loads_no_model():
    """A bug report is written where something is missing; PyTorch and diffusers may be that."""
    told = "import sys, json; from diffcls.info import collect; print(json.dumps(collect()['models'])); "
    loaded = "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    said = subprocess.run([sys.executable, "-c", told + loaded], check=True, capture_output=True, text=True).stdout
    assert json.loads(said)["digits-and-clothes"] == diffcls.load().digest
    assert json.loads(said)["shapes"]


def test_models_and_info(capsys):
    assert cli.main(["models"]) == 0 and "digits-and-clothes" in capsys.readouterr().out
    assert cli.main(["models", "--json"]) == 0 and json.loads(capsys.readouterr().out)[0]["licence"]
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diffcls"] == diffcls.__version__
    assert cli.main(["info"]) == 0 and "instruction sets" in capsys.readouterr().out


def test_demo(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "sheet.png"
    assert cli.main(["demo", "--out", str(out), "--json"]) == 0
    text = capsys.readouterr().out
    figures = json.loads(text.splitlines()[-1])
    assert figures["pictures"] == 48 and figures["right"] >= 40 and figures["evaluations"] * 15 < figures["full"]
    assert text.count("wrong") == 48 - figures["right"]
    assert out.read_bytes()[:4] == b"\x89PNG"


# ---- imports ---------------------------------------------------------------------------------------------------------


def imported(code):
    """Modules that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "PIL", "matplotlib", "scipy", "pyarrow", "tqdm", "jax", "cupy", "sklearn"}


def test_import_is_light():
    assert not imported("import diffcls") & (HEAVY | {"numpy"})


def test_classifying_an_array_needs_no_extra():
    code = "import diffcls, numpy\ndiffcls.classify(numpy.eye(28, dtype=numpy.uint8) * 255, policy=diffcls.Fixed(2))"
    assert not imported(code) & HEAVY


def test_public_names_exist():
    for name in diffcls.__all__:
        assert getattr(diffcls, name) is not None
    assert set(diffcls.__all__) <= set(dir(diffcls))
    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        diffcls.clasify  # noqa: B018


def test_missing_extras_are_named(monkeypatch, results):
    for module, call, extra in [
        ("pyarrow", results[0].to_arrow, "results"), ("matplotlib", results[0].plot, "plot"),
        ("PIL", lambda: diffcls.classify("a.png"), "image"),
    ]:  # fmt: skip
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"diffcls\[{extra}\]"):
            call()
