"""Let somebody log in again who used up the attempts."""

from django.core.management.base import BaseCommand, CommandError

from config import audit, logins


class Command(BaseCommand):
    help = "Gives back the attempts to log in of a user name or of an address."

    def add_arguments(self, parser) -> None:
        parser.add_argument("name", nargs="?", default="", help="A user name.")
        parser.add_argument("--address", default="", help="An IP address.")

    def handle(self, *args, name, address, verbosity, **options) -> None:
        if not name and not address:
            raise CommandError("Name a user or an --address.")
        audit.by_command("unlock login", entity_id=name or address)
        if not logins.unlock(name=name, address=address):
            raise CommandError(
                "Valkey is not reachable: each web process counts by itself until it is back."
                " Restart the web server to start from 0, or wait."
            )
        if verbosity:
            self.stdout.write(
                f"Attempts start from 0 again for {' and '.join(filter(None, [name, address]))}."
            )
