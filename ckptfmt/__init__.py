"""ckptfmt: model checkpoints that any framework can write and any tool can read. The format is described in SPEC.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
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
from .reading.reader import Checkpoint, load
from .reading.reader import open_checkpoint as open
from .reading.tensor import Tensor

if TYPE_CHECKING:
    from .conversion import ConvertReport, convert, convert_each
    from .conversion.comparison import Change, DiffReport, diff
    from .frameworks.overflows import Overflow
    from .frameworks.target import MatchReport
    from .maintenance.garbage import Garbage, GarbageReport, gc
    from .maintenance.salvage import Lost, RepairReport, repair
    from .maintenance.verification import Damage, VerifyReport, verify
    from .maintenance.verification_of_folders import FolderReport, verify_folder
    from .manager import CheckpointManager
    from .migration import Extern, Migration, MigrationReport, MigrationSet, migrate
    from .migration.formats import upgrade
    from .parallel.files import FileCoordinator
    from .parallel.mpi import MPICoordinator
    from .progress import progress_bar
    from .writing.writer import SaveReport, save

__all__ = [
    "OMITTED",
    "CastWarning",
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
    "Change": "conversion.comparison",
    "DiffReport": "conversion.comparison",
    "diff": "conversion.comparison",
    "ConvertReport": "conversion",
    "convert": "conversion",
    "convert_each": "conversion",
    "Damage": "maintenance.verification",
    "Extern": "migration",
    "FileCoordinator": "parallel.files",
    "FolderReport": "maintenance.verification_of_folders",
    "Garbage": "maintenance.garbage",
    "GarbageReport": "maintenance.garbage",
    "gc": "maintenance.garbage",
    "MPICoordinator": "parallel.mpi",
    "MatchReport": "frameworks.target",
    "Migration": "migration",
    "MigrationReport": "migration",
    "MigrationSet": "migration",
    "Lost": "maintenance.salvage",
    "Overflow": "frameworks.overflows",
    "RepairReport": "maintenance.salvage",
    "SaveReport": "writing.writer",
    "VerifyReport": "maintenance.verification",
    "migrate": "migration",
    "progress_bar": "progress",
    "repair": "maintenance.salvage",
    "save": "writing.writer",
    "upgrade": "migration.formats",
    "verify": "maintenance.verification",
    "verify_folder": "maintenance.verification_of_folders",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
