"""Which responses of a group are updated on, and how much of each: pure functions of rewards and lengths."""

from __future__ import annotations

import torch


def classes(rewards: torch.Tensor, group: int, threshold: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(correct, incorrect), bool [N], of `rewards` [N], groups of `group` in a row.

    A NaN is a response that was not sampled or cannot be scored, and is neither. Without a threshold a response is correct
    above the mean of its group, incorrect below it, and neither where all are alike.
    """
    if threshold is not None:
        return rewards >= threshold, rewards < threshold
    mean = rewards.view(-1, group).nanmean(1).repeat_interleave(group)
    # A mean of equal numbers may differ from them in the last bit.
    alike = torch.isclose(rewards, mean, rtol=1e-5, atol=1e-7)
    return (rewards > mean) & ~alike, (rewards < mean) & ~alike


def choose_pairs(
    correct: torch.Tensor,
    incorrect: torch.Tensor,
    lengths: torch.Tensor,
    group: int,
    how: str,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Bool [N]: one correct and one incorrect response of each group that has both, none of the others.

    correct, incorrect: bool [N]; lengths: int64 [N], tokens; `how`: "shortest", "longest" or "random" (by `generator`, on
    the CPU). Of equals the first is taken.
    """
    if how == "random":
        order = torch.rand(len(lengths), generator=generator).to(lengths.device)
    else:
        order = (lengths if how == "shortest" else -lengths).float()
    kept = torch.zeros_like(correct)
    mixed = correct.view(-1, group).any(1) & incorrect.view(-1, group).any(1)
    start = torch.arange(0, len(lengths), group, device=lengths.device)
    for one in (correct, incorrect):
        best = order.masked_fill(~one, torch.inf).view(-1, group).argmin(1)
        kept[(start + best)[mixed]] = True
    return kept


def prefix_lengths(lengths: torch.Tensor, kept: torch.Tensor, group: int, how: str, ratio: float, tokens: int) -> torch.Tensor:
    """int64 [N]: how many tokens of each response are updated on; `lengths` int64 [N], `kept` bool [N].

    `how`: see `BPPOConfig.prefix`. At least 1, but 0 for an empty response.
    """
    if how == "full":
        return lengths
    if how == "tokens":
        return lengths.clamp(max=tokens)
    base = lengths
    if how == "shorter":
        shortest = lengths.masked_fill(~kept, torch.iinfo(lengths.dtype).max).view(-1, group).amin(1)
        base = torch.minimum(lengths, shortest.repeat_interleave(group))
    # In double: 0.1 * 30 must not become 4 tokens; the small number takes off what rounding put on.
    return torch.minimum((base.double() * ratio - 1e-9).ceil().long(), lengths)


def class_weights(correct: torch.Tensor, incorrect: torch.Tensor, group: int) -> torch.Tensor:
    """float [N]: twice the share of a response's class among the scored ones of its group; 0 for those of no class."""
    right, wrong = (x.view(-1, group).sum(1).float() for x in (correct, incorrect))
    total = (right + wrong).clamp(min=1)
    return 2 * (correct * (right / total).repeat_interleave(group) + incorrect * (wrong / total).repeat_interleave(group))
