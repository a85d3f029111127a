"""What people do with items and matches, and what follows from it in the same transaction."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from matching import actions, badges, pairs
from matching.actions import ItemNotFound, MatchIsOver, MatchNotFound
from matching.fields import InvalidItem
from matching.kinds import pair_of
from matching.models import (
    AuditLog,
    Item,
    ItemBucket,
    Match,
    MatchDismissal,
    MatchJob,
    Notification,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def seeker(db):
    return User.objects.create_user("seeker")


@pytest.fixture
def finder(db):
    return User.objects.create_user("finder")


@pytest.fixture
def stranger(db):
    return User.objects.create_user("stranger")


def lost(owner, **fields):
    given = {"kind": "lost", "title": "Red phone", "latitude": 55.95, "longitude": -3.19} | fields
    return actions.create_item(owner=owner, **given)


def found(owner, **fields):
    return lost(owner, kind="found", **fields)


def suggested(seeker_item, offer_item, **fields):
    return Match.objects.create(
        pair=pair_of(seeker_item.kind),
        seeker=seeker_item,
        offer=offer_item,
        score=0.7,
        components=[],
        **fields,
    )


def audit(entity="item"):
    rows = AuditLog.objects.filter(entity=entity).order_by("id")
    return list(rows.values_list("actor_id", "action", "entity_id"))


def states():
    return dict(Match.objects.values_list("id", "state"))


def test_a_new_item_can_be_found_and_waits_for_its_matches(seeker):
    item = lost(seeker, description="With a cracked screen", attributes={"storage": "64 GB"})
    assert item.geohash.startswith("gcvw")
    assert item.terms.split("\x1f")[0] == "red phone"
    assert "cracked" in item.terms
    assert item.features
    assert ItemBucket.objects.get().item_id == item.pk
    assert audit() == [(seeker.pk, "create", item.pk)]
    job = MatchJob.objects.get()
    assert item.match_job == job
    assert (job.item_id, job.owner_id, job.priority, job.state) == (
        item.pk, seeker.pk, MatchJob.Priority.CHANGE, "queued",
    )  # fmt: skip


def test_nothing_is_written_of_an_item_that_is_wrong(seeker):
    with pytest.raises(InvalidItem):
        lost(seeker, latitude=91)
    assert not Item.objects.exists()
    assert not audit()


def test_an_edit_follows_everywhere(seeker):
    item = lost(seeker)
    MatchJob.objects.all().delete()
    edited = actions.edit_item(
        item_id=item.pk, owner=seeker, title="Blue bag", latitude=0.0, longitude=0.0
    )
    stored = Item.objects.get()
    assert stored.title == edited.title == "Blue bag"
    assert stored.terms == edited.terms
    assert stored.terms.split("\x1f")[0] == "blue bag"
    assert stored.geohash == edited.geohash
    assert ItemBucket.objects.get().geohash6 == stored.geohash[:6]
    assert stored.updated_at > item.updated_at
    assert MatchJob.objects.get() == edited.match_job
    last = AuditLog.objects.latest("id")
    assert (last.action, last.detail) == ("edit", {"fields": ["latitude", "longitude", "title"]})


def test_an_edit_that_changes_nothing_writes_nothing(seeker):
    item = lost(seeker)
    MatchJob.objects.all().delete()
    edited = actions.edit_item(item_id=item.pk, owner=seeker, title=" Red  phone", status="open")
    assert edited.match_job is None
    assert Item.objects.get().updated_at == item.updated_at
    assert not MatchJob.objects.exists()
    assert len(audit()) == 1


def test_an_edit_that_no_score_sees_queues_nothing(seeker):
    item = lost(seeker)
    MatchJob.objects.all().delete()
    later = timezone.now() + timedelta(days=3)
    assert actions.edit_item(item_id=item.pk, owner=seeker, expires_at=later).match_job is None
    assert not MatchJob.objects.exists()
    assert Item.objects.get().expires_at == later


def test_what_may_not_be_edited(seeker, stranger):
    item = lost(seeker)
    for changes, field in [
        ({"kind": "found"}, "kind"),
        ({"status": "matched"}, "status"),
        ({"status": "expired"}, "status"),
        ({"status": ["open"]}, "status"),
        ({"latitude": 4.0}, "longitude"),
        ({"owner_id": stranger.pk}, "owner_id"),
    ]:
        with pytest.raises(InvalidItem) as caught:
            actions.edit_item(item_id=item.pk, owner=seeker, **changes)
        assert caught.value.errors.keys() == {field}
    with pytest.raises(ItemNotFound):
        actions.edit_item(item_id=item.pk, owner=stranger, title="Mine")
    with pytest.raises(ItemNotFound):
        actions.delete_item(item_id=item.pk, owner=stranger)
    assert Item.objects.get().title == "Red phone"


@pytest.mark.parametrize("end", ["close", "delete", "expire"])
def test_what_is_over_takes_its_suggestions_along(seeker, finder, end):
    mine, other = lost(seeker), found(finder)
    suggestion = suggested(mine, other)
    confirmed = suggested(lost(seeker), other, state="confirmed")
    another = suggested(lost(seeker), other)
    if end == "close":
        actions.edit_item(item_id=mine.pk, owner=seeker, status="closed")
    elif end == "delete":
        actions.delete_item(item_id=mine.pk, owner=seeker)
    else:
        Item.objects.filter(pk=mine.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        assert actions.expire_items() == 1
        assert actions.expire_items() == 0
    assert states() == {
        suggestion.pk: "expired",
        confirmed.pk: "confirmed",
        another.pk: "suggested",
    }
    assert not ItemBucket.objects.filter(item_id=mine.pk).exists()
    assert audit()[-1][1:] == ("edit" if end == "close" else end, mine.pk)


def test_a_deleted_item_is_gone_for_its_owner(seeker):
    item = lost(seeker)
    actions.delete_item(item_id=item.pk, owner=seeker)
    assert Item.objects.get().is_deleted
    with pytest.raises(ItemNotFound):
        actions.edit_item(item_id=item.pk, owner=seeker, title="Again")


def test_an_item_opens_again_without_the_end_that_it_had(seeker):
    item = lost(seeker, expires_at=timezone.now() + timedelta(days=1))
    Item.objects.update(expires_at=timezone.now() - timedelta(days=1))
    actions.expire_items()
    MatchJob.objects.all().delete()
    opened = actions.edit_item(item_id=item.pk, owner=seeker, status="open")
    assert Item.objects.get().status == "open"
    assert opened.expires_at is None
    assert opened.match_job is not None
    assert ItemBucket.objects.get().item_id == item.pk


def test_items_expire_in_batches(seeker, monkeypatch):
    for _ in range(5):
        lost(seeker)
    Item.objects.update(expires_at=timezone.now() - timedelta(days=1))
    monkeypatch.setattr(actions, "EXPIRED_AT_ONCE", 2)
    assert actions.expire_items(go_on=iter([True, False]).__next__) == 2
    assert actions.expire_items() == 3
    assert set(Item.objects.values_list("status", flat=True)) == {"expired"}


def test_one_side_confirms_and_the_other_is_told_once(seeker, finder):
    match = suggested(lost(seeker), found(finder))
    for _ in range(2):
        confirmed = actions.confirm_match(match_id=match.pk, user=seeker)
    assert confirmed.state == "suggested"
    assert confirmed.seeker_confirmed_at
    assert not confirmed.offer_confirmed_at
    told = Notification.objects.get()
    assert (told.user, told.subject) == (finder, "confirmed_by_other")
    assert (told.seeker_id, told.offer_id) == (match.seeker_id, match.offer_id)
    assert audit("match") == [(seeker.pk, "confirm", match.pk)]


def test_both_sides_confirm_and_both_items_are_matched(seeker, finder):
    mine, other = lost(seeker), found(finder)
    match, rest = suggested(mine, other), suggested(lost(seeker), other)
    actions.confirm_match(match_id=match.pk, user=finder)
    actions.confirm_match(match_id=match.pk, user=seeker)
    assert states() == {match.pk: "confirmed", rest.pk: "expired"}
    assert set(Item.objects.filter(pk__in=[mine.pk, other.pk]).values_list("status")) == {
        ("matched",)
    }
    told = Notification.objects.order_by("id").values_list("user__username", "subject")
    assert list(told) == [("seeker", "confirmed_by_other"), ("finder", "confirmed_by_both")]


def test_a_resume_and_a_job_go_on_when_confirmed(seeker, finder):
    match = suggested(lost(seeker, kind="resume"), lost(finder, kind="job"))
    actions.confirm_match(match_id=match.pk, user=finder)
    assert actions.confirm_match(match_id=match.pk, user=seeker).state == "confirmed"
    assert set(Item.objects.values_list("status", flat=True)) == {"open"}


def test_a_dismissed_pair_is_over_for_good(seeker, finder):
    match = suggested(lost(seeker), found(finder))
    for _ in range(2):
        assert actions.dismiss_match(match_id=match.pk, user=finder).state == "dismissed"
    dismissal = MatchDismissal.objects.get()
    assert dismissal.dismissed_by == finder
    assert audit("match") == [(finder.pk, "dismiss", match.pk)]
    with pytest.raises(MatchIsOver) as caught:
        actions.confirm_match(match_id=match.pk, user=seeker)
    assert caught.value.state == "dismissed"


def test_a_match_of_an_item_that_is_closed_is_over(seeker, finder):
    mine = lost(seeker)
    match = suggested(mine, found(finder))
    actions.edit_item(item_id=mine.pk, owner=seeker, status="closed")
    with pytest.raises(MatchIsOver):
        actions.confirm_match(match_id=match.pk, user=finder)


def test_matches_of_others_are_none(seeker, finder, stranger):
    match = suggested(lost(seeker), found(finder))
    for act in (actions.confirm_match, actions.dismiss_match):
        with pytest.raises(MatchNotFound):
            act(match_id=match.pk, user=stranger)
        with pytest.raises(MatchNotFound):
            act(match_id=match.pk + 1_000_000, user=seeker)
    assert states() == {match.pk: "suggested"}


def test_notifications_are_read(seeker, finder, stranger):
    for _ in range(3):
        match = suggested(lost(seeker), found(finder))
        actions.confirm_match(match_id=match.pk, user=seeker)
    first, second, third = Notification.objects.order_by("id").values_list("id", flat=True)
    assert actions.read_notifications(user=stranger, ids=[first]) == 0
    assert actions.read_notifications(user=finder, ids=[third]) == 1
    assert actions.read_notifications(user=finder, up_to=second) == 2
    assert actions.read_notifications(user=finder, ids=[first], up_to=third) == 0


def test_badges_are_counted_anew(seeker, finder, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        match = suggested(lost(seeker), found(finder))
    before = badges.badges(finder.pk)[0]
    assert badges.badges(finder.pk) == (before, True)
    with django_capture_on_commit_callbacks(execute=True):
        actions.confirm_match(match_id=match.pk, user=seeker)
    after, cached = badges.badges(finder.pk)
    assert not cached
    assert after["unread_notifications"] == before["unread_notifications"] + 1


def in_thread(act):
    """What `act` returns or raises, in a thread with a connection of its own."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 -- the test looks at it
        return error
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_both_confirm_at_the_same_moment(seeker, finder):
    for _ in range(10):
        match = suggested(lost(seeker), found(finder))
        with ThreadPoolExecutor(4) as pool:
            acts = [
                lambda user=user, match=match: actions.confirm_match(match_id=match.pk, user=user)
                for user in (seeker, finder, seeker, finder)
            ]
            results = list(pool.map(in_thread, acts))
        assert not [one for one in results if isinstance(one, Exception)]
        assert Match.objects.get(pk=match.pk).state == "confirmed"
        told = Notification.objects.filter(seeker_id=match.seeker_id)
        assert sorted(told.values_list("subject", flat=True)) == [
            "confirmed_by_both", "confirmed_by_other",
        ]  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_everything_at_once_deadlocks_nobody(seeker, finder):
    """Confirmations, dismissals, closings and re-openings over few items, from all sides."""
    mine = [lost(seeker) for _ in range(3)]
    theirs = [found(finder) for _ in range(3)]
    matches = [suggested(one, other) for one in mine for other in theirs]

    def acts(number):
        one, other = mine[number % 3], theirs[number // 3 % 3]
        match = matches[number % 9]
        yield lambda: actions.confirm_match(match_id=match.pk, user=seeker)
        yield lambda: actions.edit_item(item_id=one.pk, owner=seeker, status="closed")
        yield lambda: actions.confirm_match(match_id=match.pk, user=finder)
        yield lambda: actions.edit_item(item_id=one.pk, owner=seeker, status="open")
        yield lambda: actions.edit_item(item_id=other.pk, owner=finder, status="open")
        yield lambda: store(one, theirs)
        yield lambda: store(other, mine)

    def store(item, others):
        hits = [Hit(one.pk) for one in others[:2]]
        with transaction.atomic():
            pairs.store(
                item_id=item.pk,
                kind=item.kind,
                hits=hits,
                gone=[others[2].pk],
                versions={},
                degraded="",
            )

    class Hit:
        score, components = 0.5, ()

        def __init__(self, item_id):
            self.item_id = item_id

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(in_thread, [act for n in range(27) for act in acts(n)]))
    unexpected = [
        one
        for one in results
        if isinstance(one, Exception) and not isinstance(one, MatchIsOver | pairs.NotLive)
    ]
    assert unexpected == []
    assert Match.objects.count() == 9  # one row a pair, whoever looked


