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

    def _advance(self, lane: _Lane, *, drain: bool) -> list[tuple[int, Result]]:
        """One picture's result; none when another could be added, or nothing is left."""
        classifier = self.classifier
        try:
            finished = lane.loop.advance(drain=drain)
        except NonFiniteError as error:  # the core knows classes by number only
            name = classifier.classes[error.class_index]
            message = f"{classifier.denoiser.name} predicted NaN or infinity for class {name!r}"
            where = f"at timestep {error.timestep}, noise index {error.noise_index}"
            raise NonFiniteError(f"{message} {where}", error.class_index, error.timestep, error.noise_index) from None
        if finished is None:
            return []
        number, race = finished
        return [(number, self._answer(self._encoded.pop(number), race, lane.lowered))]

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
