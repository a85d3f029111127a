"""Write the API guide."""

import sys
from pathlib import Path

from django.core.management.base import BaseCommand

from config import apiguide


class Command(BaseCommand):
    help = "Prints the API guide (docs/api-guide.md) as the OpenAPI document says it today."

    def add_arguments(self, parser) -> None:
        parser.add_argument(
            "--check", metavar="PATH", help="Print nothing; exit 1 where that file says otherwise."
        )

    def handle(self, *args, check, **options) -> None:
        text = apiguide.render()
        if not check:
            self.stdout.write(text, ending="")
        elif Path(check).read_text(encoding="utf-8") != text:
            self.stderr.write(f"{check} is out of date: manage.py api_guide > {check}")
            sys.exit(1)
