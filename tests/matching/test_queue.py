"""The queue of match jobs: who waits, who is refused, who is claimed, and what is stored, once."""

import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from config import jobs, leases, metrics, retention, runs, tally
from config.embeddings import EmbedderError
from matching import actions, embedding, engine, pairs, queue, worker
from matching.fields import InvalidItem
from matching.kinds import COUNTERPARTS
from matching.models import (
    Item,
    ItemEmbedding,
    Match,
    MatchDismissal,
    MatchJob,
    Notification,
)
from matching.queue import LeaseLost, QueueFull, QuotaExceeded

pytestmark = pytest.mark.django_db

PERSON, CHANGE, BACKGROUND = MatchJob.Priority
QUERY = {"kind": "lost", "title": "Red phone"}


@pytest.fixture
def seeker(db):
    return User.objects.create_user("seeker")


@pytest.fixture
def finder(db):
    return User.objects.create_user("finder")


def lost(owner, title="Red leather phone case", **fields):
    given = {"kind": "lost", "title": title, "latitude": 55.95, "longitude": -3.19} | fields
    return actions.create_item(owner=owner, **given)


def found(owner, title="Red leather phone case", **fields):
    return lost(owner, title, kind="found", **fields)


def ask(owner, priority=PERSON, **query):
    return queue.submit_match(owner=owner, query=QUERY | query, priority=priority)


def work_off():
    return worker.drain(lambda done: True)


def states():
    return sorted(MatchJob.objects.values_list("state", flat=True))


def tallied(name, **labels):
    return sum(
        row.value
        for row in tally.all()
        if row.name == name and labels.items() <= row.labels.items()
    )


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def in_threads(count, act):
    """What `act(number)` returns or raises, in threads with connections of their own."""

    def one(number):
        try:
            return act(number)
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


# --- Submitting ---------------------------------------------------------------------------------


def test_an_item_waits_once_as_urgent_as_it_ever_was(seeker):
    item = lost(seeker)
    first = item.match_job
    urgent = queue.submit_match(owner=seeker, item=item, priority=PERSON)
    again = queue.submit_match(owner=seeker, item=item, priority=BACKGROUND)
    assert first.pk == urgent.pk == again.pk
    assert MatchJob.objects.get().priority == PERSON


def test_an_item_that_is_being_matched_waits_again(seeker):
    item = lost(seeker)
    queue.claim()
    again = queue.submit_match(owner=seeker, item=item, priority=CHANGE)
    assert again.pk != item.match_job.pk
    assert states() == ["queued", "running"]


def test_an_attempt_that_is_over_waits_beside_a_change(seeker):
    item = lost(seeker)
    claim = queue.claim()
    change = queue.submit_match(owner=seeker, item=item, priority=CHANGE)
    assert queue.give_back(claim, "no luck") == "queued"
    assert set(MatchJob.objects.values_list("task_id", flat=True)) == {claim.task_id, change.pk}
    assert work_off() == 2
    assert states() == ["done", "done"]


def test_a_description_is_checked_and_kept(seeker):
    job = ask(seeker, title="  Red\nphone ")
    assert MatchJob.objects.get().query == QUERY
    assert job.owner_id == seeker.pk
    with pytest.raises(InvalidItem) as caught:
        ask(seeker, kind="stolen")
    assert caught.value.errors.keys() == {"kind"}
    with pytest.raises(TypeError):
        queue.submit_match(owner=seeker, priority=PERSON)


def test_over_the_quota_a_person_waits(seeker, finder, settings):
    settings.MATCHING_JOBS_PER_OWNER = 2
    ask(seeker)
    ask(seeker)
    with pytest.raises(QuotaExceeded) as caught:
        ask(seeker)
    assert 1 <= caught.value.retry_after <= 60
    assert MatchJob.objects.count() == 2
    ask(finder)
    queue.claim()
    with pytest.raises(QuotaExceeded):  # what runs is open as well
        ask(seeker)
    work_off()
    MatchJob.objects.update(state="done")
    ask(seeker)


def test_the_job_that_waits_already_is_no_further_one(seeker, settings):
    settings.MATCHING_JOBS_PER_OWNER = 1
    item = lost(seeker)
    one = queue.submit_match(owner=seeker, item=item, priority=PERSON)
    assert queue.submit_match(owner=seeker, item=item, priority=PERSON).pk == one.pk


