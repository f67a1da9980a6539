"""What a data set may be: each kind against the library whose kind it is."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import diffcls
from diffcls import InputError
from diffcls.errors import DTypeError, ImageError, ShapeError
from diffcls.evaluation import open_source


def picture(value, size=8):
    return Image.fromarray(np.full((size, size), value, np.uint8))


def encoded(value, kind="PNG"):
    stream = io.BytesIO()
    picture(value).save(stream, kind)
    return stream.getvalue()


def items(dataset, columns=None):
    """(id, label, the level of the picture) of each."""
    found = open_source(dataset, columns).items()
    return [(i.id, i.label() if callable(i.label) else i.label, level(i.load())) for i in found]


def level(image):
    """Of the first pixel, of a file too."""
    return int(np.asarray(Image.open(image) if isinstance(image, Path) else image).ravel()[0])


@pytest.fixture
def folder(tmp_path):
    """Two classes, nested folders, names whose order depends on how one sorts, files that are no pictures."""
    values = {"b/2.png": 1, "b/10.png": 2, "b/deep/a.png": 3, "b/Z.PNG": 4, "a/x.png": 5, "a/y.bmp": 6, "a/zz/y.png": 7}
    for name, value in values.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(value).save(path)
    (tmp_path / "images" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "images" / "a" / ".hidden.png").write_text("no picture")
    (tmp_path / "images" / ".cache").mkdir()
    (tmp_path / "images" / "readme.md").write_text("no picture")
    return tmp_path / "images", values


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_folder_by_class(folder):
    root, values = folder
    found = items(root)
    assert {id: value for id, _, value in found} == values
    assert all(label == id.split("/")[0] for id, label, _ in found)
    source = open_source(str(root))
    assert source.n_images == 7 and source.class_names == ["a", "b"]
    assert items(root) == items(root)


def test_folder_in_torchvisions_order(folder):
    torchvision = pytest.importorskip("torchvision")
    root, _ = folder
    (root / "a" / ".hidden.png").unlink()
    (root / ".cache").rmdir()
    theirs = torchvision.datasets.ImageFolder(str(root))
    assert [str(root / id) for id, _, _ in items(root)] == [path for path, _ in theirs.samples]
    assert open_source(root).class_names == theirs.classes


def test_folder_order_is_walked_and_sorted(folder):
    """As torchvision has it: each folder's own files before those of its subfolders, names by code points."""
    assert [id for id, _, _ in items(folder[0])] == [
        "a/x.png", "a/y.bmp", "a/zz/y.png", "b/10.png", "b/2.png", "b/Z.PNG", "b/deep/a.png",
    ]  # fmt: skip


def test_folder_of_pictures_alone(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    assert items(tmp_path) == [("0.png", None, 0), ("1.png", None, 1), ("2.png", None, 2)]
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="has pictures beside folders"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no picture", "cat/bad.png is not a picture that Pillow reads .its format is not known"),
        (b"", "cat/bad.png is not a picture"),
        (encoded(9)[:-30], "cat/bad.png is not a picture that Pillow reads .*(truncated|chunk|stream)"),
    ],
)
def test_unreadable_and_truncated_files_are_named(tmp_path, content, said):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "bad.png").write_bytes(content)
    (item,) = open_source(tmp_path).items()
    with pytest.raises(ImageError, match=said) as caught:
        item.load()
    assert str(tmp_path) not in str(caught.value)  # the same on every machine


def test_a_file_that_vanished_or_is_not_readable(tmp_path):
    (tmp_path / "cat").mkdir()
    picture(3).save(tmp_path / "cat" / "here.png")
    (item,) = open_source(tmp_path).items()
    (tmp_path / "cat" / "here.png").unlink()
    with pytest.raises(ImageError, match="cat/here.png is not a picture that Pillow reads .No such file or directory"):
        item.load()


def test_broken_pictures_are_rows_with_errors(tmp_path):
    """Through the embedded model: five good pictures, a cut one and one that is none."""
    from diffcls.models.demo_pictures import load

    pictures, labels = load()
    names = diffcls.load().class_names
    for i in range(5):
        where = tmp_path / "set" / names[labels[i]].replace("/", "-")
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[i]).save(where / f"{i}.png")
    (where / "cut.png").write_bytes(encoded(7)[:-30])
    (where / "text.png").write_text("text")
    mapping = {name.replace("/", "-"): name for name in names}
    classifier = diffcls.Classifier(policy=diffcls.Fixed(4))
    report = diffcls.evaluate(classifier, tmp_path / "set", out=tmp_path / "out", labels=mapping)
    assert report.n_images == 7 and {id.split("/")[1] for id, _ in report.errors} == {"cut.png", "text.png"}
    by_id = dict(zip(report.ids.to_pylist(), report.prediction, strict=True))
    for i in range(5):
        id = f"{names[labels[i]].replace('/', '-')}/{i}.png"
        assert classifier.classes[by_id[id]] == classifier(pictures[i]).label
    with pytest.raises(ImageError, match="cut.png"):
        diffcls.evaluate(classifier, tmp_path / "set", out=tmp_path / "strict", labels=mapping, strict=True)


