"""Looks at every change of an event with every rule, and sends what is to be sent until it has arrived or is given up."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable

from ..metrics import DELIVERIES
from ..replay import Replay
from ..store import Store
from ..subscribers import Subscribers
from ..tables import Change, Delivery
from .book import AlertBook, Fired
from .rules import Rule, inside

log = logging.getLogger("ruyicam.alerts")
# Of COCO's joints.
_HIPS = (11, 12)
# Between two looks while nothing happens: escalations and repeated deliveries have their times.
_LOOK_S = 1.0


class Alerting:
    """One at a time."""

    def __init__(
        self, store: Store, subscribers: Subscribers, replay: Replay, retry_s: float, longest_s: float, give_up_s: float
    ):
        """retry_s: from the first try of a message to the second, doubled for each further one up to longest_s; give_up_s:
        after which it is dead, and someone has to have it tried again."""
        self.book = AlertBook(store)
        self._store, self._subscribers, self._replay = store, subscribers, replay
        self._retry_s, self._longest_s, self._give_up_s = retry_s, longest_s, give_up_s
        # Channels over which something is being sent.
        self._busy: dict[str, asyncio.Task] = {}

    def look(self) -> None:
        """All changes since the last look, and escalations that are due."""
        rules, position, newest = self.book.rules(), self.book.position(), self._store.newest_change()
        # Without rules only the ends of what somebody was told before matter.
        kinds = ("begin", "update", "end") if rules else ("end",)
        while changes := self._store.changes(position, kinds=kinds):
            position = changes[-1].id
            self.book.conclude(position, self._happened(rules, changes))
        if position < newest:
            self.book.conclude(newest, [])
        self.book.escalate(rules)

    def _happened(self, rules: list[Rule], changes: list[Change]) -> list[Fired | dict]:
        """Rules that fire and events that end, in order."""
        known, latest = self.book.fired(c.event_id for c in changes), {}
        found: list[Fired | dict] = []
        for change in changes:
            if change.kind == "end":
                found.append(change.event)
                continue
            for rule in rules:
                if (
                    (change.event_id, rule.name) in known
                    or not rule.fits(change.event)
                    or not self._in_zone(rule, change.event)
                ):
                    continue
                known.add((change.event_id, rule.name))
                place = rule.name, change.event["camera_id"]
                last = latest.get(place) or self.book.last_fired(*place)
                quiet = time.time() - last < rule.cooldown_s
                if not quiet:
                    latest[place] = time.time()
                found.append(Fired(rule, change.event, quiet))
        return found

    def _in_zone(self, rule: Rule, event: dict) -> bool:
        if rule.zone is None:
            return True
        for _, _, figures in self._replay.contour(event["boot_id"], event["first_tick"], event["last_tick"]):
            for joints in figures:
                x, y, _ = joints[list(_HIPS)].mean(0) / 255
                if inside(rule.zone, x, y):
                    return True
        return False

    async def start_deliveries(self) -> list[asyncio.Task]:
        """Begins to send what is due over each channel that is not busy, oldest first; a slow one keeps no other waiting."""
        due = await asyncio.to_thread(self.book.due, list(self._busy))
        channels = {c.name: c for c in await asyncio.to_thread(self.book.channels)} if due else {}
        by_channel: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in due:
            by_channel[delivery.channel].append(delivery)

        async def one_by_one(name: str, some: list[Delivery]) -> None:
            try:
                for delivery in some:
                    await self._send(channels.get(name), delivery)
            finally:
                self._busy.pop(name, None)

        for name, some in by_channel.items():
            self._busy[name] = asyncio.create_task(one_by_one(name, some))
        return [self._busy[name] for name in by_channel]

    async def deliver(self) -> None:
        """Everything that is due."""
        await asyncio.gather(*await self.start_deliveries())

    async def _send(self, channel, delivery: Delivery) -> None:
        try:
            if channel is None:
                raise LookupError(f"channel '{delivery.channel}' does not exist")
            await channel.send(delivery.message)
        except Exception as error:
            # Whatever a library raises: the message is kept, and why is shown.
            why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"[:500]
            wait = min(self._longest_s, self._retry_s * 2 ** min(delivery.tries, 32)) * random.uniform(0.75, 1.25)
            dead = time.time() - delivery.made_at > self._give_up_s
            log.warning("message %d to %s: %s%s", delivery.id, delivery.channel, why, "; given up" if dead else "")
            values = {"state": "dead" if dead else "waiting", "error": why, "due_at": time.time() + wait}
        else:
            values = {"state": "done", "error": None}
        DELIVERIES.labels(delivery.channel, values["state"]).inc()
        await asyncio.to_thread(self.book.settle, delivery.id, tries=delivery.tries + 1, **values)

    async def _each(self, ours: Callable[[], bool], step) -> None:
        while True:
            changed = self._subscribers.next_change()
            try:
                if ours():
                    await step()
            except Exception:
                log.exception("alerts failed; trying again")
            try:
                await asyncio.wait_for(changed.wait(), _LOOK_S)
            except TimeoutError:
                continue

    async def run(self, ours: Callable[[], bool]) -> None:
        """Until it is cancelled, while it is ours to do. A slow target holds up messages, never the rules."""
        await asyncio.gather(self._each(ours, lambda: asyncio.to_thread(self.look)), self._each(ours, self.start_deliveries))
