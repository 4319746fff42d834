"""Configuration files: TOML into checked models, one clear line for what is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import Exit, RuyicamError

Model = TypeVar("Model", bound=BaseModel)


def _put(content: dict, change: str) -> None:
    """Sets one key of a file's content; RuyicamError(USAGE) for what is not "table.key=value". In a list a number is a key."""
    key, _, value = change.partition("=")
    *tables, name = key.strip().split(".")
    try:
        (said,) = tomllib.loads(f"value = {value}").values()
        for table in tables:
            content = content[int(table)] if isinstance(content, list) else content.setdefault(table, {})
        content[name] = said
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise RuyicamError(Exit.USAGE, f"'{change}' changes no key of a file, expected TABLE.KEY=VALUE") from error


def load_toml(model: type[Model], path: Path, changes: Iterable[str] = ()) -> Model:
    """Reads `path` as `model`, with `changes` "table.key=value" (the value as TOML writes it) in place of what it says.

    Raises RuyicamError(USAGE) that names the file, the key and what would be right.
    """
    try:
        content = tomllib.loads(path.read_text())
        for change in changes:
            _put(content, change)
        return model.model_validate(content)
    except OSError as error:
        raise RuyicamError(Exit.USAGE, f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuyicamError(Exit.USAGE, f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise RuyicamError(Exit.USAGE, f"{path}: unknown key '{key}'") from error
        raise RuyicamError(Exit.USAGE, f"{path}: '{key}': {first['msg']}".replace("'': ", "")) from error