def test_a_folder_with_classes_that_are_not_asked(tmp_path):
    (tmp_path / "dog").mkdir()
    picture(1).save(tmp_path / "dog" / "1.png")
    with pytest.raises(diffcls.UnknownClassError, match="has 1 classes that are none of the classifier's: dog"):
        diffcls.evaluate(diffcls.Classifier(), tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_arrays(tmp_path):
    x, y = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8), np.array([2, 0, 1])
    expected = [("0", 2, 0), ("1", 0, 1), ("2", 1, 2)]
    np.savez(tmp_path / "set.npz", images=x, labels=y)
    np.savez(tmp_path / "other.npz", pixels=x, truth=y)
    assert items((x, y)) == items({"image": x, "label": y}) == items(tmp_path / "set.npz") == expected
    assert items(tmp_path / "other.npz", {"image": "pixels", "label": "truth"}) == expected
    assert [label for _, label, _ in items(x)] == [None] * 3
    with pytest.raises(InputError, match="which are the images"):
        open_source(tmp_path / "other.npz")
    with pytest.raises(InputError, match="and no photo"):
        open_source(tmp_path / "other.npz", {"image": "photo"})
    with pytest.raises(ShapeError, match=r"3 images and labels of shape \(2,\)"):
        open_source((x, y[:2]))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    x = torch.arange(3, dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    assert [value for _, _, value in items((x, torch.tensor([0, 1, 2])))] == [0, 1, 2]


def test_an_array_that_is_not_finite_is_one_images_error(tmp_path):
    from evaluations import classifier, data

    x, labels = data(9)
    x[4, 1] = np.nan
    report = diffcls.evaluate(classifier(), (x, labels), out=tmp_path)
    assert [id for id, _ in report.errors] == ["4"] and "must be finite" in report.errors[0][1]
    good = [i for i in range(9) if i != 4]
    assert report.prediction[good].tolist() == classifier()(x[good]).index.tolist()


# ---- with an index ---------------------------------------------------------------------------------------------------


class Indexed:
    """As torchvision's data sets are; picture 1 can not be read."""

    classes = ["low", ("high", "tall")]

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if i == 1:
            raise OSError("image file is truncated")
        return picture(i), i % 2


def test_indexed():
    source = open_source(Indexed())
    assert source.class_names == ["low", "high"] and source.n_images == 3
    first, second, third = source.items()
    assert (first.id, first.label()) == ("0", 0) and np.asarray(third.load())[0, 0] == 2
    with pytest.raises(OSError, match="truncated"):
        second.load()


def test_indexed_with_targets_is_not_decoded_before_it_is_wanted():
    loaded = []

    class Lazy(Indexed):
        targets = [1, 0, 1]

        def __getitem__(self, i):
            loaded.append(i)
            return picture(i), self.targets[i]

    found = list(open_source(Lazy()).items())
    assert [item.label for item in found] == [1, 0, 1] and loaded == []
    found[2].load()
    assert loaded == [2]


def test_torchvisions_fake_data():
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.datasets.FakeData(size=4, image_size=(3, 8, 8), num_classes=3)
    found = list(open_source(theirs).items())
    assert [int(item.label()) for item in found] == [int(theirs[i][1]) for i in range(4)]
    assert all(np.array_equal(np.asarray(item.load()), np.asarray(theirs[i][0])) for i, item in enumerate(found))


def test_indexed_that_gives_no_pairs():
    class Wrong:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return picture(i)

    with pytest.raises(DTypeError, match=r"dataset\[0\] is .*, must be a pair"):
        list(open_source(Wrong()).items())[0].load()


# ---- iterables -------------------------------------------------------------------------------------------------------


def test_iterables(tmp_path):
    path = tmp_path / "p.png"
    picture(4).save(path)
    given = [
        picture(1),
        (picture(2), "b"),
        ("own", picture(3), 0),
        {"image": path, "label": 1},
        {"image": picture(5), "id": 7},
    ]
    assert items(iter(given)) == items(given)
    assert items(given) == [("0", None, 1), ("1", "b", 2), ("own", 0, 3), (str(path), 1, 4), ("7", None, 5)]


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ((1, 2, 3, 4), InputError, "image 0 of dataset is a tuple of 4"),
        ({"label": 1}, InputError, "image 0 of dataset has label, must have 'image'"),
        (5, DTypeError, "image 0 of dataset is 5, must be an image"),
    ],
)
def test_entries_that_are_none(entry, error, said):
    with pytest.raises(error, match=said):
        items([entry])


