"""BPPO: what it selects, that it is GRPO with its parts off, and that each part changes what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="the extra 'rl' is not installed")

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from ruyicam.cloud.bppo import BPPOConfig, BPPOTrainer
from ruyicam.cloud.bppo.selection import choose_pairs, class_weights, classes, prefix_lengths
from ruyicam.cloud.bppo.start import small_model
from ruyicam.cloud.bppo.tasks.arithmetic import Arithmetic, tokenizer

OFF = {"selection": "all", "prefix": "full", "schedule": "none"}
GROUP, PROMPTS, LONGEST = 4, 4, 10


def t(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


# --- Selection ------------------------------------------------------------------------------------------------------------


def test_shortest_of_each_class_and_none_of_decided_groups():
    rewards = t(1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0)
    lengths = t(9, 7, 5, 8, 1, 2, 3, 4, 1, 2, 3, 4, dtype=torch.int64)
    correct, incorrect = classes(rewards, 4, 0.5)
    assert choose_pairs(correct, incorrect, lengths, 4, "shortest").nonzero().flatten().tolist() == [1, 2]
    assert choose_pairs(correct, incorrect, lengths, 4, "longest").nonzero().flatten().tolist() == [0, 3]


def test_equal_lengths_take_the_first_and_empty_responses_count():
    correct, incorrect = classes(t(0, 1, 1, 0), 4, 0.5)
    assert choose_pairs(correct, incorrect, t(3, 3, 3, 3, dtype=torch.int64), 4, "shortest").tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert choose_pairs(correct, incorrect, t(3, 3, 2, 0, dtype=torch.int64), 4, "shortest").tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_random_choice_is_of_the_class_and_of_the_seed():
    correct, incorrect = classes(t(1, 1, 0, 0, 1, 0, 0, 1), 4, 0.5)
    lengths = torch.ones(8, dtype=torch.int64)
    seen = set()
    for seed in range(30):
        kept = choose_pairs(correct, incorrect, lengths, 4, "random", torch.Generator().manual_seed(seed))
        again = choose_pairs(correct, incorrect, lengths, 4, "random", torch.Generator().manual_seed(seed))
        assert torch.equal(kept, again)
        assert (kept & correct).view(2, 4).sum(1).tolist() == (kept & incorrect).view(2, 4).sum(1).tolist() == [1, 1]
        seen.add(tuple(kept.tolist()))
    assert len(seen) > 5


def test_classes_without_threshold_and_of_what_was_not_sampled():
    nan = float("nan")
    correct, incorrect = classes(t(0.1, 0.2, 0.3, 0.2, 0.7, 0.7, 0.7, 0.7, nan, 0.1, 0.9, nan), 4, None)
    assert correct.nonzero().flatten().tolist() == [2, 10]
    assert incorrect.nonzero().flatten().tolist() == [0, 9]
    correct, incorrect = classes(t(nan, 1, 0, nan), 4, 0.5)
    assert (correct.tolist(), incorrect.tolist()) == ([False, True, False, False], [False, False, True, False])


def test_prefix_lengths():
    lengths, kept = t(1, 5, 10, 0, dtype=torch.int64), t(0, 1, 1, 0, dtype=torch.bool)
    assert prefix_lengths(lengths, kept, 4, "ratio", 0.5, 3).tolist() == [1, 3, 5, 0]
    assert prefix_lengths(lengths, kept, 4, "tokens", 0.5, 3).tolist() == [1, 3, 3, 0]
    assert prefix_lengths(lengths, kept, 4, "shorter", 0.5, 3).tolist() == [1, 3, 3, 0]
    assert prefix_lengths(lengths, kept, 4, "full", 0.5, 3).tolist() == [1, 5, 10, 0]
    thirty = t(30, dtype=torch.int64)
    assert prefix_lengths(thirty, thirty > 0, 1, "ratio", 0.1, 3).tolist() == [3]


def test_class_weights_make_a_pair_add_up_to_nothing():
    rewards = t(1, 0, 0, 0)
    correct, incorrect = classes(rewards, 4, 0.5)
    advantages = (rewards - rewards.mean()) / rewards.std()
    kept = choose_pairs(correct, incorrect, torch.ones(4, dtype=torch.int64), 4, "shortest")
    assert advantages[kept].sum().abs() > 0.5
    assert (advantages * class_weights(correct, incorrect, 4))[kept].sum().abs() < 1e-6


# --- The trainer ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def right_at_random(completions, **kwargs):
    """Right or wrong by what was said, whatever it means."""
    return [float(sum(map(ord, text)) % 3 == 0) for text in completions]


@dataclass
class Ran:
    trainer: GRPOTrainer
    history: list[dict]
    first: list[torch.Tensor]

    @property
    def state(self):
        return self.trainer.model.state_dict()


def run(words, folder, kind=BPPOTrainer, reward=right_at_random, steps=2, micro=4, peft_config=None, **extra) -> Ran:
    """A few steps of a very small model with fixed seeds; `first` are the gradients of the first step."""
    torch.manual_seed(5)
    model = small_model(words, hidden=32, layers=1)
    config = BPPOConfig if issubclass(kind, BPPOTrainer) else GRPOConfig
    args = config(
        str(folder), max_steps=steps, num_generations=GROUP, per_device_train_batch_size=micro,
        **{"gradient_accumulation_steps": GROUP * PROMPTS // micro, "learning_rate": 1e-3, **extra},
        max_completion_length=LONGEST, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, seed=3,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": e.prompt, "answer": e.answer} for e in Arithmetic().examples("train", 32)])
    first: list[torch.Tensor] = []

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if not first:
                first.extend(torch.zeros(1) if p.grad is None else p.grad.clone() for p in model.parameters())

    trainer = kind(
        model, reward, args, train_dataset=data, processing_class=words, callbacks=[Grads()], peft_config=peft_config
    )
    trainer.train()
    return Ran(trainer, [h for h in trainer.state.log_history if "reward" in h], first)


def close(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-7) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"loss_type": "grpo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "bnpo"},
        {"num_iterations": 2},
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"scale_rewards": "batch", "mask_truncated_completions": True},
        {"num_iterations": 2, "beta": 0.05, "peft": True},
    ],
    ids=lambda e: ",".join(e) or "default",
)
def test_with_its_parts_off_it_is_grpo(words, tmp_path, extra):
    extra = dict(extra)
    if extra.pop("peft", False):
        peft = pytest.importorskip("peft")
        extra["peft_config"] = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    a = run(words, tmp_path / "a", GRPOTrainer, **extra)
    b = run(words, tmp_path / "b", **extra, **OFF)
    assert [h["reward"] for h in a.history] == [h["reward"] for h in b.history]
    assert any(h["reward_std"] > 0 for h in a.history)
    assert close(a.first, b.first)
    for x, y in zip(a.history, b.history, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], abs=1e-6)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-4, abs=1e-7)
    assert close(list(a.state.values()), list(b.state.values()))


def chosen_logps(model, batch: dict) -> torch.Tensor:
    """Log-probability of each token of the responses in a batch."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, batch["prompt_ids"].shape[1] - 1 : -1].log_softmax(-1)
    return logits.gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)


