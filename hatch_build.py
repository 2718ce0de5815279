"""The build hook: makes the charts' script for the browser, which is package data and never committed."""

from pathlib import Path

SNIPPET = "window.vegaEmbed = vegaEmbed;"
BUNDLE = Path(__file__).parent / "dashboards" / "static" / "vega-bundle.js"


def write_bundle(path: Path = BUNDLE) -> None:
    """Write Vega, Vega-Lite and Vega-Embed (with the interpreter, so that no script is evaluated) as one file."""
    import vl_convert  # here, so that reading this file needs nothing installed

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(vl_convert.javascript_bundle(SNIPPET), encoding="utf-8")
    fresh.replace(path)


if __name__ == "__main__":
    write_bundle()
