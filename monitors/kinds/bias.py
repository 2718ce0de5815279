"""Bias: whether groups of people fare differently, and differently than in the baseline."""

from typing import ClassVar

from monitors.bias import BiasParameters, measure_bias
from monitors.contract import Comparison, Kind, Parameters, Result, Task


class Bias(Kind):
    """Clarify's and fairlearn's metrics of each protected attribute and crossing, each group against the others.

    Small groups are withheld. Metrics that need no labels are judged as soon as a window is complete, others when its
    labels are.
    """

    name: ClassVar[str] = "bias"
    title: ClassVar[str] = "Bias"
    source: ClassVar[str] = "Amazon SageMaker Clarify; fairlearn; Besag and Clifford (1991)"
    reads_labels: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True
    told: ClassVar[tuple[str, str]] = ("comparisons of groups", "moved")
    page: ClassVar[str] = "fairness"
    parameters: ClassVar[type[Parameters]] = BiasParameters

    def waits_for_labels(self, parameters: Parameters) -> bool:
        """Return whether a metric that is judged needs labels."""
        return BiasParameters.of(parameters).waits

    def missing(self, task: Task, parameters: Parameters) -> str:
        """Return what is missing: the favourable outcome is never guessed, least of all from the positive class."""
        chosen = BiasParameters.of(parameters)
        if task.favourable_outcome is None:
            return "say first which outcome is good for the person: favourable_outcome of the model"
        if not task.protected:
            return "say first of whom: protected_attributes of the model"
        known = {attribute.name for attribute in task.protected}
        if chosen.attributes != "all" and (unknown := [name for name in chosen.attributes if name not in known]):
            return f"{', '.join(unknown)} is not among the protected_attributes {', '.join(sorted(known))}"
        if {"CDDL", "CDDPL"} & set(chosen.metrics) and task.group_variable is None:
            return "conditional disparity needs the model's group_variable"
        return ""

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return every metric of every group, and the size of each group."""
        return measure_bias(comparison, BiasParameters.of(parameters))
