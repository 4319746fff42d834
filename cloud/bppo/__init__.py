"""Binary Prefix Policy Optimization on TRL (needs the extra `rl`)."""

from .bppo_config import BPPOConfig
from .bppo_trainer import BPPOTrainer

__all__ = ["BPPOConfig", "BPPOTrainer"]
