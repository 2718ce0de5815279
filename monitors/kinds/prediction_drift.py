"""Prediction drift: whether what the model answers is distributed as in the baseline."""

from typing import ClassVar

from monitors.contract import Comparison, Kind, Parameters, Result, Role
from monitors.drift import DriftParameters, measure_columns


class PredictionDrift(Kind):
    """One deciding statistic per prediction or score column and time scale; `features` names those columns here."""

    name: ClassVar[str] = "prediction_drift"
    title: ClassVar[str] = "Prediction drift"
    source: ClassVar[str] = "Besag and Clifford (1991), sequential Monte Carlo p-values; Holm (1979)"
    default: ClassVar[bool] = True
    told: ClassVar[tuple[str, str]] = ("prediction columns", "moved")
    page: ClassVar[str] = "drift"
    parameters: ClassVar[type[Parameters]] = DriftParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the drift of each prediction and score column at each time scale."""
        chosen = DriftParameters.of(parameters)
        answers = [column for column in comparison.columns if column.role in (Role.PREDICTION, Role.SCORE)]
        return measure_columns(comparison, answers, chosen)
