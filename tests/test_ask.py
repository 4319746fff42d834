"""What is made of a family's answers: exact match, where it may lie, and whether one model is better than another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made import SMALL

from ruyicam.cloud.data.questions import Question
from ruyicam.cloud.family import Family
from ruyicam.cloud.family.labels import BEHAVIOURS, SLOTS
from ruyicam.cloud.training.ask import Outcome, difference, one_of_two, summary

PARTS = ("what", "who", "order", "when", "reward")


def outcome(right: np.ndarray, reward: np.ndarray) -> Outcome:
    """right bool [scenes, 2]: a question about two people and one about order in each scene; reward [scenes] of reports."""
    asked = [
        (scene, Question(kind, f"{kind}?", "yes" if scene % 3 else "no"))
        for scene in range(len(right))
        for kind in ("person", "order")
    ]
    said = {"edge": np.zeros(right.size, bool), "cloud-l": right.flatten()}
    chosen = {tier: np.array([[3.0], [4.0]]) * (np.arange(len(BEHAVIOURS)) == 1) for tier in said}
    return Outcome(len(right), asked, said, {tier: dict.fromkeys(PARTS, reward) for tier in said}, chosen)


def test_summary_is_of_groups_and_knows_how_sure_it_is():
    rng = np.random.default_rng(1)
    right = rng.random((400, 2)) < (0.6, 0.9)
    text = summary(outcome(right, np.linspace(0, 1, 400)))
    assert (text["scenes"], text["questions"]) == (400, 800)
    own = text["tiers"]["cloud-l"]
    assert own["groups"] == {"multi_person": right[:, 0].mean(), "order": right[:, 1].mean()}
    assert text["exact_match"] == own["exact_match"] == pytest.approx(right.mean())
    assert own["kinds"]["person"] == right[:, 0].mean() and own["report"]["reward"] == pytest.approx(0.5)
    # Two answers in three are "yes".
    assert text["most_frequent_answer"]["order"] == pytest.approx(2 / 3, abs=0.01)
    # 1.96 deviations of the mean of two means.
    wide = 1.96 * np.sqrt((right.var(0) / 400).sum()) / 2
    assert own["interval"] == pytest.approx([right.mean() - wide, right.mean() + wide], abs=0.15 * wide)
    assert text["tiers"]["edge"]["interval"] == [0, 0]
    # Of what no two people did nothing is said.
    assert own["one_of_two"] == {BEHAVIOURS[1]: 0.75}


def test_a_difference_is_of_the_same_scenes():
    rng = np.random.default_rng(2)
    right, reward = rng.random((300, 2)) < 0.7, rng.random(300)
    mended = right.copy()
    mended[::20] = True
    before = outcome(right, reward)
    after = [outcome(mended, reward + 0.02), outcome(right, reward + 0.04)]
    said = difference(after, before)
    gain = (mended.mean() - right.mean()) / 2
    assert said["exact_match"]["mean"] == pytest.approx(gain) and said["report"]["mean"] == pytest.approx(0.03)
    # All reports gained alike, so that it does not matter which scenes are drawn.
    assert said["report"]["interval"] == pytest.approx([0.03, 0.03])
    low, high = said["exact_match"]["interval"]
    own = summary(before)["tiers"]["cloud-l"]["interval"]
    assert 0 < low < gain < high and high - low < (own[1] - own[0]) / 3
    unlike = difference([outcome(~right, reward)], outcome(right, reward))["exact_match"]
    assert unlike["interval"][1] < 0
    with pytest.raises(ValueError, match="of other scenes"):
        difference([outcome(right[:10], reward[:10])], before)


def test_few_questions_give_no_false_figures():
    one = Outcome(
        3,
        [(0, Question("hidden", "is someone hidden?", "no"))],
        {"edge": np.array([True])},
        {"edge": dict.fromkeys(PARTS, np.ones(3))},
        {"edge": np.zeros((2, len(BEHAVIOURS)))},
    )
    text = summary(one)
    assert text["tiers"]["edge"]["groups"] == {"occlusion": 1.0} and text["tiers"]["edge"]["interval"] == [1, 1]


def test_one_of_two_asks_where_there_is_a_choice():
    doing, inside = torch.zeros(1, 4, SLOTS, len(BEHAVIOURS)), torch.zeros(1, 4, SLOTS)
    inside[:, :, :2] = 1
    inside[0, 3, 2] = 1  # three people
    fall, walk = BEHAVIOURS.index("fall"), BEHAVIOURS.index("walk")
    doing[0, :3, 1, fall] = 1
    doing[0, 2, 0, fall] = 1  # both: no choice
    doing[0, :, 0, walk] = 1
    answer = Family(SMALL).eval().reasoner(torch.zeros(1, 4, SMALL.features), torch.ones(1, 4, dtype=torch.bool))["edge"]
    slots = torch.zeros_like(answer.slots)
    slots[0, 0, 1, fall], slots[0, 1, 0, fall], slots[0, :, 3] = 1, 1, 9  # right, wrong, and of whom nobody asks
    slots[0, :2, 0, walk], slots[0, 2, 1, walk] = 1, 1
    right, asked = one_of_two(answer._replace(slots=slots), doing, inside)
    assert (right[fall], asked[fall]) == (1, 2) and (right[walk], asked[walk]) == (2, 3)
    assert asked.sum() == 5
