"""Create an API token and print its secret once."""

from datetime import timedelta

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from config.tokens import SCOPES, issue_token


class Command(BaseCommand):
    help = "Creates an API token for a user and prints the secret, which is shown only this once."

    def add_arguments(self, parser) -> None:
        scopes = "; ".join(f"{name}: {what}" for name, what in SCOPES.items())
        parser.add_argument("user", help="The login name of the token's owner.")
        parser.add_argument(
            "--scope",
            action="append",
            dest="scopes",
            choices=list(SCOPES),
            required=True,
            help=f"May be given several times. {scopes}",
        )
        parser.add_argument("--name", default="", help="What the token is for.")
        parser.add_argument(
            "--days", type=int, default=90, help="Lifetime; 0 never expires. Default: 90."
        )

    def handle(self, *args, user, scopes, name, days, **options) -> None:
        if not 0 <= days <= 36_500:
            raise CommandError("--days must be between 0 (never expires) and 36500.")
        model = get_user_model()
        try:
            owner = model.objects.get_by_natural_key(user)
            row, secret = issue_token(
                user=owner,
                name=name,
                scopes=scopes,
                lifetime=timedelta(days=days) if days else None,
            )
        except model.DoesNotExist:
            raise CommandError(
                f"There is no user {user!r}; make one with manage.py createsuperuser."
            ) from None
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        until = f"until {row.expiry:%Y-%m-%d %H:%M} UTC" if row.expiry else "without expiry"
        self.stderr.write(f"Token for {owner}, scopes {', '.join(row.scopes)}, {until}:")
        self.stdout.write(secret)
