"""The counters' partitioned table: the ids of events that were counted, a day each."""

from config.partitions import PartitionedTable, register

# An event may name the day before; a redelivery may come a day later still.
DAYS_KEPT = 3

register(PartitionedTable(name="counter_events", column="day", unit="day", keep=lambda: DAYS_KEPT))
