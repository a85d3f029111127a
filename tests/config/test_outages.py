"""What must be written is tried again while the database is away, and only then."""

import pytest
from django.db import InterfaceError, OperationalError

from config import outages

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(outages, "PAUSES", (0.01, 0.01))


def failing(*errors):
    left = list(errors)

    def step():
        if left:
            raise left.pop(0)
        return "written"

    return step


def test_it_is_tried_again_while_the_database_is_away():
    assert outages.insist(failing(OperationalError("a"), InterfaceError("b"))) == "written"


def test_the_last_attempt_raises():
    with pytest.raises(OperationalError, match="the third"):
        outages.insist(failing(*(OperationalError(n) for n in ("a", "b", "the third", "d"))))


def test_another_error_is_not_tried_again():
    with pytest.raises(ValueError, match="a bug"):
        outages.insist(failing(ValueError("a bug")))
