"""The log of what staff did: who, when, from where, to what, and how it was before.

Three writers, one table (`StaffAction`), which only grows:

- `AuditMiddleware` notes every request to the admin that may change something before its view
  works, so that nothing is done that is not noted, whatever kills the process; and once more
  where it was refused or failed.
- Signals note each object that such a request saves, in the transaction that saves it, with what
  its fields were before. Accounts, groups and tokens are noted whoever changes them.
- `by_command` is for commands that change data.

It stands in `config` and apart from matching's `audit_logs`, which holds what people do to their
items through the API: other writers, a hundred times the rows, another time to keep them.
"""

import contextvars
import getpass
import logging
import re
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import DatabaseError, models
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.utils import timezone

from config import partitions
from config.text import storable
from config.throttles import address_of

log = logging.getLogger("spyglass.audit")

TABLE = "staff_actions"
VALUE_LENGTH = 200  # of a value before or after
IDS = 100  # of the objects that a list action names
SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}

_SECRET = re.compile(
    r"password|secret|token|digest|credential|target|url|config|key$", re.IGNORECASE
)
HIDDEN = "(not shown)"

partitions.register(
    partitions.PartitionedTable(
        name=TABLE,
        column="created_at",
        keep=lambda: settings.STAFF_ACTIONS_RETENTION_MONTHS,
    )
)


@dataclass
class Trail:
    """A request to the admin at work. `request` groups what is noted of it."""

    actor_id: int
    actor: str
    address: str
    request: str = field(default_factory=lambda: uuid.uuid4().hex)


_trail: contextvars.ContextVar[Trail | None] = contextvars.ContextVar("staff trail", default=None)


