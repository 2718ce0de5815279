"""Concept drift: whether the same scores and inputs still mean the same labels."""

from typing import ClassVar

from monitors.concept import ConceptParameters, measure_concept
from monitors.contract import Comparison, Kind, Parameters, Result


class ConceptDrift(Kind):
    """Realised less expected performance, the label's rate given the score, and sequential detectors over the errors.

    Performance splits into a concept part (realised less what calibrated scores expect) and a covariate part (that
    expectation less the baseline). A change of inputs alone moves only the second.
    """

    name: ClassVar[str] = "concept_drift"
    title: ClassVar[str] = "Concept drift"
    source: ClassVar[str] = "Hosmer and Lemeshow (1980); river: ADWIN, DDM, EDDM, HDDM, KSWIN, Page-Hinkley"
    needs_labels: ClassVar[bool] = True
    page: ClassVar[str] = "performance"
    told: ClassVar[tuple[str, str]] = ("signs of concept drift", "appeared")
    parameters: ClassVar[type[Parameters]] = ConceptParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the concept part of each deciding figure, the calibration shift, and what is shown beside them."""
        return measure_concept(comparison, ConceptParameters.of(parameters))
