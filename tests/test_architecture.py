"""The house stands as docs/architecture.md says: who may import whom, and a map without gaps."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOMAINS = {"catalog", "matching", "discovery", "feeds", "counters"}
MAY_IMPORT = {"config": set(), **{domain: {domain} for domain in DOMAINS}}
MAY_IMPORT["feeds"] |= {"counters"}
MAY_IMPORT["bench"] = DOMAINS | {"bench"}  # tests use it, never the other way round


def _imported(source: Path) -> Iterator[tuple[int, str]]:
    """Lines and top-level names of what a module imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno} imports relatively"
            yield node.lineno, node.module.partition(".")[0]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_no_other_domain(package):
    sources = sorted((ROOT / package).rglob("*.py"))
    assert len(sources) > 10
    others = (DOMAINS | {"tests", "bench"}) - MAY_IMPORT[package]
    wrong = [
        f"{source.relative_to(ROOT)}:{line} imports {name}"
        for source in sources
        for line, name in _imported(source)
        if name in others
    ]
    assert wrong == []


def test_the_map_names_every_module_of_config():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| for | modules |") :].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    modules = {one.stem for one in (ROOT / "config").glob("*.py")} - {"__init__"}
    assert modules - named == set()
    inner = {
        "base",
        "arguments",
        "daemon",
        "imports",
        "progress",
    }  # of the folders that the table names
    assert named - modules - inner == set()
