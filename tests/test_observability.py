"""Alerts, dashboards and runbooks: they parse, fire when they should, and name what exists."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands
from django.db import connection
from django.test import Client
from django.urls import resolve
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from config import jobs, metrics, readmodels, tally

PROJECT = Path(__file__).resolve().parent.parent
PROMETHEUS = PROJECT / "deploy" / "prometheus"
RUNBOOKS = PROJECT / "docs" / "runbooks"
NOT_OF_AN_ALERT = {"README.md", "indexes-and-partitions.md"}
DASHBOARDS = sorted((PROJECT / "deploy" / "grafana").glob("*.json"))
OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
OF_THE_SCRAPE = {"job", "instance"}

ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
PANELS = [
    pytest.param(panel, id=f"{path.stem}: {panel['title']}")
    for path in DASHBOARDS
    for panel in json.loads(path.read_text())["panels"]
    if panel["type"] != "row"
]


def promtool(*arguments: object) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=PROMETHEUS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration():
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", "alerts_test.yaml")
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    told = {}
    for case in cases:
        for one in case["promql_expr_test"]:
            name = re.search(r'alertname="(\w+)"', one["expr"])[1]
            told.setdefault(name, set()).add(bool(one["exp_samples"]))
    assert told == {name: {True, False} for name in ALERTS}


def test_prometheus_takes_the_expressions_of_the_dashboards(tmp_path):
    rules = [
        {"record": f"panel_{number}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for number, target in enumerate(
            target for panel in PANELS for target in panel.values[0]["targets"]
        )
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)


@pytest.fixture(scope="module")
def known(django_db_setup, django_db_blocker) -> dict[str, set[str]]:
    """The labels of every sample that `/metrics` can have, from the objects that make them."""
    with django_db_blocker.unblock():
        Client().get("/metrics")  # imports every metrics.py, and makes those of the middleware
        found = {}
        for metric in REGISTRY._collector_to_names:
            if isinstance(metric, MetricWrapperBase):
                found |= _samples(metric._name, metric._type, metric._labelnames)
        for collect in metrics.parts():
            if collect is not metrics._tallies:
                for family in collect():
                    found |= _samples(family.name, family.type, family._labelnames)
        for family in [*metrics._cache_hit_ratio([]), metrics._failures({})]:
            found |= _samples(family.name, family.type, family._labelnames)
    for one in tally.declared().values():
        if one.bounds:
            found |= _samples(one.name, "histogram", ())
        else:
            found[one.name] = set(one.labels)
    return found


def _samples(name: str, kind: str, labels) -> dict[str, set[str]]:
    labels = set(labels)
    match kind:
        case "counter":
            return {f"{name}_total": labels}
        case "histogram":
            plain = {f"{name}_sum": labels, f"{name}_count": labels}
            return plain | {f"{name}_bucket": labels | {"le"}}
        case _:
            return {name: labels}


@pytest.mark.django_db(transaction=True)
def test_what_is_known_is_what_a_server_shows(known, client: Client, person, fresh_process):
    """After requests and runs of jobs, so that what is counted appears."""
    ann = person("ann", "items", "feeds")
    ann.send("match", {"query": {"kind": "lost", "title": "black umbrella"}})
    ann.send("posts", {"text": "First light."})
    ann.read("feed")
    for path in ("/api/v1/catalog", "/api/v1/items/search?q=bag", "/health/ready", "/nowhere"):
        client.get(path)
    for name in ("match_queue", "refresh_catalog", "refresh_feeds", "fold_counters", "canary"):
        jobs.run_job(name, trigger="test")
    shown = {}
    for family in text_string_to_metric_families(client.get("/metrics").content.decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created") and not sample.name.startswith(
                ("python_", "process_")  # of this process alone; several share no such thing
            ):
                shown.setdefault(sample.name, set(sample.labels))
    assert {name: known.get(name) for name in shown} == shown
    assert len(shown) > 60
    for name in ("matching_job_duration_seconds_bucket", "job_runs_total", "feed_fanouts_total"):
        assert name in shown


def test_what_is_counted_is_declared_and_what_is_declared_is_counted(known):
    counted: dict[str, set[str]] = {}
    for path in PROJECT.glob("*/**/*.py"):
        if path.parts[len(PROJECT.parts)] in ("tests", "bench", "var", ".venv", "script"):
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                for name, labels in _counted(call):
                    counted.setdefault(name, set()).update(labels)
    declared = {name: set(one.labels) for one in tally.declared().values() for name in [one.name]}
    assert counted == declared


def _counted(call: ast.Call) -> Iterator[tuple[str, set[str]]]:
    """The counter that `tally.add`, `Count` or `tally.observed` names, with its labels."""
    function = ast.unparse(call.func)
    if not call.args or not isinstance(call.args[0], ast.Constant):
        return
    name = call.args[0].value
    if function == "tally.add":
        yield name, {keyword.arg for keyword in call.keywords} - {"value"}
    elif function == "tally.observed":
        yield name, set()
    elif function in ("Count", "tally.Count") and len(call.args) > 1:
        assert isinstance(call.args[1], ast.Dict), ast.unparse(call)
        yield name, {key.value for key in call.args[1].keys}


KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "bool"}
GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)")


def examine(expression: str, known: dict[str, set[str]]) -> set[str]:
    """Assert that the metrics of an expression exist and have its labels; what it groups by."""
    known = known | OF_PROMETHEUS
    grouped = {
        label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")
    } - {""}
    rest = re.sub(r"\[\w+\]", "", GROUPING.sub("", expression))
    used = set()
    for name, matchers in re.findall(r"([a-zA-Z_]\w*)\s*(\{[^}]*\})?(?!\s*\(|\w)", _bare(rest)):
        if name in KEYWORDS:
            continue
        assert name in known, f"{name} is no metric"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= known[name] | OF_THE_SCRAPE, f"{name} has no {labels - known[name]}"
        used |= known[name]
    assert grouped <= used, f"nothing has {grouped - used}"
    return grouped or used


def _bare(expression: str) -> str:
    """The expression without the texts of its matchers."""
    return re.sub(r'"[^"]*"', '""', expression)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_uses_what_exists(name, known):
    rule = ALERTS[name]
    grouped = examine(rule["expr"], known)
    notes = rule["annotations"]
    assert set(re.findall(r"\$labels\.(\w+)", notes["description"])) <= grouped | OF_THE_SCRAPE
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "$value" in notes["description"] or "$labels" in notes["description"]
    assert notes["summary"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_uses_what_exists_and_draws_the_line_of_its_alert(panel, known):
    for target in panel["targets"]:
        grouped = examine(target["expr"], known)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped
    alert = re.search(r"Alert: (\w+)\.", panel["description"])
    if alert:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[1]["value"] == threshold(ALERTS[alert[1]]["expr"])


def threshold(expression: str) -> float:
    """The first number that an expression compares with."""
    number = re.search(r"(?:>=|<|>|==)\s*([\d.]+(?:\s*\*\s*\d+)?)", _bare(expression))[1]
    first, _, second = number.partition("*")
    return float(first) * float(second or 1)


def test_the_threshold_of_an_expression():
    assert threshold('max(a{b=">9"}) > 2 * 86400') == 172_800
    with pytest.raises(AssertionError, match="no metric"):
        examine("rate(nothing_total[5m])", {})
    with pytest.raises(AssertionError, match="has no"):
        examine('max(here{nothere="x"})', {"here": set()})
    with pytest.raises(AssertionError, match="nothing has"):
        examine("max by (nothere) (here)", {"here": set()})


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path):
    found = json.loads(path.read_text())
    assert found["uid"] == f"spyglass-{path.stem}"
    assert found["schemaVersion"] >= 39
    assert "id" not in found  # Grafana gives one
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_containers_of_monitoring_find_their_files():
    text = (PROJECT / "deploy" / "monitoring.yaml").read_text()
    example = (PROJECT / "deploy" / "env.example").read_text()
    for name in re.findall(r"\$\{(\w+)", text):
        assert re.search(rf"^{name}=", example, re.MULTILINE), name
    services = yaml.safe_load(text)["services"]
    beside = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())["services"]
    assert services["prometheus"]["network_mode"] == "service:app"
    assert "app" in beside
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (PROJECT / "deploy" / source).exists()
    folder = PROJECT / "deploy" / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://app:9090"
    [provider] = yaml.safe_load((folder / "dashboards" / "spyglass.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted


def test_every_alert_has_its_page_and_every_page_its_alert():
    pages = {path.name for path in RUNBOOKS.glob("*.md")}
    assert pages - NOT_OF_AN_ALERT == {f"{name}.md" for name in ALERTS}
    assert pages >= NOT_OF_AN_ALERT
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"
        page = (RUNBOOKS / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        for heading in ("## Look at", "## Do", "## Over when"):
            assert heading in page, name


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_page_names_what_exists(path, known, settings):
    text = path.read_text()
    commands = get_commands()
    for command, argument in re.findall(r"manage\.py (\w+)(?: ([a-z_]+))?", text):
        assert command in commands, command
        if argument and command == "run_job":
            assert argument in jobs.all(), argument
        if argument and command in ("refresh", "reconcile"):
            readmodels.select([argument])
    for address in re.findall(r"`(/admin/[^`?]*)", text):
        resolve(address)
    for other in re.findall(r"\b([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", re.sub("`[^`]*`", "", text)):
        assert other in ALERTS or other == "PgBouncer", other
    for job in re.findall(r"\?job=([a-z_]+)", text):
        assert job in jobs.all(), job
    for name in re.findall(r"`([a-z]+_[a-z_]+)(?:\{[^`]*\})?`", text):
        is_metric = name in known or f"{name}_sum" in known
        assert is_metric or name in NAMES_OF_OTHERS | set(jobs.all()) | _tables(), name
    for name in re.findall(r"`([A-Z]+_[A-Z_]+)", text):
        assert name in (PROJECT / "docs" / "operations.md").read_text(), name


def _pages() -> str:
    return "\n".join(path.read_text() for path in sorted(RUNBOOKS.glob("*.md")))


def test_screens_that_pages_name_answer(admin_client, fresh_process):
    """With their filters: Django redirects to `?e=1` from one that it does not know."""
    addresses = sorted(set(re.findall(r"`(/admin/[^`]*[?][^`]*)`", _pages())))
    assert len(addresses) > 8
    for address in addresses:
        answer = admin_client.get(address.replace("=NAME", "=prune"))
        assert answer.status_code == 200, address


@pytest.mark.django_db
def test_queries_that_pages_name_run():
    found = re.findall(r"^    (SELECT [^;]*;)|`(SELECT [^`;]*;)`", _pages(), re.MULTILINE)
    statements = [one or other for one, other in found]
    assert len(statements) > 5
    with connection.cursor() as cursor:
        for statement in statements:
            if "pg_terminate_backend" not in statement:
                cursor.execute(statement)


NAMES_OF_OTHERS = {
    "evicted_keys",
    "max_connections", "pg_stat_statements", "request_id", "refresh_", "ingest_snapshots",
}  # fmt: skip


def _tables() -> set[str]:
    from django.apps import apps

    return {model._meta.db_table for model in apps.get_models()} | set(readmodels.all())
