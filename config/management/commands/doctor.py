import json
import sys
from collections import Counter
from dataclasses import asdict

from django.core.management.base import BaseCommand

from config import doctor


class Command(BaseCommand):
    help = (
        "Check the installation; exit code 1 where something is broken. "
        "-v 0 prints only what needs attention: silence is good news for cron."
    )
    requires_system_checks = ()  # it must be able to say what is wrong
    requires_migrations_checks = False

    def add_arguments(self, parser):
        parser.add_argument("--strict", action="store_true", help="exit 1 on a warning too")
        parser.add_argument("--json", action="store_true", help="the checks as a JSON list")

    def handle(self, *args, strict, verbosity, **options):
        checks = doctor.examine()
        if options["json"]:
            self.stdout.write(json.dumps([asdict(check) for check in checks], indent=2))
        else:
            self._report(checks, quiet=verbosity == 0)
        bad = {doctor.FAIL, doctor.WARN} if strict else {doctor.FAIL}
        if any(check.level in bad for check in checks):
            sys.exit(1)

    def _report(self, checks, *, quiet):
        shown = [check for check in checks if not quiet or check.level != doctor.OK]
        widest = max((len(check.name) for check in shown), default=0)
        colour = {
            doctor.OK: self.style.SUCCESS,
            doctor.WARN: self.style.WARNING,
            doctor.FAIL: self.style.ERROR,
        }
        for check in shown:
            level = colour[check.level](f"{check.level:<4}")
            self.stdout.write(f"{level}  {check.name:<{widest}}  {check.finding}")
            if check.advice:
                self.stdout.write(f"      {'':<{widest}}  → {check.advice}")
        if not quiet:
            self.stdout.write(self._summary(Counter(check.level for check in checks)))

    def _summary(self, count):
        if not count[doctor.WARN] and not count[doctor.FAIL]:
            return self.style.SUCCESS(f"All {count.total()} checks passed.")
        parts = [f"{count[doctor.OK]} ok"]
        if count[doctor.WARN]:
            parts.append(f"{count[doctor.WARN]} to look at")
        if count[doctor.FAIL]:
            parts.append(f"{count[doctor.FAIL]} broken")
        return ", ".join(parts) + "."
