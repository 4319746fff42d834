"""`ruyicam rl`: reinforcement learning with rewards that a program checks."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ruyicam.cloud.errors import Exit, RuyicamError, first_line
from ruyicam.cloud.files import write_whole

from .options import CacheOption, JsonFlag, console, show_table

# Hidden size and layers of arithmetic's new model.
SMALL = (128, 3)
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def load_trl() -> None:
    """Quiets the libraries of the extra; RuyicamError(USAGE) with one line where it is not installed."""
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise RuyicamError(Exit.USAGE, f"{error}; reinforcement learning needs the extra: pip install 'ruyicam[rl]'") from error
    from transformers.utils.logging import disable_progress_bar

    # The command has a bar of its own, and what these libraries say to their callers is not for its user.
    disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers|trl|torch")


def rl_config(**fields):
    """The RLConfig of these fields; RuyicamError(USAGE) with one line that names the option which does not fit."""
    from pydantic import ValidationError

    from ruyicam.cloud.bppo.run import RLConfig

    try:
        return RLConfig(**fields)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = f"--{wrong['loc'][0]}: ".replace("_", "-") if wrong["loc"] else ""
        raise RuyicamError(Exit.USAGE, option + wrong["msg"].removeprefix("Value error, ")) from error


def load_language_model(path: str):
    """(model, tokenizer) of a Hugging Face folder or name, on this process's GPU if it has one; RuyicamError(USAGE) with one
    line if it is none."""
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(PartialState().device)
        return model, AutoTokenizer.from_pretrained(path, padding_side="left")
    except (OSError, ValueError) as error:
        raise RuyicamError(Exit.USAGE, f"model {path}: {first_line(error)}") from error


def arithmetic_start(task, out: Path, bar: Progress, hidden: int, layers: int):
    """(model, tokenizer) of the supervised start for arithmetic, which is trained once and kept in `out`."""
    from transformers import TrainerCallback

    from ruyicam.cloud.bppo.start import supervised_start
    from ruyicam.cloud.bppo.tasks.arithmetic import tokenizer

    if not (out / "model.safetensors").exists():
        line = bar.add_task("supervised start", total=None)

        class Shown(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                bar.update(line, completed=state.global_step, total=state.max_steps)

        supervised_start(task, tokenizer(), out, hidden=hidden, layers=layers, callbacks=[Shown()])
    return load_language_model(str(out))


def rl(
    task: Annotated[str, typer.Option(help="behaviour, gsm8k or arithmetic")],
    out: Annotated[Path, typer.Option(help="folder of the run; one that is there already is continued")],
    model: Annotated[
        str | None,
        typer.Option(
            help="behaviour: a checkpoint folder; gsm8k: a Hugging Face model; arithmetic: the same, or none: a new small one"
        ),
    ] = None,
    algorithm: Annotated[str, typer.Option(help="bppo, or grpo (TRL's own)")] = "bppo",
    data: Annotated[Path | None, typer.Option(help="gsm8k: folder of train.jsonl and test.jsonl")] = None,
    steps: Annotated[int, typer.Option(help="optimiser steps", min=1)] = 100,
    prompts: Annotated[int, typer.Option(help="prompts of a step", min=1)] = 16,
    samples: Annotated[int, typer.Option(help="responses of a group", min=2)] = 8,
    micro_batch: Annotated[int, typer.Option(help="responses of one forward pass", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-4,
    loss: Annotated[
        str, typer.Option(help="TRL's loss_type: dapo (tokens weigh alike), grpo (responses do), bnpo or dr_grpo")
    ] = "dapo",
    warmup_steps: Annotated[int, typer.Option(min=0)] = 0,
    temperature: Annotated[
        float, typer.Option(help="at which responses to learn from are sampled; tests are sampled at 1", min=0)
    ] = 1.0,
    selection: Annotated[str, typer.Option(help="bppo: shortest, random, longest or all")] = "shortest",
    pair_weight: Annotated[str, typer.Option(help="bppo: class or sample")] = "class",
    prefix: Annotated[str, typer.Option(help="bppo: ratio, shorter or full")] = "ratio",
    prefix_ratio: Annotated[float, typer.Option(help="bppo: share of a response that is updated on")] = 0.75,
    schedule: Annotated[str, typer.Option(help="bppo: decided, pair or none")] = "decided",
    first_round: Annotated[int | None, typer.Option(help="bppo: responses of a round; default: half of them")] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="bppo: correct is above the group's mean, not the task's threshold")
    ] = False,
    compact_every: Annotated[
        int, typer.Option(help="tokens after which responses that have ended leave the batch; 0: never", min=0)
    ] = 16,
    scenes: Annotated[int, typer.Option(help="behaviour: how many scenes to learn from", min=1)] = 1000,
    reads: Annotated[
        int,
        typer.Option(help="behaviour: how often each of these scenes is released, with fresh noise and other questions", min=1),
    ] = 4,
    questions: Annotated[
        int | None, typer.Option(help="behaviour: questions to learn from beside each report; default: two", min=0)
    ] = None,
    tests: Annotated[int, typer.Option(help="test prompts that are scored before and after", min=1)] = 300,
    consensus: Annotated[
        int,
        typer.Option(
            help="also score, before and after, what so many sampled responses to a test prompt agree on; 0: no", min=0
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="compute in bfloat16")] = False,
    lora: Annotated[int, typer.Option(help="rank of a LoRA adapter (needs peft); 0: all weights", min=0)] = 0,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Reinforcement learning of a text model, or of the family's language head, with BPPO or GRPO."""
    load_trl()
    from ruyicam.cloud.bppo.report import write_report
    from ruyicam.cloud.bppo.run import RLConfig, evaluate, run_rl
    from ruyicam.cloud.memory import keep_freed_memory

    if consensus == 1:
        raise RuyicamError(Exit.USAGE, "--consensus is 1, expected 0 or from 2: one response agrees with itself")
    if lora and task == "behaviour":
        raise RuyicamError(Exit.USAGE, "--lora is for language models; the family's head is small, leave it out")
    given = locals()
    fields = {name: given[name] for name in RLConfig.model_fields if name in given}
    # Keys and values grow by a token at a time, and what held them is freed as often.
    keep_freed_memory()
    config = rl_config(**fields, save_every=max(1, min(50, steps // 4)))
    with Progress(*COLUMNS, console=console, transient=True, disable=as_json) as bar:
        kind, network, words, adopt = load_task(
            task, model, data, scenes, tests, cache, out, bar, reads=reads, seed=seed, questions=questions
        )

        def score(network, when: str) -> dict[str, float]:
            line = bar.add_task(f"test prompts {when}", total=None)
            return evaluate(
                kind, network, words, tests, consensus=consensus, progress=lambda n, of: bar.update(line, completed=n, total=of)
            )

        before = score(network, "before")
        line = bar.add_task(f"{algorithm} on {task}", total=steps)

        def every(row: dict) -> None:
            bar.update(line, completed=row["step"], description=f"{algorithm} on {task}: reward {row['reward']:.3f}")

        adapter = None
        if lora:
            from peft import LoraConfig

            adapter = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer, history = run_rl(config, kind, network, words, out, every=every, peft_config=adapter)
        after = score(trainer.model, "after")
    adopt(trainer)
    if not trainer.is_world_process_zero():
        return
    write_report(out / "report.html", f"{algorithm} on {task}", history, before, after)
    result = {"task": task, "algorithm": algorithm, "steps": len(history), "before": before, "after": after}
    write_whole(out / "result.json", json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result))
        return
    show_table(
        f"{algorithm} on {task}, {len(history)} steps; {before['count']} test prompts",
        ["", "before", "after"],
        [[name, f"{before[name]:.3f}", f"{after[name]:.3f}"] for name in after if name != "count"],
    )
    console.print(f"wrote {out / 'model'} and {out / 'report.html'}")


def load_task(
    name: str,
    model: str | None,
    data: Path | None,
    scenes: int,
    tests: int,
    cache: Path | None,
    out: Path,
    bar: Progress,
    checked: float | None = None,
    reads: int = 1,
    seed: int = 0,
    questions: int | None = None,
    size: tuple[int, int] = SMALL,
):
    """(task, model, tokenizer, what to do with the trained model). checked: as Arithmetic has it, None: as it is there; reads,
    seed, questions: as Behaviour has them; size: hidden size and layers of arithmetic's new model.
    """
    from ruyicam.cloud.bppo.tasks import GSM8K, Arithmetic

    def save(trainer) -> None:
        trainer.save_model(str(out / "model"))

    if name == "arithmetic":
        task = Arithmetic() if checked is None else Arithmetic(checked=checked)
        start = out / (f"start-{task.checked:g}" + ("" if size == SMALL else f"-{size[0]}x{size[1]}"))
        network, words = load_language_model(model) if model else arithmetic_start(task, start, bar, *size)
        return task, network, words, save
    if name == "gsm8k":
        if model is None or data is None:
            raise RuyicamError(
                Exit.USAGE,
                "--task gsm8k needs --model, a Hugging Face model, and --data, a folder of train.jsonl and test.jsonl",
            )
        network, words = load_language_model(model)
        return GSM8K(data), network, words, save
    if name != "behaviour":
        raise RuyicamError(Exit.USAGE, f"--task is {name}, expected behaviour, gsm8k or arithmetic")
    from accelerate import PartialState

    from ruyicam.cloud.bppo.tasks.behaviour import Behaviour
    from ruyicam.cloud.data.store import default_cache
    from ruyicam.cloud.family.load import load_family

    from .defaults import default_model

    family = load_family(Path(model) if model else default_model())
    parts = {"train": scenes, "test": -(-tests // 2)}
    task = Behaviour(family, parts, cache or default_cache(), reads=reads, seed=seed, questions=questions)
    line = bar.add_task("scenes", total=None)
    task.prepare(lambda done, of: bar.update(line, completed=done, total=of, description="generating scenes"))
    bar.remove_task(line)
    network, words = task.model()
    network.to(PartialState().device)

    def adopt(trainer) -> None:
        trainer.accelerator.unwrap_model(trainer.model).copy_to(family.reasoner.text)
        family.save_pretrained(out / "model")

    return task, network, words, adopt
