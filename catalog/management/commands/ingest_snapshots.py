"""manage.py ingest_snapshots PATH…: price observations from CSV or NDJSON files."""

from functools import partial

from catalog.actions import ingest_file
from catalog.readers import parse_map
from catalog.rows import FIELDS, REASONS, REQUIRED_FIELDS
from config import audit
from config.management.imports import ImportCommand


class Command(ImportCommand):
    """Thin: parses for `catalog.actions.ingest_file`."""

    help = (
        "Ingest price observations from CSV or NDJSON files, plain or gzip. Bad rows are written"
        " to a rejects file with their line numbers, the rest goes in. Doing it again, also after"
        f" an interruption, adds only what is missing. Fields: {', '.join(FIELDS)};"
        f" required: {', '.join(REQUIRED_FIELDS)}."
    )
    reasons = REASONS
    conflict = "another price stands under the same key"
    job = "refresh_catalog"

    def importer(self, options):
        user = audit.system_user()
        return partial(ingest_file, field_map=parse_map(options["map"]), user_label=user)
