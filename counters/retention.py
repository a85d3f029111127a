"""What expires in the counters, besides whole days of event ids (`partitions.py`)."""

from config.retention import Rule, days_before, register

register(
    Rule(
        name="counter_dead_letters",
        table="counter_dead_letters",
        condition="died_at < %(before)s",
        parameters=days_before("COUNTERS_DEAD_LETTERS_DAYS"),
    )
)
