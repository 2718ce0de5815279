"""What formats, endpoints and methods there are: found in the package and in installed plug-ins, listed nowhere."""

import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from inspect import getmembers, isabstract, isclass
from types import ModuleType
from typing import TypeVar

from explainers import artifacts as artifacts_package
from explainers import endpoints as endpoints_package
from explainers import methods as methods_package
from explainers.contract import Artifact, Endpoint, Method

GROUP = "plumbline.explainers"

Found = TypeVar("Found")


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
    for class_ in (*_walked(what, package), *_plugged(what)):
        name = str(getattr(class_, "name"))  # noqa: B009 - `name` is a ClassVar of each contract
        if name in found and found[name][0] is not class_:
            raise ValueError(f"{name} is both {found[name][0].__module__} and {class_.__module__}")
        found[name] = (class_, class_.__module__)
    return dict(sorted(found.items()))


def _walked(what: type[Found], package: ModuleType) -> Iterator[type[Found]]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield from _defined(what, import_module(module.name))


def _plugged(what: type[Found]) -> Iterator[type[Found]]:
    for point in entry_points(group=GROUP):
        loaded = point.load()
        for class_ in _defined(what, loaded) if isinstance(loaded, ModuleType) else [loaded]:
            if isclass(class_) and issubclass(class_, what) and not isabstract(class_):
                yield class_


def _defined(what: type[Found], module: ModuleType) -> list[type[Found]]:
    return [
        class_
        for _, class_ in getmembers(module, isclass)
        if issubclass(class_, what) and not isabstract(class_) and class_.__module__ == module.__name__
    ]
