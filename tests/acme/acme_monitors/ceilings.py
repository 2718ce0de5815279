"""A kind of monitor: how many values lie above the greatest that the baseline has."""

from typing import ClassVar

from pydantic import Field

from monitors.contract import Comparison, Kind, Parameters, Result, Role, Subject, Type
from monitors.null import excess
from monitors.profile import NumericProfile


class CeilingParameters(Parameters):
    """How many values above the ceiling count."""

    least: float = Field(0.01, ge=0, description="Least share of values above the ceiling that is reported.")


class Ceilings(Kind):
    """The share of each number's values above the baseline's greatest."""

    contract: ClassVar[int] = 1
    name: ClassVar[str] = "ceilings"
    title: ClassVar[str] = "Ceilings"
    told: ClassVar[tuple[str, str]] = ("numbers", "rose above their ceiling")
    parameters: ClassVar[type[Parameters]] = CeilingParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the share above the ceiling of each numeric feature."""
        least = parameters.least if isinstance(parameters, CeilingParameters) else 0.01
        return [
            self._share(comparison, column.name, column.label, least)
            for column in comparison.columns
            if column.role is Role.FEATURE
            and column.type is Type.NUMERIC
            and column.name in comparison.baseline.columns
        ]

    def _share(self, comparison: Comparison, name: str, label: str, least: float) -> Result:
        before, now = comparison.baseline.columns[name], comparison.window.columns.get(name)
        subject = Subject(feature=label)
        if not isinstance(before, NumericProfile) or not isinstance(now, NumericProfile) or not now.count:
            return Result(metric="above_ceiling", subject=subject, reason="no values", n_baseline=before.count)
        # The last cell begins at the greatest edge: its values are the ones near or above the ceiling.
        held, came = int(before.counts[-1]), int(now.counts[-1])
        generator = comparison.generator("above_ceiling", subject)
        p_value, note = excess((held, came), (before.count, now.count), generator)
        return Result(
            metric="above_ceiling",
            subject=subject,
            value=came / now.count,
            baseline_value=held / before.count,
            effect=max(came / now.count - held / before.count, 0.0),
            min_effect=least,
            p_value=p_value,
            note=note,
            n_window=now.count,
            n_baseline=before.count,
            unit="share",
        )
