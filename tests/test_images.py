"""Pictures in every form, their preparation, and files that are none."""

import numpy as np
import pytest

import diffcls
from diffcls.errors import ImageError
from diffcls.images import split, to_grey
from diffcls.models import demo_pictures
from diffcls.prepare import CONTENT, prepare, resize

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def ramp():
    """(20, 30) uint8, no two rows or columns alike."""
    return (np.arange(20)[:, None] * 7 + np.arange(30)[None] * 4).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "CMYK", "YCbCr"])
def test_every_mode_gives_the_same_grey(ramp, mode, tmp_path):
    picture = Image.fromarray(ramp).convert(mode)
    expected = ramp / np.float32(255)
    tolerance = {"P": 0.03, "YCbCr": 0.01, "CMYK": 0.01}.get(mode, 1e-2)
    np.testing.assert_allclose(to_grey(picture), expected, atol=tolerance)


def test_sixteen_bits(ramp, tmp_path):
    deep = ramp.astype(np.uint16) * 257
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    np.testing.assert_allclose(to_grey(path), ramp / 255, atol=1e-6)
    np.testing.assert_allclose(to_grey(deep), ramp / 255, atol=1e-6)


def test_one_bit(tmp_path):
    bits = np.eye(9, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(to_grey(tmp_path / "bits.png"), bits.astype(np.float32))
    np.testing.assert_array_equal(to_grey(bits), bits.astype(np.float32))


def test_exif_rotation_is_applied(ramp, tmp_path):
    picture = Image.fromarray(ramp)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 270 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(to_grey(tmp_path / "turned.png"), np.rot90(ramp, 3) / 255, atol=1e-6)


def test_transparency_is_over_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0, 3] = 255
    np.testing.assert_allclose(to_grey(rgba), [[0.0, 1.0], [1.0, 1.0]])


def test_arrays(ramp):
    expected = to_grey(ramp)
    for same in (ramp / 255, ramp[..., None], np.repeat(ramp[..., None], 3, -1), (ramp / 255).astype(np.float16)):
        np.testing.assert_allclose(to_grey(same), expected, atol=1e-3)


def test_one_or_several(ramp):
    rgb = np.repeat(ramp[..., None], 3, -1)
    assert [split(image)[1] for image in ("a.png", ramp, rgb, Image.fromarray(ramp))] == [True] * 4
    assert [split(image)[1] for image in ([ramp], np.stack([ramp, ramp]), np.stack([rgb, rgb]))] == [False] * 3
    with pytest.raises(ValueError, match="image has shape"):
        split(np.zeros((2, 2, 2, 2, 2)))
    with pytest.raises(TypeError, match="image is int"):
        split(3)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.full((4, 4), np.nan), ImageError, "NaN"),
        (np.full((4, 4), np.inf), ImageError, "NaN or infinite"),
        (np.full((4, 4), 2.0), ImageError, r"must be in \[0, 1\]"),
        (np.full((4, 4), -0.1), ImageError, "floats from -0.1"),
        (np.zeros((4, 4), np.int64), TypeError, "dtype int64"),
        (np.zeros((0, 4), np.uint8), ValueError, "must have pixels"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, "image has shape"),
        (np.zeros(4, np.uint8), ValueError, "image has shape"),
    ],
)
def test_impossible_arrays(array, error, message):
    with pytest.raises(error, match=message):
        to_grey(array)


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name, message in [
        ("text.png", "is not a picture"), ("cut.png", "is not a picture|pixels"), ("missing.png", "there is no file"),
        (".", "is not a file"), ("bomb.png", "more than 1000 pixels"),
    ]:  # fmt: skip
        with pytest.raises(ImageError, match=message):
            diffcls.classify(str(tmp_path / name))


# ---- preparation -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures():
    return demo_pictures.load()[0].astype(np.float32) / 255


def test_prepared_pictures_are_centred_and_of_one_size(pictures):
    for picture in pictures:
        x_start, done = prepare(picture)
        assert x_start.shape == (1, 28, 28) and x_start.dtype == np.float32
        assert -1 <= x_start.min() and x_start.max() <= 1
        rows, columns = (np.flatnonzero((x_start[0] > -0.8).any(axis=a)) for a in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 >= CONTENT - 2
        assert abs(rows[0] + rows[-1] - 27) <= 2 and abs(columns[0] + columns[-1] - 27) <= 2
        assert not done.inverted


def test_inverting_framing_and_moving_change_nothing(pictures):
    for picture in pictures:
        expected, _ = prepare(picture)
        negative, done = prepare(1 - picture)
        np.testing.assert_allclose(negative, expected, atol=1e-6)
        assert done.inverted
        # a frame changes which pixels are corners; pictures whose corners the object covers may differ
        if picture[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0:
            framed, _ = prepare(np.pad(picture, ((7, 3), (2, 11))))
            np.testing.assert_array_equal(framed, expected)


def test_enlarging_changes_little(pictures):
    for picture in pictures[::6]:
        big = np.kron(picture, np.ones((9, 9), np.float32))
        assert np.abs(prepare(big)[0] - prepare(picture)[0]).mean() < 0.12


def test_blank_pictures_are_prepared_too():
    for level in (0.0, 0.5, 1.0):
        x_start, _ = prepare(np.full((5, 9), level, np.float32))
        assert np.isfinite(x_start).all()


def test_resize_is_pillows_bilinear(rng):
    """Same triangle filter as Pillow's antialiased bilinear: another implementation's numbers."""
    image = rng.random((37, 23)).astype(np.float32)
    for height, width in ((10, 7), (37, 23), (80, 50), (1, 1)):
        expected = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(resize(image, height, width), expected, atol=1e-5)


def test_preparation_is_in_the_result_and_can_be_switched_off(pictures):
    result = diffcls.classify(np.pad(1 - pictures[0], 4, constant_values=1.0), policy=diffcls.Fixed(2))
    assert result.run["preparation"]["inverted"] and result.run["preparation"]["size"] == (36, 36)
    bare = diffcls.load("digits-and-clothes", prepare=False)
    assert diffcls.classify(pictures[0], model=bare, policy=diffcls.Fixed(2)).run["preparation"] == "none"
    with pytest.raises(ValueError, match=r"must be \(28, 28\) without preparation"):
        diffcls.classify(np.zeros((30, 30), np.uint8), model=bare)
