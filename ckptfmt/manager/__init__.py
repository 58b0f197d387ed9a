"""The checkpoints of a training run: when to save, what to keep, saving in the background, finding and restoring.

`CheckpointManager` is the whole face; the policies of `keep=`, `Schedule`, `Background` and `CopyTo` are its
vocabulary. `open_run` reads a run without a manager. `FlaxCheckpointManager` and `open_flax_run` do the same by the
rules of `flax.training.checkpoints`. What is not in `__all__` is private, and so are the modules of this package.
"""

from __future__ import annotations

from ..on_demand import exports
from ..options import OpenOptions
from .copies import CopyTo, CopyWarning
from .flax import FlaxCheckpointManager
from .history import HistoryWarning
from .manager import CheckpointManager
from .options import Background, ManagerOptions, RestoreOptions, RunOptions, StepOptions
from .peer_replicas import Peers
from .policies import All, Best, Every, EveryTime, Last, Pinned, Policy, Where
from .preemption import Preemption
from .reader import FallbackWarning, RunReader, open_flax_run, open_run
from .replica_folder import Memory
from .replicas import ReplicaWarning
from .retention import RetentionPlan
from .run import DamagedStep
from .schedule import Schedule
from .sharing import SharingWarning
from .steps import Step
from .tracking import LogTo, TrackedSave, TrackingWarning

__all__ = [
    "All",
    "Background",
    "Best",
    "CheckpointManager",
    "CopyTo",
    "CopyWarning",
    "DamagedStep",
    "Every",
    "EveryTime",
    "FallbackWarning",
    "FlaxCheckpointManager",
    "HistoryWarning",
    "Last",
    "LogTo",
    "ManagerOptions",
    "Memory",
    "OpenOptions",
    "Peers",
    "Pinned",
    "Policy",
    "Preemption",
    "ReplicaWarning",
    "RestoreOptions",
    "RetentionPlan",
    "RunOptions",
    "RunReader",
    "Schedule",
    "SharingWarning",
    "Step",
    "StepOptions",
    "TrackedSave",
    "TrackingWarning",
    "Where",
    "open_flax_run",
    "open_run",
]

__getattr__ = exports(__name__, {}, former={"Plan": "RetentionPlan"})
