"""Training: what is stored, resumed, shared between processes, and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made import SMALL, write_clip

from ruyicam.cloud.data.batches import Mixed, collate
from ruyicam.cloud.data.clips import Clip, find_clips
from ruyicam.cloud.data.groups import folds, part_of, scene_of, source_of
from ruyicam.cloud.data.store import Store, Windows
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family
from ruyicam.cloud.toml import load_toml
from ruyicam.cloud.training.config import LossConfig, PhaseConfig, RunConfig, TrainConfig
from ruyicam.cloud.training.crossval import Job, Pooled, as_many_steps, fold_jobs, gate, pool, run_jobs
from ruyicam.cloud.training.losses import LABELS, Trainee
from ruyicam.cloud.training.trainer import steps_of, train
from ruyicam.cloud.training.validate import Said

TRAIN = TrainConfig(scenes=50, views=3, threads=1, warmup_steps=2)
PHASES = (
    PhaseConfig(name="scenes", epochs=1, scenes=25),
    PhaseConfig(name="clips", epochs=2, clips=4, scenes=2, loss={"text": 0.0}),
)
CONFIG = RunConfig(model=SMALL, train=TRAIN, phases=PHASES)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "made" / "part"
    for i in range(4):
        write_clip(folder / "normal" / f"n{i}.mp4", frames=24, size=(96, 96), seed=i)
        write_clip(folder / "fight" / f"f{i}.mp4", frames=24, size=(96, 96), seed=10 + i, rate=10)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def same(a: Family, b: Family) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_resumes_bit_for_bit(tmp_path, data, cache, monkeypatch):
    clips = find_clips([data], SMALL.labels)
    whole = train(CONFIG, clips, tmp_path / "whole", clips, cache=cache, quiet=True)

    class Killed(Exception):
        pass

    plain = Mixed.epoch

    def killed(self, number, *args):
        if number == 1:
            raise Killed
        return plain(self, number, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Mixed, "epoch", killed)
        train(CONFIG, clips, tmp_path / "killed", clips, cache=cache, quiet=True)
    resumed = train(CONFIG, clips, tmp_path / "killed", clips, cache=cache, quiet=True)
    assert same(whole, resumed)
    # A run that begins from the first phase's checkpoint goes on as the whole run did.
    begun = train(CONFIG, clips, tmp_path / "begun", clips, init=tmp_path / "whole" / "phase-scenes", cache=cache, quiet=True)
    assert same(whole, begun)
    names = {"config.json", "model.safetensors", "history.json", "report.html", "state", "log", "phase-scenes", "phase-clips"}
    assert {p.name for p in (tmp_path / "killed").iterdir()} == names
    history = json.loads((tmp_path / "killed" / "history.json").read_text())
    assert [(e["phase"], e["epoch"]) for e in history] == [("scenes", 1), ("clips", 1), ("clips", 2)]
    assert {"edge", "cloud-s", "cloud-l", "text", "total"} <= set(history[0]["loss"])
    assert all("text" not in e["loss"] for e in history[1:])
    page = (tmp_path / "killed" / "report.html").read_text()
    assert page.count("<img") == 4 and "Scores while training" in page and "cloud-s/cloud-l" in page
    changed = CONFIG.model_copy(update={"train": TRAIN.model_copy(update={"seed": 9})})
    with pytest.raises(RuyicamError, match="another configuration"):
        train(changed, clips, tmp_path / "killed", cache=cache, quiet=True)


def test_training_learns_what_is_there_to_learn(tmp_path, data, cache):
    clips = find_clips([data], SMALL.labels)
    phases = (PhaseConfig(name="clips", epochs=40, clips=8, learning_rate=4e-3),)
    config = RunConfig(model=SMALL, train=TRAIN.model_copy(update={"scenes": 0}), phases=phases)
    train(config, clips, tmp_path, cache=cache, quiet=True)
    loss = [e["loss"]["cloud-l"] for e in json.loads((tmp_path / "history.json").read_text())]
    assert np.mean(loss[-5:]) < 0.8 * np.mean(loss[:5])


def test_terms_that_are_off_cost_nothing_and_those_that_are_on_act(cache):
    store = Store(cache, SMALL, Family(SMALL).encoder)
    torch.manual_seed(0)
    family = Family(SMALL)
    store = Store(cache, SMALL, family.encoder)
    scenes = Windows(store.build(store.scenes(0, 50), 1))
    batch = collate([scenes[i] for i in range(6)], SMALL, np.random.default_rng(0))
    seen = torch.ones_like(batch["exists"])
    terms = {"consistency": 1.0, "rate": 1.0, "adversary": 1.0}
    quiet = Trainee(family, LossConfig(text=0), (), 64)(batch, batch["exists"], seen, "cloud-l")[1]
    assert set(quiet) == {"edge", "cloud-s", "cloud-l"}
    loud = Trainee(family, LossConfig(**terms), (), 64)(batch, batch["exists"], seen, "edge")[1]
    assert set(loud) == {"edge", "cloud-s", "cloud-l", "text", *terms}
    # An adversary's gradient reaches the mapping turned round.
    gradients = []
    for strength in (0.0001, 1.0):
        trainee = Trainee(family, LossConfig(adversary=strength), (), 64)
        torch.manual_seed(1)
        against = trainee.adversaries.loss(family.features_of_maps(batch["maps"]) / 16, seen, batch, strength)
        gradients.append(torch.autograd.grad(against, family.mapping.weight)[0])
    assert gradients[1].abs().max() > 100 * gradients[0].abs().max()


def test_without_text_nobody_learns_to_speak_and_no_phase_is_said(tmp_path, cache):
    speech = PhaseConfig(name="speech", epochs=1, scenes=25, speech=True)
    mute = CONFIG.model_copy(update={"phases": (speech,), "loss": LossConfig(text=0.0)})
    with pytest.raises(RuyicamError, match="no phase is left"):
        train(mute, [], tmp_path / "run", cache=cache, quiet=True)
    mute = mute.model_copy(update={"phases": (speech, PHASES[0])})
    train(mute, [], tmp_path / "run", cache=cache, quiet=True, report=False)
    assert [e["phase"] for e in json.loads((tmp_path / "run" / "history.json").read_text())] == ["scenes"]
    with pytest.raises(RuyicamError, match="no phase is left"):
        train(mute, [], tmp_path / "more", init=tmp_path / "run", cache=cache, quiet=True)


def test_speech_is_taught_by_labels_alone_and_teaches_the_language_head_alone(cache):
    family = Family(SMALL)
    store = Store(cache, SMALL, family.encoder)
    scenes = Windows(store.build(store.scenes(0, 50), 1))
    batch = collate([scenes[i] for i in range(6)], SMALL, np.random.default_rng(0))
    trainee = Trainee(family, LossConfig(), (), 64)

    def loss(b) -> torch.Tensor:
        torch.manual_seed(1)
        return trainee(b, b["exists"], b["exists"], LABELS)[0]

    loss(batch).backward()
    taught = {n for n, p in family.named_parameters() if p.grad is not None and p.grad.any()}
    heads = {f"reasoner.heads.{n}" for n in ("who", "what", "when.weight", "when.bias")}
    assert heads < taught and all(n.startswith("reasoner.text.") for n in taught - heads)
    assert loss(batch) == loss(batch | {"maps": torch.zeros_like(batch["maps"])})
    assert loss(batch) != loss(batch | {"doing": 1 - batch["doing"]})


def test_labels_of_scenes_count_as_much_as_they_are_told_to(data, cache):
    torch.manual_seed(0)
    family = Family(SMALL).eval()
    store = Store(cache, SMALL, family.encoder)
    clips = [Windows([p]) for p in store.build(store.clips(find_clips([data], SMALL.labels), 3), 1)]
    scenes = Windows(store.build(store.scenes(0, 50), 1))
    batch = collate([w[0] for w in clips[:4]] + [scenes[i] for i in range(4)], SMALL)
    turned = batch | {"verdict": batch["verdict"].clone()}
    turned["verdict"][4:] = turned["verdict"][4:].roll(1, 1)

    def changes(weight: float) -> float:
        trainee = Trainee(family, LossConfig(text=0, scene_label=weight), (), 64)
        terms = []
        for b in (batch, turned):
            torch.manual_seed(1)
            terms.append(trainee(b, b["exists"], b["exists"], "edge")[1]["cloud-l"])
        return abs(float(terms[0] - terms[1]))

    assert changes(0.0) == 0 < changes(0.1) < changes(1.0)


def test_batches_are_a_function_of_seed_epoch_and_step(data, cache):
    clips = find_clips([data], SMALL.labels)
    store = Store(cache, SMALL, Family(SMALL).encoder)
    windows = [Windows([p]) for p in store.build(store.clips(clips, 3), 1)]
    mixed = Mixed(None, windows, [(c.label, "made") for c in clips], {}, [1])
    first, again = (list(mixed.epoch(0, 2, 4, 0, SMALL)) for _ in range(2))
    other = list(mixed.epoch(1, 2, 4, 0, SMALL))
    assert all(torch.equal(a["maps"], b["maps"]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0]["maps"], other[0]["maps"])
    # Two processes share a batch without overlap.
    parts = [list(mixed.epoch(0, 2, 4, 0, SMALL, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([parts[0][0]["maps"], parts[1][0]["maps"]])[[0, 2, 1, 3]], first[0]["maps"])


def test_a_small_source_is_drawn_more_often_than_its_share():
    """90 clips of one source and 10 of another under one label: 9 to 1 becomes 3 to 1."""
    kinds = [("normal", "large")] * 90 + [("normal", "small")] * 10 + [("fight", "large")] * 4
    mixed = Mixed(None, [range(9)] * len(kinds), kinds, {"normal": 3.0}, [1])
    drawn = [kinds[clip] for clip, _ in mixed._draw_clips(8000, np.random.default_rng(0))]
    shares = [drawn.count(k) / len(drawn) for k in dict.fromkeys(kinds)]
    assert np.allclose(shares, [9 / 16, 3 / 16, 1 / 4], atol=0.02)


@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_two_processes_train_one_model(tmp_path, data, cache, sharding):
    """torchrun with two CPU processes: data parallel, and parameters sharded by FSDP2."""
    clips = find_clips([data], SMALL.labels)
    model = Family(SMALL)
    Store(cache, SMALL, model.encoder)
    config = tmp_path / "tiny.toml"
    config.write_text(tiny_toml(f'sharding = "{sharding}"\ngradient_checkpointing = true\n'))
    command = [
        *(Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node=2", "--no-python"),
        *(Path(sys.executable).with_name("ruyicam"), "train", "--config", config),
        *("--data", data, "--out", tmp_path / "run", "--cache", cache),
    ]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history) == 2 and all(np.isfinite(e["loss"]["total"]) for e in history)
    assert Family.from_pretrained(tmp_path / "run").config.window == SMALL.window
    assert len(clips) == 8


def tiny_toml(extra: str = "") -> str:
    return (
        "[model]\nwindow = 8\n[model.input]\nwidth = 64\nheight = 64\n[model.encoder]\ntokens = 4\ndim = 8\n"
        "[model.trunk]\nhidden_size = 16\nintermediate_size = 16\nheads = 2\n"
        f"[train]\nscenes = 50\nviews = 3\nthreads = 1\n{extra}"
        '[[phases]]\nname = "scenes"\nepochs = 1\nscenes = 25\n[[phases]]\nname = "clips"\nepochs = 1\nclips = 4\nscenes = 2\n'
    )


def test_train_and_eval_commands(tmp_path, data, cache, refused):
    config = tmp_path / "tiny.toml"
    config.write_text(tiny_toml("questions = 5\n"))
    ruyicam = Path(sys.executable).with_name("ruyicam")

    def run(*arguments) -> subprocess.CompletedProcess:
        return subprocess.run([ruyicam, *arguments], capture_output=True, text=True, timeout=280)

    for _ in range(2):
        done = run("train", "--config", config, "--data", data, "--out", tmp_path / "run", "--cache", cache)
        assert done.returncode == 0, done.stderr
    peer = tmp_path / "run" / "no-mapping"
    code, said = refused("train", "--config", config, "--out", peer, "--cache", cache, "--no-mapping")
    assert code == Exit.USAGE and "give --data" in said
    done = run("train", "--config", config, "--data", data, "--out", peer, "--cache", cache, "--no-mapping")
    assert done.returncode == 0, done.stderr
    done = run(
        *("eval", "--model", tmp_path / "run", "--data", data, "--through", "torch"),
        *("--questions", "8", "--cache", cache, "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["clips"] == 8 and set(result["no_mapping"]) == {"edge", "cloud-s", "cloud-l"}
    right = [result["answers"][p.name]["cloud-l"] == p.parent.name for p in data.glob("*/*.mp4")]
    assert sum(right) / 8 == result["tiers"]["cloud-l"]["accuracy"]
    assert 0 <= result["text"]["exact_match"] <= 1 and set(result["consistency"]) >= {"edge/cloud-l"}
    models = ("--model", tmp_path / "run", "--model", peer)
    done = run("eval", *models, "--against", peer, "--questions", "8", "--cache", cache, "--json")
    assert done.returncode == 0, done.stderr
    text = json.loads(done.stdout)["text"]
    scores = [text["runs"][str(m)]["exact_match"] for m in models[1::2]]
    assert scores[0] == result["text"]["exact_match"] and np.isclose(text["exact_match"]["mean"], np.mean(scores))
    assert np.isclose(text["against"]["exact_match"]["mean"], np.mean(scores) - scores[1])
    assert np.isclose(
        text["tiers"]["edge"]["exact_match"]["spread"], np.std(text["tiers"]["edge"]["exact_match"]["seeds"]), atol=1e-3
    )
    done = run("eval", *models[:2], "--questions", "8", "--first-scene", "0", "--cache", cache, "--json")
    assert done.returncode == 0, done.stderr
    taught = json.loads(done.stdout)["text"]
    assert (taught["first_scene"], taught["scenes"]) == (0, 8) and text["first_scene"] > 10_000
    assert taught["most_frequent_answer"] != text["most_frequent_answer"]
    for arguments, says in (
        (("eval", *models, "--questions", 8, "--data", data), "--questions N alone"),
        (("eval", *models[:2], "--data", data, "--first-scene", 0), "--first-scene 0 takes --questions N"),
        (("eval", *models[:2], "--data", data, "--against", peer), "--questions N"),
        (("train", "--config", tmp_path / "none.toml", "--data", data, "--out", tmp_path / "run"), "none.toml"),
        (("eval", "--folds", 3), "--config"),
        (("eval", "--folds", 3, "--config", config, "--data", data, "--questions", 8), "a command without it"),
        (("eval", "--folds", 3, "--config", config, "--data", data, "--ablate", "colour=1"), "colour=1"),
    ):
        code, said = refused(*arguments)
        assert code == Exit.USAGE and said.count("\n") == 1 and says in said, said
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert 0 <= history[-1]["text"]["cloud-l"]["exact_match"] <= 1


def test_cross_validation_keeps_scenes_apart_and_is_resumed(tmp_path, data, cache):
    config = tmp_path / "tiny.toml"
    config.write_text(tiny_toml())
    command = [
        *(Path(sys.executable).with_name("ruyicam"), "eval", "--folds", "2", "--seeds", "1", "--config", config),
        *("--data", data, "--out", tmp_path / "runs", "--cache", cache, "--jobs", "1", "--share", "0.5", "--alone", "--json"),
        *("--peer", "--ablate", "consistency=0.5"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sources"]["made"]["clips"] == 8
    wrong = result["sources"]["made"]["wrong"]
    assert len(wrong) == round(8 * (1 - result["sources"]["made"]["tiers"]["cloud-l"]["accuracy"]["mean"]))
    accuracy = result["sources"]["made"]["tiers"]["cloud-l"]["accuracy"]
    assert len(accuracy["seeds"]) == 1 and 0 <= accuracy["mean"] <= 1
    assert [p["released_share"] for p in result["curve"]] == sorted(p["released_share"] for p in result["curve"])
    assert [p["clips"] for p in result["learning_curve"]["made"]] == [2, 4]
    whole = result["learning_curve"]["made"][-1]["cloud-l"]
    assert whole == result["sources"]["made"]["tiers"]["cloud-l"]["balanced_accuracy"]
    assert set(result["tier_by_tier"]["tiers"]) == {"edge", "cloud-s", "cloud-l"}
    assert set(result["no_mapping"]) == {"edge", "cloud-s", "cloud-l"}
    assert [row["loss"] for row in result["ablation"]] == ["consistency = 0.5"]
    history = json.loads((tmp_path / "runs/consistency-0.5/seed-1-fold-0/history.json").read_text())
    assert history[-1]["loss"]["consistency"] >= 0
    # Scenes alone are learned from once for all folds, also of the learning curve: family, peer, ablation, three tiers alone.
    assert {e["phase"] for e in history} == {"clips"}
    begun = [json.loads((b / "cpu_seconds.json").read_text()) for b in (tmp_path / "runs/scenes").iterdir()]
    histories = [json.loads((tmp_path / f"runs/family/seed-1-fold-{k}/history.json").read_text()) for k in range(2)]
    folds_took = sum(e["cpu_seconds"] for history in histories for e in history)
    # The time of what the folds share is counted, once.
    assert len(begun) == 6 and any(np.isclose(result["training_cpu_seconds"], folds_took + b, rtol=1e-6) for b in begun)
    assert (tmp_path / "runs" / "accuracy-against-bits.svg").exists() and (tmp_path / "runs" / "learning-curve.svg").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert json.loads(again.stdout) == result


def test_what_is_wrong_in_a_worker_is_said_by_the_program(tmp_path, data, refused):
    broken = tmp_path / "clips" / "made" / "normal" / "broken.mp4"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no video")
    config = tmp_path / "tiny.toml"
    config.write_text(tiny_toml())
    code, said = refused(
        *("train", "--config", config, "--data", data, "--data", tmp_path / "clips" / "made", "--out", tmp_path / "run"),
        *("--cache", tmp_path / "cache"),
    )
    assert code == Exit.SOURCE and said.count("\n") == 1 and "broken.mp4" in said


def test_what_all_folds_need_is_made_once_and_first(tmp_path, data):
    config = CONFIG.model_copy(update={"phases": PHASES[1:]})
    jobs = fold_jobs(config, find_clips([data], SMALL.labels), [], 2, 1, tmp_path / "runs", None, None, tmp_path / "cache")
    calls: list[tuple[str, int, int]] = []

    def show(name: str, done: int, of: int) -> None:
        calls.append((name, done, of))
        assert name == "family" or not any((tmp_path / "runs").rglob("*.json"))

    run_jobs(jobs, 2, "family", show)
    made = len([*(tmp_path / "cache").rglob("*.safetensors")])
    # A shard of scenes, and one for each of the clips, all of which are asked about.
    assert made == 1 + 8
    assert calls == [("preparing", i + 1, made) for i in range(made)] + [("family", 1, 2), ("family", 2, 2)]
    said = jobs[0].out / "said.json"
    said.write_text(json.dumps({k: v for k, v in json.loads(said.read_text()).items() if k != "cpu_seconds"}))
    with pytest.raises(RuyicamError, match="another --out"):
        pool(jobs, 1)


def test_folds_share_no_scene(shared_clips):
    clips = find_clips([shared_clips / "surveillance" / p for p in ("train", "val")], ("normal", "fight"))
    assert len(clips) == 240
    for part, test in folds(clips, 5, 1):
        scenes = [{scene_of(clips[i].path.resolve()) for i in side} for side in (part, test)]
        assert not scenes[0] & scenes[1] and len(part) + len(test) == 240
        assert 0.3 < np.mean([clips[i].label == "fight" for i in test]) < 0.7


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_part_of_the_clips_is_as_large_as_it_is_called(shared_clips, share):
    """Scenes with clips of several labels count for each of them, and nothing is left without any clip."""
    folders = [shared_clips / s / p for s in ("surveillance", "falls") for p in ("train", "val")]
    clips = find_clips(folders, ("normal", "fight", "fall"))
    kinds = {(source_of(c.path), c.label) for c in clips}
    for seed in range(8):
        part = part_of(clips, share, seed)
        assert abs(len(part) - share * len(clips)) < 0.05 * len(clips), seed
        assert {(source_of(c.path), c.label) for c in part} == kinds
        scenes = {scene_of(c.path.resolve()) for c in part}
        assert part == [c for c in clips if scene_of(c.path.resolve()) in scenes]
    assert len({tuple(part_of(clips, share, seed)) for seed in range(4)}) == 4


def test_a_part_of_the_clips_is_trained_on_for_as_many_steps(tmp_path):
    clips = [Clip(tmp_path / f"set/train/normal/{i}.mp4", "normal") for i in range(203)]
    phases = (PhaseConfig(name="scenes", epochs=8, scenes=32), PhaseConfig(name="clips", epochs=25, clips=32, scenes=8))
    config = RunConfig(model=SMALL, train=TRAIN, phases=phases)
    job = Job(tmp_path, config, None, None, clips, [], [], tmp_path)
    for count in (203, 108, 54, 20):
        part = as_many_steps(job, clips[:count])
        before, after = (
            p.epochs * steps_of(p, len(j.train), 0) for j in (job, part) for p in j.config.phases if p.name == "clips"
        )
        assert part.train == clips[:count] and abs(after - before) <= 4
        assert part.config.phases[0] == phases[0]


def test_a_gate_lets_through_what_reaches_its_threshold():
    normal = np.array([0.95, 0.9, 0.5, 0.1, 0.95])
    said = Said(np.array([0, 0, 0, 1, 2]), {"edge": np.stack([normal, 1 - normal, 0 * normal], 1)})
    out = gate([Pooled([said], [""] * 5, np.zeros(5), 0)], 0.08)
    assert out["recall"]["mean"] == 0.5 and np.isclose(out["false_alarms"]["mean"], 2 / 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\ncolour = 1\n", "unknown key 'train.colour'"),
        ("[train]\nscenes = 'many'\n", "'train.scenes'"),
        ("[train\n", "line 1"),
        ("[model]\nlabels = ['one']\n", "at least two"),
        ("[[phases]]\nname = 'a'\nepochs = 1\nclips = 2\nscenes = 2\nspeech = true\n", "expected no clips"),
        ("[[phases]]\nname = 'a'\nepochs = 1\nscenes = 2\nloss = {colour = 1.0}\n", "colour"),
        ("[[phases]]\nname = 'a'\nepochs = 1\nscenes = 2\nloss = {adversary = 1.0}\n", "expected it in .loss."),
        ("[model.trunk]\nexits = {edge = 3, cloud = 2}\n", "rising depths"),
    ],
)
def test_bad_training_configuration_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(RuyicamError, match=says) as caught:
        load_toml(RunConfig, path)
    assert caught.value.code == Exit.USAGE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["camera", "crossval", "scenes-first"])
def test_configurations_that_ship_are_of_one_model(name):
    config = load_toml(RunConfig, Path(__file__).parents[1] / f"cloud/configs/{name}.toml")
    camera = load_toml(RunConfig, Path(__file__).parents[1] / "cloud/configs/camera.toml")
    assert config.taught and config.model.model_dump(exclude={"text"}) == camera.model.model_dump(exclude={"text"})
    assert all(config.loss_of(p).scene_label == 0 for p in config.phases if p.clips)


def test_a_key_of_a_training_configuration_is_changed_from_outside(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[train]\nseed = 1\nviews = 3\n")
    config = load_toml(RunConfig, path, ["train.seed=7", "loss.doing=3.0", 'model.labels=["calm", "fall"]'])
    assert (config.train.seed, config.train.views, config.loss.doing) == (7, 3, 3.0)
    assert config.model.labels == ("calm", "fall")
    path.write_text(path.read_text() + '[[phases]]\nname = "a"\nepochs = 1\nscenes = 8\n')
    assert load_toml(RunConfig, path, ["phases.0.epochs=9"]).phases[0].epochs == 9
    no_changes = ("train.seed", "train.seed=", "train.seed=1\nviews=2", "train.seed.first=1")
    no_changes += ("phases.1.epochs=2", "phases.epochs=2")
    for wrong in (*no_changes, "train.colour=1", "phases.0.epochs=0"):
        with pytest.raises(RuyicamError, match="changes no key" if wrong in no_changes else "c.toml") as caught:
            load_toml(RunConfig, path, [wrong])
        assert caught.value.code == Exit.USAGE
