"""The kinds of monitors: what every one owes."""

import pytest

from monitors import discovery
from monitors.contract import Kind
from monitors.testing import KindBattery


class TestEveryKind(KindBattery):
    @pytest.fixture(params=discovery.kinds().values(), ids=list(discovery.kinds()))
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        found: Kind = request.param
        return found
