"""Estimated performance: what the figures will be, before the labels are known."""

from typing import ClassVar

from monitors.contract import Comparison, Kind, Parameters, Result
from monitors.estimation import measure_estimated
from monitors.performance import PerformanceParameters


class EstimatedPerformance(Kind):
    """Figures expected of the window without its labels, and those realised beside them once labels come.

    Scores are calibrated on the baseline (isotonic regression on its score cells) and the expected confusion is a sum
    over the window's score cells, class by class where there are many; of a regression the loss is learnt by gradient
    boosting. Draws take the classes of a row for independent of each other. Both assume that what inputs and scores
    mean has not changed; where labels say otherwise the result says so.
    """

    name: ClassVar[str] = "estimated_performance"
    title: ClassVar[str] = "Estimated performance"
    source: ClassVar[str] = "NannyML, CBPE and DLE; Barlow and others (1972), isotonic regression"
    reads_labels: ClassVar[bool] = True
    page: ClassVar[str] = "performance"
    told: ClassVar[tuple[str, str]] = ("figures", "are expected to be worse")
    parameters: ClassVar[type[Parameters]] = PerformanceParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return every figure that can be estimated, those that decide first."""
        return measure_estimated(comparison, PerformanceParameters.of(parameters))
