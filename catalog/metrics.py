"""What the catalog counts, in PostgreSQL, with what it takes in: see `actions.py`."""

from config import tally

tally.declare(
    "ingest_rows_total",
    "Rows of price snapshots, by what became of them.",
    outcome=("accepted", "duplicate", "conflict", "rejected"),
)
