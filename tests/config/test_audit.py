"""The log of staff actions: complete, with what was before, and not to be altered."""

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client

from config import audit, partitions
from config.models import ApiToken, StaffAction
from config.tokens import issue_token
from discovery.models import Source
from tests.people import staff

LOG = "/admin/config/staffaction/"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _plain_http(settings):
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False


def entries(**wanted) -> list[StaffAction]:
    return list(StaffAction.objects.filter(**wanted).order_by("pk"))


def test_a_button_is_noted_with_who_from_where_and_what(admin_client, admin_user):
    admin_client.post("/admin/config/jobrun/run/canary/", REMOTE_ADDR="10.9.8.7")
    (entry,) = entries(via="admin")
    assert (entry.actor, entry.actor_id, entry.address) == ("admin", admin_user.pk, "10.9.8.7")
    assert (entry.action, entry.entity, entry.entity_id) == ("run", "config.jobrun", "canary")


def test_looking_is_not_noted(admin_client):
    StaffAction.objects.count()
    admin_client.get("/admin/auth/user/")
    assert not entries(via="admin")


def test_what_is_refused_is_noted_as_refused():
    assert staff().post("/admin/config/jobrun/run/canary/").status_code == 403
    first, second = entries(via="admin")
    assert (first.action, second.action) == ("run", "run refused")
    assert second.detail["status"] == 403
    assert first.detail["request"] == second.detail["request"]


def test_a_change_tells_what_was_before_and_no_password(admin_client):
    user = get_user_model().objects.create_user("ada", password="correct horse battery")
    url = f"/admin/auth/user/{user.pk}"
    form = {"username": "ada", "email": "ada@example.org", "is_active": "on", "is_staff": "on"}
    form |= {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    answer = admin_client.post(f"{url}/change/", form)
    assert answer.status_code == 302, answer.context["errors"]
    changed = entries(via="admin", action="changed")[-1]
    assert changed.changes["email"] == ["", "ada@example.org"]
    assert changed.changes["is_staff"] == [False, True]
    secret = "a-new-and-long-password-1"
    form = {"password1": secret, "password2": secret, "usable_password": "true"}
    assert admin_client.post(f"{url}/password/", form).status_code == 302
    changed = entries(via="admin", action="changed")[-1]
    assert changed.changes["password"] == [audit.HIDDEN, audit.HIDDEN]
    user.refresh_from_db()
    everything = str(list(StaffAction.objects.values()))
    assert secret not in everything
    assert user.password not in everything


def test_groups_of_a_user_are_noted():
    from django.contrib.auth.models import Group

    user = get_user_model().objects.create_user("ada")
    user.groups.add(group := Group.objects.create(name="editors"))
    (entry,) = entries(action="add")
    assert (entry.entity_id, entry.detail["ids"]) == (str(user.pk), [str(group.pk)])


def test_a_deletion_is_noted_once_it_is_confirmed(admin_client):
    users = [get_user_model().objects.create_user(name) for name in ("ada", "bob")]
    form = {"action": "delete_selected", "_selected_action": [user.pk for user in users]}
    admin_client.post("/admin/auth/user/", form)
    admin_client.post("/admin/auth/user/", form | {"post": "yes"})
    asked, done = entries(via="admin", entity="auth.user", action__startswith="delete_selected")
    assert asked.action == "delete_selected chosen"
    assert done.entity_id == ", ".join(str(user.pk) for user in users)
    assert {one.detail["name"] for one in entries(action="deleted")} == {"ada", "bob"}


def test_buttons_of_the_domains_are_noted_without_their_help(admin_client):
    source = Source.objects.create(name="town", provider="push")
    admin_client.post(f"/admin/discovery/source/{source.pk}/pause/")
    asked = entries(via="admin", entity="discovery.source")[0]
    assert (asked.action, asked.entity_id) == ("pause", str(source.pk))


def test_tokens_are_noted_wherever_they_come_from_without_their_secret(admin_client, admin_user):
    call_command("create_token", "admin", "--scope", "read")
    row, secret = issue_token(user=admin_user, name="x", scopes=["read"], lifetime=None)
    admin_client.post(f"/admin/config/apitoken/{row.pk}/delete/", {"post": "yes"})
    noted = entries(entity="config.apitoken")
    assert [one.action for one in noted] == ["added", "added", "delete", "deleted"]
    assert [one.via for one in noted] == ["command", "command", "admin", "admin"]
    everything = str(list(StaffAction.objects.values()))
    assert secret not in everything
    assert row.digest not in everything


def test_logins_and_failures_are_noted():
    get_user_model().objects.create_superuser("ada", password="right")
    client = Client()
    for name, word in [("ada", "wrong"), ("hunter2", "x"), ("ada", "right")]:
        client.post("/admin/login/", {"username": name, "password": word}, REMOTE_ADDR="10.0.0.9")
    client.post("/admin/logout/")
    noted = entries(via="login")
    assert [(one.action, one.actor) for one in noted] == [
        ("login failed", "ada"),
        ("login failed", ""),  # what is no name may be a password
        ("login", "ada"),
        ("logout", "ada"),
    ]
    assert noted[0].address == "10.0.0.9"
    assert "hunter2" not in str(list(StaffAction.objects.values()))


@pytest.mark.parametrize("statement", ["UPDATE {} SET actor = 'x'", "DELETE FROM {}"])
def test_the_table_refuses_changes_through_it_and_its_partitions(statement):
    audit.record(via="command", action="test")
    month = [part.name for part in partitions.existing(audit.TABLE)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM staff_actions LIMIT 1")
        (part,) = cursor.fetchone()
        assert part in month
        for table in (audit.TABLE, part):
            with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
                cursor.execute(statement.format(table))
    assert entries(action="test")


def test_superusers_see_and_filter_it_but_change_nothing(admin_client):
    audit.record(via="command", action="test", changes={"a": [1, 2]}, detail={"name": "<b>x"})
    (entry,) = entries(action="test")
    for url in (LOG, f"{LOG}?via=command", f"{LOG}?q=admin", f"{LOG}{entry.pk}/change/"):
        answer = admin_client.get(url)
        assert answer.status_code == 200
        assert b"<b>x" not in answer.content
    assert b"1 \xe2\x86\x92 2" in admin_client.get(LOG).content
    assert admin_client.get(f"{LOG}add/").status_code == 403
    assert admin_client.post(f"{LOG}{entry.pk}/change/", {"actor": "x"}).status_code == 403
    assert admin_client.post(f"{LOG}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert entries(action="test")


def test_the_log_takes_any_text():
    audit.record(via="command", action="test", actor="a\0\ud800" + "x" * 500, entity_id="\0")
    (entry,) = entries(action="test")
    assert len(entry.actor) == audit.VALUE_LENGTH


def test_without_a_partition_one_is_made():
    for part in partitions.existing(audit.TABLE):
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {part.name}")
    audit.record(via="command", action="test")
    assert entries(action="test")


def test_expired_months_go_as_a_whole(settings):
    assert partitions.get(audit.TABLE).keep() == settings.STAFF_ACTIONS_RETENTION_MONTHS == 24


def test_an_action_that_fails_changes_nothing_but_stays_noted(admin_client, admin_user):
    admin_client.raise_request_exception = False
    answer = admin_client.post(f"/admin/auth/user/{admin_user.pk}/change/", {"username": ""})
    assert answer.status_code == 200  # the form, with its errors
    assert [one.action for one in entries(via="admin", entity="auth.user")] == ["change"]
    assert not ApiToken.objects.exists()
