"""The kinds of monitors: what every one owes."""

import pytest

from monitors import discovery
from monitors.contract import Kind
from monitors.testing import KindBattery

SLOW = {"domain_classifier"}  # fits trees for every window; test_multivariate.py has the short form of its being quiet


class TestEveryKind(KindBattery):
    @pytest.fixture(params=list(discovery.kinds()))
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        return discovery.kinds()[request.param]

    @pytest.mark.parametrize(
        "kind",
        [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in discovery.kinds()],
        indirect=True,
    )
    def test_is_quiet_where_nothing_changed(self, kind: Kind) -> None:
        super().test_is_quiet_where_nothing_changed(kind)
