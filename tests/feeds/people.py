"""People with profiles."""

from django.contrib.auth import get_user_model

from feeds import actions
from feeds.models import Profile


def profile(name: str) -> Profile:
    """The profile of a user of that name, made where there is none."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    return actions.ensure_profile(user)
