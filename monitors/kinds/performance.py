"""Performance: whether predictions meet the ground truth as well as in the baseline."""

from typing import ClassVar

from monitors.contract import Comparison, Kind, Parameters, Result
from monitors.performance import PerformanceParameters, measure_performance


class Performance(Kind):
    """Every metric of the task with an interval, against the baseline and the best constant; a few of them decide.

    Binary and multi-class models are judged by accuracy, F1 and ROC AUC (macro), many labels too, numbers by mean
    absolute error, root mean squared error and mean error; a cost matrix adds the cost per row.
    """

    name: ClassVar[str] = "performance"
    title: ClassVar[str] = "Performance"
    source: ClassVar[str] = "Efron and Tibshirani (1993), chapter 13; Good (2005), permutation tests"
    needs_labels: ClassVar[bool] = True
    default: ClassVar[bool] = True
    page: ClassVar[str] = "performance"
    told: ClassVar[tuple[str, str]] = ("figures", "got worse")
    parameters: ClassVar[type[Parameters]] = PerformanceParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return every figure of the window, those that decide first."""
        return measure_performance(comparison, PerformanceParameters.of(parameters))
