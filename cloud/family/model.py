"""The family: encoder -> mapping -> trunk with exits -> shared heads, and its tiers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .config import FamilyConfig
from .encoder import Encoder
from .mapping import FeatureMapping
from .trunk import Trunk


class Answer(NamedTuple):
    """What one exit says: logits per tick [B, W, K] and for the window as a whole [B, K]."""

    steps: torch.Tensor
    window: torch.Tensor


class BehaviourHead(nn.Module):
    """Behaviour per tick; the window's logits are the log of the mean evidence over its ticks."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        self.linear = nn.Linear(config.trunk.hidden_size, len(config.labels))

    def forward(self, hidden: torch.Tensor) -> Answer:
        steps = self.linear(hidden)
        return Answer(steps, torch.logsumexp(steps, 1) - torch.log(torch.tensor(float(steps.shape[1]))))


class Reasoner(nn.Module):
    """Trunk and heads up to one exit: what a tier needs to read released features."""

    def __init__(self, config: FamilyConfig, tier: str):
        super().__init__()
        if tier not in config.trunk.exits:
            raise ValueError(f"tier '{tier}' is unknown, expected one of {', '.join(config.trunk.exits)}")
        self.config, self.tier = config, tier
        depth = config.trunk.exits[tier]
        self.exits = {name: d for name, d in config.trunk.exits.items() if d <= depth}
        self.trunk = Trunk(config, depth)
        self.behaviour = BehaviourHead(config)

    def forward(self, features: torch.Tensor, valid: torch.Tensor) -> dict[str, Answer]:
        """features [B, W, n] as released, valid bool [B, W] -> an answer per exit, shallowest first."""
        return {name: self.behaviour(h) for name, h in self.trunk(features, valid, self.exits).items()}


class Family(nn.Module):
    """The shared backbone. `forward` is for training; a deployment takes `tier(name)`."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.mapping = FeatureMapping(config)
        self.reasoner = Reasoner(config, max(config.trunk.exits, key=config.trunk.exits.__getitem__))

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """frames [B, W, 3, height, width] -> clipped features without noise, float [B, W, n]."""
        batch, steps = frames.shape[:2]
        return self.mapping(self.encoder(frames.flatten(0, 1))).view(batch, steps, -1)

    def forward(
        self, frames: torch.Tensor, exists: torch.Tensor, released: torch.Tensor
    ) -> tuple[dict[str, Answer], dict[str, Answer]]:
        """(answers on clean features, answers on released ones); the edge exit lives on the first.

        frames [B, W, 3, height, width]; exists, released bool [B, W]: ticks that the camera saw, ticks that left it.
        """
        clean = self.features(frames)
        return self.reasoner(clean, exists), self.reasoner(self.mapping.add_noise(clean), exists & released)

    def tier(self, name: str) -> Reasoner:
        """The prefix of the trunk that ends at exit `name`, with the shared heads; ValueError for an unknown name."""
        part = Reasoner(self.config, name)
        wanted = part.state_dict()
        whole = self.reasoner.state_dict()
        part.load_state_dict({key: whole[key] for key in wanted})
        return part.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        # safetensors writes files that only their owner can read.
        (folder / "model.safetensors").chmod(0o644)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Family:
        """Reads what `save_pretrained` wrote, ready to run. Raises OSError, ValidationError or RuntimeError."""
        folder = Path(folder)
        model = cls(FamilyConfig.load(folder / "config.json"))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
