"""Writes of matching: items by their owners, and what owners say of matches.

Each is one transaction together with its audit row, the job that looks for counterparts and what
the other owner is told. Locks are taken in one order everywhere, so that nobody deadlocks: the
pair (advisory), items by id, matches by id.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from config.sqlfiles import Statements
from matching import badges, features, projection, text
from matching.fields import InvalidItem, clean
from matching.kinds import Pair
from matching.models import AuditLog, Item, Match, MatchJob, Notification
from matching.pairs import lock_pairs
from matching.queue import submit_match

_sql = Statements("matching")

EXPIRED_AT_ONCE = 500
# What an owner may set, and from where. `expired` is set by time, `matched` by both owners.
_REOPENED, _CLOSED = Item.Status.OPEN, Item.Status.CLOSED
_UNSAID = object()
# What a match is scored by. Other changes need no new look.
_SCORED = {
    "title", "description", "category", "attributes", "country", "city", "latitude", "longitude",
    "happened_on", "status",
}  # fmt: skip


class ItemNotFound(LookupError):
    """No such item, or it is deleted, or somebody else's."""


class MatchNotFound(LookupError):
    """No such match, or neither of its items is this person's."""


class MatchIsOver(Exception):
    """The match can no longer be confirmed. `state`: dismissed or expired."""

    def __init__(self, state: str):
        super().__init__(f"the match is {state}")
        self.state = state


def create_item(*, owner, **fields: Any) -> Item:
    """Post an item and have its counterparts looked for. Its `match_job` is the job that waits.

    `fields` as in `matching.fields`. Raises InvalidItem.
    """
    values = clean(fields)
    with transaction.atomic():
        item = Item(owner=owner, **values, **_derived(values))
        item.save(force_insert=True)
        _audit(owner.pk, "create", item.pk)
        item.match_job = submit_match(owner=owner, item=item, priority=MatchJob.Priority.CHANGE)
        _forget_badges({owner.pk})
    return item


def edit_item(*, item_id: int, owner, **changes: Any) -> Item:
    """Change an item's fields, or its `status`: closed, or open again.

    Where a change bears on matches, a new look is queued (`match_job`, else None); an item that is
    no longer open takes its suggestions along. What is equal already changes nothing. Raises
    ItemNotFound, InvalidItem.
    """
    status = changes.pop("status", _UNSAID)
    if status is None:
        raise InvalidItem({"status": f"Must be {_REOPENED} or {_CLOSED}."})
    values = clean(changes, partial=True)
    with transaction.atomic():
        item = _locked(item_id, owner)
        _check_change(item, values, status)
        if status is not _UNSAID:
            values["status"] = status
        changed = {name: one for name, one in values.items() if getattr(item, name) != one}
        item.match_job = None
        if not changed:
            return item
        if changed.get("status") == _REOPENED and _is_over(item) and "expires_at" not in changed:
            changed["expires_at"] = None
        _write(item, changed)
        _audit(owner.pk, "edit", item.pk, fields=sorted(changed))
        if item.status != Item.Status.OPEN:
            _withdraw([item.pk])
        elif _SCORED & changed.keys():
            item.match_job = submit_match(owner=owner, item=item, priority=MatchJob.Priority.CHANGE)
        _forget_badges({owner.pk})
    return item


def delete_item(*, item_id: int, owner, by=None) -> None:
    """Delete an item softly; its suggestions expire. `by`: who does it, if not the owner.

    Raises ItemNotFound.
    """
    with transaction.atomic():
        item = _locked(item_id, owner)
        _write(item, {"is_deleted": True})
        _withdraw([item.pk])
        _audit((by or owner).pk, "delete", item.pk)
        _forget_badges({owner.pk})