def metric(ran: Ran, name: str) -> float:
    return ran.history[0][f"bppo/{name}"]


def test_pair_selection_alone_keeps_two_of_each_mixed_group(words, tmp_path):
    everything = run(words, tmp_path / "a", steps=1, **OFF)
    pairs = run(words, tmp_path / "b", steps=1, **OFF | {"selection": "shortest"})
    # The same responses were sampled and their advantages are those of the whole group.
    assert pairs.history[0]["reward"] == everything.history[0]["reward"]
    assert metric(pairs, "tokens_generated") == metric(everything, "tokens_generated")
    assert metric(everything, "kept") == GROUP and metric(pairs, "kept") == pytest.approx(2 * metric(pairs, "mixed"))
    assert 0 < metric(pairs, "tokens_updated") < metric(everything, "tokens_updated")
    assert not close(pairs.first, everything.first)


def test_the_pairs_gradient_is_that_of_their_own_responses(words, tmp_path):
    """Against autograd on the chosen responses alone: advantage times log-probability, over all of their tokens."""
    kept: dict = {}

    class Spy(BPPOTrainer):
        def _pack(self, batch):
            kept.update(batch)
            return super()._pack(batch)

    ran = run(words, tmp_path, Spy, steps=1, learning_rate=0.0, prefix="ratio", prefix_ratio=0.5, schedule="none")
    model, count = ran.trainer.model, kept["completion_mask"].sum()
    assert len(kept["advantages"]) >= 4 and count < len(kept["advantages"]) * LONGEST * 0.7
    loss = -(kept["advantages"].unsqueeze(1) * chosen_logps(model, kept) * kept["completion_mask"]).sum() / count
    model.zero_grad()
    loss.backward()
    # The trainer clips gradients to 1.
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    assert norm == pytest.approx(ran.history[0]["grad_norm"], rel=1e-4)