def test_an_iterable_is_read_only_as_far_as_needed():
    read = []

    def stream():
        for i in range(10):
            read.append(i)
            yield picture(i)

    next(open_source(stream()).items())
    assert read == [0]


# ---- Hugging Face ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hugging_face():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["low", "high"]), "key": datasets.Value("string")}
    )
    content = {"img": [picture(i) for i in range(4)], "fine": [0, 1, 1, -1], "key": list("wxyz")}
    return datasets.Dataset.from_dict(content, features)


def test_hugging_face(hugging_face):
    expected = [("0", 0, 0), ("1", 1, 1), ("2", 1, 2), ("3", None, 3)]
    assert items(hugging_face) == expected
    assert items(hugging_face.to_iterable_dataset()) == expected
    assert items(hugging_face, {"id": "key"})[1] == ("x", 1, 1)
    source = open_source(hugging_face)
    assert source.class_names == ["low", "high"] and source.n_images == 4


def test_hugging_face_of_files_and_truncated_bytes(tmp_path):
    datasets = pytest.importorskip("datasets")
    picture(6).save(tmp_path / "a.png")
    features = datasets.Features({"image": datasets.Image()})
    content = {"image": [str(tmp_path / "a.png"), {"bytes": encoded(1)[:-30], "path": None}, None]}
    found = list(open_source(datasets.Dataset.from_dict(content, features)).items())
    assert level(found[0].load()) == 6
    with pytest.raises(ImageError, match="image 1 of the data set is not a picture"):
        found[1].load()
    with pytest.raises(ImageError, match="image 2 of the data set is missing"):
        found[2].load()


def test_hugging_face_that_is_ambiguous(hugging_face):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(InputError, match="dataset has the splits 'test': give one of them"):
        open_source(datasets.DatasetDict(test=hugging_face))
    two = hugging_face.add_column("coarse", [0, 0, 0, 0]).cast_column("coarse", datasets.ClassLabel(names=["all"]))
    with pytest.raises(InputError, match="columns={'label': ...} must say which"):
        open_source(two)
    assert items(two, {"label": "coarse"})[0] == ("0", 0, 0)
    with pytest.raises(InputError, match="columns says image is 'photo', and the data set has img, fine, key"):
        open_source(hugging_face, {"image": "photo"})


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def write_parquet(path, values, **columns):
    pq.write_table(pa.table({"image": values, **columns}), path)
    return path


def test_parquet_of_bytes(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet", [encoded(i) for i in range(3)], label=["x", "y", None], id=["p", "q", "r"]
    )
    assert items(path) == [("p", "x", 0), ("q", "y", 1), ("r", None, 2)]
    assert open_source(path).n_images == 3


def test_parquet_as_hugging_face_writes_it(hugging_face, tmp_path):
    hugging_face.to_parquet(str(tmp_path / "test-00000.parquet"))
    source = open_source(tmp_path / "test-00000.parquet")  # its metadata tell the columns' kinds and the classes' names
    assert items(source) == [("0", 0, 0), ("1", 1, 1), ("2", 1, 2), ("3", None, 3)]
    assert source.class_names == ["low", "high"]


def test_parquet_folder_goes_on_counting(tmp_path):
    for part in range(3):
        write_parquet(tmp_path / f"part-{part}.parquet", [encoded(10 * part + i) for i in range(70)], label=[part] * 70)
    found = items(tmp_path)
    assert [id for id, _, _ in found] == [str(i) for i in range(210)]
    assert found[75] == ("75", 1, 15)


