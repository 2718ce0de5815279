"""What a page is: a frozen dataclass, a template that may use nothing else, and a JSON twin that holds the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from dashboards import formats
from dashboards.standing import Standing

STRIP = {
    Standing.VIOLATED: 1.0,
    Standing.FAILED: 1.0,
    Standing.PARTIAL: 0.7,
    Standing.OK: 0.5,
    Standing.STALE: 0.25,
    Standing.WAITING: 0.25,
    Standing.NOT_MEASURED: 0.25,
}
"""How high a window is drawn where only its standing is shown."""


def unseen(default: Any = "") -> Any:
    """Declare a field that pages need and their twins must not hold: tokens, addresses of files."""
    return field(default=default, metadata={"twin": False})


@dataclass(frozen=True)
class Links:
    """Addresses of our own pages, under the path prefix of the public address."""

    root: str = ""

    def fleet(self) -> str:
        """Return the address of the fleet page."""
        return f"{self.root}/"

    def model(self, name: str, page: str = "", query: str = "") -> str:
        """Return the address of a model's page, with the state it should show."""
        path = f"{self.root}/models/{quote(name, safe='')}"
        return path + (f"/{page}" if page else "") + query

    def alert(self, uid: str, action: str = "") -> str:
        """Return the address of an alert, or of something done to it."""
        return f"{self.root}/alerts/{quote(uid, safe='')}" + (f"/{action}" if action else "")

    def to(self, path: str) -> str:
        """Return the address of a path."""
        return self.root + path


@dataclass(frozen=True, kw_only=True)
class View:
    """What a reader has chosen to see; all of it stands in the address."""

    from_: datetime | None = None
    to: datetime | None = None
    range_: str = ""
    """A preset counted back from the newest window (``7d``, ``30d``, ``90d``, ``all``), empty where from and to say."""
    version: str = ""
    window: str = ""
    monitor: str = ""
    feature: str = ""
    sort: str = ""
    state: str = ""
    q: str = ""
    slice_: str = ""

    def query(self, **changes: object) -> str:
        """Return the query string with some things changed; what is empty is left out."""
        chosen: dict[str, object] = {one.name: getattr(self, one.name) for one in fields(self)} | changes
        pairs = [
            (name.rstrip("_"), formats.iso(value) if isinstance(value, datetime) else str(value))
            for name, value in chosen.items()
            if value
        ]
        return f"?{urlencode(pairs)}" if pairs else "?"


@dataclass(frozen=True, kw_only=True)
class ModelLink:
    """A model in the rail: its name and how it stands."""

    name: str
    standing: Standing


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What surrounds each page: who looks, when, and where the other pages are."""

    now: datetime
    public_url: str
    path: str = "/"
    here: str = ""
    """The model that the page is about."""
    viewer: str | None = None
    software: str = ""
    models: tuple[ModelLink, ...] = ()
    theme: str = "auto"
    links: Links = field(default_factory=Links, metadata={"twin": False})
    assets: Mapping[str, str] = field(default_factory=dict, metadata={"twin": False})
    csrf: str = unseen()
    query: str = unseen()

    def asset(self, name: str) -> str:
        """Return the address of a static file, which carries its content's hash."""
        return self.assets[name]

    @property
    def twin(self) -> str:
        """The address of this page as JSON."""
        path = "/fleet" if self.path == "/" else self.path
        return f"{self.links.root}{path}.json{self.query}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something to copy into a terminal."""

    label: str
    code: str


@dataclass(frozen=True, kw_only=True)
class Empty:
    """What to do next where there is nothing to show yet."""

    title: str
    text: str
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Banner:
    """A sentence above the page: what is stale, partial or was just done."""

    text: str
    standing: Standing = Standing.STALE


@dataclass(frozen=True, kw_only=True)
class Spark:
    """A few recent numbers drawn small: their heights as shares of the largest, and how each stands."""

    heights: tuple[float | None, ...] = ()
    standings: tuple[Standing, ...] = ()
    label: str = ""
    """What it shows, for those who cannot see it."""

    @classmethod
    def of(cls, values: list[float | None], standings: list[Standing] | None = None, label: str = "") -> "Spark":
        """Scale the values to their largest; what is none stays a gap."""
        top = max((abs(value) for value in values if value is not None), default=0.0)
        heights = tuple(None if value is None else (abs(value) / top if top else 0.0) for value in values)
        return cls(heights=heights, standings=tuple(standings or [Standing.OK] * len(values)), label=label)

    def bars(
        self, width: float, height: float, widest: float, floors: Mapping[Standing, float]
    ) -> list[tuple[str, str, str]]:
        """Return the bars as paths for SVG, one for each standing: its name, the path, the width of its strokes.

        A bar is as high as its number, or as ``floors`` says where that gives its standing a height of its own.
        """
        step = width / max(len(self.standings), 1)
        stroke = min(step * 0.82, widest)
        paths: dict[Standing, list[str]] = {}
        for place, (share, standing) in enumerate(zip(self.heights, self.standings, strict=True)):
            if share is None:
                continue
            tall = max(floors.get(standing, share) * (height - 1), 1.5)
            paths.setdefault(standing, []).append(f"M{(place + 0.5) * step:.1f} {height:g}v-{tall:.1f}")
        return [(standing.value, "".join(path), f"{stroke:.1f}") for standing, path in paths.items()]


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page; subclasses name their template and hold everything that it shows."""

    template: ClassVar[str]
    frame: Frame
    title: str
    banners: tuple[Banner, ...] = ()

    def html(self) -> str:
        """Return the page as HTML; a template that asks for what the page does not hold raises UndefinedError."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        return environment().get_template(self.template).render(held)

    def document(self) -> dict[str, Any]:
        """Return the page's twin: the same data, as plain JSON values."""
        plain = _plain(self)
        assert isinstance(plain, dict)  # noqa: S101 - for the type checker: a dataclass becomes a dict
        return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kept = [one.name for one in fields(value) if one.metadata.get("twin", True)]
        return {name.rstrip("_"): _plain(getattr(value, name)) for name in kept}
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        return formats.iso(value)
    if isinstance(value, Enum):
        return value.value
    return value


@cache
def environment() -> Environment:
    """Return the one environment of the templates: escaped, and strict about names."""
    made = Environment(
        loader=PackageLoader("dashboards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "number",
        "compact",
        "percent",
        "probability",
        "moment",
        "iso",
        "day",
        "last_day",
        "age",
        "span",
        "plural",
    ):
        made.filters[name] = getattr(formats, name)
    made.globals = {"Standing": Standing, "STRIP": STRIP}
    return made
