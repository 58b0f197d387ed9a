"""What is measured, and what ckptfmt is asked to reach: two tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BASELINE = "safetensors"  # a library: ratios stand beside that of its faces that is fastest at the operation
LIMITS = "the machine"
OURS = "ckptfmt"


@dataclass(frozen=True, slots=True)
class Operation:
    """One timed thing. `action` is the contender's method, or "slice" for the fresh process."""

    name: str
    title: str
    state: Literal["llama", "small"]
    action: Literal["save", "save_durable", "copy", "load", "map", "open", "slice"]
    # Operations of a millisecond or so are repeated, and the median taken.
    repeats: int = 1
    throughput: bool = False


SAVES = ("save", "save_durable", "copy")  # what is given a tree
OPERATIONS = (
    Operation("save", "Save, not durable", "llama", "save", throughput=True),
    Operation("save_durable", "Save, durable: everything fsynced", "llama", "save_durable", throughput=True),
    Operation("copy", "A copy of the tree in memory, nothing saved", "llama", "copy", throughput=True),
    Operation("load", "Eager load, every byte in private memory", "llama", "load", throughput=True),
    Operation("map", "Mapped load: the whole tree, no bytes read", "llama", "map", repeats=7),
    Operation("open", "Open and list the tensors", "llama", "open", repeats=7),
    Operation("slice_process", "A 1 % slice, fresh process, imports included", "llama", "slice"),
    Operation("slice_beyond", "The same, counted from `import numpy` on", "llama", "slice"),
    Operation("slice_read", "The same slice, counted after the imports", "llama", "slice"),
    Operation("small_save", "Many small tensors: save, not durable", "small", "save"),
    Operation("small_load", "Many small tensors: eager load", "small", "load"),
)


@dataclass(frozen=True, slots=True)
class SpeedTarget:
    """How many times as fast as the fastest of these contenders ckptfmt has to be; near the machine's own limit the
    share of that, where one is named, will do."""

    operation: str
    rivals: tuple[str, ...]
    needed: float
    share: float | None = None


@dataclass(frozen=True, slots=True)
class TimeTarget:
    """The most seconds that ckptfmt may take."""

    operation: str
    seconds: float


@dataclass(frozen=True, slots=True)
class MemoryTarget:
    """The most resident memory an operation may add, in trees plus MiB."""

    operation: Literal["save", "load"]
    trees: float
    mebibytes: int

    def limit(self, tree_bytes: int) -> int:
        return int(self.trees * tree_bytes) + (self.mebibytes << 20)


FACES = ("safetensors.numpy", "safetensors.torch")
PREAD = ("safetensors.numpy pread", "safetensors.torch pread")
SPEED_TARGETS = (
    SpeedTarget("save", FACES, 1.4, share=0.95),
    SpeedTarget("save_durable", FACES, 1.4, share=0.95),
    SpeedTarget("load", (*PREAD, "run:ai streamer", "tensorizer"), 2.5, share=0.95),
    SpeedTarget("load", ("safetensors.torch",), 2.2, share=0.95),
    SpeedTarget("map", FACES, 1.0),
    SpeedTarget("slice_process", FACES, 1.0),
    SpeedTarget("slice_read", FACES, 1.0),
    SpeedTarget("small_save", ("safetensors.numpy",), 1.0),
    SpeedTarget("small_load", ("safetensors.numpy",), 1.2),
)
TIME_TARGETS = (TimeTarget("slice_beyond", 0.020),)

# The tree itself is in the baseline of a save and is what a load adds.
MEMORY_TARGETS = (
    MemoryTarget("save", 0.0, 64),
    MemoryTarget("load", 1.05, 64),
)
