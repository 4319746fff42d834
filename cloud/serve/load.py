"""What the service does when more comes than it can read: it reads less thoroughly, in wider steps, and lets devices wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Effort(StrEnum):
    """How thoroughly windows are read."""

    ALL = "all"  # every window by the deepest tier, all exits
    WHERE_IT_MATTERS = "where_it_matters"  # by the smallest cloud tier; what is not clearly quiet by the deepest, too
    SMALL = "small"  # by the smallest cloud tier


@dataclass(frozen=True)
class Plan:
    """How the next windows are read: with that effort, and so many ticks from each to the next of its camera."""

    effort: Effort
    stride: int


class LoadPolicy:
    """Goes by how long the windows of a pass will have waited since their last packets came when it is read: by the median, so
    that a camera that sends what it kept during an outage changes nothing for the others.

    Below 0.15 of the bound everything is read by the deepest tier, with reports. From there on the deepest is kept for where it
    matters; beyond 0.3 the smallest reads alone; beyond 0.45 windows no longer overlap, as the slowest hundredth waits about
    twice as long as the median and is to stay within the bound, too; beyond `hold_s` packets are taken no more, so that devices
    keep them in their spools, until the lag is below half of that. No tick is left unread.
    """

    def __init__(self, bound_s: float, hold_s: float, window: int, stride: int):
        self.bound_s, self.hold_s, self.window, self.stride = bound_s, hold_s, window, stride
        self.lag_s = self._reading_s = 0.0
        self._open = asyncio.Event()
        self._open.set()

    def plan(self, lags_s: Sequence[float]) -> Plan:
        """For windows with those lags. To be followed by settle()."""
        self.lag_s = lag_s = median(lags_s) + self._reading_s if lags_s else 0.0
        if lag_s < 0.15 * self.bound_s:
            return Plan(Effort.ALL, self.stride)
        if lag_s < 0.3 * self.bound_s:
            return Plan(Effort.WHERE_IT_MATTERS, self.stride)
        return Plan(Effort.SMALL, self.stride if lag_s < 0.45 * self.bound_s else self.window)

    def took(self, seconds: float) -> None:
        """How long the last pass was read; the next one is expected to take as long."""
        self._reading_s = (self._reading_s + seconds) / 2

    def settle(self) -> None:
        """Takes packets, or does not, from here on. To be called on the event loop."""
        if self.lag_s > self.hold_s:
            self._open.clear()
        elif self.lag_s < self.hold_s / 2:
            self._open.set()

    @property
    def holding(self) -> bool:
        """Packets are not taken at the moment."""
        return not self._open.is_set()

    async def admit(self) -> None:
        """Returns when packets are taken."""
        await self._open.wait()
