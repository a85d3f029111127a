"""Tables of matching.

Generated columns, vectors and partitions are beyond Django's migrations: these tables are made
by the files in `sql/`, which migrations run beside the models' state.
"""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from pgvector.django import HalfVectorField

from matching.kinds import Kind, Pair


class Item(models.Model):
    """Something that a person posted: lost or found, wanted or offered, a resume or a job.

    What hangs on items (buckets, words, the queue of the embedder) follows by statement triggers,
    in the writer's transaction. An item is live, and can be found, while it is open and not
    deleted. Written by `matching.actions` and `matching.importing` alone, which also fill `terms`
    (words by spaces, the title's up to chr(31)) and `features` (attributes, normalised). Deleted
    softly; rows of deleted items go by MATCHING_DELETED_ITEMS_RETENTION_DAYS.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        MATCHED = "matched"
        CLOSED = "closed"
        EXPIRED = "expired"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.DO_NOTHING, related_name="items")
    kind = models.TextField(choices=Kind)
    status = models.TextField(choices=Status, default=Status.OPEN)
    category = models.TextField(blank=True, default="")
    title = models.TextField()
    description = models.TextField(blank=True, default="")
    attributes = models.JSONField(blank=True, default=dict)
    country = models.TextField(blank=True, default="", help_text="ISO 3166-1 alpha-2")
    city = models.TextField(blank=True, default="")
    latitude = models.FloatField(null=True, blank=True, help_text="Degrees, -90 to 90")
    longitude = models.FloatField(null=True, blank=True, help_text="Degrees, -180 to 180")
    geohash = models.GeneratedField(
        expression=models.Func("latitude", "longitude", function="matching_geohash"),
        output_field=models.TextField(null=True),
        db_persist=True,
    )
    happened_on = models.DateField(null=True, blank=True, help_text="When it was lost, found …")
    external_id = models.TextField(blank=True, default="", help_text="Its id in an import")
    is_deleted = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    terms = models.TextField(default="", editable=False)
    features = models.JSONField(default=dict, editable=False)

    class Meta:
        db_table = "items"
        triggers = [
            pgtrigger.Trigger(
                name="items_inserted",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Insert,
                referencing=pgtrigger.Referencing(new="new_rows"),
                func="""
                    INSERT INTO item_buckets
                        (geohash6, category, item_id, created_at, kind, owner_id, geohash,
                        location_point)
                    SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash,
                        location_point
                    FROM new_rows
                    WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL
                    ORDER BY 1, 2, 3;
                    INSERT INTO item_embedding_changes (item_id)
                    SELECT id FROM new_rows WHERE status = 'open' AND NOT is_deleted;
                    INSERT INTO item_term_changes (kind, term, items)
                    SELECT kind, added.term, sum(added.items)
                    FROM new_rows, matching_counts(search, terms) AS added
                    WHERE status = 'open' AND NOT is_deleted
                    GROUP BY 1, 2
                    HAVING sum(added.items) <> 0;
                    RETURN NULL;
                """,
            ),
            pgtrigger.Trigger(
                name="items_updated",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Update,
                referencing=pgtrigger.Referencing(old="old_rows", new="new_rows"),
                func="""
                    -- Never a join of old_rows and new_rows: it keeps the plan of its first use,
                    -- nested loops, and would be quadratic for the next bulk update.
                    DELETE FROM item_buckets AS b
                    USING (
                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,
                            latitude
                        FROM old_rows
                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL
                        EXCEPT
                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,
                            latitude
                        FROM new_rows
                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL
                    ) AS gone
                    WHERE b.item_id = gone.id;
                    INSERT INTO item_buckets
                        (geohash6, category, item_id, created_at, kind, owner_id, geohash,
                        location_point)
                    SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash,
                        point(longitude, latitude)
                    FROM (
                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,
                            latitude
                        FROM new_rows
                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL
                        EXCEPT
                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,
                            latitude
                        FROM old_rows
                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL
                    ) AS come
                    ORDER BY 1, 2, 3;
                    DELETE FROM item_embeddings AS e USING new_rows AS n
                    WHERE e.item_id = n.id AND (n.status <> 'open' OR n.is_deleted);
                    UPDATE item_embeddings AS e SET
                        kind = n.kind, category = n.category, country = n.country
                    FROM new_rows AS n
                    WHERE e.item_id = n.id
                        AND (e.kind, e.category, e.country) IS DISTINCT FROM
                            (n.kind, n.category, n.country);
                    INSERT INTO item_embedding_changes (item_id)
                    SELECT id
                    FROM (
                        SELECT id, kind, title, description, category, country
                        FROM new_rows WHERE status = 'open' AND NOT is_deleted
                        EXCEPT
                        SELECT id, kind, title, description, category, country
                        FROM old_rows WHERE status = 'open' AND NOT is_deleted
                    ) AS changed;
                    INSERT INTO item_term_changes (kind, term, items)
                    SELECT changed.kind, counted.term, sum(changed.sign * counted.items)
                    FROM (
                        (
                            SELECT id, kind, search, terms, -1 AS sign
                            FROM old_rows WHERE status = 'open' AND NOT is_deleted
                            EXCEPT
                            SELECT id, kind, search, terms, -1
                            FROM new_rows WHERE status = 'open' AND NOT is_deleted
                        )
                        UNION ALL
                        (
                            SELECT id, kind, search, terms, 1
                            FROM new_rows WHERE status = 'open' AND NOT is_deleted
                            EXCEPT
                            SELECT id, kind, search, terms, 1
                            FROM old_rows WHERE status = 'open' AND NOT is_deleted
                        )
                    ) AS changed, matching_counts(changed.search, changed.terms) AS counted
                    GROUP BY 1, 2
                    HAVING sum(changed.sign * counted.items) <> 0;
                    RETURN NULL;
                """,
            ),
            pgtrigger.Trigger(
                name="items_deleted",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Delete,
                referencing=pgtrigger.Referencing(old="old_rows"),
                func="""
                    INSERT INTO item_term_changes (kind, term, items)
                    SELECT kind, gone.term, -sum(gone.items)
                    FROM old_rows, matching_counts(search, terms) AS gone
                    WHERE status = 'open' AND NOT is_deleted
                    GROUP BY 1, 2
                    HAVING sum(gone.items) <> 0;
                    RETURN NULL;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.title[:60]}"

    @property
    def is_live(self) -> bool:
        """Whether it may be matched: open, and not deleted."""
        return self.status == self.Status.OPEN and not self.is_deleted


