"""What formats, endpoints and methods there are: found in the package and in installed plug-ins, listed nowhere."""

from functools import cache

from catalogue import discovery
from catalogue.discovery import Refused, named
from explainers import artifacts as artifacts_package
from explainers import endpoints as endpoints_package
from explainers import methods as methods_package
from explainers.contract import CONTRACT_VERSION, Artifact, Endpoint, Method

GROUP = "plumbline.explainers"


@cache
def methods() -> dict[str, Method]:
    """Return every method, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _methods().items()}


@cache
def artifacts() -> dict[str, Artifact]:
    """Return every format of model files, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _artifacts().items()}


@cache
def endpoints() -> dict[str, Endpoint]:
    """Return every protocol of endpoints, by name, in the order of the names."""
    return {name: found() for name, (found, _) in _endpoints().items()}


def by(thing: Method | Artifact | Endpoint) -> str:
    """Return the distribution and version that a method, format or protocol comes from, "" where it is one of ours."""
    for found in (_methods(), _artifacts(), _endpoints()):
        class_, origin = found.get(thing.name, (None, ""))
        if class_ is type(thing):
            return origin
    return ""


def refused() -> tuple[Refused, ...]:
    """Return the plug-ins that are not used, with the reasons; the service works without them."""
    _methods(), _artifacts(), _endpoints()
    return discovery.refused(GROUP)


def forget() -> None:
    """Look again at the next call: packages or entry points have changed."""
    for cached in (methods, artifacts, endpoints):
        cached.cache_clear()
    for looked_at in (_methods, _artifacts, _endpoints):
        looked_at.cache_clear()
    discovery.forget(GROUP)


@cache
def _methods() -> dict[str, tuple[type[Method], str]]:
    return named(Method, methods_package, GROUP, CONTRACT_VERSION)  # type: ignore[type-abstract]


@cache
def _artifacts() -> dict[str, tuple[type[Artifact], str]]:
    return named(Artifact, artifacts_package, GROUP, CONTRACT_VERSION)  # type: ignore[type-abstract]


@cache
def _endpoints() -> dict[str, tuple[type[Endpoint], str]]:
    return named(Endpoint, endpoints_package, GROUP, CONTRACT_VERSION)  # type: ignore[type-abstract]