@pytest.mark.django_db(transaction=True)
def test_the_quota_is_exact_under_concurrency(seeker, settings):
    settings.MATCHING_JOBS_PER_OWNER = 5
    results = in_threads(16, lambda n: ask(seeker))
    assert sum(isinstance(one, MatchJob) for one in results) == 5
    assert sum(isinstance(one, QuotaExceeded) for one in results) == 11


def test_a_full_queue_refuses_and_says_when_to_come_back(seeker, settings):
    settings.MATCHING_QUEUE_LIMIT = 3
    owners = [User.objects.create_user(f"owner {n}") for n in range(4)]
    for owner in owners[:3]:
        ask(owner)
    MatchJob.objects.update(submitted_at=timezone.now() - timedelta(seconds=40))
    with pytest.raises(QueueFull) as caught:
        ask(owners[3])
    assert 40 <= caught.value.retry_after <= 60
    with pytest.raises(QueueFull):
        ask(owners[3], BACKGROUND)
    assert MatchJob.objects.count() == 3


def test_the_background_never_keeps_a_person_out(seeker, finder, settings):
    settings.MATCHING_QUEUE_LIMIT = 3
    for _ in range(3):
        ask(finder, BACKGROUND)
    with pytest.raises(QueueFull):
        ask(finder, BACKGROUND)
    assert ask(seeker).state == "queued"


def test_a_change_is_never_refused_but_waits_longer(seeker, settings):
    settings.MATCHING_JOBS_PER_OWNER = 2
    priorities = [lost(seeker).match_job.priority for _ in range(4)]
    assert priorities == [CHANGE, CHANGE, BACKGROUND, BACKGROUND]
    settings.MATCHING_JOBS_PER_OWNER, settings.MATCHING_QUEUE_LIMIT = 100, 1
    assert lost(seeker).match_job.priority == BACKGROUND


def test_what_is_rolled_back_does_not_wait(seeker):
    with transaction.atomic():
        ask(seeker)
        transaction.set_rollback(True)
    assert queue.claim() is None


# --- Claiming -----------------------------------------------------------------------------------


def test_persons_come_before_changes_before_the_background(seeker, settings):
    settings.MATCHING_JOBS_PER_OWNER = 100
    expected = {}
    for n in range(18):
        priority = (BACKGROUND, PERSON, CHANGE)[n % 3]
        expected.setdefault(priority, []).append(ask(seeker, priority).pk)
    order = [queue.claim().task_id for _ in range(18)]
    assert order == expected[PERSON] + expected[CHANGE] + expected[BACKGROUND]
    assert queue.claim() is None


@pytest.mark.django_db(transaction=True)
def test_a_job_is_claimed_by_one(seeker, settings):
    settings.MATCHING_JOBS_PER_OWNER = 100
    for _ in range(40):
        ask(seeker)

    def claim_all(_):
        return [claim.task_id for claim in iter(queue.claim, None)]

    claimed = list(chain.from_iterable(in_threads(8, claim_all)))
    assert len(claimed) == len(set(claimed)) == 40
    assert set(MatchJob.objects.values_list("attempts", "state")) == {(1, "running")}


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_item_is_being_changed_is_not_claimed_before_the_change(seeker):
    item = lost(seeker)
    changed, go_on = threading.Event(), threading.Event()

    def edit(_):
        with transaction.atomic():
            actions.edit_item(item_id=item.pk, owner=seeker, title="Blue bag")
            changed.set()
            assert go_on.wait(10)

    thread = threading.Thread(target=in_threads, args=(1, edit))
    thread.start()
    try:
        assert changed.wait(10)
        assert queue.claim() is None
    finally:
        go_on.set()
        thread.join()
    assert queue.claim().item_id == item.pk


# --- Leases -------------------------------------------------------------------------------------


def test_what_a_dead_process_held_is_given_back_at_once(seeker):
    ask(seeker)
    queue.claim()
    assert queue.rescue() == 0  # it is ours, and we live
    MatchJob.objects.update(pid=dead_pid())
    assert queue.rescue() == 1
    job = MatchJob.objects.get()
    assert (job.state, job.attempts, job.lease_owner) == ("queued", 1, "")
    assert "died" in job.error
    assert queue.rescue() == 0
    assert tallied("matching_attempts_total", outcome="died") == 1


