"""Data drift: whether the features of a window are distributed as in the baseline."""

from typing import ClassVar

from monitors.contract import Comparison, Kind, Parameters, Result, Role
from monitors.drift import DriftParameters, measure_columns


class DataDrift(Kind):
    """One deciding statistic per feature and time scale; columns that nobody confirmed are left out."""

    name: ClassVar[str] = "data_drift"
    title: ClassVar[str] = "Data drift"
    source: ClassVar[str] = "Besag and Clifford (1991), sequential Monte Carlo p-values; Holm (1979)"
    default: ClassVar[bool] = True
    told: ClassVar[tuple[str, str]] = ("inputs", "moved")
    page: ClassVar[str] = "drift"
    parameters: ClassVar[type[Parameters]] = DriftParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the drift of each feature at each time scale."""
        chosen = DriftParameters.of(parameters)
        features = [
            column
            for column in comparison.columns
            if column.role is Role.FEATURE and (column.status != "new" or column.name in comparison.baseline.columns)
        ]
        return measure_columns(comparison, features, chosen)
