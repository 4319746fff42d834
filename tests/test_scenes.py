"""Generated scenes, their labels and the questions about them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from ruyicam.cloud.data.questions import Labels, ask, report
from ruyicam.cloud.data.scenes import BEHAVIOURS, SLOTS, make_scene
from ruyicam.cloud.data.scenes.scene import verdict
from ruyicam.cloud.errors import Exit
from ruyicam.cloud.family.text import _report_index
from ruyicam.cloud.family.vocabulary import Report, tokenizer
from ruyicam.kernels import Preprocessor


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed, 40, (96, 72)) for seed in range(40)]


def labels_of(scene) -> Labels:
    people = len(scene.identities)
    doing, inside = np.zeros((40, SLOTS, len(BEHAVIOURS))), np.zeros((40, SLOTS))
    visible, contour = np.zeros((40, SLOTS)), np.zeros((40, SLOTS, 17, 3))
    doing[:, :people], inside[:, :people] = scene.behaviours, scene.inside
    visible[:, :people], contour[:, :people] = scene.visible, scene.keypoints
    return Labels(doing, inside, visible, contour)


def test_a_seed_gives_the_same_scene_and_another_seed_another(scenes):
    again = make_scene(3, 40, (96, 72))
    assert (again.frames == scenes[3].frames).all() and (again.keypoints == scenes[3].keypoints).all()
    assert (again.frames != scenes[4].frames).any()


def test_labels_fit_each_other(scenes):
    for s in scenes:
        people = len(s.identities)
        assert 1 <= people <= SLOTS and len(set(s.identities)) == people
        assert s.frames.shape == (40, 72, 96) and s.frames.dtype == np.uint8
        assert s.behaviours.shape == (40, people, len(BEHAVIOURS))
        assert (s.count <= people).all()
        # Joints that can be seen are in the picture; whoever is wholly hidden shows none.
        points = s.keypoints
        seen = points[..., 2] > 0
        assert ((points[..., :2] >= -0.02) & (points[..., :2] <= 1.02)).all(-1)[seen].all()
        assert not seen[s.visible == 0].any()


def test_every_behaviour_occurs_and_stories_show_what_they_are_called():
    done, seen = Counter(), Counter()
    for seed in range(120):
        s = make_scene(seed, 40, (48, 36))
        done.update(BEHAVIOURS[b] for b in np.flatnonzero(s.behaviours.any((0, 1))))
        seen[s.story] += 1
        if s.story in ("fall", "knock_down"):
            assert s.behaviours[:, :, BEHAVIOURS.index("fall")].any(), seed
        if s.story == "calm":
            assert verdict(s.behaviours)[0] == 1
    assert set(done) == set(BEHAVIOURS)
    assert len(seen) == 8


def test_a_camera_that_knows_the_place_sees_who_stands_still():
    """Static background is left out: to a camera that was just switched on, everyone is part of it."""
    for seed in range(8):
        s = make_scene(seed, 3, (96, 72))
        nobody = np.median(np.abs(s.frames[0].astype(int) - s.empty))
        assert nobody < 8, seed
        cold, settled = Preprocessor(width=48, height=36), Preprocessor(width=48, height=36)
        settled.process(s.empty)
        assert not cold.process(s.frames[0])[0].any()
        seen = settled.process(s.frames[0])[0] != 0
        shown = s.keypoints[0][s.keypoints[0, ..., 2] > 0]
        x, y = (shown[:, :2] * [48, 36]).clip(0, [47, 35]).astype(int).T
        assert len(shown) == 0 or seen[y, x].mean() > 2 * seen.mean() or seen.mean() > 0.5, seed


def test_who_someone_is_does_not_depend_on_what_they_do():
    """Identity is drawn before and apart from the story: the same people act in all kinds of scenes."""
    fights, calm = set(), set()
    for seed in range(120):
        s = make_scene([5, seed], 20, (48, 36), identities=10)
        (fights if s.story == "fight" else calm).update(s.identities.tolist())
    assert fights == calm == set(range(10))


def test_the_command_draws_a_contact_sheet(tmp_path):
    ruyicam = Path(sys.executable).with_name("ruyicam")
    done = subprocess.run([ruyicam, "scenes", "--out", tmp_path / "a.png", "--count", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert picture.shape[0] > 2 * 144 and picture.std() > 20
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [ruyicam, "scenes", "--out", tmp_path / "file" / "a.png", "--count", "1"], capture_output=True, text=True
    )
    assert done.returncode == Exit.STORAGE and done.stderr.count("\n") == 1


def test_questions_and_reports_are_in_the_heads_words_and_form(scenes):
    words, index = tokenizer(), _report_index()
    kinds = Counter()
    for number, scene in enumerate(scenes):
        labels, rng = labels_of(scene), np.random.default_rng(number)
        for kind in ("count", "how_many", "who", "person", "hidden", "order", "first"):
            question = ask(labels, rng, kind)
            if question is None:
                continue
            kinds[kind] += 1
            for text in (question.text, question.answer):
                ids = words(text)["input_ids"]
                assert words.unk_token_id not in ids and words.decode(ids) == text
        text = report(labels).answer
        Report.model_validate_json(text)
        state = index.get_initial_state()
        for token in words(text)["input_ids"]:
            state = index.get_next_state(state, token)
        assert index.is_final_state(state)
    assert len(kinds) == 7


def test_answers_are_right():
    doing, inside, visible = np.zeros((40, SLOTS, len(BEHAVIOURS))), np.zeros((40, SLOTS)), np.ones((40, SLOTS))
    inside[:, :3] = 1
    doing[4:10, 0, BEHAVIOURS.index("push")] = 1
    doing[12:20, 1, BEHAVIOURS.index("fall")] = 1
    doing[:, 2, BEHAVIOURS.index("walk")] = 1
    visible[20:30, 2] = 0.1
    contour = np.zeros((40, SLOTS, 17, 3)) + np.linspace(0.1, 0.9, SLOTS)[:, None, None]

    def answers(labels: Labels) -> dict[str, str]:
        kinds = ("count", "how_many", "who", "person", "hidden", "order", "first")
        asked = (ask(labels, np.random.default_rng(seed), kind) for seed in range(60) for kind in kinds)
        return {q.text: q.answer for q in asked if q}

    labels = Labels(doing, inside, visible, contour)
    said = answers(labels)
    assert said["how many people are there?"] == "3"
    assert said["who pushes?"] == "person 1" and said["who falls?"] == "person 2" and said["who sits?"] == "no one"
    assert said["does person 2 fall?"] == "yes" and said["does person 1 fall?"] == "no"
    assert said["is someone hidden?"] == "yes"
    assert said["did the fall follow the push?"] == "yes" and said["did the push follow the fall?"] == "no"
    assert said["what came first, the fall or the push?"] == "push"
    assert report(labels).answer == (
        '{"what":["push","fall"],"who":[1,2],"when":[0.4,1.9],"why":"person 1 pushes, then person 2 falls"}'
    )
    # Where two stand at the same place no one is the second from the left, but how many there are is as plain as before.
    together = answers(Labels(doing, inside, visible, contour * 0.1))
    assert "who pushes?" not in together and not any("person 2" in q for q in together)
    assert together["how many people push?"] == "1"
    # A fall behind something is not asked about.
    visible[12:20, 1] = 0.1
    out_of_sight = answers(Labels(doing, inside, visible, contour))
    assert "who falls?" not in out_of_sight and "who pushes?" in out_of_sight
