"""What the tests of the service have in common: what goes wrong is told in plain lines, which cost nothing to draw."""

import pytest
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback


@pytest.fixture(scope="session", autouse=True)
def _plain_lines() -> None:
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[*processors[:-1], ConsoleRenderer(exception_formatter=plain_traceback)])
