"""manage.py demo: data to look at, for every app that brings a `demo` module."""

from typing import Any

from django.apps import apps
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import autodiscover_modules, import_string, module_has_submodule

from config.management.progress import Progress
from config.runs import JobFailed

SIZES = ("small", "medium")


class Command(BaseCommand):
    """An app's `demo` module has `load(size, seed, progress) -> int` and `is_empty() -> bool`."""

    help = (
        "Loads demo data, the same for the same seed, ending yesterday. Loading it again adds only"
        " the days that have passed since."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--size", choices=SIZES, default="small", help="default: %(default)s")
        parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
        parser.add_argument(
            "--if-empty", action="store_true", help="leave apps alone that have data"
        )

    def handle(self, *, size: str, seed: int, if_empty: bool, **options: Any) -> None:
        for label, demo in _demos().items():
            if if_empty and not demo.is_empty():
                continue
            try:
                with Progress(options["verbosity"]) as progress:
                    rows = demo.load(
                        size=size,
                        seed=seed,
                        progress=lambda text, say=progress.say, app=label: say(f"{app}: {text}"),
                    )
            except JobFailed as error:
                raise CommandError(f"{label}: the data is in, but {error}") from error
            if options["verbosity"]:
                self.stdout.write(f"{label}: {rows:,} rows of demo data added")


def _demos() -> dict:
    """The `demo` modules of the installed apps by label."""
    autodiscover_modules("demo")
    return {
        app.label: import_string(f"{app.name}.demo")
        for app in apps.get_app_configs()
        if app.module and module_has_submodule(app.module, "demo")
    }
