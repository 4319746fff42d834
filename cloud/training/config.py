"""What a training run is made of; read from one TOML file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ruyicam.cloud.family import FamilyConfig


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PhaseConfig(_Strict):
    """A stretch of training with one mixture. An epoch shows every clip about once (or every scene, without clips)."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    epochs: int = Field(ge=1)
    clips: int = Field(0, ge=0, description="windows of clips in a batch")
    scenes: int = Field(0, ge=0, description="windows of generated scenes in a batch")
    learning_rate: float = Field(2e-3, gt=0)
    speech: bool = Field(False, description="the language head alone learns to speak, from the labels of scenes")
    loss: dict[str, float] = Field({}, description="weights of this phase in place of [loss]'s")

    @model_validator(mode="after")
    def _something(self) -> PhaseConfig:
        if not self.clips + self.scenes:
            raise ValueError(f"phase '{self.name}' has neither clips nor scenes")
        if self.speech and self.clips:
            raise ValueError(f"phase '{self.name}' is of speech, which only scenes have labels for: expected no clips")
        return self


class LossConfig(_Strict):
    """Weight of each term beside the labels' own; 0 leaves a term out."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    scene_label: float = Field(1.0, ge=0, description="of a generated scene's label beside a real clip's")
    doing: float = Field(0.5, ge=0, description="behaviours per tick, and per person and tick")
    people: float = Field(0.3, ge=0)
    contour: float = Field(0.3, ge=0)
    text: float = Field(1.0, ge=0)
    distillation: float = Field(0.5, ge=0, description="KL of each shallower exit to the deepest (arXiv 1503.02531)")
    consistency: float = Field(0.0, ge=0, description="symmetric KL between all pairs of exits")
    rate: float = Field(0.0, ge=0, description="mean of u^2 / (2 sigma^2): the variational information bottleneck")
    adversary: float = Field(0.0, ge=0, description="strength of the reversed gradient of the adversaries")


class TrainConfig(_Strict):
    """Optimisation of one run."""

    seed: int = Field(1, ge=0)
    scenes: int = Field(6000, ge=0, description="how many scenes are generated")
    questions: int = Field(0, ge=0, description="new scenes that the text heads are asked about every tenth epoch")
    identities: int = Field(64, ge=5, description="how many people act in them")
    views: int = Field(24, ge=1, description="augmented windows per clip")
    weight_decay: float = Field(0.1, ge=0)
    warmup_steps: int = Field(100, ge=0)
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the averaged weights that are saved")
    release_dropout: float = Field(0.5, ge=0, le=1, description="share of windows in which ticks are withheld")
    adversary_reset: int = Field(4, ge=1, description="epochs after which the adversaries begin anew")
    label_weights: dict[str, float] = Field({}, description="how often a label is drawn, relative to the others")
    tiers: tuple[str, ...] = Field((), description="exits that are trained; none named: all, together")
    threads: int = Field(0, ge=0, description="to train on, 0: as many as there are cores; material is prepared on all")
    precision: Literal["no", "bf16"] = "no"
    sharding: Literal["none", "fsdp2"] = "none"
    gradient_checkpointing: bool = False


class RunConfig(_Strict):
    """The whole file; read it with `ruyicam.cloud.toml.load_toml`."""

    model: FamilyConfig = FamilyConfig()
    train: TrainConfig = TrainConfig()
    loss: LossConfig = LossConfig()
    phases: tuple[PhaseConfig, ...] = (
        PhaseConfig(name="scenes", epochs=12, scenes=32),
        PhaseConfig(name="clips", epochs=40, clips=32, scenes=8),
    )

    @model_validator(mode="after")
    def _fits(self) -> RunConfig:
        names = [p.name for p in self.phases]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"phases are called {names}, expected at least one and different names")
        if unknown := set(self.train.tiers) - set(self.model.trunk.exits):
            raise ValueError(f"train.tiers names '{min(unknown)}', expected some of {', '.join(self.model.trunk.exits)}")
        for p in self.phases:
            # The adversaries have weights of their own, which a run has in all of its phases or in none.
            if "adversary" in p.loss:
                raise ValueError(f"phase '{p.name}' sets loss.adversary, expected it in [loss]")
            self.loss_of(p)
        if not self.train.scenes and any(p.scenes for p in self.phases):
            raise ValueError("train.scenes is 0, but a phase wants scenes")
        return self

    def loss_of(self, phase: PhaseConfig) -> LossConfig:
        """[loss] with the phase's own weights in place; ValidationError for a term that there is not."""
        return LossConfig.model_validate(self.loss.model_dump() | phase.loss)

    @property
    def taught(self) -> tuple[PhaseConfig, ...]:
        """The phases, without those of speech where text has no weight: who is to say nothing need not learn to speak."""
        return tuple(p for p in self.phases if not p.speech or self.loss_of(p).text)