class ItemBucket(models.Model):
    """A live item with a place, by cell and category. Kept by the triggers on `Item`."""

    pk = models.CompositePrimaryKey("geohash6", "category", "item_id")
    geohash6 = models.CharField(max_length=12)
    category = models.CharField(max_length=100)
    item_id = models.BigIntegerField()
    created_at = models.DateTimeField(null=True)
    kind = models.TextField()
    owner_id = models.IntegerField()
    geohash = models.TextField()

    class Meta:
        db_table = "item_buckets"

    def __str__(self) -> str:
        return f"{self.geohash6} {self.category} {self.item_id}"


class ItemEmbedding(models.Model):
    """The vector of a live item's text, the model it came from, and a hash of that text.

    Written by `matching.embedding`; what a search filters by follows the item by trigger, and the
    row goes when the item is no longer live. One row an item, two while a new model takes over.
    The generated column `code` is the vector in few bits, for scans.
    """

    pk = models.CompositePrimaryKey("item_id", "model")
    item = models.ForeignKey(Item, models.DO_NOTHING, related_name="embeddings")
    model = models.TextField()
    kind = models.TextField()
    category = models.TextField()
    country = models.TextField()
    content_hash = models.BinaryField()
    text_embedding = HalfVectorField(dimensions=384)

    class Meta:
        db_table = "item_embeddings"

    def __str__(self) -> str:
        return f"{self.item_id} by {self.model}"


class ServingModel(models.Model):
    """The model whose vectors are searched: one row. Another takes over when its are complete."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    model = models.TextField()
    since = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "item_embedding_serving"

    def __str__(self) -> str:
        return self.model


class ItemEmbeddingChange(models.Model):
    """An item whose vector may be out of date. Appended by trigger, deleted by the drain."""

    id = models.BigAutoField(primary_key=True)
    item_id = models.BigIntegerField()
    queued_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "item_embedding_changes"

    def __str__(self) -> str:
        return str(self.item_id)


class ItemTerm(models.Model):
    """How many live items of a kind hold a word. Read model, folded from `ItemTermChange`.

    Counted beside words: categories (`#bags`), countries (`@fr`), cities (`@fr/lyon`), the items
    themselves (the empty term), and the words of their titles and bodies (` title`, ` body`).
    """

    pk = models.CompositePrimaryKey("kind", "term")
    kind = models.TextField()
    term = models.TextField()
    items = models.BigIntegerField()

    class Meta:
        db_table = "item_terms"

    def __str__(self) -> str:
        return f"{self.kind} {self.term}: {self.items}"


class ItemTermChange(models.Model):
    """By how much the number of items with a word changed. Appended by trigger; not folded yet."""

    id = models.BigAutoField(primary_key=True)
    kind = models.TextField()
    term = models.TextField()
    items = models.BigIntegerField()

    class Meta:
        db_table = "item_term_changes"

    def __str__(self) -> str:
        return f"{self.kind} {self.term}: {self.items:+}"


class MatchJob(models.Model):
    """One request for matches of an item, or of a description that is no item (`query`).

    Claimed by compare-and-set with a lease; the attempt is counted before it starts. Its results
    can be had until `expires_at`; deleted MATCHING_JOBS_RETENTION_DAYS after that.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    class Priority(models.IntegerChoices):
        PERSON = 0, "a person waits"
        CHANGE = 1, "an item changed"
        BACKGROUND = 2, "scored again in the background"

    task_id = models.UUIDField(primary_key=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.DO_NOTHING, related_name="+")
    item = models.ForeignKey(Item, models.DO_NOTHING, null=True, related_name="+")
    query = models.JSONField(default=dict)
    priority = models.SmallIntegerField(choices=Priority)
    state = models.TextField(choices=State, default=State.QUEUED)
    progress = models.TextField(default="")
    attempts = models.SmallIntegerField(default=0)
    lease_owner = models.TextField(default="")
    host = models.TextField(default="")
    pid = models.IntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True)
    submitted_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    result = models.JSONField(null=True)
    degraded = models.TextField(default="")
    error = models.TextField(default="")
    request_id = models.TextField(
        default="", db_default="", blank=True, help_text="The request that asked last, in the log."
    )

    class Meta:
        db_table = "match_jobs"

    def __str__(self) -> str:
        return f"{self.task_id} {self.state}"


