"""`Evaluator` in the training loops of Lightning and of transformers; with accelerate call its `step` like in a plain loop."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..errors import MissingExtraError
from .evaluator import Evaluator

LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


def lightning_callback(evaluator: Evaluator) -> Any:
    """A Lightning ``Callback`` that evaluates every `evaluator.every` optimiser steps and logs ``zero_shot/accuracy`` and more.

    Parameters
    ----------
    evaluator : Evaluator

    Returns
    -------
    Callback of Lightning

    Raises
    ------
    ImportError
        Neither ``lightning`` nor ``pytorch_lightning`` is installed.
    """
    package = _lightning()

    class ZeroShotAccuracy(package.Callback):  # type: ignore[misc, name-defined]  # found at run time
        last = 0  # several batches may make one step

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *unused: Any) -> None:
            step = trainer.global_step
            if step == self.last:
                return
            self.last = step
            found = evaluator.step(step)
            if found is not None:
                pl_module.log_dict({name: float(value) for name, value in found.to_dict().items()})

    return ZeroShotAccuracy()


def _lightning() -> Any:
    """The one of the two packages that is in use, else one that is installed."""
    for name in LIGHTNING:
        if name in sys.modules:
            return sys.modules[name]
    for name in LIGHTNING:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtraError("lightning_callback needs Lightning: pip install lightning")


def trainer_callback(evaluator: Evaluator) -> Any:
    """A ``TrainerCallback`` of transformers that evaluates every `evaluator.every` steps, into ``trainer.state.log_history``.

    Parameters
    ----------
    evaluator : Evaluator

    Returns
    -------
    TrainerCallback of transformers

    Raises
    ------
    ImportError
        transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise MissingExtraError("trainer_callback needs transformers: pip install transformers") from None

    class ZeroShotAccuracy(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
            found = evaluator.step(state.global_step)
            if found is not None:
                state.log_history.append({**found.to_dict(), "step": state.global_step})

    return ZeroShotAccuracy()
