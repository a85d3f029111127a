"""manage.py tune_weights [PAIR…]: weights that suit what people confirmed and dismissed."""

from django.core.management.base import BaseCommand, CommandError

from config import audit
from matching import tuning
from matching.kinds import Pair
from matching.tuning import TooFewVerdicts, Tuned


class Command(BaseCommand):
    """Thin: calls `matching.tuning.tune` for each pair of kinds, reports, applies if asked to."""

    help = (
        "Fit the weights of matching to the pairs that people confirmed and dismissed, and print"
        " the gain on a part that the fit has not seen. Nothing is changed without --apply, and a"
        " fit without a gain is not applied."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "pairs",
            nargs="*",
            metavar="PAIR",
            help=f"of {', '.join(Pair.values)}; default: each that has enough verdicts",
        )
        parser.add_argument("--apply", action="store_true", help="score by them from now on")

    def handle(self, *args, pairs, apply, **options):
        unknown = [pair for pair in pairs if pair not in Pair.values]
        if unknown:
            raise CommandError(f"no pair {unknown[0]!r}: choose of {', '.join(Pair.values)}")
        for pair in pairs or Pair.values:
            try:
                tuned = tuning.tune(Pair(pair))
            except TooFewVerdicts as error:
                if pairs:
                    raise CommandError(str(error)) from error
                self.stdout.write(str(error))
                continue
            self.stdout.write(_text(tuned))
            if apply and tuned.gain > 0:
                audit.by_command("tune_weights --apply", entity="pair", entity_id=tuned.pair)
                tuning.apply_weights(pair=tuned.pair, weights=tuned.fitted)
                self.stdout.write("  applied: every worker scores so within half a minute")
            elif apply:
                self.stdout.write("  not applied: there is no gain")


def _text(tuned: Tuned) -> str:
    gain = f"{tuned.before:.4f} now, {tuned.after:.4f} fitted ({tuned.gain:+.4f})"
    lines = [
        f"{tuned.pair.label}: {tuned.confirmed:,} confirmed, {tuned.dismissed:,} dismissed",
        f"  mean reciprocal rank on {tuned.held_back:,} held back: {gain}",
    ]
    lines += [
        f"  {name:<12} {tuned.current.get(name, 0):>8.4f} → {weight:.4f}"
        for name, weight in tuned.fitted.items()
    ]
    return "\n".join(lines)
