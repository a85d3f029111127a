"""Match jobs, matches, verdicts, badges and notifications over HTTP."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from matching import badges, queue
from matching.models import Match, MatchJob, Notification

pytestmark = pytest.mark.django_db

PLACE = {"latitude": 49.2626, "longitude": -123.0695}


def wrong(response) -> set[str]:
    assert response.status_code == 400, response.content
    return {error["name"] for error in response.json()["errors"]}


@pytest.fixture
def pair(ann, bob, post):
    """A lost and a found phone, posted."""
    return (
        post(ann, "lost", "Black iPhone 12", category="phones", **PLACE),
        post(bob, "found", "Black iPhone in a red case", category="phones", **PLACE),
    )


# --- POST match and its status --------------------------------------------------------------------


def test_a_task_waits_and_then_has_results(ann, pair, work):
    lost, found = pair
    response = ann.send("match", {"item": lost.pk})
    assert response.status_code == 202, response.content
    task = response.json()
    assert response["Location"] == f"/api/v1/jobs/match/status/{task['task_id']}"
    assert int(response["Retry-After"]) >= 1
    assert (task["state"], task["item"]) == ("queued", lost.pk)

    waiting = ann.get(response["Location"])
    assert (waiting.status_code, waiting["Cache-Control"]) == (202, "no-store")
    assert waiting["Retry-After"]
    work()
    done = ann.get(response["Location"])
    assert done.status_code == 200, done.content
    body = done.json()
    assert (body["state"], body["attempts"], body["error"]) == ("done", 1, "")
    assert sum(body["routes"].values()) > 0
    [hit] = body["results"]
    assert hit["item"]["id"] == found.pk
    assert hit["match"] == Match.objects.get().pk
    assert hit["components"]
    assert not {"owner", "owner_id", "latitude", "longitude", "geohash"} & hit["item"].keys()
    assert hit["item"]["cell"] == "c2b2pr"
    assert ann.get(response["Location"], HTTP_IF_NONE_MATCH=done["ETag"]).status_code == 304


@pytest.mark.parametrize("most", [1, 3])
def test_a_task_shows_as_many_results_as_a_job_stores(ann, bob, post, work, settings, most):
    mine = post(ann, "lost", "Black iPhone 12", category="phones", **PLACE)
    for colour in ("red", "blue", "green"):
        post(bob, "found", f"Black iPhone 12, {colour} case", category="phones", **PLACE)
    work()  # each of the three has found it: the matches are there, however many are shown
    assert Match.objects.count() == 3
    settings.MATCHING_RESULTS = most
    task = ann.send("match", {"item": mine.pk}).json()
    work()
    shown = ann.read(f"jobs/match/status/{task['task_id']}").json()["results"]
    assert len(shown) == most


def test_a_description_is_matched_without_being_posted(ann, pair, work):
    _, found = pair
    work()
    query = {"kind": "lost", "title": "iPhone black", "happened_on": "2025-11-13"} | PLACE
    task = ann.send("match", {"query": query}).json()
    assert task["item"] is None
    work()
    [hit] = ann.read(f"jobs/match/status/{task['task_id']}").json()["results"]
    assert (hit["item"]["id"], hit["match"]) == (found.pk, None)
    assert 0 < hit["score"] <= 1
    found.__class__.objects.filter(pk=found.pk).update(is_deleted=True)
    assert ann.read(f"jobs/match/status/{task['task_id']}").json()["results"] == []


def test_one_does_not_match_oneself(ann, post, work):
    post(ann, "found", "Black iPhone 12", **PLACE)
    task = ann.send("match", {"query": {"kind": "lost", "title": "Black iPhone 12"}}).json()
    work()
    assert ann.read(f"jobs/match/status/{task['task_id']}").json()["results"] == []


def test_the_same_key_is_the_same_task(ann, pair):
    query = {"query": {"kind": "lost", "title": "Bag"}}
    first = ann.send("match", query, **{"Idempotency-Key": "k"})
    again = ann.send("match", query, **{"Idempotency-Key": "k"})
    assert again.json()["task_id"] == first.json()["task_id"]
    assert (again["Location"], again["Idempotent-Replayed"]) == (first["Location"], "true")
    assert ann.send("match", query).json()["task_id"] != first.json()["task_id"]


def test_an_item_waits_once(ann, pair):
    first, second = (ann.send("match", {"item": pair[0].pk}).json() for _ in range(2))
    assert first["task_id"] == second["task_id"]


def test_places_in_the_queue_are_counted(ann, bob):
    tasks = [
        who.send("match", {"query": {"kind": "lost", "title": f"Bag {at}"}}).json()
        for at, who in enumerate([ann, bob, ann])
    ]
    assert [task["ahead"] for task in tasks] == [0, 1, 2]


def test_a_task_of_somebody_else_does_not_exist(ann, bob, pair):
    task = ann.send("match", {"item": pair[0].pk}).json()["task_id"]
    assert bob.read(f"jobs/match/status/{task}").status_code == 404
    assert ann.read(f"jobs/match/status/{uuid.uuid4()}").status_code == 404
    assert ann.read("jobs/match/status/nonsense").status_code == 404


def test_results_expire(ann, pair, work):
    task = ann.send("match", {"item": pair[0].pk}).json()["task_id"]
    work()
    MatchJob.objects.filter(pk=task).update(expires_at=timezone.now() - timedelta(seconds=1))
    response = ann.read(f"jobs/match/status/{task}")
    assert response.status_code == 410
    assert response["Content-Type"] == "application/problem+json"


def test_a_failed_task_says_why(ann, pair):
    task = ann.send("match", {"item": pair[0].pk}).json()["task_id"]
    MatchJob.objects.filter(pk=task).update(
        state="failed", attempts=3, error="ValueError: no such thing\nCONTEXT: line 1"
    )
    response = ann.read(f"jobs/match/status/{task}")
    body = response.json()
    assert (response.status_code, body["state"], body["results"]) == (200, "failed", [])
    assert body["error"] == "ValueError: no such thing"


def test_quota_and_full_queue(ann, bob, settings):
    def ask(who, title):
        return who.send("match", {"query": {"kind": "lost", "title": title}})

    settings.MATCHING_JOBS_PER_OWNER = 2
    assert [ask(ann, f"Bag {at}").status_code for at in range(3)] == [202, 202, 429]
    refused = ask(ann, "Bag")
    assert int(refused["Retry-After"]) >= 1
    assert refused["Content-Type"] == "application/problem+json"
    settings.MATCHING_QUEUE_LIMIT = 2
    full = ask(bob, "Bag")
    assert full.status_code == 503
    assert int(full["Retry-After"]) >= 1
    assert MatchJob.objects.count() == 2


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, {"item", "query"}),
        ({"item": 1, "query": {"kind": "lost", "title": "x"}}, {"item", "query"}),
        ({"item": "1"}, {"item"}),
        ({"item": True}, {"item"}),
        ({"item": 1.0}, {"item"}),
        ({"item": 0}, {"item"}),
        ({"item": 2**63}, {"item"}),
        ({"item": 10**40}, {"item"}),
        ({"item": None}, {"item"}),
        ({"query": []}, {"query"}),
        ({"query": None}, {"query"}),
        ({"query": {}}, {"query.kind", "query.title"}),
        ({"query": {"kind": "x", "title": "x"}}, {"query.kind"}),
        ({"query": {"kind": "lost", "title": "x\0"}}, {"query.title"}),
        ({"query": {"kind": "lost", "title": "x", "latitude": 91}}, {"query.latitude"}),
        ({"query": {"kind": "lost", "title": "x", "latitude": 9}}, {"query.longitude"}),
        ({"query": {"kind": "lost", "title": "x", "happened_on": "?"}}, {"query.happened_on"}),
        ({"query": {"kind": "lost", "title": "x", "owner": 1}}, {"query.owner"}),
        ({"query": {"kind": "lost", "title": "x" * 10_000_000}}, {"query.title"}),
        ({"limit": 5}, {"limit"}),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_wrong_requests_are_named(ann, body, names):
    assert wrong(ann.send("match", body)) == names
    assert not MatchJob.objects.exists()


def test_items_that_cannot_be_matched(ann, bob, post):
    hers, closed, deleted = (post(ann, "lost", title) for title in ("a", "b", "c"))
    ann.send(f"items/{closed.pk}", {"status": "closed"}, method="PATCH")
    ann.delete(f"/api/v1/items/{deleted.pk}")
    for who, item, status in [
        (bob, hers.pk, 404),
        (ann, deleted.pk, 404),
        (ann, 2**63 - 1, 404),
        (ann, closed.pk, 409),
    ]:
        response = who.send("match", {"item": item})
        assert response.status_code == status, response.content
        assert [error["name"] for error in response.json()["errors"]] == ["item"]


# --- matches --------------------------------------------------------------------------------------


def test_matches_best_first_from_both_sides(ann, bob, post, suggest):
    lost = post(ann, "lost", "Bag")
    found = [post(bob, "found", f"Bag {at}") for at in range(7)]
    scores = [0.5, 0.9, 1 / 3, 0.5, 0.1 + 0.2, 0.5, 0.7]
    for item, score in zip(found, scores, strict=True):
        suggest(lost, item, score=score)
    seen, path = [], f"items/{lost.pk}/matches?limit=2"
    while path:
        page = ann.read(path).json()
        seen += [(match["score"], match["item"]["title"]) for match in page["results"]]
        cursor = page["next_cursor"]
        path = cursor and f"items/{lost.pk}/matches?limit=2&cursor={cursor}"
    assert [score for score, _ in seen] == sorted(scores, reverse=True)
    assert len(set(seen)) == 7
    [match] = bob.read(f"items/{found[1].pk}/matches").json()["results"]
    assert (match["item"]["id"], match["score"]) == (lost.pk, 0.9)
    assert sum(one["contribution"] for one in match["components"]) == pytest.approx(0.7)


def test_states_of_matches(ann, bob, post, suggest):
    lost = post(ann, "lost", "Bag")
    for at, state in enumerate(Match.State.values):
        suggest(lost, post(bob, "found", state), state=state, score=at / 10)

    def states(query: str) -> set[str]:
        return {m["state"] for m in ann.read(f"items/{lost.pk}/matches{query}").json()["results"]}

    assert states("") == {"suggested", "confirmed"}
    assert states("?state=dismissed") == {"dismissed"}
    assert wrong(ann.read(f"items/{lost.pk}/matches?state=lost")) == {"state"}


def test_both_confirm(ann, bob, pair, suggest, django_capture_on_commit_callbacks):
    match = suggest(*pair)
    path = f"matches/{match.pk}/confirm"
    first = ann.send(path).json()
    assert (first["state"], bool(first["confirmed_at"]), first["other_confirmed_at"]) == (
        "suggested", True, None
    )  # fmt: skip
    assert ann.send(path).json() == first
    told = bob.read("me/notifications").json()["results"]
    assert [note["subject"] for note in told] == ["confirmed_by_other"]
    assert (told[0]["item"]["id"], told[0]["other"]["id"]) == (pair[1].pk, pair[0].pk)
    second = bob.send(path).json()
    assert second["state"] == "confirmed"
    assert second["other_confirmed_at"] == first["confirmed_at"]
    assert ann.read("me/notifications").json()["results"][0]["subject"] == "confirmed_by_both"


def test_a_dismissed_pair_is_over(ann, bob, pair, suggest, work):
    match = suggest(*pair)
    assert bob.send(f"matches/{match.pk}/dismiss").json()["state"] == "dismissed"
    assert bob.send(f"matches/{match.pk}/dismiss").status_code == 200
    refused = ann.send(f"matches/{match.pk}/confirm")
    assert (refused.status_code, refused.json()["state"]) == (409, "dismissed")
    work()
    assert ann.read(f"items/{pair[0].pk}/matches").json()["results"] == []


@pytest.mark.parametrize("verdict", ["confirm", "dismiss"])
def test_verdicts_of_others(person, ann, pair, suggest, verdict):
    match = suggest(*pair)
    assert person("eve").send(f"matches/{match.pk}/{verdict}").status_code == 404
    for nobody in (0, match.pk + 1, 2**63, 10**30):
        assert ann.send(f"matches/{nobody}/{verdict}").status_code == 404
    assert person("reader", "read").send(f"matches/{match.pk}/{verdict}").status_code == 403
    match.refresh_from_db()
    assert match.state == "suggested"


# --- badges and notifications ---------------------------------------------------------------------


def test_badges_follow_what_happens(ann, bob, pair, suggest, django_capture_on_commit_callbacks):
    lost, found = pair
    match = suggest(lost, found)
    badges.forget(ann.user.pk, bob.user.pk)
    first = ann.read("me/badges")
    assert first["X-Cache"] == "miss"
    assert first.json() == {
        "open_items": 1,
        "matches_to_review": 1,
        "matches_awaiting_me": 0,
        "matches_confirmed": 0,
        "unread_notifications": 0,
    }
    assert ann.read("me/badges")["X-Cache"] == "hit"
    with django_capture_on_commit_callbacks(execute=True):
        bob.send(f"matches/{match.pk}/confirm")
    counts = ann.read("me/badges").json()
    assert (counts["matches_awaiting_me"], counts["unread_notifications"]) == (1, 1)
    with django_capture_on_commit_callbacks(execute=True):
        ann.send(f"matches/{match.pk}/confirm")
    counts = ann.read("me/badges").json()
    assert (counts["matches_confirmed"], counts["open_items"]) == (0, 0)  # both items are settled
    with django_capture_on_commit_callbacks(execute=True):
        ann.send("items", {"kind": "lost", "title": "Hat"})
    assert ann.read("me/badges").json()["open_items"] == 1


def test_a_count_that_a_write_overtook_is_not_kept(ann, post, monkeypatch):
    real = badges.queries.badges

    def slow(*, user_id):
        counts = real(user_id=user_id)
        badges.forget(user_id)  # somebody writes between counting and keeping
        return counts

    monkeypatch.setattr(badges.queries, "badges", slow)
    assert ann.read("me/badges")["X-Cache"] == "miss"
    monkeypatch.undo()
    assert ann.read("me/badges")["X-Cache"] == "miss"
    assert ann.read("me/badges")["X-Cache"] == "hit"


def test_badges_without_valkey(ann, own_valkey):
    own_valkey.stop()
    for _ in range(2):
        response = ann.read("me/badges")
        assert (response.status_code, response["X-Cache"]) == (200, "miss")
    badges.forget(ann.user.pk)


def test_badges_cost_one_statement(ann, post):
    post(ann, "lost", "Bag")
    ann.read("me/badges")
    with CaptureQueriesContext(connection) as captured:
        ann.read("me/badges")
    assert len(captured) == 1  # the token


@pytest.fixture
def told(ann, bob, post) -> list[int]:
    """Ids of five notifications for Ann, the oldest first, and one for Bob."""
    lost = post(ann, "lost", "Bag")
    rows = [
        Notification.objects.create(
            user=ann.user,
            subject="confirmed_by_other",
            seeker_id=lost.pk,
            offer_id=post(bob, "found", f"Bag {at}").pk,
        )
        for at in range(5)
    ]
    Notification.objects.create(
        user=bob.user, subject="confirmed_by_other", seeker_id=lost.pk, offer_id=1
    )
    return [row.pk for row in rows]


def test_notifications_by_cursor(ann, told):
    seen, path = [], "me/notifications?limit=2"
    while path:
        page = ann.read(path).json()
        seen += [note["id"] for note in page["results"]]
        path = page["next_cursor"] and f"me/notifications?limit=2&cursor={page['next_cursor']}"
    assert seen == told[::-1]


def test_reading_notifications(ann, bob, told):
    assert ann.send("me/notifications/read", {"ids": told[:2]}).json() == {"read": 2}
    assert ann.send("me/notifications/read", {"ids": told[:3]}).json() == {"read": 1}
    unread = ann.read("me/notifications?unread=yes").json()["results"]
    assert [note["id"] for note in unread] == [told[4], told[3]]
    assert bob.send("me/notifications/read", {"ids": told}).json() == {"read": 0}
    assert ann.send("me/notifications/read", {"up_to": told[3]}).json() == {"read": 1}
    assert len(ann.read("me/notifications?unread=yes").json()["results"]) == 1


def test_a_notification_outlives_the_other_item(ann, bob, told):
    other = ann.read("me/notifications").json()["results"][0]["other"]["id"]
    bob.delete(f"/api/v1/items/{other}")
    note = ann.read("me/notifications").json()["results"][0]
    assert (note["other"], note["item"]["title"]) == (None, "Bag")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, {"ids", "up_to"}),
        ({"ids": [1], "up_to": 1}, {"ids", "up_to"}),
        ({"ids": []}, {"ids"}),
        ({"ids": ["1"]}, {"ids.0"}),
        ({"ids": [2**63]}, {"ids.0"}),
        ({"ids": list(range(1, 202))}, {"ids"}),
        ({"up_to": -1}, {"up_to"}),
        ({"all": True}, {"all"}),
    ],
)
def test_wrong_reads_are_named(ann, body, names):
    assert wrong(ann.send("me/notifications/read", body)) == names


def test_a_cancelled_task_has_ended(ann, pair):
    task = ann.send("match", {"item": pair[0].pk}).json()["task_id"]
    assert queue.cancel(uuid.UUID(task))
    body = ann.read(f"jobs/match/status/{task}").json()
    assert (body["state"], body["results"], body["error"]) == (
        "cancelled",
        [],
        "Cancelled by staff.",
    )
