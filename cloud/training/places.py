"""What the encoder is asked at each place of the picture while it is trained: whether someone is there, and doing what."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ruyicam.cloud.data.batches import Batch
from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.family.labels import BEHAVIOURS, KEYPOINTS, SLOTS

# Logit of a place's being taken before anything is known.
_EMPTY = -3.0
_HIPS = [KEYPOINTS.index("left hip"), KEYPOINTS.index("right hip")]


def where(contour: torch.Tensor, inside: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(place int64 [..., S] of the middle of each person's hips, counted along rows; whether it is in the picture,
    bool [..., S]) of contour [..., S, 17, 3] and inside [..., S], for a grid of (rows, columns).
    """
    rows, columns = grid
    hips = contour[..., _HIPS, :2].mean(-2)
    there = (inside > 0) & (hips >= 0).all(-1) & (hips < 1).all(-1)
    x, y = (hips.clamp(0, 1 - 1e-6) * hips.new_tensor([columns, rows])).long().unbind(-1)
    return y * columns + x, there


class Places(nn.Module):
    """A linear reading of every place, used in training only.

    Pooled tokens alone teach the encoder slowly who does what: which look belongs to which person is theirs to find out.
    """

    def __init__(self, config: FamilyConfig):
        super().__init__()
        self.grid = config.grid
        self.read = nn.Conv2d(config.encoder.width, 1 + len(BEHAVIOURS), 1)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Forgets everything; most places are empty. So begins every phase, for no checkpoint has this head."""
        self.read.weight.zero_()
        self.read.bias.fill_(_EMPTY)

    def forward(self, looks: torch.Tensor, batch: Batch, exists: torch.Tensor) -> torch.Tensor:
        """Scalar loss of looks [M, width, rows, columns] of the ticks that exist (bool [N, W]); scenes alone are asked."""
        scene = batch["is_scene"][:, None].expand_as(exists)[exists]
        if not scene.any():
            return 0 * looks.sum()
        said = self.read(looks[scene]).flatten(2)
        contour, inside, doing = (batch[name][exists][scene] for name in ("contour", "inside", "doing"))
        place, there = where(contour, inside, self.grid)
        at = functional.one_hot(place, said.shape[-1]).to(said.dtype) * there.unsqueeze(-1)
        someone = at.amax(1)
        # Who stands where another one stands shares the place, and what is done there.
        done = (doing.unsqueeze(-1) * at.unsqueeze(2)).amax(1)
        bce = functional.binary_cross_entropy_with_logits
        presence = bce(said[:, 0], someone, reduction="none").sum(-1).mean()
        behaviours = (bce(said[:, 1:], done, reduction="none").sum(1) * someone).sum() / someone.sum().clamp(min=1)
        return (presence + behaviours) / SLOTS
