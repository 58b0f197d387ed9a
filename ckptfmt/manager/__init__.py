"""The checkpoints of a training run: when to save, what to keep, saving in the background, finding and restoring.

`CheckpointManager` is the whole face; the policies of `keep=`, and `Schedule`, are its vocabulary.
"""

from .copies import CopyTo, CopyWarning
from .finding import FallbackWarning
from .manager import CheckpointManager
from .policies import All, Best, Every, EveryTime, Last, Pinned, Policy, Where
from .retention import Plan
from .run import DamagedStep
from .schedule import Schedule
from .steps import Step

__all__ = [
    "All",
    "Best",
    "CheckpointManager",
    "CopyTo",
    "CopyWarning",
    "DamagedStep",
    "Every",
    "EveryTime",
    "FallbackWarning",
    "Last",
    "Pinned",
    "Plan",
    "Policy",
    "Schedule",
    "Step",
    "Where",
]
