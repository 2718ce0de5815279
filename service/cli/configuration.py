"""`docs/configuration.md`, written from the settings class: run as a module it prints the page."""

import sys
from pathlib import Path
from typing import Any

from service.settings import PREFIX, Settings, secret_names


def page() -> str:
    """Return the page as Markdown, one line a setting."""
    lines = [
        "# Configuration",
        "",
        "Written by `make docs` from `service/settings.py`. Every setting is an environment variable; a name that is",
        "not in this table is refused at start-up. Lists are separated by commas. Where a file is offered,",
        "`…_FILE` names a file that holds the value, so that a secret need not stand in the environment.",
        "",
        "| variable | default | meaning | as a file |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        file = "yes" if name.upper() in secret_names() else ""
        lines.append(f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {field.description} | {file} |")
    lines += [
        "",
        "`plumbline replay` reads `PLUMBLINE_URL` and `PLUMBLINE_KEY` where `--url` and `--key` are not given.",
        "",
        "## Exit codes of the command line",
        "",
        "| code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | the service could not be reached, or refused; the reason is printed |",
        "| 2 | the command or a setting makes no sense; nothing was done |",
        "| 130 | interrupted |",
        "",
    ]
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
