"""From whatever a picture comes as to grey levels in [0, 1].  Pillow decodes files; NumPy does the rest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DTypeError, ImageError, MissingExtraError, ShapeError
from .ops import _to_numpy

CHANNELS = (1, 3, 4)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601, as Pillow converts to grey."""


def split(image: Any) -> tuple[Iterable[Any], bool]:
    """(pictures, is one): a path, a picture or an (H, W) or (H, W, C) array is one; a list or a further axis are several."""
    if isinstance(image, (str, os.PathLike)) or _is_pil(image):
        return [image], True
    if isinstance(image, Sequence):
        return image, False
    if not hasattr(image, "__dlpack__"):
        raise DTypeError(f"image is {type(image).__name__}, must be a path, a picture, an array or a list of those")
    array = _to_numpy(image, "image")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in CHANNELS):
        return [array], True
    if array.ndim in (3, 4):
        return array, False
    raise ShapeError(f"image has shape {array.shape}, must be (H, W), (H, W, C) or a batch of those, C one of 1, 3, 4")


def refuse_channels_first(image: Any) -> None:
    """For models of colour: (C, H, W) could be C grey pictures, and is not.

    Raises
    ------
    ValueError
    """
    shape: tuple[int, ...] = getattr(image, "shape", ())
    if len(shape) in (3, 4) and shape[-3] in CHANNELS and shape[-1] not in CHANNELS:
        raise ShapeError(
            f"image has shape {tuple(shape)}, channels come last: (H, W, C), C one of 1, 3, 4; several grey pictures are "
            "given as a list"
        )


def to_grey(image: Any) -> NDArray[np.float32]:
    """One picture as (H, W) float32 in [0, 1].  Colours by luma, transparency over white.

    Raises
    ------
    ValueError
        Not a picture, empty, not finite, or floats outside [0, 1].
    """
    if isinstance(image, (str, os.PathLike)):
        image = _open(Path(image))
    if _is_pil(image):
        image = _pil_to_array(image)
    array = _channels_last(_to_numpy(image, "image"))
    if array.ndim == 3 and array.shape[-1] in CHANNELS:
        return _flatten_channels(_levels(array))
    if array.ndim != 2:
        raise ShapeError(f"image has shape {array.shape}, must be (H, W) or (H, W, C) with C one of 1, 3, 4")
    return _levels(array)


def to_rgb(image: Any) -> NDArray[Any]:
    """One picture as (H, W, 3): uint8 as it was given in eight bits, else float32 in [0, 1].  Grey is three equal colours,
    transparency is over white.

    Raises
    ------
    ValueError
        As `to_grey`.
    """
    if isinstance(image, (str, os.PathLike)):
        image = _open(Path(image))
    if _is_pil(image):
        image = _pil_to_array(image)
    array = _channels_last(_to_numpy(image, "image"))
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in CHANNELS:
        raise ShapeError(f"image has shape {array.shape}, must be (H, W) or (H, W, C) with C one of 1, 3, 4")
    opaque = array.shape[-1] < 4 or (array.dtype == np.uint8 and array.size > 0 and bool((array[..., 3] == 255).all()))
    if array.dtype == np.uint8 and opaque and array.size:
        return np.ascontiguousarray(np.broadcast_to(array[..., :3], (*array.shape[:2], 3)))
    levels = _levels(array)
    if levels.shape[-1] == 4:
        levels = levels[..., :3] * levels[..., 3:] + (1.0 - levels[..., 3:])
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)), np.float32)


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """Grey or colours as (C, H, W), as torchvision's ToTensor gives a picture, as (H, W, C): no other axis can be channels."""
    first = array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in CHANNELS
    return array.transpose(1, 2, 0) if first else array


