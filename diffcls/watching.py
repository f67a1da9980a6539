"""A race while it is run: what stands after each round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import arguments
from .answer import with_pictures
from .errors import InputError
from .in_flight import Encoded, InFlight
from .options import split_images
from .progress import open_progress

if TYPE_CHECKING:
    from .classifier import Classifier
    from .result import Result


def watch(classifier: Classifier, image: Any) -> Iterator[Result]:
    """One picture's `Result` after each round of its race; the last one is what ``classifier(image)`` gives.

    The same batches are evaluated in the same order, so no number differs.  Those before the last have the status "running"
    and no sentence about the training pictures.  Who stops reading stops the race; the classifier's `progress`, if it is a
    callable, is told inside of rounds too, and what it raises ends the race.

    Parameters
    ----------
    classifier : Classifier
    image : one picture, as `Classifier.__call__` takes it

    Yields
    ------
    Result
        Of the rounds so far: `alive`, `n_trials` and `losses` as they stand, `trace` up to here.

    Raises
    ------
    ValueError
        Several pictures, or one that can not be read.
    TypeError
        `classifier` is no `Classifier`.
    ArithmeticError, RuntimeError
        As `classify`.
    """
    from .classifier import Classifier

    arguments.instance("classifier", classifier, Classifier)
    items, _ = split_images(image, classifier.denoiser)
    if len(items) != 1:
        raise InputError(f"image is {len(items)} pictures, must be one")
    return _rounds(classifier, items[0], classifier.encode(items[0]))


def _rounds(classifier: Classifier, image: Any, picture: Encoded) -> Iterator[Result]:
    with open_progress(classifier.progress, classifier.max_evals, 1) as report:
        in_flight = InFlight(classifier, None, report, keep_errors=classifier.keep_errors)
        for result in in_flight.watch(picture):
            yield from with_pictures([result], [image])
