"""Where polls come from: one provider for each kind of source that is polled from here.

A kind that is not among them (polls that are pushed to the API) is never asked by a poller.
"""

from typing import Any

from discovery.models import Source
from discovery.providers.base import Provider
from discovery.providers.demo import Demo
from discovery.providers.gbfs import Gbfs
from discovery.providers.mapped import Mapped

PROVIDERS: dict[str, type[Provider]] = {
    Source.Provider.GBFS: Gbfs,
    Source.Provider.JSON: Mapped,
    Source.Provider.DEMO: Demo,
}


def check(*, provider: str, config: Any, window_days: int | None) -> dict[str, str]:
    """What is wrong with how a source is set up: {key of the config, or window_days: reason}.

    Empty where nothing is, and for kinds that are not polled. It may look hosts up.
    """
    if provider not in PROVIDERS:
        return {}
    if not isinstance(config, dict):
        return {"config": "Must be an object."}
    asked = PROVIDERS[provider]()
    errors = asked.check(config)
    if not errors and asked.is_standing(config) and window_days != 0:
        errors["window_days"] = "Must be 0: its slots name no day, they are free now."
    return errors
