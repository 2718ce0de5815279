"""A statistic that was made for another contract, and is refused for it."""

from typing import ClassVar

from acme_monitors.overlap import Overlap


class Outdated(Overlap):
    """Overlap as it was."""

    contract: ClassVar[int] = 0
    name: ClassVar[str] = "outdated"
