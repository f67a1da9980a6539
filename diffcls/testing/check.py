"""`check_denoiser`: in seconds, what is wrong with a plugged-in model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..denoiser import Denoiser
from ..errors import DTypeError, InputError, ShapeError
from ..ops import _to_numpy
from . import contract
from .hypotheses import baseline, best_classes, explain
from .offset import ELEMENTS, time_offset
from .probe import Floats, Probe, Rows
from .report import DenoiserReport

PICTURES = 16
CLASSES = 10
NEED = ("prediction_type, time and scaling", "give x_start, some real inputs of the model")


def check_denoiser(
    denoiser: Denoiser, x_start: Any = None, *, labels: ArrayLike | None = None, seed: int = 0
) -> DenoiserReport:
    """Look for the usual faults of a plug-in.

    ===================  ======================================================================================
    finding              what is wrong
    ===================  ======================================================================================
    raises               `predict` raised on a batch of mixed rows
    output_shape         not the shape of x_t; learned variance that was not cut off
    output_dtype         not floating-point
    non_finite           NaN or infinity, at either end of the schedule too
    not_deterministic    asked the same twice it answers differently
    rows_influence       a row's prediction depends on the rows beside it
    condition_ignored    every class gets the same prediction
    same_condition       some classes do
    time_ignored         every time does
    prediction_type      read as another type, or with the sign turned round, the error falls clearly
    scaling              so it does with the output, x_t or x_start in another unit
    time_convention      so it does when the times of other rows are fed
    large_error          the error exceeds that of predicting zero, and none of the above explains it
    time_offset          the model's time is one row off
    ===================  ======================================================================================

    The last five need `x_start`: real inputs, of the kind that the model was trained on.  They rest on one fact: a good
    denoiser's error is smallest when it is fed and read as it was trained.  A model that is merely bad has no finding.
    One row of a thousand changes the error little: the last is found from structure at low noise, or from many elements
    (tens of thousands), and reported as not checked where neither is there.

    Parameters
    ----------
    denoiser : Denoiser
    x_start : (N, *shape) or (*shape) array, or None
        Of the kind that the model knows; with an `encode` of its own, what `encode` returns.  16 are used, and more, up to
        100,000 elements, to find the time's offset.
    labels : (N,) integers or None
        Class of each.  None: of up to 10 classes the one that explains it best.
    seed : int
        Of the noise.

    Returns
    -------
    DenoiserReport
        ``report.ok``, ``report.findings``; ``print(report)``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        The arguments themselves are wrong.

    Examples
    --------
    >>> print(check_denoiser(denoiser, x_start))  # doctest: +SKIP
    digits-and-clothes: 1 found to be wrong (...)
      prediction_type: read as 'sample' the prediction's error is 0.12 of what it is as 'v_prediction'
          Set prediction_type='sample'.
    """
    if not isinstance(denoiser, Denoiser):
        raise DTypeError(f"denoiser is {type(denoiser).__name__}, must be a diffcls.Denoiser")
    rng = np.random.default_rng(seed)
    x, given = _pictures(denoiser, x_start, rng)
    candidates = _candidates(denoiser, labels if given else None, len(x))
    probe, report = Probe(denoiser), DenoiserReport(str(denoiser.name))
    if _contract(probe, report, x[:PICTURES], rng):
        if given:
            _meaning(probe, report, x, candidates, rng)
        else:
            report.skipped[NEED[0]] = NEED[1]
    report.n_evals = probe.n_evals
    return report


def _contract(probe: Probe, report: DenoiserReport, x: Floats, rng: np.random.Generator) -> bool:
    """Everything that needs no real picture; False: the rest makes no sense."""
    some = _some(probe.denoiser)
    finding = contract.output(probe, x, some, rng)
    report.add("output", finding)
    if finding is not None:
        report.skipped["everything else"] = "the output must be right first"
        return False
    mixed = contract.mixed_rows(probe, x, some, rng)
    finding = contract.deterministic(probe, *mixed)
    report.add("deterministic", finding)
    if finding is not None:
        report.skipped["everything else"] = "predictions must repeat first"
        return False
    apart = contract.rows_apart(probe, *mixed)
    report.add("rows apart", apart)
    if apart is not None:
        report.skipped["everything else"] = "rows must be apart first"
        return False
    x_t, rows, _ = mixed
    alike = None
    if len(some) > 1:
        alike = contract.conditions(probe, x_t, rows, some)
        report.add("condition used", alike)
    else:
        report.skipped["condition"] = "there is one class"
    timeless = contract.time_used(probe, x_t, some)
    report.add("time used", timeless)
    if timeless is not None or alike is not None:
        report.skipped[NEED[0]] = "conditions and times must be used first"
        return False
    return True


def _meaning(probe: Probe, report: DenoiserReport, x: Floats, candidates: list[Rows], rng: np.random.Generator) -> None:
    trials = baseline(probe, x[:PICTURES], candidates[:PICTURES], rng)
    if trials is None:
        report.skipped[NEED[0]] = "no row of the schedule has an SNR from 0.05 to 50"
        return
    wrong = explain(probe, trials)
    report.add("prediction type, scaling, time convention", wrong)
    if wrong is not None:
        report.skipped["time offset"] = "the error must be small first"
        return
    finding, why = time_offset(probe, x, best_classes(probe, x, candidates, rng), rng)
    if why is None:
        report.add("time offset", finding)
    else:
        report.skipped["time offset"] = why


def _pictures(denoiser: Denoiser, x_start: Any, rng: np.random.Generator) -> tuple[Floats, bool]:
    if x_start is None:
        return rng.standard_normal((2, *denoiser.shape)), False
    x: NDArray[np.float64] = np.asarray(_to_numpy(x_start, "x_start"), np.float64)
    if x.shape == denoiser.shape:
        x = x[None]
    if x.shape[1:] != denoiser.shape or x.ndim != len(denoiser.shape) + 1 or len(x) == 0:
        wanted = ", ".join(map(str, denoiser.shape))
        raise ShapeError(f"x_start has shape {x.shape}, must be (N, {wanted}) or ({wanted})")
    if not np.isfinite(x).all():
        raise InputError("x_start must be finite")
    return x[: int(np.clip(ELEMENTS // x[0].size, PICTURES, 4096))], True


def _some(denoiser: Denoiser) -> Rows:
    """Up to ten classes, evenly over all."""
    k = denoiser.n_classes
    return np.unique(np.linspace(0, k - 1, min(k, CLASSES)).astype(np.int64))


def _candidates(denoiser: Denoiser, labels: ArrayLike | None, n: int) -> list[Rows]:
    if labels is None:
        return [_some(denoiser)] * n
    classes = np.atleast_1d(np.asarray(labels))
    if classes.dtype.kind not in "iu" or classes.ndim != 1 or len(classes) < n:
        raise InputError(f"labels is {labels!r}, must be one class number a picture")
    if (classes < 0).any() or (classes >= denoiser.n_classes).any():
        raise InputError(f"labels must be from 0 to {denoiser.n_classes - 1}")
    return [np.array([label], np.int64) for label in classes[:n]]
