"""The documents say what is so: settings, links, image, compose file, locks."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from service.cli import configuration
from service.settings import SettingRefused, UnknownSetting, load_settings

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if ".venv" not in path.parts)
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def test_the_page_of_settings_is_what_the_class_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration.page(), "run `make docs`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_files_that_the_documents_name_exist() -> None:
    later = set(re.findall(r"^\| [^|]+\| (.*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M))
    for path in PAGES:
        text = path.read_text()
        for cell in later:
            text = text.replace(cell, "")
        for name in re.findall(
            r"`((?:service|monitors|explainers|dashboards|catalogue|migrations|tests|docs|deploy)/[\w./-]+?)[:`]", text
        ):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_a_setting_that_nobody_knows_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownSetting, match="PLUMBLINE_DATADIR is not a setting: did you mean PLUMBLINE_DATA_DIR"):
        load_settings({"PLUMBLINE_DATADIR": "x"})


def test_a_secret_may_be_given_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("plk_secret\n")
    settings = load_settings({"PLUMBLINE_ADMIN_KEY_FILE": str(tmp_path / "key")})
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "plk_secret"
    assert "plk_secret" not in repr(settings)
    with pytest.raises(SettingRefused, match="cannot be read"):
        load_settings({"PLUMBLINE_ADMIN_KEY_FILE": str(tmp_path / "none")})


def test_a_value_that_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(
        SettingRefused, match=r"^PLUMBLINE_MAX_JSON cannot be used: input should be a valid integer"
    ) as told:
        load_settings({"PLUMBLINE_MAX_JSON": "lots"})
    assert "\n" not in str(told.value)


def test_lists_are_separated_by_commas() -> None:
    assert load_settings({"PLUMBLINE_OUTBOUND_ALLOW": "a.internal, 10.0.0.0/8"}).outbound_allow == (
        "a.internal",
        "10.0.0.0/8",
    )


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_carry_hashes_and_no_addresses(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 5
    for entry in entries:
        assert re.match(r"^[\w.\[\]-]+==[^\s;]+", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_a_package_has_one_version_in_all_locks() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)(?= ;| \\)", path.read_text(), re.M))

    whole = pins(ROOT / "requirements" / "full.txt")
    for path in (path for path in LOCKS if path.name not in ("peers.txt", "smclarify.txt")):
        for name, version in pins(path).items():
            assert whole.get(name, version) == version, f"{path.name}: {name}"


def test_the_locks_hold_what_the_distribution_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements" / "serve.txt").read_text()
    for requirement in project["dependencies"]:
        name = re.split(r"[\[<>=!;]", requirement)[0].strip()
        assert re.search(rf"^{re.escape(name)}(\[[\w,]+\])?==", locked, re.M), f"{name}: run `make lock`"


def test_no_file_of_the_checkout_names_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    wanted = re.compile("|".join(("py" + "pi\\.org", "python" + "hosted", "--extra-" + "index-url", "simple" + "/$")))
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix in {"", ".txt", ".toml", ".md", ".yaml", ".in", ".py", ".cfg"}:
            assert not wanted.search(path.read_text(encoding="utf-8", errors="ignore")), name


def stages() -> list[list[str]]:
    """Return the Dockerfile's instructions by stage, continuation lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def test_the_image_is_built_in_stages_from_a_pinned_slim_base() -> None:
    assert len(stages()) == 2
    tag = re.search(r"^ARG PYTHON=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert tag is not None
    assert re.fullmatch(r"3\.1[123]\.\d+-slim-\w+", tag[1])
    for stage in stages():
        assert stage[0].split()[1] == "python:${PYTHON}"


def test_the_image_runs_as_nobody_special_and_tells_its_health() -> None:
    last = stages()[-1]
    instructions = [line.split()[0] for line in last]
    assert [line for line in last if line.startswith("USER ")] == ["USER 10001:10001"]
    assert instructions.index("USER") < instructions.index("ENTRYPOINT")
    assert "HEALTHCHECK" in instructions
    assert json.loads(last[instructions.index("ENTRYPOINT")].split(" ", 1)[1]) == ["plumbline"]
    assert "NUMBA_CACHE_DIR=" in "\n".join(last)
    assert not [line for line in last if re.search(r"apt-get|curl|ADD ", line)]


def test_the_image_copies_only_what_exists_and_is_let_in() -> None:
    let_in = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    } | {"requirements"}
    for line in stages()[0]:
        if line.startswith("COPY "):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
                assert name.rstrip("/") in let_in, name


def test_compose_offers_one_host_with_sqlite_and_several_processes_with_postgresql() -> None:
    document = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    services = document["services"]
    assert {profile for service in services.values() for profile in service["profiles"]} == {"single", "postgresql"}
    roles = {part for name in ("api", "worker") for part in services[name]["environment"]["PLUMBLINE_ROLES"].split(",")}
    assert roles == set(load_settings({}).roles)
    for name in ("plumbline", "api", "worker"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        given = {key: "x" for key in services[name]["environment"] if key not in ("PLUMBLINE_ROLES",)}
        load_settings(given)
        for port in services[name].get("ports", []):
            assert port.startswith("127.0.0.1:"), "open to the world only on purpose"


def test_make_says_what_it_can_make() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True)
    for target in ("install", "demo", "test", "ci"):
        assert f"make {target}" in done.stdout


def test_the_command_line_says_its_version_to_people_and_machines(
    plumbline: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    plain, told = plumbline("version"), plumbline("version", "--output", "json")
    assert json.loads(told.stdout) == {"version": plain.stdout.strip()}
