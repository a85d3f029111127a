"""The staff screens of jobs, read models and access."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from config import jobs, leases, readmodels, runs
from config.admin.base import span
from config.models import ApiToken, Heartbeat, JobRun, Lease, ReadModelState, Tally
from tests.people import page, staff

pytestmark = pytest.mark.django_db

JOBS = "/admin/config/jobrun/"
MODELS = "/admin/config/readmodelstate/"
TOKENS = "/admin/config/apitoken/"


def run(**fields) -> JobRun:
    defaults = {"job": "canary", "trigger": "schedule", "owner": "x", "host": "h", "pid": 1}
    return JobRun.objects.create(**defaults | fields)


@pytest.mark.parametrize(
    "url",
    [
        "/admin/",
        JOBS,
        MODELS,
        TOKENS,
        f"{TOKENS}add/",
        "/admin/config/lease/",
        "/admin/config/heartbeat/",
        "/admin/config/tally/",
        "/admin/django_q/schedule/",
        "/admin/django_q/ormq/",
        "/admin/django_q/success/",
        "/admin/django_q/failure/",
        "/admin/auth/user/",
        "/admin/auth/user/add/",
        "/admin/auth/group/",
        "/admin/auth/group/add/",
    ],
)
def test_every_screen_opens_in_one_look(admin_client, url, django_assert_max_num_queries):
    Lease.objects.create(
        name="prune",
        owner=leases.new_owner(),
        host="h",
        pid=1,
        acquired_at=timezone.now(),
        expires_at=timezone.now() + timedelta(minutes=1),
    )
    runs.beat(runs.WORKER, job="canary")
    Tally.objects.create(name="job_runs_total", labels={"job": "canary"}, value=3)
    jobs.sync_schedules()
    jobs.enqueue("canary")
    page(admin_client, url)
    # The first page asks after everything: more, but always as much.
    with django_assert_max_num_queries(60 if url == "/admin/" else 28):
        text = page(admin_client, url)
    assert "unfold/css/styles" in text
    assert "Read models" in text


def test_navigation_shows_what_the_user_may_see():
    text = page(staff("view_jobrun"), "/admin/")
    assert JOBS in text
    assert TOKENS not in text
    assert MODELS not in text


def test_job_runs_tell_how_they_ended(admin_client):
    run(
        state="failed",
        error="Traceback …\nValueError: the file is gone",
        finished_at=timezone.now(),
    )
    run(job="prune", heartbeat_at=timezone.now() - timedelta(minutes=9))
    text = page(admin_client, JOBS)
    assert "ValueError: the file is gone" in text
    assert "silent for 9 min" in text
    failed = JobRun.objects.get(state="failed")
    assert "Traceback …" in page(admin_client, f"{JOBS}{failed.pk}/change/")


def test_a_run_whose_process_is_gone_is_dead(admin_client):
    owner = leases.new_owner().rsplit(" ", 1)[0] + " 1"  # this pid, another process
    run(owner=owner, pid=1)
    assert ">dead<" in page(admin_client, JOBS)


def test_declared_jobs_cost_three_queries(admin_client, django_assert_max_num_queries):
    for name in jobs.all():
        for _ in range(5):
            run(job=name, state="succeeded", finished_at=timezone.now())
    page(admin_client, JOBS)
    with django_assert_max_num_queries(10):
        page(admin_client, JOBS)


def test_run_now(admin_client):
    response = admin_client.post(f"{JOBS}run/canary/")
    assert (response.status_code, response["Location"]) == (302, JOBS)
    assert OrmQ.objects.count() == 1
    assert "no worker is running" in page(admin_client, JOBS)
    admin_client.post(f"{JOBS}run/canary/")
    assert OrmQ.objects.count() == 1
    assert admin_client.post(f"{JOBS}run/nothing/").status_code == 404
    assert admin_client.get(f"{JOBS}run/canary/").status_code == 405


def test_run_now_needs_permission():
    viewer = staff("view_jobrun")
    assert "Run now" not in page(viewer, JOBS)
    assert viewer.post(f"{JOBS}run/canary/").status_code == 403
    assert not OrmQ.objects.exists()


def test_read_models_show_age_backlog_and_error(admin_client):
    name = "catalog_slug_summary"
    ReadModelState.objects.create(
        name=name, refreshed_at=timezone.now() - timedelta(days=3), error="boom", differences=4
    )
    text = page(admin_client, MODELS)
    assert "3 days ago" in text
    assert "boom" in text
    assert "Mend" in text


@pytest.mark.parametrize("what", ["refresh", "reconcile", "mend"])
def test_read_models_are_worked_on_by_their_apps_job(admin_client, what):
    name = "catalog_slug_summary"
    response = admin_client.post(f"{MODELS}{name}/{what}/start/")
    assert response.status_code == 302
    assert OrmQ.objects.get().task["args"][0] == f"{what}_catalog"


def test_every_read_model_has_the_jobs_of_its_buttons():
    named = {model.job(what) for model in readmodels.all().values()
             for what in ("refresh", "reconcile", "mend")}  # fmt: skip
    assert named <= set(jobs.all())
    assert "fold_counters" in named


def test_read_model_buttons_need_permission(admin_client):
    name = next(iter(readmodels.all()))
    viewer = staff("view_readmodelstate")
    assert "Reconcile<" not in page(viewer, MODELS)
    assert viewer.post(f"{MODELS}{name}/refresh/start/").status_code == 403
    assert admin_client.post(f"{MODELS}nothing/refresh/start/").status_code == 404
    assert admin_client.post(f"{MODELS}{name}/destroy/start/").status_code == 404
    assert staff(name="nob").get(MODELS).status_code == 403


def test_a_token_is_issued_and_shown_once(admin_client, admin_user):
    form = {"user": admin_user.pk, "name": "scraper", "scopes": ["ingest"], "days": 30}
    response = admin_client.post(f"{TOKENS}add/", form)
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    token = ApiToken.objects.get()
    secret = response.context["secret"]
    assert secret in response.content.decode()
    assert secret.startswith(token.token_key)
    assert (token.name, token.scopes) == ("scraper", ["ingest"])
    assert timedelta(days=29) < token.expiry - timezone.now() <= timedelta(days=30)
    for url in (TOKENS, f"{TOKENS}{token.pk}/change/"):
        assert secret not in page(admin_client, url)
    answer = Client().post(
        "/api/v1/snapshots",
        data="[]",
        content_type="application/json",
        headers={"Authorization": f"Token {secret}"},
    )
    assert answer.status_code not in {401, 403}


def test_tokens_are_checked_before_they_are_issued(admin_client, admin_user):
    idle = get_user_model().objects.create_user("idle", is_active=False)
    wrong = [
        {"user": admin_user.pk, "days": 30},
        {"user": admin_user.pk, "scopes": ["everything"], "days": 30},
        {"user": admin_user.pk, "scopes": ["read"], "days": 0},
        {"user": idle.pk, "scopes": ["read"], "days": 30},
    ]
    for form in wrong:
        assert "secret" not in (admin_client.post(f"{TOKENS}add/", form).context or {})
    assert not ApiToken.objects.exists()


def test_tokens_are_revoked_never_edited(admin_client, admin_user):
    admin_client.post(f"{TOKENS}add/", {"user": admin_user.pk, "scopes": ["read"], "days": ""})
    token = ApiToken.objects.get()
    assert token.expiry is None
    admin_client.post(f"{TOKENS}{token.pk}/change/", {"name": "else"})
    token.refresh_from_db()
    assert token.name == ""
    admin_client.post(f"{TOKENS}{token.pk}/delete/", {"post": "yes"})
    assert not ApiToken.objects.exists()


def test_tokens_list_costs_the_same_for_any_number(
    admin_client, admin_user, django_assert_max_num_queries
):
    for _ in range(12):
        admin_client.post(f"{TOKENS}add/", {"user": admin_user.pk, "scopes": ["read"], "days": 9})
    page(admin_client, TOKENS)
    with django_assert_max_num_queries(7):
        page(admin_client, TOKENS)


def test_schedules_that_would_break_the_queue_are_marked(admin_client):
    row = Schedule.objects.create(name="odd", func="math.sqrt", schedule_type="C", cron="1 1 * * *")
    assert "broken" not in page(admin_client, "/admin/django_q/schedule/")
    Schedule.objects.filter(pk=row.pk).update(cron="nonsense")  # by hand, past the validation
    assert "broken" in page(admin_client, "/admin/django_q/schedule/")


def test_a_silent_worker_is_told(admin_client):
    Heartbeat.objects.create(name=runs.WORKER, beat_at=timezone.now() - timedelta(hours=5))
    assert "silent" in page(admin_client, "/admin/")
    assert "silent" in page(admin_client, "/admin/config/heartbeat/")
    runs.beat(runs.WORKER)
    assert "alive" in page(admin_client, "/admin/config/heartbeat/")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0.34, "340 ms"), (3, "3 s"), (45.2, "45 s"), (700, "12 min"), (3e5, "3 days")],
)
def test_span(seconds, words):
    assert span(seconds) == words
