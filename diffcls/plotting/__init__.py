"""Plots in scikit-learn's Display style.  Needs matplotlib (extra `plot`).

A Display holds data and nothing of matplotlib; ``plot(ax=None)`` draws it, on a figure of its own or on `ax`, and returns the
Display, whose `ax_` and `figure_` are then at hand.  ``from_...`` makes one and draws it.  Colours are Okabe and Ito's, and
nothing is told by colour alone; text follows the style in use, light or dark.
"""

from .confusion import ConfusionMatrixDisplay
from .elimination import EliminationDisplay
from .error_map import ErrorMapDisplay
from .frontier import FrontierDisplay
from .loss_curve import LossCurveDisplay
from .reliability import ReliabilityDisplay
from .report import ReportDisplay
from .risk_coverage import RiskCoverageDisplay
from .sheet import contact_sheet
from .winoground import WinogroundDisplay

__all__ = [
    "ConfusionMatrixDisplay",
    "EliminationDisplay",
    "ErrorMapDisplay",
    "FrontierDisplay",
    "LossCurveDisplay",
    "ReliabilityDisplay",
    "ReportDisplay",
    "RiskCoverageDisplay",
    "WinogroundDisplay",
    "contact_sheet",
]
