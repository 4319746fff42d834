"""Sampling with transformers' `generate`, of which responses that have ended take no part any more."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ruyicam.cloud.family.text import CACHE

# What counts from where `generate` began, ends a response without an end token, or needs a cache of another kind.
_NOT_IN_PARTS = (
    "min_new_tokens",
    "exponential_decay_length_penalty",
    "begin_suppress_tokens",
    "forced_eos_token_id",
    "max_time",
    "stop_strings",
    "prompt_lookup_num_tokens",
    "penalty_alpha",
    "dola_layers",
    "guidance_scale",
    "cache_implementation",
)


def _cache_of(model: PreTrainedModel) -> DynamicCache | None:
    """An empty one whose rows can be taken out; None for models that keep something else of the past."""
    if not model._supports_default_dynamic_cache():
        return None
    cache = DynamicCache(config=model.config.get_text_config())
    return cache if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers) else None


def _in_parts(config: GenerationConfig | None, others: dict) -> bool:
    """Whether `generate` may be called part by part with the same outcome."""
    return (
        config is not None
        and not others
        and config.max_new_tokens is not None
        and config.eos_token_id is not None
        and config.pad_token_id is not None
        and config.use_cache is not False
        and (config.num_beams or 1) == (config.num_return_sequences or 1) == 1
        and not any(getattr(config, name, None) for name in _NOT_IN_PARTS)
    )


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    every: int,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    generation_config: GenerationConfig | None = None,
    **others,
) -> torch.Tensor:
    """`model.generate`, after every `every` tokens of which the rows that have ended leave the batch.

    input_ids, attention_mask: int64 [N, P], padded on the left. Returns int64 [N, P + T], T the length of the longest response,
    the others padded behind their end token: greedy responses are `model.generate`'s, sampled ones are drawn in another order.
    Where it cannot be done in parts (beams, stop strings, inputs beside these, linear attention, ...)
    `model.generate` does it as ever.
    """
    whole = type(model).generate
    cache = _cache_of(model) if _in_parts(generation_config, others) else None
    if cache is None:
        return whole(model, input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config, **others)
    config = copy.deepcopy(generation_config)
    rows, prompt = input_ids.shape
    out = input_ids.new_full((rows, prompt + config.max_new_tokens), config.pad_token_id)
    ends = torch.as_tensor(config.eos_token_id, device=input_ids.device)
    going, said, mask, length = torch.arange(rows, device=input_ids.device), input_ids, attention_mask, prompt
    while len(going) and length < out.shape[1]:
        config.max_new_tokens = min(every, out.shape[1] - length)
        more = whole(model, input_ids=said, attention_mask=mask, generation_config=config, **{CACHE: cache})
        more = more if isinstance(more, torch.Tensor) else more.sequences
        out[going, : more.shape[1]] = more
        goes_on = ~torch.isin(more[:, length:], ends).any(1)
        if not goes_on.all():
            cache.batch_select_indices(goes_on.nonzero().squeeze(1))
        mask = torch.cat([mask, mask.new_ones(len(mask), more.shape[1] - length)], 1)[goes_on]
        going, said, length = going[goes_on], more[goes_on], more.shape[1]
    return out[:, :length]


@contextmanager
def compacting(model: PreTrainedModel, every: int) -> Iterator[None]:
    """`model.generate` is `generate` of above inside."""
    model.generate = partial(generate, model, every)
    try:
        yield
    finally:
        del model.generate


class Compacting:
    """Mixin before a TRL trainer: after every `compact_every` tokens, responses that have ended leave the batch; 0: never.

    Only where transformers' own `generate` samples text, and no process has to wait for another's layers.
    """

    compact_every: int = 0

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, **kwargs):
        single = partial(super()._generate_single_turn, prompt_ids, images, multimodal_fields, num_generations, **kwargs)
        if not self.compact_every or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return single()
        with compacting(self.accelerator.unwrap_model(self.model), self.compact_every):
            return single()
