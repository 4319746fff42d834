"""Long sums of small numbers, worked out in words: small enough to learn on a CPU, long enough to be told in many ways."""

from __future__ import annotations

import re

import numpy as np
from transformers import PreTrainedTokenizerFast

from ruyicam.cloud.family.vocabulary import spaced, word_tokenizer

from .task import Example, Task

_WORDS = (
    "about add all and answer are as at check i is it let me near number numbers of one so sum take that the they think this "
    "times we"
)
# How people go about it: a guess, an estimate from the middle number, or the sum, straight or with every step done twice.
_GUESS, _ESTIMATE = 0.25, 0.15
# Share of the sums that are off by one.
_SLIP = 0.01


def tokenizer() -> PreTrainedTokenizerFast:
    """Digits, signs and words."""
    tokens = [*spaced(sorted(set(_WORDS.split()))), *spaced(map(str, range(10))), "+", "=", "?", ".", ",", ":", " "]
    return word_tokenizer(tokens, r" ?[0-9]| ?[a-z]+|[^a-z0-9]", padding_side="left", clean_up_tokenization_spaces=False)


class Arithmetic(Task):
    """What is 3+8+5+9+4? The response ends in "answer 29."; demonstrations differ in style, and a few of them slip."""

    name = "arithmetic"
    max_tokens = 144

    def __init__(self, terms: int = 5, checked: float = 0.75):
        """Of `terms` numbers, 2 to 7. checked: the share of the demonstrations that work the sum out which do every step twice,
        and so how much of what leads to right answers is redundant."""
        self.terms, self.checked = terms, checked
        worked = 1 - _GUESS - _ESTIMATE
        self.styles = {
            "guess": _GUESS, "estimate": _ESTIMATE, "plain": worked * (1 - checked), "checked": worked * checked,
        }  # fmt: skip

    def examples(self, split: str, count: int) -> list[Example]:
        rng = np.random.default_rng([23, self.terms])
        out = []
        for place, which in enumerate(rng.permutation(9**self.terms).tolist()):
            if len(out) == count:
                break
            # One sum in five is a test.
            if (place % 5 == 0) == (split == "test"):
                numbers = tuple(which // 9**i % 9 + 1 for i in range(self.terms))
                told = self._demonstrate(numbers, np.random.default_rng([31, which]))
                out.append(Example("+".join(map(str, numbers)) + "=?", str(sum(numbers)), told))
        return out

    def _demonstrate(self, numbers: tuple[int, ...], rng: np.random.Generator) -> str:
        style = str(rng.choice(list(self.styles), p=list(self.styles.values())))

        def steps(form: str) -> tuple[list[str], int]:
            total, out = numbers[0], []
            for n in numbers[1:]:
                new = total + n + (int(rng.choice([-1, 1])) if rng.random() < _SLIP else 0)
                out.append(form.format(a=total, b=n, c=new))
                total = new
            return out, total

        if style == "guess":
            one, other = rng.integers(len(numbers), 9 * len(numbers) + 1, 2)
            return f"i think it is about {one}. answer {other}."
        if style == "estimate":
            middle = sorted(numbers)[len(numbers) // 2]
            total = middle * len(numbers)
            return (
                f"they are all near {middle}, so we take {middle} as one number and add it {len(numbers)} times, as they are "
                f"{len(numbers)} numbers. so this is about {total}. answer {total}."
            )
        parts, total = steps(" {a}+{b}={c}." if style == "plain" else " {a}+{b}={c}. let me check that: {a}+{b}={c}.")
        return "".join(parts).lstrip() + f" answer {total}."

    def reward(self, completion: str, answer: str) -> float:
        """1 for a response that ends in the right answer, else 0."""
        return float(completion.rstrip().endswith(f"answer {answer}."))

    def answer_of(self, completion: str) -> str | None:
        """The number that the response ends in."""
        found = re.search(r"answer (\d+)\.\s*$", completion)
        return found and found[1]
