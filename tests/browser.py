"""Staff pages in a real browser (Debian's chromium): a plugin with the fixture `open_admin`."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import Client

from tests.processes import until

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Resolves when fonts have come and scripts have nothing left to do.
IDLE = "() => document.fonts.ready.then(() => new Promise(end => requestIdleCallback(() => end())))"
marks = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A running chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with pytest.MonkeyPatch.context() as patch:
        # Playwright keeps an event loop in this thread; Django would refuse the database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with playwright.sync_playwright() as started:
            chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            yield chromium
            chromium.close()


@pytest.fixture
def open_admin(browser, live_server, settings, admin_user) -> Iterator[Callable]:
    """`open_admin("catalog/slugsummary/", width=…, dark=…)` is that page of the admin, as staff.

    `.faults` of the page: what the browser complained about. Other keywords go to the context.
    Contexts are kept, so that a second page of one width finds the styles in the cache.
    """
    settings.ALLOWED_HOSTS = ["*"]
    client = Client()
    client.force_login(admin_user)
    session = client.cookies["sessionid"].value
    contexts: dict[tuple, object] = {}

    def context_of(width: int, dark: bool, options: dict):
        key = (width, dark, repr(sorted(options.items())))
        if key not in contexts:
            context = browser.new_context(viewport={"width": width, "height": 900}, **options)
            context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
            theme = json.dumps(json.dumps("dark" if dark else "light"))
            context.add_init_script(f"localStorage.setItem('adminTheme', {theme})")
            contexts[key] = context
        return contexts[key]

    def open_page(path: str, *, width: int = 1440, dark: bool = False, **options):
        page = context_of(width, dark, options).new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on(
            "console",
            lambda said: page.faults.append(said.text) if said.type == "error" else None,
        )
        page.goto(f"{live_server.url}/admin/{path}")  # until it has loaded
        page.evaluate(IDLE)
        return page

    yield open_page
    for context in contexts.values():
        context.close()


def shot(page, name: str) -> None:
    """Keep a picture where SPYGLASS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("SPYGLASS_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def check_fits(page, name: str) -> None:
    """The page shows its main part, is no wider than the window, and raised no error."""
    assert page.locator("main, #main").first.is_visible(), name
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    until(lambda: page.evaluate(fits), f"{name}, no wider than the window", seconds=5)
    assert page.faults == [], name


def serious_barriers(page) -> list[str]:
    """What axe-core finds of serious or critical accessibility faults: rule, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
