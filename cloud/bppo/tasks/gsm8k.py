"""GSM8K (arXiv 2110.14168) from a jsonl file of the public format."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ruyicam.cloud.errors import Exit, RuyicamError

from .task import Example, Task

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_PROMPT = "{question}\nReason step by step, then give the final number after '####'.\n"


def final_number(text: str) -> float | None:
    """The number after the last "####", or else the last number of the text; None where there is none."""
    found = _NUMBER.findall(text.rsplit("####", 1)[-1]) if "####" in text else _NUMBER.findall(text)[-1:]
    if not found:
        return None
    try:
        return float(found[0].replace(",", "").replace("$", ""))
    except ValueError:
        return None


class GSM8K(Task):
    """Lines of {"question": …, "answer": "… #### 72"}. `folder` holds train.jsonl and test.jsonl."""

    name = "gsm8k"
    max_tokens = 512
    train_prompts = 10_000

    def __init__(self, folder: Path):
        self.folder = folder

    def examples(self, split: str, count: int) -> list[Example]:
        """RuyicamError(SOURCE) for a file that is missing or a line that is not of the format."""
        path = self.folder / f"{split}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RuyicamError(Exit.SOURCE, f"cannot read {path}: {error}") from error
        out = []
        for number, line in enumerate(lines, 1):
            if len(out) == count:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                question, worked = row["question"].strip(), row["answer"]
                if "####" not in worked or (answer := final_number(worked)) is None:
                    raise ValueError("no number after '####'")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RuyicamError(
                    Exit.SOURCE, f'{path}, line {number}: {error!s}; expected {{"question": …, "answer": "… #### 72"}}'
                ) from error
            out.append(Example(_PROMPT.format(question=question), repr(answer), worked))
        if not out:
            raise RuyicamError(Exit.SOURCE, f"{path} has no example")
        return out

    def reward(self, completion: str, answer: str) -> float:
        """1 for the right number after "####" (or last in the text), else 0."""
        said = final_number(completion)
        return float(said is not None and abs(said - float(answer)) < 1e-6)

    def answer_of(self, completion: str) -> str | None:
        """The number that `reward` looks at."""
        said = final_number(completion)
        return None if said is None else repr(said)
