from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from catalog.models import IngestReject, IngestRun, SellerSummary, Snapshot
from config import partitions, readmodels, retention
from config.models import JobRun

pytestmark = pytest.mark.django_db(transaction=True)


def make_runs(days_old: int, count: int) -> None:
    started = timezone.now() - timedelta(days=days_old)
    runs = IngestRun.objects.bulk_create(
        IngestRun(source="x", started_at=started, state="finished") for _ in range(count)
    )
    IngestReject.objects.bulk_create(IngestReject(run=run, line=1, reason="r") for run in runs)


def test_expired_rows_go_and_others_stay(settings):
    settings.CATALOG_INGEST_RUNS_RETENTION_DAYS = 10
    make_runs(11, 7)
    make_runs(9, 3)
    report = {pruned.name: pruned for pruned in retention.prune(["ingest_rejects", "ingest_runs"])}
    assert report["ingest_runs"].rows == report["ingest_rejects"].rows == 7
    assert IngestRun.objects.count() == IngestReject.objects.count() == 3


def test_zero_days_keep_everything(settings):
    settings.CATALOG_INGEST_RUNS_RETENTION_DAYS = settings.JOB_RUNS_RETENTION_DAYS = 0
    make_runs(900, 2)
    assert {pruned.rows for pruned in retention.prune(list(retention.all()))} == {0}
    assert IngestRun.objects.count() == IngestReject.objects.count() == 2


def test_dry_run_removes_nothing(settings):
    settings.CATALOG_INGEST_RUNS_RETENTION_DAYS = 10
    make_runs(11, 2)
    assert retention.prune(["ingest_rejects"], dry_run=True)[0].rows == 2
    assert IngestReject.objects.count() == 2


def test_runs_wait_for_their_rejects_to_go(settings):
    settings.CATALOG_INGEST_RUNS_RETENTION_DAYS = 10
    make_runs(11, 2)
    assert retention.prune(["ingest_runs"])[0].rows == 0
    retention.prune(["ingest_rejects"])
    assert retention.prune(["ingest_runs"])[0].rows == 2


def test_it_stops_at_its_budget_and_the_next_run_goes_on(settings, monkeypatch):
    settings.JOB_RUNS_RETENTION_DAYS = 1
    old = timezone.now() - timedelta(days=2)
    JobRun.objects.bulk_create(
        JobRun(job="j", trigger="t", state="succeeded", started_at=old, owner="o", host="h", pid=1)
        for _ in range(25)
    )
    monkeypatch.setattr(retention, "BATCH_ROWS", 10)
    first = retention.prune(["job_runs"], budget=timedelta(microseconds=1))[0]
    assert not first.complete
    rest = retention.prune(["job_runs"])[0]
    assert rest.complete
    assert first.rows + rest.rows == 25


def test_an_unknown_rule_is_named():
    with pytest.raises(CommandError, match="nope"):
        call_command("prune", "nope")


def test_a_dropped_month_leaves_read_models_equal_to_what_remains(settings):
    settings.CATALOG_SNAPSHOTS_RETENTION_MONTHS = 2
    now = timezone.now()
    old = now - timedelta(days=120)
    partitions.ensure("product_price_snapshots", old, now)
    for moment, price in ((old, 5), (now - timedelta(hours=1), 9)):
        Snapshot.objects.create(
            scraped_at=moment, seller="s", product_code="c", product_name_normalized="a",
            product_name_original="A", price=price, currency="EUR", is_available=True,
            is_preorder=False, category_tags=[],
        )  # fmt: skip
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model)
    assert SellerSummary.objects.get().lowest == 5
    pruned = retention.prune(["product_price_snapshots"])[0]
    assert pruned.partitions
    assert pruned.rows >= 1
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model)
        assert readmodels.reconcile(model).count == 0
    assert SellerSummary.objects.get().lowest == 9
