"""What people do: post, follow, mute, block, like, share, comment.

Each of these holds on the next read, everywhere: what a timeline shows is looked at anew by those
who read it, whatever was delivered or is on its way.

A user who has done nothing yet gets a profile with the first thing they do.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone
from psycopg import sql

from config.fields import InvalidFields
from config.sqlfiles import queries
from counters import queries as counts
from feeds.models import (
    Block,
    Comment,
    Fanout,
    Follow,
    Like,
    Mute,
    Post,
    Profile,
    Share,
)

TEXT_LENGTH = 10_000
COMMENT_LENGTH = 5_000
MEDIA = 20
URL_LENGTH = 2_000
NAME_LENGTH = 100
BIO_LENGTH = 1_000
HANDLE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}\Z")
_NOT_IN_HANDLES = re.compile(r"[^a-z0-9_.-]+")
# Control characters but tab and the ends of lines, and what UTF-8 cannot hold.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Invalid(InvalidFields):
    """A post, comment, profile or tie that cannot be: `raise Invalid(text="Is empty.")`."""

    def __init__(self, **errors: str) -> None:
        super().__init__(errors)


class Missing(LookupError):
    """What is acted on does not exist, or not for this person."""


class Forbidden(PermissionError):
    """It exists, and this person may not do that."""


@dataclass(frozen=True)
class Reaction:
    """Like or share: which model says so."""

    model: type[Like] | type[Share]


LIKE = Reaction(Like)
SHARE = Reaction(Share)


def ensure_profile(user) -> Profile:
    """The profile of a user, made where there is none."""
    found = Profile.objects.filter(pk=user.pk).first()
    if found is not None:
        return found
    wanted = _NOT_IN_HANDLES.sub("-", user.get_username().lower()).strip("-._")[:40]
    last = f"user-{user.pk}-{secrets.token_hex(4)}"  # somebody may have taken the one before
    tried = (wanted, f"{wanted}-{user.pk}", f"user-{user.pk}", last)
    for handle in filter(HANDLE.match, tried):
        try:
            with transaction.atomic():
                return Profile.objects.create(
                    user=user, handle=handle, display_name=user.get_full_name()[:NAME_LENGTH]
                )
        except IntegrityError:
            if found := Profile.objects.filter(pk=user.pk).first():
                return found  # another request was quicker
    raise RuntimeError(f"no handle for user {user.pk}")


def edit_profile(*, user, **changes: Any) -> Profile:
    """Change one's handle, display_name, bio or is_private. Raises Invalid."""
    profile = ensure_profile(user)
    errors = {}
    for name, value in changes.items():
        match name:
            case "handle":
                if not isinstance(value, str) or not HANDLE.match(value):
                    errors[name] = (
                        "Must be 1 to 50 of a-z, 0-9, _ . - and begin with one of a-z, 0-9."
                    )
            case "display_name" | "bio":
                most = NAME_LENGTH if name == "display_name" else BIO_LENGTH
                if reason := _wrong_text(value, most, may_be_empty=True):
                    errors[name] = reason
            case "is_private":
                if not isinstance(value, bool):
                    errors[name] = "Must be true or false."
            case _:
                errors[name] = "Is not a field here."
        setattr(profile, name, value)
    if errors:
        raise Invalid(**errors)
    try:
        with transaction.atomic():
            profile.save(update_fields=list(changes))
    except IntegrityError as error:
        raise Invalid(handle="Is taken.") from error
    return profile


def create_post(
    *,
    author: Profile,
    text: str = "",
    media: Any = (),
    kind: str = Post.Kind.POST,
    visibility: str = Post.Visibility.PUBLIC,
    created_at: datetime | None = None,
) -> Post:
    """Post something; it is delivered after the commit. Raises Invalid.

    `created_at`: for what was posted elsewhere before.
    """
    given = {"text": text, "media": list(media) if isinstance(media, tuple) else media}
    _check_post(given | {"kind": kind, "visibility": visibility})
    if not text.strip() and not given["media"]:
        raise Invalid(text="Is empty, and there are no media.")
    delivery = _delivery(author)
    at = created_at or timezone.now()
    with transaction.atomic():
        post = Post.objects.create(
            author=author,
            kind=kind,
            text=text,
            media=given["media"],
            visibility=visibility,
            delivery=delivery,
            created_at=at,
        )
        _deliver(post)
    return post


