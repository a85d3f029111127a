"""Tables of the shared machinery: jobs, signs of life, read models, archive, keys, tokens, logs."""

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from knox.models import AbstractAuthToken, AuthTokenManager


class Lease(models.Model):
    """The right to run one job, held by one process until `expires_at`.

    Taken by compare-and-set, extended by the holder's heartbeat. One row per job name.
    """

    name = models.TextField(primary_key=True)
    owner = models.TextField(help_text="Random token of the holding run.")
    host = models.TextField()
    pid = models.IntegerField()
    acquired_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class JobRun(models.Model):
    """One attempt of one job. Written by `config.runs`; pruned after JOB_RUNS_RETENTION_DAYS."""

    class State(models.TextChoices):
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        SKIPPED = "skipped", "skipped (another run held the lease)"
        ABANDONED = "abandoned", "abandoned (its process died)"

    job = models.TextField()
    trigger = models.TextField(help_text="Who asked: schedule, command, admin, worker, or a job.")
    state = models.TextField(choices=State, default=State.RUNNING)
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    rows = models.BigIntegerField(null=True, blank=True)
    detail = models.JSONField(default=dict, blank=True)
    error = models.TextField(blank=True)
    owner = models.TextField(help_text="The lease token of this run.")
    host = models.TextField()
    pid = models.IntegerField()

    class Meta:
        indexes = [
            models.Index("job", models.F("started_at").desc(), name="job_run_job_started"),
            models.Index(models.F("started_at").desc(), name="job_run_started"),
            models.Index("job", condition=models.Q(state="running"), name="job_run_running"),
        ]

    def __str__(self) -> str:
        return f"{self.job} {self.started_at:%Y-%m-%d %H:%M:%S} {self.state}"


class Heartbeat(models.Model):
    """The last sign of life of a part of the system. One row per part."""

    name = models.TextField(primary_key=True)
    beat_at = models.DateTimeField(db_default=Now())
    detail = models.JSONField(default=dict, blank=True)

    def __str__(self) -> str:
        return self.name


class ReadModelState(models.Model):
    """When a read model was refreshed last, and what that cost. One row per read model.

    `generation` grows with every refresh that changed something; it is part of each cache key.
    """

    name = models.TextField(primary_key=True)
    generation = models.BigIntegerField(default=0)
    refreshed_at = models.DateTimeField(null=True)
    full_refreshed_at = models.DateTimeField(null=True)
    duration_ms = models.FloatField(null=True)
    rows = models.BigIntegerField(null=True)
    error = models.TextField(blank=True)
    reconciled_at = models.DateTimeField(null=True)
    differences = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        return self.name


class Tally(models.Model):
    """A counter that `/metrics` exposes, kept in PostgreSQL.

    It commits with the effect that it counts, so it survives crashes and is the same for every
    process and host. One row per metric name and label set; never pruned.
    """

    name = models.TextField()
    labels = models.JSONField(default=dict)
    value = models.FloatField(default=0)

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [models.UniqueConstraint(fields=["name", "labels"], name="tally_key")]

    def __str__(self) -> str:
        return f"{self.name}{self.labels} = {self.value:g}"


class VitalSample(models.Model):
    """What a vital sign was at a moment. Written every 5 minutes; kept for 8 days."""

    pk = models.CompositePrimaryKey("at", "key")
    at = models.DateTimeField(db_default=Now())
    key = models.TextField()
    value = models.FloatField()

    class Meta:
        db_table = "vital_samples"

    def __str__(self) -> str:
        return f"{self.key} {self.at:%Y-%m-%d %H:%M} {self.value:g}"


class ArchivedPartition(models.Model):
    """A partition that this database put into the archive, and whether it let go of it.

    Written by `config.archive`. One row per archived file, never pruned: at most a few a day.
    """

    table = models.TextField()
    partition = models.TextField()
    key = models.TextField(help_text="Of the Parquet file in the archive.")
    rows = models.BigIntegerField()
    bytes = models.BigIntegerField()
    verified_at = models.DateTimeField()
    dropped_at = models.DateTimeField(null=True, help_text="Empty: its rows are here, too.")
    held_until = models.DateTimeField(null=True, help_text="A restored partition stays until then.")
    left_out = models.BigIntegerField(
        default=0, db_default=0, help_text="Rows that did not fit any more when it was restored."
    )
    left_out_checksum = models.TextField(default="", db_default="", blank=True)

    class Meta:
        db_table = "archived_partitions"
        constraints = [models.UniqueConstraint(fields=["key"], name="archived_partition_key")]
        indexes = [models.Index(fields=["table", "partition"], name="archived_partition_name")]

    def __str__(self) -> str:
        return self.key


class IdempotencyRecord(models.Model):
    """The answer to a request that carried an Idempotency-Key, for replay.

    Written by `config.idempotency`; pruned once `expires_at` has passed.
    """

    owner = models.TextField(help_text="Whose key it is: the user, or the address.")
    key = models.TextField()
    endpoint = models.TextField()
    request_hash = models.TextField()
    claim = models.TextField(help_text="Random token of the request at work.")
    claimed_at = models.DateTimeField()
    status = models.SmallIntegerField(null=True)
    headers = models.JSONField(default=dict, blank=True)
    body = models.BinaryField(null=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "endpoint", "key"], name="idempotency_key")
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.key}"


UNUSED_AFTER = timedelta(days=90)  # staff are warned of such tokens


class ApiTokenSet(models.QuerySet):
    """Verbs for tokens."""

    def unused(self) -> "ApiTokenSet":
        """Those that nobody has used for long, whenever they were issued."""
        limit = timezone.now() - UNUSED_AFTER
        return self.filter(
            models.Q(last_used_at__lt=limit) | models.Q(last_used_at=None, created__lt=limit)
        )


class ApiToken(AbstractAuthToken):
    """A knox token with a name, scopes and the time of its last use."""

    name = models.CharField(max_length=100, blank=True)
    scopes = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = AuthTokenManager.from_queryset(ApiTokenSet)()

    class Meta(AbstractAuthToken.Meta):
        verbose_name = "API token"

    def __str__(self) -> str:
        """Knox's would show the digest."""
        return f"{self.name or f'{self.token_key}…'} of {self.user}"


class StaffAction(models.Model):
    """What one of the staff did or was refused. Written by `config.audit` alone.

    Append-only by a trigger; partitioned by month on `created_at`, kept for
    STAFF_ACTIONS_RETENTION_MONTHS.
    """

    id = models.BigAutoField(primary_key=True)
    created_at = models.DateTimeField(db_default=Now())
    actor_id = models.IntegerField(null=True)
    actor = models.TextField(blank=True, help_text="The login name, as it was then.")
    via = models.TextField(help_text="admin, login, or command.")
    address = models.TextField(blank=True)
    action = models.TextField()
    entity = models.TextField(blank=True, help_text="app.model")
    entity_id = models.TextField(blank=True)
    changes = models.JSONField(default=dict, help_text="{field: [before, after]}")
    detail = models.JSONField(default=dict)

    class Meta:
        db_table = "staff_actions"

    def __str__(self) -> str:
        return f"{self.action} {self.entity} {self.entity_id}".strip()
