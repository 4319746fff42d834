"""Questions about a scene and their exact answers, from its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ruyicam.cloud.family.config import InputConfig
from ruyicam.cloud.family.labels import BEHAVIOURS
from ruyicam.cloud.family.vocabulary import CALM, EVENTS, REPORT

from .scenes.scene import HIDDEN_BELOW

GROUPS = {"multi_person": ("count", "how_many", "who", "person"), "occlusion": ("hidden",), "order": ("order", "first")}
# In sight: so much of a figure. Plain: for so many ticks. Beside each other: so much of the picture's width apart.
_CLEAR, _FEW, _APART = 0.6, 5, 0.05


@dataclass(frozen=True)
class Question:
    """`kind` is one of those in GROUPS, or "report"."""

    kind: str
    text: str
    answer: str


def _third(verb: str) -> str:
    return verb + ("es" if verb in ("push",) else "s")


def _crowd(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _persons(slots: list[int]) -> str:
    names = [str(s + 1) for s in slots]
    if not names:
        return "no one"
    return f"person {names[0]}" if len(names) == 1 else f"persons {', '.join(names[:-1])} and {names[-1]}"


class Labels:
    """What the questions are drawn from: one window of a scene (see `ruyicam.cloud.data.store`)."""

    def __init__(self, doing: np.ndarray, inside: np.ndarray, visible: np.ndarray, contour: np.ndarray):
        """doing [W, SLOTS, B], inside and visible [W, SLOTS], contour [W, SLOTS, 17, 3]."""
        self.doing, self.inside = doing.astype(bool), inside.astype(bool)
        self.visible = visible.astype(np.float32)
        self.people = [s for s in range(doing.shape[1]) if self.inside[:, s].any()]
        places = contour[..., 0][:, self.people].astype(np.float32).mean((0, 2))
        # Who is the second from the left is a matter of taste where two stand at the same place.
        self.in_order = bool((np.diff(places) >= _APART).all())

    def who(self, behaviour: str) -> list[int]:
        """Slots of those who do it at any tick."""
        return np.flatnonzero(self.doing[:, :, BEHAVIOURS.index(behaviour)].any(0)).tolist()

    def clear(self, behaviour: str, slot: int) -> bool:
        """Whether someone plainly does it, for some ticks in sight, or not at all."""
        ticks = self.doing[:, slot, BEHAVIOURS.index(behaviour)]
        return not ticks.any() or (ticks & (self.visible[:, slot] > _CLEAR)).sum() >= _FEW

    def span(self, behaviour: str) -> tuple[int, int] | None:
        """First and last tick of a behaviour, whoever does it."""
        ticks = np.flatnonzero(self.doing[:, :, BEHAVIOURS.index(behaviour)].any(1))
        return (int(ticks[0]), int(ticks[-1])) if len(ticks) else None

    def hidden(self) -> bool | None:
        """Whether someone who was seen clearly goes out of sight behind something; None where it is a matter of taste."""
        seen = [self.visible[self.inside[:, s], s] for s in self.people]
        if any((v < HIDDEN_BELOW).sum() >= _FEW and (v > _CLEAR).sum() >= _FEW for v in seen):
            return True
        return False if all((v > _CLEAR).all() for v in seen) else None


def report(labels: Labels) -> Question:
    """The report that the labels call for."""
    spans = sorted((labels.span(e)[0], e) for e in EVENTS if labels.span(e))
    if spans:
        what = [e for _, e in spans]
        who = sorted({s for e in what for s in labels.who(e)})
        when = (spans[0][0], max(labels.span(e)[1] for e in what))
        parts = [f"{_persons(w)} {e if len(w) > 1 else _third(e)}" for e in what if (w := labels.who(e))]
        why = ", then ".join(parts)
    else:
        what, who, when = [CALM], [], (0, len(labels.doing) - 1)
        done = [b for b in BEHAVIOURS if labels.who(b)]
        why = f"{_crowd(len(labels.people))} {' and '.join(done)}" if done else "no one is there"
    seconds = ",".join(f"{t / InputConfig().rate_hz:.1f}" for t in when)
    text = (
        '{"what":[' + ",".join(f'"{e}"' for e in what) + '],"who":[' + ",".join(str(s + 1) for s in who)
        + f'],"when":[{seconds}],"why":"{why}"}}'
    )  # fmt: skip
    return Question("report", REPORT, text)


def ask(labels: Labels, rng: np.random.Generator, kind: str) -> Question | None:
    """A question of that kind; None where the scene gives no clear case of it. Answers are balanced where they can be."""
    if kind == "count":
        clear = all((labels.visible[labels.inside[:, s], s] > _CLEAR).sum() >= _FEW for s in labels.people)
        return Question(kind, "how many people are there?", str(len(labels.people))) if clear else None
    if kind in ("how_many", "who"):
        choices = ["fall", "fight", "push", "chase", "help", "sit", "lie", "walk"]
        # Half of the time about something that happens.
        if rng.random() < 0.5 and (real := [c for c in choices if labels.who(c)]):
            choices = real
        verb = str(rng.choice(choices))
        slots = labels.who(verb)
        if not all(labels.clear(verb, s) for s in labels.people):
            return None
        if kind == "how_many":
            return Question(kind, f"how many people {verb}?", str(len(slots)))
        return Question(kind, f"who {_third(verb)}?", _persons(slots)) if labels.in_order or not slots else None
    if kind == "person":
        wanted = bool(rng.random() < 0.5)
        pairs = [
            (s, b)
            for s in labels.people
            for b in ("fall", "fight", "push", "chase", "sit", "lie", "walk")
            if (s in labels.who(b)) == wanted and (wanted or labels.who(b)) and labels.clear(b, s)
        ]
        if not pairs or not labels.in_order:
            return None
        slot, verb = pairs[int(rng.integers(len(pairs)))]
        return Question(kind, f"does person {slot + 1} {verb}?", "yes" if wanted else "no")
    if kind == "hidden":
        answer = labels.hidden()
        return None if answer is None else Question(kind, "is someone hidden?", "yes" if answer else "no")
    starts = [(labels.span(e)[0], e) for e in EVENTS if labels.span(e)]
    pairs = [(a, b) for t, a in starts for u, b in starts if u - t >= _FEW]
    if not pairs:
        return None
    first, second = pairs[int(rng.integers(len(pairs)))]
    turned = bool(rng.random() < 0.5)
    a, b = (first, second) if turned else (second, first)
    if kind == "order":
        return Question(kind, f"did the {a} follow the {b}?", "no" if turned else "yes")
    return Question(kind, f"what came first, the {a} or the {b}?", first)
