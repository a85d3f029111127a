"""Matching's staff screens: what they show, what they change, who may, at what cost."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from matching import queue, scoring
from matching.kinds import Pair
from matching.models import AuditLog, Item, Match, MatchJob, PairWeights
from tests.people import page, staff

pytestmark = pytest.mark.django_db

ITEMS = "/admin/matching/item/"
MATCHES = "/admin/matching/match/"
JOBS = "/admin/matching/matchjob/"
WEIGHTS = "/admin/matching/pairweights/"
AUDIT = "/admin/matching/auditlog/"
HERE = {"latitude": 49.2626, "longitude": -123.0695}


@pytest.fixture
def pair(ann, bob, post):
    return (
        post(ann, "lost", "Black iPhone <b>12</b>", attributes={"colour": "black"}, **HERE),
        post(bob, "found", "Black iPhone in a red case", country="CA", city="Vancouver", **HERE),
    )


# --- items --------------------------------------------------------------------------------------


def test_items_are_listed_searched_and_filtered(admin_client, ann, pair, post):
    gone = post(ann, "lost", "Grey umbrella")
    Item.objects.filter(pk=gone.pk).update(is_deleted=True)
    text = page(admin_client, ITEMS)
    assert "Black iPhone &lt;b&gt;12&lt;/b&gt;" in text
    assert "c2b2pr" in text
    assert "Grey umbrella" not in text
    assert "Grey umbrella" in page(admin_client, f"{ITEMS}?deleted=yes")
    assert "red case" not in page(admin_client, f"{ITEMS}?deleted=yes")
    assert "red case" in page(admin_client, f"{ITEMS}?q=PHONE+red")
    assert "red case" not in page(admin_client, f"{ITEMS}?q=phone+12")
    assert "red case" in page(admin_client, f"{ITEMS}?q={pair[1].pk}")
    assert "red case" not in page(admin_client, f"{ITEMS}?kind__exact=lost")


@pytest.mark.parametrize("q", ["%25", "_", "'", "9" * 40, "\\", "²"])
def test_odd_searches(admin_client, pair, q):
    assert "red case" not in page(admin_client, f"{ITEMS}?q={q}")


def test_an_items_page(admin_client, pair, suggest, django_assert_max_num_queries):
    lost, found = pair
    suggest(lost, found, score=0.73)
    url = f"{ITEMS}{lost.pk}/change/"
    page(admin_client, url)
    with django_assert_max_num_queries(10):
        text = page(admin_client, url)
    assert "Black iPhone &lt;b&gt;12&lt;/b&gt;" in text
    assert 'class="mt-cells"' in text
    assert f"{ITEMS}{found.pk}/change/" in text
    assert "0.73" in text
    assert "colour" in text
    assert "create" in text
    for nobody in ("0", "9" * 30, "x", "1_0"):
        assert admin_client.get(f"{ITEMS}{nobody}/change/").status_code == 404


def test_an_item_without_a_place(admin_client, ann, post):
    text = page(admin_client, f"{ITEMS}{post(ann, 'lost', 'Bag').pk}/change/")
    assert "has no place" in text


def test_matching_again(admin_client, pair, work):
    work()
    item = pair[0]
    response = admin_client.post(f"{ITEMS}{item.pk}/match/")
    assert response["Location"] == f"{ITEMS}{item.pk}/change/"
    job = MatchJob.objects.get(state="queued")
    assert (job.item_id, job.priority) == (item.pk, MatchJob.Priority.BACKGROUND)
    Item.objects.filter(pk=item.pk).update(status="closed")
    assert admin_client.post(f"{ITEMS}{item.pk}/match/").status_code == 404


def test_taking_an_item_down(admin_client, admin_user, pair, suggest):
    item = pair[0]
    match = suggest(*pair)
    assert admin_client.post(f"{ITEMS}{item.pk}/remove/").status_code == 302
    assert Item.objects.get(pk=item.pk).is_deleted
    assert Match.objects.get(pk=match.pk).state == "expired"
    assert AuditLog.objects.order_by("-pk").first().actor_id == admin_user.pk
    assert "deleted" in page(admin_client, f"{ITEMS}{item.pk}/change/")
    assert admin_client.post(f"{ITEMS}{item.pk}/remove/").status_code == 404


def test_lists_cost_the_same_for_any_number(
    admin_client, ann, bob, post, suggest, django_assert_max_num_queries
):
    lost = post(ann, "lost", "Bag")
    for number in range(40):
        suggest(lost, post(bob, "found", f"Bag {number}"))
    for url, most in [(ITEMS, 6), (MATCHES, 6), (JOBS, 11), (AUDIT, 7)]:
        page(admin_client, url)
        with django_assert_max_num_queries(most):
            assert page(admin_client, url).count("<tr") >= 40


# --- matches ------------------------------------------------------------------------------------


def test_a_match_shows_why(admin_client, pair, suggest):
    match = suggest(*pair, score=0.7, degraded="vectors")
    assert "0.70" in page(admin_client, MATCHES)
    text = page(admin_client, f"{MATCHES}{match.pk}/change/")
    assert "Why 0.700" in text
    assert "+0.450" in text
    assert "left:45.00%;width:25.00%" in text
    assert "vectors" in text
    assert "0 m apart" in text
    for item in pair:
        assert f"{ITEMS}{item.pk}/change/" in text
    assert admin_client.get(f"{MATCHES}{match.pk + 1}/change/").status_code == 404
    assert admin_client.get(f"{MATCHES}x/change/").status_code == 404


def test_matches_are_found_by_item(admin_client, ann, bob, post, pair, suggest):
    suggest(*pair)
    suggest(post(ann, "lost", "Hat"), post(bob, "found", "Cap"))
    text = page(admin_client, f"{MATCHES}?q={pair[1].pk}")
    assert "red case" in text
    assert "Cap" not in text
    assert "Cap" not in page(admin_client, f"{MATCHES}?q=cap")
    assert "Cap" not in page(admin_client, f"{MATCHES}?state__exact=dismissed")


# --- the queue ----------------------------------------------------------------------------------


@pytest.fixture
def jobs(ann, pair) -> dict[str, MatchJob]:
    """One job of each state, and a stuck one."""
    MatchJob.objects.all().delete()
    now = timezone.now()
    made = {}
    for state in [*MatchJob.State.values, "stuck"]:
        job = queue.submit_match(owner=ann.user, query={"kind": "lost", "title": f"a {state} one"})
        fields = {"state": state}
        if state in ("running", "stuck"):
            lease = now + timedelta(seconds=30 if state == "running" else -1)
            fields = {"state": "running", "lease_expires_at": lease, "started_at": now}
        if state == "failed":
            fields |= {"error": "ValueError: <odd>\nDETAIL: more", "attempts": 3}
        MatchJob.objects.filter(pk=job.pk).update(**fields)
        made[state] = MatchJob.objects.get(pk=job.pk)
    return made


def test_the_queue_says_what_waits_and_why_jobs_failed(admin_client, jobs):
    text = page(admin_client, JOBS)
    for state in jobs:
        assert f">{state}<" in text
        assert f"a {state} one" in text
    assert "ValueError: &lt;odd&gt;" in text
    assert "No worker gives a sign of life" in text
    stuck = page(admin_client, f"{JOBS}?state=stuck")
    assert "a stuck one" in stuck
    assert "a running one" not in stuck


@pytest.mark.parametrize(
    ("state", "act", "after"),
    [
        ("failed", "retry", "queued"),
        ("cancelled", "retry", "queued"),
        ("done", "retry", "done"),
        ("running", "retry", "running"),
        ("queued", "cancel", "cancelled"),
        ("running", "cancel", "cancelled"),
        ("done", "cancel", "done"),
        ("failed", "cancel", "failed"),
    ],
)
def test_retry_and_cancel(admin_client, jobs, state, act, after):
    job = jobs[state]
    response = admin_client.post(f"{JOBS}{job.pk}/{act}/")
    assert response["Location"] == f"{JOBS}{job.pk}/change/"
    job.refresh_from_db()
    assert job.state == after
    assert f">{after}<" in page(admin_client, f"{JOBS}{job.pk}/change/")


def test_retry_and_cancel_many(admin_client, jobs):
    keys = [str(job.pk) for job in jobs.values()]
    admin_client.post(JOBS, {"action": "cancel_all", "_selected_action": keys})
    states = {state: MatchJob.objects.get(pk=job.pk).state for state, job in jobs.items()}
    assert states == {
        "queued": "cancelled", "running": "cancelled", "stuck": "cancelled", "done": "done",
        "failed": "failed", "cancelled": "cancelled",
    }  # fmt: skip
    admin_client.post(JOBS, {"action": "retry_all", "_selected_action": keys})
    assert MatchJob.objects.filter(state="queued").count() == 5


def test_a_jobs_page(admin_client, jobs, pair, ann):
    text = page(admin_client, f"{JOBS}{jobs['failed'].pk}/change/")
    assert "ValueError: &lt;odd&gt;" in text
    assert "a failed one" in text
    of_item = queue.submit_match(owner=ann.user, item=pair[0])
    assert f"{ITEMS}{pair[0].pk}/change/" in page(admin_client, f"{JOBS}{of_item.pk}/change/")
    for nobody in ("00000000-0000-0000-0000-000000000000", "x"):
        assert admin_client.get(f"{JOBS}{nobody}/change/").status_code == 404


# --- weights ------------------------------------------------------------------------------------


def test_weights_show_their_defaults_and_are_saved(admin_client, admin_user):
    defaults = scoring.DEFAULT_WEIGHTS[Pair.LOST_FOUND]
    name = next(iter(defaults))
    assert name in page(admin_client, WEIGHTS)
    url = f"{WEIGHTS}lost_found/change/"
    assert f"Default {defaults[name]:g}" in page(admin_client, url)
    response = admin_client.post(url, {name: "7.5"})
    assert response["Location"] == WEIGHTS
    row = PairWeights.objects.get()
    assert (row.pair, row.weights, row.updated_by) == (
        "lost_found", {name: 7.5}, admin_user.username
    )  # fmt: skip
    text = page(admin_client, WEIGHTS)
    assert "7.5" in text
    assert admin_user.username in text
    admin_client.post(url, {name: ""})
    assert PairWeights.objects.get().weights == {}


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e9", "x", "1" * 400, "\0"])
def test_weights_that_make_no_sense_are_refused(admin_client, value):
    name = next(iter(scoring.DEFAULT_WEIGHTS[Pair.LOST_FOUND]))
    response = admin_client.post(f"{WEIGHTS}lost_found/change/", {name: value})
    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert not PairWeights.objects.exists()


def test_weights_may_not_all_be_zero(admin_client):
    names = scoring.DEFAULT_WEIGHTS[Pair.LOST_FOUND]
    url = f"{WEIGHTS}lost_found/change/"
    response = admin_client.post(url, dict.fromkeys(names, "0"))
    assert "above 0" in response.content.decode()
    assert not PairWeights.objects.exists()
    assert admin_client.get(f"{WEIGHTS}cat_dog/change/").status_code == 404


# --- who may ------------------------------------------------------------------------------------


def test_looking_needs_a_permission(pair, suggest, jobs):
    match = suggest(*pair)
    pages = [
        ITEMS, f"{ITEMS}{pair[0].pk}/change/", MATCHES, f"{MATCHES}{match.pk}/change/", JOBS,
        f"{JOBS}{jobs['done'].pk}/change/", WEIGHTS, f"{WEIGHTS}lost_found/change/", AUDIT,
    ]  # fmt: skip
    eve = staff()
    assert {eve.get(url).status_code for url in pages} == {403}
    assert {Client().get(url).status_code for url in pages} == {302}


def test_changing_needs_another(pair, jobs):
    name = next(iter(scoring.DEFAULT_WEIGHTS[Pair.LOST_FOUND]))
    eve = staff("view_item", "view_matchjob", "view_pairweights")
    text = page(eve, f"{ITEMS}{pair[0].pk}/change/")
    assert "Match again" not in text
    assert "Remove" not in text
    assert "Retry" not in page(eve, f"{JOBS}{jobs['failed'].pk}/change/")
    for url in [
        f"{ITEMS}{pair[0].pk}/match/",
        f"{ITEMS}{pair[0].pk}/remove/",
        f"{JOBS}{jobs['failed'].pk}/retry/",
        f"{JOBS}{jobs['queued'].pk}/cancel/",
        f"{WEIGHTS}lost_found/change/",
    ]:
        assert eve.post(url, {name: "1"}).status_code == 403
    eve.post(JOBS, {"action": "cancel_all", "_selected_action": [str(jobs["queued"].pk)]})
    assert MatchJob.objects.get(pk=jobs["queued"].pk).state == "queued"


def test_buttons_need_a_csrf_token_and_a_post(admin_user, admin_client, pair, jobs):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    for url in [f"{ITEMS}{pair[0].pk}/remove/", f"{JOBS}{jobs['queued'].pk}/cancel/"]:
        assert strict.post(url).status_code == 403
        assert admin_client.get(url).status_code == 405


def test_the_first_page_has_its_signs(admin_client, jobs):
    text = page(admin_client, "/admin/")
    assert "Match queue" in text
    assert "Failed match jobs" in text
    assert "Items" in text
