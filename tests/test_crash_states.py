"""What a power loss may leave: a sample of the states of every operation that changes a disk; and the tester's own
tests, which are that it finds what is wrong with a writer that forgets a flush. [PUB-002] [PUB-003] [PUB-004]

All states: `python -m stress crash-states`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damage import LAYOUTS

import ckptfmt
from ckptfmt.maintenance import garbage
from ckptfmt.storage.temporaries import destroy
from ckptfmt.testing import using_disk
from ckptfmt.testing.crash_states import CrashState, Image, crash_states
from ckptfmt.testing.recording import DiskCall, DiskRecord, Flush, NameChange, RecordingDisk, Resize, Write
from stress.crash_states import problems, recorded
from stress.operations import Operation, operations

OPERATIONS = list(operations())
SAMPLE = 5  # states of each operation, and as many of its end


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_state_is_the_old_or_the_new(tmp_path: Path, operation: Operation) -> None:
    record, look = recorded(operation, tmp_path / "work")
    calls = len(record.calls)
    states = list(crash_states(record, most=4))
    at_the_end = [state for state in states if state.calls == calls]
    others = [state for state in states if state.calls < calls]
    for state in [*at_the_end[:SAMPLE], *random.Random(1).sample(others, min(SAMPLE, len(others)))]:
        assert problems(operation, look, state, calls, tmp_path / "state") == []


# ---- the tester's tests


def named(name: str) -> Operation:
    (found,) = [operation for operation in OPERATIONS if operation.name == name]
    return found


def without(record: DiskRecord, folders: bool) -> list[DiskCall]:
    """The calls of a writer that does not flush its files, or its directories."""
    return [call for call in record.calls if not (isinstance(call, Flush) and (call.node in record.folders) is folders)]


def published_first(record: DiskRecord) -> list[DiskCall]:
    """The calls of a writer that publishes before it flushes."""
    last = max(at for at, call in enumerate(record.calls) if isinstance(call, Flush))  # of the directory above
    calls = record.calls[:last]
    flushes = [call for call in calls if isinstance(call, Flush)]
    return [*(call for call in calls if not isinstance(call, Flush)), *flushes, *record.calls[last:]]


WRONG: dict[str, Callable[[DiskRecord], list[DiskCall]]] = {
    "files are not flushed": lambda record: without(record, False),
    "directories are not flushed": lambda record: without(record, True),
    "published before it is flushed": published_first,
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("name", [f"save {layout}" for layout in LAYOUTS] + [f"replace {x} by {x}" for x in LAYOUTS])
def test_a_wrong_writer_is_found(tmp_path: Path, name: str, how: str) -> None:
    """And never is anything read that was not saved, whatever the writer forgot."""
    operation = named(name)
    record, look = recorded(operation, tmp_path / "work")
    record = replace(record, calls=WRONG[how](record))
    states = list(crash_states(record, most=4))

    def texts(state: CrashState) -> list[str]:
        return problems(operation, look, state, len(record.calls), tmp_path / "state")

    random.Random(1).shuffle(states)
    found = next(found for state in states if (found := texts(state)))
    for state in states[:SAMPLE]:
        found += texts(state)
    assert not [text for text in found if "silently" in text]


@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_a_wrong_collector_is_found(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that removes what was replaced before that is sure to stay so. [PUB-020]"""
    operation = named(f"collect all through a replacement {layout}")
    monkeypatch.setattr(garbage, "take_away", destroy)
    record, look = recorded(operation, tmp_path / "work")
    monkeypatch.undo()
    states = list(crash_states(record, most=8))
    random.Random(1).shuffle(states)
    assert any(problems(operation, look, state, len(record.calls), tmp_path / "state") for state in states)


# ---- the record


def image_of(path: Path) -> Image:
    return {file.name: image_of(file) for file in path.iterdir()} if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_nothing_lost_it_is_what_is_there(tmp_path: Path, layout: str) -> None:
    disk = RecordingDisk(tmp_path)
    for options in ({}, {"overwrite": True}, {"overwrite": True, "durable": False}):
        with using_disk(disk):
            ckptfmt.save(tmp_path / "x.ckpt", {"x": np.arange(300)}, layout=layout, **options)
        last = [state for state in crash_states(disk.record, most=2) if state.calls == len(disk.record.calls)]
        assert last[0].lost == ()
        assert last[0].image == image_of(tmp_path)


