"""`gc` beside what lives, in processes of their own, by any clock: it is left alone, or, if its lease cannot be seen,
fails before it commits. [PUB-018] [PUB-019] [PUB-020]

All operations, for long: `python -m stress gc`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, child, leftovers, semaphore, use_disk

import ckptfmt
from ckptfmt.frameworks.sources import Lazy
from ckptfmt.storage import disk as disks
from ckptfmt.storage.attempt import LocalAttempt
from ckptfmt.storage.disk import Disk
from ckptfmt.storage.leases import claim, is_leased, lease
from ckptfmt.storage.temporaries import take_away
from ckptfmt.testing import assert_same_tree, using_disk
from stress.gc import LocklessDisk, beside_collections

OLD, NEW = {"w": np.zeros(30)}, {"w": np.arange(30.0), "v": np.ones(5)}
DAY = 24 * 3600.0
LATER = 25 * 3600.0  # seconds by which a clock is ahead
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
fresh_or_not = pytest.mark.parametrize("overwrite", [False, True], ids=["fresh", "replacing"])
TEMPORARY = ".x.ckpt.0123456789ab.ckptfmt-tmp"


def ahead(seconds: float) -> Callable[[], float]:
    now = time.time
    return lambda: now() + seconds


def collected(folder: Path, *, by: float = 0.0, grace: float = 0.0) -> list[ckptfmt.Garbage]:
    """What a collection by a clock that is ahead removes, after which nothing else was found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", ahead(by))
        report = ckptfmt.gc(folder, delete=True, grace=grace)
    assert all(garbage.removed for garbage in report.found)
    return list(report.found)


class Made(Lazy):
    """A tensor of ones, before whose bytes come something happens."""

    shape, dtype = (5,), np.dtype(np.float64)

    def __init__(self, before: Callable[[], Any]) -> None:
        self.before = before

    def __getitem__(self, index: Any) -> Any:
        self.before()
        return np.ones(self.shape)[index]


def waiting(entered: Any, go_on: Any) -> Made:
    """A tensor whose bytes come when they are allowed to."""

    def wait() -> None:
        entered.release()
        assert go_on.acquire(timeout=120)

    return Made(wait)


def save_when_told(path: Path, layout: str, overwrite: bool, entered: Any, go_on: Any) -> None:
    ckptfmt.save(path, {**NEW, "v": waiting(entered, go_on)}, layout=layout, overwrite=overwrite)


@each_layout
@fresh_or_not
def test_a_save_that_lives_is_left_alone(tmp_path: Path, layout: str, overwrite: bool) -> None:
    path = tmp_path / "x.ckpt"
    if overwrite:
        ckptfmt.save(path, OLD, layout=layout)
    entered, go_on = semaphore(), semaphore()
    process = child(save_when_told, path, layout, overwrite, entered, go_on)
    assert entered.acquire(timeout=30)
    os.kill(process.pid, signal.SIGSTOP)  # a pause longer than any grace
    for by, grace in ((0.0, 0.0), (LATER, DAY), (LATER, 0.0), (-LATER, 0.0), (1e9, DAY)):
        assert collected(tmp_path, by=by, grace=grace) == []
    assert [garbage.why for garbage in ckptfmt.gc(tmp_path, grace=0).kept] == ["in use"]
    os.kill(process.pid, signal.SIGCONT)
    go_on.release()
    process.join(60)
    assert process.exitcode == 0
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), NEW)
    assert os.listdir(tmp_path) == ["x.ckpt"]


