"""The invariants of ARCHITECTURE.md that can be read off the source."""

import ast
import json
import re
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("service", "monitors", "explainers", "dashboards", "catalogue", "migrations")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

NEVER_IMPORTED = {"pickle", "cPickle", "joblib", "cloudpickle", "dill", "shelve", "marshal", "torch"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
WORKER_ONLY = {"evidently", "shap", "vl_convert"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def saying(names: set[str]) -> list[Path]:
    """Return the modules whose text, spelt as Python reads it, has one of these names: no other can use it."""
    words = re.compile(rf"\b({'|'.join(names)})\b")
    texts = {path: path.read_text() for path in SOURCES}
    return [path for path, text in texts.items() if words.search(unicodedata.normalize("NFKC", text))]


def imported(path: Path) -> set[str]:
    """Return the top-level names of the packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def called(tree: ast.AST) -> set[str]:
    """Return the plain names that a module calls."""
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_no_module_can_load_a_pickle_or_run_text_as_code() -> None:
    assert named([path for path in saying(NEVER_IMPORTED) if imported(path) & NEVER_IMPORTED]) == []
    assert named([path for path in saying(NEVER_CALLED) if called(parsed(path)) & NEVER_CALLED]) == []


def test_heavy_libraries_are_imported_only_by_what_the_worker_process_runs() -> None:
    allowed = (ROOT / "service" / "tasks", ROOT / "explainers")
    others = [path for path in saying(WORKER_ONLY) if not any(path.is_relative_to(folder) for folder in allowed)]
    assert named([path for path in others if imported(path) & WORKER_ONLY]) == []


def test_every_module_begins_with_a_sentence() -> None:
    sentence = re.compile(r'"""\S[^\n]*\.("""\n|\n\n)')
    assert named([path for path in SOURCES if not sentence.match(path.read_text())]) == []


def test_the_command_line_says_its_version_without_loading_what_serves() -> None:
    code = (
        "import sys; from service.cli.main import version; version();"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'sqlalchemy', 'fastapi', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[1:] == ["[]"]


@pytest.fixture(scope="module")
def imported_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], set[str]]:
    """Import the service in a process of its own; return its home, what it touched, and which modules it has."""
    home = tmp_path_factory.mktemp("home")
    code = """
import json, sys, os
events = []
def watch(event, arguments):
    if event.startswith("socket.connect") or event == "socket.bind" or event == "sqlite3.connect":
        events.append((event, str(arguments)))
    if event == "open" and not isinstance(arguments[0], int) and set(arguments[1] or "") & set("wax+"):
        if not str(arguments[0]).endswith((".pyc", ".nbi", ".nbc")) and "__pycache__" not in str(arguments[0]):
            events.append((event, str(arguments[0])))
sys.addaudithook(watch)
import service.app, service.cli.main
print(json.dumps([events, sorted(sys.modules)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=home,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    events, modules = json.loads(done.stdout)
    return home, events, set(modules)


def test_importing_the_service_touches_neither_disk_nor_network(
    imported_alone: tuple[Path, list[Any], set[str]],
) -> None:
    home, events, _ = imported_alone
    assert events == []
    assert not [path for path in home.iterdir() if path.name != ".cache"]


def test_heavy_libraries_are_not_imported_by_the_service_process(
    imported_alone: tuple[Path, list[Any], set[str]],
) -> None:
    slow = WORKER_ONLY | {"pandas", "sklearn", "lightgbm", "xgboost", "catboost", "onnxruntime", "woodelf", "skops"}
    assert slow & imported_alone[2] == set()