def test_dismissed_after_both_confirmed_both_are_looked_for_again(seeker, finder):
    match = suggested(lost(seeker), found(finder))
    MatchJob.objects.all().delete()
    for user in (seeker, finder):
        actions.confirm_match(match_id=match.pk, user=user)
    assert set(Item.objects.values_list("status", flat=True)) == {"matched"}
    actions.dismiss_match(match_id=match.pk, user=finder)
    assert set(Item.objects.values_list("status", flat=True)) == {"open"}
    assert MatchJob.objects.filter(state="queued").count() == 2


def test_a_closed_item_stays_closed_when_its_match_is_dismissed(seeker, finder):
    mine, other = lost(seeker), found(finder)
    match = suggested(mine, other)
    for user in (seeker, finder):
        actions.confirm_match(match_id=match.pk, user=user)
    actions.edit_item(item_id=mine.pk, owner=seeker, status="closed")
    actions.dismiss_match(match_id=match.pk, user=finder)
    assert Item.objects.get(pk=mine.pk).status == "closed"
    assert Item.objects.get(pk=other.pk).status == "open"


@pytest.mark.parametrize("whose", ["seeker", "offer"])
def test_the_match_of_a_deleted_item_is_not_there(seeker, finder, whose):
    match = suggested(lost(seeker), found(finder))
    gone = getattr(match, whose)
    actions.delete_item(item_id=gone.pk, owner=gone.owner)
    for act in (actions.confirm_match, actions.dismiss_match):
        for user in (seeker, finder):
            with pytest.raises(actions.MatchNotFound):
                act(match_id=match.pk, user=user)


def test_a_status_of_nothing_is_refused(seeker):
    item = lost(seeker)
    with pytest.raises(InvalidItem, match="status"):
        actions.edit_item(item_id=item.pk, owner=seeker, status=None)
