"""Small pictures: what a result keeps of the picture that it is of, to be shown."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DiffclsError
from .images import _is_pil, to_rgb
from .ops import _to_numpy

SIDE = 96
"""Pixels of the longer side, at most."""


def keep(image: Any) -> Any:
    """A path or a picture of Pillow's as it is; of an array a small copy, since its memory may be used again.

    None: nothing that can be shown (an x_start that is no picture, an array on a device).
    """
    if isinstance(image, (str, os.PathLike)) or _is_pil(image):
        return image
    try:
        array = _to_numpy(image, "image")
    except DiffclsError:
        return None
    picture = array if array.dtype == np.uint8 and is_channels_last(array) else x_start_picture(array)
    return None if picture is None else shrink(picture)


def is_channels_last(array: NDArray[Any]) -> bool:
    return array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))


def x_start_picture(x: NDArray[Any]) -> NDArray[np.float32] | None:
    """x_start as levels in [0, 1], (H, W) or (H, W, C): from [-1, 1], or from its own range where that is wider.

    (H, W), (C, H, W) and (H, W, C) with one, three or four channels are pictures, floats in [0, 1] stay; None: it is none.
    A latent of four channels has the shape of a picture and is none: ask before (`Denoiser.pixels`).
    """
    if x.ndim == 3 and x.shape[0] in (1, 3) and x.shape[-1] not in (1, 3):
        x = x.transpose(1, 2, 0)
    if not is_channels_last(x) or min(x.shape[:2]) < 2 or x.dtype.kind not in "biuf":
        return None
    x = x.astype(np.float32)
    x = x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x
    low, high = float(x.min()), float(x.max())
    if low >= 0.0 and high <= 1.0:
        return x
    if low < -1.0 or high > 1.0:
        return (x - np.float32(low)) / np.float32(max(high - low, 1e-12))
    return (x + np.float32(1.0)) / np.float32(2.0)


def shrink(picture: NDArray[Any], side: int = SIDE) -> NDArray[Any]:
    """A copy of at most `side` pixels a side: means over square blocks, in the picture's own dtype.

    Of large blocks only some rows and columns are read, so that it costs little beside what a model does with the picture.
    """
    stride = max(max(picture.shape[:2]) // (4 * side), 1)
    picture = picture[::stride, ::stride]
    block = -(-max(picture.shape[:2]) // side)
    height, width = (max(size // block, 1) for size in picture.shape[:2])
    if block == 1:
        return picture.copy()
    cut = picture[: height * block, : width * block]
    blocks = cut.reshape(height, cut.shape[0] // height, width, cut.shape[1] // width, *picture.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)), picture.dtype)


def data_url(kept: Any) -> str | None:
    """PNG of what `keep` kept, as a ``data:`` address; None: there is none, the file is gone, or Pillow is not here."""
    if kept is None:
        return None
    try:
        from PIL import Image

        levels = shrink(to_rgb(kept))
    except (ImportError, DiffclsError):
        return None
    eight_bit = levels if levels.dtype == np.uint8 else np.rint(255.0 * levels).astype(np.uint8)
    file = io.BytesIO()
    grey = bool((eight_bit == eight_bit[..., :1]).all())
    Image.fromarray(eight_bit[..., 0] if grey else eight_bit).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
