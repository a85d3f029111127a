"""The admin's first page: what needs somebody, then the four questions with all their numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from config import vitals
from config.admin.base import number, span
from config.vitals import Question, Trend, Vital

HEADINGS = {
    Question.STUCK: ("What is stuck?", "Nothing is stuck."),
    Question.STALE: ("What is stale?", "Nothing is stale."),
    Question.DRIFTS: ("What drifts?", "Nothing drifts."),
    Question.GROWS: ("What grows?", ""),
}
TROUBLES = ("bad", "warn")
TROUBLES_SHOWN = 6  # at the top; all of them stand below
LEVEL_WORDS = {"bad": "broken", "warn": "wants a look", "ok": "fine", "info": "", "quiet": ""}
SPARK_WIDTH, SPARK_HEIGHT = 96, 20


@dataclass(frozen=True)
class Row:
    """A vital sign as the page shows it. `spark`: points of an SVG polyline, "" without samples."""

    vital: Vital
    word: str
    hour: str
    day: str
    spark: str


@dataclass(frozen=True)
class Section:
    """A question's rows: those that trouble are open, the others folded away."""

    question: Question
    heading: str
    calm: str
    troubles: list[Row]
    fine: list[Row]


def callback(request: HttpRequest, context: dict) -> dict:
    """Unfold's DASHBOARD_CALLBACK."""
    found, failed = vitals.read()
    seen = [one for one in found if not one.permission or request.user.has_perm(one.permission)]
    trends = vitals.trends()
    rows = [_row(one, trends.get(one.key, Trend())) for one in seen]
    troubles = [row for level in TROUBLES for row in rows if row.vital.level == level]
    context["troubles"] = troubles[:TROUBLES_SHOWN]
    context["more"] = max(0, len(troubles) - TROUBLES_SHOWN)
    context["verdict"] = _verdict(troubles, failed, bool(seen))
    context["level"] = "bad" if failed else troubles[0].vital.level if troubles else "ok"
    context["sections"] = list(_sections(rows))
    return context


def _sections(rows: list[Row]) -> Iterable[Section]:
    """The questions to which there is an answer."""
    for question, (heading, calm) in HEADINGS.items():
        own = [row for row in rows if row.vital.question == question]
        troubles = [row for row in own if row.vital.level in TROUBLES]
        fine = [row for row in own if row.vital.level not in TROUBLES]
        if own:
            yield Section(question, heading, calm, troubles, fine)


def _verdict(troubles: list[Row], failed: list[str], sees_any: bool) -> str:
    """The page in a sentence."""
    if failed:
        return f"Not all can be read: {', '.join(sorted(set(failed)))}."
    if not sees_any:
        return "You may see none of the numbers of this page."
    bad = sum(row.vital.level == "bad" for row in troubles)
    looks = len(troubles) - bad
    parts = []
    if bad:
        parts.append(f"{bad} {'thing needs' if bad == 1 else 'things need'} you now")
    if looks:
        parts.append(f"{looks} {'wants' if looks == 1 else 'want'} a look")
    return ", ".join(parts) + "." if parts else "All is well."


def _row(vital: Vital, trend: Trend) -> Row:
    return Row(
        vital=vital,
        word=LEVEL_WORDS[vital.level],
        hour=_change(vital, trend.hour_ago),
        day=_change(vital, trend.day_ago),
        spark=_spark(trend.slots, vital.number),
    )


def _change(vital: Vital, before: float | None) -> str:
    """By how much the number has changed since `before`, for people; "–" where nobody knows."""
    if before is None or vital.number is None:
        return "–"
    change = vital.number - before
    if not change:
        return "±0"
    sign = "+" if change > 0 else "−"
    size = abs(change)
    if vital.unit == "s":
        return sign + span(size)
    if vital.unit == "bytes":
        return sign + filesizeformat(size)
    return sign + number(size)


def _spark(slots: list[float | None], now: float | None) -> str:
    values = [*slots[:-1], now] if slots and now is not None else slots
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    reach = (high - low) or 1
    step = SPARK_WIDTH / (len(values) - 1)
    return " ".join(
        f"{place * step:.1f},{SPARK_HEIGHT - 2 - (value - low) / reach * (SPARK_HEIGHT - 4):.1f}"
        for place, value in enumerate(values)
        if value is not None
    )
