"""One run: co-trains every tier over its phases, saves after each epoch, resumes bit for bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import FullyShardedDataParallelPlugin
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from ruyicam.cloud.data.batches import Batch, Mixed
from ruyicam.cloud.data.clips import Clip
from ruyicam.cloud.data.groups import source_of
from ruyicam.cloud.data.store import Store, Windows, default_cache
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family
from ruyicam.cloud.files import write_whole
from ruyicam.cloud.memory import keep_freed_memory

from .ask import ask_family
from .config import PhaseConfig, RunConfig, TrainConfig
from .ema import Ema
from .losses import LABELS, Trainee
from .report import write_report
from .validate import validate

STATE, HISTORY = "state", "history.json"


def withheld_ticks(batch: int, window: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """Which ticks the gate let out, bool [N, W]: all of them, or (in `share` of the rows) random runs only."""
    released = torch.ones(batch, window, dtype=torch.bool)
    for row in range(batch):
        if torch.rand((), generator=generator) < share:
            a, b = sorted(torch.randint(0, window + 1, (2,), generator=generator).tolist())
            released[row, a:b] = False
            released[row] |= torch.rand(window, generator=generator) < 0.1
    return released


def hide_beginning(exists: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A camera just switched on has seen the last few ticks only: in 2 of 10 rows hides some of the first ones."""
    exists = exists.clone()
    for row in range(len(exists)):
        if torch.rand((), generator=generator) < 0.2:
            exists[row, : int(torch.randint(0, exists.shape[1] // 2, (), generator=generator))] = False
    return exists


@dataclass
class _Progress:
    """How far a run is; part of its state."""

    config: str
    epoch: int = 0

    def state_dict(self) -> dict:
        return {"config": self.config, "epoch": self.epoch}

    def load_state_dict(self, state: dict) -> None:
        if state["config"] != self.config:
            raise RuyicamError(
                Exit.USAGE, "the run that is there was made with another configuration; choose a new --out or remove it"
            )
        self.epoch = state["epoch"]


def steps_of(phase: PhaseConfig, clips: int, scenes: int) -> int:
    """Steps of one epoch of a phase, with so many clips and scenes to learn from."""
    return math.ceil(clips / phase.clips) if phase.clips else math.ceil(scenes / phase.scenes)


def _factor(step: int, plan: list[tuple[PhaseConfig, int]], warmup: int) -> float:
    """Learning rate at a step of the whole run: every phase warms up and falls to 0 along a cosine."""
    for phase, steps in plan:
        total = phase.epochs * steps
        if step < total:
            warm = min(warmup, total // 4)
            shape = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            return phase.learning_rate * shape
        step -= total
    return 0.0


def _accelerator(config: RunConfig) -> Accelerator:
    plugin = None
    if config.train.sharding == "fsdp2":
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="NO_WRAP", reshard_after_forward=True)
    # Phases without scenes do not use the text head.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision=config.train.precision, fsdp_plugin=plugin, kwargs_handlers=[unused])


def _move(batch: Batch, device: torch.device) -> Batch:
    return {k: v.to(device, non_blocking=True) for k, v in batch.items()}


def untrained(config: RunConfig, detector: Path | None = None, init: Path | None = None) -> Family:
    """The model that a run begins with. RuyicamError(USAGE) if `detector` or `init` cannot be read or do not fit."""
    torch.manual_seed(config.train.seed)
    family = Family(config.model)
    if init:
        return _begin_from(init, config)
    if detector:
        try:
            family.encoder.backbone.load_detector(detector)
        except (OSError, ValueError) as error:
            raise RuyicamError(Exit.USAGE, f"detector {detector}: {error}") from error
    return family


def prepare(
    config: RunConfig, family: Family, clips: list[Clip], cache: Path, console_progress: bool = True
) -> tuple[Windows | None, list[Windows]]:
    """Builds what is missing of the material and opens it: (all scenes or None, windows of each clip)."""
    store = Store(cache, config.model, family.encoder.cpu())
    wanted = store.clips(clips, config.train.views) if clips else []
    scenes = store.scenes(0, config.train.scenes, config.train.identities) if config.train.scenes else []
    bars = Progress(
        TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), disable=not console_progress
    )
    with bars:
        task = bars.add_task("shards", total=None)
        paths = store.build(scenes + wanted, progress=lambda done, of: bars.update(task, completed=done, total=of))
    return (
        Windows(paths[: len(scenes)]) if scenes else None,
        [Windows([p]) for p in paths[len(scenes) :]],
    )


def train(
    config: RunConfig,
    clips: list[Clip],
    out: Path,
    val: list[Clip] | None = None,
    detector: Path | None = None,
    init: Path | None = None,
    cache: Path | None = None,
    quiet: bool = False,
    report: bool = True,
) -> Family:
    """Trains into `out` and returns the averaged model: config.json, model.safetensors, one folder per phase,
    history.json, report.html (unless `report` is off), TensorBoard logs, and the state from which an interrupted run goes on.

    `detector`: YOLOX-nano as ONNX, the backbone's weights. `init`: a checkpoint to begin from; phases of scenes alone
    are then left out, and the rest is what a whole run makes of it. A resumed run gives the same, bit for bit, on the
    same machine with as many threads and processes.
    RuyicamError(USAGE) if what is in `out` belongs to another configuration, a phase lacks its clips, or none is left.
    """
    t = config.train
    keep_freed_memory()
    if t.threads:
        torch.set_num_threads(t.threads)
    accelerator = _accelerator(config)
    main = accelerator.is_main_process
    family = untrained(config, detector, init)
    phases = tuple(p for p in config.taught if p.clips or not init)
    if not phases:
        raise RuyicamError(Exit.USAGE, "no phase is left to train; with --init, or without text, expected one with clips")
    if any(p.clips for p in phases) and not clips:
        raise RuyicamError(Exit.USAGE, "the configuration has a phase with clips; give --data DIR")
    with accelerator.main_process_first():
        scenes, windows = prepare(config, family, clips, cache or default_cache(), main and not quiet)
    mixed = {
        p.name: Mixed(scenes, windows, [(c.label, source_of(c.path)) for c in clips], t.label_weights, [t.seed, 1, i])
        for i, p in enumerate(config.phases)
    }
    if not init:
        _fit_scale(family, scenes, windows)
    trainee = Trainee(family, config.loss, t.tiers, t.identities)
    family.reasoner.trunk.gradient_checkpointing = t.gradient_checkpointing
    trained = [p for p in trainee.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": t.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=1.0,
    )
    model, optimizer = accelerator.prepare(trainee, optimizer)
    ema = Ema(model, t.ema)
    plan = [(p, steps_of(p, len(clips), len(scenes) if scenes else 0)) for p in phases]
    epochs = [(p, steps, e) for p, steps in plan for e in range(p.epochs)]
    # Counted over all phases, so that one that begins from `init` draws the same random numbers as in the whole run.
    left_out = sum(p.epochs for p in config.phases) - len(epochs)
    progress = _Progress(f"{config.model_dump_json()} {len(clips)} {init is not None}")
    accelerator.register_for_checkpointing(ema, progress)
    out.mkdir(parents=True, exist_ok=True)
    history: list[dict] = []
    _recover(out)
    if (out / STATE).exists():
        accelerator.load_state(str(out / STATE))
        history = json.loads((out / HISTORY).read_text())[: progress.epoch]
    done = sum(steps for _, steps, _ in epochs[: progress.epoch])
    bars = Progress(
        TextColumn("{task.fields[phase]} epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=quiet or not main,
    )
    with bars, SummaryWriter(str(out / "log")) as writer:
        bar = bars.add_task("train", total=sum(s for _, s, _ in epochs), completed=done, phase="", epoch="", note="")
        for number in range(progress.epoch, len(epochs)):
            phase, steps, epoch = epochs[number]
            bars.update(bar, phase=phase.name, epoch=epoch + 1)
            model.train()
            trainee.config = config.loss_of(phase)
            if epoch == 0:
                # A phase begins from what the one before it has saved.
                ema.commit()
                optimizer.optimizer.state.clear()
            # Every epoch starts its own stream of random numbers, so a resumed run draws the same ones.
            torch.manual_seed(int(np.random.default_rng([t.seed, 2, left_out + number]).integers(2**62)))
            generator = torch.Generator().manual_seed(torch.initial_seed() + accelerator.process_index)
            if trainee.adversaries is not None and epoch % t.adversary_reset == 0:
                _renew(trainee.adversaries, config, accelerator.device)
            sums: dict[str, list[float]] = {}
            # Of the processor too: on a machine that does other things only this can be compared.
            began, began_cpu = time.monotonic(), time.process_time()
            shape = (
                steps,
                phase.clips,
                phase.scenes,
                config.model,
                accelerator.process_index,
                accelerator.num_processes,
            )
            for batch in mixed[phase.name].epoch(epoch, *shape):
                exists = hide_beginning(batch["exists"], generator)
                released = withheld_ticks(*exists.shape, t.release_dropout, generator)
                # One exit speaks per step, the deepest every other time.
                others = trainee.tiers[:-1]
                pick = int(torch.randint(0, 2 * max(len(others), 1), (), generator=generator))
                speaker = others[pick] if pick < len(others) else trainee.tiers[-1]
                speaker = LABELS if phase.speech else speaker
                for group in optimizer.param_groups:
                    group["lr"] = _factor(done, plan, t.warmup_steps)
                with accelerator.autocast():
                    loss, logged = model(
                        _move(batch, accelerator.device),
                        exists.to(accelerator.device),
                        released.to(accelerator.device),
                        speaker,
                    )
                optimizer.zero_grad(set_to_none=True)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                ema.update()
                done += 1
                for name, value in (logged | {"total": loss.detach()}).items():
                    sums.setdefault(name, []).append(float(value))
                bars.update(bar, advance=1)
            means = {name: float(np.mean(values)) for name, values in sums.items()}
            took = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - began_cpu}
            entry: dict = {"phase": phase.name, "epoch": epoch + 1, "loss": means} | took
            last = epoch + 1 == phase.epochs
            with ema.applied():
                if main and t.sharding == "none" and (last or epoch % 10 == 9):
                    entry |= _examine(family, val, t, cache or default_cache())
                _save(accelerator, model, family, out, phase.name if last else None)
            history.append(entry)
            bars.update(bar, note=f"loss {means['total']:.3f}")
            for name, value in means.items():
                writer.add_scalar(f"loss/{name}", value, number)
            for name, score in entry.get("val", {}).items():
                writer.add_scalar(f"balanced_accuracy/{name}", score["balanced_accuracy"], number)
                bars.console.print(f"{phase.name} {epoch + 1}: {name} balanced accuracy {score['balanced_accuracy']:.3f}")
            for name, score in entry.get("text", {}).items():
                writer.add_scalar(f"exact_match/{name}", score["exact_match"], number)
                bars.console.print(f"{phase.name} {epoch + 1}: {name} exact match {score['exact_match']:.3f}")
            progress.epoch = number + 1
            _keep_state(accelerator, out, history)
    trained_family = Family.from_pretrained(out)
    if main and report:
        write_report(trained_family, history, out / "report.html", val, cache or default_cache())
    return trained_family


def _examine(family: Family, val: list[Clip] | None, config: TrainConfig, cache: Path) -> dict:
    """What the averaged model scores so far, where there is something to score it on; it goes on training."""
    out: dict = {}
    if val:
        out["val"] = validate(family, val, cache, config.threads)["tiers"]
    if config.questions:
        out["text"] = ask_family(family, config.questions, cache, config.threads)["tiers"]
    family.train()
    return out


def _begin_from(init: Path, config: RunConfig) -> Family:
    try:
        family = Family.from_pretrained(init)
    except OSError as error:
        raise RuyicamError(Exit.USAGE, f"init {init}: {error.strerror or error}") from error
    if family.config.model_dump(exclude={"gate"}) != config.model.model_dump(exclude={"gate"}):
        raise RuyicamError(Exit.USAGE, f"init {init} is a model of another shape than the configuration's [model]")
    return family.train()


def _fit_scale(family: Family, scenes: Windows | None, clips: list[Windows]) -> None:
    """Standardises the encoder's maps by what the run sees first."""
    some = [scenes[i] for i in range(0, len(scenes), max(1, len(scenes) // 60))] if scenes else []
    some += [w[1] for w in clips[:: max(1, len(clips) // 60)]]
    family.encoder.fit_scale(torch.cat([w["maps"] for w in some]))


def _renew(adversaries: torch.nn.Module, config: RunConfig, device: torch.device) -> None:
    """Fresh weights in place, so that an optimiser and a wrapper keep what they hold."""
    fresh = type(adversaries)(config.model.features, config.train.identities).to(device)
    with torch.no_grad():
        for p, q in zip(adversaries.parameters(), fresh.parameters(), strict=True):
            p.copy_(q)


def _save(accelerator: Accelerator, model: torch.nn.Module, family: Family, out: Path, phase: str | None) -> None:
    state = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return
    whole = Family(family.config)
    whole.load_state_dict({k.removeprefix("family."): v for k, v in state.items() if k.startswith("family.")})
    for folder in [out] + ([out / f"phase-{phase}"] if phase else []):
        whole.save_pretrained(folder)


def _recover(out: Path) -> None:
    """A run killed between two renames left its state under the other name."""
    if not (out / STATE).exists() and (out / f"{STATE}.old").exists():
        os.replace(out / f"{STATE}.old", out / STATE)


def _keep_state(accelerator: Accelerator, out: Path, history: list[dict]) -> None:
    """The state of an epoch, whole or not at all."""
    partial, old = out / f"{STATE}.partial", out / f"{STATE}.old"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        write_whole(out / HISTORY, json.dumps(history))
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(old, ignore_errors=True)
        if (out / STATE).exists():
            os.replace(out / STATE, old)
        os.replace(partial, out / STATE)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