def edit_post(*, post_id: int, author: Profile, **changes: Any) -> Post:
    """Change text, media or visibility of one's post. Raises Invalid, Missing."""
    _check_post(changes, known=("text", "media", "visibility"))
    with transaction.atomic():
        post = _own(Post, post_id, author)
        was_private = post.visibility == Post.Visibility.PRIVATE
        for name, value in changes.items():
            setattr(post, name, value)
        if not post.text.strip() and not post.media:
            raise Invalid(text="Is empty, and there are no media.")
        post.edited_at = timezone.now()
        post.save(update_fields=[*changes, "edited_at"])
        if was_private and post.visibility != Post.Visibility.PRIVATE:
            _deliver(post)
    return post


def delete_post(*, post_id: int, author: Profile) -> None:
    """Delete one's post: nobody sees it any more. Raises Missing."""
    with transaction.atomic():
        post = _own(Post, post_id, author)
        post.is_deleted = True
        post.save(update_fields=["is_deleted"])
        Fanout.objects.filter(post=post).delete()


def react(*, post_id: int, user: Profile, reaction: Reaction) -> bool:
    """Like or share a post; False where it was so already. Raises Missing."""
    table = reaction.model._meta.db_table
    with _unless_gone("post"), transaction.atomic():
        _visible(post_id, user)
        return _insert_once(table, "post_id", "user_id", post_id, user.pk)


def take_back(*, post_id: int, user: Profile, reaction: Reaction) -> bool:
    """Like or share a post no longer; False where it was so already. No error for what is gone."""
    return bool(reaction.model.objects.filter(post_id=post_id, user=user).delete()[0])


def comment(*, post_id: int, author: Profile, text: Any) -> Comment:
    """Comment on a post that one may see. Raises Invalid, Missing."""
    if reason := _wrong_text(text, COMMENT_LENGTH):
        raise Invalid(text=reason)
    with _unless_gone("post"), transaction.atomic():
        _visible(post_id, author)
        return Comment.objects.create(post_id=post_id, author=author, text=text)


def edit_comment(*, comment_id: int, author: Profile, text: Any) -> Comment:
    """Change one's comment. Raises Invalid, Missing."""
    if reason := _wrong_text(text, COMMENT_LENGTH):
        raise Invalid(text=reason)
    with transaction.atomic():
        one = _own(Comment, comment_id, author)
        _visible(one.post_id, author)
        one.text, one.edited_at = text, timezone.now()
        one.save(update_fields=["text", "edited_at"])
    return one


def delete_comment(*, comment_id: int, user: Profile) -> None:
    """Delete one's comment, or somebody's on one's own post. Raises Missing."""
    with transaction.atomic():
        one = (
            Comment.objects.select_for_update(of=("self",))
            .select_related("post")
            .filter(pk=comment_id, is_deleted=False)
            .first()
        )
        if one is None or user.pk not in (one.author_id, one.post.author_id):
            raise Missing("comment")
        one.is_deleted = True
        one.save(update_fields=["is_deleted"])


def follow(*, user: Profile, target_id: int) -> bool:
    """Follow somebody; False where it was so already.

    Raises Missing, Invalid (oneself, or more than FEEDS_FOLLOWING_LIMIT), Forbidden (a private
    account).
    """
    if target_id == user.pk:
        raise Invalid(person="Is yourself.")
    with _unless_gone("person"), transaction.atomic():
        _raise_versions(user.pk)
        target = _person(target_id, user)
        if Follow.objects.filter(follower=user, followee_id=target_id).exists():
            return False
        if target.is_private:
            raise Forbidden("This account is private: nobody new may follow it.")
        following = counts.exact("profiles.following_count", [user.pk])[user.pk]
        _check_limit(following, "follow")
        made = _insert_once("follows", "follower_id", "followee_id", user.pk, target_id)
        if made:
            with connection.cursor() as cursor:
                asked = {"me": user.pk, "author": target_id}
                cursor.execute(queries("feeds")["queue_fill"], asked)
            _notify()
    return made


