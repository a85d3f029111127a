"""The tables of the counters. A counter itself is a column of what it counts for."""

from django.db import models
from django.db.models.functions import Now


class CounterState(models.Model):
    """How a declared counter is kept, and what the last comparison with its source found.

    One row a counter, made by `actions.sync_counters` after every migration. `divergence` is by
    how much all wrong counts were wrong together.
    """

    class Mode(models.TextChoices):
        INLINE = "inline"
        DEFERRED = "deferred"

    counter_key = models.IntegerField(primary_key=True)
    name = models.TextField(unique=True)
    mode = models.TextField(choices=Mode, default=Mode.INLINE)
    switched_at = models.DateTimeField(db_default=Now())
    reconciled_at = models.DateTimeField(null=True)
    compared = models.BigIntegerField(null=True)
    wrong = models.BigIntegerField(null=True)
    divergence = models.BigIntegerField(null=True)

    class Meta:
        db_table = "counter_states"
        verbose_name = "counter"

    def __str__(self) -> str:
        return self.name


class Delta(models.Model):
    """What has to be added to one target's column. Appended by triggers, removed by the fold."""

    id = models.BigAutoField(primary_key=True)
    counter_key = models.IntegerField()
    target_id = models.BigIntegerField()
    delta = models.BigIntegerField()
    appended_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "counter_deltas"

    def __str__(self) -> str:
        return f"{self.counter_key} {self.target_id}: {self.delta:+}"


class SeenEvent(models.Model):
    """The id of an event that was counted, committed with its effect. A partition a day."""

    pk = models.CompositePrimaryKey("day", "event_id")
    day = models.DateField()
    event_id = models.UUIDField()

    class Meta:
        db_table = "counter_events"

    def __str__(self) -> str:
        return str(self.event_id)


class DeadLetter(models.Model):
    """What came by the stream and could not be applied. Kept for COUNTERS_DEAD_LETTERS_DAYS."""

    id = models.BigAutoField(primary_key=True)
    entry = models.TextField(help_text="The id of its entry in the stream.")
    payload = models.TextField()
    reason = models.TextField()
    attempts = models.IntegerField(default=1)
    died_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "counter_dead_letters"
        verbose_name = "dead letter"

    def __str__(self) -> str:
        return f"{self.entry}: {self.reason[:80]}"
