"""ckptfmt: model checkpoints that any framework can write and any tool can read. The format is described in SPEC.md."""

from __future__ import annotations

from importlib import import_module

from ._version import __version__

TYPE_CHECKING = False  # typing takes a fifth of the time in which Python starts
if TYPE_CHECKING:
    from typing import Any

    from . import errors
    from .conversion import ConvertReport, convert, convert_each
    from .conversion.comparison import Change, DiffReport, diff
    from .errors import (
        CastWarning,
        CkptError,
        CorruptError,
        ExistsError,
        InputError,
        LinkedError,
        MismatchError,
        MissingError,
        NotACheckpointError,
        SelectionError,
        StorageError,
        UnknownTagWarning,
        UnsupportedError,
    )
    from .format.limits import Limits
    from .format.manifest import Schema
    from .format.tree import OMITTED
    from .frameworks.overflows import Overflow
    from .frameworks.registry import register
    from .frameworks.target import MatchReport
    from .maintenance.garbage import Garbage, GarbageReport, gc
    from .maintenance.pruning import Pruned, PruneReport, prune
    from .maintenance.salvage import Lost, RepairReport, repair
    from .maintenance.statistics import StatsReport, TensorStats, stats
    from .maintenance.verification import Damage, VerifyReport, verify
    from .maintenance.verification_of_folders import FolderReport, verify_folder
    from .manager import CheckpointManager
    from .migration import Extern, Migration, MigrationReport, MigrationSet, migrate
    from .migration.formats import upgrade
    from .parallel.files import FileCoordinator
    from .parallel.mpi import MPICoordinator
    from .progress import progress_bar
    from .reading.checkpoint import Checkpoint
    from .reading.reader import load
    from .reading.reader import open_checkpoint as open
    from .reading.tensor import Tensor
    from .writing.refusals import CheckReport, Refusal, check
    from .writing.writer import SaveReport, save

__all__ = [
    "OMITTED",
    "CastWarning",
    "Change",
    "CheckReport",
    "Checkpoint",
    "CheckpointManager",
    "CkptError",
    "ConvertReport",
    "CorruptError",
    "Damage",
    "DiffReport",
    "ExistsError",
    "Extern",
    "FileCoordinator",
    "FolderReport",
    "Garbage",
    "GarbageReport",
    "InputError",
    "Limits",
    "LinkedError",
    "Lost",
    "MPICoordinator",
    "MatchReport",
    "Migration",
    "MigrationReport",
    "MigrationSet",
    "MismatchError",
    "MissingError",
    "NotACheckpointError",
    "Overflow",
    "PruneReport",
    "Pruned",
    "Refusal",
    "RepairReport",
    "SaveReport",
    "Schema",
    "SelectionError",
    "StatsReport",
    "StorageError",
    "Tensor",
    "TensorStats",
    "UnknownTagWarning",
    "UnsupportedError",
    "VerifyReport",
    "__version__",
    "check",
    "convert",
    "convert_each",
    "diff",
    "errors",
    "gc",
    "load",
    "migrate",
    "open",
    "progress_bar",
    "prune",
    "register",
    "repair",
    "save",
    "stats",
    "upgrade",
    "verify",
    "verify_folder",
]

# Everything is imported at its first use, so that reading a slice costs little more than NumPy, and the help of the
# command line little more than Python.
_ON_DEMAND = {
    "ConvertReport": "conversion",
    "convert": "conversion",
    "convert_each": "conversion",
    "Change": "conversion.comparison",
    "DiffReport": "conversion.comparison",
    "diff": "conversion.comparison",
    "errors": "errors",
    "CastWarning": "errors",
    "CkptError": "errors",
    "CorruptError": "errors",
    "ExistsError": "errors",
    "InputError": "errors",
    "LinkedError": "errors",
    "MismatchError": "errors",
    "MissingError": "errors",
    "NotACheckpointError": "errors",
    "SelectionError": "errors",
    "StorageError": "errors",
    "UnknownTagWarning": "errors",
    "UnsupportedError": "errors",
    "Limits": "format.limits",
    "Schema": "format.manifest",
    "OMITTED": "format.tree",
    "Overflow": "frameworks.overflows",
    "register": "frameworks.registry",
    "MatchReport": "frameworks.target",
    "Garbage": "maintenance.garbage",
    "GarbageReport": "maintenance.garbage",
    "gc": "maintenance.garbage",
    "PruneReport": "maintenance.pruning",
    "Pruned": "maintenance.pruning",
    "prune": "maintenance.pruning",
    "Lost": "maintenance.salvage",
    "RepairReport": "maintenance.salvage",
    "repair": "maintenance.salvage",
    "StatsReport": "maintenance.statistics",
    "TensorStats": "maintenance.statistics",
    "stats": "maintenance.statistics",
    "Damage": "maintenance.verification",
    "VerifyReport": "maintenance.verification",
    "verify": "maintenance.verification",
    "FolderReport": "maintenance.verification_of_folders",
    "verify_folder": "maintenance.verification_of_folders",
    "CheckpointManager": "manager",
    "Extern": "migration",
    "Migration": "migration",
    "MigrationReport": "migration",
    "MigrationSet": "migration",
    "migrate": "migration",
    "upgrade": "migration.formats",
    "FileCoordinator": "parallel.files",
    "MPICoordinator": "parallel.mpi",
    "progress_bar": "progress",
    "Checkpoint": "reading.checkpoint",
    "load": "reading.reader",
    "open": "reading.reader",
    "Tensor": "reading.tensor",
    "CheckReport": "writing.refusals",
    "Refusal": "writing.refusals",
    "check": "writing.refusals",
    "SaveReport": "writing.writer",
    "save": "writing.writer",
}
_THERE = {"open": "open_checkpoint"}  # what has another name at its home, where it would hide a builtin


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_ON_DEMAND[name]}", __name__)
    value = globals()[name] = home if name == _ON_DEMAND[name] else getattr(home, _THERE.get(name, name))
    return value


def __dir__() -> list[str]:
    return __all__
