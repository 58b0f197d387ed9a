"""ckptfmt: model checkpoints that any framework can write and any tool can read. The format is described in SPEC.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    CkptError,
    CorruptError,
    ExistsError,
    InputError,
    MismatchError,
    MissingError,
    NotACheckpointError,
    SelectionError,
    StorageError,
    UnknownTagWarning,
    UnsupportedError,
)
from .limits import Limits
from .manifest import Schema
from .reader import Checkpoint, load
from .reader import open_checkpoint as open
from .tensor import Tensor
from .tree import OMITTED

if TYPE_CHECKING:
    from .comparison import Change, DiffReport, diff
    from .conversion import ConvertReport, convert, convert_each
    from .garbage import Garbage, GarbageReport, gc
    from .manager import CheckpointManager
    from .migration import Extern, Migration, MigrationReport, MigrationSet, migrate
    from .migration.formats import upgrade
    from .parallel.files import FileCoordinator
    from .parallel.mpi import MPICoordinator
    from .progress import progress_bar
    from .salvage import Lost, RepairReport, repair
    from .target import MatchReport
    from .verification import Damage, VerifyReport, verify
    from .verification_of_folders import FolderReport, verify_folder
    from .writer import SaveReport, save

__all__ = [
    "OMITTED",
    "Change",
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
    "Lost",
    "MPICoordinator",
    "MatchReport",
    "Migration",
    "MigrationReport",
    "MigrationSet",
    "MismatchError",
    "MissingError",
    "NotACheckpointError",
    "RepairReport",
    "SaveReport",
    "Schema",
    "SelectionError",
    "StorageError",
    "Tensor",
    "UnknownTagWarning",
    "UnsupportedError",
    "VerifyReport",
    "__version__",
    "convert",
    "convert_each",
    "diff",
    "gc",
    "load",
    "migrate",
    "open",
    "progress_bar",
    "repair",
    "save",
    "upgrade",
    "verify",
    "verify_folder",
]

# What opening and loading do not need is imported at its first use: reading a slice should cost little more than NumPy.
_ON_DEMAND = {
    "CheckpointManager": "manager",
    "Change": "comparison",
    "DiffReport": "comparison",
    "diff": "comparison",
    "ConvertReport": "conversion",
    "convert": "conversion",
    "convert_each": "conversion",
    "Damage": "verification",
    "Extern": "migration",
    "FileCoordinator": "parallel.files",
    "FolderReport": "verification_of_folders",
    "Garbage": "garbage",
    "GarbageReport": "garbage",
    "gc": "garbage",
    "MPICoordinator": "parallel.mpi",
    "MatchReport": "target",
    "Migration": "migration",
    "MigrationReport": "migration",
    "MigrationSet": "migration",
    "Lost": "salvage",
    "RepairReport": "salvage",
    "SaveReport": "writer",
    "VerifyReport": "verification",
    "migrate": "migration",
    "progress_bar": "progress",
    "repair": "salvage",
    "save": "writer",
    "upgrade": "migration.formats",
    "verify": "verification",
    "verify_folder": "verification_of_folders",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
