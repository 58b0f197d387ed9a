"""ckptfmt: model checkpoints that any framework can write and any tool can read. The format is described in SPEC.md."""

from __future__ import annotations

from ._version import __version__
from .on_demand import exports

TYPE_CHECKING = False  # typing takes a fifth of the time in which Python starts
if TYPE_CHECKING:
    from . import errors, manager, recompute, testing
    from .api import load, open, save
    from .checkpoint import Checkpoint
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
        NanWarning,
        NotACheckpointError,
        ParameterOrderWarning,
        SelectionError,
        SignatureError,
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
    from .maintenance.lineage import Lineage, LineageStep, lineage
    from .maintenance.salvage import Lost, RepairReport, repair
    from .maintenance.statistics import StatsReport, TensorStats, stats
    from .maintenance.verification import Damage, VerifyReport, verify
    from .maintenance.verification_of_folders import FolderReport, verify_folder
    from .manager import CheckpointManager
    from .manager.pruning import Pruned, PruneReport, prune
    from .migration import Extern, Migration, MigrationPlan, MigrationReport, MigrationSet
    from .migration.apply import migrate
    from .migration.formats import UpgradeReport, upgrade
    from .options import LoadOptions, OpenOptions, ReadOptions
    from .parallel.files import FileCoordinator
    from .parallel.mpi import MPICoordinator
    from .patches import apply, fold, patch
    from .patching.applying import ApplyReport
    from .patching.making import FormTotal, PatchReport
    from .progress import progress_bar
    from .reading.tensor import Tensor
    from .reporting import HtmlReport, report
    from .save_options import SaveOptions
    from .signing.signature import SignatureReport, sign, verify_signature
    from .writing.refusals import CheckReport, Refusal, check
    from .writing.writer import SaveReport

__all__ = [
    "OMITTED",
    "ApplyReport",
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
    "FormTotal",
    "Garbage",
    "GarbageReport",
    "HtmlReport",
    "InputError",
    "Limits",
    "Lineage",
    "LineageStep",
    "LinkedError",
    "LoadOptions",
    "Lost",
    "MPICoordinator",
    "MatchReport",
    "Migration",
    "MigrationPlan",
    "MigrationReport",
    "MigrationSet",
    "MismatchError",
    "MissingError",
    "NanWarning",
    "NotACheckpointError",
    "OpenOptions",
    "Overflow",
    "ParameterOrderWarning",
    "PatchReport",
    "PruneReport",
    "Pruned",
    "ReadOptions",
    "Refusal",
    "RepairReport",
    "SaveOptions",
    "SaveReport",
    "Schema",
    "SelectionError",
    "SignatureError",
    "SignatureReport",
    "StatsReport",
    "StorageError",
    "Tensor",
    "TensorStats",
    "UnknownTagWarning",
    "UnsupportedError",
    "UpgradeReport",
    "VerifyReport",
    "__version__",
    "apply",
    "check",
    "convert",
    "convert_each",
    "diff",
    "errors",
    "fold",
    "gc",
    "lineage",
    "load",
    "manager",
    "migrate",
    "open",
    "patch",
    "progress_bar",
    "prune",
    "recompute",
    "register",
    "repair",
    "report",
    "save",
    "sign",
    "stats",
    "testing",
    "upgrade",
    "verify",
    "verify_folder",
    "verify_signature",
]

# Everything is imported at its first use, so that reading a slice costs little more than NumPy, and the help of the
# command line little more than Python.
_ON_DEMAND = {
    "load": "api",
    "open": "api",
    "save": "api",
    "Checkpoint": "checkpoint",
    "ConvertReport": "conversion",
    "convert": "conversion",
    "convert_each": "conversion",
    "Change": "conversion.comparison",
    "DiffReport": "conversion.comparison",
    "diff": "conversion.comparison",
    "CastWarning": "errors",
    "NanWarning": "errors",
    "CkptError": "errors",
    "CorruptError": "errors",
    "ExistsError": "errors",
    "InputError": "errors",
    "LinkedError": "errors",
    "MismatchError": "errors",
    "MissingError": "errors",
    "NotACheckpointError": "errors",
    "ParameterOrderWarning": "errors",
    "SelectionError": "errors",
    "SignatureError": "errors",
    "StorageError": "errors",
    "UnknownTagWarning": "errors",
    "UnsupportedError": "errors",
    "errors": "errors",
    "Limits": "format.limits",
    "Schema": "format.manifest",
    "OMITTED": "format.tree",
    "Overflow": "frameworks.overflows",
    "register": "frameworks.registry",
    "MatchReport": "frameworks.target",
    "Garbage": "maintenance.garbage",
    "GarbageReport": "maintenance.garbage",
    "gc": "maintenance.garbage",
    "Lineage": "maintenance.lineage",
    "LineageStep": "maintenance.lineage",
    "lineage": "maintenance.lineage",
    "PruneReport": "manager.pruning",
    "Pruned": "manager.pruning",
    "prune": "manager.pruning",
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
    "manager": "manager",
    "MigrationReport": "migration.apply",
    "migrate": "migration.apply",
    "Migration": "migration.document",
    "UpgradeReport": "migration.formats",
    "upgrade": "migration.formats",
    "MigrationSet": "migration.graph",
    "Extern": "migration.operators",
    "MigrationPlan": "migration.plan",
    "LoadOptions": "options",
    "OpenOptions": "options",
    "ReadOptions": "options",
    "FileCoordinator": "parallel.files",
    "MPICoordinator": "parallel.mpi",
    "apply": "patches",
    "fold": "patches",
    "patch": "patches",
    "ApplyReport": "patching.applying",
    "FormTotal": "patching.making",
    "PatchReport": "patching.making",
    "progress_bar": "progress",
    "recompute": "recompute",
    "Tensor": "reading.tensor",
    "HtmlReport": "reporting",
    "report": "reporting",
    "SaveOptions": "save_options",
    "SignatureReport": "signing.signature",
    "sign": "signing.signature",
    "verify_signature": "signing.signature",
    "CheckReport": "writing.refusals",
    "Refusal": "writing.refusals",
    "check": "writing.refusals",
    "testing": "testing",
    "SaveReport": "writing.writer",
}

__getattr__ = exports(__name__, _ON_DEMAND)


def __dir__() -> list[str]:
    return __all__
