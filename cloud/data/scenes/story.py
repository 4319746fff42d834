"""Who does what, when: each story fills the parts of its main people; bystanders fill up the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ruyicam.cloud.family.labels import SLOTS

from .actor import STAGE, Actor
from .identity import identity


@dataclass(frozen=True)
class Cast:
    """What stories draw from."""

    ticks: int
    rng: np.random.Generator
    people: list[int]

    def actor(self, place: np.ndarray | None = None, heading: float | None = None) -> Actor:
        """The next person of the cast somewhere on the stage."""
        where = self.rng.uniform(-STAGE * 0.8, STAGE * 0.8, 2) if place is None else place
        way = self.rng.uniform(0, 2 * np.pi) if heading is None else heading
        return Actor(identity(self.people.pop()), self.ticks, self.rng, where, way)

    def pair(self, gap: float) -> tuple[Actor, Actor]:
        """Two people facing each other, `gap` metres apart."""
        middle, way = self.rng.uniform(-STAGE * 0.6, STAGE * 0.6, 2), self.rng.uniform(0, 2 * np.pi)
        half = gap / 2 * np.array([np.cos(way), np.sin(way)])
        return self.actor(middle - half, way), self.actor(middle + half, way + np.pi)

    def moment(self, earliest: float, latest: float) -> int:
        """A tick between two shares of the scene."""
        return int(self.rng.integers(int(earliest * self.ticks), max(int(latest * self.ticks), 1) + 1))


# What people do when nothing happens. Much of it goes down without being a fall.
_ORDINARY = {
    "walk": 0.32, "hurry": 0.08, "stand": 0.16, "loiter": 0.1, "smoke": 0.08, "bend": 0.09, "crouch": 0.05, "sit": 0.08,
    "lie": 0.04,
}  # fmt: skip


def _idle(actor: Actor, until: int) -> Actor:
    """Ordinary things up to a tick."""
    rng = actor.rng
    while (left := until - actor.now) > 0:
        span = min(left, int(rng.integers(10, 50)))
        kind = str(rng.choice(list(_ORDINARY), p=list(_ORDINARY.values())))
        if kind in ("walk", "hurry"):
            actor.walk(span, rng.uniform(1.5, 2.4) if kind == "hurry" else None)
        elif kind in ("bend", "crouch"):
            actor.stay(kind, int(rng.integers(10, 25)), "stand")
        elif kind in ("sit", "lie"):
            actor.settle(kind, int(rng.integers(8, 22)), max(span, 15))
        else:
            actor.stay(kind, span)
    return actor


def _bystander(cast: Cast) -> list[Actor]:
    actor, kind = cast.actor(), cast.rng.choice(["idle", "sit", "bed", "rise"], p=[0.72, 0.16, 0.07, 0.05])
    if kind == "sit":
        actor.stay("sit", cast.moment(0.4, 1.0))
    elif kind == "bed":
        actor.stay("lie", cast.ticks)
    elif kind == "rise":
        actor.stay("lie", cast.moment(0.1, 0.5), back=True).stay("rise", int(cast.rng.integers(15, 30)), "stand")
    return [_idle(actor, cast.ticks)]


def _down(actor: Actor, **options) -> Actor:
    """Falls, and mostly stays down."""
    rng = actor.rng
    actor.drop(actor.ticks if rng.random() < 0.7 else int(rng.integers(8, 30)), **options)
    return _idle(actor.stay("rise", int(rng.integers(15, 25)), "stand"), actor.ticks)


def calm(cast: Cast) -> list[Actor]:
    """Nothing that needs anyone; now and then someone sits or lies down, or picks something up."""
    if cast.rng.random() < 0.4:
        return _bystander(cast)
    actor, rng = cast.actor(), cast.rng
    _idle(actor, cast.moment(0.1, 0.6))
    kind = str(rng.choice(["sit", "lie", "bend", "crouch"], p=[0.35, 0.25, 0.25, 0.15]))
    if kind in ("sit", "lie"):
        actor.settle(kind, int(rng.integers(8, 22)), cast.ticks)
    else:
        actor.stay(kind, int(rng.integers(10, 25)), "stand")
    return [_idle(actor, cast.ticks)]


def fall(cast: Cast) -> list[Actor]:
    """Someone falls while walking or standing."""
    return [_down(_idle(cast.actor(), cast.moment(0.15, 0.75)))]


def fight(cast: Cast) -> list[Actor]:
    """Two or three people fight, from the start or after words."""
    rng = cast.rng
    style = int(rng.integers(3))
    a, b = cast.pair(rng.uniform(0.35, 0.6) if style == 2 else rng.uniform(0.55, 0.95))
    people = [a, b]
    if len(cast.people) > 1 and rng.random() < 0.3:
        people.append(cast.actor(a.place + rng.normal(0, 0.6, 2)).face(b.place))
    begin = 0 if rng.random() < 0.5 else cast.moment(0.1, 0.5)
    end = cast.ticks if rng.random() < 0.75 else begin + int(rng.integers(15, 40))
    loser = int(rng.integers(2)) if rng.random() < 0.2 else -1
    for i, actor in enumerate(people):
        actor.stay("stand", begin)
        actor.jostle(min(end, cast.ticks) - begin, rng.uniform(0.1, 0.35), "fight", style=style)
        _down(actor) if i == loser and end < cast.ticks else _idle(actor, cast.ticks)
    return people


def shove(cast: Cast) -> list[Actor]:
    """One pushes another, who keeps the feet."""
    return _shove(cast, falls=False)


def knock_down(cast: Cast) -> list[Actor]:
    """One pushes another, who falls."""
    return _shove(cast, falls=True)


def _shove(cast: Cast, falls: bool, begin: int | None = None) -> list[Actor]:
    rng = cast.rng
    a, b = cast.pair(rng.uniform(0.6, 0.85))
    begin = cast.moment(0.1, 0.6) if begin is None else begin
    way = a.heading
    a.stay("stand", begin).stay("push", 8)
    b.stay("stand", begin + 4)
    if falls:
        b.heading = way + np.pi
        _down(b, backwards=True)
    else:
        b.thrown(int(rng.integers(7, 12)), way, rng.uniform(0.4, 1.0), "stagger", "stand")
        _idle(b, cast.ticks)
    return [_idle(a, cast.ticks), b]


def fall_then_push(cast: Cast) -> list[Actor]:
    """Someone falls alone; later two others push each other, or the other way round."""
    first, second = cast.moment(0.05, 0.3), cast.moment(0.5, 0.7)
    if cast.rng.random() < 0.5:
        first, second = second, first
    return [_down(_idle(cast.actor(), first)), *_shove(cast, falls=False, begin=second)]


def chase(cast: Cast) -> list[Actor]:
    """One runs from another."""
    rng = cast.rng
    begin, way = cast.moment(0.0, 0.4), rng.uniform(0, 2 * np.pi)
    ahead = cast.actor(heading=way)
    behind = cast.actor(ahead.place - rng.uniform(0.8, 1.6) * np.array([np.cos(way), np.sin(way)]), way)
    speed = rng.uniform(2.3, 3.2)
    for actor in (ahead, behind):
        actor.walk(begin, 0.8)
        actor.walk(cast.ticks - actor.now, speed, "chase")
    return [ahead, behind]


def help_up(cast: Cast) -> list[Actor]:
    """Someone lies; another comes, bends down, and both stand."""
    rng = cast.rng
    lying = cast.actor()
    side = rng.uniform(0, 2 * np.pi)
    spot = lying.place + 0.6 * np.array([np.cos(side), np.sin(side)])
    helper = cast.actor(spot + rng.uniform(0.5, 2.0) * np.array([np.cos(side), np.sin(side)]))
    helper.walk(cast.ticks, 1.3, to=spot)
    arrive, bent = helper.now, int(rng.integers(15, 28))
    helper.face(lying.place).stay("assist", bent, "help")
    lying.stay("lie", min(arrive + bent // 3, cast.ticks), back=True).stay("rise", bent - bent // 3, "stand")
    return [_idle(lying, cast.ticks), _idle(helper, cast.ticks)]


# Share of each story and the fewest people that it takes.
STORIES: dict[str, tuple[Callable[[Cast], list[Actor]], float, int]] = {
    "calm": (calm, 0.33, 1),
    "fall": (fall, 0.15, 1),
    "fight": (fight, 0.22, 2),
    "push": (shove, 0.06, 2),
    "knock_down": (knock_down, 0.07, 2),
    "fall_and_push": (fall_then_push, 0.09, 3),
    "chase": (chase, 0.04, 2),
    "help": (help_up, 0.04, 2),
}


def tell(rng: np.random.Generator, ticks: int, identities: int) -> tuple[str, list[Actor]]:
    """A story with one to five people drawn from `identities`; returns its name and the finished parts, shuffled."""
    names = list(STORIES)
    name = str(rng.choice(names, p=[STORIES[n][1] for n in names]))
    story, _, least = STORIES[name]
    count = max(least, int(rng.choice(np.arange(1, SLOTS + 1), p=[0.28, 0.3, 0.2, 0.13, 0.09])))
    cast = Cast(ticks, rng, rng.choice(identities, SLOTS, replace=False).tolist())
    actors = story(cast)
    while len(actors) < count:
        actors += _bystander(cast)
    return name, [actors[i] for i in rng.permutation(len(actors))]


def tell_alone(rng: np.random.Generator, ticks: int, who: int) -> tuple[str, list[Actor]]:
    """A story of the one person of that number: its name and the finished part."""
    name = "fall" if rng.random() < 0.25 else "calm"
    return name, STORIES[name][0](Cast(ticks, rng, [who]))