def test_parquet_that_is_wrong(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [encoded(1)] * 3, label=[1, 2, 3])
    with pytest.raises(InputError, match="columns says label is 'truth'"):
        open_source(path, {"label": "truth"})
    pq.write_table(pa.table({"photo": [b""]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="has columns photo: columns="):
        open_source(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="one data set has the same"):
        open_source(tmp_path)
    (tmp_path / "c.parquet").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="c.parquet is no Parquet file, or cut short"):
        open_source(tmp_path / "c.parquet")
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.parquet is damaged after 0 images"):
        items(path)
    bad = write_parquet(tmp_path / "d.parquet", [b"text", None])
    for item in open_source(bad).items():
        with pytest.raises(ImageError, match=f"image {item.id} of .*d.parquet"):
            item.load()


# ---- WebDataset ------------------------------------------------------------------------------------------------------


def test_webdataset_as_the_library_writes_and_reads_it(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i in range(4):
            writer.write({"__key__": f"deep/im.age{i}"[:5] + f"x{i}", "png": picture(i), "cls": i % 3})
    theirs = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    found = items(tmp_path / "a.tar")
    assert [id for id, _, _ in found] == [example["__key__"] for example in theirs]
    assert [label for _, label, _ in found] == [int(example["cls"]) for example in theirs]
    assert [value for _, _, value in found] == [0, 1, 2, 3]
    assert items(tmp_path) == found


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_tar_labels_and_compression(tmp_path):
    files = {
        "1.jpg": encoded(0, "JPEG"), "1.cls": b"cat\n", "2.seg.png": encoded(2), "2.json": json.dumps({"label": 4}).encode(),
        "3.png": encoded(3), "3.txt": b"a caption", "4.txt": b"no picture",
    }  # fmt: skip
    path = write_tar(tmp_path / "a.tar.gz", files, "w:gz")
    assert [(id, label) for id, label, _ in items(path)] == [("1", "cat"), ("2", 4), ("3", None)]


def test_tar_that_is_wrong(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{i}.png": encoded(i) * 40 for i in range(9)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="a.tar is cut short or no tar file, after [1-8] files"):
        items(path)
    path.write_text("no tar file at all")
    with pytest.raises(InputError, match="a.tar is cut short or no tar file, after 0 files"):
        items(path)
    write_tar(path, {"1.png": encoded(1), "1.jpg": encoded(1, "JPEG")})
    with pytest.raises(InputError, match="has 2 pictures named 1: png, jpg"):
        items(path)
    write_tar(path, {"1.png": encoded(1), "1.json": b"{"})
    with pytest.raises(InputError, match="has a label of 1 that can not be read"):
        items(path)
    write_tar(path, {"1.png": b"text"})
    (item,) = open_source(path).items()
    with pytest.raises(ImageError, match="1.png in .*a.tar is not a picture"):
        item.load()


# ---- every kind gives the same table ---------------------------------------------------------------------------------


def test_a_data_set_is_the_same_whatever_it_comes_as(tmp_path):
    from diffcls.models.demo_pictures import load

    pictures, labels = load()
    chosen = [0, 5, 24, 30, 40]
    pngs = [io.BytesIO() for _ in chosen]
    for i, stream in zip(chosen, pngs, strict=True):
        Image.fromarray(pictures[i]).save(stream, "PNG")
    content = [stream.getvalue() for stream in pngs]
    names = diffcls.load().class_names
    write_parquet(
        tmp_path / "a.parquet", content, label=[names[labels[i]] for i in chosen], id=[f"k{i}" for i in chosen]
    )
    write_tar(
        tmp_path / "a.tar",
        {
            name: data
            for i, png in zip(chosen, content, strict=True)
            for name, data in ((f"k{i}.png", png), (f"k{i}.cls", str(labels[i]).encode()))
        },
    )
    for i, png in zip(chosen, content, strict=True):
        Path(tmp_path / f"k{i}").write_bytes(png)
    given = {
        "parquet": tmp_path / "a.parquet",
        "tar": tmp_path / "a.tar",
        "arrays": [(f"k{i}", pictures[i], int(labels[i])) for i in chosen],
        "files": [{"id": f"k{i}", "image": tmp_path / f"k{i}", "label": names[labels[i]]} for i in chosen],
    }
    classifier = diffcls.Classifier(policy=diffcls.Fixed(3))
    for name, dataset in given.items():
        diffcls.evaluate(classifier, dataset, out=tmp_path / "out" / name)
    assert len({(tmp_path / "out" / name / "results.parquet").read_bytes() for name in given}) == 1


def test_a_big_folder_is_not_held_in_memory_at_once(tmp_path):
    """Names of one folder at a time: an iterator that is begun has not listed the last class."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(3):
            os.symlink("/dev/null", tmp_path / label / f"{i}.png")
    found = open_source(tmp_path).items()
    next(found)
    os.symlink("/dev/null", tmp_path / "b" / "9.png")
    assert [item.id for item in found][-1] == "b/9.png"
