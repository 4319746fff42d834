"""One person's part in a scene, put together action by action."""

from __future__ import annotations

import numpy as np

from ruyicam.cloud.family.labels import BEHAVIOURS

from . import actions
from .actions import RATE_HZ
from .body import COLUMN
from .identity import Identity

# Half of the stage's side in metres; people turn round at its edge.
STAGE = 2.6


class Actor:
    """Appends actions until `ticks` are full; what is too long is cut off there."""

    def __init__(self, who: Identity, ticks: int, rng: np.random.Generator, place: np.ndarray, heading: float):
        self.who, self.ticks, self.rng = who, ticks, rng
        self.place, self.heading = np.array(place, float), float(heading)
        self.angles: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        self.headings: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.seats: list[tuple[np.ndarray, float]] = []

    @property
    def now(self) -> int:
        """Ticks acted so far."""
        return sum(len(a) for a in self.angles)

    def _add(self, angles: np.ndarray, places: np.ndarray, headings: np.ndarray, *labels: str) -> None:
        if not len(angles):
            return
        marks = np.zeros((len(angles), len(BEHAVIOURS)), bool)
        for label in labels:
            marks[:, BEHAVIOURS.index(label)] = True
        self.angles.append(angles)
        self.places.append(places)
        self.headings.append(np.broadcast_to(headings, len(angles)))
        self.labels.append(marks)
        self.place, self.heading = places[-1].copy(), float(self.headings[-1][-1])

    def stay(self, action: str, ticks: int, *labels: str, **options) -> Actor:
        """An action on the spot; its label is its own name unless others are given."""
        if ticks > 0:
            if action == "sit":
                self.seats.append((self.place.copy(), self.heading))
            angles = getattr(actions, action)(ticks, self.who, self.rng, **options)
            self._add(angles, np.repeat(self.place[None], ticks, 0), self.heading, *(labels or (action,)))
        return self

    def settle(self, action: str, move: int, ticks: int, **options) -> Actor:
        """Lets oneself down into an action ("sit" or "lie") within `move` ticks, unhurried, and stays `ticks`."""
        if not self.angles or ticks <= 0:
            return self.stay(action, ticks, **options)
        if action == "sit":
            self.seats.append((self.place.copy(), self.heading))
        poses = getattr(actions, action)(move + ticks, self.who, self.rng, **options)
        before, low = self.angles[-1][-1], actions.crouch(1, self.who, self.rng)[0]
        share = np.linspace(0, 1, move + 2)[1:-1, None]
        share = share * share * (3 - 2 * share)
        # Nobody lies down in one piece: first the knees give way.
        way = before + (low - before) * (2 * share).clip(0, 1) if action == "lie" else before
        way = way + (poses[:move] - way) * ((2 * share - 1).clip(0, 1) if action == "lie" else share)
        self._add(way[: move // 2], np.repeat(self.place[None], move // 2, 0), self.heading, "stand")
        rest = np.concatenate([way[move // 2 :], poses[move:]])
        self._add(rest, np.repeat(self.place[None], len(rest), 0), self.heading, action)
        return self

    def walk(self, ticks: int, speed: float | None = None, *labels: str, to: np.ndarray | None = None) -> Actor:
        """Walks, or runs from about 2.2 m/s: straight on with turns at the stage's edge, or up to the place `to`."""
        if ticks <= 0:
            return self
        speed = self.rng.uniform(0.6, 1.5) if speed is None else speed
        places, headings, place, heading = [], [], self.place.copy(), self.heading
        drift = self.rng.normal(0, 0.06)
        for _ in range(ticks):
            if to is not None:
                ahead = to - place
                if np.hypot(*ahead) < speed / RATE_HZ:
                    break
                wanted = np.arctan2(ahead[1], ahead[0])
            else:
                wanted = heading + drift
                if np.abs(place).max() > STAGE:
                    wanted = np.arctan2(-place[1], -place[0]) + drift
            heading += np.clip((wanted - heading + np.pi) % (2 * np.pi) - np.pi, -0.5, 0.5)
            place = place + speed / RATE_HZ * np.array([np.cos(heading), np.sin(heading)])
            places.append(place)
            headings.append(heading)
        if places:
            angles = actions.walk(len(places), self.who, self.rng, speed)
            self._add(angles, np.stack(places), np.array(headings), *(labels or ("walk",)))
        return self

    def face(self, place: np.ndarray) -> Actor:
        """Turns to a place."""
        self.heading = float(np.arctan2(place[1] - self.place[1], place[0] - self.place[0]))
        return self

    def jostle(self, ticks: int, amount: float, action: str, *labels: str, **options) -> Actor:
        """An action while being shoved to and fro by about `amount` metres."""
        if ticks <= 0:
            return self
        angles = getattr(actions, action)(ticks, self.who, self.rng, **options)
        wander = np.cumsum(self.rng.normal(0, amount * 0.35, (ticks, 2)), 0)
        wander -= np.linspace(0, 1, ticks)[:, None] * wander[-1] * 0.8
        turn = self.heading + np.cumsum(self.rng.normal(0, 0.12, ticks))
        self._add(angles, self.place + wander, turn, *(labels or (action,)))
        return self

    def thrown(self, ticks: int, direction: float, metres: float, action: str, *labels: str, **options) -> Actor:
        """Carried backwards over the stretch: heading against `direction`, most of the way at its beginning."""
        if ticks <= 0:
            return self
        self.heading = direction + np.pi
        angles = getattr(actions, action)(ticks, self.who, self.rng, **options)
        way = 1 - (1 - np.linspace(0, 1, ticks)) ** 2
        way = metres * way[:, None] * np.array([np.cos(direction), np.sin(direction)])
        self._add(angles, self.place + way, self.heading, *(labels or (action,)))
        return self

    def drop(self, rest: int, **options) -> Actor:
        """Falls, and lies `rest` ticks as it came down."""
        falling = int(self.rng.integers(8, 13))
        angles = actions.fall(falling + rest, self.who, self.rng, **options)
        places = np.repeat(self.place[None], len(angles), 0)
        self._add(angles[:falling], places[:falling], self.heading, "fall")
        self._add(angles[falling:], places[falling:], self.heading, "lie")
        return self

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(angles [T, 15], places [T, 2], headings [T], labels bool [T, B]) of exactly `ticks` ticks."""
        if self.now < self.ticks:
            raise ValueError(f"the part has {self.now} of {self.ticks} ticks")
        angles, places, headings, labels = (
            np.concatenate(x)[: self.ticks] for x in (self.angles, self.places, self.headings, self.labels)
        )
        # Someone lying does not slide into place: only what turns and steps is smoothed.
        headings = np.unwrap(headings)
        out = actions.smooth(angles), actions.smooth(places), actions.smooth(headings), labels
        if not np.isfinite(out[0]).all():
            raise AssertionError("a pose is not finite")
        out[0][:, COLUMN["pitch"]] = out[0][:, COLUMN["pitch"]].clip(-1.7, 1.7)
        return out
