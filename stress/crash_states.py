"""Every operation is recorded, and every state that a power loss may leave is made in a real directory and read.

The state must be one that the operation allows: what was there before, or what it makes, whole and verified; after it
has returned, only the latter. What is a temporary must be refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.layouts import pack_writer
from ckptfmt.manager.retention import read_reasons
from ckptfmt.manager.run_on_disk import RunOnDisk
from ckptfmt.manager.steps import FixedNames
from ckptfmt.storage import TEMPORARY_SUFFIX
from ckptfmt.testing import equal_trees, using_disk
from ckptfmt.testing.crash_states import CrashState, crash_states
from ckptfmt.testing.recording import DiskRecord, RecordingDisk

from .operations import TREES, WEIGHTS, Operation, State, operations
from .result import Result

COUNT = 48  # most states for each moment of each operation
INLINE = 1024  # bytes; larger chunks are written by themselves, as those of large tensors are


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """Every state of every operation; `count`: most for each moment of each."""
    bad: list[str] = []
    states = done = 0
    for operation in operations():
        record, looks = recorded(operation, folder / "work")
        for state in crash_states(record, most=count, seed=seed):
            states += 1
            bad += problems(operation, looks, state, len(record.calls), folder / "state")
        done += 1
        print(f"{operation.name}: {len(record.calls)} calls, {states:,} states so far", flush=True)
    return Result(f"{states:,} distinct states of {done} operations", bad)


Looks = Callable[[Path], str]  # what stands at a path: a label, "wrong", or the code of an error


def recorded(operation: Operation, folder: Path) -> tuple[DiskRecord, Looks]:
    """Carry an operation out in a new folder, which is removed again."""
    folder.mkdir()
    with mock.patch.object(pack_writer, "INLINE", INLINE):
        with using_disk(RecordingDisk(folder)):  # for its speed: it does not flush
            operation.prepare(folder)
        foreign = {file.name: {file.read_bytes(): "before"} for file in folder.glob("*") if is_foreign(file)}
        disk = RecordingDisk(folder)
        with using_disk(disk):
            operation.act(folder)
    for file in folder.glob("*"):
        if is_foreign(file):
            foreign.setdefault(file.name, {}).setdefault(file.read_bytes(), "after")
    shutil.rmtree(folder)

    def look(path: Path) -> str:
        return foreign[path.name].get(path.read_bytes(), "wrong") if is_foreign(path) else found_at(path)

    return disk.record, look


def is_foreign(path: Path) -> bool:
    return path.suffix in (".npz", ".safetensors") and not path.name.endswith(TEMPORARY_SUFFIX)


def found_at(path: Path) -> str:
    """Which tree a checkpoint holds, as all ways of reading it agree; of a folder of weights, which they hold."""
    if path.name == WEIGHTS:
        return _weights_at(path)
    try:
        is_patch = path.name.startswith("step-") or path.name.endswith(".patch.ckpt")
        with ckptfmt.open(path, base=path.parent if is_patch else None) as checkpoint:
            tree = checkpoint.load()
        report = ckptfmt.verify(path)
    except ckptfmt.CkptError as error:
        return error.code
    if not report.ok:
        return report.damage[0].code
    return next((label for label, expected in TREES.items() if equal_trees(tree, expected)), "wrong")


def _weights_at(folder: Path) -> str:
    try:
        with open_source(str(folder), "safetensors") as source:
            if any(loss.kind == "missing" for loss in source.losses):  # one file of several
                return "lossy"
            tree = {name: np.array(tensor) for name, tensor in source.tree.items()}
    except ckptfmt.CkptError as error:
        return error.code
    return next((label for label, expected in TREES.items() if equal_trees(tree, expected)), "wrong")


def problems(operation: Operation, look: Looks, state: CrashState, calls: int, folder: Path) -> list[str]:
    """What is wrong with a state, which is made in `folder` and removed again."""
    state.write(folder)
    try:
        found, texts = entries(folder, look)
        texts += recovered(folder, look, found)
    finally:
        shutil.rmtree(folder)
    allowed = operation.after if state.calls == calls else operation.during
    if operation.durable and found not in allowed:
        texts.append(f"there is {found or 'nothing'}")
    if "wrong" in found.values():  # which no power loss excuses
        texts.append(f"silently wrong: {found}")
    return [f"{operation.name}, after {state.calls} of {calls} calls: {text}; lost: {state.lost}" for text in texts]


def recovered(folder: Path, look: Looks, found: State) -> list[str]:
    """What is wrong with a folder after a collection of what the power loss has left: nothing else may change."""
    ckptfmt.gc(folder, delete=True, grace=0, recursive=True)
    after, texts = entries(folder, look)
    if after != found:
        texts.append(f"gc makes {after} of {found}")
    texts += [f"gc leaves {path.name}" for path in folder.rglob(f".*{TEMPORARY_SUFFIX}")]
    return texts


def entries(folder: Path, look: Looks) -> tuple[State, list[str]]:
    """What stands below a folder, and what is wrong with it."""
    found: State = {}
    texts: list[str] = []
    for path in _paths(folder):
        name = path.relative_to(folder).as_posix()
        if not path.name.endswith(TEMPORARY_SUFFIX):
            found[name] = look(path)
            continue
        for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify):
            try:
                call(path)
                texts.append(f"{call.__name__} takes the temporary {name}")
            except ckptfmt.NotACheckpointError as error:
                if error.code != "temporary":
                    texts.append(f"{call.__name__} of the temporary {name}: {error.code}")
    run = RunOnDisk(folder / "runs" / "7", FixedNames())
    read_reasons(run)
    listed = {Path(step.path).relative_to(folder).as_posix() for step in run.scan().steps}
    if listed != {name for name in found if name.startswith("runs/")}:
        texts.append(f"the manager lists {listed}, and there is {set(found)}")
    return found, texts


def _paths(folder: Path) -> Iterator[Path]:
    """The paths at which something may stand: in the folder itself, or in a run below it."""
    for path in sorted(folder.iterdir()):
        if path.name in ("runs", "7"):
            yield from _paths(path)
        elif path.name != "kept.json":
            yield path
