"""manage.py import_items PATH…: items from CSV or NDJSON files."""

from functools import partial

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from config.management.imports import ImportCommand
from matching.importing import FIELDS, REASONS, Mapped, import_file
from matching.kinds import Kind


class Command(ImportCommand):
    """Thin: parses for `matching.importing.import_file`."""

    help = (
        "Import items from CSV or NDJSON files, plain or gzip; they are found at once. Bad rows are"
        " written to a rejects file with their line numbers, the rest goes in. Doing it again, also"
        f" after an interruption, adds only what is missing. Fields: {', '.join(FIELDS)}; required:"
        " kind, title. Map external_id where the file has a key: without one a row is known by"
        " what it says."
    )

    reasons = REASONS
    conflict = "another item stands under the same external_id"
    skipped = "not what --where asks for"
    map_help = (
        f"{ImportCommand.map_help}; title=A+B joins columns; attributes.NAME=COLUMN makes an"
        " attribute"
    )
    job = "refresh_matching"

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("--owner", required=True, metavar="USER", help="whose items they are")
        parser.add_argument(
            "--kind", choices=Kind.values, default="", help="default: from the field kind"
        )
        parser.add_argument(
            "--where",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help="take only the rows that have this value",
        )
        parser.add_argument(
            "--prefix",
            default="",
            metavar="TEXT",
            help="put before every external_id: keeps apart sources that both count from 1",
        )

    def importer(self, options):
        mapped = Mapped(
            options["map"],
            kind=options["kind"],
            where=options["where"],
            prefix=options["prefix"],
        )
        owner = get_user_model().objects.filter(username=options["owner"]).first()
        if owner is None:
            raise CommandError(f"no user {options['owner']!r}: manage.py createsuperuser makes one")
        return partial(import_file, owner_id=owner.pk, mapped=mapped)