def test_what_others_write_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    os.link(tmp_path / "old", tmp_path / "same")
    disk = RecordingDisk(tmp_path)
    fd = disk.create(str(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b"from outside")
    disk.flush(fd)
    disk.replace(str(tmp_path / "x"), str(tmp_path / "old"))
    os.close(fd)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    disk.make_directory(str(outside))
    disk.flush_directory(str(tmp_path.parent))
    disk.remove_directory(str(outside))
    (x,) = {call.node for call in disk.record.calls if isinstance(call, Write)}
    assert disk.record.calls == [
        NameChange(0, (("x", x),)),
        Resize(x, 12),
        Write(x, 0, b"from outside"),
        Flush(x),
        NameChange(0, (("x", None), ("old", x))),
    ]
    assert disk.record.folders == {0: {"old": 1, "same": 1}} or disk.record.folders == {0: {"same": 1, "old": 1}}


# ---- the states of small records

FILE = 1
START = DiskRecord(0, {FILE: b""}, {0: {"f": FILE}}, [])


def states_of(*calls: DiskCall, start: DiskRecord = START, most: int = 500) -> list[CrashState]:
    return list(crash_states(replace(start, calls=list(calls)), most=most))


def contents(*calls: DiskCall) -> set[Image]:
    return {state.image["f"] for state in states_of(*calls)}


def test_bytes_that_were_not_flushed() -> None:
    """Lost, torn at sectors, cut, or in place of them zeros or what was there before."""
    data = b"a" * 512 + b"b" * 512 + b"c" * 10
    found = contents(Write(FILE, 0, data))
    assert {b"", data, bytes(len(data))} <= found
    for content in found:
        assert isinstance(content, bytes)
        assert len(content) in (0, 512, 1024, len(data))
        for start in range(0, len(content), 512):
            part = content[start : start + 512]
            assert part == data[start : start + 512] or set(part) <= {0, *((i * 131 + 89) & 255 for i in range(1034))}
    assert any(content.startswith(b"\0" * 512 + b"b") for content in found), "a later sector came, an earlier not"
    assert contents(Write(FILE, 0, data), Flush(FILE)) >= found
    assert [state.image for state in states_of(Write(FILE, 0, data), Flush(FILE)) if state.calls == 2] == [{"f": data}]


def test_sectors_are_those_of_the_file() -> None:
    """What was flushed of a sector that is written again is not harmed beyond the write, nor by stale bytes."""
    start = replace(START, files={FILE: b"x" * 1024})
    for state in states_of(Write(FILE, 500, b"y" * 24), start=start):
        content = state.image["f"]
        assert isinstance(content, bytes)
        assert content[:500] == b"x" * 500
        assert content[524:] == b"x" * 500
        assert content[500:512] in (b"x" * 12, b"y" * 12)
        assert content[512:524] in (b"x" * 12, b"y" * 12)


def test_names_and_sizes_come_in_any_order() -> None:
    a, b = NameChange(0, (("a", FILE),)), NameChange(0, (("b", FILE),))
    assert {tuple(sorted(state.image)) for state in states_of(a, b)} == {
        *(("f",), ("a", "f"), ("b", "f"), ("a", "b", "f"))
    }
    assert {tuple(sorted(state.image)) for state in states_of(a, Flush(0), b) if state.calls == 3} == {
        *(("a", "f"), ("a", "b", "f"))
    }
    assert contents(Write(FILE, 0, b"ab"), Resize(FILE, 4)) >= {b"", b"ab", b"\0" * 4, b"ab\0\0"}


def test_names_that_change_in_one_step_change_together() -> None:
    swap = NameChange(0, (("f", 2), ("g", FILE)))
    start = DiskRecord(0, {FILE: b"1", 2: b"2"}, {0: {"f": FILE, "g": 2}})
    assert [state.image for state in states_of(swap, start=start, most=9)][:2] == [
        *({"f": b"1", "g": b"2"}, {"f": b"2", "g": b"1"})
    ]
    assert {str(state.image) for state in states_of(swap, start=start)} == {
        *(str({"f": b"1", "g": b"2"}), str({"f": b"2", "g": b"1"}))
    }


def test_up_to_three_lost_changes_are_all_tried() -> None:
    calls = [NameChange(0, ((str(n), FILE),)) for n in range(6)]
    found = {frozenset(state.image) for state in states_of(*calls, most=2000)}
    everything = {"f", *map(str, range(6))}
    for lost in ([], ["0"], ["0", "5"], ["1", "2"]):
        assert everything - set(lost) in found
    assert sum(len(everything - names) == 3 for names in found) >= 15
    assert [state.calls for state in states_of(*calls, most=4)] == sorted(
        state.calls for state in states_of(*calls, most=4)
    )


def test_the_same_seed_gives_the_same_states() -> None:
    calls = [Write(FILE, 0, os.urandom(3000)), *[NameChange(0, ((str(n), FILE),)) for n in range(9)]]
    record = replace(START, calls=calls)
    one, same, other = (list(crash_states(record, most=8, seed=seed)) for seed in (1, 1, 2))
    assert [state.digest for state in one] == [state.digest for state in same]
    assert [state.digest for state in one] != [state.digest for state in other]
