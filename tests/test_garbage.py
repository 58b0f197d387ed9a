"""`gc`: what died is found and removed; what lives, and all else, is not touched."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import LAYOUTS, child, leftovers, semaphore, use_disk

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import Last
from ckptfmt.parallel.files import LOST
from ckptfmt.storage.disk import Disk
from ckptfmt.storage.leases import lease
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.recording import using_disk

HEX = "0123456789ab"
TREE = {"w": np.arange(30.0)}


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a folder: names, kinds and bytes."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else 0
        for path in folder.rglob("*")
    }


def names(found: tuple[ckptfmt.Garbage, ...]) -> list[str]:
    return [os.path.basename(garbage.path) for garbage in found]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints in all layouts, leftovers, and other things with names like theirs."""
    folder = tmp_path / "run"
    folder.mkdir()
    for layout in LAYOUTS:
        ckptfmt.save(folder / f"{layout}.ckpt", TREE, layout=layout, durable=False)
    (folder / f".a.ckpt.{HEX}.ckptfmt-tmp").write_bytes(b"half")
    (folder / f".b.ckpt.{HEX}.ckptfmt-tmp" / "tensors").mkdir(parents=True)
    (folder / f".b.ckpt.{HEX}.ckptfmt-tmp" / "tensors" / "x").write_bytes(bytes(100))
    for name in (
        ".x.ckptfmt-tmp",
        "x.0123456789ab.ckptfmt-tmp",
        f".x.{HEX}0.ckptfmt-tmp",
        ".x.0123456789AB.ckptfmt-tmp",
    ):
        (folder / name).write_bytes(b"not ours")
    for name in ("join-1", f"session-{HEX}", "COMMIT", "manifest.msgpack", "kept.json", ".hidden", f"tmp-{HEX}"):
        (folder / name).write_bytes(b"not ours")
    (folder / f"session-{HEX}0000").mkdir()  # ranks may be in it
    (folder / f"join-{HEX}0000").mkdir()
    (tmp_path / "outside").write_bytes(b"not ours")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"not ours")
    (folder / f".c.{HEX}.ckptfmt-tmp").symlink_to(tmp_path / "outside")
    (folder / f".d.{HEX}.ckptfmt-tmp").symlink_to(tmp_path / "elsewhere")
    (folder / f".b.ckpt.{HEX}.ckptfmt-tmp" / "link").symlink_to(tmp_path / "elsewhere")
    return folder


OURS = [f".a.ckpt.{HEX}.ckptfmt-tmp", f".b.ckpt.{HEX}.ckptfmt-tmp"]


def test_nothing_is_removed_unless_asked_for(run: Path) -> None:
    before = contents(run.parent)
    report = ckptfmt.gc(run, grace=0)
    assert names(report.found) == OURS
    assert [garbage.removed for garbage in report.found] == [False, False]
    assert report.bytes == 4 + 100
    assert contents(run.parent) == before


def test_leftovers_are_removed_and_nothing_else(run: Path) -> None:
    before = contents(run.parent)
    report = ckptfmt.gc(run, delete=True, grace=0)
    assert names(report.found) == OURS
    assert all(garbage.removed for garbage in report.found)
    after = contents(run.parent)
    assert before.keys() - after.keys() == {name for name in before if name.startswith(tuple(f"run/{n}" for n in OURS))}
    assert all(before[name] == after[name] for name in after)
    for layout in LAYOUTS:
        assert ckptfmt.verify(run / f"{layout}.ckpt").ok
    assert ckptfmt.gc(run, delete=True, grace=0).found == ()


def test_what_changed_lately_is_kept(run: Path) -> None:
    report = ckptfmt.gc(run, delete=True)
    assert (report.found, names(report.kept)) == ((), OURS)
    for file in run.rglob("*"):  # a time of modification can be anything, as copies keep it; when it was set, cannot
        os.utime(file, (0, 0), follow_symlinks=False)
    assert names(ckptfmt.gc(run, delete=True).kept) == OURS
    time.sleep(0.6)
    (run / OURS[1] / "tensors" / "x").write_bytes(b"still written")
    report = ckptfmt.gc(run, delete=True, grace=0.5)
    assert (names(report.found), names(report.kept)) == (OURS[:1], OURS[1:])
    assert (run / OURS[1]).exists()


