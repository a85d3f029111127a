"""Tables of the catalog.

Partitions, collations and materialized views are beyond Django's migrations: the tables are made
by the files in `sql/`, which migrations run beside the models' state.
"""

import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Snapshot(models.Model):
    """What one seller showed for one product at one moment. Append-only.

    Written by `catalog.actions` alone. Partitioned by month on `scraped_at`; old months go by
    CATALOG_SNAPSHOTS_RETENTION_MONTHS. The natural key (slug, seller, time, product code,
    currency) is unique, so recording the same snapshot again changes nothing.
    """

    id = models.BigAutoField(primary_key=True)
    scraped_at = models.DateTimeField()
    seller = models.TextField()
    product_code = models.TextField(blank=True)
    product_name_normalized = models.TextField("slug")
    product_name_original = models.TextField("name")
    price = models.DecimalField(max_digits=14, decimal_places=4, null=True)
    currency = models.TextField()
    is_available = models.BooleanField()
    is_preorder = models.BooleanField()
    category_tags = ArrayField(models.TextField())
    hero_image_url = models.TextField(blank=True)
    description = models.TextField(blank=True)
    ingest_run_id = models.BigIntegerField(null=True)

    class Meta:
        db_table = "product_price_snapshots"
        verbose_name = "price snapshot"
        triggers = [
            pgtrigger.Trigger(
                name="catalog_log_inserts",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Insert,
                referencing=pgtrigger.Referencing(new="new_rows"),
                func="""
                    INSERT INTO catalog_changes (
                        snapshot_id, slug, seller, currency, scraped_at, price, is_available,
                        is_preorder, product_code, name, has_details)
                    SELECT id, product_name_normalized, seller, currency, scraped_at, price,
                        is_available, is_preorder, product_code, product_name_original,
                        category_tags <> '{}' OR hero_image_url <> '' OR description <> ''
                    FROM new_rows;
                    RETURN NULL;
                """,
            ),
            pgtrigger.Trigger(
                name="catalog_log_deletes",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Delete,
                referencing=pgtrigger.Referencing(old="old_rows"),
                func="""
                    INSERT INTO catalog_changes (slug, seller, currency)
                    SELECT DISTINCT product_name_normalized, seller, currency FROM old_rows;
                    RETURN NULL;
                """,
            ),
            pgtrigger.Trigger(
                name="catalog_append_only",
                level=pgtrigger.Statement,
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                func="RAISE EXCEPTION 'product_price_snapshots is append-only: insert or delete';",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.seller} {self.product_name_normalized} {self.scraped_at:%Y-%m-%d %H:%M}"


class Change(models.Model):
    """A snapshot that the read models have not folded yet, or a line to compute again.

    Appended by the triggers on `Snapshot` and by staff's verdicts, in the writer's transaction;
    deleted by the fold. `snapshot_id` is null where the whole line has to be computed from its
    history.
    """

    id = models.BigAutoField(primary_key=True)
    snapshot_id = models.BigIntegerField(null=True)
    slug = models.TextField()
    seller = models.TextField()
    currency = models.TextField()
    scraped_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "catalog_changes"

    def __str__(self) -> str:
        return f"{self.slug} {self.seller} {self.currency}"


class PricePoint(models.Model):
    """One day of one line: first, last, lowest and highest accepted price. At most one row a day.

    The price points of `SellerSummary`, kept beside it: a refresh writes the days that changed,
    where an array in the summary would be rewritten whole each time.
    """

    pk = models.CompositePrimaryKey("slug", "seller", "currency", "day")
    slug = models.TextField()
    seller = models.TextField()
    currency = models.TextField()
    day = models.DateField(help_text="UTC")
    first_price = models.DecimalField(max_digits=14, decimal_places=4)
    last_price = models.DecimalField(max_digits=14, decimal_places=4)
    low = models.DecimalField(max_digits=14, decimal_places=4)
    high = models.DecimalField(max_digits=14, decimal_places=4)
    observations = models.IntegerField()

    class Meta:
        db_table = "catalog_price_points"

    def __str__(self) -> str:
        return f"{self.slug} {self.seller} {self.day}"


class SellerSummary(models.Model):
    """One line: a slug at a seller in one currency. Read model, folded from `Change`.

    `prior_low` is the lowest accepted price in the 30 days before `price_since`, the price in
    force when that window opens included (EU 98/6/EC, Art. 6a); null for a first price.
    """

    pk = models.CompositePrimaryKey("slug", "seller", "currency")
    slug = models.TextField()
    seller = models.TextField()
    currency = models.TextField()
    name = models.TextField()
    product_code = models.TextField()
    category_tags = ArrayField(models.TextField())
    hero_image_url = models.TextField()
    description = models.TextField()
    details_at = models.DateTimeField(null=True)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    is_available = models.BooleanField()
    is_preorder = models.BooleanField()
    last_price = models.DecimalField(max_digits=14, decimal_places=4, null=True)
    last_price_at = models.DateTimeField(null=True)
    price_since = models.DateTimeField(null=True)
    previous_price = models.DecimalField(max_digits=14, decimal_places=4, null=True)
    prior_low = models.DecimalField(max_digits=14, decimal_places=4, null=True)
    prior_low_until = models.DateField(null=True, help_text="The last day it was in force, UTC")
    lowest = models.DecimalField(max_digits=14, decimal_places=4, null=True)
    highest = models.DecimalField(max_digits=14, decimal_places=4, null=True)
    observations = models.BigIntegerField()

    class Meta:
        db_table = "catalog_slug_seller_summary"

    def __str__(self) -> str:
        return f"{self.slug} {self.seller} {self.currency}"


class SlugSummary(models.Model):
    """One product: the card. Read model over `SellerSummary` and `SellerPriority`.

    Written by folds, for the products that they touch.
    """

    slug = models.TextField(primary_key=True)
    name = models.TextField()
    seller = models.TextField("leading seller")
    hero_image_url = models.TextField()
    description = models.TextField()
    category_tags = ArrayField(models.TextField())
    sellers = models.IntegerField()
    offers = models.JSONField(help_text="{currency: {price, seller, prior_low, discount}}")
    is_available = models.BooleanField()
    is_preorder = models.BooleanField()
    discount = models.DecimalField(max_digits=5, decimal_places=2, help_text="percent")
    last_at = models.DateTimeField()

    class Meta:
        db_table = "catalog_slug_summary"
        verbose_name = "product"
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name


class SellerActivity(models.Model):
    """Up to when a seller is known. One row per seller, written by folds."""

    seller = models.TextField(primary_key=True)
    newest = models.DateTimeField()

    class Meta:
        db_table = "catalog_seller_activity"
        verbose_name_plural = "seller activity"

    def __str__(self) -> str:
        return self.seller


class CategoryCount(models.Model):
    """A category and how many products carry it. Materialized view over `SlugSummary`."""

    tag = models.TextField(primary_key=True)
    products = models.IntegerField()
    available = models.IntegerField()

    class Meta:
        managed = False
        db_table = "catalog_category_counts"
        verbose_name_plural = "category counts"

    def __str__(self) -> str:
        return self.tag


class Outlier(models.Model):
    """An observation beyond x3 or /3 of its line's median. Written by the fold, judged by staff.

    `suspect` and `rejected` ones stay out of lows, discounts and alerts; `confirmed` (a second
    observation agreed) and `accepted` (staff) count. Goes with its snapshot's month.
    """

    class State(models.TextChoices):
        SUSPECT = "suspect"
        CONFIRMED = "confirmed", "confirmed by a second observation"
        ACCEPTED = "accepted", "accepted by staff"
        REJECTED = "rejected", "rejected by staff"

    id = models.BigAutoField(primary_key=True)
    slug = models.TextField()
    seller = models.TextField()
    currency = models.TextField()
    scraped_at = models.DateTimeField()
    price = models.DecimalField(max_digits=14, decimal_places=4)
    median = models.DecimalField(max_digits=14, decimal_places=4)
    state = models.TextField(choices=State)
    reviewed_by = models.TextField(blank=True)
    reviewed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "catalog_outliers"

    def __str__(self) -> str:
        return f"{self.slug} {self.seller} {self.price} ({self.state})"


class SellerPriority(models.Model):
    """Which seller's name, image and description lead a card. Staff order it; lower is first."""

    seller = models.TextField(unique=True)
    rank = models.PositiveIntegerField(default=100, db_index=True)

    class Meta:
        db_table = "catalog_seller_priority"
        ordering = ("rank", "seller")
        verbose_name_plural = "seller priority"

    def __str__(self) -> str:
        return self.seller


class IngestRun(models.Model):
    """One ingest of one source. Its counters commit with the rows that they count.

    Pruned after CATALOG_INGEST_RUNS_RETENTION_DAYS.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        FINISHED = "finished"
        FAILED = "failed"
        INTERRUPTED = "interrupted", "interrupted (its process died)"

    source = models.TextField()
    source_hash = models.TextField(blank=True)
    state = models.TextField(choices=State, default=State.RUNNING)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    rows_read = models.BigIntegerField(default=0)
    accepted = models.BigIntegerField(default=0)
    duplicate = models.BigIntegerField(default=0)
    conflicts = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    reasons = models.JSONField(default=dict, blank=True, help_text="{reason: rows}")
    rejects_path = models.TextField(blank=True)
    error = models.TextField(blank=True)
    host = models.TextField(blank=True)
    pid = models.IntegerField(null=True)
    owner = models.TextField(blank=True, help_text="Which process: see config.leases.")
    user_label = models.TextField(blank=True)

    class Meta:
        db_table = "catalog_ingest_run"
        indexes = [models.Index(models.F("started_at").desc(), name="ingest_run_started")]

    def __str__(self) -> str:
        return f"{self.source} {self.started_at:%Y-%m-%d %H:%M:%S}"


class IngestReject(models.Model):
    """A row that an ingest refused, and why. The first 1,000 of each run; they go with it."""

    run = models.ForeignKey(IngestRun, on_delete=models.CASCADE, related_name="rejects")
    line = models.BigIntegerField()
    reason = models.TextField()
    field = models.TextField(blank=True)
    detail = models.TextField(blank=True)
    raw = models.TextField(blank=True, help_text="At most 1,000 characters of the row.")

    class Meta:
        db_table = "catalog_ingest_reject"

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"