def expire_items(*, go_on: Callable[[], bool] = lambda: True) -> int:
    """Expire the open items whose time is over, 500 a transaction; returns how many."""
    expired = 0
    while go_on():
        with transaction.atomic():
            due = _sql.rows("due_items", limit=EXPIRED_AT_ONCE)
            ids = [item_id for item_id, _ in due]
            Item.objects.filter(pk__in=ids).update(status=Item.Status.EXPIRED, updated_at=Now())
            transaction.on_commit(lambda gone=ids: projection.forget(gone))
            _withdraw(ids)
            AuditLog.objects.bulk_create(
                AuditLog(action="expire", entity="item", entity_id=item_id) for item_id in ids
            )
            _forget_badges({owner_id for _, owner_id in due})
        expired += len(due)
        if len(due) < EXPIRED_AT_ONCE:
            break
    return expired


def confirm_match(*, match_id: int, user) -> Match:
    """Say that a match is right, for the side that `user` owns; the other owner is told, once.

    With both sides' word it is confirmed, and both items are matched and no longer looked for,
    but for a resume and a job, which go on. Again, it changes nothing. Raises MatchNotFound,
    MatchIsOver.
    """
    with transaction.atomic():
        match, mine, other = _locked_match(match_id, user)
        if match.state in (Match.State.DISMISSED, Match.State.EXPIRED):
            raise MatchIsOver(match.state)
        side = f"{mine}_confirmed_at"
        if getattr(match, side):
            return match
        if not (match.seeker.is_live and match.offer.is_live):
            raise MatchIsOver(Match.State.EXPIRED)
        now = timezone.now()
        both = getattr(match, f"{other}_confirmed_at") is not None
        state = Match.State.CONFIRMED if both else match.state
        _write_match(match, **{side: now, "state": state})
        if both and match.pair != Pair.RESUME_JOB:
            _settle(match)
        _audit(user.pk, "confirm", match.pk, entity="match")
        _tell(getattr(match, other).owner_id, match, both=both)
        _forget_badges({match.seeker.owner_id, match.offer.owner_id})
    return match


def dismiss_match(*, match_id: int, user) -> Match:
    """Say that a match is wrong: the pair never returns. Again, it changes nothing.

    Either owner may, whatever was confirmed before; items that were out of the search because of it
    are looked for again. Raises MatchNotFound.
    """
    with transaction.atomic():
        match, _, _ = _locked_match(match_id, user)
        if match.state == Match.State.DISMISSED:
            return match
        was_confirmed = match.state == Match.State.CONFIRMED
        _sql.count(
            "dismiss_pair", seeker=match.seeker_id, offer=match.offer_id, dismissed_by=user.pk
        )
        _write_match(match, state=Match.State.DISMISSED)
        if was_confirmed and match.pair != Pair.RESUME_JOB:
            _reopen(match)
        _audit(user.pk, "dismiss", match.pk, entity="match")
        _forget_badges({match.seeker.owner_id, match.offer.owner_id})
    return match


def read_notifications(*, user, ids: Iterable[int] = (), up_to: int | None = None) -> int:
    """Mark notifications as read: these, and all up to an id; how many were not before."""
    unread = Notification.objects.filter(user=user, read_at=None)
    with transaction.atomic():
        read = unread.filter(Q(pk__in=list(ids)) | Q(pk__lte=up_to or 0)).update(read_at=Now())
        if read:
            _forget_badges({user.pk})
    return read


def _derived(values: dict[str, Any]) -> dict[str, Any]:
    """What an item stores beside its fields, so that it can be found and compared."""
    return {
        "terms": text.terms(values["title"], values.get("description", "")),
        "features": features.normalise(values.get("attributes", {})),
    }


def _locked(item_id: int, owner) -> Item:
    """The owner's item, locked for a change; raises ItemNotFound."""
    rows = Item.objects.select_for_update(no_key=True)
    item = rows.filter(pk=item_id, owner=owner, is_deleted=False).first()
    if item is None:
        raise ItemNotFound(f"no item {item_id}")
    return item


def _check_change(item: Item, values: dict[str, Any], status: Any) -> None:
    errors = {}
    if values.get("kind", item.kind) != item.kind:
        errors["kind"] = "Cannot be changed: post another item."
    if status not in (_UNSAID, item.status, _REOPENED, _CLOSED):
        errors["status"] = f"Must be {_REOPENED} or {_CLOSED}."
    if errors:
        raise InvalidItem(errors)


