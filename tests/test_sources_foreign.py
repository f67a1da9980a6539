"""Data sets as their libraries hand them over: PyTorch's wrappers, Hugging Face's formats and transforms, tables."""

import numpy as np
import pytest
from evaluations import classifier, data, results

import diffcls
from diffcls import DTypeError, InputError, ShapeError
from diffcls.evaluation.sources import open_source

NAMES = ["cow", "ant", "bee"]
"""Those of `evaluations`, in an order of their own: a number that is taken for a position among the classifier's is seen."""
N = 12


@pytest.fixture
def told(tmp_path):
    """(images, numbers among NAMES, the bytes of the table that they must give)."""
    x, labels = data(N)
    diffcls.evaluate(classifier(), (x, labels), out=tmp_path / "expected")
    return x, [NAMES.index(["ant", "bee", "cow"][label]) for label in labels], results(tmp_path / "expected")


class Torchvision:
    """As its data sets are: pairs, and `classes` that the numbers stand for."""

    classes = NAMES

    def __init__(self, x, numbers):
        self.x, self.numbers = x, numbers

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.numbers[i]


def same(dataset, expected, out, **options):
    diffcls.evaluate(classifier(), dataset, out=out, **options)
    return results(out) == expected


def test_pytorchs_wrappers_keep_the_names_of_classes(told, tmp_path):
    utils = pytest.importorskip("torch.utils.data")
    x, numbers, expected = told
    whole = Torchvision(x, numbers)
    order = np.random.default_rng(0).permutation(N).tolist()
    shuffled = utils.Subset(Torchvision(x[order], [numbers[i] for i in order]), np.argsort(order).tolist())
    assert same(shuffled, expected, tmp_path / "subset")
    assert same(utils.Subset(shuffled, range(N)), expected, tmp_path / "of a subset")
    joined = utils.ConcatDataset([utils.Subset(whole, range(5)), utils.Subset(whole, range(5, N))])
    assert same(joined, expected, tmp_path / "joined")
    other = Torchvision(x, numbers)
    other.classes = NAMES[::-1]
    with pytest.raises(InputError, match="name their classes in different ways"):
        open_source(utils.ConcatDataset([whole, other]))


def test_another_shards_images_are_not_read(told, tmp_path):
    x, numbers, expected = told
    read = []

    class Counting(Torchvision):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    for shard in range(3):
        diffcls.evaluate(classifier(), Counting(x, numbers), out=tmp_path / "out", shard=(shard, 3))
        assert read == list(range(shard, N, 3))
        read.clear()
    assert results(tmp_path / "out") == expected


def test_labels_that_are_read_with_a_broken_picture(told, tmp_path):
    x, numbers, expected = told
    broken = set()

    class Flaky(Torchvision):
        def __getitem__(self, i):
            if i in broken:
                raise OSError("truncated")
            return super().__getitem__(i)

    def run(*which, **options):
        broken.clear()
        broken.update(which)
        return diffcls.evaluate(classifier(), Flaky(x, numbers), out=tmp_path / "out", part_size=5, **options)

    assert [id for id, _ in run(3, 7).errors] == ["3", "7"]
    assert run(3, 5).n_errors == 2  # finished images are taken as they are, whether they can be read today or not
    assert run(3, retry_errors=True).n_errors == 1
    assert run(retry_errors=True).n_errors == 0
    assert results(tmp_path / "out") == expected


def test_pytorchs_tensors_as_labels(told, tmp_path):
    torch = pytest.importorskip("torch")
    x, numbers, expected = told
    pairs = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(numbers))
    names = dict(enumerate(NAMES))
    assert same(pairs, expected, tmp_path / "pairs", labels=names)
    loader = torch.utils.data.DataLoader(pairs, batch_size=None)  # gives lists
    assert same(loader, expected, tmp_path / "loader", labels=names)
    with pytest.raises(ShapeError, match="image 0 of the data set has a label of shape .*4.*, must be one number"):
        diffcls.evaluate(
            classifier(), torch.utils.data.DataLoader(pairs, batch_size=4), out=tmp_path / "batches", labels=names
        )


def test_array_and_list(told, tmp_path):
    x, numbers, expected = told
    assert same((x, [NAMES[number] for number in numbers]), expected, tmp_path / "names")
    assert same(
        [[image, NAMES[number]] for image, number in zip(x, numbers, strict=True)], expected, tmp_path / "lists"
    )


@pytest.mark.parametrize("shape", [(1, 28, 20), (3, 28, 20)])
def test_pictures_with_channels_first_are_those_with_channels_last(shape):
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).random(shape, np.float32)
    model = diffcls.Classifier(policy=diffcls.Fixed(1))
    first, last = model.encode(torch.tensor(image)), model.encode(np.ascontiguousarray(image.transpose(1, 2, 0)))
    assert np.array_equal(first.x_start, last.x_start)


@pytest.mark.parametrize("format", ["torch", "numpy", "transform", "no features", "no features, other names"])
def test_hugging_faces_formats(told, tmp_path, format):
    datasets = pytest.importorskip("datasets")
    x, numbers, expected = told
    columns = {"image": x.tolist(), "label": numbers}
    features = datasets.Features(
        {"image": datasets.List(datasets.Value("float32")), "label": datasets.ClassLabel(names=NAMES)}
    )
    whole, options = datasets.Dataset.from_dict(columns, features), {}
    if format == "transform":
        dataset = whole.with_transform(lambda rows: {"x": np.float32(rows["image"]), "label": rows["label"]})
        options = {"columns": {"image": "x"}}
    elif format.startswith("no features"):
        image = "x" if format.endswith("names") else "image"
        options = {"columns": {"image": image}, "labels": dict(enumerate(NAMES))}

        def rows():
            yield from ({image: one, "label": number} for one, number in zip(x, numbers, strict=True))

        dataset = datasets.IterableDataset.from_generator(rows)
        assert dataset.features is None
    else:
        dataset = whole.with_format(format)
    assert same(dataset, expected, tmp_path / "out", **options)


def test_hugging_faces_transform_gets_pictures():
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    content = {"image": [image.new("RGB", (4, 4), (9, 9, 9))], "label": [0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    grey = datasets.Dataset.from_dict(content, features).with_transform(
        lambda rows: {**rows, "image": [one.convert("L") for one in rows["image"]]}
    )
    (item,) = open_source(grey).items()
    assert item.load().mode == "L" and item.label == 0


def test_parquet_of_hugging_face_that_names_its_classes_in_two_ways(tmp_path):
    datasets = pytest.importorskip("datasets")
    for names in (["a", "b"], ["b", "a"]):
        features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=names)})
        rows = datasets.Dataset.from_dict({"image": [b"x"], "label": [0]}, features)
        rows.to_parquet(str(tmp_path / f"{names[0]}.parquet"))
    with pytest.raises(InputError, match="name the classes of 'label' in different ways"):
        open_source(tmp_path)


def test_tables_are_refused():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DTypeError, match="dataset is a DataFrame of pandas: give it as"):
        open_source(pandas.DataFrame({"image": [b"x"], "label": ["a"]}))


def test_a_decoder_that_breaks_is_one_pictures_error():
    image = pytest.importorskip("PIL.Image")
    import io

    file = io.BytesIO()
    image.new("P", (8, 8)).save(file, "BLP")
    content = bytearray(file.getvalue())
    content[8] = 117  # a compression that there is not: Pillow raises NotImplementedError
    with pytest.raises(diffcls.ImageError, match="a.blp is not a picture that Pillow reads"):
        diffcls.images.decode(io.BytesIO(bytes(content)), "a.blp")
