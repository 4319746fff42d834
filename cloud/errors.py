"""Errors that a user reads: one line, and the documented exit code that goes with it."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, the same in every command of the project (README, "Exit codes")."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    SOURCE = 3
    BUNDLE = 4
    CREDENTIALS = 5
    STORAGE = 6
    ADDRESS = 7
    UNDELIVERED = 8
    AUDIT = 9
    RESTART = 10


class RuyicamError(Exception):
    """An expected failure. `code` is the process's exit code; the message is one line."""

    def __init__(self, code: Exit, message: str):
        super().__init__(message)
        self.code = code

    def __reduce__(self):
        # A worker process hands it back pickled, by default only with its message; subclasses take other arguments.
        return RuyicamError, (self.code, str(self))


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line: the first of its message, or of what kind it is."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
