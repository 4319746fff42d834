"""How good a report is, part by part."""

from __future__ import annotations

from pydantic import ValidationError

from ruyicam.cloud.family.vocabulary import Report

# What each part is worth; together 1. A report that cannot be read is worth nothing.
WORTH = {"form": 0.05, "what": 0.4, "who": 0.25, "order": 0.1, "when": 0.2}


def _f1(said: list, wanted: list) -> float:
    if not said and not wanted:
        return 1.0
    return 2 * len(set(said) & set(wanted)) / (len(set(said)) + len(set(wanted)))


def _overlap(said: tuple[float, float], wanted: tuple[float, float]) -> float:
    """Intersection over union of two spans of time, whose ends are ticks and belong to them."""
    tick = 0.1
    (a, b), (c, d) = sorted(said), wanted
    both = max(0.0, min(b, d) - max(a, c) + tick)
    return both / (max(b, d) - min(a, c) + tick)


def parts(said: Report, wanted: Report) -> dict[str, float]:
    """Each part of WORTH, 0 to 1: behaviours and slots by F1, their order by equality, time by intersection over union."""
    return {
        "form": 1.0,
        "what": _f1(said.what, wanted.what),
        "who": _f1(said.who, wanted.who),
        "order": float(said.what == wanted.what),
        "when": _overlap(said.when, wanted.when),
    }


def report_reward(text: str, wanted: Report) -> float:
    """What a report's JSON is worth, 0 to 1; 0 for any other text."""
    try:
        said = Report.model_validate_json(text)
    except ValidationError:
        return 0.0
    if said.sure is not None:
        return 0.0
    return sum(WORTH[name] * value for name, value in parts(said, wanted).items())
