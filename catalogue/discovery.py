"""What classes of a contract there are: those that a package of ours defines, and those of installed plug-ins."""

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import getmembers, isabstract, isclass
from types import ModuleType
from typing import TypeVar

Found = TypeVar("Found")


class NameTakenError(Exception):
    """Two classes of our packages have the same name."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A plug-in that is installed and not used: its entry point, the distribution it comes from, and why."""

    group: str
    entry_point: str
    by: str
    reason: str


_refused: dict[tuple[str, str], Refused] = {}


def refused(*groups: str) -> tuple[Refused, ...]:
    """Return the plug-ins of groups of entry points that were looked at and are not used, with the reasons."""
    return tuple(_refused[place] for place in sorted(_refused) if place[0] in groups)


def forget(*groups: str) -> None:
    """Forget why plug-ins are not used: their entry points have changed."""
    for place in [place for place in _refused if place[0] in groups]:
        del _refused[place]


def named(what: type[Found], package: ModuleType, group: str, version: int) -> dict[str, tuple[type[Found], str]]:
    """Return the concrete subclasses of ``what`` by ``name``, with the distribution that plug-ins come from.

    ``version`` is the contract's, which plug-ins say they were made for. A plug-in that cannot be used is left out and
    told by `refused`; two classes of ours with one name raise NameTakenError.
    """
    found: dict[str, tuple[type[Found], str]] = {}
    for class_ in _walked(what, package):
        name = str(getattr(class_, "name"))  # noqa: B009 - `name` is a ClassVar of every contract
        if name in found and found[name][0] is not class_:
            raise NameTakenError(f"{name} is both {found[name][0].__module__} and {class_.__module__}")
        found[name] = (class_, "")
    for class_, point in _plugged(what, group):
        origin, fault = _origin(point), _fault(class_, version)
        name = str(getattr(class_, "name", ""))
        if not fault and name in found and found[name][0] is not class_:
            fault = f"the name {name} is taken by {found[name][1] or 'Plumbline itself'}"
        if fault:
            _refuse(group, point, fault)
        else:
            found[name] = (class_, origin)
    return dict(sorted(found.items()))


def _walked(what: type[Found], package: ModuleType) -> Iterator[type[Found]]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield from _defined(what, import_module(module.name))


def _plugged(what: type[Found], group: str) -> Iterator[tuple[type[Found], EntryPoint]]:
    """Yield the classes that entry points name: a class itself, or a module with all that it defines."""
    for point in entry_points(group=group):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the service goes on without it
            _refuse(group, point, f"it cannot be imported: {type(error).__name__}: {error}")
            continue
        if not isclass(loaded) and not isinstance(loaded, ModuleType):
            _refuse(group, point, "an entry point names a class, or a module that defines some")
            continue
        classes = _defined(what, loaded) if isinstance(loaded, ModuleType) else [loaded]
        for class_ in classes:
            if issubclass(class_, what) and not isabstract(class_):
                yield class_, point


def _fault(class_: type, version: int) -> str:
    """Return why a plug-in's class cannot be used, "" where it can."""
    made_for = getattr(class_, "contract", None)
    if made_for is None:
        return f"{class_.__name__} does not say which contract it was made for: contract = {version}"
    if made_for != version:
        return f"{class_.__name__} was made for contract {made_for}, this is contract {version}"
    if not str(getattr(class_, "name", "")).isidentifier():
        return f"{class_.__name__} has no name in letters, digits and underscores"
    try:
        class_()
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the service goes on without it
        return f"{class_.__name__} cannot be made without arguments: {type(error).__name__}: {error}"
    return ""


def _refuse(group: str, point: EntryPoint, reason: str) -> None:
    _refused[group, point.name] = Refused(group, point.name, _origin(point), reason)


def _defined(what: type[Found], module: ModuleType) -> list[type[Found]]:
    return [
        class_
        for _, class_ in getmembers(module, isclass)
        if issubclass(class_, what) and not isabstract(class_) and class_.__module__ == module.__name__
    ]


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
