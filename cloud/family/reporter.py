"""The language head as a Hugging Face causal decoder, so that trainers and samplers for such models can be used on it.

A prompt names a window of released features: "window:7 report?". The window stands for W tokens, which are embedded by one
exit's hidden states; they are constants, the decoder alone is trained.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3Model

from .text import TextHead
from .vocabulary import tokenizer

_WINDOW = re.compile(r"window:(\d+) ")
_PREFIX = "prefix."


def prompt_of(window: int, question: str) -> str:
    """The prompt that puts `question` to the window of that number."""
    return f"window:{window} {question}"


class ReporterTokenizer(PreTrainedTokenizerFast):
    """The family's tokenizer, which also reads "window:N " before a question as the W tokens of that window."""

    @classmethod
    def of_family(cls, steps: int) -> ReporterTokenizer:
        """For windows of `steps` ticks."""
        words = tokenizer()
        special = {name: getattr(words, name) for name in ("eos_token", "pad_token", "unk_token")}
        out = cls(tokenizer_object=words.backend_tokenizer, padding_side="left", **special)
        out.steps = steps
        return out

    def __call__(self, text, *args, padding=False, return_tensors=None, **kwargs):
        many = isinstance(text, (list, tuple))
        texts = list(text) if many else [text]
        found = [_WINDOW.match(t) for t in texts]
        rest = [t[m.end() :] if m else t for t, m in zip(texts, found, strict=True)]
        out = super().__call__(rest, *args, **kwargs)
        for i, m in enumerate(found):
            if m:
                first = len(self) + int(m[1]) * self.steps
                out["input_ids"][i] = [*range(first, first + self.steps), *out["input_ids"][i]]
                out["attention_mask"][i] = [1] * self.steps + out["attention_mask"][i]
        if not many:
            out = BatchEncoding({name: values[0] for name, values in out.items()})
        return self.pad(out, padding=padding, return_tensors=return_tensors) if padding or return_tensors else out


class _Embedding(nn.Embedding):
    """Words from the table; ids beyond it are ticks of windows, which pass through the head's own projection."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        beyond = ids >= self.num_embeddings
        out = super().forward(ids.masked_fill(beyond, 0))
        if beyond.any():
            ticks = self.prefix(self.windows.flatten(0, 1)[ids[beyond] - self.num_embeddings])
            out = out.masked_scatter(beyond.unsqueeze(-1), ticks.to(out.dtype))
        return out


class _ReporterModel(Qwen3Model):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = _Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.embed_tokens.prefix = nn.Linear(config.hidden_size, config.hidden_size)
        self.embed_tokens.register_buffer("windows", torch.zeros(0, 1, config.hidden_size), persistent=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        if input_ids is not None and (ticks := input_ids >= self.config.vocab_size).any():
            # As in TextHead: every token sees its whole window, and the text before it.
            there = torch.ones_like(ticks) if attention_mask is None else attention_mask.bool()
            order = torch.arange(input_ids.shape[1], device=input_ids.device)
            sees = there.unsqueeze(1) & (ticks.unsqueeze(1) | (order[:, None] >= order))
            dtype = self.embed_tokens.weight.dtype
            attention_mask = torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, -1e9).unsqueeze(1)
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


class Reporter(Qwen3ForCausalLM):
    """A `TextHead` and the windows that it is asked about."""

    def __init__(self, config):
        super().__init__(config)
        self.model = _ReporterModel(config)
        self.post_init()

    @classmethod
    def of_head(cls, head: TextHead, windows: torch.Tensor) -> Reporter:
        """A copy of the head; `windows` [N, R, hidden_size]: `Answer.hidden` of one exit, numbered from 0."""
        out = cls(head.decoder.config)
        state = {k.removeprefix("decoder."): v for k, v in head.state_dict().items()}
        named = {k: f"model.embed_tokens.{k}" for k in state if k.startswith(_PREFIX)}
        out.load_state_dict({named.get(k, k): v.detach().clone() for k, v in state.items()})
        out.model.embed_tokens.windows = windows.detach()
        return out

    def copy_to(self, head: TextHead) -> None:
        """Writes these weights into a head of the same sizes."""
        inside = "model.embed_tokens." + _PREFIX
        own = {k: v for k, v in self.state_dict().items() if not k.endswith(".windows")}
        head.load_state_dict(
            {(_PREFIX + k.removeprefix(inside) if k.startswith(inside) else f"decoder.{k}"): v for k, v in own.items()}
        )
