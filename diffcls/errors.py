"""Exceptions and warnings: `DiffclsError` at the root, beside it the built-in that users expect."""

from __future__ import annotations

import sys
import warnings


class DiffclsError(Exception):
    """Root of everything that diffcls raises on purpose."""


class InputError(DiffclsError, ValueError):
    """An argument has an impossible value."""


class UnknownClassError(InputError):
    """A prompt names no class of the model, or several."""


class ShapeError(DiffclsError, ValueError):
    """An array has the wrong rank or size."""


class DTypeError(DiffclsError, TypeError):
    """An array or argument has the wrong type."""


class DeviceError(DiffclsError, RuntimeError):
    """A tensor is on the wrong device."""


class DenoiserError(DiffclsError, RuntimeError):
    """The denoiser broke its contract."""


class NonFiniteError(DiffclsError, ArithmeticError):
    """The denoiser predicted NaN or infinity.

    Parameters
    ----------
    message : str
    class_index, timestep, noise_index : int
        Kept as attributes; -1: not known.

    Attributes
    ----------
    class_index, timestep, noise_index : int
        Where: position in `classes`, row of the schedule, which noise.
    """

    def __init__(self, message: str, class_index: int = -1, timestep: int = -1, noise_index: int = -1) -> None:
        super().__init__(message)
        self.class_index = class_index
        self.timestep = timestep
        self.noise_index = noise_index


class WeightsError(DiffclsError, ValueError):
    """A weights file is malformed or not of this model."""


class ImageError(DiffclsError, ValueError):
    """A picture can not be read."""


class MissingExtraError(DiffclsError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class FingerprintMismatchError(DiffclsError, ValueError):
    """Stored results were made with other settings."""


class StoreError(DiffclsError, OSError):
    """A folder of results can not be used: another process has it, it is not writable, the disk is full."""


class OutOfWorldWarning(UserWarning):
    """The picture is unlike what the model was trained on.

    Its text is the same for all pictures of a model, so that Python's default filter shows it once.
    """


class DeviceWarning(UserWarning):
    """The work goes on in another way than it was asked for: in smaller batches, or without a CUDA graph.  No number changes."""


class TruncationWarning(UserWarning):
    """A prompt is longer than a text encoder reads: its end is ignored."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """`warnings.warn` at the nearest line outside this package, through generators too."""
    level, frame = 2, sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