def _write(item: Item, changed: dict[str, Any]) -> None:
    """Write an item's changed fields, with what follows from them."""
    for name, value in changed.items():
        setattr(item, name, value)
    fields = {*changed, "updated_at"}
    if {"title", "description", "attributes"} & changed.keys():
        derived = _derived(vars(item))
        for name, value in derived.items():
            setattr(item, name, value)
        fields |= derived.keys()
    item.updated_at = timezone.now()
    item.save(update_fields=sorted(fields))
    transaction.on_commit(lambda: projection.forget([item.pk]))
    if {"latitude", "longitude"} & changed.keys():
        item.refresh_from_db(fields=["geohash"])


def _withdraw(item_ids: Iterable[int]) -> None:
    """Expire the suggestions of items that cannot be found any more; these are locked."""
    touched = _sql.rows("expire_suggestions", items=list(item_ids))
    _forget_badges({owner for pair in touched for owner in pair})


def _locked_match(match_id: int, user) -> tuple[Match, str, str]:
    """The match with its pair, items and row locked, whose side `user` owns, and the other one."""
    seen = Match.objects.filter(pk=match_id).values_list("seeker_id", "offer_id").first()
    if seen is None:
        raise MatchNotFound(f"no match {match_id}")
    lock_pairs([seen])
    rows = Item.objects.select_for_update(no_key=True).filter(pk__in=seen).order_by("pk")
    items = {item.pk: item for item in rows}
    sides = {item.owner_id: "seeker" if at == seen[0] else "offer" for at, item in items.items()}
    match = Match.objects.select_for_update(no_key=True).filter(pk=match_id).first()
    deleted = any(item.is_deleted for item in items.values())
    if match is None or len(items) < 2 or deleted or user.pk not in sides:
        raise MatchNotFound(f"no match {match_id}")
    match.seeker, match.offer = (items[at] for at in seen)
    mine = sides[user.pk]
    return match, mine, "offer" if mine == "seeker" else "seeker"


def _write_match(match: Match, **changed: Any) -> None:
    """Write a locked match. By the key of its partition too, so that no other is looked at."""
    rows = Match.objects.filter(pk=match.pk, created_at=match.created_at)
    rows.update(**changed, updated_at=Now())
    for name, value in changed.items():
        setattr(match, name, value)


def _settle(match: Match) -> None:
    """Both items have found their counterpart: no look and no search for open ones finds them, and
    other suggestions expire."""
    for item in (match.seeker, match.offer):
        _write(item, {"status": Item.Status.MATCHED})
    _withdraw([match.seeker_id, match.offer_id])


def _reopen(match: Match) -> None:
    """Neither has found its counterpart after all: they are looked for again."""
    for item in (match.seeker, match.offer):
        if item.status == Item.Status.MATCHED:
            over = {"expires_at": None} if _is_over(item) else {}
            _write(item, {"status": Item.Status.OPEN} | over)
            submit_match(owner=item.owner, item=item, priority=MatchJob.Priority.CHANGE)


def _is_over(item: Item) -> bool:
    return item.expires_at is not None and item.expires_at <= timezone.now()


def _tell(user_id: int, match: Match, *, both: bool) -> None:
    subjects = Notification.Subject
    Notification.objects.bulk_create(
        [
            Notification(
                user_id=user_id,
                subject=subjects.CONFIRMED_BY_BOTH if both else subjects.CONFIRMED_BY_OTHER,
                seeker_id=match.seeker_id,
                offer_id=match.offer_id,
            )
        ],
        ignore_conflicts=True,
    )


def _audit(actor_id: int, action: str, entity_id: int, *, entity: str = "item", **detail) -> None:
    AuditLog.objects.create(
        actor_id=actor_id, action=action, entity=entity, entity_id=entity_id, detail=detail
    )


def _forget_badges(user_ids: set[int]) -> None:
    if user_ids:
        transaction.on_commit(lambda: badges.forget(*user_ids))