def test_a_process_that_had_the_same_id_before_is_dead(seeker):
    ask(seeker)
    claim = queue.claim()
    token, realm, _ = claim.lease.split(" ")
    MatchJob.objects.update(lease_owner=f"{token} {realm} 1")
    assert queue.rescue() == 1


def test_another_host_is_believed_until_its_lease_ends(seeker):
    ask(seeker)
    claim = queue.claim()
    token, _, started = claim.lease.split(" ")
    MatchJob.objects.update(lease_owner=f"{token} elsewhere {started}", pid=dead_pid())
    assert queue.rescue() == 0
    MatchJob.objects.update(lease_expires_at=timezone.now() - timedelta(milliseconds=1))
    assert queue.rescue() == 1
    assert "no sign of life" in MatchJob.objects.get().error


def test_a_lease_is_extended_by_its_holder_alone(seeker):
    ask(seeker)
    claim = queue.claim()
    MatchJob.objects.update(lease_expires_at=timezone.now())
    assert queue.extend(claim)
    assert MatchJob.objects.get().lease_expires_at > timezone.now() + timedelta(seconds=25)
    MatchJob.objects.update(lease_owner="somebody else")
    assert not queue.extend(claim)


def test_after_three_attempts_it_has_failed_with_the_last_reason(seeker):
    job = ask(seeker)
    for attempt in (1, 2, 3):
        claim = queue.claim()
        assert (claim.task_id, claim.attempts) == (job.pk, attempt)
        state = queue.give_back(claim, f"ValueError: no. {attempt}\0")
        assert state == ("queued" if attempt < 3 else "failed")
    assert queue.claim() is None
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", "ValueError: no. 3\\x00")
    assert job.finished_at
    assert job.expires_at > timezone.now()
    assert tallied("matching_jobs_failed_total") == 1


def test_a_poisoned_job_that_kills_its_worker_fails_as_well(seeker):
    ask(seeker)
    for _ in range(3):
        queue.claim()
        MatchJob.objects.update(pid=dead_pid())
        queue.rescue()
    job = MatchJob.objects.get()
    assert (job.state, job.attempts) == ("failed", 3)
    assert "died" in job.error


@pytest.mark.django_db(transaction=True)
def test_many_rescuers_rescue_once(seeker, settings):
    settings.MATCHING_JOBS_PER_OWNER = 20
    for _ in range(20):
        ask(seeker)
        queue.claim()
    MatchJob.objects.update(pid=dead_pid())
    assert sum(in_threads(6, lambda n: queue.rescue())) == 20
    assert set(MatchJob.objects.values_list("state", "attempts")) == {("queued", 1)}


def test_who_lost_its_lease_ends_nothing(seeker):
    ask(seeker)
    claim = queue.claim()
    MatchJob.objects.update(pid=dead_pid())
    queue.rescue()
    other = queue.claim()
    with pytest.raises(LeaseLost):
        queue.hold(claim)
    with pytest.raises(LeaseLost):
        queue.finish(claim, result={})
    assert queue.give_back(claim, "late") == ""
    queue.finish(other, result={"hits": []})
    assert MatchJob.objects.get().state == "done"


def test_a_job_is_cancelled_and_queued_again(seeker):
    job = ask(seeker)
    assert not queue.retry(job.pk)
    claim = queue.claim()
    assert queue.cancel(job.pk, reason="By hand.")
    assert not queue.cancel(job.pk)
    assert worker.perform(claim) == "lost"
    job.refresh_from_db()
    assert (job.state, job.error, job.result) == ("cancelled", "By hand.", None)
    assert queue.retry(job.pk)
    assert work_off() == 1
    job.refresh_from_db()
    assert (job.state, job.attempts) == ("done", 1)
    assert not queue.cancel(uuid.uuid4())


def test_a_job_is_not_queued_beside_another_of_its_item(seeker):
    item = lost(seeker)
    queue.cancel(item.match_job.pk)
    queue.submit_match(owner=seeker, item=item, priority=CHANGE)
    assert not queue.retry(item.match_job.pk)
    assert states() == ["cancelled", "queued"]


# --- Working ------------------------------------------------------------------------------------


