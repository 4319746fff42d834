"""Sampling in which responses that have ended leave the batch."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("trl", reason="the extra 'rl' is not installed")

from datasets import Dataset
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from ruyicam.cloud.bppo import BPPOConfig, BPPOTrainer
from ruyicam.cloud.bppo.generation import Compacting, compacting, generate
from ruyicam.cloud.bppo.start import small_model
from ruyicam.cloud.bppo.tasks.arithmetic import Arithmetic, tokenizer

ROWS, PROMPT, WORDS, PAD = 12, 7, 40, 0
# Of so many words that end a response, one is soon said.
ENDS = [3, 8, 11, 17, 22, 30]


def decoder(**extra) -> Qwen3ForCausalLM:
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=WORDS, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=128, initializer_range=0.4, pad_token_id=PAD, **extra,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def prompts() -> dict[str, torch.Tensor]:
    """Padded on the left by 0 to 3."""
    drawn = torch.Generator().manual_seed(4)
    ids = torch.randint(1, WORDS, (ROWS, PROMPT), generator=drawn)
    mask = (torch.arange(PROMPT) >= torch.randint(0, 4, (ROWS, 1), generator=drawn)).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def how(**extra) -> GenerationConfig:
    return GenerationConfig(**{"max_new_tokens": 24, "eos_token_id": ENDS, "pad_token_id": PAD, "do_sample": False} | extra)


def batches(model) -> list[int]:
    """Filled with the rows of every forward pass from here on."""
    seen: list[int] = []

    def count(module, args, kwargs):
        seen.append(len(kwargs["input_ids"]))

    model.model.register_forward_pre_hook(count, with_kwargs=True)
    return seen


@pytest.mark.parametrize("every", [1, 5, 16, 100])
@pytest.mark.parametrize("extra", [{}, {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}], ids=str)
def test_greedy_responses_are_those_of_the_whole_batch(every, extra):
    model, inputs = decoder(**extra), prompts()
    expected = model.generate(**inputs, generation_config=how())
    lengths = (expected[:, PROMPT:] != PAD).sum(1)
    assert lengths.min() < 5 < lengths.max()
    assert torch.equal(generate(model, every, **inputs, generation_config=how()), expected)


def test_rows_that_have_ended_are_not_computed():
    model, inputs = decoder(), prompts()
    seen = batches(model)
    out = generate(model, 4, **inputs, generation_config=how())
    lengths = ((out[:, PROMPT:] != PAD).sum(1)).tolist()
    # A response takes part until the part in which it ends is over.
    expected = [sum(-(-n // 4) * 4 > step for n in lengths) for step in range(out.shape[1] - PROMPT)]
    assert seen == expected
    assert expected[-1] < ROWS


def test_sampled_responses_end_once_and_follow_the_seed():
    model, inputs = decoder(), prompts()
    said = []
    for _ in range(2):
        torch.manual_seed(9)
        said.append(generate(model, 3, **inputs, generation_config=how(do_sample=True)))
    assert torch.equal(*said)
    assert torch.equal(said[0][:, :PROMPT], inputs["input_ids"])
    for row in said[0][:, PROMPT:]:
        end = next((i for i, token in enumerate(row.tolist()) if token in ENDS), len(row))
        assert (row[end + 1 :] == PAD).all()


def test_sampled_tokens_have_the_models_probabilities():
    """The second token, which is drawn after some rows have left, beside what the model gives it."""
    model = decoder()
    ids = torch.tensor([[5, 6, 7]]).expand(6000, 3)
    torch.manual_seed(1)
    out = generate(model, 1, ids, torch.ones_like(ids), how(do_sample=True, top_k=0, top_p=1.0, max_new_tokens=2))[:, 3:]
    assert torch.isin(out[:, 0], torch.tensor(ENDS)).any()
    goes_on = out[~torch.isin(out[:, 0], torch.tensor(ENDS))]
    first = goes_on[:, 0].mode().values
    second = goes_on[goes_on[:, 0] == first, 1]
    assert len(second) > 300
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6, 7, first]])).logits[0, -1].softmax(-1)
    got = torch.bincount(second, minlength=WORDS) / len(second)
    assert (got - expected).abs().max() < 4 * (0.25 / len(second)) ** 0.5


@pytest.mark.parametrize(
    "extra",
    [{"num_beams": 2}, {"min_new_tokens": 6}, {"num_return_sequences": 2, "do_sample": True}, {"use_cache": False}],
    ids=lambda e: ",".join(e),
)
def test_what_cannot_be_done_in_parts_is_done_as_ever(extra):
    model, inputs = decoder(), prompts()
    torch.manual_seed(3)
    expected = model.generate(**inputs, generation_config=how(**extra))
    torch.manual_seed(3)
    assert torch.equal(generate(model, 2, **inputs, generation_config=how(**extra)), expected)


def test_models_that_keep_something_else_of_the_past_generate_as_ever(monkeypatch):
    model, inputs = decoder(), prompts()
    expected = model.generate(**inputs, generation_config=how())
    monkeypatch.setattr(type(model), "_supports_default_dynamic_cache", lambda self: False)
    seen = batches(model)
    assert torch.equal(generate(model, 2, **inputs, generation_config=how()), expected)
    assert set(seen) == {ROWS}


def test_the_model_is_left_as_it_was():
    model = decoder()
    with pytest.raises(RuntimeError, match="out"), compacting(model, 4):
        assert "generate" in vars(model)
        raise RuntimeError("out")
    assert "generate" not in vars(model)


class _GRPO(Compacting, GRPOTrainer):
    compact_every = 2


@pytest.mark.parametrize("every", [0, 2])
@pytest.mark.parametrize("kind", [BPPOTrainer, _GRPO])
def test_trainers_sample_that_way(tmp_path, kind, every):
    words = tokenizer()
    torch.manual_seed(5)
    model = small_model(words, hidden=32, layers=1)
    config, own = (BPPOConfig, {"compact_every": every, "schedule": "none"}) if kind is BPPOTrainer else (GRPOConfig, {})
    args = config(
        str(tmp_path), max_steps=1, num_generations=4, per_device_train_batch_size=16, max_completion_length=60, bf16=False,
        gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True, seed=3, **own,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": e.prompt} for e in Arithmetic().examples("train", 8)])
    trainer = kind(model, lambda completions, **_: [float(len(c) % 2) for c in completions], args, train_dataset=data,
                   processing_class=words)  # fmt: skip
    trainer.compact_every = every
    seen = batches(model)
    trainer._generate_single_turn([words(e.prompt)["input_ids"] for e in Arithmetic().examples("train", 16)], None, {}, 4)
    assert seen[0] == 16
    assert (seen[-1] < 16) == bool(every)
