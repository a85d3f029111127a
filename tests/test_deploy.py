"""The container files, as far as they can be checked without an engine."""

import re
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands

PROJECT = Path(__file__).resolve().parent.parent
COMPOSE = PROJECT / "deploy" / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_commands_exist(services: dict) -> None:
    for name in ("worker", "migrate"):
        python, script, command, *_ = services[name]["command"]
        assert (python, script) == ("python", "manage.py")
        assert command in get_commands()


def test_every_setting_is_in_the_example() -> None:
    example = (PROJECT / "deploy" / "env.example").read_text()
    for name in re.findall(r"\$\{(\w+)", COMPOSE.read_text()):
        assert re.search(rf"^{name}=", example, re.MULTILINE), name


def test_mounted_and_copied_files_exist(services: dict) -> None:
    assert (PROJECT / "deploy" / services["pgbouncer"]["build"]["dockerfile"]).exists()
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (PROJECT / "deploy" / source).exists()
    for line in (PROJECT / "Dockerfile").read_text().splitlines():
        if match := re.match(r"COPY (\w[\w.-]+) ", line):
            assert (PROJECT / match[1]).exists()


def test_the_role_behind_pgbouncer_gets_its_limits_before_the_app_starts(services: dict) -> None:
    role = re.search(r"//(\w+):", services["app"]["environment"]["DATABASE_URL"])[1]
    assert services["migrate"]["environment"]["DB_ROLES"] == f"{role}=web"
    after = services["app"]["depends_on"]["migrate"]["condition"]
    assert after == "service_completed_successfully"


def test_only_the_pooled_service_says_so(services: dict) -> None:
    for service in services.values():
        url = service.get("environment", {}).get("DATABASE_URL", "")
        assert ("@pgbouncer:" in url) == ("PGBOUNCER" in service.get("environment", {}))


def test_every_setting_and_command_is_documented() -> None:
    documented = (PROJECT / "docs" / "operations.md").read_text()
    settings = (PROJECT / "config" / "settings.py").read_text()
    for name in re.findall(r'env(?:\.\w+)?\(\s*"(\w+)"', settings):
        assert f"`{name}`" in documented, name
    for command, app in get_commands().items():
        if app in ("config", "catalog", "matching", "discovery", "counters", "feeds"):
            assert f"`{command}" in documented, command


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
