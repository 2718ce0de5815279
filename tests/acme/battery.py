"""What a company's own tests are: the batteries that every statistic, metric and kind of monitor owes."""

import pytest
from acme_monitors.ceilings import Ceilings
from acme_monitors.informedness import Informedness
from acme_monitors.overlap import Overlap

from monitors.contract import BinnedStatistic, Kind, Metric
from monitors.testing import KindBattery, MetricBattery, StatisticBattery


class TestOverlap(StatisticBattery):
    @pytest.fixture
    def statistic(self) -> BinnedStatistic:
        return Overlap()


class TestInformedness(MetricBattery):
    @pytest.fixture
    def metric(self) -> Metric:
        return Informedness()


class TestCeilings(KindBattery):
    @pytest.fixture
    def kind(self) -> Kind:
        return Ceilings()
