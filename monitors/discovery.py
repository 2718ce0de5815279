"""What statistics and kinds of monitors there are: found in the packages and in installed plug-ins, listed nowhere."""

import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import getmembers, isabstract, isclass
from types import ModuleType
from typing import TypeVar

from monitors import kinds as kinds_package
from monitors import statistics as statistics_package
from monitors.contract import BinnedStatistic, Kind

METRICS, MONITORS = "plumbline.metrics", "plumbline.monitors"

Found = TypeVar("Found")


class NameTakenError(Exception):
    """Two discovered classes have the same name."""


@cache
def statistics() -> dict[str, BinnedStatistic]:
    """Return every statistic of a column with its default options, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _statistics().items()}


@cache
def kinds() -> dict[str, Kind]:
    """Return every kind of monitor, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _kinds().items()}


def by(name: str) -> str:
    """Return the distribution and version that a statistic or kind comes from, "" where it is one of ours."""
    for found in (_statistics(), _kinds()):
        if name in found:
            return found[name][1]
    return ""


def forget() -> None:
    """Look again at the next call: packages or entry points have changed."""
    for cached in (statistics, kinds, _statistics, _kinds):
        cached.cache_clear()


@cache
def _statistics() -> dict[str, tuple[type[BinnedStatistic], str]]:
    return _named(BinnedStatistic, statistics_package, METRICS)  # type: ignore[type-abstract]


@cache
def _kinds() -> dict[str, tuple[type[Kind], str]]:
    return _named(Kind, kinds_package, MONITORS)  # type: ignore[type-abstract]


def _named(what: type[Found], package: ModuleType, group: str) -> dict[str, tuple[type[Found], str]]:
    """Return the concrete subclasses of ``what`` by ``name``, with where plug-ins come from; raise NameTakenError."""
    found: dict[str, tuple[type[Found], str]] = {}
    for class_, origin in (*_walked(what, package), *_plugged(what, group)):
        name = str(getattr(class_, "name"))  # noqa: B009 - `name` is a ClassVar of both contracts
        if name in found and found[name][0] is not class_:
            raise NameTakenError(f"{name} is both {found[name][0].__module__} and {class_.__module__}")
        found[name] = (class_, origin)
    return dict(sorted(found.items()))


def _walked(what: type[Found], package: ModuleType) -> Iterator[tuple[type[Found], str]]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield from ((class_, "") for class_ in _defined(what, import_module(module.name)))


def _plugged(what: type[Found], group: str) -> Iterator[tuple[type[Found], str]]:
    """Yield the classes that entry points name: a class itself, or a module with all that it defines."""
    for point in entry_points(group=group):
        loaded = point.load()
        classes = _defined(what, loaded) if isinstance(loaded, ModuleType) else [loaded]
        for class_ in classes:
            if isclass(class_) and issubclass(class_, what) and not isabstract(class_):
                yield class_, _origin(point)


def _defined(what: type[Found], module: ModuleType) -> list[type[Found]]:
    return [
        class_
        for _, class_ in getmembers(module, isclass)
        if issubclass(class_, what) and not isabstract(class_) and class_.__module__ == module.__name__
    ]


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