def record(
    *,
    via: str,
    action: str,
    actor: str = "",
    actor_id: int | None = None,
    address: str = "",
    entity: str = "",
    entity_id: str = "",
    changes: dict[str, list] | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Note one action, in the transaction of the caller. It must not fail for want of a partition.

    A worker that has been away for months makes none ahead; then nobody could log in.
    """
    now = timezone.now()
    partitions.ensure(TABLE, now, now)
    model = apps.get_model("config", "StaffAction")
    model.objects.create(
        created_at=now,
        via=via,
        action=action[:VALUE_LENGTH],
        actor=_clean(actor),
        actor_id=actor_id,
        address=address,
        entity=entity,
        entity_id=_clean(entity_id),
        changes=changes or {},
        detail=detail or {},
    )


def by_command(action: str, *, entity: str = "", entity_id: str = "", **detail: Any) -> None:
    """Note what a command is about to change; the actor is the account of the operating system."""
    record(
        via="command",
        action=action,
        actor=system_actor(),
        entity=entity,
        entity_id=entity_id,
        detail=detail,
    )


def system_actor() -> str:
    """`user@host` of this process."""
    return f"{system_user() or 'unknown'}@{socket.gethostname()}"


def system_user() -> str:
    """The account of this process; "" where it has no name, as in containers."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return ""


class AuditMiddleware:
    """Notes what staff ask of the admin. Stands behind the authentication."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        token = _trail.set(None)
        try:
            response = self.get_response(request)
            asked = getattr(request, "staff_action", None)
            if asked and response.status_code >= 400:
                _note_refusal(asked, response.status_code)
            return response
        finally:
            _trail.reset(token)

    def process_view(self, request, view, _args, kwargs):
        """Before the view: who asks for what."""
        match = request.resolver_match
        if "admin" not in match.namespaces or request.method in SAFE:
            return
        if match.url_name in ("login", "logout") or not request.user.is_authenticated:
            return
        _trail.set(Trail(request.user.pk, request.user.get_username(), address_of(request)))
        request.staff_action = _asked(request, view, match.url_name, kwargs)
        _note(_trail.get(), request.staff_action["action"], request.staff_action)


def _note_refusal(asked: dict, status: int) -> None:
    """What was asked is noted already: where the database is away now, that must do."""
    try:
        _note(_trail.get(), f"{asked['action']} refused", asked, status=status)
    except DatabaseError as error:
        log.error("%s was answered %s, which cannot be noted: %s", asked["action"], status, error)


def _asked(request, view, url_name: str, kwargs: dict) -> dict:
    """Action, model and objects of a request, from its address and the action of a list.

    Of the form nothing else is kept: it may hold secrets. A view that checks the CSRF token by
    itself does so to read no body that is too large; neither does this.
    """
    entity, action = _model_and_action(url_name)
    ids = [unquote(str(value)) for value in kwargs.values()]
    detail = {}
    if not getattr(view, "csrf_exempt", False):
        if chosen := request.POST.get("action"):
            action = f"{chosen} chosen" if _is_question(request, chosen) else chosen
        if selected := request.POST.getlist("_selected_action"):
            ids = selected
            detail = {"selected": len(selected)}
            if request.POST.get("select_across") == "1":
                detail["all_of_the_list"] = True
    return {
        "action": _clean(action),
        "entity": entity,
        "entity_id": _clean(", ".join(_shown_key(entity, one) for one in ids[:IDS])),
        "detail": detail,
    }


def _shown_key(entity: str, key: str) -> str:
    """The key of an object; of a token, whose key is the digest of its secret, the beginning."""
    if entity and _SECRET.search(apps.get_model(entity)._meta.pk.name):
        return f"{key[:12]}…"
    return key


def _is_question(request, chosen: str) -> bool:
    """Deleting asks once more: only then does it happen."""
    return chosen == "delete_selected" and "post" not in request.POST


def _model_and_action(url_name: str | None) -> tuple[str, str]:
    """`catalog_outlier_review` → ("catalog.outlier", "review")."""
    for model in admin.site._registry:  # noqa: SLF001 - the site has no other way
        prefix = f"{model._meta.app_label}_{model._meta.model_name}_"
        if url_name and url_name.startswith(prefix):
            return model._meta.label_lower, url_name.removeprefix(prefix)
    return "", url_name or ""


def _note(trail: Trail | None, action: str, asked: dict, **more: Any) -> None:
    if trail is not None:
        record(
            via="admin",
            actor=trail.actor,
            actor_id=trail.actor_id,
            address=trail.address,
            action=action,
            entity=asked["entity"],
            entity_id=asked["entity_id"],
            detail={**asked["detail"], "request": trail.request, **more},
        )


def differences(before: models.Model | None, after: models.Model) -> dict[str, list]:
    """{field: [before, after]} of what differs, short, and without what may be secret."""
    changes = {}
    for one in after._meta.concrete_fields:
        if one.primary_key:
            continue
        old = getattr(before, one.attname) if before is not None else None
        new = getattr(after, one.attname)
        if old != new:
            secret = _SECRET.search(one.name)
            changes[one.name] = [HIDDEN, HIDDEN] if secret else [_short(old), _short(new)]
    return changes


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, bytes | memoryview):
        return f"({len(value)} bytes)"
    return _clean(str(value))


def _clean(value: Any) -> str:
    """As text that PostgreSQL takes, and short."""
    return storable(str(value), VALUE_LENGTH)


def _before_save(sender, instance, raw, **_options) -> None:
    """Keep what the row is now. `last_login`, which every login writes, is no change."""
    if raw or not _is_noted(sender):
        return
    stored = sender._meta.base_manager.filter(pk=instance.pk).first() if instance.pk else None
    instance.__dict__["_noted_before"] = stored


def _after_save(sender, instance, created, raw, update_fields=None, **_options) -> None:
    if raw or not _is_noted(sender) or set(update_fields or ()) == {"last_login"}:
        return
    changes = differences(
        None if created else instance.__dict__.pop("_noted_before", None), instance
    )
    if changes or created:
        _about(instance, "added" if created else "changed", changes=changes)


def _after_delete(sender, instance, **_options) -> None:
    _about(instance, "deleted", changes={})


def _after_m2m(sender, instance, action, reverse, pk_set, model, **_options) -> None:
    if action in ("post_add", "post_remove", "post_clear") and _is_noted(type(instance)):
        ids = sorted(map(str, pk_set or ()))[:IDS]
        _about(
            instance, action.removeprefix("post_"), changes={}, of=model._meta.label_lower, ids=ids
        )


def _about(instance, action: str, *, changes: dict, **detail: Any) -> None:
    trail = _trail.get()
    record(
        via="admin" if trail else "command",
        actor=trail.actor if trail else system_actor(),
        actor_id=trail.actor_id if trail else None,
        address=trail.address if trail else "",
        action=action,
        entity=instance._meta.label_lower,
        entity_id=_shown_key(instance._meta.label_lower, str(instance.pk)),
        changes=changes,
        detail={
            "name": _clean(instance),
            **({"request": trail.request} if trail else {}),
            **detail,
        },
    )


def _is_noted(sender: type[models.Model]) -> bool:
    """Accounts always; what else the admin shows inside a request to the admin."""
    return sender in _ACCESS or _trail.get() is not None


# What the system writes by itself in passing: the log, and the queue, whose payload is not text.
_OF_SYSTEM = {"config.staffaction", "django_q.ormq"}
_ACCESS: set[type[models.Model]] = set()


def _logged_in(sender, request, user, **_options) -> None:
    record(
        via="login",
        action="login",
        actor=user.get_username(),
        actor_id=user.pk,
        address=address_of(request) if request else "",
    )


def _logged_out(sender, request, user, **_options) -> None:
    if user is not None:
        record(
            via="login",
            action="logout",
            actor=user.get_username(),
            actor_id=user.pk,
            address=address_of(request) if request else "",
        )


def _login_failed(sender, credentials, request=None, **_options) -> None:
    """The name as it was typed: sometimes a password, so only names that exist are kept whole."""
    name = str(credentials.get("username", ""))
    model = get_user_model()
    known = model._meta.default_manager.filter(username=_clean(name)).exists()
    record(
        via="login",
        action="login failed",
        actor=name if known else "",
        address=address_of(request) if request else "",
        detail={} if known else {"name": "no such account"},
    )


def connect() -> None:
    """Called once all apps are ready."""
    from config.models import ApiToken

    _ACCESS.update({get_user_model(), Group, ApiToken})
    user_logged_in.connect(_logged_in)
    user_logged_out.connect(_logged_out)
    user_login_failed.connect(_login_failed)
    registry = admin.site._registry  # noqa: SLF001 - the site has no other way
    shown = {model for model in registry if model._meta.label_lower not in _OF_SYSTEM}
    for model in shown | _ACCESS:
        pre_save.connect(_before_save, sender=model)
        post_save.connect(_after_save, sender=model)
        for many in model._meta.many_to_many:
            m2m_changed.connect(_after_m2m, sender=many.remote_field.through)
    # Of these alone: where a model has such a listener, its deletes load every row first.
    for model in _ACCESS:
        post_delete.connect(_after_delete, sender=model)
