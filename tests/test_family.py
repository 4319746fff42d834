"""The family: saving, tiers as prefixes, training that resumes bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_clip

from ruyicam.cloud.data.clips import find_clips, model_input
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family, FamilyConfig
from ruyicam.cloud.toml import load_toml
from ruyicam.cloud.training.config import RunConfig, TrainConfig
from ruyicam.cloud.training.metrics import agreement, tier_scores
from ruyicam.cloud.training.sampler import BalancedSampler
from ruyicam.cloud.training.trainer import train
from ruyicam.kernels import Preprocessor, reference

SMALL = FamilyConfig(
    input={"width": 64, "height": 64},
    encoder={"channels": (4, 8, 8, 8, 8)},
    trunk={"hidden_size": 16, "intermediate_size": 16, "heads": 2},
    window=8,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(4):
        write_clip(folder / "normal" / f"n{i}.mp4", frames=24, size=(96, 96), seed=i)
        write_clip(folder / "fight" / f"f{i}.mp4", frames=24, size=(96, 96), seed=10 + i, rate=10)
    return folder


def test_saving_and_loading_give_the_same_answers(tmp_path):
    model = Family(SMALL).eval()
    model.save_pretrained(tmp_path)
    again = Family.from_pretrained(tmp_path)
    x, seen = torch.randint(-50, 50, (2, 8, 3, 64, 64), dtype=torch.int8), torch.ones(2, 8, dtype=torch.bool)
    assert torch.equal(model.features(x), again.features(x))
    features = model.features(x)
    for name, answer in model.reasoner(features, seen).items():
        assert torch.equal(answer.window, again.reasoner(features, seen)[name].window)


def test_a_tier_is_a_prefix_with_the_very_outputs_of_its_exit():
    model = Family(SMALL).eval()
    features = torch.randint(-40, 40, (3, 8, SMALL.features)).float()
    valid = torch.rand(3, 8) > 0.3
    whole = model.reasoner(features, valid)
    sizes = []
    for name in SMALL.trunk.exits:
        tier = model.tier(name)
        assert torch.equal(tier(features, valid)[name].steps, whole[name].steps)
        sizes.append(sum(p.numel() for p in tier.parameters()))
    assert sizes == sorted(set(sizes))
    with pytest.raises(ValueError, match="tier 'huge' is unknown"):
        model.tier("huge")


def test_ticks_that_were_not_released_do_not_matter():
    model = Family(SMALL).eval()
    features = torch.randint(-40, 40, (1, 8, SMALL.features)).float()
    valid = torch.tensor([[True, False, True, True, False, True, True, True]])
    other = torch.where(valid.unsqueeze(-1), features, torch.full_like(features, 99.0))
    assert torch.equal(
        model.reasoner(features, valid)["cloud-l"].window, model.reasoner(other, valid)["cloud-l"].window
    )


def test_training_resumes_bit_for_bit(tmp_path, data):
    clips = find_clips([data], SMALL.labels)
    settings = TrainConfig(epochs=3, batch_size=4, threads=1)
    config = RunConfig(model=SMALL, train=settings)
    whole = train(config, clips, tmp_path / "whole", quiet=True)

    class Killed(Exception):
        pass

    class KilledSampler(BalancedSampler):
        def __iter__(self):
            if self.epoch == 2:
                raise Killed
            return super().__iter__()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("ruyicam.cloud.training.trainer.BalancedSampler", KilledSampler)
        train(config, clips, tmp_path / "killed", quiet=True)
    resumed = train(config, clips, tmp_path / "killed", quiet=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    changed = RunConfig(model=SMALL, train=settings.model_copy(update={"seed": 9}))
    with pytest.raises(RuyicamError, match="another configuration"):
        train(changed, clips, tmp_path / "killed", quiet=True)


def test_training_learns_what_is_there_to_learn(tmp_path, data):
    clips = find_clips([data], SMALL.labels)
    config = RunConfig(model=SMALL, train=TrainConfig(epochs=1, batch_size=8, warmup_epochs=0, threads=1))
    log: list[float] = []
    from ruyicam.cloud.training import trainer

    plain = trainer.family_loss

    def watched(*args):
        loss, logged = plain(*args)
        log.append(float(loss.detach()))
        return loss, logged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "family_loss", watched)
        train(
            config.model_copy(update={"train": config.train.model_copy(update={"epochs": 40, "mixup": 0.0})}),
            clips,
            tmp_path,
            quiet=True,
        )
    assert np.mean(log[-5:]) < 0.8 * np.mean(log[:5])


def test_clips_are_decoded_to_the_kernels_input(made_clip):
    config = FamilyConfig().input
    x = model_input(made_clip, config)
    assert x.shape == (20, 3, 96, 128) and x.dtype == np.int8
    assert not x[0].any() and x[5:].any()
    plain = reference.Preprocessor()
    fast = Preprocessor()
    frame = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    assert (plain.process(frame) == fast.process(frame)).all()


def test_scores():
    s = tier_scores([0, 0, 0, 1], [0, 0, 1, 1], ("a", "b", "c"))
    assert s == {"accuracy": 0.75, "balanced_accuracy": (2 / 3 + 1) / 2, "recall": {"a": 2 / 3, "b": 1.0}}
    assert agreement([0, 1, 1], [0, 1, 0]) == 2 / 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\ncolour = 1\n", "unknown key 'train.colour'"),
        ("[train]\nepochs = 'many'\n", "'train.epochs'"),
        ("[train\n", "line 1"),
        ("[model]\nlabels = ['one']\n", "at least two"),
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


def test_bad_data_is_one_clear_line(tmp_path):
    with pytest.raises(RuyicamError, match="does not exist"):
        find_clips([tmp_path / "none"], ("normal",))
    with pytest.raises(RuyicamError, match="holds no clips"):
        find_clips([tmp_path], ("normal",))
    write_clip(tmp_path / "dance" / "a.mp4", frames=3)
    with pytest.raises(RuyicamError, match="label 'dance'"):
        find_clips([tmp_path], ("normal",))
    (tmp_path / "bad.mp4").write_bytes(b"not a film")
    with pytest.raises(RuyicamError, match="cannot be decoded"):
        model_input(tmp_path / "bad.mp4", FamilyConfig().input)


def test_train_command_runs_and_resumes(tmp_path, data):
    config = tmp_path / "tiny.toml"
    config.write_text(
        "[model]\nwindow = 8\n[model.input]\nwidth = 64\nheight = 64\n[model.encoder]\nchannels = [4, 8, 8, 8, 8]\n"
        "[model.trunk]\nhidden_size = 16\nintermediate_size = 16\nheads = 2\n[train]\nepochs = 1\nbatch_size = 8\n"
    )
    command = [
        Path(sys.executable).with_name("ruyicam"),
        "train",
        "--config",
        config,
        "--data",
        data,
        "--out",
        tmp_path / "run",
    ]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "model.safetensors", "state.pt", "log"}
    done = subprocess.run(
        [*command[:3], tmp_path / "none.toml", *command[4:]], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == Exit.USAGE
    assert done.stderr.count("\n") == 1 and "none.toml" in done.stderr
