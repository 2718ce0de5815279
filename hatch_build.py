"""The build hook: makes the charts' script for the browser, which is package data and never committed."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SNIPPET = "window.vegaEmbed = vegaEmbed;"
BUNDLE = Path(__file__).parent / "dashboards" / "static" / "vega-bundle.js"


def write_bundle(path: Path = BUNDLE) -> None:
    """Write Vega, Vega-Lite and Vega-Embed (with the interpreter, so that no script is evaluated) as one file."""
    import vl_convert  # here, so that reading this file needs nothing installed

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(vl_convert.javascript_bundle(SNIPPET), encoding="utf-8")
    fresh.replace(path)


class BundleHook(BuildHookInterface[Any]):
    """Puts the script into the wheel as package data, made where it is missing."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Make the script and list it, since version control ignores it."""
        path = Path(self.root) / BUNDLE.relative_to(BUNDLE.parents[2])
        if not path.exists():
            write_bundle(path)
        build_data["artifacts"].append(f"/{path.relative_to(self.root)}")


if __name__ == "__main__":
    write_bundle()