def unfollow(*, user: Profile, target_id: int) -> bool:
    """Follow somebody no longer; False where it was so already."""
    with transaction.atomic():
        _raise_versions(user.pk)
        gone = Follow.objects.filter(follower=user, followee_id=target_id).delete()[0]
        if gone:
            _forget(user.pk, target_id)
    return bool(gone)


def mute(*, user: Profile, target_id: int) -> bool:
    """Do not see somebody's posts in one's timeline; False where it was so already."""
    if target_id == user.pk:
        raise Invalid(person="Is yourself.")
    with _unless_gone("person"), transaction.atomic():
        _raise_versions(user.pk)
        made = _insert_once("mutes", "user_id", "target_id", user.pk, target_id)
        if made:
            _check_limit(Mute.objects.filter(user=user).count() - 1, "mute")
    return made


def unmute(*, user: Profile, target_id: int) -> bool:
    """See somebody's posts again; False where it was so already."""
    with transaction.atomic():
        _raise_versions(user.pk)
        gone = Mute.objects.filter(user=user, target_id=target_id).delete()[0]
    return bool(gone)


def block(*, user: Profile, target_id: int) -> bool:
    """Neither sees the other from now on, nor follows the other; False where it was so already."""
    if target_id == user.pk:
        raise Invalid(person="Is yourself.")
    with _unless_gone("person"), transaction.atomic():
        # Both, so that neither is about to follow the other: that begins with the same lock.
        _raise_versions(user.pk, target_id)
        made = _insert_once("blocks", "user_id", "target_id", user.pk, target_id)
        if made:
            _check_limit(Block.objects.filter(user=user).count() - 1, "block")
        for follower, followee in ((user.pk, target_id), (target_id, user.pk)):
            Follow.objects.filter(follower_id=follower, followee_id=followee).delete()
            _forget(follower, followee)
    return made


def unblock(*, user: Profile, target_id: int) -> bool:
    """Block somebody no longer; who followed whom does not come back."""
    with transaction.atomic():
        _raise_versions(user.pk)
        gone = Block.objects.filter(user=user, target_id=target_id).delete()[0]
    return bool(gone)


def delete_account(*, user_id: int) -> None:
    """Delete a user with all that hangs on them; every count that they were part of falls.

    Step by step, so that no transaction holds many posts at once, which could deadlock with others
    and would last. Killed half way, it goes on when called again. Must run outside a transaction.
    """
    get_user_model().objects.filter(pk=user_id).update(is_active=False)
    for post in Post.objects.filter(author_id=user_id).values_list("pk", flat=True).iterator():
        _delete("posts", id=post)
    for table, column in (("likes", "user_id"), ("shares", "user_id"), ("comments", "author_id")):
        for post in _posts_in(table, column, user_id):
            _delete(table, **{column: user_id, "post_id": post})
    get_user_model().objects.filter(pk=user_id).delete()


def _posts_in(table: str, column: str, user_id: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("SELECT DISTINCT post_id FROM {} WHERE {} = %s").format(
                sql.Identifier(table), sql.Identifier(column)
            ),
            [user_id],
        )
        return [post for (post,) in cursor.fetchall()]


def _delete(table: str, **values: int) -> None:
    """Delete the rows whose columns have these values."""
    equal = [sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values]
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("DELETE FROM {} WHERE {}").format(
                sql.Identifier(table), sql.SQL(" AND ").join(equal)
            ),
            list(values.values()),
        )


def _delivery(author: Profile) -> str:
    """How the followers come to what an author posts now."""
    match settings.FEEDS_MODE:
        case "push":
            return Post.Delivery.PUSH
        case "pull":
            return Post.Delivery.PULL
    many = author.followers_count >= settings.FEEDS_PULL_FOLLOWERS
    return Post.Delivery.PULL if many or author.is_pulled else Post.Delivery.PUSH


