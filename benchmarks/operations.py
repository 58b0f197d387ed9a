"""What is measured, and what ckptfmt is asked to reach: two tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BASELINE = "safetensors.torch"
OURS = "ckptfmt"


@dataclass(frozen=True, slots=True)
class Operation:
    """One timed thing. `action` is the contender's method, or "slice" for the fresh process."""

    name: str
    title: str
    state: Literal["llama", "small"]
    action: Literal["save", "save_durable", "load", "map", "open", "slice"]
    # Operations of a millisecond or so are repeated, and the median taken.
    repeats: int = 1
    throughput: bool = False


OPERATIONS = (
    Operation("save", "Save, not durable", "llama", "save", throughput=True),
    Operation("save_durable", "Save, durable: everything fsynced", "llama", "save_durable", throughput=True),
    Operation("load", "Eager load, every byte in private memory", "llama", "load", throughput=True),
    Operation("map", "Mapped load: the whole tree, no bytes read", "llama", "map", repeats=7),
    Operation("open", "Open and list the tensors", "llama", "open", repeats=7),
    Operation("slice_process", "A 1 % slice, fresh process, imports included", "llama", "slice"),
    Operation("slice_read", "The same slice, counted after the imports", "llama", "slice"),
    Operation("small_save", "Many small tensors: save, not durable", "small", "save"),
    Operation("small_load", "Many small tensors: eager load", "small", "load"),
)


@dataclass(frozen=True, slots=True)
class SpeedTarget:
    """How many times as fast as safetensors ckptfmt has to be, and should be."""

    operation: str
    needed: float
    aimed: float


@dataclass(frozen=True, slots=True)
class MemoryTarget:
    """The most resident memory an operation may add, in trees plus MiB."""

    operation: Literal["save", "load"]
    trees: float
    mebibytes: int

    def limit(self, tree_bytes: int) -> int:
        return int(self.trees * tree_bytes) + (self.mebibytes << 20)


SPEED_TARGETS = (
    SpeedTarget("save", 1.0, 1.3),
    SpeedTarget("save_durable", 1.0, 1.2),
    SpeedTarget("load", 1.5, 1.5),
    SpeedTarget("map", 1.0, 1.0),
    SpeedTarget("slice_process", 1.0, 1.0),
    SpeedTarget("slice_read", 1.0, 1.0),
    SpeedTarget("small_save", 0.5, 0.5),
    SpeedTarget("small_load", 1.0, 1.0),
)

# The tree itself is in the baseline of a save and is what a load adds.
MEMORY_TARGETS = (
    MemoryTarget("save", 0.0, 64),
    MemoryTarget("load", 1.05, 64),
)
