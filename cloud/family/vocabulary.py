"""The words of the language head, and the form of a report."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .labels import SLOTS

# Behaviours that a report is about; `calm` stands for none of them.
EVENTS = ("fall", "fight", "push", "chase", "help")
CALM = "calm"
# Words of the longest sentence: five people in five kinds of events.
LONGEST_WHY = 64
END, UNKNOWN = "<end>", "<unknown>"
REPORT = "report?"

# Pieces of a report's JSON are single tokens; every other token is a word with the space before it, or one sign.
_PIECES = ('{"what":[', '],"who":[', '],"when":[', '],"why":"', '"}')
_WORDS = (
    "and anyone are calm came chase chases did does everyone fall falls fell fight fights first follow fought hidden how "
    "is help helps helped it lie lies loiter loiters many no nothing of one or people person persons push pushed pushes "
    "report sit sits smoke smokes someone stand stands the then there they walk walks what when who yes"
)


class Report(BaseModel):
    """What one exit says of a window, as JSON. `who` are slots (1: leftmost), `when` seconds from the window's start.

    `sure` is the probability that the head gives its own `what`; it is added after decoding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    what: list[Literal["calm", "fall", "fight", "push", "chase", "help"]] = Field(min_length=1, max_length=len(EVENTS))
    who: list[Annotated[int, Field(ge=1, le=SLOTS)]] = Field(max_length=SLOTS)
    when: tuple[float, float]
    why: Annotated[str, StringConstraints(pattern=r"^[a-z0-9 ,]+$")]
    sure: float | None = Field(None, ge=0, le=1)


def report_pattern() -> str:
    """Regular expression of a report's text before `sure` is added; whatever fits it is a Report (but for `when`'s order)."""
    what = "(" + "|".join(f'"{e}"' for e in (CALM, *EVENTS)) + ")"
    who, second, word = f"[1-{SLOTS}]", r"[0-9]\.[0-9]", f"([0-9]|{'|'.join(_WORDS.split())})"
    return (
        rf'\{{"what":\[{what}(,{what}){{0,{len(EVENTS) - 1}}}\],"who":\[({who}(,{who}){{0,{SLOTS - 1}}})?\],'
        rf'"when":\[{second},{second}\],"why":"{word}(,? {word}){{0,{LONGEST_WHY - 1}}}"\}}'
    )


def spaced(words: Iterable[str]) -> list[str]:
    """Each word as it begins a text and as it follows another."""
    return [form for w in words for form in (w, f" {w}")]


def word_tokenizer(tokens: list[str], split: str, **options) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of END, UNKNOWN and `tokens`; `split` is the regular expression of a piece of text.

    What it joins again is the very text, if every piece of it is a token. `options` go to the tokenizer's class.
    """
    core = Tokenizer(models.WordLevel({t: i for i, t in enumerate([END, UNKNOWN, *tokens])}, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(split), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END, unk_token=UNKNOWN, **options)


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The language head's."""
    quoted = [f'"{e}"' for e in (CALM, *EVENTS)]
    seconds = [f"{i // 10}.{i % 10}" for i in range(100)]
    words, digits = spaced(sorted(set(_WORDS.split()))), spaced(map(str, range(10)))
    split = r'\{"what":\[|\],"who":\[|\],"when":\[|\],"why":"|"\}|"[a-z]+"|[0-9]\.[0-9]| ?[0-9]| ?[a-z]+|[^a-z0-9]'
    return word_tokenizer([*_PIECES, *quoted, *seconds, *words, *digits, ",", "?", ".", " "], split)