def _deliver(post: Post) -> None:
    """Queue the delivery of a post, or name its author among those who are pulled."""
    if post.visibility == Post.Visibility.PRIVATE:
        return
    if post.delivery == Post.Delivery.PUSH:
        Fanout.objects.bulk_create(
            [Fanout(post=post, author_id=post.author_id, created_at=post.created_at)],
            ignore_conflicts=True,
        )
        _notify()
        return
    with connection.cursor() as cursor:
        cursor.execute(
            queries("feeds")["note_pulled"], {"author": post.author_id, "at": post.created_at}
        )


def _notify() -> None:
    """Wake the feed workers when this transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute("NOTIFY feeds")


def _insert_once(table: str, one: str, other: str, first: int, second: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("INSERT INTO {} ({}, {}) VALUES (%s, %s) ON CONFLICT DO NOTHING").format(
                *map(sql.Identifier, (table, one, other))
            ),
            [first, second],
        )
        return bool(cursor.rowcount)


def _raise_versions(*people: int) -> None:
    """What these people read changes. The first statement, which locks their rows, in order.

    So nobody follows while one of the two blocks the other, and no two wait for each other: the
    triggers that count wait for nobody.
    """
    for person in sorted(people):
        Profile.objects.filter(pk=person).update(timeline_version=F("timeline_version") + 1)


def _check_limit(count: int, what: str) -> None:
    limit = settings.FEEDS_FOLLOWING_LIMIT
    if count >= limit:
        raise Invalid(person=f"You {what} {limit:,} people already, which are the most.")


@contextmanager
def _unless_gone(what: str) -> Iterator[None]:
    """What is acted upon may be deleted for good at this moment."""
    try:
        yield
    except IntegrityError as error:
        raise Missing(what) from error


def _forget(user_id: int, author_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["forget_author"], {"me": user_id, "author": author_id})


def _own(model, key: int, author: Profile):
    found = (
        model.objects.select_for_update().filter(pk=key, author=author, is_deleted=False).first()
    )
    if found is None:
        raise Missing(model._meta.verbose_name)
    return found


def _person(target_id: int, viewer: Profile) -> Profile:
    """Somebody who has not blocked the viewer, nor is blocked. Raises Missing."""
    target = Profile.objects.filter(pk=target_id).first()
    pairs = {(viewer.pk, target_id), (target_id, viewer.pk)}
    if target is None or any(
        Block.objects.filter(user_id=one, target_id=other).exists() for one, other in pairs
    ):
        raise Missing("person")
    return target


def _visible(post_id: int, viewer: Profile) -> None:
    with connection.cursor() as cursor:
        cursor.execute(queries("feeds")["may_see"], {"ids": [post_id], "me": viewer.pk})
        if cursor.fetchone() is None:
            raise Missing("post")


def _check_post(
    fields: Mapping[str, Any], known: tuple[str, ...] = ("text", "media", "kind", "visibility")
) -> None:
    errors = {}
    for name, value in fields.items():
        if name not in known:
            errors[name] = "Is not a field here."
        elif name == "text":
            reason = _wrong_text(value, TEXT_LENGTH, may_be_empty=True)
        elif name == "media":
            reason = _wrong_media(value)
        else:
            choices = (Post.Kind if name == "kind" else Post.Visibility).values
            reason = "" if value in choices else f"Is none of: {', '.join(choices)}."
        if name in known and reason:
            errors[name] = reason
    if errors:
        raise Invalid(**errors)


def _wrong_text(value: Any, most: int, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        return "Must be text."
    if len(value) > most:
        return f"Is longer than {most:,} characters."
    if _UNPRINTABLE.search(value):
        return "Holds control characters."
    return "" if may_be_empty or value.strip() else "Is empty."


def _wrong_media(value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return "Must be a list of URLs."
    if len(value) > MEDIA:
        return f"Holds more than {MEDIA} URLs."
    for url in value:
        try:
            parts = urlsplit(url)
            host = parts.hostname if parts.port != 0 else None  # a port beyond 65,535 is none
        except ValueError:
            return "Holds something that is no URL."
        if (
            parts.scheme not in ("http", "https")
            or not host
            or len(url) > URL_LENGTH
            or _UNPRINTABLE.search(url)
            or any(one.isspace() for one in url)
        ):
            return "Holds something that is no http or https URL of 2,000 characters at most."
    return ""
