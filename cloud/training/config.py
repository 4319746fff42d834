"""What a training run is made of; read from one TOML file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ruyicam.cloud.family import FamilyConfig


class TrainConfig(BaseModel):
    """Optimisation of one run. Steps per epoch: ceil(clips / batch_size)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: int = Field(3, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    distillation: float = Field(0.5, ge=0, description="weight of KL(shallower exit, deepest exit)")
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights that are saved")
    mixup: float = Field(0.4, ge=0, description="Beta parameter of mixing two windows (arXiv 1710.09412); 0: off")
    release_dropout: float = Field(0.5, ge=0, le=1, description="share of windows in which ticks are withheld")
    label_weights: dict[str, float] = Field({}, description="how often a label is drawn, relative to the others")
    seed: int = Field(1, ge=0)
    threads: int = Field(0, ge=0, description="0: as many as there are cores")


class RunConfig(BaseModel):
    """[model] and [train] of the file; read it with `ruyicam.cloud.toml.load_toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: FamilyConfig = FamilyConfig()
    train: TrainConfig = TrainConfig()