def test_both_sides_find_one_another_in_one_row(seeker, finder):
    mine, other = lost(seeker), found(finder)
    found(finder, "Wooden garden chair", latitude=10.0, longitude=10.0)
    assert work_off() == 3
    match = Match.objects.get(seeker=mine, offer=other)
    assert (match.pair, match.state) == ("lost_found", "suggested")
    assert match.score > 0.5
    assert {"name", "raw", "weight", "contribution"} == set(match.components[0])
    assert Match.objects.filter(offer=other).count() == 1
    job = MatchJob.objects.get(item=mine)
    assert (job.state, job.progress, job.error) == ("done", "", "")
    assert job.result["matches"] >= 1
    assert job.result["took_ms"] > 0
    assert job.result["routes"]
    assert job.expires_at > timezone.now() + timedelta(hours=23)


def test_a_description_finds_items_and_stores_no_match(seeker, finder):
    item = found(finder)
    found(seeker)  # one's own is no match
    MatchJob.objects.all().delete()
    ask(seeker, title="Red leather phone case", latitude=55.95, longitude=-3.19)
    work_off()
    job = MatchJob.objects.get()
    [hit] = job.result["hits"]
    assert hit["item_id"] == item.pk
    assert hit["score"] > 0.5
    assert {"name", "raw", "weight", "contribution"} == set(hit["components"][0])
    assert not Match.objects.exists()


@pytest.mark.parametrize("verdict", ["dismissed", "confirmed"])
def test_what_people_said_of_a_pair_stays(seeker, finder, verdict):
    mine, other = lost(seeker), found(finder)
    work_off()
    match = Match.objects.get()
    if verdict == "dismissed":
        actions.dismiss_match(match_id=match.pk, user=seeker)
    else:
        Match.objects.update(state="confirmed")
    for _ in range(2):
        actions.edit_item(item_id=mine.pk, owner=seeker, description=f"as new {time.time()}")
        actions.edit_item(item_id=other.pk, owner=finder, description=f"as new {time.time()}")
        assert work_off() == 2
    assert Match.objects.get().state == verdict


def test_a_dismissed_pair_never_returns_even_without_its_row(seeker, finder):
    mine, other = lost(seeker), found(finder)
    MatchDismissal.objects.create(seeker=mine, offer=other)
    work_off()
    assert not Match.objects.exists()
    hits = engine.match(engine.subject_of(mine), kinds=["found"]).hits
    assert [hit.item_id for hit in hits] == [other.pk]
    with transaction.atomic():  # not even where the engine brings it
        stored = pairs.store(
            item_id=mine.pk, kind="lost", hits=hits, gone=[], versions={}, degraded=""
        )
    assert stored.matches == 0
    assert not Match.objects.exists()


def test_a_suggestion_that_no_longer_holds_expires_and_may_return(seeker, finder):
    mine = lost(seeker)
    found(finder)
    work_off()
    before = Match.objects.get()
    place = {"latitude": -10.0, "longitude": 100.0}
    actions.edit_item(item_id=mine.pk, owner=seeker, title="Grey cat", **place)
    work_off()
    assert Match.objects.get().state == "expired"
    place = {"latitude": 55.95, "longitude": -3.19}
    actions.edit_item(item_id=mine.pk, owner=seeker, title="Red leather phone case", **place)
    work_off()
    again = Match.objects.get()
    assert (again.pk, again.state) == (before.pk, "suggested")


def test_what_the_other_side_found_holds_beyond_the_best(seeker, finder, settings):
    """The one found item has more lost ones than results; each of these still finds it."""
    settings.MATCHING_RESULTS = 2
    other = found(finder)
    mine = [lost(seeker) for _ in range(4)]
    work_off()
    assert Match.objects.filter(offer=other, state="suggested").count() == 4
    queue.submit_match(owner=finder, item=other, priority=PERSON)
    work_off()
    assert Match.objects.filter(offer=other, state="suggested").count() == 4
    assert set(Match.objects.values_list("seeker_id", flat=True)) == {item.pk for item in mine}


def test_looking_again_changes_nothing(seeker, finder):
    mine = lost(seeker)
    found(finder)
    work_off()
    queue.submit_match(owner=seeker, item=mine, priority=PERSON)
    work_off()
    before = Match.objects.get()
    queue.submit_match(owner=seeker, item=mine, priority=PERSON)
    work_off()
    assert Match.objects.values().get() == {
        name: getattr(before, name) for name in Match.objects.values().get()
    }


