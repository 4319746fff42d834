"""What one training step minimises."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ruyicam.cloud.data.batches import Batch
from ruyicam.cloud.family import Answer, Family

from .adversaries import Adversaries
from .config import LossConfig

_TEMPERATURE = 2.0
_JOINT_SCALE = 10.0
# The speaker that has no exit: the labels themselves.
LABELS = "labels"
# How unsure of its labels the language head learns to be.
_DOUBT = 0.3


def _mean(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    mask = mask.expand_as(value).to(value.dtype)
    return (value * mask).sum() / mask.sum().clamp(min=1)


def structure_loss(answer: Answer, batch: Batch, seen: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Behaviours, people count and contour of one exit; ticks that were not seen are not asked about."""
    scene = (seen & batch["is_scene"][:, None])[..., None]
    bce = functional.binary_cross_entropy_with_logits
    doing = batch["doing"]
    total = config.doing * _mean(bce(answer.doing, doing.amax(2), reduction="none"), scene)
    total = total + config.doing * _mean(bce(answer.slots, doing, reduction="none"), scene[..., None])
    people = batch["inside"].sum(-1).long()
    count = functional.cross_entropy(answer.people.flatten(0, 1), people.flatten(), reduction="none")
    total = total + config.people * _mean(count.view_as(people), scene[..., 0])
    found = batch["contour"][..., 2]
    far = (answer.contour[..., :2] - batch["contour"][..., :2]).abs().sum(-1)
    total = total + config.contour * _JOINT_SCALE * _mean(far, found * seen[:, :, None, None])
    # A teacher misses people, so that only scenes tell where no one is.
    there = bce(answer.contour[..., 2], found, reduction="none")
    return total + config.contour * _mean(there, scene[..., None])


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher, student) of softened logits [N, K]."""
    log_student = functional.log_softmax(student / _TEMPERATURE, -1)
    log_teacher = functional.log_softmax(teacher / _TEMPERATURE, -1)
    kl = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return kl * _TEMPERATURE**2


class Trainee(nn.Module):
    """The family with its losses, so that data-parallel wrappers see one forward pass."""

    def __init__(self, family: Family, config: LossConfig, tiers: tuple[str, ...], identities: int):
        super().__init__()
        self.family, self.config = family, config
        self.tiers = tiers or tuple(family.config.trunk.exits)
        self.adversaries = Adversaries(family.config.features, identities) if config.adversary else None

    def forward(
        self, batch: Batch, exists: torch.Tensor, released: torch.Tensor, speaker: str
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(scalar loss, terms of it, detached). `speaker` is the exit whose text is trained in this step; with LABELS the
        language head learns from what people do in truth, and nothing else is trained.

        exists, released bool [N, W]: ticks that the camera saw, and that left it. `edge` is judged on clean features,
        where it runs, and on released ones, where it helps the layers that it shares; the cloud tiers on released ones.
        """
        c, family = self.config, self.family
        if speaker == LABELS:
            doing = batch["doing"]
            unsure = (doing - _DOUBT * torch.rand_like(doing)).abs()
            text = self._text(family.reasoner.heads.truth(unsure), batch)
            return text, {"text": text.detach()}
        clean, answers, features = family(batch["maps"], exists, released, self.tiers)
        seen = exists & released
        weight = torch.where(batch["is_scene"], c.scene_label, 1.0)
        weight = weight / weight.sum().clamp(min=1e-6)
        logged: dict[str, torch.Tensor] = {}
        deepest = self.tiers[-1]
        total = features.new_zeros(())
        for name in self.tiers:
            judged = [(answers[name], seen)] + ([(clean, exists)] if name == "edge" else [])
            for answer, ticks in judged:
                each = functional.cross_entropy(
                    answer.window, batch["verdict"], label_smoothing=c.label_smoothing, reduction="none"
                )
                task = (each * weight).sum()
                total = total + task + structure_loss(answer, batch, ticks, c)
                logged[name] = task.detach()
                if name != deepest:
                    total = total + c.distillation * _divergence(answer.window, answers[deepest].window.detach())
        total = total / (len(self.tiers) + (clean is not None))
        if c.consistency and len(self.tiers) > 1:
            windows = [answers[name].window for name in self.tiers]
            pairs = [(a, b) for i, a in enumerate(windows) for b in windows[i + 1 :]]
            gap = sum(_divergence(a, b) + _divergence(b, a) for a, b in pairs) / len(pairs)
            total, logged["consistency"] = total + c.consistency * gap, gap.detach()
        if c.text and (batch["target"] >= 0).any():
            text = self._text(answers[speaker].hidden, batch)
            total, logged["text"] = total + c.text * text, text.detach()
        if c.rate:
            m = family.config.mapping
            rate = _mean(features.square() / (2 * m.sigma**2), exists[..., None])
            total, logged["rate"] = total + c.rate * rate, rate.detach()
        if self.adversaries is not None:
            # At half of the noise's scale features are about as large as everything else that networks read.
            against = self.adversaries.loss(family.release(features) / 16, seen, batch, c.adversary)
            total, logged["adversary"] = total + against, against.detach()
        return total, logged

    def _text(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits = self.family.reasoner.text(hidden, batch["ids"], batch["segment"])
        return functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=-100)
