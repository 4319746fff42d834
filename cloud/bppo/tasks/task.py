"""What a task is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One prompt, what a right answer to it is, and, where a supervised start exists, a response to learn from."""

    prompt: str
    answer: str
    demonstration: str | None = None


class Task(ABC):
    """A source of prompts and a reward. A new task is a subclass with these two methods."""

    name: str
    # Reward from which a response counts as correct.
    threshold = 0.5
    # Tokens after which a response is cut off.
    max_tokens = 256
    # Training prompts that a run draws from, at most.
    train_prompts = 4000

    @abstractmethod
    def examples(self, split: str, count: int) -> list[Example]:
        """Up to `count` examples of "train" or "test", always the same ones; no prompt is in both."""

    @abstractmethod
    def reward(self, completion: str, answer: str) -> float:
        """Of one response without its end token, 0 to 1; whatever text comes, it does not raise."""

    def answer_of(self, completion: str) -> str | None:
        """What the response says, as `reward` takes an answer; None where it says nothing. Unless overridden: all of it."""
        return completion

    def reward_function(self):
        """The reward in the form that TRL calls: a list of responses and the dataset's `answer` column -> list of floats."""

        def reward(completions, answer, **kwargs):
            texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
            return [self.reward(text, a) for text, a in zip(texts, answer, strict=True)]

        reward.__name__ = self.name
        return reward
