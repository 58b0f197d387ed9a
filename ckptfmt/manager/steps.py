"""The steps of a run: what is known of one, what is stored with it, and their fixed names.

A run directory holds one checkpoint for each step: `step-0000001000.ckpt`, ten digits or more, a file or a directory.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex

from ..calls import integer_of
from ..errors import DAMAGED, CkptError, StorageError, fault
from ..format import commit
from ..format import tree as trees
from ..format.commit import CommitRecord
from ..format.manifest import FORMAT, OF_RUN, PATCH_FORMAT
from ..format.tree import Tree
from ..frameworks.adapter import KEPT
from ..reading.checkpoint import StoredCheckpoint
from ..writing.encoder import encode

if TYPE_CHECKING:
    from .run import RunDirectory

Number = Any  # int; with the names of flax float, too
Given = SupportsIndex | float  # what a program may give for one: NumPy has integers of its own


class StepPatch(NamedTuple):
    """What a step that is a patch says: the sha256 of the manifest of its base, and of that which it was made from, if
    it says so."""

    base: bytes
    result: bytes | None


@dataclass(frozen=True)
class Step:
    """A committed step of a run. `time`: when it was written, in seconds since the epoch (time of modification).

    `metrics` and `metadata` are read from the manifest when they are first asked for; no tensor is touched.
    """

    step: Number
    path: str
    time: float
    identity: Hashable = field(repr=False)
    """What changes when another checkpoint takes the path."""
    record: bytes = field(repr=False)
    """Its commit record, equal for checkpoints that hold the same; empty for one that flax wrote."""
    run: RunDirectory = field(repr=False, compare=False)
    is_unreadable: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether its metrics were asked for, and could not be read."""

    @cached_property
    def size(self) -> int:
        """Bytes that are stored."""
        return self.run.size_of(self)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics that it was saved with; none if its manifest is damaged, or cannot be read now."""
        try:
            found = self._stored_metrics
        except StorageError:
            self.__dict__["is_unreadable"] = True
            return {}
        self.__dict__["is_unreadable"] = False
        return found

    @cached_property
    def _stored_metrics(self) -> Mapping[str, float]:
        try:
            return metrics_in(self._stored_metadata)
        except DAMAGED:
            return {}

    @cached_property
    def metadata(self) -> Tree:
        """The user's metadata. Raises what `open` raises."""
        found = self._stored_metadata
        if not isinstance(found, dict):
            return found
        return {key: value for key, value in found.items() if key != OF_RUN} or None

    @property
    def _stored_metadata(self) -> Tree:
        return self._said[0]

    @cached_property
    def _said(self) -> tuple[Tree, StepPatch | None]:
        """Of its manifest the metadata, and what it says if it is a patch; raises what `open` raises."""
        if not self.record:  # flax stores none
            return None, None
        with as_stored(self) as stored:
            patch = stored.manifest.patch
            return stored.metadata, None if patch is None else StepPatch(patch.base, patch.result)

    @cached_property
    def _commit(self) -> CommitRecord | None:
        try:
            return commit.decode(self.record, FORMAT[0])
        except CkptError:  # flax wrote it, or a later version
            return None

    @property
    def sha256(self) -> bytes | None:
        """That of its manifest; None of one that is not of this format."""
        return None if self._commit is None else self._commit.sha256

    @cached_property
    def patch(self) -> StepPatch | None:
        """What it says of its base; None for one that is whole, or so damaged that it says nothing. Raises
        `StorageError`."""
        if self._commit is None or self._commit.format < PATCH_FORMAT:  # whose manifest need not be read
            return None
        try:
            return self._said[1]
        except StorageError:
            raise
        except CkptError:
            return None

    @property
    def base(self) -> bytes | None:
        """The sha256 of the manifest of its base."""
        return None if self.patch is None else self.patch.base

    @property
    def saved(self) -> Hashable:
        """Equal for steps that hold the same, in whatever form: what identifies that which was saved."""
        return (self.patch and self.patch.result) or self.sha256 or self.record


def as_stored(step: Step) -> StoredCheckpoint:
    """An open checkpoint, without its base if it is a patch; raises what `open` raises."""
    return StoredCheckpoint(step.path, storage_options=step.run.options, follow_links=step.run.follows_links)


def metrics_in(metadata: Tree) -> Mapping[str, float]:
    """The metrics that stand in a checkpoint's metadata."""
    entry = metadata.get(OF_RUN) if isinstance(metadata, dict) else None
    metrics = entry.get("metrics") if isinstance(entry, dict) else None
    if not isinstance(metrics, dict):
        return {}
    return {name: value for name, value in metrics.items() if type(name) is str and type(value) is float}


def metadata_for(step: Number, metrics: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None) -> Tree:
    """What is stored as a checkpoint's metadata; raises `bad-option`."""
    if metadata is not None and (not isinstance(metadata, Mapping) or OF_RUN in metadata):
        raise fault("bad-option", f"metadata= must be a dict without the key {OF_RUN!r}", found=type(metadata).__name__)
    entry: dict[str, Any] = {"step": step}
    if metrics is not None and not isinstance(metrics, Mapping):
        raise fault("bad-option", "metrics= must be a dict", found=type(metrics).__name__, expected="names and numbers")
    if metrics:
        entry["metrics"] = {_metric_name(name): _metric(name, value) for name, value in metrics.items()}
    node = encode({**(metadata or {}), OF_RUN: entry}, allow_tensors=False).node  # checked now, and a copy
    return trees.decode(node, [].__getitem__, restores=KEPT)


def _metric_name(name: Any) -> str:
    if type(name) is not str:
        raise fault("bad-option", f"a metric's name is {name!r}", found=type(name).__name__, expected="str")
    return name


def _metric(name: str, value: Any) -> float:
    found = type(value).__name__
    try:
        number = value.item() if hasattr(value, "item") else value  # 0-d arrays of any framework
        if not isinstance(number, str | bytes | bytearray):  # which float would read
            return float(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise fault("bad-option", f"metric {name!r} is no number", found=found, expected="a number") from error
    except OverflowError as error:
        raise fault("bad-option", f"metric {name!r} is too large", found=found, expected="a float64") from error
    raise fault("bad-option", f"metric {name!r} is no number", found=found, expected="a number")


# ---- names


class StepNames(Protocol):
    """How the steps of a run are named and ordered."""

    def checked(self, step: Any) -> Number:
        """The step as a plain number; raises `bad-option`."""

    def name(self, step: Number) -> str: ...

    def step(self, name: str) -> Number | None:
        """The step that a name stands for, or None."""

    def key(self, step: Number) -> Any:
        """What steps are sorted by."""


_FIXED = re.compile(r"step-([0-9]{10,100})\.ckpt").fullmatch  # more digits would be slow to read, and are nobody's


class FixedNames:
    """`step-0000001000.ckpt`: one name for each step, which sorts as its number does."""

    def checked(self, step: Any) -> int:
        number = integer_of(step)
        if number is None:
            raise fault("bad-option", f"step {step!r} is no int", found=type(step).__name__, expected="int")
        if number < 0:
            raise fault("bad-option", "a step is negative", found=step, expected="0 or more")
        return number

    def name(self, step: Number) -> str:
        return f"step-{step:010d}.ckpt"

    def step(self, name: str) -> int | None:
        found = _FIXED(name)
        return int(found[1]) if found is not None and self.name(int(found[1])) == name else None

    def key(self, step: Number) -> int:
        return int(step)