@each_layout
def test_what_died_goes_at_once_with_a_grace_of_0(tmp_path: Path, layout: str) -> None:
    entered, go_on = semaphore(), semaphore()
    process = child(save_when_told, tmp_path / "x.ckpt", layout, False, entered, go_on)
    assert entered.acquire(timeout=30)
    process.kill()
    process.join(60)
    assert len(collected(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


@each_layout
@fresh_or_not
def test_without_locks_a_save_that_was_taken_for_dead_fails(tmp_path: Path, layout: str, overwrite: bool) -> None:
    """At whatever call: it never says that it saved what is not there, and what was there stays. [PUB-019]"""
    path = tmp_path / "x.ckpt"
    ends = set()
    for moment in range(1000):
        if overwrite:
            ckptfmt.save(path, OLD, layout=layout, overwrite=True)
        calls = iter(range(1000))

        class Disturbed(LocklessDisk):
            def __getattribute__(self, name: str) -> Any:
                if name in CHANGES and next(calls) == moment:
                    with using_disk(LocklessDisk()):
                        assert collected(tmp_path) == [], "nothing is removed within a day"
                        collected(tmp_path, by=LATER)
                return super().__getattribute__(name)

        with using_disk(Disturbed()):
            try:
                ckptfmt.save(path, NEW, layout=layout, overwrite=overwrite)
                ends.add("saved")
                assert_same_tree(ckptfmt.load(path), NEW)
                assert ckptfmt.verify(path).ok
            except ckptfmt.StorageError as error:
                ends.add(error.code)
                assert (error.code, error.path) == ("temporary-lost", str(path))
                assert path.exists() == overwrite
                if overwrite:
                    assert_same_tree(ckptfmt.load(path), OLD)
        with using_disk(LocklessDisk()):
            collected(tmp_path, by=LATER)
        assert leftovers(tmp_path) == []
        if next(calls) <= moment:
            break
        if not overwrite and path.exists():
            disks.current().remove_tree(str(path)) if path.is_dir() else path.unlink()
    assert ends == {"saved", "temporary-lost"}


CHANGES = ("create", "make_directory", "write", "flush", "flush_directory", "link", "replace", "rename_exclusive",
           "exchange", "unlink", "remove_directory")  # fmt: skip


@each_layout
def test_something_else_removes_a_file_of_a_temporary(tmp_path: Path, layout: str) -> None:
    """As a cleaner of old files does."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, OLD, layout=layout)

    def clean() -> None:
        (temporary,) = leftovers(tmp_path)
        first = temporary if layout == "file" else min(file for file in temporary.rglob("*") if file.is_file())
        first.unlink()

    tree = {"first": np.ones(300_000), "last": Made(clean)}
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.save(path, tree, layout=layout, overwrite=True)
    assert caught.value.code == "temporary-lost"
    assert "Save again" in str(caught.value)
    assert_same_tree(ckptfmt.load(path), OLD)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("call", ["open", "read"])
@each_layout
def test_what_was_written_is_removed_while_it_is_compared(tmp_path: Path, layout: str, call: str) -> None:
    source, path = tmp_path / "source.npz", tmp_path / "x.ckpt"
    np.savez(source, **OLD)
    removed: list[Path] = []

    def clean(name: str, _: Any) -> None:
        if name == call and not removed:
            removed.extend(leftovers(tmp_path))
            for temporary in removed:
                take_away(str(temporary))

    disk = use_disk(clean, reads=True)
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.convert(source, path, layout=layout)
    disk.undo()
    assert (caught.value.code, caught.value.path) == ("temporary-lost", str(path))
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("call", ["create", "open"])
def test_chunks_that_wait_for_a_patch_are_removed(tmp_path: Path, call: str) -> None:
    """While they are written, or before they are copied."""
    base, new, path = (tmp_path / name for name in ("base.ckpt", "new.ckpt", "x.ckpt"))
    ckptfmt.save(base, OLD)
    ckptfmt.save(new, NEW)

    def clean(name: str, arguments: Any) -> None:
        if name == call and os.path.basename(arguments[0]) == "chunks":
            take_away(os.path.dirname(arguments[0]))

    disk = use_disk(clean, reads=call == "open")
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.patch(base, new, path)
    disk.undo()
    assert (caught.value.code, caught.value.path) == ("temporary-lost", str(path))
    assert sorted(tmp_path.iterdir()) == [base, new]


# ---- a collection that is killed


def collect_until(path: Path, call: str, entered: Any) -> None:
    """Collect, and stop at a call."""

    def stop(name: str, _: Any) -> None:
        if name == call:
            entered.release()
            time.sleep(120)

    use_disk(stop)
    ckptfmt.gc(path, delete=True, grace=0)


@pytest.mark.parametrize("call", ["replace", "flush_directory", "unlink", "remove_directory"])
def test_a_collection_that_is_killed_is_ended_by_the_next(tmp_path: Path, call: str) -> None:
    dead = tmp_path / TEMPORARY / "packs"
    dead.mkdir(parents=True)
    (dead / "00000.zip").write_bytes(b"half")
    entered = semaphore()
    process = child(collect_until, tmp_path, call, entered)
    assert entered.acquire(timeout=30)
    assert collected(tmp_path) == []  # it is in the hands of the other one
    process.kill()
    process.join(60)
    assert len(collected(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


# ---- forks


@each_layout
def test_a_fork_does_not_keep_what_its_parent_wrote(tmp_path: Path, layout: str) -> None:
    """As a worker of a DataLoader that is begun while a save is under way, and outlives it."""
    path, entered, go_on = tmp_path / "x.ckpt", semaphore(), semaphore()
    process = child(save_and_fork, path, layout, entered, go_on)
    assert entered.acquire(timeout=30)
    assert collected(tmp_path, by=LATER) == []
    process.kill()
    process.join(60)
    try:
        assert len(collected(tmp_path)) == 1
    finally:
        go_on.release()


def save_and_fork(path: Path, layout: str, entered: Any, go_on: Any) -> None:
    def fork() -> None:
        if os.fork() == 0:
            entered.release()
            go_on.acquire(timeout=120)
            os._exit(0)
        time.sleep(120)

    ckptfmt.save(path, {**NEW, "v": Made(fork)}, layout=layout)


@pytest.mark.filterwarnings("ignore:os.fork")  # of JAX, if another test has imported it
@each_layout
def test_a_fork_that_goes_on_does_not_publish(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, OLD, layout=layout)
    attempt = LocalAttempt(str(path), directory=layout != "file", overwrite=True, durable=False)
    attempt.create("" if layout == "file" else "tensors/x").finish(0)
    number = os.fork()
    if number == 0:
        code = "published"
        try:
            attempt.publish()
        except ckptfmt.StorageError as error:
            code = error.code
        attempt.abort()  # and removes nothing
        os._exit(7 if code == "temporary-lost" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 7
    assert_same_tree(ckptfmt.load(path), OLD)
    assert len(leftovers(tmp_path)) == 1
    assert collected(tmp_path) == [], "the parent holds it still"
    attempt.publish()
    assert leftovers(tmp_path) == []
    assert not is_leased(str(path))


# ---- many processes


def join_and_wait(path: Path, token: str, entered: Any, go_on: Any) -> None:
    attempt = LocalAttempt.join(str(path), token, durable=True)
    attempt.create("packs/00001.zip").finish(5)
    entered.release()
    assert go_on.acquire(timeout=120)
    attempt.flush()
    entered.release()
    time.sleep(120)


def test_each_rank_holds_what_all_write(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    attempt = LocalAttempt(str(path), directory=True, overwrite=False, durable=True)
    token, entered, go_on = attempt.share(["packs"]), semaphore(), semaphore()
    process = child(join_and_wait, path, token, entered, go_on)
    assert entered.acquire(timeout=30)
    attempt._temporary.let_go()  # rank 0 has died
    assert collected(tmp_path, by=LATER) == []
    go_on.release()
    assert entered.acquire(timeout=60)  # the other one has no more to write
    assert len(collected(tmp_path)) == 1
    with pytest.raises(ckptfmt.StorageError) as caught:
        LocalAttempt.join(str(path), token, durable=True)
    assert caught.value.code == "temporary-lost"
    process.kill()
    process.join(60)


def test_ranks_that_meet_are_left_alone(tmp_path: Path) -> None:
    """A rank that waits for rank 0."""
    entered = semaphore()
    process = child(meet, tmp_path, entered)
    assert entered.acquire(timeout=30)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("join-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(50):
        collected(tmp_path, by=LATER)
    with ckptfmt.FileCoordinator(tmp_path, 0, 2, timeout=60) as coordinator:
        assert coordinator.exchange(b"0", lambda said: [b"".join(said)] * 2) == b"01"
    process.join(60)
    assert process.exitcode == 0


def meet(folder: Path, entered: Any) -> None:
    entered.release()
    with ckptfmt.FileCoordinator(folder, 1, 2, timeout=60) as coordinator:
        assert coordinator.exchange(b"1", lambda said: said) == b"01"


# ---- file systems


def test_nfs_locks_for_one_alone_what_is_open_for_writing(tmp_path: Path) -> None:
    class Nfs(Disk):
        def lock(self, fd: int, *, alone: bool, wait: bool) -> None:
            if alone and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            super().lock(fd, alone=alone, wait=wait)

    file = tmp_path / TEMPORARY
    file.write_bytes(b"half")
    with using_disk(Nfs()):
        with lease(str(file)):
            assert is_leased(str(file))
            assert collected(tmp_path, by=LATER) == []
        assert len(collected(tmp_path)) == 1


def test_on_smb_files_are_not_locked_and_age_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a lock would keep the save itself from writing."""
    status = (ctypes.c_long * 64)()
    assert disks._libc().statfs(os.fsencode(tmp_path), status) == 0
    monkeypatch.setattr(disks, "_SMB", (status[0] & 0xFFFFFFFF,))
    with open(tmp_path / TEMPORARY, "wb") as file, pytest.raises(OSError, match="not supported"):
        disks.current().lock(file.fileno(), alone=False, wait=False)
    ckptfmt.save(tmp_path / "x.ckpt", NEW)
    assert collected(tmp_path) == []
    assert len(collected(tmp_path, by=LATER)) == 1


def test_locks_end_when_they_are_let_go(tmp_path: Path) -> None:
    """Also where a child has a copy of the descriptor."""
    with lease(str(tmp_path)):
        held = [int(name) for name in os.listdir("/proc/self/fd") if leads_to(name, tmp_path)]
        copies = [os.dup(fd) for fd in held]
    with claim(str(tmp_path)) as is_mine:
        assert is_mine
    for fd in copies:
        os.close(fd)


def leads_to(name: str, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(int(name)), folder.stat())
    except OSError:
        return False


# ---- everything


@pytest.mark.parametrize("has_locks", [True, False], ids=["locks", "no locks"])
def test_collections_beside_everything(tmp_path: Path, has_locks: bool) -> None:
    assert beside_collections(tmp_path / "work", 3, 12, has_locks)[0] == []
