"""Tasks with rewards that a program can check."""

from .arithmetic import Arithmetic
from .gsm8k import GSM8K
from .task import Example, Task

__all__ = ["GSM8K", "Arithmetic", "Example", "Task"]
