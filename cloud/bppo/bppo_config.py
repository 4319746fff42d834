"""What BPPO adds to TRL's GRPO."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import GRPOConfig

SELECTIONS = ("shortest", "random", "longest", "all")
PREFIXES = ("ratio", "tokens", "shorter", "full")
SCHEDULES = ("decided", "pair", "none")
WEIGHTS = ("sample", "class")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is '{value}', expected one of {', '.join(allowed)}")


@dataclass
class BPPOConfig(GRPOConfig):
    r"""
    Configuration of [`BPPOTrainer`] (arXiv 2605.28028). Everything of [`~trl.GRPOConfig`] holds; with
    `selection="all"`, `prefix="full"` and `schedule="none"` the trainer is GRPO.

    Parameters:
        > Parameters that control which responses are updated on

        selection (`str`, *optional*, defaults to `"shortest"`):
            Which response of each class, correct and incorrect, stands for its group: the `"shortest"`, a `"random"`
            one or the `"longest"`; a group without both gives none. `"all"` keeps every response, as GRPO does.
        correct_threshold (`float`, *optional*, defaults to `0.5`):
            Sum of the weighted rewards from which a response is correct. `None`: above its group's mean is correct,
            below is incorrect, for rewards that have no natural threshold.
        pair_weight (`str`, *optional*, defaults to `"class"`):
            `"class"`: each of the pair speaks for its class: its advantage is multiplied by twice the class's share of the
            group, so that a pair adds up to 0 as a whole group does. `"sample"`: it keeps its advantage, as published.

        > Parameters that control how much of a response is updated on

        prefix (`str`, *optional*, defaults to `"ratio"`):
            `"ratio"`: the first `prefix_ratio` of each response; `"tokens"`: its first `prefix_tokens`; `"shorter"`: as many
            tokens of both of a pair, `prefix_ratio` of the shorter one; `"full"`: all of it.
        prefix_ratio (`float`, *optional*, defaults to `0.75`):
            In (0, 1]; rounded up to whole tokens, at least one.
        prefix_tokens (`int`, *optional*, defaults to `32`):
            At least 1.

        > Parameters that control how many responses are sampled

        schedule (`str`, *optional*, defaults to `"decided"`):
            `"decided"`: every group samples `first_round` responses; those that are all correct or all incorrect stop
            there, the others sample the rest. `"pair"`: rounds of `first_round` until a group has a correct and an
            incorrect response. `"none"`: all at once. Responses that are not sampled enter no mean, deviation or update.
        first_round (`int`, *optional*):
            Responses of a round; must divide `num_generations`. Default: half of them.

        > Parameters that control how they are sampled

        compact_every (`int`, *optional*, defaults to `16`):
            Tokens after which responses that have ended leave the batch, where transformers' `generate` samples text (not with
            vLLM, continuous batching, images, FSDP or DeepSpeed). Responses are drawn in another order then; `0`: never.
    """

    selection: str = field(
        default="shortest",
        metadata={"help": "Response of each class that a group is updated on: 'shortest', 'random', 'longest'; 'all' as GRPO."},
    )
    correct_threshold: float | None = field(
        default=0.5, metadata={"help": "Reward from which a response is correct; None: above its group's mean."}
    )
    pair_weight: str = field(
        default="class", metadata={"help": "'sample': advantages as they are; 'class': times twice the class's share."}
    )
    prefix: str = field(
        default="ratio", metadata={"help": "What is updated of a response: 'ratio', 'tokens', 'shorter', 'full'."}
    )
    prefix_ratio: float = field(default=0.75, metadata={"help": "Share of a response for prefix='ratio' and 'shorter'."})
    prefix_tokens: int = field(default=32, metadata={"help": "Tokens of a response for prefix='tokens'."})
    schedule: str = field(default="decided", metadata={"help": "When sampling stops early: 'decided', 'pair', 'none'."})
    first_round: int | None = field(default=None, metadata={"help": "Responses of a sampling round; default: half of them."})
    compact_every: int = field(
        default=16, metadata={"help": "Tokens after which responses that have ended leave the batch; 0: never."}
    )

    def __post_init__(self):
        super().__post_init__()
        _one_of("selection", self.selection, SELECTIONS)
        _one_of("prefix", self.prefix, PREFIXES)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("pair_weight", self.pair_weight, WEIGHTS)
        if not 0 < self.prefix_ratio <= 1:
            raise ValueError(f"prefix_ratio is {self.prefix_ratio}, expected above 0 and at most 1")
        if self.prefix_tokens < 1:
            raise ValueError(f"prefix_tokens is {self.prefix_tokens}, expected at least 1")
        if self.compact_every < 0:
            raise ValueError(f"compact_every is {self.compact_every}, expected 0 or more")
        if self.prefix == "shorter" and self.selection == "all":
            raise ValueError(
                "prefix='shorter' compares a pair, which selection='all' does not make; expected another of the two"
            )
        if self.schedule == "none":
            return
        if self.first_round is None:
            self.first_round = max(1, self.num_generations // 2)
        if not 1 <= self.first_round <= self.num_generations or self.num_generations % self.first_round:
            raise ValueError(
                f"first_round is {self.first_round}, expected a divisor of num_generations ({self.num_generations})"
            )
        if self.generation_batch_size // self.world_size % self.num_generations:
            raise ValueError(
                f"schedule='{self.schedule}' needs whole groups on each process: per_device_train_batch_size * "
                f"steps_per_generation is {self.generation_batch_size // self.world_size}, expected a multiple of "
                f"num_generations ({self.num_generations})"
            )
