"""The counts on a person's badges: cached per user, forgotten when something of theirs changes.

A count is kept with the user's version as it was before the counting. `forget` gives the user
another version, so that a count which a write overtook is not taken for a new one. Without Valkey
every request counts; a `forget` that Valkey did not hear leaves counts up to BADGES_TTL old.
"""

import uuid

from django.core.cache import cache

from matching import queries

BADGES_TTL = 60  # seconds
_VERSION_TTL = 4 * BADGES_TTL  # outlives every count that was kept under it


def badges(user_id: int) -> tuple[dict[str, int], bool]:
    """The counts of `queries.badges`, and whether they came from the cache."""
    counts, version = f"badges:{user_id}", _version_key(user_id)
    kept = cache.get_many([counts, version])
    current = kept.get(version, "")
    if kept.get(counts) and kept[counts]["version"] == current:
        return kept[counts]["counts"], True
    found = queries.badges(user_id=user_id)
    cache.set(counts, {"version": current, "counts": found}, BADGES_TTL)
    return found, False


def forget(*user_ids: int) -> None:
    """Count anew for these users. Call it after the commit of what changed their counts."""
    cache.set_many({_version_key(user): uuid.uuid4().hex for user in user_ids}, _VERSION_TTL)


def _version_key(user_id: int) -> str:
    return f"badges:{user_id}:version"
