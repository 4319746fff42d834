"""The familial model: one backbone, several tiers."""

from .config import FamilyConfig
from .heads import Answer
from .model import Family, Reasoner

__all__ = ["Answer", "Family", "FamilyConfig", "Reasoner"]
