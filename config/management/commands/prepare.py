"""What a fresh database and a new version need before the server starts."""

import hashlib
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.management import BaseCommand, CommandParser, call_command, get_commands

STAFF_LOGIN = "admin"


class Command(BaseCommand):
    help = (
        "Migrates, collects static files, and in a new database makes a staff login and demo "
        "data. Does only what is missing; script/server runs it at every start."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-demo", action="store_true", help="load no demo data")

    def handle(self, *, no_demo: bool, **_options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        self._collect_static()
        self._make_staff_login()
        if not no_demo and "demo" in get_commands():
            # With lines of progress: the first start takes a while, also in a container's log.
            call_command("demo", "--size", "small", "--if-empty", verbosity=2)

    def _collect_static(self) -> None:
        """Collecting compresses every file; skipped while the sources are the same."""
        digest = hashlib.sha256(settings.VERSION.encode())
        for finder in get_finders():
            for name, storage in finder.list([]):
                found = storage.path(name)
                digest.update(
                    f"{found} {storage.size(name)} {storage.get_modified_time(name)}".encode()
                )
        stamp = settings.STATIC_ROOT.parent / "static.sha256"
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        self.stdout.write("collecting static files …")
        call_command("collectstatic", interactive=False, verbosity=0)
        stamp.write_text(digest.hexdigest())

    def _make_staff_login(self) -> None:
        users = get_user_model().objects
        if users.filter(is_staff=True).exists():
            return
        password = secrets.token_urlsafe(12)
        users.create_superuser(STAFF_LOGIN, password=password)
        self.stdout.write(
            f"\nStaff login: {STAFF_LOGIN} / {password}\n"
            "This is shown once; `manage.py changepassword admin` sets another.\n"
        )
