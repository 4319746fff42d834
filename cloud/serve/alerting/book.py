"""What the database knows of alerts: rules, channels, which rule fired for which event, and what became of every message."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ruyicam.cloud.errors import Exit, RuyicamError

from ..forms import CareOut, EventOut, iso
from ..store import Store
from ..tables import Care, ChannelRow, Cursor, Delivery, Event, Firing, RuleRow
from .channels import Channel, channel_of
from .rules import Rule

_CURSOR = "alerts"


@dataclass(frozen=True)
class Fired:
    """A rule that fires for an event (columns of `events`); quiet: it would have, but for its cooldown."""

    rule: Rule
    event: dict[str, Any]
    quiet: bool = False


def cloud_event(rule: str, event: dict[str, Any], kind: str) -> dict[str, Any]:
    """The CloudEvent of an alert: kind is begin, end, escalation or test; the attribute `rule` is an extension."""
    return {
        "specversion": "1.0",
        "id": f"{event['id']}-{rule}-{kind}",
        "source": f"/ruyicam/cameras/{event['camera_id']}",
        "type": f"ruyicam.alert.{kind}",
        "subject": f"events/{event['id']}",
        "time": iso(event["end_us"] / 1e6 if kind == "end" else event["begin_us"] / 1e6),
        "datacontenttype": "application/json",
        "rule": rule,
        "data": EventOut.of_values(event, CareOut()).model_dump(mode="json"),
    }


class AlertBook:
    """Thread-safe."""

    def __init__(self, store: Store):
        self._store = store

    def rules(self) -> list[Rule]:
        """All of them, by name."""
        return [Rule.model_validate(r.spec) for r in self._store.rows(select(RuleRow).order_by(RuleRow.name))]

    def put_rule(self, rule: Rule, by: str) -> None:
        """A new one, or another form of it. Raises RuyicamError(USAGE) if a channel does not exist."""
        known = {c.name for c in self.channels()}
        for name in (*rule.to, *rule.escalate_to):
            if name not in known:
                raise RuyicamError(Exit.USAGE, f"channel '{name}' does not exist")
        self._put(RuleRow, rule.name, {"spec": rule.model_dump(mode="json"), "changed_at": time.time(), "changed_by": by})

    def remove_rule(self, name: str) -> None:
        """It fires no more. Raises RuyicamError(USAGE) if there is none."""
        self._remove(RuleRow, name, "rule")

    def channels(self) -> list[Channel]:
        """All of them, by name."""
        return [channel_of(c.spec) for c in self._store.rows(select(ChannelRow).order_by(ChannelRow.name))]

    def put_channel(self, channel: Channel, by: str) -> None:
        """A new one, or another form of it."""
        self._put(
            ChannelRow, channel.name, {"spec": channel.model_dump(mode="json"), "changed_at": time.time(), "changed_by": by}
        )

    def remove_channel(self, name: str) -> None:
        """Raises RuyicamError(USAGE) if there is none, or a rule tells it."""
        for rule in self.rules():
            if name in (*rule.to, *rule.escalate_to):
                raise RuyicamError(Exit.USAGE, f"rule '{rule.name}' tells channel '{name}'")
        self._remove(ChannelRow, name, "channel")

    def _put(self, table, name: str, values: dict[str, Any]) -> None:
        with self._store.write() as connection:
            if not connection.execute(update(table).where(table.name == name).values(values)).rowcount:
                connection.execute(insert(table), values | {"name": name})

    def _remove(self, table, name: str, what: str) -> None:
        with self._store.write() as connection:
            if not connection.execute(delete(table).where(table.name == name)).rowcount:
                raise RuyicamError(Exit.USAGE, f"{what} '{name}' does not exist")

    def position(self) -> int:
        """The number of the last change that rules have looked at; those of the time before the first look do not count."""
        found = self._store.rows(select(Cursor.position).where(Cursor.name == _CURSOR))
        if found:
            return found[0]
        newest = self._store.newest_change()
        with self._store.write() as connection:
            connection.execute(self._store.insert_new(Cursor), {"name": _CURSOR, "position": newest})
        return newest

    def fired(self, event_ids: Iterable[int]) -> set[tuple[int, str]]:
        """(event, rule) of those that have fired for these events."""
        with self._store.engine.connect() as connection:
            query = select(Firing.event_id, Firing.rule).where(Firing.event_id.in_(set(event_ids)))
            return {(row.event_id, row.rule) for row in connection.execute(query)}

    def last_fired(self, rule: str, camera_id: str) -> float:
        """Unix time at which it last fired for that camera; 0: never."""
        query = select(Firing.at).where(Firing.rule == rule, Firing.camera_id == camera_id, Firing.quiet.is_(False))
        return next(iter(self._store.rows(query.order_by(Firing.at.desc()).limit(1))), 0.0)

    def conclude(self, position: int, happened: Sequence[Fired | dict[str, Any]]) -> None:
        """Rules that fire, and events (columns) that end, in order: firings, messages and the position, in one transaction."""
        now = time.time()
        with self._store.write() as connection:
            for f in happened:
                if not isinstance(f, Fired):
                    self._tell_end(connection, f, now)
                    continue
                row = {
                    "event_id": f.event["id"], "rule": f.rule.name, "camera_id": f.event["camera_id"], "at": now,
                    "quiet": f.quiet, "escalate_at": None,
                }  # fmt: skip
                if f.rule.escalate_after_s is not None and not f.quiet:
                    row["escalate_at"] = now + f.rule.escalate_after_s
                connection.execute(self._store.insert_new(Firing), row)
                if not f.quiet:
                    self._tell(connection, f.rule.to, f.rule.name, f.event, "begin", now)
            connection.execute(update(Cursor).where(Cursor.name == _CURSOR).values(position=position))

    def _tell_end(self, connection: Connection, event: dict[str, Any], now: float) -> None:
        told = select(Delivery.channel, Delivery.rule).where(Delivery.event_id == event["id"], Delivery.kind == "begin")
        for channel, rule in connection.execute(told).all():
            self._tell(connection, [channel], rule, event, "end", now)

    def _tell(
        self, connection: Connection, channels: Iterable[str], rule: str, event: dict[str, Any], kind: str, now: float
    ) -> None:
        rows = [
            {
                "channel": channel, "event_id": event["id"], "rule": rule, "kind": kind, "made_at": now, "due_at": now,
                "message": cloud_event(rule, event, kind), "tries": 0, "state": "waiting",
            }
            for channel in channels
        ]  # fmt: skip
        connection.execute(self._store.insert_new(Delivery), rows)

    def escalate(self, rules: Iterable[Rule]) -> int:
        """Tells of events that nobody has acknowledged in time; how many."""
        by_name, count, now = {r.name: r for r in rules}, 0, time.time()
        due = select(Firing.id, Firing.rule, Firing.event_id).where(Firing.escalate_at <= now)
        with self._store.write() as connection:
            for firing in connection.execute(due).all():
                connection.execute(update(Firing).where(Firing.id == firing.id).values(escalate_at=None))
                care = connection.execute(
                    select(Care.acknowledged_at, Care.label).where(Care.event_id == firing.event_id)
                ).first()
                seen_to = care is not None and (care.acknowledged_at is not None or care.label is not None)
                event = connection.execute(select(Event.__table__).where(Event.id == firing.event_id)).mappings().first()
                if seen_to or event is None or firing.rule not in by_name:
                    continue
                rule = by_name[firing.rule]
                self._tell(connection, rule.escalate_to, rule.name, dict(event), "escalation", now)
                count += 1
        return count

    def due(self, but: Sequence[str] = (), limit: int = 100) -> list[Delivery]:
        """Messages that are to be sent now, oldest first; but: not over these channels."""
        query = select(Delivery).where(Delivery.state == "waiting", Delivery.due_at <= time.time())
        query = query.where(Delivery.channel.not_in(but))
        return self._store.rows(query.order_by(Delivery.id).limit(limit))

    def deliveries(self, state: str | None, limit: int) -> list[Delivery]:
        """Newest first."""
        query = select(Delivery).order_by(Delivery.id.desc()).limit(limit)
        return self._store.rows(query if state is None else query.where(Delivery.state == state))

    def settle(self, delivery_id: int, **values: Any) -> bool:
        """What became of a message. False: there is no such one."""
        with self._store.write() as connection:
            return bool(connection.execute(update(Delivery).where(Delivery.id == delivery_id).values(values)).rowcount)
