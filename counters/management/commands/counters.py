from django.core.management.base import BaseCommand, CommandError

from config import audit
from counters import actions, queries
from counters.declared import UnknownCounter
from counters.models import CounterState


class Command(BaseCommand):
    help = (
        "Show every counter: how it is kept, what waits, what the last comparison found. With "
        "--mode, switch how one is kept, while everything runs; set COUNTERS_MODES as well, which "
        "holds at the next start."
    )

    def add_arguments(self, parser):
        parser.add_argument("name", nargs="?", metavar="NAME", help="a counter: posts.likes_count")
        parser.add_argument("--mode", choices=CounterState.Mode.values, help="how to keep NAME")

    def handle(self, *args, name, mode, **options):
        if mode and not name:
            raise CommandError("Name the counter whose mode to switch.")
        if mode:
            self._switch(name, mode)
        rows = [one for one in queries.overview() if name in (None, one.name)]
        if not rows:
            raise CommandError(f"No counter {name!r} is declared.")
        self.stdout.write(f"{'counter':<28}{'kept':<10}{'waiting':>10}{'lag':>9}{'wrong':>8}")
        for one in rows:
            lag = "–" if one.oldest_seconds is None else f"{one.oldest_seconds:.1f} s"
            wrong = "–" if one.wrong is None else f"{one.wrong:,}"
            self.stdout.write(
                f"{one.name:<28}{one.mode or 'stream':<10}{one.waiting:>10,}{lag:>9}{wrong:>8}"
            )

    def _switch(self, name, mode):
        try:
            changed = actions.set_mode(name=name, mode=mode)
        except (UnknownCounter, actions.NotSwitched) as error:
            raise CommandError(str(error)) from error
        if changed:
            audit.by_command("counters --mode", entity="counter", entity_id=name, mode=mode)
        self.stdout.write(f"{name} is kept {mode}{' now' if changed else ' already'}.")
        if actions.configured_mode(name) != mode:
            self.stdout.write(
                f"The settings say {actions.configured_mode(name)}: add {name}={mode} to "
                "COUNTERS_MODES, or the next start switches back."
            )
