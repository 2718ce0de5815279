"""Static files of the dashboards: read and compressed once, served under names that carry their content's hash."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files

import zstandard

TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
MISSING_BUNDLE = b'console.warn("The script that draws charts was not built; run `make install`.");\n'


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it goes over the wire, in each encoding that browsers take."""

    name: str
    """With the hash: ``app-0f1e2d3c4b5a.css``."""
    kind: str
    encodings: Mapping[str, bytes]

    def chosen(self, accepted: str) -> tuple[str, bytes]:
        """Return the smallest encoding that is accepted, and its bytes."""
        offered = {part.split(";")[0].strip() for part in accepted.split(",")}
        encoding = min(
            (name for name in self.encodings if name in offered or name == "identity"),
            key=lambda name: len(self.encodings[name]),
        )
        return encoding, self.encodings[encoding]


@cache
def assets() -> Mapping[str, Asset]:
    """Return every static file by its plain name."""
    found = {}
    for entry in files("dashboards").joinpath("static").iterdir():
        stem, _, ending = entry.name.rpartition(".")
        if ending in TYPES:
            found[entry.name] = _asset(stem, ending, entry.read_bytes())
    if "vega-bundle.js" not in found:
        found["vega-bundle.js"] = _asset("vega-bundle", "js", MISSING_BUNDLE)
    return found


@cache
def by_address() -> Mapping[str, Asset]:
    """Return every static file by the name in its address."""
    return {asset.name: asset for asset in assets().values()}


def _asset(stem: str, ending: str, content: bytes) -> Asset:
    mark = blake2b(content, digest_size=6).hexdigest()
    encodings = {
        "identity": content,
        "gzip": gzip.compress(content, 9, mtime=0),
        "zstd": zstandard.compress(content, 15),
    }
    return Asset(f"{stem}-{mark}.{ending}", TYPES[ending], encodings)
