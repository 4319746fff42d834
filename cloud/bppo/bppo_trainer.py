"""BPPO: GRPO that updates on a prefix of one correct and one incorrect response of each group."""

from __future__ import annotations

from contextlib import contextmanager
from typing import ClassVar

import torch
from trl import GRPOTrainer
from trl.data_utils import is_conversational
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import (
    shuffle_sequence_dict,
    split_pixel_values_by_grid,
    unsplit_pixel_values_by_grid,
    use_adapter,
)

from .bppo_config import BPPOConfig
from .clock import StepClock
from .generation import Compacting
from .selection import choose_pairs, class_weights, classes, prefix_lengths

# What a batch has per token of a response, and is cut to the prefix.
_PER_TOKEN = (
    "completion_ids",
    "completion_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
    "tool_mask",
)
# The same for the prompt and the response together.
_PER_SEQUENCE_TOKEN = ("token_type_ids", "mm_token_type_ids")
# What a vision-language model is given beside the tokens.
_IMAGES = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "image_position_ids",
    *_PER_SEQUENCE_TOKEN,
)
# Losses that are divided by the tokens of the whole generation batch; the others by the rows of a micro-batch.
_BY_TOKENS = ("dapo", "cispo", "vespo")


class BPPOTrainer(StepClock, Compacting, GRPOTrainer):
    """
    Trainer for Binary Prefix Policy Optimization (arXiv 2605.28028).

    Takes what [`~trl.GRPOTrainer`] takes, with a [`BPPOConfig`]. Advantages are GRPO's, over the whole group; only the chosen
    pair of each mixed group is updated on, and only a prefix of it. Rows that are left fill as few micro-batches as they need;
    the others cost nothing. Logs, beside GRPO's: `bppo/mixed`, `bppo/all_correct` and `bppo/all_incorrect` (shares of the
    groups), `bppo/sampled` (responses per group), `bppo/kept`, `bppo/prefix_length`, `bppo/tokens_generated` and
    `bppo/tokens_updated` (per generation batch, all processes), `time/generate_s` and `time/update_s`.

    Raises ValueError for what early stopping cannot be combined with: tools, environments and rollout functions.
    """

    _tag_names: ClassVar = ["trl", "bppo"]
    _name = "BPPO"

    def __init__(self, model, reward_funcs=None, args: BPPOConfig | None = None, **kwargs):
        super().__init__(model, reward_funcs, args or BPPOConfig("bppo"), **kwargs)
        if self.args.schedule != "none" and (self.tools or self.rollout_func or self.environment_factories):
            raise ValueError(
                f"schedule='{self.args.schedule}' samples in rounds, which tools, environments and rollout functions do not; "
                "expected schedule='none'"
            )
        # Bool [local rows]: the responses of the current generation batch that were sampled; None: all.
        self._sampled: torch.Tensor | None = None
        self._rewards: torch.Tensor | None = None
        self.compact_every = self.args.compact_every
        self._deferring = False

    # --- Sampling in rounds -------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs):
        self._sampled, self._examples = None, inputs
        return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: list):
        self._prompts = prompts
        out = super()._generate(prompts)
        generated = torch.tensor([len(ids) for ids in out[1]], device=self.accelerator.device)
        if self._sampled is not None:
            # Copies stand where nothing was sampled; they are not counted.
            read = torch.tensor([len(ids) for ids in out[0]], device=self.accelerator.device) + generated
            self.state.num_input_tokens_seen -= self.accelerator.gather(read[~self._sampled].sum()).sum().item()
            self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
            generated = generated[self._sampled]
        if self.model.training:
            total = self.accelerator.gather(generated.sum()).sum().item()
            self._metrics["train"]["bppo/tokens_generated"].append(total)
        return out

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, **kwargs):
        args = self.args
        if not self.model.training or args.schedule == "none" or args.first_round == num_generations:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, **kwargs)
        rows, group = len(prompt_ids), num_generations
        plain = images is None and not multimodal_fields
        ids: list = [None] * rows
        logps: list = [None] * rows
        rewards = torch.full((rows,), torch.nan, device=self.accelerator.device)
        going, done = list(range(0, rows, group)), 0
        while going:
            size = group - done if done and args.schedule == "decided" else args.first_round
            chosen = [start + k for start in going for k in range(done, done + size)]
            fields = (
                ([prompt_ids[i] for i in chosen], None, {})
                if plain
                else self._tokenize_prompts([self._prompts[i] for i in chosen])
            )
            said, sure = super()._generate_single_turn(*fields, size, **kwargs)
            for i, tokens in zip(chosen, said, strict=True):
                ids[i] = tokens
            for i, p in zip(chosen, sure or [], strict=False):
                logps[i] = p
            done += size
            if done == group:
                break
            rewards[chosen] = self._score_round(chosen, said)
            going = self._undecided(rewards, group, going)
        self._sampled = torch.tensor([x is not None for x in ids], device=self.accelerator.device)
        for start in range(0, rows, group):
            real = [i for i in range(start, start + group) if ids[i] is not None]
            for k, i in enumerate(i for i in range(start, start + group) if ids[i] is None):
                ids[i], logps[i] = ids[real[k % len(real)]], logps[real[k % len(real)]]
        return ids, logps if any(x is not None for x in logps) else None

    def _score_round(self, chosen: list[int], said: list[list[int]]) -> torch.Tensor:
        """Summed rewards [len(chosen)] of this process's rows, without leaving a trace in the logs."""
        texts = self.processing_class.batch_decode(said, skip_special_tokens=True)
        if is_conversational({"prompt": self._prompts[0]}):
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        per_function = super()._calculate_rewards(
            [self._examples[i] for i in chosen], [self._prompts[i] for i in chosen], texts, said
        )
        self._pending_extra_logs.clear()
        self._pending_metrics.clear()
        own = slice(self.accelerator.process_index * len(chosen), (self.accelerator.process_index + 1) * len(chosen))
        return self._total(per_function)[own]

    def _undecided(self, rewards: torch.Tensor, group: int, going: list[int]) -> list[int]:
        """Starts of the groups that go on sampling; as many on each process, so that all generate equally often."""
        correct, incorrect = (x.view(-1, group).any(1) for x in classes(rewards, group, self.args.correct_threshold))
        mixed = correct & incorrect
        goes_on = mixed if self.args.schedule == "decided" else ~mixed
        chosen = [start for start in going if goes_on[start // group]]
        count = int(self.accelerator.gather(torch.tensor(len(chosen), device=rewards.device)).max())
        others = [start for start in going if start not in chosen]
        return sorted(chosen + others[: count - len(chosen)])

    def _total(self, per_function: torch.Tensor) -> torch.Tensor:
        """[N]: weighted sum of rewards [N, functions]; NaN where no function gave one."""
        total = (per_function * self.reward_weights.to(per_function.device)).nansum(1)
        return total.masked_fill(per_function.isnan().all(1), torch.nan)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._sampled is not None:
            # TRL leaves responses without any reward out of mean and deviation.
            rewards[~self.accelerator.gather(self._sampled)] = torch.nan
        self._rewards = self._total(rewards)
        return rewards

    # --- Choosing -----------------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch):
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        with self._timed():
            every = self.args.steps_per_generation * self.num_iterations
            if self._step % every == 0 or self._buffered_inputs is None:
                with self._deferred():
                    batch = self._generate_and_score_completions(generation_batch)
                self._buffered_inputs = self._pack(self._choose(batch))
            return self._buffered_inputs[self._step % self.args.steps_per_generation]

    @contextmanager
    def _deferred(self):
        """Log-probabilities under the old and the reference policy are computed later, of what is kept alone."""
        # vLLM's correction compares them with the sampler's for every response.
        self._deferring = not (self.use_vllm and self.vllm_importance_sampling_correction)
        try:
            yield
        finally:
            self._deferring = False

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        if self._deferring:
            return None, None, None
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _choose(self, batch: dict) -> dict:
        """The rows that are updated on, cut to their prefixes; at least one row, which then counts for nothing."""
        args, group, rewards = self.args, self.num_generations, self._rewards
        device = rewards.device
        gather = self.accelerator.gather
        local = len(batch["completion_ids"])
        own = slice(self.accelerator.process_index * local, (self.accelerator.process_index + 1) * local)
        lengths = gather(batch["completion_mask"].sum(1)).long()
        # An emptied row was cut off at the longest length and is masked (mask_truncated_completions).
        rewards = rewards.masked_fill(lengths == 0, torch.nan)
        correct, incorrect = classes(rewards, group, args.correct_threshold)
        if args.selection == "all":
            kept = torch.ones_like(correct) if self._sampled is None else gather(self._sampled)
        else:
            drawn = torch.Generator().manual_seed(args.seed * 1_000_003 + self.state.global_step * 1009 + self._step)
            kept = choose_pairs(correct, incorrect, lengths, group, args.selection, drawn)
        prefix = prefix_lengths(lengths, kept, group, args.prefix, args.prefix_ratio, args.prefix_tokens)
        if args.selection != "all" and args.pair_weight == "class":
            batch["advantages"] = batch["advantages"] * class_weights(correct, incorrect, group)[own]
        self._log_choice(self._rewards, correct, incorrect, kept, prefix)

        batch = split_pixel_values_by_grid(batch)
        rows = kept[own].nonzero().squeeze(1)
        blank = not len(rows)
        if blank:
            rows = torch.zeros(1, dtype=torch.long, device=device)
        batch = self._rows(batch, rows)
        cut = torch.zeros_like(rows) if blank else prefix[own][rows]
        columns = torch.arange(batch["completion_mask"].shape[1], device=device)
        batch["completion_mask"] = batch["completion_mask"] * (columns < cut.unsqueeze(1)).to(batch["completion_mask"].dtype)
        batch["rows"] = torch.ones_like(cut) if not blank else cut
        # Every process runs as many forward passes, in `_late_logps` too.
        batch = self._fill(batch, int(gather(batch["rows"].new_tensor(len(rows))).max()))
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)
        batch["num_items_in_batch"] = gather(mask.sum()).sum()
        return self._late_logps(self._trim(batch))

    def _log_choice(self, rewards, correct, incorrect, kept, prefix) -> None:
        metrics, group = self._metrics["train"], self.num_generations
        # Every group counts alike, however many of its responses were sampled.
        metrics["reward"][-1] = rewards.view(-1, group).nanmean(1).nanmean().item()
        right, wrong = (x.view(-1, group).any(1) for x in (correct, incorrect))
        metrics["bppo/mixed"].append((right & wrong).float().mean().item())
        metrics["bppo/all_correct"].append((right & ~wrong).float().mean().item())
        metrics["bppo/all_incorrect"].append((wrong & ~right).float().mean().item())
        sampled = kept.new_ones(len(kept)) if self._sampled is None else self.accelerator.gather(self._sampled)
        metrics["bppo/sampled"].append(sampled.float().sum().item() * group / len(kept))
        metrics["bppo/kept"].append(kept.float().sum().item() * group / len(kept))
        metrics["bppo/tokens_updated"].append(prefix[kept].sum().item())
        if kept.any():
            metrics["bppo/prefix_length"].append(prefix[kept].float().mean().item())

    @staticmethod
    def _rows(batch: dict, rows: torch.Tensor) -> dict:
        """The named rows of everything that has rows."""
        out = {}
        for name, value in batch.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                out[name] = value[rows.to(value.device)]
            elif isinstance(value, list):
                out[name] = [value[i] for i in rows.tolist()]
            else:
                out[name] = value
        return out

    @staticmethod
    def _trim(batch: dict) -> dict:
        """Without the columns at the end that no row of it needs."""
        longest = max(1, int((batch["completion_mask"].sum(0) > 0).sum()))
        cut = batch["completion_ids"].shape[1] - longest
        if not cut:
            return batch
        out = dict(batch)
        for name in _PER_TOKEN:
            # A ratio per sequence has one column.
            if name in out and out[name].shape[1] > 1:
                out[name] = out[name][:, :longest]
        for name in _PER_SEQUENCE_TOKEN:
            if name in out:
                out[name] = out[name][:, :-cut]
        return out

    def _late_logps(self, batch: dict) -> dict:
        """Adds what `_deferred` left out, as GRPOTrainer computes it."""
        every = self.args.steps_per_generation * self.num_iterations
        old = self.args.gradient_accumulation_steps % every != 0 and "old_per_token_logps" not in batch
        ref = self.beta != 0.0 and "ref_per_token_logps" not in batch
        if not old and not ref:
            return batch
        joined = unsplit_pixel_values_by_grid(batch)
        inputs = torch.cat([joined["prompt_ids"], joined["completion_ids"]], 1)
        mask = torch.cat([joined["prompt_mask"], joined["completion_mask"]], 1)
        images = {name: joined[name] for name in _IMAGES if name in joined}

        def logps(model):
            size = self.args.per_device_train_batch_size
            return self._get_per_token_logps_and_entropies(
                model, inputs, mask, joined["completion_ids"].shape[1], batch_size=size, **images
            )[0]

        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            if old:
                batch["old_per_token_logps"] = logps(self.model)
            if ref and self.ref_model is not None:
                batch["ref_per_token_logps"] = logps(self.ref_model)
            elif ref:
                model = self.accelerator.unwrap_model(self.model)
                with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                    batch["ref_per_token_logps"] = logps(self.model)
        return batch

    # --- Micro-batches ------------------------------------------------------------------------------------------------

    def _pack(self, batch: dict) -> list[dict | None]:
        """One entry per micro-batch of the generation; None is one that nothing is left for.

        Rows are spread evenly over the optimiser steps of the generation and fill each from its end, where gradients are
        exchanged, so that every process runs as many forward passes.
        """
        args = self.args
        steps = args.steps_per_generation
        window = min(args.gradient_accumulation_steps, steps)
        windows = [range(first, min(first + window, steps)) for first in range(0, steps, window)]
        batch = shuffle_sequence_dict(batch)
        counts = self.accelerator.gather(batch["rows"].sum())
        # Every optimiser step needs at least one row; DeepSpeed's engine counts its own micro-batches, each of which must run.
        batch = self._fill(batch, steps if self.is_deepspeed_enabled else len(windows))
        out: list[dict | None] = [None] * steps
        shares = torch.tensor_split(torch.arange(len(batch["rows"])), len(windows))
        for places, share in zip(windows, shares, strict=True):
            used = len(places) if self.is_deepspeed_enabled else -(-len(share) // args.per_device_train_batch_size)
            for place, rows in zip(places[len(places) - used :], torch.tensor_split(share, used), strict=True):
                out[place] = self._micro_batch(batch, rows, int(counts.sum()))
        return out

    def _fill(self, batch: dict, size: int) -> dict:
        """As many rows as `size`: what is missing are rows that count for nothing."""
        missing = size - len(batch["rows"])
        if missing <= 0:
            return batch
        batch = self._rows(batch, torch.cat([torch.arange(len(batch["rows"])), torch.zeros(missing, dtype=torch.long)]))
        for name in ("completion_mask", "rows"):
            batch[name][-missing:] = 0
        return batch

    def _micro_batch(self, batch: dict, rows: torch.Tensor, counted: int) -> dict:
        """Some rows of the batch, `counted` of which matter in all."""
        part = self._trim(self._rows(batch, rows))
        del part["rows"]
        # Losses per row are means of their micro-batch: this makes their sum the mean of all rows of all processes.
        share = len(rows) * self.args.steps_per_generation * self.accelerator.num_processes / max(1, counted)
        part["loss_scale"] = torch.tensor(1.0 if self.loss_type in _BY_TOKENS else share, device=self.accelerator.device)
        return unsplit_pixel_values_by_grid(part)

    def _compute_loss(self, model, inputs):
        if inputs is None:
            # A leaf of its own: backward runs and changes nothing.
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        loss = super()._compute_loss(model, inputs)
        return loss * inputs["loss_scale"] if "loss_scale" in inputs else loss