class Match(models.Model):
    """A seeker's item and an offer that was found for it, or the other way round: one row a pair.

    `components` says why: a list of {name, raw, weight, contribution}. Partitioned by month on
    `created_at`; old months go by MATCHING_MATCHES_RETENTION_MONTHS.
    """

    class State(models.TextChoices):
        SUGGESTED = "suggested"
        CONFIRMED = "confirmed", "confirmed by both"
        DISMISSED = "dismissed"
        EXPIRED = "expired"

    id = models.BigAutoField(primary_key=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    pair = models.TextField(choices=Pair)
    seeker = models.ForeignKey(Item, models.DO_NOTHING, related_name="+")
    offer = models.ForeignKey(Item, models.DO_NOTHING, related_name="+")
    score = models.FloatField(help_text="0 to 1")
    components = models.JSONField()
    degraded = models.TextField(default="")
    state = models.TextField(choices=State, default=State.SUGGESTED)
    seeker_confirmed_at = models.DateTimeField(null=True)
    offer_confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "matches"
        verbose_name_plural = "matches"

    def __str__(self) -> str:
        return f"{self.seeker_id} ↔ {self.offer_id}: {self.score:.2f}"


class MatchDismissal(models.Model):
    """A pair that somebody dismissed. It never returns while both items exist."""

    pk = models.CompositePrimaryKey("seeker_id", "offer_id")
    seeker = models.ForeignKey(Item, models.DO_NOTHING, related_name="+")
    offer = models.ForeignKey(Item, models.DO_NOTHING, related_name="+")
    dismissed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, null=True, related_name="+"
    )
    dismissed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "match_dismissals"

    def __str__(self) -> str:
        return f"{self.seeker_id} ↔ {self.offer_id}"


class AuditLog(models.Model):
    """Who did what to which item or match. Append-only; partitioned by month on `created_at`."""

    id = models.BigAutoField(primary_key=True)
    created_at = models.DateTimeField(db_default=Now())
    actor_id = models.IntegerField(null=True)
    action = models.TextField()
    entity = models.TextField()
    entity_id = models.BigIntegerField()
    detail = models.JSONField(default=dict)

    class Meta:
        db_table = "audit_logs"

    def __str__(self) -> str:
        return f"{self.action} {self.entity} {self.entity_id}"


class Notification(models.Model):
    """Something a person should hear of, once: the other side confirmed a match.

    Pruned after MATCHING_NOTIFICATIONS_RETENTION_DAYS.
    """

    class Subject(models.TextChoices):
        CONFIRMED_BY_OTHER = "confirmed_by_other", "the other side confirmed"
        CONFIRMED_BY_BOTH = "confirmed_by_both", "both sides confirmed"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    subject = models.TextField(choices=Subject)
    seeker_id = models.BigIntegerField()
    offer_id = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now())
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "match_notifications"
        constraints = [
            models.UniqueConstraint(
                fields=["user", "seeker_id", "offer_id", "subject"], name="match_notifications_once"
            )
        ]
        indexes = [
            models.Index("user", models.F("created_at").desc(), name="match_notifications_user"),
            models.Index("created_at", name="match_notifications_age"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.subject}"


class PairWeights(models.Model):
    """How much each component counts in the score of a pair. Edited by staff and `tune_weights`.

    `weights`: {component: weight ≥ 0}, those missing at their default in `matching.scoring`.
    """

    pair = models.TextField(primary_key=True, choices=Pair)
    weights = models.JSONField(default=dict)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.TextField(blank=True, default="")

    class Meta:
        db_table = "match_weights"
        verbose_name_plural = "weights"

    def __str__(self) -> str:
        return self.get_pair_display()