def test_times_in_the_future_are_new(run: Path) -> None:
    """As they are when the clock was set back: it needs a grace of 0 to remove what nobody holds."""
    os.utime(run / OURS[0], (2**33, 2**33))
    time.sleep(0.1)  # the others are older than the grace, by the coarse clock of the file system, too
    report = ckptfmt.gc(run, delete=True, grace=0.01)
    assert (names(report.kept), report.kept[0].age) == (OURS[:1], 0)
    assert names(ckptfmt.gc(run, delete=True, grace=0).found) == OURS[:1]


def test_a_lease_on_the_run_or_on_what_was_left_protects_it(run: Path) -> None:
    with lease(str(run / OURS[0])):
        report = ckptfmt.gc(run, delete=True, grace=0)
        assert (names(report.found), names(report.kept)) == (OURS[1:], OURS[:1])
        assert report.kept[0].why == "in use"
    with lease(str(run)):
        assert names(ckptfmt.gc(run, delete=True, grace=0).kept) == OURS[:1]
    assert names(ckptfmt.gc(run, delete=True, grace=0).found) == OURS[:1]


def test_folders_below(tmp_path: Path) -> None:
    deep = tmp_path / "runs" / "7"
    deep.mkdir(parents=True)
    name = f".x.{HEX}.ckptfmt-tmp"
    inside = tmp_path / "runs" / "whole.ckpt"
    ckptfmt.save(inside, TREE, layout="loose", durable=False)
    for folder in (deep, inside, inside / "tensors", tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    assert ckptfmt.gc(tmp_path / "runs", grace=0).found == ()
    report = ckptfmt.gc(tmp_path / "runs", grace=0, recursive=True, delete=True)
    assert [garbage.path for garbage in report.found] == [str(deep / name)]
    assert (inside / name).exists()
    assert (tmp_path / "elsewhere" / name).exists()


def test_meetings_of_ranks(tmp_path: Path) -> None:
    session, alive = tmp_path / "session-0123456789abcdef", tmp_path / "session-fedcba9876543210"
    other = tmp_path / "session-00000000000000ff"
    for folder in (session, alive, other):
        folder.mkdir()
        (folder / "3.1.message").write_bytes(b"x")
    for folder in (session, other):
        (folder / LOST).write_bytes(b"rank 1 left")
    (other / "diary.txt").write_bytes(b"not ours")
    (tmp_path / "join-0123456789abcdef").write_bytes(b"")
    report = ckptfmt.gc(tmp_path, delete=True, grace=0)
    assert names(report.found) == ["join-0123456789abcdef", session.name]
    assert sorted(os.listdir(tmp_path)) == [other.name, alive.name]


# ---- real saves


def save_and_wait(path: Path, layout: str, entered: Any) -> None:
    """Stop in the middle of a save."""

    def wait(name: str, arguments: Any) -> None:
        if name == "write":
            entered.release()
            time.sleep(60)

    use_disk(wait)
    ckptfmt.save(path, TREE, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_save_that_was_killed(tmp_path: Path, layout: str) -> None:
    entered = semaphore()
    process = child(save_and_wait, tmp_path / "x.ckpt", layout, entered)
    assert entered.acquire(timeout=60)
    assert names(ckptfmt.gc(tmp_path, delete=True).kept), "it lives, and has just written"
    process.kill()
    process.join()
    assert len(leftovers(tmp_path)) == 1
    assert ckptfmt.gc(tmp_path, delete=True, grace=0).found[0].removed
    assert os.listdir(tmp_path) == []


def test_saves_are_not_disturbed(tmp_path: Path) -> None:
    """Many saves beside a collection that runs all the time, with a grace longer than any of their pauses."""
    done = threading.Event()
    found: list[ckptfmt.Garbage] = []

    def collect() -> None:
        while not done.is_set():
            found.extend(ckptfmt.gc(tmp_path, delete=True, grace=30).found)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for number in range(60):
            layout = LAYOUTS[number % 3]
            ckptfmt.save(
                tmp_path / f"{layout}.ckpt", {**TREE, "n": number}, layout=layout, overwrite=True, durable=False
            )
    finally:
        done.set()
        thread.join()
    assert found == []
    for number, layout in ((57, "file"), (58, "packed"), (59, "loose")):
        assert_same_tree(ckptfmt.load(tmp_path / f"{layout}.ckpt"), {**TREE, "n": number})


def test_what_was_replaced_is_as_old_as_its_replacement(tmp_path: Path) -> None:
    """A checkpoint that gave its name to another is needed until the exchange is on the disk, however old its files."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="loose", durable=False)
    for file in path.rglob("*"):
        os.utime(file, (0, 0))
    time.sleep(0.3)
    os.rename(path, tmp_path / f".x.ckpt.{HEX}.ckptfmt-tmp")
    assert len(ckptfmt.gc(tmp_path, delete=True, grace=0.25).kept) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_deletions_of_a_manager_are_ended(tmp_path: Path, layout: str) -> None:
    """A step whose bytes were to go when the process died: it is no step any more, and gc removes what is left."""
    with ckptfmt.CheckpointManager(tmp_path, keep=[Last(5)], layout=layout) as manager:
        for step in range(3):
            manager.save(step, TREE)

    class DeadDisk(Disk):
        def unlink(self, path: str, *, folder: int | None = None) -> None:
            if "0003" not in path:  # which is being saved
                raise KeyboardInterrupt
            super().unlink(path, folder=folder)

        def remove_tree(self, path: str) -> None:
            os.unlink(os.path.join(path, "COMMIT"))
            raise KeyboardInterrupt

    def save() -> None:
        with ckptfmt.CheckpointManager(tmp_path, keep=[Last(1)], layout=layout) as manager:
            manager.save(3, TREE)

    with using_disk(DeadDisk()), pytest.raises(KeyboardInterrupt):
        save()
    assert len(leftovers(tmp_path)) == 1
    assert len(ckptfmt.gc(tmp_path, delete=True, grace=0).found) == 1
    assert leftovers(tmp_path) == []
    with ckptfmt.CheckpointManager(tmp_path, keep=[Last(5)], layout=layout) as manager:
        assert 3 in [step.step for step in manager.steps()]
        assert_same_tree(manager.restore(), TREE)


# ---- calls


def test_calls_that_cannot_be_carried_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, code in ((tmp_path / "no", "not-found"), (tmp_path / "file", "not-a-checkpoint")):
        with pytest.raises(ckptfmt.CkptError) as caught:
            ckptfmt.gc(path)
        assert caught.value.code == code


def command(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["gc", *map(str, arguments)])


def test_the_command(run: Path) -> None:
    result = command(run)
    assert result.exit_code == 0
    assert result.stdout.count("\nkept ") + result.stdout.startswith("kept ") == 2
    assert result.stdout.endswith("0 leftovers, 0 B can be removed with --delete\n")
    result = command("--grace", "0s", run)
    assert f"found {run / OURS[0]}: a save or a deletion that did not end, 4 B, unchanged for 0 s\n" in result.stdout
    assert result.stdout.endswith("2 leftovers, 104 B can be removed with --delete\n")
    found = json.loads(command("--grace", "0m", "--delete", "--json", run).stdout)
    assert (found["deleted"], found["bytes"], found["kept"]) == (True, 104, [])
    assert [(os.path.basename(garbage["path"]), garbage["removed"]) for garbage in found["found"]] == [
        (name, True) for name in OURS
    ]
    for wrong in ("5", "h", "-1h", "1w", "nan"):
        assert command("--grace", wrong, run).exit_code == 2
    assert command(run / "no").exit_code == 2
