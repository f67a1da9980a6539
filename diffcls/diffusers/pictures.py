"""From a picture to a model's pixels: the preparations of the field, by name.

| name | what | whose |
| --- | --- | --- |
| paper | short side to the size by bicubic interpolation, centre crop | Li et al. (2023), zero-shot classification |
| adm | halved by a box filter while twice the size, bicubic to the size, centre crop | Dhariwal and Nichol (2021), DiT |
| squash | both sides to the size by Lanczos interpolation, nothing is cropped | diffusers' VaeImageProcessor |

Eight-bit pictures are resized as Pillow resizes eight-bit pictures, which is what the published numbers were made with;
floats are resized as floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, MissingExtraError, ShapeError
from ..images import to_rgb

Size = tuple[int, int]
Pixels = NDArray[np.float32]


def prepare(
    image: Any, size: Size, preparation: str | Callable[[Any], Any], channels: int = 3
) -> tuple[Pixels, dict[str, Any]]:
    """
    Parameters
    ----------
    image : path, PIL.Image or array
    size : (height, width)
        In pixels.
    preparation : str or callable
        A name of the table above, or a function of a PIL image of mode RGB that gives one of `size`.
    channels : {3, 1}
        1: grey, by luma.

    Returns
    -------
    pixels : (channels, height, width) float32 in [-1, 1]
    record : dict
        What was done, for the result.

    Raises
    ------
    ValueError
        No picture, or a function that gives one of another size.
    """
    rgb = to_rgb(image)
    if callable(preparation):
        prepared, name = _by_function(rgb, size, preparation), getattr(preparation, "__name__", "function")
    else:
        prepared, name = {"paper": _paper, "adm": _adm, "squash": _squash}[preparation](rgb, size), preparation
    levels = prepared.astype(np.float32) / 255.0 if prepared.dtype == np.uint8 else np.clip(prepared, 0.0, 1.0)
    if channels == 1:
        levels = (levels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    pixels = np.ascontiguousarray((2.0 * levels - 1.0).transpose(2, 0, 1), np.float32)
    return pixels, {"name": name, "size": rgb.shape[:2], "resolution": size}


def _paper(rgb: NDArray[Any], size: Size) -> NDArray[Any]:
    height, width = rgb.shape[:2]
    if size[0] * width <= size[1] * height:  # the width is the short side
        scaled = (max(size[0], int(size[1] * height / width)), size[1])
    else:
        scaled = (size[0], max(size[1], int(size[0] * width / height)))
    resized = rgb if scaled == (height, width) else _resize(rgb, scaled, "BICUBIC")
    return _crop(resized, size, round)  # to the nearest, halves to even


def _adm(rgb: NDArray[Any], size: Size) -> NDArray[Any]:
    while min(rgb.shape[0] / size[0], rgb.shape[1] / size[1]) >= 2:
        rgb = _resize(rgb, (rgb.shape[0] // 2, rgb.shape[1] // 2), "BOX")
    scale = max(size[0] / rgb.shape[0], size[1] / rgb.shape[1])
    scaled = (max(size[0], round(rgb.shape[0] * scale)), max(size[1], round(rgb.shape[1] * scale)))
    return _crop(_resize(rgb, scaled, "BICUBIC"), size, int)  # downwards


def _squash(rgb: NDArray[Any], size: Size) -> NDArray[Any]:
    return _resize(rgb, size, "LANCZOS")


def _by_function(rgb: NDArray[Any], size: Size, function: Callable[[Any], Any]) -> NDArray[Any]:
    eight_bit = rgb if rgb.dtype == np.uint8 else np.rint(255.0 * rgb).astype(np.uint8)
    made = to_rgb(function(_pillow().fromarray(eight_bit)))
    if made.shape[:2] != size:
        raise ShapeError(f"preprocess gave a picture of {made.shape[:2]}, must be {size}, the model's resolution")
    return made


def _crop(rgb: NDArray[Any], size: Size, rounded: Callable[[float], int]) -> NDArray[Any]:
    top, left = rounded((rgb.shape[0] - size[0]) / 2), rounded((rgb.shape[1] - size[1]) / 2)
    return rgb[top : top + size[0], left : left + size[1]]


def _resize(rgb: NDArray[Any], size: Size, kind: str) -> NDArray[Any]:
    image = _pillow()
    resample = getattr(image.Resampling, kind)
    if max(size) > 2**16:
        raise ImageError(f"a picture of {rgb.shape[:2]} is too long for its width, it would become {size}")
    if rgb.dtype == np.uint8:
        return np.asarray(image.fromarray(rgb).resize(size[::-1], resample))
    planes = [image.fromarray(rgb[..., c]).resize(size[::-1], resample) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("preparing pictures needs Pillow: pip install 'diffcls[diffusers]'") from None
    return Image
