"""Commands to copy where there is nothing to show yet: each carries the real address of this service."""

import json
from collections.abc import Mapping
from typing import Any

from dashboards.page import Command

KEY = '-H "Authorization: Bearer $PLUMBLINE_KEY"'


def post(label: str, url: str, body: Mapping[str, Any]) -> Command:
    """Return a command that posts JSON."""
    return Command(label=label, code=_lines(f"curl -X POST '{url}'", KEY, *_json(body)))


def put(label: str, url: str, body: Mapping[str, Any]) -> Command:
    """Return a command that puts JSON."""
    return Command(label=label, code=_lines(f"curl -X PUT '{url}'", KEY, *_json(body)))


def post_file(label: str, url: str, file: str, kind: str) -> Command:
    """Return a command that posts a file."""
    sent = f"-H 'Content-Type: {kind}' --data-binary @{file}"
    return Command(label=label, code=_lines(f"curl -X POST '{url}'", KEY, sent))


def replay(label: str, url: str) -> Command:
    """Return the command that streams a file of history and makes what is missing on the way."""
    return Command(
        label=label,
        code=_lines(
            "plumbline replay history.parquet --model credit-risk --baseline training.parquet",
            "--time time --id id --prediction prediction --window 1d",
            f"--url {url} --key $PLUMBLINE_KEY",
        ),
    )


def _json(body: Mapping[str, Any]) -> tuple[str, ...]:
    return ("-H 'Content-Type: application/json'", f"-d '{json.dumps(body)}'")


def _lines(*parts: str) -> str:
    return " \\\n  ".join(parts)
