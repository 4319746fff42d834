"""Tasks, runs and commands of reinforcement learning, and the language head as a Hugging Face model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made import SMALL

pytest.importorskip("trl", reason="the extra 'rl' is not installed")

from transformers import GenerationConfig

from ruyicam.cloud.bppo.generation import generate
from ruyicam.cloud.bppo.run import RLConfig, agreed, evaluate, run_rl
from ruyicam.cloud.bppo.start import small_model, supervised_start
from ruyicam.cloud.bppo.tasks import GSM8K, Arithmetic
from ruyicam.cloud.bppo.tasks.arithmetic import tokenizer as arithmetic_tokenizer
from ruyicam.cloud.bppo.tasks.behaviour import Behaviour
from ruyicam.cloud.bppo.tasks.gsm8k import final_number
from ruyicam.cloud.data.scoring import WORTH, report_reward
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family
from ruyicam.cloud.family.reporter import Reporter, ReporterTokenizer, prompt_of
from ruyicam.cloud.family.text import TextHead
from ruyicam.cloud.family.vocabulary import REPORT, Report, tokenizer
from ruyicam.export.bench_rl import Bench, bench_rl

RUYICAM = Path(sys.executable).with_name("ruyicam")
SAID = '{"what":["push","fall"],"who":[1,2],"when":[0.5,1.9],"why":"person 1 pushes, then person 2 falls"}'


# --- Tasks ----------------------------------------------------------------------------------------------------------------


def test_arithmetic_is_the_same_every_time_and_parts_do_not_meet():
    task, words = Arithmetic(terms=4), arithmetic_tokenizer()
    train, test = task.examples("train", 10_000), task.examples("test", 10_000)
    assert len(train) + len(test) == 9**4 and not {e.prompt for e in train} & {e.prompt for e in test}
    assert train[:50] == task.examples("train", 50)
    for e in train[:200]:
        ids = words(e.demonstration)["input_ids"]
        assert words.decode(ids) == e.demonstration and words.unk_token_id not in ids and len(ids) < task.max_tokens
    assert task.reward("so 1+2=3. answer 3.", "3") == 1 and task.reward("answer 3. answer 4.", "3") == 0
    assert task.reward("", "3") == task.reward("answer 13", "3") == 0


def test_gsm8k_reads_the_public_format(tmp_path):
    rows = [
        {"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"},
        {"question": "A price?", "answer": "much\n#### 1,200.50"},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    task = GSM8K(tmp_path)
    first, second = task.examples("train", 5)
    assert "Two and two?" in first.prompt and (first.answer, second.answer) == ("4.0", "1200.5")
    assert task.reward("so it is\n#### 4", first.answer) == 1 and task.reward("#### $1,200.5 in all", second.answer) == 1
    assert (
        task.reward("#### 5, not 4", first.answer)
        == task.reward("no idea", first.answer)
        == task.reward("####", first.answer)
        == 0
    )
    assert final_number("first 3, then -7") == -7
    assert len(task.examples("train", 1)) == 1
    for text, says in (("{}", "line 1"), ('{"question": "a", "answer": "4"}', "####"), ("[", "expected"), ("", "no example")):
        (tmp_path / "test.jsonl").write_text(text)
        with pytest.raises(RuyicamError, match=says) as raised:
            task.examples("test", 5)
        assert raised.value.code == Exit.SOURCE and "\n" not in str(raised.value)
    with pytest.raises(RuyicamError, match="cannot read"):
        GSM8K(tmp_path / "none").examples("test", 1)


def test_a_report_is_worth_its_parts():
    wanted = Report.model_validate_json(SAID)
    assert report_reward(SAID, wanted) == pytest.approx(1)
    assert report_reward(SAID.replace('[1,2],"when"', '[1],"when"'), wanted) == pytest.approx(1 - WORTH["who"] / 3)
    swapped = SAID.replace('"push","fall"', '"fall","push"')
    assert report_reward(swapped, wanted) == pytest.approx(1 - WORTH["order"])
    # Half of the 15 ticks.
    assert report_reward(SAID.replace("1.9", "1.2"), wanted) == pytest.approx(1 - WORTH["when"] * (1 - 8 / 15))
    calm = SAID.replace('"push","fall"', '"calm"').replace("[1,2]", "[]")
    assert report_reward(calm, wanted) == pytest.approx(WORTH["form"] + WORTH["when"])
    for text in ("", "{", SAID[:-1], SAID + "x", SAID.replace("push", "dance"), SAID.replace('"}', '","sure":1.0}')):
        assert report_reward(text, wanted) == 0


# --- The language head ----------------------------------------------------------------------------------------------------


def test_the_reporter_says_what_the_head_says():
    torch.manual_seed(2)
    head = TextHead(SMALL).eval()
    windows = torch.randn(3, SMALL.window, SMALL.trunk.hidden_size)
    reporter = Reporter.of_head(head, windows).eval()
    words = ReporterTokenizer.of_family(SMALL.window)
    asked = [REPORT, "how many people are there?", REPORT]
    inputs = words([prompt_of(i, q) for i, q in enumerate(asked)], padding=True, return_tensors="pt")
    assert inputs["attention_mask"][0].sum() < inputs["attention_mask"][1].sum()
    said = reporter.generate(**inputs, do_sample=False, max_new_tokens=20, pad_token_id=0)[:, inputs["input_ids"].shape[1] :]
    config = GenerationConfig(max_new_tokens=20, eos_token_id=words.eos_token_id, pad_token_id=0)
    parts = generate(reporter, 3, inputs["input_ids"], inputs["attention_mask"], config)
    assert torch.equal(parts[:, inputs["input_ids"].shape[1] :], said)
    for i, question in enumerate(asked):
        wanted = head._decode(windows[i : i + 1], question, None, 20)[0][0]
        assert said[i].tolist()[: len(wanted)] == wanted
        # The same log-probabilities, where all is scored at once as in training.
        ids = torch.tensor([tokenizer()(question)["input_ids"] + wanted])
        a = head(windows[i : i + 1], ids, torch.zeros_like(ids))
        prompt = words(prompt_of(i, question))["input_ids"]
        b = reporter(input_ids=torch.tensor([prompt + wanted])).logits[:, SMALL.window :]
        assert torch.allclose(a, b, atol=1e-4)
    other = TextHead(SMALL)
    reporter.copy_to(other)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in head.state_dict().items())


def test_behaviour_reasoning_trains_the_head_alone(tmp_path):
    family = Family(SMALL).eval()
    task = Behaviour(family, {"train": 6, "test": 4}, tmp_path / "cache", reads=2)
    train, test = task.examples("train", 999), task.examples("test", 999)
    assert {e.prompt for e in train}.isdisjoint(e.prompt for e in test)
    # Six scenes, released twice, as each exit reads them.
    assert sum(e.answer.startswith("{") for e in train) == 6 * 2 * 3 and sum(e.answer.startswith("{") for e in test) == 4
    assert all(task.reward(e.answer, e.answer) == pytest.approx(1) for e in train + test)
    assert task.reward("yes", "no") == 0
    reports = Behaviour(family, task.scenes, tmp_path / "cache", reads=2, questions=0)
    assert [e.answer for e in reports.examples("train", 999)] == [e.answer for e in train if e.answer.startswith("{")]
    assert [e.answer for e in reports.examples("test", 999)] == [e.answer for e in test]
    model, words = task.model()
    before = {k: v.clone() for k, v in family.state_dict().items()}
    # Whatever is longer is better, so that groups of an untrained head differ.
    task.reward = lambda completion, answer: float(len(completion) % 2)
    task.max_tokens = 12
    config = RLConfig(steps=2, prompts=2, samples=4, micro_batch=4, learning_rate=1e-2, schedule="none")
    trainer, history = run_rl(config, task, model, words, tmp_path / "run")
    assert len(history) == 2 and sum(r["bppo/tokens_updated"] for r in history) > 0
    trainer.model.copy_to(family.reasoner.text)
    changed = {k for k, v in family.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(k.startswith("reasoner.text.") for k in changed)


# --- Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(1)
    words = arithmetic_tokenizer()
    small_model(words, hidden=32, layers=1).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_supervised_start_learns_the_demonstrations(tmp_path, capfd):
    task, words = Arithmetic(terms=2), arithmetic_tokenizer()
    supervised_start(task, words, tmp_path, 128, 3, examples=64, epochs=20)
    # That is where the command's own JSON goes.
    assert capfd.readouterr().out == ""
    model, words = load(tmp_path)
    text = [words(e.prompt + e.demonstration, return_tensors="pt")["input_ids"] for e in task.examples("train", 16)]

    def loss(m) -> float:
        return sum(float(m(input_ids=ids, labels=ids).loss) for ids in text) / len(text)

    with torch.no_grad():
        assert loss(model) < 0.8 * loss(small_model(words, 128, 3).eval())


class Odd(Arithmetic):
    """Right by the last sign, so that an untrained model is now right and now wrong."""

    max_tokens = 10

    def reward(self, completion, answer):
        return float(len(completion) % 2)


def load(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("algorithm", ["bppo", "grpo"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, tiny, algorithm):
    config = RLConfig(algorithm=algorithm, steps=4, prompts=2, samples=4, micro_batch=4, learning_rate=1e-2, save_every=1)
    whole, said = run_rl(config, Odd(), *load(tiny), tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(row):
        if row["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        run_rl(config, Odd(), *load(tiny), tmp_path / "cut", every=kill)
    again, resaid = run_rl(config, Odd(), *load(tiny), tmp_path / "cut")
    assert [r["step"] for r in resaid] == [1, 2, 3, 4]
    assert [r["reward"] for r in said] == [r["reward"] for r in resaid]
    state = again.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in whole.model.state_dict().items())
    assert list((tmp_path / "whole" / "tensorboard").glob("events*"))
    with pytest.raises(RuyicamError, match=r"learning_rate = 0\.01, not 0\.1") as raised:
        run_rl(config.model_copy(update={"learning_rate": 0.1}), Odd(), *load(tiny), tmp_path / "cut")
    assert raised.value.code == Exit.USAGE


def test_evaluation_is_repeatable_and_leaves_the_random_state_alone(tiny):
    model, words = load(tiny)
    state = torch.get_rng_state()
    said = evaluate(Odd(), model, words, 8)
    assert said == evaluate(Odd(), model, words, 8)
    seen = []
    many = evaluate(Odd(), model, words, 8, consensus=3, progress=lambda done, of: seen.append((done, of)))
    # A sampled and a greedy response each, and three more.
    assert seen == sorted(seen) and seen[-1] == (40, 40)
    assert 0 <= many.pop("consensus") <= 1 and many == said
    assert torch.equal(state, torch.get_rng_state())


def test_many_responses_agree_on_what_is_worth_most_by_all_of_them(tmp_path):
    sums = Arithmetic()
    said = ["i think it is about 3. answer 4.", "1+2=3. answer 3.", "answer 3.", "who knows", "answer 4. answer 3."]
    assert [sums.answer_of(s) for s in said] == ["4", "3", "3", None, "3"]
    assert agreed(sums, said) == said[1] and agreed(sums, said[3:4]) == said[3]
    task = Behaviour(Family(SMALL).eval(), {"test": 12}, tmp_path / "cache")
    reports = sorted({e.answer for e in task.examples("test", 999) if e.answer.startswith("{")})
    few = [*reports[:3], reports[1], "{", "yes"]
    assert [task.answer_of(r) for r in few] == [*few[:4], None, "yes"]
    worth = {r: sum(task.reward(r, a) for a in few if a != "{") for r in few}
    assert agreed(task, few) == max(few, key=worth.get)


def test_rl_and_bench_commands(tmp_path, tiny, refused):
    def run(*arguments):
        return subprocess.run([RUYICAM, *map(str, arguments)], capture_output=True, text=True, timeout=280)

    small = ("--task", "arithmetic", "--model", tiny, "--prompts", 2, "--samples", 4, "--micro-batch", 4, "--tests", 8)
    done = run("rl", *small, "--out", tmp_path / "run", "--steps", 2, "--temperature", 0.5, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "rl.json").read_text())["temperature"] == 0.5
    result = json.loads(done.stdout)
    assert result["steps"] == 2 and 0 <= result["after"]["sampled"] <= 1
    load(tmp_path / "run" / "model")
    assert "<img" in (tmp_path / "run" / "report.html").read_text()
    done = run("bench", "rl", *small, "--out", tmp_path / "bench", "--steps", 5, "--seeds", 1, "--ablation-seeds", 0,
               "--learning-rate", 1e-4, "--target", 0, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"time_to_target_s", "update_s", "generate_s", "reward", "length"} <= result["grpo"].keys() & result["bppo"].keys()
    assert result["seeds"] == 1 and result["ratio"]["time_to_target"] > 0 and result["ratio"]["update"] > 0
    for arguments, says in (
        (("--task", "chess"), "--task is chess, expected behaviour, gsm8k or arithmetic"),
        (("--task", "gsm8k"), "needs --model"),
        (("--task", "arithmetic", "--model", tmp_path), "model"),
        ((*small, "--samples", 3, "--micro-batch", 4), "expected a multiple of the micro-batch"),
        ((*small, "--prefix-ratio", 2), "--prefix-ratio"),
        ((*small, "--temperature", 0), "--temperature: Input should be greater than 0"),
        ((*small, "--consensus", 1), "--consensus is 1, expected 0 or from 2"),
    ):
        code, said = refused("rl", *arguments, "--out", tmp_path / "bad")
        assert code == Exit.USAGE and len(said.strip().splitlines()) == 1 and says in said, said


def test_the_bench_runs_both_and_goes_on_where_it_was(tmp_path, tiny):
    base = RLConfig(steps=2, prompts=2, samples=4, micro_batch=4, learning_rate=1e-3)
    seen = []

    def run() -> dict:
        bench = Bench(Odd(), *load(tiny), tmp_path, base, target=0.0, tests=8)
        return bench_rl(bench, 1, lambda what, done, of: seen.append((what, done, of)), 0, search=False, bppo_steps=4)

    result = run()
    assert seen == [("grpo, seed 0", i, 2) for i in (1, 2)] + [("bppo, seed 0", i, 4) for i in (1, 2, 3, 4)]
    assert (result["grpo"]["steps"], result["bppo"]["steps"]) == (2, 4)
    # GRPO updates on all that it samples, BPPO on a part of two responses in four at most.
    assert result["grpo"]["tokens_updated"] > 2 * result["bppo"]["tokens_updated"] > 0
    assert result["ratio"]["reward_difference"] == result["bppo"]["reward"] - result["grpo"]["reward"]
    assert (tmp_path / "report.html").exists()
    seen.clear()
    assert run()["bppo"] == result["bppo"] and seen == []


def test_demonstrations_check_as_often_as_they_are_told_to():
    told = {share: [e.demonstration for e in Arithmetic(checked=share).examples("train", 2000)] for share in (0.0, 0.75)}
    worked = [t for t in told[0.75] if "+" in t]
    assert not any("check" in t for t in told[0.0])
    assert abs(sum("check" in t for t in worked) / len(worked) - 0.75) < 0.04
