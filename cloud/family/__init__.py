"""The familial model: one backbone, several tiers."""

from typing import TYPE_CHECKING

from .config import FamilyConfig

if TYPE_CHECKING:
    from .heads import Answer
    from .model import Family, Reasoner

__all__ = ["Answer", "Family", "FamilyConfig", "Reasoner"]


def __getattr__(name: str):
    # PyTorch and transformers take seconds to load; who only wants sizes need not wait for them.
    if name == "Answer":
        from .heads import Answer

        return Answer
    if name in ("Family", "Reasoner"):
        from . import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
