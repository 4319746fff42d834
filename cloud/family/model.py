"""The family: encoder -> mapping -> trunk with exits -> shared heads, and its tiers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ruyicam.cloud.files import whole, write_whole

from .config import FamilyConfig
from .encoder import Encoder
from .heads import Answer, Heads
from .mapping import FeatureMapping
from .text import TextHead
from .trunk import Trunk


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
        self.heads = Heads(config)
        self.text = TextHead(config)

    def forward(self, features: torch.Tensor, valid: torch.Tensor, exits: tuple[str, ...] | None = None) -> dict[str, Answer]:
        """features [N, W, n] as released, valid bool [N, W] -> an answer per exit (or the named ones), shallowest first."""
        wanted = {name: d for name, d in self.exits.items() if exits is None or name in exits}
        return {name: self.heads(h, valid) for name, h in self.trunk(features, valid, wanted).items()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json, tier.txt and model.safetensors: this tier alone."""
        _save(self, self.config, Path(folder))
        write_whole(Path(folder) / "tier.txt", self.tier + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Reasoner:
        """Reads what `save_pretrained` wrote, ready to run. Raises OSError, ValidationError or RuntimeError."""
        folder = Path(folder)
        part = cls(FamilyConfig.load(folder / "config.json"), (folder / "tier.txt").read_text().strip())
        part.load_state_dict(load_file(folder / "model.safetensors"))
        return part.eval()


class Family(nn.Module):
    """The shared backbone. `forward` is for training; a deployment takes `tier(name)`."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.mapping = FeatureMapping(config)
        self.reasoner = Reasoner(config, max(config.trunk.exits, key=config.trunk.exits.__getitem__))

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """frames [N, W, 3, height, width] -> clipped features without noise, float [N, W, n]."""
        maps = self.encoder.maps(frames.flatten(0, 1))
        return self.features_of_maps(maps.unflatten(0, frames.shape[:2]))

    def features_of_maps(self, maps: torch.Tensor, exists: torch.Tensor | None = None) -> torch.Tensor:
        """What `Encoder.maps` gave, [N, W, channels, rows, columns] -> clipped features without noise, float [N, W, n].

        Ticks that are not there (exists bool [N, W]; without it all are) are not computed and stay 0.
        """
        ticks = maps.flatten(0, 1)
        # Rows are copied whole by their numbers, value by value by a mask.
        there = None if exists is None else exists.flatten().nonzero().squeeze(1)
        tokens = self.encoder.tokens(ticks if there is None else ticks.index_select(0, there))
        out = tokens.flatten(1) if self.config.mapping.bypass else self.mapping(tokens)
        if there is not None:
            out = out.new_zeros(len(ticks), out.shape[1]).index_copy(0, there, out)
        return out.unflatten(0, maps.shape[:2])

    def release(self, features: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """What leaves the device, with noise for training; the same shape. Without a mapping nothing changes."""
        return features if self.config.mapping.bypass else self.mapping.add_noise(features, generator)

    def forward(
        self, maps: torch.Tensor, exists: torch.Tensor, released: torch.Tensor, tiers: tuple[str, ...]
    ) -> tuple[Answer | None, dict[str, Answer], torch.Tensor]:
        """(edge's answer on clean features if it is among `tiers`, all of theirs on released ones, the clean features).

        maps [N, W, channels, rows, columns]; exists, released bool [N, W]: ticks that the camera saw, that left it.
        """
        clean = self.features_of_maps(maps, exists)
        answers = self.reasoner(self.release(clean), exists & released, tiers)
        return self.reasoner(clean, exists, ("edge",))["edge"] if "edge" in tiers else None, answers, clean

    def tier(self, name: str) -> Reasoner:
        """The prefix of the trunk that ends at exit `name`, with the shared heads; ValueError for an unknown name."""
        part = Reasoner(self.config, name)
        wanted = part.state_dict()
        whole = self.reasoner.state_dict()
        part.load_state_dict({key: whole[key] for key in wanted})
        return part.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors."""
        _save(self, self.config, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Family:
        """Reads what `save_pretrained` wrote, ready to run. Raises OSError, ValidationError or RuntimeError."""
        folder = Path(folder)
        model = cls(FamilyConfig.load(folder / "config.json"))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()


def _save(module: nn.Module, config: FamilyConfig, folder: Path) -> None:
    write_whole(folder / "config.json", config.model_dump_json(indent=2) + "\n")
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    with whole(folder / "model.safetensors") as partial:
        save_file(state, partial, metadata={"format": "pt"})
        # safetensors writes files that only their owner can read.
        partial.chmod(0o644)
