from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from config import audit
from feeds import actions


class Command(BaseCommand):
    help = (
        "Delete a user with all posts, likes, comments and follows, step by step, so that nobody "
        "waits. Killed half way, start it again."
    )

    def add_arguments(self, parser):
        parser.add_argument("username", metavar="USERNAME")

    def handle(self, *args, username, verbosity, **options):
        user = get_user_model().objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"No user {username!r}.")
        audit.by_command("delete account", entity="user", entity_id=str(user.pk))
        actions.delete_account(user_id=user.pk)
        if verbosity:
            self.stdout.write(f"{username} is deleted.")