def test_the_prefix_alone_updates_on_that_many_tokens_of_every_response(words, tmp_path):
    whole = run(words, tmp_path / "a", steps=1, **OFF)
    half = run(words, tmp_path / "b", steps=1, **OFF | {"prefix": "ratio"})
    few = run(words, tmp_path / "c", steps=1, **OFF | {"prefix": "tokens", "prefix_tokens": 2})
    assert metric(whole, "kept") == metric(half, "kept") == metric(few, "kept") == GROUP
    assert half.history[0]["reward"] == whole.history[0]["reward"]
    assert (
        metric(few, "tokens_updated") <= 2 * GROUP * PROMPTS < metric(half, "tokens_updated") < metric(whole, "tokens_updated")
    )
    assert not close(half.first, whole.first)


def decided(completions, answer, **kwargs):
    """All right, all wrong or mixed by the prompt; rows come as they were asked for."""
    turn: dict[str, int] = {}
    out = []
    for a in answer:
        turn[a] = turn.get(a, 0) + 1
        out.append({0: 1.0, 1: 0.0}.get(int(a) % 4, float(turn[a] % 2)))
    return out


def test_scheduling_alone_samples_decided_groups_less_and_changes_nothing_else(words, tmp_path):
    off = run(words, tmp_path / "a", reward=decided, steps=2, **OFF)
    on = run(words, tmp_path / "b", reward=decided, steps=2, **OFF | {"schedule": "decided", "first_round": 2})
    share = metric(on, "mixed")
    assert metric(on, "sampled") == pytest.approx(2 + 2 * share)
    assert metric(on, "kept") == pytest.approx(metric(on, "sampled"))
    for name in ("mixed", "all_correct", "all_incorrect"):
        assert metric(on, name) == metric(off, name)
    assert 0 < share < 1
    assert metric(on, "tokens_generated") < metric(off, "tokens_generated")
    assert on.trainer.state.num_input_tokens_seen < off.trainer.state.num_input_tokens_seen
    # Copies that stand for what was not sampled enter no mean: a group's reward is that of its own responses.
    assert on.history[0]["frac_reward_zero_std"] == pytest.approx(1 - share)


