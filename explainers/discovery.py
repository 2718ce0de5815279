"""What formats, endpoints and methods there are: found in the package and in installed plug-ins, listed nowhere."""

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import getmembers, isabstract, isclass
from types import ModuleType
from typing import TypeVar

from explainers import artifacts as artifacts_package
from explainers import endpoints as endpoints_package
from explainers import methods as methods_package
from explainers.contract import Artifact, Endpoint, Method

GROUP = "plumbline.explainers"

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Refused:
    """A plug-in that is installed and not used: its entry point, the distribution it comes from, and why."""

    entry_point: str
    by: str
    reason: str


_refused: dict[str, Refused] = {}


def refused() -> tuple[Refused, ...]:
    """Return the plug-ins that are not used, with the reasons; the service works without them."""
    methods(), artifacts(), endpoints()
    return tuple(_refused[name] for name in sorted(_refused))


@cache
def methods() -> dict[str, Method]:
    """Return every method, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _named(Method, methods_package).items()}  # type: ignore[type-abstract]


@cache
def artifacts() -> dict[str, Artifact]:
    """Return every format of model files, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _named(Artifact, artifacts_package).items()}  # type: ignore[type-abstract]


@cache
def endpoints() -> dict[str, Endpoint]:
    """Return every protocol of endpoints, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _named(Endpoint, endpoints_package).items()}  # type: ignore[type-abstract]


def by(what: type[Method] | type[Artifact] | type[Endpoint]) -> str:
    """Return the distribution and version that a class comes from, "" where it is one of ours."""
    for point in entry_points(group=GROUP):
        if point.dist is not None and what.__module__.split(".")[0] == point.module.split(".")[0]:
            return f"{point.dist.name} {point.dist.version}"
    return ""


def _named(what: type[Found], package: ModuleType) -> dict[str, tuple[type[Found], str]]:
    found: dict[str, tuple[type[Found], str]] = {}
    for class_ in _walked(what, package):
        name = str(getattr(class_, "name"))  # noqa: B009 - `name` is a ClassVar of each contract
        if name in found and found[name][0] is not class_:
            raise ValueError(f"{name} is both {found[name][0].__module__} and {class_.__module__}")
        found[name] = (class_, class_.__module__)
    for class_, point in _plugged(what):
        name = str(getattr(class_, "name", ""))
        if not name or name in found:
            _refuse(point, f"the name {name} is taken" if name else f"{class_.__name__} has no name")
        else:
            found[name] = (class_, class_.__module__)
    return dict(sorted(found.items()))


def _walked(what: type[Found], package: ModuleType) -> Iterator[type[Found]]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield from _defined(what, import_module(module.name))


def _plugged(what: type[Found]) -> Iterator[tuple[type[Found], EntryPoint]]:
    for point in entry_points(group=GROUP):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the service goes on without it
            _refuse(point, f"it cannot be imported: {type(error).__name__}: {error}")
            continue
        for class_ in _defined(what, loaded) if isinstance(loaded, ModuleType) else [loaded]:
            if isclass(class_) and issubclass(class_, what) and not isabstract(class_):
                yield class_, point


def _refuse(point: EntryPoint, reason: str) -> None:
    by = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
    _refused[point.name] = Refused(point.name, by, reason)


def _defined(what: type[Found], module: ModuleType) -> list[type[Found]]:
    return [
        class_
        for _, class_ in getmembers(module, isclass)
        if issubclass(class_, what) and not isabstract(class_) and class_.__module__ == module.__name__
    ]
