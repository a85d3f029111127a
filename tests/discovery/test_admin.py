"""Discovery's staff screens: what they show and hide, what they change, who may, at what cost."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config import vitals
from discovery.admin.masking import masked, shown_error, shown_target, without_credentials
from discovery.models import Bucket, DropEvent, Source, UserNotification, Venue, Watch
from tests.discovery import scenes
from tests.people import page, staff

pytestmark = pytest.mark.django_db

SOURCES = "/admin/discovery/source/"
VENUES = "/admin/discovery/venue/"
DROPS = "/admin/discovery/dropevent/"
WATCHES = "/admin/discovery/watch/"
DELIVERIES = "/admin/discovery/usernotification/"
LISTS = [SOURCES, VENUES, DROPS, WATCHES, DELIVERIES]
FORM = {
    "name": "tables",
    "title": "Tables of the town",
    "provider": "push",
    "config": "{}",
    "timezone": "Europe/Berlin",
    "window_days": "",
    "poll_seconds": "60",
}
SECRETS = (scenes.SECRET, "pa55word", "B1111", "x9y8z7", "topsecret")


def statements(client, url: str) -> int:
    """How many statements a page costs, once everything is warm."""
    page(client, url)
    with CaptureQueriesContext(connection) as captured:
        page(client, url)
    return len(captured)


class Town:
    """A source with a venue, an open, a closed and an over drop, a watch, and a dead letter."""

    def __init__(self) -> None:
        now = timezone.now()
        self.source = scenes.make_source(
            last_success_at=now, title="Tables <b>of</b> the town", timezone="Europe/Berlin"
        )
        self.venue = scenes.make_venue(self.source, "chez-odile", name="Chez <i>Odile</i>")
        scenes.count(self.venue)
        hour = timedelta(hours=1)
        self.open = scenes.drop(self.venue, "table-open", age=2 * hour, length=None)
        scenes.hold_open(self.open)
        self.closed = scenes.drop(self.venue, "table-shut", age=5 * hour, length=hour)
        self.over = scenes.drop(self.venue, "table-over", age=9 * hour, length=None)
        self.old = scenes.drop(self.venue, "table-old", age=60 * hour, length=hour)
        self.watch = scenes.watch(scenes.person(), source=self.source)
        scenes.name_venues(self.watch, self.venue)
        self.dead = scenes.notification(
            self.watch,
            self.open,
            state="dead",
            attempts=5,
            error=f"POST {scenes.TARGET} answered 500; signed with {scenes.SECRET}",
        )


@pytest.fixture
def town():
    return Town()


# --- every screen --------------------------------------------------------------------------------


@pytest.mark.parametrize("url", LISTS)
def test_lists_open_without_any_row(admin_client, url):
    assert "unfold/css/styles" in page(admin_client, url)


@pytest.mark.parametrize("url", [*LISTS, f"{SOURCES}add/"])
def test_lists_open_with_rows_for_staff_alone(admin_client, town, url):
    page(admin_client, url)
    answer = Client().get(url)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")


def pages_of(town: Town) -> list[str]:
    return [
        f"{SOURCES}{town.source.pk}/change/",
        f"{SOURCES}{town.source.pk}/window/",
        f"{VENUES}{town.venue.pk}/change/",
        f"{WATCHES}{town.watch.pk}/change/",
        f"{DELIVERIES}{town.dead.pk}/change/",
    ]


def test_pages_open_for_staff_alone(admin_client, town):
    nobody = staff()
    for url in pages_of(town):
        page(admin_client, url)
        assert Client().get(url)["Location"].startswith("/admin/login/"), url
        assert nobody.get(url).status_code == 403, url
    for url in LISTS:
        assert nobody.get(url).status_code == 403, url


def test_what_is_not_there(admin_client, town):
    for url in (
        f"{SOURCES}999/window/",
        f"{VENUES}999/change/",
        f"{VENUES}x/change/",
        f"{VENUES}{'9' * 30}/change/",
        f"{DROPS}999/change/",
        f"{DELIVERIES}999/change/",
    ):
        assert admin_client.get(url).status_code == 404, url
    assert admin_client.post(f"{SOURCES}999/pause/").status_code == 404
    assert admin_client.post(f"{DELIVERIES}999/retry/").status_code == 404


def test_no_screen_shows_a_secret(admin_client, town):
    error = f"GET {scenes.TARGET}: 502"
    Source.objects.update(last_error=error, consecutive_failures=1)
    scenes.scan(town.source, outcome="failed", error=error)
    for url in [*LISTS, *pages_of(town), f"{DELIVERIES}?state__exact=dead"]:
        text = page(admin_client, url)
        for secret in SECRETS:
            assert secret not in text, (url, secret)
    assert "hooks.example.org" in page(admin_client, f"{DELIVERIES}{town.dead.pk}/change/")


@pytest.mark.parametrize("url", ["/admin/", *LISTS])
def test_lists_cost_the_same_for_any_number_of_rows(admin_client, town, url):
    scenes.fill_window(town.source)
    few = statements(admin_client, url)
    for at in range(25):
        source = scenes.make_source(f"more-{at}")
        venue = scenes.make_venue(source, f"more-{at}")
        event = scenes.drop(venue, f"slot-{at}", age=timedelta(minutes=at), length=None)
        watch = scenes.watch(scenes.person(f"person-{at}"), source=source)
        scenes.name_venues(watch, venue)
        scenes.notification(watch, event)
    assert statements(admin_client, url) <= few
    assert few <= (60 if url == "/admin/" else 28)


def test_pages_cost_the_same_for_any_history(admin_client, town):
    urls = pages_of(town)
    few = [statements(admin_client, url) for url in urls]
    scenes.fill_window(town.source)
    for at in range(60):
        scenes.scan(town.source)
        scenes.drop(town.venue, f"d{at}", age=timedelta(hours=at), length=timedelta(minutes=at))
    assert [statements(admin_client, url) for url in urls] == few
    assert max(few) <= 12


# --- sources -------------------------------------------------------------------------------------


def test_sources_say_how_they_are(admin_client, town):
    now = timezone.now()
    scenes.make_source("silent", last_success_at=now - timedelta(days=4))
    scenes.make_source(
        "shaky", last_success_at=now, consecutive_failures=2, last_error="HTTP 503 <nginx>"
    )
    scenes.make_source("halted", last_success_at=now, is_paused=True)
    scenes.make_source("blank")
    Bucket.objects.filter(pk=Bucket.objects.filter(source=town.source).first().pk).update(
        open_slots=1234
    )
    text = page(admin_client, SOURCES)
    for word in (">fresh<", ">frozen<", ">failing<", ">paused<", ">new<", "1,234"):
        assert word in text, word
    assert "HTTP 503 &lt;nginx&gt;" in text
    assert "Tables &lt;b&gt;of&lt;/b&gt; the town" in text
    found = page(admin_client, f"{SOURCES}?q=shak")
    assert "shaky" in found
    assert "halted" not in found


def test_sources_are_paused_and_resumed(admin_client, town):
    window = f"{SOURCES}{town.source.pk}/window/"
    assert admin_client.get(f"{SOURCES}{town.source.pk}/pause/").status_code == 405
    answer = admin_client.post(f"{SOURCES}{town.source.pk}/pause/", follow=True)
    assert answer.redirect_chain[-1][0] == window
    assert "is paused" in answer.content.decode()
    assert Source.objects.get().is_paused
    text = page(admin_client, window)
    assert f"{SOURCES}{town.source.pk}/resume/" in text
    admin_client.post(f"{SOURCES}{town.source.pk}/resume/")
    assert not Source.objects.get().is_paused
    history = page(admin_client, f"{SOURCES}{town.source.pk}/history/")
    assert "paused" in history
    assert "resumed" in history


def test_many_sources_are_paused_by_the_action(admin_client, town):
    other = scenes.make_source("other")
    scenes.make_source("third")
    chosen = {"action": "pause_all", "_selected_action": [town.source.pk, other.pk]}
    answer = admin_client.post(SOURCES, chosen, follow=True)
    assert "Sources paused: 2." in answer.content.decode()
    assert Source.objects.filter(is_paused=True).count() == 2
    admin_client.post(SOURCES, chosen | {"action": "resume_all"})
    assert not Source.objects.filter(is_paused=True).exists()


def test_who_may_look_may_not_steer(town):
    viewer = staff("view_source")
    assert "Pause" not in page(viewer, f"{SOURCES}{town.source.pk}/window/")
    assert "pause_all" not in page(viewer, SOURCES)
    assert viewer.post(f"{SOURCES}{town.source.pk}/pause/").status_code == 403
    assert viewer.get(f"{SOURCES}add/").status_code == 403
    chosen = {"action": "pause_all", "_selected_action": [town.source.pk]}
    viewer.post(SOURCES, chosen)
    assert not Source.objects.get().is_paused


def test_who_may_look_sees_no_credentials_of_a_config(admin_client, town):
    config = {"url": "https://api.example.org/x?apikey=topsecret", "headers": {"X-Token": "x9y8z7"}}
    Source.objects.update(config=config)
    url = f"{SOURCES}{town.source.pk}/change/"
    text = page(staff("view_source"), url)
    assert "api.example.org" in text
    assert "topsecret" not in text
    assert "x9y8z7" not in text
    assert "topsecret" in page(admin_client, url)  # who may change it has to see it


def test_a_source_is_added(admin_client):
    answer = admin_client.post(f"{SOURCES}add/", FORM)
    assert answer.status_code == 302, answer.context["errors"]
    source = Source.objects.get()
    assert (source.name, source.timezone, source.window_days) == ("tables", "Europe/Berlin", None)
    assert source.config == {}
    answer = admin_client.post(f"{SOURCES}add/", FORM)
    assert "name" in answer.context["adminform"].form.errors


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Two Words"),
        ("name", "ä"),
        ("name", "x" * 64),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../etc/passwd"),
        ("timezone", "localtime0"),
        ("config", "{"),
        ("config", "[1, 2]"),
        ("window_days", "-1"),
        ("window_days", "367"),
        ("poll_seconds", "0"),
        ("poll_seconds", "86401"),
        ("poll_seconds", "9" * 20),
        ("provider", "carrier-pigeon"),
    ],
)
def test_a_mistake_is_told_at_its_field(admin_client, field, value):
    answer = admin_client.post(f"{SOURCES}add/", FORM | {field: value})
    assert answer.status_code == 200
    assert list(answer.context["adminform"].form.errors) == [field]
    assert not Source.objects.exists()


@pytest.mark.parametrize(
    ("provider", "config", "field", "word"),
    [
        ("demo", '{"sead": 1}', "config", "sead"),
        ("gbfs", "{}", "config", "url"),
        ("json", '{"url": 5}', "config", "url"),
    ],
)
def test_a_config_is_checked_by_its_provider(admin_client, provider, config, field, word):
    answer = admin_client.post(
        f"{SOURCES}add/", FORM | {"provider": provider, "config": config, "window_days": "0"}
    )
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert list(errors) == [field]
    assert word in str(errors[field])


def test_saving_leaves_alone_what_polls_write(admin_client, town):
    polled = timezone.now() + timedelta(minutes=3)
    Source.objects.update(
        last_success_at=polled, consecutive_failures=4, validators={"etag": "x"}, is_paused=True
    )
    form = {name: value for name, value in FORM.items() if name != "name"}
    url = f"{SOURCES}{town.source.pk}/change/"
    answer = admin_client.post(url, form | {"name": "renamed", "title": "New title"})
    assert answer.status_code == 302, answer.context["errors"]
    source = Source.objects.get()
    assert (source.name, source.title) == ("tables", "New title")
    assert (source.last_success_at, source.consecutive_failures) == (polled, 4)
    assert source.validators == {"etag": "x"}
    assert source.is_paused
    admin_client.post(url, form | {"provider": "demo", "config": '{"seed": 3}'})
    source = Source.objects.get()
    assert (source.provider, source.config, source.validators) == ("demo", {"seed": 3}, {})


def test_sources_are_never_deleted_here(admin_client, town):
    assert admin_client.post(f"{SOURCES}{town.source.pk}/delete/").status_code == 403


# --- the window ----------------------------------------------------------------------------------


def test_the_window_is_a_heat_map(admin_client, town, settings):
    scenes.fill_window(town.source)
    scenes.scan(town.source, outcome="failed", error="timed out after 10 s", milliseconds=None)
    with CaptureQueriesContext(connection) as captured:
        text = page(admin_client, f"{SOURCES}{town.source.pk}/window/")
    assert sum("discovery_buckets" in one["sql"] for one in captured) == 2  # overview and map
    buckets = settings.DISCOVERY_WINDOW_DAYS * len(settings.DISCOVERY_TIME_SLOTS)
    assert text.count('role="gridcell"') == buckets
    assert text.count('role="row"') == settings.DISCOVERY_WINDOW_DAYS
    for mark in ("dc-failing", "dc-frozen", "dc-new", "dc-level-5"):
        assert mark in text, mark
    assert "frozen: nobody knows what is open now" in text
    assert "784 slots open" in text
    assert "never checked" in text
    assert "timed out after 10 s" in text


def test_a_window_of_one_standing_bucket(admin_client):
    source = scenes.make_source("bikes", window_days=0)
    Bucket.objects.update(open_slots=7, checked_at=timezone.now(), last_success_at=timezone.now())
    text = page(admin_client, f"{SOURCES}{source.pk}/window/")
    assert text.count('role="gridcell"') == 1
    assert "Now: 7 slots open, checked" in text


def test_a_window_without_buckets_or_scans(admin_client):
    source = Source.objects.create(name="empty")
    text = page(admin_client, f"{SOURCES}{source.pk}/window/")
    assert "No bucket yet" in text
    assert "Nothing was polled yet" in text


# --- venues --------------------------------------------------------------------------------------


def test_a_venue_without_any_drop(admin_client):
    venue = scenes.make_venue(Source.objects.create(name="s"))
    text = page(admin_client, f"{VENUES}{venue.pk}/change/")
    assert "No drop is kept" in text
    assert text.count('class="dc-bar"') == 24


def test_a_venues_page(admin_client, town):
    text = page(admin_client, f"{VENUES}{town.venue.pk}/change/")
    assert "Chez &lt;i&gt;Odile&lt;/i&gt;" in text
    assert "Chez <i>" not in text
    assert text.count("dc-span dc-span-open") == 1
    assert text.count("dc-span dc-span-closed") == 2
    assert text.count("dc-span dc-span-ended") == 1
    assert "17:00" in text  # the usual hour
    assert "12 min" in text  # open on average
    assert "17:00 to 17:59: 20 drops." in text
    assert "table-open" in text


def test_a_venues_page_shows_500_drops_at_most(admin_client, town):
    now = timezone.now()
    DropEvent.objects.bulk_create(
        DropEvent(
            event_type="opened",
            source=town.source,
            venue=town.venue,
            bucket_id=1,
            slot_id=f"slot-{at}",
            opened_at=now - timedelta(minutes=at),
            opened_minute=(now - timedelta(minutes=at)).replace(second=0, microsecond=0),
            closed_at=now - timedelta(minutes=at - 3) if at > 3 else None,
        )
        for at in range(600)
    )
    text = page(admin_client, f"{VENUES}{town.venue.pk}/change/")
    assert text.count('class="dc-span ') == 500
    assert "The newest 500 drops." in text
    assert len(text) < 600_000


def test_venues_are_searched_and_filtered(admin_client, town):
    other = scenes.make_source("other")
    scenes.make_venue(other, "le-canut", name="Le Petit Canut")
    assert "Canut" in page(admin_client, f"{VENUES}?q=petit")
    assert "Canut" in page(admin_client, f"{VENUES}?q=le-c")
    assert "Canut" not in page(admin_client, f"{VENUES}?q=canut-")
    assert "Canut" in page(admin_client, f"{VENUES}?source={other.pk}")
    assert "Canut" not in page(admin_client, f"{VENUES}?source={town.source.pk}")
    assert "Canut" not in page(admin_client, f"{VENUES}?source=x")
    for odd in ("%25", "_", "'", "9" * 40, "\\"):
        page(admin_client, f"{VENUES}?q={odd}")


# --- drops ---------------------------------------------------------------------------------------


def test_drops_are_listed(admin_client, town):
    text = page(admin_client, DROPS)
    assert ">open<" in text
    assert ">closed<" in text
    assert ">over<" in text
    assert "table-old" not in text
    assert "table-old" in page(admin_client, f"{DROPS}?within=week")
    assert "table-old" in page(admin_client, f"{DROPS}?within=all")
    shut = page(admin_client, f"{DROPS}?closed=yes")
    assert "table-shut" in shut
    assert "table-open" not in shut
    assert "table-shut" not in page(admin_client, f"{DROPS}?closed=no")
    assert "table-open" not in page(admin_client, f"{DROPS}?event_type__exact=reopened")
    assert "table-open" in page(admin_client, f"{DROPS}?source={town.source.pk}")
    answer = admin_client.get(f"{DROPS}{town.open.pk}/change/")
    assert answer["Location"] == f"{VENUES}{town.venue.pk}/change/"


def test_drops_are_found_by_slot_and_by_venue(admin_client, town):
    found = page(admin_client, f"{DROPS}?q=table-old")
    assert "table-old" in found
    assert "table-open" not in found
    assert "table-open" in page(admin_client, f"{DROPS}?q=chez")
    assert "table-open" not in page(admin_client, f"{DROPS}?q=odile")
    for odd in ("%25", "_", "'", "9" * 40, "\\"):
        assert "table-open" not in page(admin_client, f"{DROPS}?q={odd}")


def test_drops_outlive_what_they_name(admin_client, town):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM discovery_sources")
    assert not Venue.objects.exists()
    text = page(admin_client, DROPS)
    assert f"venue {town.venue.pk}, gone" in text
    assert f"source {town.source.pk}, gone" in text
    text = page(admin_client, f"{DELIVERIES}?state__exact=dead")
    assert f"watch {town.watch.pk}, gone" in text
    page(admin_client, f"{DELIVERIES}{town.dead.pk}/change/")


def test_the_list_of_drops_reads_days_not_all(admin_client, town):
    """No statement counts all drops, and those of the list name the days they read."""
    page(admin_client, DROPS)
    with CaptureQueriesContext(connection) as captured:
        page(admin_client, DROPS)
    listed = [one["sql"] for one in captured if 'FROM "drop_events"' in one["sql"]]
    assert len(listed) == 2
    assert all('"opened_minute" >= ' in sql for sql in listed)
    assert "LIMIT 10000" in listed[0]


# --- watches -------------------------------------------------------------------------------------


def test_watches_are_listed_and_switched(admin_client, town):
    text = page(admin_client, WATCHES)
    assert "Friday dinner" in text
    assert "1 venue · source tables" in text
    assert "https://hooks.example.org/…" in text
    assert "Friday dinner" in page(admin_client, f"{WATCHES}?q=an")
    assert "Friday dinner" in page(admin_client, f"{WATCHES}?q={town.watch.pk}")
    assert "Friday dinner" not in page(admin_client, f"{WATCHES}?q=bob")
    chosen = {"action": "switch_off", "_selected_action": [town.watch.pk]}
    answer = admin_client.post(WATCHES, chosen, follow=True)
    assert "Watches switched off: 1." in answer.content.decode()
    assert not Watch.objects.get().is_active
    url = f"{WATCHES}{town.watch.pk}/change/"
    assert admin_client.post(url, {"is_active": "on", "target": "x"}).status_code == 302
    watch = Watch.objects.get()
    assert watch.is_active
    assert (watch.target, watch.secret) == (scenes.TARGET, scenes.SECRET)


def test_watches_are_switched_by_those_who_may(town):
    viewer = staff("view_watch")
    assert "switch_off" not in page(viewer, WATCHES)
    viewer.post(WATCHES, {"action": "switch_off", "_selected_action": [town.watch.pk]})
    viewer.post(f"{WATCHES}{town.watch.pk}/change/", {})
    assert Watch.objects.get().is_active
    assert viewer.get(f"{WATCHES}add/").status_code == 403


def test_what_a_watch_waits_for(admin_client):
    scenes.watch(
        scenes.person(),
        date_from="2026-12-24",
        weekdays=[5, 1],
        time_from="18:00",
        party_size=4,
        latitude=45.7,
        longitude=4.8,
        radius_m=2500,
    )
    scenes.watch(scenes.person(), channel="none", target="", secret="")
    text = page(admin_client, WATCHES)
    assert (
        "2026-12-24 to … · Mon, Fri · 18:00 to 24:00 · 4 people · within 2.5 km of 45.700, 4.800"
    ) in text
    assert "anything" in text


# --- deliveries ----------------------------------------------------------------------------------


def test_dead_letters_are_a_tab(admin_client, town):
    scenes.notification(scenes.watch(scenes.person("bob"), name="Bob's"), town.closed, "sent")
    text = page(admin_client, DELIVERIES)
    assert "Dead letters" in text
    assert f"{DELIVERIES}?state__exact=dead" in text
    assert "Bob&#x27;s" in text
    dead = page(admin_client, f"{DELIVERIES}?state__exact=dead")
    assert "table-open" in dead
    assert "Bob&#x27;s" not in dead
    assert "Bob&#x27;s" in page(admin_client, f"{DELIVERIES}?q=bob")
    assert "Bob&#x27;s" not in page(admin_client, f"{DELIVERIES}?q=ann")
    assert "Bob&#x27;s" not in page(admin_client, f"{DELIVERIES}?q={town.watch.pk}")
    assert "Bob&#x27;s" not in page(admin_client, f"{DELIVERIES}?q=nobody")


def test_dead_letters_are_shown_however_old(admin_client, town):
    scenes.notification(town.watch, town.old, "dead", error="gave up")
    scenes.notification(scenes.watch(scenes.person("bob")), town.old, "sent")
    assert "table-old" not in page(admin_client, DELIVERIES)
    assert "table-old" in page(admin_client, f"{DELIVERIES}?state__exact=dead")
    assert "table-old" in page(admin_client, f"{DELIVERIES}?state__exact=sent&within=all")


def test_dead_letters_are_retried(admin_client, town):
    sent = scenes.notification(town.watch, town.closed, "sent")
    chosen = {"action": "retry_all", "_selected_action": [town.dead.pk, sent.pk]}
    answer = admin_client.post(f"{DELIVERIES}?within=all", chosen, follow=True)
    assert "Dead letters that are due again: 1." in answer.content.decode()
    states = dict(UserNotification.objects.values_list("pk", "state"))
    assert states == {town.dead.pk: "pending", sent.pk: "sent"}
    url = f"{DELIVERIES}{town.dead.pk}"
    answer = admin_client.post(f"{url}/retry/", follow=True)
    assert "It cannot be retried" in answer.content.decode()
    UserNotification.objects.filter(pk=town.dead.pk).update(state="dead")
    assert f"{url}/retry/" in page(admin_client, f"{url}/change/")
    answer = admin_client.post(f"{url}/retry/", follow=True)
    assert "It is due again" in answer.content.decode()


def test_who_may_look_may_not_retry(town):
    viewer = staff("view_usernotification")
    assert "retry" not in page(viewer, f"{DELIVERIES}?state__exact=dead")
    assert "Retry" not in page(viewer, f"{DELIVERIES}{town.dead.pk}/change/")
    assert viewer.post(f"{DELIVERIES}{town.dead.pk}/retry/").status_code == 403
    assert UserNotification.objects.get().state == "dead"


def signs() -> dict[str, tuple]:
    """Number and level of each vital sign."""
    return {one.key: (one.number, one.level) for one in vitals.read()[0]}


def test_the_first_page_tells_of_trouble(admin_client, town):
    text = page(admin_client, "/admin/")
    assert "1 of 1 fresh" in text
    assert signs()["discovery.dead_letters"] == (1, "warn")
    Source.objects.update(last_success_at=timezone.now() - timedelta(days=3))
    UserNotification.objects.update(state="pending", due_at=timezone.now() - timedelta(hours=1))
    text = page(admin_client, "/admin/")
    assert "0 of 1 fresh" in text
    assert "1 frozen" in text
    assert signs()["discovery.dead_letters"] == (0, "ok")
    assert "overdue for 60 min" in text
    text = page(staff("view_jobrun"), "/admin/")
    assert "1 frozen" not in text


# --- masking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "target", "shown"),
    [
        ("email", "ann@example.org", "ann@example.org"),
        ("webhook", scenes.TARGET, "https://hooks.example.org/…"),
        ("webhook", "http://[::1]:9/x", "http://::1/…"),
        ("webhook", "http://[bad/x", "http:///…"),
        ("apprise", "tgram://123456:AAtoken/42", "tgram://…"),
        ("apprise", "slack://TokenA/TokenB/TokenC", "slack://…"),
        ("none", "", ""),
    ],
)
def test_targets_are_masked(channel, target, shown):
    assert shown_target(Watch(channel=channel, target=target)) == shown


def test_errors_are_masked():
    webhook = Watch(channel="webhook", target=scenes.TARGET, secret=scenes.SECRET)
    text = f"Max retries for url: /services/T0000/B1111/x9y8z7?key=topsecret ({scenes.SECRET})"
    shown = shown_error(text, webhook)
    assert not [secret for secret in SECRETS if secret in shown]
    assert shown.startswith("Max retries")
    telegram = Watch(channel="apprise", target="tgram://123456:AAtoken/42424242")
    assert shown_error("no bot AAtoken for 42424242", telegram) == "no bot … for …"
    assert shown_error("hooks.example.org refused", webhook) == "hooks.example.org refused"
    assert without_credentials("see https://u:p@h.org/a?b, or ftp://x") == (
        "see https://h.org/… or ftp://x/…"
    )


def test_configs_are_masked():
    config = {
        "url": "https://a.org/x?k=1",
        "items": "data.slots",
        "headers": {"Authorization": "Bearer 1", "Accept": "application/json"},
        "also": ["https://a.org/plain", {"api_key": [1]}],
    }
    assert masked(config) == {
        "url": "https://a.org/…",
        "items": "data.slots",
        "headers": {"Authorization": "…", "Accept": "application/json"},
        "also": ["https://a.org/plain", {"api_key": "…"}],
    }
