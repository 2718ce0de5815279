"""Logs: one JSON object a line on standard output, so that whatever runs the service can read them."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

SECRET_WORDS = ("authorization", "cookie", "key", "password", "secret", "token")


def without_secrets(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Blank out the values whose name says that they are secret."""
    for name in event:
        if any(word in name.lower() for word in SECRET_WORDS) and name != "event":
            event[name] = "…"
    return event


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send the standard library's and structlog's records to the stream (standard output) as JSON lines."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx2", "httpcore2", "alembic", "numba"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # A tick that is still at work when the next is due is nothing to tell.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