def test_rounds_until_there_is_a_pair(words, tmp_path):
    ran = run(words, tmp_path, reward=decided, steps=1, schedule="pair", first_round=2)
    assert 0 < metric(ran, "mixed") < 1
    # A mixed group has its pair after the first round; the others go on in vain.
    assert metric(ran, "sampled") == pytest.approx(4 - 2 * metric(ran, "mixed"))


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["all wrong", "all right"])
def test_groups_without_a_pair_move_nothing(words, tmp_path, value):
    ran = run(words, tmp_path, reward=lambda completions, **_: [value] * len(completions), steps=2)
    assert metric(ran, "mixed") == metric(ran, "kept") == metric(ran, "tokens_updated") == 0
    assert metric(ran, "all_correct" if value else "all_incorrect") == 1
    assert all(h["grad_norm"] == 0 and h["loss"] == 0 for h in ran.history)
    torch.manual_seed(5)
    untouched = small_model(words, hidden=32, layers=1).state_dict()
    assert all(torch.equal(v, ran.state[k]) for k, v in untouched.items())


def test_unscorable_and_empty_responses(words, tmp_path):
    def reward(completions, **kwargs):
        return [None if i % GROUP == 0 else float(i % 2) for i, _ in enumerate(completions)]

    ran = run(words, tmp_path, reward=reward, steps=1, schedule="none")
    assert metric(ran, "mixed") == 1 and metric(ran, "kept") == 2
    # A model that can only say that it is done.
    end = {"generation_kwargs": {"suppress_tokens": [i for i in range(len(words)) if i != words.eos_token_id]}}
    ran = run(words, tmp_path / "b", reward=reward, steps=1, **end)
    assert ran.history[0]["completions/max_length"] == 1 and metric(ran, "prefix_length") == 1
    assert all(torch.isfinite(v).all() for v in ran.state.values())


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"prefix_ratio": 0.0}, "prefix_ratio is 0.0, expected above 0"),
        ({"prefix": "half"}, "prefix is 'half', expected one of ratio, tokens"),
        ({"first_round": 3}, "first_round is 3, expected a divisor of num_generations"),
        ({"selection": "all", "prefix": "shorter"}, "prefix='shorter' compares a pair"),
    ],
)
def test_bad_configuration_is_one_line(words, tmp_path, extra, says):
    with pytest.raises(ValueError, match=says) as raised:
        run(words, tmp_path, **extra)
    assert "\n" not in str(raised.value)


def test_scheduling_refuses_rollout_functions(words, tmp_path):
    args = BPPOConfig(str(tmp_path), num_generations=2, per_device_train_batch_size=2, bf16=False, report_to="none")
    with pytest.raises(ValueError, match="expected schedule='none'"):
        BPPOTrainer(
            small_model(words, 32, 1), right_at_random, args, processing_class=words, rollout_func=lambda prompts, trainer: {},
            train_dataset=Dataset.from_list([{"prompt": "1+1=?"}]),
        )  # fmt: skip


def test_two_processes_update_on_the_rows_of_both(words, tmp_path):
    """Each keeps other numbers of rows; the gradient is that of all rows of both, and the models stay the same."""
    command = [
        *(Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node=2"),
        *(Path(__file__).with_name("bppo_worker.py"), tmp_path),
    ]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.manual_seed(5)
    model = small_model(words, hidden=32, layers=1)
    for loss in both[0]:
        parts = [b[loss] for b in both]
        assert close(parts[0]["grads"], parts[1]["grads"]) and close(parts[0]["weights"], parts[1]["weights"])
        counts = [int(p["rows"]["rows"].sum()) for p in parts]
        assert counts[0] != counts[1], "the seed gives both the same number of rows, which proves less"
        total, tokens, rows = 0.0, 0, 0
        for part in (p["rows"] for p in parts):
            real = part["rows"] > 0
            each = -(part["advantages"].unsqueeze(1) * chosen_logps(model, part) * part["completion_mask"]).sum(1)[real]
            lengths = part["completion_mask"].sum(1)[real]
            total = total + (each.sum() if loss == "dapo" else (each / lengths).sum())
            tokens, rows = tokens + lengths.sum(), rows + len(each)
        model.zero_grad()
        (total / (tokens if loss == "dapo" else rows)).backward()
        assert close([p.grad for p in model.parameters()], parts[0]["grads"])
