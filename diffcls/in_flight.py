"""Pictures under way: each races all classes or those on its list, and batches are filled from all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core
from .answer import answer
from .core_types import RaceResult
from .errors import NonFiniteError
from .policies import Lowered

if TYPE_CHECKING:
    from .classifier import Classifier
    from .result import Result

UNMEASURED = (
    "the shortlist's miss rate was not measured (Shortlist.measure): p_disagree is that of the race among its classes"
)


class Encoded(NamedTuple):
    """A picture as the loop takes it.

    `preparation` says what was done to it.  `chosen` are the positions of the classes on its shortlist, rising; None: there
    is none, all race.
    """

    x_start: NDArray[np.float32]
    preparation: Any = None
    chosen: NDArray[np.int64] | None = None


@dataclass
class _Lane:
    """Pictures whose races have the same number of prompts, which is what a policy is lowered for: one loop."""

    loop: _core.Loop
    lowered: Lowered
    n_evals: int = 0


def stream(classifier: Classifier, images: Iterable[Any]) -> Iterator[Result]:
    """`Classifier.stream`: what is under way when the next picture can not be had arrives before that is told."""
    failure: Exception | None = None

    def feed() -> Iterator[Encoded]:
        nonlocal failure
        try:
            for position, image in enumerate(images):
                yield classifier.encode(image, position)
        except Exception as error:
            failure = error

    yield from classifier.classify_encoded(feed(), keep_errors=classifier.keep_errors)
    if failure is not None:
        raise failure


class InFlight:
    """What `Classifier.as_finished` runs.

    Parameters
    ----------
    classifier : Classifier
    lowered : Lowered or None
        Instead of the classifier's own policy: of every class, whatever the lists say.
    report : callable(n_evals) or None
    keep_errors : bool
        In the results; the core's are kept where the model judges pictures by them.
    """

    def __init__(
        self,
        classifier: Classifier,
        lowered: Lowered | None,
        report: Callable[[int], None] | None,
        *,
        keep_errors: bool,
    ) -> None:
        self.classifier, self.lowered, self.report, self.keep_errors = classifier, lowered, report, keep_errors
        self._lanes: dict[int, _Lane] = {}
        self._encoded: dict[int, Encoded] = {}

    def run(self, pictures: Iterable[Encoded]) -> Iterator[tuple[int, Result]]:
        """(which of `pictures`, its result) as they are finished; a picture is taken when a loop has room for it."""
        for number, picture in enumerate(pictures):
            arms = self._arms_of(picture)
            lane = self._lane(None if arms is None else len(arms))
            while not lane.loop.wants_image():
                yield from self._advance(lane, drain=False)
            self._encoded[number] = picture
            lane.loop.add(picture.x_start, number, arms)
        for lane in self._lanes.values():
            while finished := self._advance(lane, drain=True):
                yield from finished
            fits = int(lane.loop.stats["batch_size"])  # the next call is spared what did not
            self.classifier.batch_size = min(self.classifier.batch_size, fits)

    def watch(self, picture: Encoded) -> Iterator[Result]:
        """Of one picture after each round of its race; the last is its result."""
        arms = self._arms_of(picture)
        lane = self._lane(None if arms is None else len(arms))
        self._encoded[0] = picture
        lane.loop.add(picture.x_start, 0, arms)
        while told := self._advance(lane, drain=True, each_round=True):
            yield told[0][1]

    def _arms_of(self, picture: Encoded) -> NDArray[np.int64] | None:
        """Of the classes on its list; None: all."""
        class_of_arm = self.classifier.arms.class_of_arm
        if self.lowered is not None or picture.chosen is None or len(picture.chosen) == len(self.classifier.classes):
            return None
        return np.flatnonzero(np.isin(class_of_arm, picture.chosen))

    def _lane(self, n_arms: int | None) -> _Lane:
        classifier = self.classifier
        key = len(classifier.arms.class_of_arm) if n_arms is None else n_arms
        if key not in self._lanes:
            lowered = self.lowered or classifier.lower_for(key)
            keep_errors = self.keep_errors or classifier.denoiser.world is not None
            report = None if self.report is None else lambda n: self._reported(key, n)
            self._lanes[key] = _Lane(classifier.make_loop(lowered, report, keep_errors=keep_errors), lowered)
        return self._lanes[key]

    def _reported(self, key: int, n_evals: int) -> None:
        self._lanes[key].n_evals = n_evals
        if self.report is not None:
            self.report(sum(lane.n_evals for lane in self._lanes.values()))

    def _advance(self, lane: _Lane, *, drain: bool, each_round: bool = False) -> list[tuple[int, Result]]:
        """One picture's result, after a round's end if asked; none when another could be added, or nothing is left."""
        classifier = self.classifier
        try:
            told = lane.loop.advance(drain=drain, each_round=each_round)
        except NonFiniteError as error:  # the core knows classes by number only
            name = classifier.classes[error.class_index]
            message = f"{classifier.denoiser.name} predicted NaN or infinity for class {name!r}"
            where = f"at timestep {error.timestep}, noise index {error.noise_index}"
            raise NonFiniteError(f"{message} {where}", error.class_index, error.timestep, error.noise_index) from None
        if told is None:
            return []
        number, race = told
        picture = self._encoded[number] if race["status"] == "running" else self._encoded.pop(number)
        return [(number, self._answer(picture, race, lane.lowered))]

    def _answer(self, picture: Encoded, race: RaceResult, lowered: Lowered) -> Result:
        classifier, arms, errors = self.classifier, self._arms_of(picture), race["errors"]
        if arms is not None and errors is not None:
            every = np.full((len(classifier.arms.class_of_arm), errors.shape[1]), np.nan)
            every[arms] = errors
            race = {**race, "errors": every}
        result = answer(
            classifier, race, picture.x_start, picture.preparation, lowered.trials, keep_errors=self.keep_errors
        )
        shortlist = classifier.shortlist
        if shortlist is None or picture.chosen is None or self.lowered is not None:
            return result
        on_list = {**shortlist.to_dict(), "chosen": [classifier.classes[i] for i in picture.chosen]}
        return replace(
            result,
            p_disagree=min(1.0, result.p_disagree + (shortlist.miss_rate or 0.0)),
            warnings=[*result.warnings, *([UNMEASURED] if arms is not None and shortlist.miss_rate is None else [])],
            run={**result.run, "shortlist": on_list},
        )