def test_the_job_of_an_item_that_closed_is_cancelled(seeker):
    item = lost(seeker)
    actions.edit_item(item_id=item.pk, owner=seeker, status="closed")
    work_off()
    job = MatchJob.objects.get()
    assert (job.state, job.error) == ("cancelled", "Its item is not open any more.")


def test_an_item_that_closes_while_it_is_matched_gets_no_match(seeker, finder, monkeypatch):
    mine = lost(seeker)
    found(finder)
    look = engine.match

    def close_meanwhile(subject, **options):
        outcome = look(subject, **options)
        if subject.kind == "lost":
            assert outcome.hits
            actions.edit_item(item_id=mine.pk, owner=seeker, status="closed")
        return outcome

    monkeypatch.setattr(engine, "match", close_meanwhile)
    work_off()
    assert not Match.objects.exists()
    assert MatchJob.objects.get(item=mine).state == "cancelled"


def test_a_look_that_fails_is_tried_again_and_then_failed(seeker, monkeypatch):
    lost(seeker)
    attempts = []

    def fail(subject, **options):
        attempts.append(subject.title)
        raise ZeroDivisionError("poison")

    monkeypatch.setattr(engine, "match", fail)
    work_off()
    job = MatchJob.objects.get()
    assert len(attempts) == 3
    assert (job.state, job.error) == ("failed", "ZeroDivisionError: poison")


@pytest.mark.django_db(transaction=True)
def test_a_result_that_cannot_be_stored_is_not_stored_in_part(seeker, finder, monkeypatch):
    mine = lost(seeker)
    found(finder)
    finish = queue.finish

    def fail_once(job, **options):
        monkeypatch.setattr(queue, "finish", finish)
        assert Match.objects.exists()
        raise ZeroDivisionError("after the matches")

    monkeypatch.setattr(queue, "finish", fail_once)
    claim = queue.claim()
    assert claim.item_id == mine.pk
    assert worker.perform(claim) == "queued"
    assert not Match.objects.exists()
    work_off()
    assert Match.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_jobs_of_both_sides_at_once_store_one_row(seeker, finder):
    mine = [lost(seeker) for _ in range(4)]
    theirs = [found(finder) for _ in range(4)]
    items = [*mine, *theirs]
    MatchJob.objects.all().delete()
    for round_ in range(5):
        hits = {
            item.pk: engine.match(
                engine.subject_of(item), kinds=[COUNTERPARTS[item.kind]], owner_id=item.owner_id
            ).hits
            for item in items
        }
        start = threading.Barrier(len(items))

        def store(n, start=start, hits=hits):
            start.wait()
            with transaction.atomic():
                pairs.store(
                    item_id=items[n].pk,
                    kind=items[n].kind,
                    hits=hits[items[n].pk],
                    gone=[],
                    versions={},
                    degraded="",
                )

        assert in_threads(len(items), store) == [None] * len(items)
        assert Match.objects.count() == 16
        if round_ < 4:
            Match.objects.all().delete()
    found_pairs = set(Match.objects.values_list("seeker_id", "offer_id"))
    assert found_pairs == {(one.pk, other.pk) for one in mine for other in theirs}


@pytest.mark.django_db(transaction=True)
def test_two_workers_share_a_queue(seeker, finder, settings):
    settings.MATCHING_JOBS_PER_OWNER = 100
    for _ in range(10):
        lost(seeker)
        found(finder)
    done = in_threads(2, lambda n: work_off())
    assert sum(done) == 20
    assert set(MatchJob.objects.values_list("state", "attempts")) == {("done", 1)}
    assert tallied("matching_attempts_total", outcome="done") == 20
    assert Match.objects.count() == len(set(Match.objects.values_list("seeker_id", "offer_id")))


def test_an_item_has_its_vector_before_its_job_looks(seeker, finder):
    """So that of two items of one moment the later job sees both by their meaning."""
    theirs = found(finder, "Black kitten, red collar", latitude=None, longitude=None)
    mine = lost(seeker, "Black cat, red collar", latitude=None, longitude=None)
    work_off()
    assert set(ItemEmbedding.objects.values_list("item_id", flat=True)) == {theirs.pk, mine.pk}
    assert "meaning" in {component["name"] for component in Match.objects.get().components}
    assert embedding.drain() == 0


