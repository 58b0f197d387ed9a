"""ckptfmt: model checkpoints that any framework can write and any tool can read. The format is described in SPEC.md."""

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
from .manifest import Schema
from .reader import Checkpoint, Tensor, load
from .reader import open_checkpoint as open
from .target import MatchReport
from .tree import OMITTED
from .verify import Damage, VerifyReport, verify
from .writer import SaveReport, save

__all__ = [
    "OMITTED",
    "Checkpoint",
    "CkptError",
    "CorruptError",
    "Damage",
    "ExistsError",
    "InputError",
    "MatchReport",
    "MismatchError",
    "MissingError",
    "NotACheckpointError",
    "SaveReport",
    "Schema",
    "SelectionError",
    "StorageError",
    "Tensor",
    "UnknownTagWarning",
    "UnsupportedError",
    "VerifyReport",
    "__version__",
    "load",
    "open",
    "save",
    "verify",
]
