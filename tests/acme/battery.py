"""What a company's own tests are: the batteries that every statistic and kind of monitor owes."""

import pytest
from acme_monitors.ceilings import Ceilings
from acme_monitors.overlap import Overlap

from monitors.contract import BinnedStatistic, Kind
from monitors.testing import KindBattery, StatisticBattery


class TestOverlap(StatisticBattery):
    @pytest.fixture
    def statistic(self) -> BinnedStatistic:
        return Overlap()


class TestCeilings(KindBattery):
    @pytest.fixture
    def kind(self) -> Kind:
        return Ceilings()
