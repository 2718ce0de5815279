"""What many tests need: real data, a running service, the application in this process, a receiver of webhooks."""

import gc
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.clock import Clock
from service.settings import Settings
from tests.postgres import Cluster
from tests.receiver import Receiver
from tests.running import PATIENCE, UNHURRIED, Service
from tests.service.empty import copy_empty

ROOT = Path(__file__).parent.parent
ADMIN_KEY = "plk_test_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


expect.set_options(timeout=PATIENCE * 1000)


def refuse_skip(report: Any) -> None:
    """Turn a skip into a failure where everything that tests may skip for was provided (CI)."""
    if report.skipped and os.environ.get("REFUSE_SKIPS") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"REFUSE_SKIPS is set and this was skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the collector still while modules are loaded, and spare it what they made, as a service does that starts."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # what little is garbage by now stays: looking for it takes half a second in each worker
        gc.set_threshold(50_000, 20, 50)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, services that are run and harmed, so that no worker is left alone with it."""
    here = Path(__file__).parent
    folders = [here / "faults", here, here / "service"]

    def place(item: pytest.Item) -> int:
        folder = item.path.parent
        return folders.index(folder) if folder in folders else len(folders)

    items.sort(key=place)
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))  # the limit of pyproject.toml is for the short ones


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    report = yield
    refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets beside the checkout."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real data sets are expected in ../shared/data, beside the checkout")
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the back end that is installed here."""
    pytest.importorskip("hatchling", reason="building needs requirements/build.txt, which `make install` installs")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT],
        check=True,
        capture_output=True,
        text=True,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium to drive."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on the PATH (on Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any], chromium: str) -> dict[str, Any]:
    """Let pytest-playwright use the system's Chromium; as root it runs without its sandbox."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {
        **browser_type_launch_args,
        "executable_path": chromium,
        "args": [*sandbox, "--disable-dev-shm-usage"],
        "timeout": PATIENCE * 1000,
    }


@pytest.fixture
def context(context: BrowserContext) -> BrowserContext:
    """Return the browser's context of a test, which waits for a slow machine too."""
    context.set_default_timeout(PATIENCE * 1000)
    return context


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run one service for all tests of this worker; use names of your own in it."""
    with Service.started(tmp_path_factory.mktemp("service"), admin_key=ADMIN_KEY) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Run a service of this test's own: a real process with an empty data folder."""
    with Service.started(tmp_path / "service", admin_key=ADMIN_KEY) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings of an empty data folder with a known admin key, webhooks to this host allowed."""
    return Settings(
        data_dir=tmp_path / "data",
        admin_key=SecretStr(ADMIN_KEY),
        outbound_allow=("127.0.0.1",),
        outbound_http=True,
    )


@pytest.fixture
def make_client(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """Return a function that opens the application in this process, with another clock or other settings if given."""
    from service.app import create_app

    opened: list[TestClient] = []

    def make(clock: Clock | None = None, **changes: Any) -> TestClient:
        changed = settings.model_copy(update=changes)
        if changed.database_url is None:
            copy_empty(changed.data_dir / "plumbline.db")
        app = create_app(changed, clock)
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", **UNHURRIED}
        client = TestClient(app, raise_server_exceptions=False, headers=headers)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in reversed(opened):
        client.__exit__(None, None, None)


@pytest.fixture
def app_client(make_client: Callable[..., TestClient]) -> TestClient:
    """Return a client of the application in this process, with the admin key."""
    return make_client()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver of webhooks on a free port of this host."""
    with Receiver.listening() as listening:
        yield listening


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a PostgreSQL server for all tests of this worker."""
    with Cluster.started() as cluster:
        yield cluster


@pytest.fixture
def new_postgres_url(postgres_cluster: Cluster) -> Callable[[], str]:
    """Return a function that makes an empty PostgreSQL database and returns its SQLAlchemy URL."""
    return lambda: postgres_cluster.new_database(f"t{secrets.token_hex(6)}")


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """Return the SQLAlchemy URL of an empty PostgreSQL database of this test's own."""
    return new_postgres_url()


@pytest.fixture(scope="session")
def plumbline() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command line and hands back what it printed."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service.cli.main", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