def test_an_item_that_cannot_be_embedded_is_matched_all_the_same(seeker, finder, monkeypatch):
    def fail(item_ids):
        raise EmbedderError("away")

    monkeypatch.setattr(embedding, "embed_now", fail)
    found(finder)
    lost(seeker)
    work_off()
    assert Match.objects.count() == 1


def test_without_vectors_it_says_so(seeker, finder, settings):
    settings.EMBEDDER = "off"
    mine = lost(seeker)
    found(finder)
    work_off()
    assert MatchJob.objects.get(item=mine).degraded == engine.NO_VECTORS
    assert Match.objects.get().degraded == engine.NO_VECTORS
    assert tallied("matching_degraded_total", reason=engine.NO_VECTORS) == 2


def test_a_look_without_vectors_takes_nothing_back(seeker, finder, settings):
    mine = lost(seeker)
    found(finder)
    work_off()
    settings.EMBEDDER = "off"
    place = {"latitude": -10.0, "longitude": 100.0}
    actions.edit_item(item_id=mine.pk, owner=seeker, title="Grey cat", **place)
    work_off()
    assert Match.objects.get().state == "suggested"


# --- Around it ----------------------------------------------------------------------------------


def test_the_scheduled_job_works_where_no_worker_does(seeker, transactional_db):
    lost(seeker)
    record = jobs.run_job("match_queue", trigger="test")
    assert record.rows == 1
    assert states() == ["done"]
    ask(seeker)
    runs.beat(worker.WORKER)
    record = jobs.run_job("match_queue", trigger="test")
    assert (record.rows, record.detail) == (None, {"rescued": 0})
    assert states() == ["done", "queued"]


def test_the_metrics_of_the_queue(seeker, finder, settings):
    settings.MATCHING_JOBS_PER_OWNER = 100
    lost(seeker)
    found(finder)
    work_off()
    ask(seeker)
    lost(seeker)
    MatchJob.objects.filter(priority=PERSON).update(
        submitted_at=timezone.now() - timedelta(seconds=90)
    )
    text = metrics.exposition().decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['match_queue_depth{priority="person"}'] == "1.0"
    assert lines['match_queue_depth{priority="change"}'] == "1.0"
    assert lines['match_queue_depth{priority="background"}'] == "0.0"
    assert 90 <= float(lines['match_queue_oldest_seconds{priority="person"}']) < 120
    assert lines['matching_attempts_total{outcome="done"}'] == "2.0"
    assert "# TYPE matching_job_duration_seconds histogram" in text
    assert lines['matching_job_duration_seconds_bucket{le="+Inf"}'] == "2.0"
    assert lines["matching_job_duration_seconds_count"] == "2.0"
    assert float(lines["matching_job_duration_seconds_sum"]) > 0
    assert 'matching_candidates_total{route="words"}' in lines
    assert float(lines["embedding_refresh_queue_depth"]) >= 0
    assert lines['metrics_errors{part="none"}'] == "0.0"


def test_recall_is_sampled(seeker, finder, settings):
    settings.MATCHING_RECALL_SAMPLE = 1
    lost(seeker)
    found(finder)
    embedding.drain()
    work_off()
    assert tallied("matching_recall_count") == 2
    assert tallied("matching_recall_sum") == 2
    assert "matching_recall_sum 2.0" in metrics.exposition().decode()


def test_the_fullest_bucket_is_measured_by_a_job(seeker, transactional_db):
    for _ in range(3):
        lost(seeker, category="phone")
    lost(seeker, category="case")
    jobs.run_job("measure_matching", trigger="test")
    assert "matching_largest_bucket_items 3.0" in metrics.exposition().decode()


