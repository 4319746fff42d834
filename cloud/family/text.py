"""The language head: one exit's hidden states, then a prompt, then the answer."""

from __future__ import annotations

import functools
import inspect

import torch
from outlines_core import Index, Vocabulary
from torch import nn
from transformers import DynamicCache, Qwen3ForCausalLM, Qwen3Model

from .config import FamilyConfig
from .trunk import decoder_config
from .vocabulary import END, LONGEST_WHY, REPORT, Report, report_pattern, tokenizer

# What transformers calls the keys and values of the tokens so far; 5.24 renamed it.
CACHE = "cache" if "cache" in inspect.signature(Qwen3Model.forward).parameters else "past_key_values"
# Longer than any report in tokens: a sign may follow each word, and what comes before them is short.
_LONGEST = 2 * LONGEST_WHY + 40


@functools.cache
def _report_index() -> Index:
    """Which tokens may follow which in a report (Willard and Louf, arXiv 2307.09702)."""
    tokens = tokenizer().get_vocab()
    end = tokens[END]
    return Index(report_pattern(), Vocabulary(end, {t: [i] for t, i in tokens.items() if i != end and t[0] != "<"}))


class TextHead(nn.Module):
    """A causal decoder (Hugging Face Qwen3) whose first R inputs are what an exit makes of a window (`Answer.hidden`)."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        # Packed texts are long, and a fused attention keeps no weights that could be dropped.
        fused = {"attn_implementation": "sdpa", "attention_dropout": 0.0}
        hf = decoder_config(config, config.text.layers, vocab_size=len(tokenizer()), tie_word_embeddings=False, **fused)
        self.prefix = nn.Linear(hf.hidden_size, hf.hidden_size)
        self.decoder = Qwen3ForCausalLM(hf)

    def forward(self, hidden: torch.Tensor, ids: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
        """Logits of the next token, [N, L, vocabulary], of packed texts that do not see each other.

        hidden [N, R, hidden_size]; ids int64 [N, L]; segment int64 [N, L]: the text that a token belongs to, rising.
        """
        steps, length = hidden.shape[1], ids.shape[1]
        x = torch.cat([self.prefix(hidden), self.decoder.model.embed_tokens(ids)], 1)
        order = torch.arange(length, device=ids.device)
        first = torch.zeros_like(segment)
        first[:, 1:] = torch.where(segment[:, 1:] != segment[:, :-1], order[1:], 0)
        position = torch.cat(
            [torch.arange(steps, device=ids.device).expand(len(ids), -1), steps + order - first.cummax(1).values], 1
        )
        sees = torch.zeros(len(ids), steps + length, steps + length, dtype=torch.bool, device=ids.device)
        sees[:, :, :steps] = True
        sees[:, steps:, steps:] = (segment[:, :, None] == segment[:, None, :]) & (order[:, None] >= order)
        mask = torch.zeros_like(sees, dtype=x.dtype).masked_fill(~sees, -1e9)[:, None]
        out = self.decoder.model(inputs_embeds=x, attention_mask=mask, position_ids=position, use_cache=False)
        return self.decoder.lm_head(out.last_hidden_state[:, steps:])

    @torch.inference_mode()
    def _decode(self, hidden: torch.Tensor, prompt: str, index: Index | None, limit: int):
        """Greedy answers: (token ids without the end, probability of each), per row."""
        words = tokenizer()
        end = words.eos_token_id
        ids = torch.tensor(words(prompt)["input_ids"], device=hidden.device)
        x = torch.cat([self.prefix(hidden), self.decoder.model.embed_tokens(ids).expand(len(hidden), -1, -1)], 1)
        steps, total = hidden.shape[1], x.shape[1]
        # The prefix is read as a whole, as in training.
        sees = torch.ones(total, total, dtype=torch.bool, device=x.device).tril()
        sees[:, :steps] = True
        mask = torch.zeros(total, total, dtype=x.dtype, device=x.device).masked_fill(~sees, -1e9)
        cache = DynamicCache()
        out = self.decoder.model(
            inputs_embeds=x,
            attention_mask=mask.expand(len(x), 1, -1, -1),
            position_ids=torch.arange(total, device=x.device).expand(len(x), -1),
            use_cache=True,
            **{CACHE: cache},
        )
        states = [index.get_initial_state()] * len(x) if index else None
        said: list[list[int]] = [[] for _ in range(len(x))]
        sure: list[list[float]] = [[] for _ in range(len(x))]
        over = [False] * len(x)
        for _ in range(limit):
            logits = self.decoder.lm_head(out.last_hidden_state[:, -1]).float()
            if index:
                forbidden = torch.ones_like(logits, dtype=torch.bool)
                for row, state in enumerate(states):
                    forbidden[row, [end] if over[row] else list(index.get_allowed_tokens(state))] = False
                logits = logits.masked_fill(forbidden, -torch.inf)
            best = logits.softmax(-1).max(-1)
            for row, (p, token) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                if over[row]:
                    continue
                if token == end:
                    over[row] = True
                    continue
                said[row].append(token)
                sure[row].append(p)
                if index:
                    states[row] = index.get_next_state(states[row], token)
            if all(over):
                break
            x = self.decoder.model.embed_tokens(best.indices[:, None])
            at = torch.full((len(x), 1), cache.get_seq_length(), device=x.device)
            out = self.decoder.model(inputs_embeds=x, position_ids=at, use_cache=True, **{CACHE: cache})
        return said, sure

    def answer(self, hidden: torch.Tensor, question: str) -> list[str]:
        """The short answers of the windows `hidden` [N, R, hidden_size] of one exit to one question."""
        return tokenizer().batch_decode(self._decode(hidden, question, None, 8)[0])

    def report(self, hidden: torch.Tensor) -> list[Report]:
        """One report per window [N, R, hidden_size]; decoding can give nothing but a valid one."""
        said, sure = self._decode(hidden, REPORT, _report_index(), _LONGEST)
        out = []
        for tokens, chances in zip(said, sure, strict=True):
            text = tokenizer().decode(tokens)
            what = text.index('],"who"')
            spent, probability = 0, 1.0
            for token, p in zip(tokens, chances, strict=True):
                if spent > what:
                    break
                probability *= p
                spent += len(tokenizer().decode([token]))
            report = Report.model_validate_json(text)
            out.append(report.model_copy(update={"sure": round(probability, 3), "when": tuple(sorted(report.when))}))
        return out
