"""One run of reinforcement learning: GRPO (TRL's own) or BPPO, resumed where it was interrupted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState
from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.files import write_whole

from . import BPPOConfig, BPPOTrainer
from .clock import StepClock
from .generation import Compacting
from .tasks import Task

# As GRPO samples.
_SAMPLED = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}


class TimedGRPOTrainer(StepClock, Compacting, GRPOTrainer):
    """TRL's GRPO, sampled and timed as BPPO is."""


class RLConfig(BaseModel):
    """What a run is made of; the fields under BPPO mean nothing to GRPO."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    algorithm: Literal["bppo", "grpo"] = "bppo"
    steps: int = Field(100, ge=1)
    prompts: int = Field(16, ge=1, description="prompts of a step")
    samples: int = Field(8, ge=2, description="responses of a group")
    micro_batch: int = Field(32, ge=1, description="responses of one forward pass")
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["linear", "cosine", "constant_with_warmup"] = Field("linear", description="of the learning rate")
    temperature: float = Field(1.0, gt=0)
    loss: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = Field("dapo", description="loss_type of TRL")
    seed: int = Field(0, ge=0)
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_every: int = Field(50, ge=1, description="steps between checkpoints")
    compact_every: int = Field(16, ge=0, description="tokens after which responses that have ended leave the batch; 0: never")
    # BPPO
    selection: Literal["shortest", "random", "longest", "all"] = "shortest"
    pair_weight: Literal["sample", "class"] = "class"
    prefix: Literal["ratio", "tokens", "shorter", "full"] = "ratio"
    prefix_ratio: float = Field(0.75, gt=0, le=1)
    schedule: Literal["decided", "pair", "none"] = "decided"
    first_round: int | None = Field(None, ge=1)
    relative: bool = Field(False, description="correct is above the group's mean, instead of the task's threshold")

    @model_validator(mode="after")
    def _divides(self) -> RLConfig:
        rows = self.prompts * self.samples
        if rows % min(self.micro_batch, rows):
            raise ValueError(
                f"prompts * samples is {rows}, expected a multiple of the micro-batch, which is {self.micro_batch}"
            )
        return self

    def trainer_args(self, task: Task, out: Path, logs: bool = True) -> GRPOConfig:
        """The configuration of the trainer. RuyicamError(USAGE) with one line for what does not fit together."""
        rows = self.prompts * self.samples
        micro = min(self.micro_batch, rows)
        common = dict(
            output_dir=str(out / "checkpoints"),
            max_steps=self.steps,
            num_generations=self.samples,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=rows // micro,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.decay,
            warmup_steps=self.warmup_steps,
            temperature=self.temperature,
            max_completion_length=task.max_tokens,
            loss_type=self.loss,
            disable_dropout=True,
            bf16=self.bf16,
            gradient_checkpointing=self.gradient_checkpointing,
            seed=self.seed,
            data_seed=self.seed,
            logging_steps=1,
            save_strategy="steps" if logs else "no",
            save_steps=self.save_every,
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
        )
        try:
            if self.algorithm == "grpo":
                return GRPOConfig(**common)
            return BPPOConfig(
                **common,
                selection=self.selection,
                correct_threshold=None if self.relative else task.threshold,
                pair_weight=self.pair_weight,
                prefix=self.prefix,
                prefix_ratio=self.prefix_ratio,
                schedule=self.schedule,
                first_round=self.first_round,
            )
        except ValueError as error:
            raise RuyicamError(Exit.USAGE, str(error)) from error


class History(TrainerCallback):
    """Keeps a line per step, on disk too if it is told where, and the seconds of training alone up to it."""

    def __init__(self, path: Path | None, every: Callable[[dict], bool | None]):
        """`every` is called with each line; True ends the training."""
        self.path, self.every = path, every
        self.rows: list[dict] = []
        if path is not None and path.exists():
            # A kill may have torn the last line, which then belongs to a step that is done again.
            self.rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def on_train_begin(self, args, state, control, **kwargs):
        # What came after the checkpoint is done again.
        self.rows = [r for r in self.rows if r["step"] <= state.global_step]
        if self.path is not None and state.is_world_process_zero:
            write_whole(self.path, "".join(json.dumps(r) + "\n" for r in self.rows))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "reward" not in logs:
            return
        before = self.rows[-1]["time_s"] if self.rows else 0.0
        spent = logs["time/generate_s"] + logs["time/update_s"]
        kept = {k: v for k, v in logs.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        self.rows.append({"step": state.global_step, "time_s": before + spent, **kept})
        if self.path is not None and state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
        if self.every(self.rows[-1]):
            control.should_training_stop = True


def make_trainer(
    config: RLConfig,
    task: Task,
    model: PreTrainedModel,
    words: PreTrainedTokenizerBase,
    out: Path,
    history: History,
    logs: bool = True,
    peft_config=None,
):
    """The trainer of one run over the task's training prompts."""
    rows = [{"prompt": e.prompt, "answer": e.answer} for e in task.examples("train", task.train_prompts)]
    kind = BPPOTrainer if config.algorithm == "bppo" else TimedGRPOTrainer
    trainer = kind(
        model,
        task.reward_function(),
        config.trainer_args(task, out, logs),
        train_dataset=Dataset.from_list(rows),
        processing_class=words,
        callbacks=[history],
        peft_config=peft_config,
    )
    trainer.compact_every = config.compact_every
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_rl(
    config: RLConfig,
    task: Task,
    model: PreTrainedModel,
    words: PreTrainedTokenizerBase,
    out: Path,
    every: Callable[[dict], bool | None] = lambda row: None,
    peft_config=None,
) -> tuple[GRPOTrainer, list[dict]]:
    """Trains `model` in place and returns the trainer that did and a line per step.

    Goes on from the last checkpoint in `out`. RuyicamError(USAGE) if that run was configured otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    said = out / "rl.json"
    # How long a run is and how often it is saved may change on the way.
    own = config.model_dump(exclude={"steps", "save_every"})
    if said.exists():
        before = json.loads(said.read_text())
        if different := [k for k in own if before.get(k) != own[k]]:
            k = different[0]
            raise RuyicamError(
                Exit.USAGE, f"{out} holds a run with {k} = {before.get(k)}, not {own[k]}; give another --out, or the same {k}"
            )
    elif PartialState().is_main_process:
        write_whole(said, json.dumps(own, indent=1) + "\n")
    checkpoints = out / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    history = History(out / "history.jsonl", every)
    trainer = make_trainer(config, task, model, words, out, history, True, peft_config)
    trainer.add_callback(TensorBoardCallback(SummaryWriter(str(out / "tensorboard"))))
    trainer.train(resume_from_checkpoint=last)
    return trainer, history.rows


def agreed(task: Task, responses: list[str]) -> str:
    """Of `responses` to one prompt the one that would be worth most on average if any of them, in turn, were right.

    Minimum Bayes risk decoding (Kumar and Byrne 2004); where an answer is right or wrong, a majority vote.
    """
    answers = Counter(a for a in map(task.answer_of, responses) if a is not None)
    return max(dict.fromkeys(responses), key=lambda r: sum(n * task.reward(r, a) for a, n in answers.items()))


@torch.no_grad()
def evaluate(
    task: Task,
    model: PreTrainedModel,
    words: PreTrainedTokenizerBase,
    count: int,
    seed: int = 0,
    batch: int = 64,
    consensus: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, float]:
    """Mean reward of one sampled and of the greedy response to `count` test prompts, and their lengths in tokens.

    Returns {"sampled", "greedy": mean rewards, "length": tokens of a sampled response with its end token, "count"}, and with
    `consensus` "consensus": mean reward of what is `agreed` among so many sampled responses. `progress(done, of)` counts
    responses as they come.
    """
    model.eval()
    examples = task.examples("test", count)
    ends = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    texts: dict[str, list[str]] = {"sampled": [], "greedy": []}
    lengths = []
    of = len(examples) * (len(texts) + consensus)

    def inputs(size: int) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(examples), size):
            prompts = [e.prompt for e in examples[start : start + size]]
            some = words(prompts, padding=True, padding_side="left", return_tensors="pt")
            yield {k: v.to(model.device) for k, v in some.items() if k in ("input_ids", "attention_mask")}

    def respond(name: str, some: dict[str, torch.Tensor], **how) -> torch.Tensor:
        said = model.generate(**some, max_new_tokens=task.max_tokens, **ends, **how)[:, some["input_ids"].shape[1] :]
        texts.setdefault(name, []).extend(words.batch_decode(said, skip_special_tokens=True))
        progress(sum(map(len, texts.values())), of)
        return said

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for some in inputs(batch):
            said = respond("sampled", some, **_SAMPLED)
            ended = (said == words.eos_token_id).int()
            lengths += torch.where(ended.any(1), ended.argmax(1) + 1, said.shape[1]).tolist()
            respond("greedy", some, do_sample=False)
        # As many responses at a time as above.
        for some in inputs(max(1, batch // consensus)) if consensus else ():
            respond("many", some, num_return_sequences=consensus, **_SAMPLED)
    if consensus:
        many = texts.pop("many")
        texts["consensus"] = [agreed(task, many[i : i + consensus]) for i in range(0, len(many), consensus)]
    scores = {
        how: sum(task.reward(t, e.answer) for t, e in zip(said, examples, strict=True)) / len(examples)
        for how, said in texts.items()
    }
    return scores | {"length": sum(lengths) / len(lengths), "count": len(examples)}
