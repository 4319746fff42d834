"""The familial model: one backbone, several tiers."""

from .config import FamilyConfig
from .model import Answer, Family, Reasoner

__all__ = ["Answer", "Family", "FamilyConfig", "Reasoner"]