def test_what_expires_goes(seeker, finder, settings, transactional_db):
    old = timezone.now() - timedelta(days=400)
    kept, gone = ask(seeker), ask(seeker)
    work_off()
    MatchJob.objects.filter(pk=gone.pk).update(expires_at=old)
    match = Match.objects.create(
        pair="lost_found", seeker=lost(seeker), offer=found(finder), score=1, components=[]
    )
    actions.confirm_match(match_id=match.pk, user=seeker)
    Notification.objects.update(created_at=old)
    deleted = lost(seeker)
    actions.delete_item(item_id=deleted.pk, owner=seeker)
    recently = lost(seeker)
    actions.delete_item(item_id=recently.pk, owner=seeker)
    Item.objects.filter(pk=deleted.pk).update(updated_at=old)
    names = ["match_jobs", "match_notifications", "deleted_items"]
    assert [done.rows for done in retention.prune(names)] == [1, 1, 1]
    assert MatchJob.objects.filter(pk=kept.pk).exists()
    assert not Item.objects.filter(pk=deleted.pk).exists()
    assert Item.objects.filter(pk=recently.pk).exists()
    settings.MATCHING_JOBS_RETENTION_DAYS = 0
    MatchJob.objects.update(expires_at=old)
    assert retention.prune(["match_jobs"])[0].rows == 0


def test_the_attempt_counts_before_it_starts(seeker):
    ask(seeker)
    claim = queue.claim()
    assert claim.attempts == MatchJob.objects.get().attempts == 1
    assert MatchJob.objects.filter(started_at__gte=F("submitted_at")).exists()
    assert leases.new_owner() != claim.lease


def test_a_look_that_was_overtaken_does_not_undo_a_newer_one(seeker, finder, monkeypatch):
    """The item changes, and is looked for again, between the look of an older job and its end."""
    mine, _ = lost(seeker), found(finder)
    assert work_off() == 2
    assert Match.objects.get().state == "suggested"
    looked, match = [], engine.match

    def overtaken(*subject, **asked):
        found = match(*subject, **asked)
        if not looked:
            looked.append(True)
            changes = {"title": "Grey parrot", "latitude": 1.0, "longitude": 1.0}
            actions.edit_item(item_id=mine.pk, owner=seeker, **changes)
            assert work_off() == 1
            assert Match.objects.get().state == "expired"
        return found

    queue.submit_match(owner=seeker, item=mine, priority=PERSON)
    monkeypatch.setattr(worker.engine, "match", overtaken)
    assert work_off() == 1
    assert looked
    assert Match.objects.get().state == "expired"
    assert states() == ["done"] * 4


def test_an_item_that_changes_at_each_look_is_tried_again_later(seeker, finder, monkeypatch):
    mine, other = lost(seeker), found(finder)
    MatchJob.objects.all().delete()
    queue.submit_match(owner=seeker, item=mine, priority=PERSON)
    store = pairs.store

    def meddling(**asked):
        Item.objects.filter(pk=other.pk).update(updated_at=timezone.now())
        return store(**asked)

    monkeypatch.setattr(worker.pairs, "store", meddling)
    assert worker.perform(queue.claim()) == "queued"
    assert "has changed since it was scored" in MatchJob.objects.get().error
    assert not Match.objects.exists()


def test_a_suggestion_that_one_side_confirmed_stays(seeker, finder, settings):
    lost(seeker), found(finder)
    work_off()
    match = Match.objects.get()
    actions.confirm_match(match_id=match.pk, user=seeker)
    settings.MATCHING_SCORE_FLOOR = 0.9999
    queue.submit_match(owner=seeker, item=match.seeker, priority=PERSON)
    work_off()
    assert Match.objects.get().state == "suggested"
    assert actions.confirm_match(match_id=match.pk, user=finder).state == "confirmed"


def test_resumes_are_matched_by_cells_and_descriptions_too(seeker, finder):
    """Moved within its cell, a place changes nothing that the other side is told."""
    job = lost(finder, "Head gardener of a rose garden", kind="job")
    other = found(finder, "Red leather phone case")
    told = []
    for step in (0, 0.002):
        MatchJob.objects.all().delete()
        Match.objects.all().delete()
        Item.objects.filter(pk__in=[job.pk, other.pk]).update(
            latitude=55.9501 + step, longitude=-3.1901
        )
        resume = lost(seeker, "Head gardener of a rose garden", kind="resume")
        ask(seeker, title="Red leather phone case")
        assert work_off() == 2
        query = MatchJob.objects.get(item=None).result["hits"][0]
        told.append((Match.objects.get(seeker=resume).score, query["score"]))
    assert Item.objects.get(pk=job.pk).geohash[:6] == "gcvwr3"
    assert told[0] == told[1]
