"""Every size and constant of the family, in one frozen, checked model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ruyicam.cloud.errors import Exit, RuyicamError, first_line
from ruyicam.cloud.privacy.bounds import bits_per_release

# The backbone's output channels of each stage and its number of bottlenecks; every stage halves the picture.
STAGES = ((32, 1), (64, 3), (128, 3))
STRIDE = 2 ** (len(STAGES) + 1)


@contextlib.contextmanager
def reading_checkpoint(folder: Path) -> Iterator[None]:
    """Whatever goes wrong within is RuyicamError(USAGE) with one line: `folder` is no checkpoint."""
    try:
        yield
    except OSError as error:
        raise RuyicamError(Exit.USAGE, f"model {folder}: {error.strerror or error}") from error
    except Exception as error:
        raise RuyicamError(Exit.USAGE, f"model {folder}: not a checkpoint: {first_line(error)}") from error


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputConfig(_Strict):
    """What the encoder sees: int8 [3, height, width] at `rate_hz`, from `ruyicam.kernels.Preprocessor`."""

    width: int = Field(192, ge=32, le=1024)
    height: int = Field(144, ge=32, le=1024)
    rate_hz: int = Field(10, ge=1, le=60)
    background_shift: int = Field(6, ge=1, le=16)
    mask_floor: int = Field(64, ge=0, le=4080)


class EncoderConfig(_Strict):
    """A backbone of fixed widths (see backbone.py) and T queries that pool its places into tokens."""

    tokens: int = Field(12, ge=1, le=256, description="T, tokens per tick")
    dim: int = Field(64, ge=4, le=1024, description="D, width of a token")


class MappingConfig(_Strict):
    """Constants of the feature mapping; `sigma` and `clip` alone set the privacy bound."""

    out_dim: int = Field(8, ge=1, le=1024)
    input_scale: float = Field(1 / 32, gt=0)
    weight_scale: int = Field(64, ge=1, le=127, description="int8 steps per unit of weight")
    multiplier: int = Field(1280, ge=1)
    shift: int = Field(16, ge=1, le=62)
    lut_range: int = Field(48, ge=1, le=32767, description="largest |u| before clipping")
    lut_gain: float = Field(40.0, gt=0, description="table steps per unit of tanh's argument")
    clip: int = Field(304, ge=1, le=1 << 20)
    sigma: float = Field(8.0, ge=0.25, le=512)
    bits: int = Field(8, ge=2, le=16)
    bypass: bool = Field(False, description="no mapping: tokens go on as they are; for comparison, never exported")


class TrunkConfig(_Strict):
    """A Hugging Face Qwen3 decoder: one input per tick, exits after the named numbers of layers."""

    hidden_size: int = Field(96, ge=8)
    intermediate_size: int = Field(192, ge=8)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    input_dropout: float = Field(0.1, ge=0, lt=1, description="of single features")
    exits: dict[str, int] = {"edge": 2, "cloud-s": 4, "cloud-l": 6}

    @model_validator(mode="after")
    def _rising(self) -> TrunkConfig:
        depths = list(self.exits.values())
        if not depths or depths != sorted(set(depths)) or depths[0] < 1:
            raise ValueError(f"exits are {self.exits}, expected names with rising depths from 1")
        if "edge" not in self.exits:
            raise ValueError("exits has no 'edge', the tier that runs on the device")
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be a multiple of twice the heads")
        return self


class TextConfig(_Strict):
    """The language head: a decoder of the trunk's width that reads one exit's hidden states as its prefix."""

    layers: int = Field(2, ge=1)


class GateConfig(_Strict):
    """Stage one: which ticks leave the device. All of it is a function of released tokens and the clock."""

    look_threshold: float = Field(0.08, ge=0, le=1, description="1 - P(normal) from which a tick is worth a look")
    around_ticks: int = Field(10, ge=0, le=100, description="ticks before and after such a tick that leave too")
    heartbeat_ticks: int = Field(20, ge=1, description="one tick in so many leaves whatever is seen")
    token_prior: dict[str, float] = {}


class FamilyConfig(_Strict):
    """The whole family. `labels[0]` is the behaviour that needs no one's attention."""

    labels: tuple[str, ...] = ("normal", "fight", "fall")
    window: int = Field(40, ge=2, le=600, description="ticks that a tier sees at once")
    input: InputConfig = InputConfig()
    encoder: EncoderConfig = EncoderConfig()
    mapping: MappingConfig = MappingConfig()
    trunk: TrunkConfig = TrunkConfig()
    text: TextConfig = TextConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _fits(self) -> FamilyConfig:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels are {self.labels}, expected at least two different ones")
        if "look" in self.labels:
            raise ValueError("label 'look' is taken: it is the token of a tick that is worth a look")
        if self.input.width % STRIDE or self.input.height % STRIDE:
            raise ValueError(f"input is {self.input.width}x{self.input.height}, expected multiples of {STRIDE}")
        prior = self.gate.token_prior
        if prior and (set(prior) != set(self.alphabet) or abs(sum(prior.values()) - 1) > 1e-6 or min(prior.values()) <= 0):
            raise ValueError(f"token_prior must give {', '.join(self.alphabet)} probabilities above 0 that add up to 1")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the backbone's places."""
        return self.input.height // STRIDE, self.input.width // STRIDE

    @property
    def tokens(self) -> int:
        """T, tokens per tick."""
        return self.encoder.tokens

    @property
    def features(self) -> int:
        """n = T * d, released features per tick (T * D without a mapping)."""
        return self.tokens * (self.encoder.dim if self.mapping.bypass else self.mapping.out_dim)

    @property
    def alphabet(self) -> tuple[str, ...]:
        """Behaviour tokens in wire order: the quiet label, 'look', then the other labels."""
        return (self.labels[0], "look", *self.labels[1:])

    @property
    def prior(self) -> tuple[float, ...]:
        """Public prior of the tokens, in the order of `alphabet`; by default quiet 0.97, the rest alike."""
        if self.gate.token_prior:
            return tuple(self.gate.token_prior[t] for t in self.alphabet)
        rest = len(self.alphabet) - 1
        return (0.97,) + (0.03 / rest,) * rest

    @property
    def bits_per_release(self) -> float:
        """Bound on I(picture; features) of one tick."""
        return bits_per_release(self.features, self.mapping.clip, self.mapping.sigma)

    @classmethod
    def of_checkpoint(cls, folder: Path) -> FamilyConfig:
        """That of a checkpoint folder; RuyicamError(USAGE) with one line if it is none."""
        with reading_checkpoint(folder):
            return cls.load(folder / "config.json")

    @classmethod
    def load(cls, path: str | Path) -> FamilyConfig:
        """Reads config.json of a checkpoint. Raises OSError or pydantic.ValidationError."""
        return cls.model_validate_json(Path(path).read_text())
