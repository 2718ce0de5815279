"""What statistics, metrics and kinds of monitors there are: found in the packages and plug-ins, listed nowhere."""

from functools import cache

from catalogue import discovery
from catalogue.discovery import Refused, named
from monitors import fairness as fairness_package
from monitors import kinds as kinds_package
from monitors import metrics as metrics_package
from monitors import row_statistics as rows_package
from monitors import statistics as statistics_package
from monitors.contract import CONTRACT_VERSION, BiasMetric, BinnedStatistic, Kind, Metric, RowStatistic

METRICS, MONITORS = "plumbline.metrics", "plumbline.monitors"


@cache
def statistics() -> dict[str, BinnedStatistic]:
    """Return every statistic of a column with its default options, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _statistics().items()}


@cache
def row_statistics() -> dict[str, RowStatistic]:
    """Return every statistic of the rows themselves, by name."""
    return {name: found() for name, (found, _) in _row_statistics().items()}


@cache
def metrics() -> dict[str, Metric]:
    """Return every metric of predictions against ground truth with its default options, by name."""
    return {name: found() for name, (found, _) in _metrics().items()}


@cache
def bias_metrics() -> dict[str, BiasMetric]:
    """Return every bias metric with its default options, by name."""
    return {name: found() for name, (found, _) in _bias_metrics().items()}


@cache
def kinds() -> dict[str, Kind]:
    """Return every kind of monitor, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _kinds().items()}


def by(name: str) -> str:
    """Return the distribution and version that a statistic, metric or kind comes from, "" where it is one of ours."""
    for found in (_statistics(), _row_statistics(), _metrics(), _bias_metrics(), _kinds()):
        if name in found:
            return found[name][1]
    return ""


def refused() -> tuple[Refused, ...]:
    """Return the plug-ins that are not used, with the reasons; the service works without them."""
    _statistics(), _row_statistics(), _metrics(), _bias_metrics(), _kinds()
    return discovery.refused(METRICS, MONITORS)


def forget() -> None:
    """Look again at the next call: packages or entry points have changed."""
    for cached in (statistics, row_statistics, metrics, bias_metrics, kinds):
        cached.cache_clear()
    for looked_at in (_statistics, _row_statistics, _metrics, _bias_metrics, _kinds):
        looked_at.cache_clear()
    discovery.forget(METRICS, MONITORS)


@cache
def _statistics() -> dict[str, tuple[type[BinnedStatistic], str]]:
    return named(BinnedStatistic, statistics_package, METRICS, CONTRACT_VERSION)  # type: ignore[type-abstract]


@cache
def _row_statistics() -> dict[str, tuple[type[RowStatistic], str]]:
    return named(RowStatistic, rows_package, METRICS, CONTRACT_VERSION)


@cache
def _metrics() -> dict[str, tuple[type[Metric], str]]:
    return named(Metric, metrics_package, METRICS, CONTRACT_VERSION)  # type: ignore[type-abstract]


@cache
def _bias_metrics() -> dict[str, tuple[type[BiasMetric], str]]:
    return named(BiasMetric, fairness_package, METRICS, CONTRACT_VERSION)


@cache
def _kinds() -> dict[str, tuple[type[Kind], str]]:
    return named(Kind, kinds_package, MONITORS, CONTRACT_VERSION)  # type: ignore[type-abstract]
