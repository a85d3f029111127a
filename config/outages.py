"""PostgreSQL away for a moment: what counts as that, and who tries again."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from config.logs import first_line

logger = logging.getLogger("spyglass.outages")
T = TypeVar("T")

AWAY = (OperationalError, InterfaceError)  # the database was, or refused for a moment
PAUSES = (0.5, 2, 5)  # seconds between attempts


def insist(step: Callable[[], T]) -> T:
    """What `step` returns, although the database is away for some seconds: it is tried four times.

    For the end of work that cannot be done again at no cost. Raises what the last attempt raised.
    """
    for pause in (*PAUSES, None):
        try:
            return step()
        except AWAY as error:
            # The work may have left a dead connection behind, or the server is restarting.
            logger.warning("cannot use the database: %s", first_line(error))
            connection.close()
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")
