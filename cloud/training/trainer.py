"""One run: co-trains every tier, saves after each epoch, resumes bit for bit."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from ruyicam.cloud.data.clips import Clip
from ruyicam.cloud.data.dataset import AugmentedClips, plain_window
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family

from .config import RunConfig, TrainConfig
from .losses import family_loss
from .metrics import tier_scores
from .sampler import BalancedSampler

STATE = "state.pt"


def withheld_ticks(batch: int, window: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """Which ticks the gate let out, bool [B, W]: all of them, or (in `share` of the rows) random runs only."""
    released = torch.ones(batch, window, dtype=torch.bool)
    for row in range(batch):
        if torch.rand((), generator=generator) < share:
            a, b = sorted(torch.randint(0, window + 1, (2,), generator=generator).tolist())
            released[row, a:b] = False
            released[row] |= torch.rand(window, generator=generator) < 0.1
    return released


def hide_beginning(exists: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A camera just switched on has seen the last few ticks only: in 3 of 10 rows hides the first ones."""
    exists = exists.clone()
    for row in range(len(exists)):
        if torch.rand((), generator=generator) < 0.3:
            exists[row, : int(torch.randint(0, exists.shape[1] - 4, (), generator=generator))] = False
    return exists


def mix(
    frames: torch.Tensor, exists: torch.Tensor, targets: torch.Tensor, beta: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mixup (arXiv 1710.09412) of each window with another of the batch; a tick exists where either has one."""
    if beta <= 0:
        return frames, exists, targets
    share = float(rng.beta(beta, beta))
    other = torch.from_numpy(rng.permutation(len(frames)))
    mixed = share * frames.float() + (1 - share) * frames[other].float()
    return mixed, exists | exists[other], share * targets + (1 - share) * targets[other]


def _schedule(config: TrainConfig, steps: int):
    warm, total = config.warmup_epochs * steps, config.epochs * steps

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))

    return factor


def _atomic_save(value: object, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)


@torch.inference_mode()
def validate(model: Family, clips: list[Clip], seed: int = 0) -> dict[str, dict]:
    """Scores of every tier on one plain window per clip: edge on clean features, cloud tiers on noised ones."""
    model.eval()
    frames, exists = zip(*(plain_window(c, model.config) for c in clips), strict=True)
    generator = torch.Generator().manual_seed(seed)
    answers: dict[str, list[int]] = {name: [] for name in model.config.trunk.exits}
    for i in range(0, len(clips), 16):
        x, e = torch.stack(frames[i : i + 16]), torch.stack(exists[i : i + 16])
        clean = model.features(x)
        released = model.reasoner(model.mapping.add_noise(clean, generator), e)
        out = released | {"edge": model.reasoner(clean, e)["edge"]}
        for name, answer in out.items():
            answers[name] += answer.window.argmax(-1).tolist()
    truth = [model.config.labels.index(c.label) for c in clips]
    return {name: tier_scores(truth, said, model.config.labels) for name, said in answers.items()}


def train(
    config: RunConfig, clips: list[Clip], out: Path, val: list[Clip] | None = None, quiet: bool = False
) -> Family:
    """Trains into `out` (config.json, model.safetensors, state.pt, TensorBoard logs) and returns the averaged model.

    Continues from `out/state.pt` if it is there; the result is the same, bit for bit, on the same machine and threads.
    RuyicamError(USAGE) if that state belongs to another configuration.
    """
    t = config.train
    torch.manual_seed(t.seed)
    if t.threads:
        torch.set_num_threads(t.threads)
    model = Family(config.model)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(t.ema), use_buffers=True)
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": t.weight_decay}, {"params": plain, "weight_decay": 0.0}], lr=t.learning_rate
    )
    sampler = BalancedSampler(clips, t.label_weights, t.seed)
    steps = math.ceil(len(clips) / t.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(t, steps))
    out.mkdir(parents=True, exist_ok=True)
    first = 0
    if (out / STATE).exists():
        state = torch.load(out / STATE, weights_only=True)
        if state["config"] != config.model_dump_json():
            raise RuyicamError(
                Exit.USAGE, f"{out / STATE} was made with another configuration; choose a new --out or remove it"
            )
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["epoch"]
    if first >= t.epochs:
        return Family.from_pretrained(out)
    loader = DataLoader(AugmentedClips(clips, config.model, t.seed), t.batch_size, sampler=sampler)
    progress = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=quiet,
    )
    with progress, SummaryWriter(str(out / "log")) as writer:
        bar = progress.add_task("train", total=t.epochs * steps, completed=first * steps, epoch=first, note="")
        for epoch in range(first, t.epochs):
            model.train()
            sampler.epoch = epoch
            # Every epoch starts its own stream of random numbers, so a resumed run draws the same ones.
            torch.manual_seed(int(np.random.default_rng([t.seed, 2, epoch]).integers(2**62)))
            generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
            rng = np.random.default_rng([t.seed, 3, epoch])
            sums: dict[str, float] = {}
            for frames, exists, labels in loader:
                exists = hide_beginning(exists, generator)
                targets = torch.nn.functional.one_hot(labels, len(config.model.labels)).float()
                frames, exists, targets = mix(frames, exists, targets, t.mixup, rng)
                released = withheld_ticks(*exists.shape, t.release_dropout, generator)
                loss, logged = family_loss(*model(frames, exists, released), targets, t)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                ema.update_parameters(model)
                for name, value in (logged | {"total": float(loss.detach())}).items():
                    sums[name] = sums.get(name, 0.0) + value / steps
                progress.update(bar, advance=1, epoch=epoch)
            for name, value in sums.items():
                writer.add_scalar(f"loss/{name}", value, epoch)
            note = f"loss {sums['total']:.3f}"
            if val and (epoch % 10 == 9 or epoch + 1 == t.epochs):
                scores = validate(ema.module, val)
                for name, score in scores.items():
                    writer.add_scalar(f"balanced_accuracy/{name}", score["balanced_accuracy"], epoch)
                note += " val " + " ".join(f"{n} {s['balanced_accuracy']:.3f}" for n, s in scores.items())
                progress.console.print(f"epoch {epoch + 1}: {note}")
            progress.update(bar, note=note)
            ema.module.save_pretrained(out)
            _atomic_save(
                {
                    "config": config.model_dump_json(),
                    "epoch": epoch + 1,
                    "model": model.state_dict(),
                    "ema": ema.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                },
                out / STATE,
            )
    return Family.from_pretrained(out)
