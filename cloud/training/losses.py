"""What one training step minimises."""

from __future__ import annotations

import torch
from torch.nn import functional

from ruyicam.cloud.family import Answer

from .config import TrainConfig

_TEMPERATURE = 2.0


def family_loss(
    clean: dict[str, Answer], released: dict[str, Answer], targets: torch.Tensor, config: TrainConfig
) -> tuple[torch.Tensor, dict[str, float]]:
    """Task loss at every exit plus distillation of each shallower exit from the deepest (Hinton et al., 1503.02531).

    `edge` is judged on clean features, where it runs; the cloud tiers on released ones.
    targets: label probabilities float [B, K].
    Returns the scalar loss and the task loss of each tier.
    """
    deepest = list(released)[-1]
    teacher = functional.softmax(released[deepest].window.detach() / _TEMPERATURE, -1)
    total = torch.zeros(())
    logged = {}
    for name in released:
        # On released features the edge exit helps the layers it shares with the deeper tiers.
        answers = [clean[name], released[name]] if name == "edge" else [released[name]]
        for i, answer in enumerate(answers):
            task = functional.cross_entropy(answer.window, targets, label_smoothing=config.label_smoothing)
            total = total + task
            if i == 0:
                logged[name] = float(task.detach())
            if name != deepest:
                student = functional.log_softmax(answer.window / _TEMPERATURE, -1)
                divergence = functional.kl_div(student, teacher, reduction="batchmean") * _TEMPERATURE**2
                total = total + config.distillation * divergence
    return total / (len(released) + 1), logged
