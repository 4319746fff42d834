"""BPPO: what it selects, that it is GRPO with its parts off, and that each part changes what it should."""

from __future__ import annotations

import json
from dataclasses import dataclass

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
    assert choose_pairs(correct, incorrect, t(3, 3, 3, 3, dtype=torch.int64), 4, "shortest").tolist() == [True, True, False, False]
    assert choose_pairs(correct, incorrect, t(3, 3, 2, 0, dtype=torch.int64), 4, "shortest").tolist() == [False, False, True, True]


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
    config = BPPOConfig if kind is BPPOTrainer else GRPOConfig
    args = config(
        str(folder), max_steps=steps, num_generations=GROUP, per_device_train_batch_size=micro,
        **{"gradient_accumulation_steps": GROUP * PROMPTS // micro, **extra},
        max_completion_length=LONGEST, learning_rate=1e-3, bf16=False, gradient_checkpointing=False, report_to="none",
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