def _levels(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.size == 0:
        raise ShapeError(f"image has shape {array.shape}, must have pixels")
    if array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    if array.dtype.kind != "f":
        raise DTypeError(f"image is of dtype {array.dtype}, must be uint8, uint16, bool or floats in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("image has NaN or infinite pixels, must be finite")
    if low < 0.0 or high > 1.0:
        raise ImageError(f"image has floats from {low:g} to {high:g}, must be in [0, 1] (or uint8)")
    return np.ascontiguousarray(array, np.float32)


def _flatten_channels(array: NDArray[np.float32]) -> NDArray[np.float32]:
    if array.shape[-1] == 1:
        return np.ascontiguousarray(array[..., 0])
    grey = array[..., :3] @ _LUMA
    if array.shape[-1] == 4:
        grey = grey * array[..., 3] + (1.0 - array[..., 3])
    return np.ascontiguousarray(grey, np.float32)


# ---- Pillow ----------------------------------------------------------------------------------------------------------


def to_pil(image: Any) -> Any:
    """One picture as Pillow's, in RGB: what other libraries take.

    Raises
    ------
    ValueError
        As `to_grey`.
    ImportError
        Pillow is missing.
    """
    pixels = to_rgb(image)
    if pixels.dtype != np.uint8:
        pixels = np.round(255.0 * pixels).astype(np.uint8)
    return _pillow().Image.fromarray(pixels)


def is_picture(image: Any) -> bool:
    """Of a kind that a picture, or x_start, can be: a path, a picture of Pillow's or an array."""
    return isinstance(image, (str, os.PathLike)) or _is_pil(image) or hasattr(image, "__dlpack__")


def _is_pil(image: Any) -> bool:
    return type(image).__module__.startswith("PIL.")


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise MissingExtraError("reading picture files needs Pillow: pip install 'diffcls[image]'") from None
    return PIL


def _open(path: Path) -> Any:
    _pillow()  # told first: without it, no path is right
    if not path.exists():
        raise ImageError(f"there is no file {path}")
    if not path.is_file():
        raise ImageError(f"{path} is not a file")
    return decode(path, str(path))


def decode(
    source: Path | IO[bytes], name: str, *, formats: Sequence[str] | None = None, max_pixels: int | None = None
) -> Any:
    """The picture of a file, or of what was read from one; `name` is what a message calls it.

    `formats`: Pillow's names of those that are opened, None: all.  `max_pixels`: refused by its header, before anything is
    decoded; None: Pillow's own limit.

    Raises
    ------
    ValueError
        It is none that Pillow reads, is cut short, or has too many pixels.
    """
    pillow = _pillow()
    reader = pillow.Image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", reader.DecompressionBombWarning)
            with reader.open(source, formats=formats) as picture:
                width, height = picture.size
                if max_pixels is not None and width * height > max_pixels:
                    raise ImageError(f"{name} has {width} x {height} pixels, more than {max_pixels} in all")
                picture.load()
                return picture
    except ImageError:
        raise
    except (reader.DecompressionBombError, reader.DecompressionBombWarning):
        raise ImageError(
            f"{name} has more than {reader.MAX_IMAGE_PIXELS} pixels, which no real picture needs"
        ) from None
    except pillow.UnidentifiedImageError:
        known = "its format is not known" if formats is None else f"it is none of {', '.join(formats)}"
        raise ImageError(f"{name} is not a picture that Pillow reads ({known})") from None
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} is not a picture that Pillow reads ({why})") from None


def _pil_to_array(picture: Any) -> NDArray[Any]:
    """uint8 (H, W) or (H, W, 4), or float levels for 16 and 32 bit pictures; EXIF rotation applied."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _deep_levels(np.asarray(picture), picture.mode)
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))
    return np.asarray(picture.convert("RGBA"))


def _deep_levels(array: NDArray[Any], mode: str) -> NDArray[np.float32]:
    """Modes "I;16" and "I" hold 16 bit levels (PNG); "F" must be in [0, 1] or is taken to be 0 to 255."""
    levels = array.astype(np.float32)
    high = float(levels.max(initial=0.0))
    top = 65535.0 if mode != "F" else (1.0 if high <= 1.0 else 255.0)
    if not np.isfinite(levels).all() or float(levels.min(initial=0.0)) < 0.0 or high > top:
        raise ImageError(f"the picture's levels in mode {mode} are outside 0 to {top:g}")
    return levels / np.float32(top)
