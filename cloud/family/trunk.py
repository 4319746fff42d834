"""The shared trunk: a Hugging Face Qwen3 decoder over one input per tick, left at named exits."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding

from .config import FamilyConfig


def decoder_config(config: FamilyConfig, depth: int) -> Qwen3Config:
    """The Hugging Face configuration of the first `depth` layers; a pretrained text trunk has the same kind."""
    t = config.trunk
    return Qwen3Config(
        vocab_size=1,
        hidden_size=t.hidden_size,
        intermediate_size=t.intermediate_size,
        num_hidden_layers=depth,
        num_attention_heads=t.heads,
        num_key_value_heads=t.heads,
        head_dim=t.hidden_size // t.heads,
        max_position_embeddings=max(config.window, 32),
        attention_dropout=t.dropout,
        attn_implementation="eager",
    )


class Trunk(nn.Module):
    """Features [B, W, n] -> hidden states after each exit. A tick that was not released is `valid=False`."""

    def __init__(self, config: FamilyConfig, depth: int):
        super().__init__()
        hf = decoder_config(config, depth)
        self.scale = 1 / (2 * config.mapping.sigma)
        self.embed = nn.Linear(config.features, hf.hidden_size)
        self.missing = nn.Parameter(torch.zeros(hf.hidden_size))
        self.dropout = nn.Dropout(config.trunk.dropout)
        self.layers = nn.ModuleList(Qwen3DecoderLayer(hf, i) for i in range(depth))
        self.norm = Qwen3RMSNorm(hf.hidden_size)
        self.rotary = Qwen3RotaryEmbedding(hf)

    def forward(self, features: torch.Tensor, valid: torch.Tensor, exits: dict[str, int]) -> dict[str, torch.Tensor]:
        x = self.embed(features.to(self.missing.dtype) * self.scale)
        x = self.dropout(torch.where(valid.unsqueeze(-1), x, self.missing))
        steps = x.shape[1]
        position = torch.arange(steps, device=x.device).unsqueeze(0)
        future = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
        mask = torch.zeros(steps, steps, dtype=x.dtype, device=x.device).masked_fill(future, -1e9)[None, None]
        rotary = self.rotary(x, position)
        named = {depth: name for name, depth in exits.items()}
        out = {}
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, attention_mask=mask, position_embeddings=rotary)
            if i in named:
                out[named[i]] = self.norm(x)
        return out
