"""The shared trunk: a Hugging Face Qwen3 decoder over one input per tick, left at named exits."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding

from .config import FamilyConfig


def decoder_config(config: FamilyConfig, depth: int, **options) -> Qwen3Config:
    """The Hugging Face configuration of `depth` layers in the trunk's sizes; a pretrained decoder has the same kind.

    `options` are Qwen3Config's, in place of the trunk's own.
    """
    t = config.trunk
    own = dict(
        vocab_size=1,
        hidden_size=t.hidden_size,
        intermediate_size=t.intermediate_size,
        num_hidden_layers=depth,
        num_attention_heads=t.heads,
        num_key_value_heads=t.heads,
        head_dim=t.hidden_size // t.heads,
        max_position_embeddings=512,
        attention_dropout=t.dropout,
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Qwen3Config(**own | options)


class Trunk(nn.Module):
    """Features [N, W, n] -> hidden states after each exit. A tick that was not released is `valid=False`.

    A window is read as a whole: every tick sees all of it, for people are counted from the left over the whole window.
    """

    def __init__(self, config: FamilyConfig, depth: int):
        super().__init__()
        hf = decoder_config(config, depth)
        self.scale = 1.0 if config.mapping.bypass else 1 / (2 * config.mapping.sigma)
        self.embed = nn.Linear(config.features, hf.hidden_size)
        self.missing = nn.Parameter(torch.zeros(hf.hidden_size))
        self.dropout_in = nn.Dropout(config.trunk.input_dropout)
        self.dropout = nn.Dropout(config.trunk.dropout)
        self.layers = nn.ModuleList(Qwen3DecoderLayer(hf, i) for i in range(depth))
        for layer in self.layers:
            # Every layer begins as the identity, so that depth costs little where there is little data.
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
        self.norm = Qwen3RMSNorm(hf.hidden_size)
        self.rotary = Qwen3RotaryEmbedding(hf)
        self.gradient_checkpointing = False

    def forward(self, features: torch.Tensor, valid: torch.Tensor, exits: dict[str, int]) -> dict[str, torch.Tensor]:
        x = nn.functional.silu(self.embed(self.dropout_in(features.to(self.missing.dtype) * self.scale)))
        x = self.dropout(torch.where(valid.unsqueeze(-1), x, self.missing.to(x.dtype)))
        steps = x.shape[1]
        position = torch.arange(steps, device=x.device).unsqueeze(0)
        rotary = self.rotary(x, position)
        named = {depth: name for name, depth in exits.items()}
        out = {}
        for i, layer in enumerate(self.layers[: max(named)], start=1):
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, attention_mask=None, position_embeddings=rotary, use_reentrant=False)
            else:
                x = layer(x, attention_mask=None, position_embeddings=rotary)
            if i in named:
                out[named[i]] = self.norm(x)
        return out
