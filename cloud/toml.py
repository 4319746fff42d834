"""Configuration files: TOML into checked models, one clear line for what is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import Exit, RuyicamError

Model = TypeVar("Model", bound=BaseModel)


def load_toml(model: type[Model], path: Path) -> Model:
    """Reads `path` as `model`. Raises RuyicamError(USAGE) that names the file, the key and what would be right."""
    try:
        return model.model_validate(tomllib.loads(path.read_text()))
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
