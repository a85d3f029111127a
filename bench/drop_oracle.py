"""What polls mean, slowly and obviously: the state machine of docs/discovery.md in plain Python.

Nothing here is shared with the project: sets and dictionaries, one poll after the other.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo


@dataclass
class Rules:
    """As the settings have them. `window_days` 0: one standing bucket."""

    misses_to_close: int = 1
    cooldown: timedelta = timedelta(0)
    confirmations: int = 0
    window_days: int = 14
    parts: tuple[str, ...] = ("00:00", "15:00")
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))


@dataclass
class _Calendar:
    """What is known of one venue's calendar in one part of one day."""

    polled_at: datetime
    open: dict[str, dict] = field(default_factory=dict)
    closed_at: dict[str, datetime] = field(default_factory=dict)
    empty_polls: int = 0


class Oracle:
    """Takes polls in any order; says what each opened and closed."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.calendars: dict[tuple, _Calendar] = {}
        self.spared = 0

    def poll(
        self, polled_at: datetime, answered: dict[str, dict[str, datetime | None]]
    ) -> tuple[set[str], set[str]]:
        """`answered`: for each calendar its slots, with the moment at which each begins."""
        opened: set[str] = set()
        closed: set[str] = set()
        today = polled_at.astimezone(self.rules.zone).date()
        for bucket in self._window(today):
            for name, slots in answered.items():
                here = {slot for slot, start in slots.items() if self._bucket(start) == bucket}
                self._poll_calendar((bucket, name), polled_at, here, opened, closed)
        return opened, closed

    def open_slots(self, today: date) -> set[str]:
        """What is open in the window of a day."""
        window = set(self._window(today))
        return {
            slot
            for (bucket, _), calendar in self.calendars.items()
            if bucket in window
            for slot in calendar.open
        }

    def _window(self, today: date) -> list[tuple]:
        if not self.rules.window_days:
            return [("standing", "")]
        days = [today + timedelta(days=number) for number in range(self.rules.window_days)]
        return [(day, part) for day in days for part in self.rules.parts]

    def _bucket(self, start: datetime | None) -> tuple:
        if not self.rules.window_days:
            return ("standing", "")
        local = start.astimezone(self.rules.zone)
        text = local.strftime("%H:%M")
        earlier = [part for part in self.rules.parts if part <= text]
        return (local.date(), max(earlier) if earlier else self.rules.parts[0])

    def _poll_calendar(self, key, polled_at, here, opened, closed) -> None:
        known = self.calendars.get(key)
        if known is None:  # the baseline
            known = self.calendars[key] = _Calendar(polled_at)
            known.open = {slot: {"misses": 0, "missing_since": None} for slot in here}
            known.empty_polls = 0 if here else 1
            return
        if polled_at <= known.polled_at:  # a replay, or late
            return
        known.polled_at = polled_at
        doubted = not here and known.open and known.empty_polls < self.rules.confirmations
        known.empty_polls = 0 if here else known.empty_polls + 1
        if doubted:
            return
        for slot, state in list(known.open.items()):
            if slot in here:
                self.spared += state["misses"] > 0
                state["misses"], state["missing_since"] = 0, None
                continue
            state["misses"] += 1
            state["missing_since"] = state["missing_since"] or polled_at
            if state["misses"] >= self.rules.misses_to_close:
                del known.open[slot]
                known.closed_at[slot] = state["missing_since"]
                closed.add(slot)
        for slot in here - known.open.keys():
            before = known.closed_at.get(slot)
            if before is not None and polled_at - before < self.rules.cooldown:
                self.spared += 1
            else:
                opened.add(slot)
            known.open[slot] = {"misses": 0, "missing_since": None}
