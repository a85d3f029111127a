"""The six sides an item can be on, and which side looks for which."""

from django.db import models


class Kind(models.TextChoices):
    LOST = "lost"
    FOUND = "found"
    WANTED = "wanted"
    OFFERED = "offered"
    RESUME = "resume"
    JOB = "job"


class Pair(models.TextChoices):
    """Two sides that match one another: the seeker's, then the offer's."""

    LOST_FOUND = "lost_found", "lost ↔ found"
    WANTED_OFFERED = "wanted_offered", "wanted ↔ offered"
    RESUME_JOB = "resume_job", "resume ↔ job"


SEEKERS = {Kind.LOST: Kind.FOUND, Kind.WANTED: Kind.OFFERED, Kind.RESUME: Kind.JOB}
COUNTERPARTS = SEEKERS | {offer: seeker for seeker, offer in SEEKERS.items()}


def is_seeker(kind: str) -> bool:
    """Whether items of this kind stand on the seeker's side of a pair."""
    return kind in SEEKERS


def pair_of(kind: str) -> Pair:
    """The pair in which items of `kind` are matched."""
    seeker = kind if kind in SEEKERS else COUNTERPARTS[kind]
    return Pair(f"{seeker}_{SEEKERS[seeker]}")
