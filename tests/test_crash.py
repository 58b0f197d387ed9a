"""Saves that end too early: killed between any two calls to the disk, killed at any moment, interrupted, out of space.
Afterwards the path holds the old checkpoint or the new one, whole, or nothing. [PUB-001] to [PUB-007]"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, child, exit_code, leftovers, use_disk
from ramdisk import in_memory, tmp_path

import ckptfmt
from ckptfmt.testing import equal_trees
from stress import sigkill

__all__ = ["in_memory", "tmp_path"]  # fixtures

OLD = {"large": np.zeros(300_000), "small": [np.arange(3), "old"]}
NEW = {"large": np.ones(300_000), "small": [np.arange(4), "new"], "more": np.array(1.5)}
PUBLISHING = ("link", "replace", "rename_exclusive", "exchange")
REMOVING = ("unlink", "remove_directory", "remove_tree")

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
fresh_or_not = pytest.mark.parametrize("overwrite", [False, True], ids=["fresh", "replacing"])


def raise_at(number: int, error: BaseException, *, only: str | None = None) -> Callable[..., None]:
    """Raises at call number `number`, counted over all calls or over those named `only`."""
    count = itertools.count()

    def act(name: str, *_: Any) -> None:
        if only in (None, name) and next(count) == number:
            raise error

    return act


def check_state(path: Path, *, old: bool) -> str:
    """What the path holds, "old", "new" or "nothing", checked whole; beside it nothing but temporaries, all refused."""
    beside = [file for file in path.parent.iterdir() if file != path]
    assert set(beside) <= set(leftovers(path.parent))
    for file in beside:
        for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify):
            with pytest.raises(ckptfmt.NotACheckpointError) as caught:
                call(file)
            assert caught.value.code == "temporary"
    if not path.exists():
        assert not old, "the old checkpoint is gone"
        return "nothing"
    assert ckptfmt.verify(path).ok
    tree = ckptfmt.load(path)
    assert equal_trees(tree, NEW) or (old and equal_trees(tree, OLD))
    return "new" if equal_trees(tree, NEW) else "old"


# ---- killed


def save_until_killed(path: Path, layout: str, overwrite: bool, number: int) -> None:
    def kill(name: str, arguments: tuple[Any, ...]) -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    count = itertools.count()
    use_disk(kill)
    ckptfmt.save(path, NEW, layout=layout, overwrite=overwrite)


@each_layout
@fresh_or_not
def test_killed_before_any_call_to_the_disk(tmp_path: Path, layout: str, overwrite: bool) -> None:
    seen = []
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "model.ckpt"
        if overwrite:
            ckptfmt.save(path, OLD, layout=layout, durable=False)
        code = exit_code(save_until_killed, path, layout, overwrite, number)
        assert code in (0, -signal.SIGKILL)
        state = check_state(path, old=overwrite)
        ckptfmt.save(path, NEW, layout=layout, overwrite=True, durable=False)  # leftovers are in nobody's way
        assert check_state(path, old=False) == "new"
        if code == 0:
            break
        seen.append(state)
    before = "old" if overwrite else "nothing"
    assert seen == sorted(seen, key=[before, "new"].index), "once the new one is there it stays"
    assert {before, "new"} == set(seen)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The long run is `python -m stress sigkill`."""
    result = sigkill.run(tmp_path, seed=3, count=24)
    assert result.bad == []
    assert "24 kills" in result.counts


# ---- interrupted


def save_slowly(path: Path, layout: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    use_disk(lambda name, arguments: time.sleep(0.02))
    try:
        ckptfmt.save(path, {"large": np.zeros(1 << 28, np.uint8)}, layout=layout, durable=False)
    except KeyboardInterrupt:
        sys.exit(42)


@each_layout
def test_interrupted_by_a_signal(tmp_path: Path, layout: str) -> None:
    process = child(save_slowly, tmp_path / "model.ckpt", layout)
    while not any(tmp_path.rglob("*")):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 42
    assert list(tmp_path.iterdir()) == []


def moments(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new directory for each moment."""
    for number in itertools.count():
        (folder / str(number)).mkdir()
        yield number, folder / str(number) / "model.ckpt"


@each_layout
@fresh_or_not
@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_at_any_call_to_the_disk(tmp_path: Path, layout: str, overwrite: bool, when: str) -> None:
    """The temporary is removed, and the target untouched unless the new checkpoint was already there."""
    for number, path in moments(tmp_path):
        calls: list[str] = []
        interrupt = raise_at(number, KeyboardInterrupt())

        def act(name: str, *rest: Any, calls: list[str] = calls, interrupt: Any = interrupt) -> None:
            calls.append(name)
            interrupt(name)

        if overwrite:
            ckptfmt.save(path, OLD, layout=layout, durable=False)
        disk = use_disk(**{when: act})
        try:
            ckptfmt.save(path, NEW, layout=layout, overwrite=overwrite)
            break
        except KeyboardInterrupt:
            pass
        finally:
            disk.undo()
        done = calls if when == "after" else calls[:number]
        published = any(name in PUBLISHING for name in done)
        state = check_state(path, old=overwrite)
        assert state == ("new" if published else "old" if overwrite else "nothing"), calls
        assert leftovers(path.parent) == [], f"interrupted {when} {calls[number]}, call {number}"
    assert number > 5


# ---- failing calls


@each_layout
@fresh_or_not
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EIO, "io")])
def test_any_call_to_the_disk_fails(tmp_path: Path, layout: str, overwrite: bool, number: int, code: str) -> None:
    for moment, path in moments(tmp_path):
        if overwrite:
            ckptfmt.save(path, OLD, layout=layout, durable=False)
        calls: list[str] = []
        fail = raise_at(moment, OSError(number, os.strerror(number)))

        def act(name: str, *rest: Any, calls: list[str] = calls, fail: Any = fail) -> None:
            calls.append(name)
            fail(name)

        disk = use_disk(act)
        try:
            ckptfmt.save(path, NEW, layout=layout, overwrite=overwrite)
        except ckptfmt.StorageError as error:
            assert (error.code, error.errno, error.path is not None) == (code, number, True)
        else:  # only the removal of a temporary that is no longer needed may fail unnoticed
            assert len(calls) <= moment or calls[moment] in REMOVING
        finally:
            disk.undo()
        state = check_state(path, old=overwrite)
        if len(calls) <= moment:
            assert state == "new"
            break
        published = any(name in PUBLISHING for name in calls[:moment])
        assert state == ("new" if published else "old" if overwrite else "nothing")
        if calls[moment] == "flush":
            assert all(name in REMOVING for name in calls[moment + 1 :]), "[PUB-006]"
        if not published:
            assert leftovers(path.parent) == [], f"{calls[moment]}, call {moment}"
    assert moment > 5


@each_layout
def test_the_parent_cannot_be_flushed(tmp_path: Path, layout: str) -> None:
    """The checkpoint is in place and the error says so. What it replaced is only removed once that is certain."""
    path = tmp_path / "model.ckpt"
    for overwrite in (False, True):
        disk = use_disk(fail_flush_of(tmp_path))
        with pytest.raises(ckptfmt.StorageError, match="in place") as caught:
            ckptfmt.save(path, NEW if overwrite else OLD, layout=layout, overwrite=overwrite)
        disk.undo()
        assert caught.value.code == "io"
        assert equal_trees(ckptfmt.load(path), NEW if overwrite else OLD)
        if not (overwrite and layout != "file"):
            assert leftovers(tmp_path) == []


def fail_flush_of(folder: Path) -> Callable[..., None]:
    def act(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "flush_directory" and Path(arguments[0]) == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return act


def test_a_file_system_without_links(tmp_path: Path) -> None:
    """Exclusive publishing falls back on a rename that does not replace. [PUB-003]"""
    path = tmp_path / "model.ckpt"
    for error in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
        disk = use_disk(raise_at(0, OSError(error, os.strerror(error)), only="link"))
        ckptfmt.save(path, NEW)
        with pytest.raises(ckptfmt.ExistsError):
            ckptfmt.save(path, OLD)
        disk.undo()
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


def test_a_link_whose_answer_was_lost(tmp_path: Path) -> None:
    """A network disk makes the request again, and is told that the name exists: it is ours. [PUB-003]"""
    path = tmp_path / "model.ckpt"
    error = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    disk = use_disk(after=lambda name, *_: raise_at(0, error, only="link")(name))
    ckptfmt.save(path, NEW)
    with pytest.raises(ckptfmt.ExistsError):
        ckptfmt.save(path, OLD)
    disk.undo()
    assert check_state(path, old=False) == "new"
    assert list(tmp_path.iterdir()) == [path]


@each_layout
def test_a_disk_that_is_full_says_so_when_a_file_is_closed(tmp_path: Path, layout: str) -> None:
    """As network disks and quotas do."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, OLD, layout=layout)
    disk = use_disk(after=raise_at(0, OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), only="close"))
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.save(path, NEW, layout=layout, overwrite=True, durable=False)
    disk.undo()
    assert caught.value.code == "disk-full"
    assert check_state(path, old=True) == "old"
    assert not leftovers(tmp_path)


def lacking(*names: str) -> Callable[..., None]:
    def act(name: str, *_: Any) -> None:
        if name in names:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    return act


def test_a_file_system_that_can_do_neither(tmp_path: Path) -> None:
    disk = use_disk(lacking("link", "rename_exclusive"))
    with pytest.raises(ckptfmt.StorageError) as caught:
        ckptfmt.save(tmp_path / "model.ckpt", NEW)
    ckptfmt.save(tmp_path / "model", NEW, layout="packed")  # a directory needs neither
    disk.undo()
    shutil.rmtree(tmp_path / "model")
    assert caught.value.code == "exclusive-unsupported"
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_exchange_directories(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, OLD, layout="loose")
    disk = use_disk(lacking("exchange"))
    with pytest.raises(ckptfmt.ExistsError) as caught:
        ckptfmt.save(path, NEW, layout="loose", overwrite=True)
    disk.undo()
    assert caught.value.code == "not-replaceable"
    assert check_state(path, old=True) == "old"
    assert leftovers(tmp_path) == []


# ---- the order of a durable commit


class Recorder:
    """The calls of a save, with the path that each is about."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._paths: dict[int, str] = {}

    def __call__(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "create":
            self._paths[result] = arguments[0]
        about = arguments[0]
        self.calls.append((name, self._paths[about] if isinstance(about, int) else about))


def record(path: Path, tree: Any, **options: Any) -> list[tuple[str, str]]:
    recorder = Recorder()
    disk = use_disk(after=recorder)
    try:
        ckptfmt.save(path, tree, **options)
    finally:
        disk.undo()
    return recorder.calls


def position(calls: list[tuple[str, str]], *names: str) -> int:
    """Where the one call of these names is."""
    (found,) = [at for at, (name, _) in enumerate(calls) if name in names]
    return found


def check_order(calls: list[tuple[str, str]], parent: str) -> None:
    published = position(calls, *PUBLISHING)
    assert calls[published + 1] == ("flush_directory", parent)  # [PUB-002]
    assert all(name in REMOVING for name, _ in calls[published + 2 :])
    before = calls[:published]
    for name, path in before:
        own = [(at, call) for at, (call, other) in enumerate(before) if other == path]
        if name == "create":
            assert [call for _, call in own[-2:]] == ["flush", "close"], f"{path} changed after its flush, or had none"
        if name == "make_directory":
            flushed = next(at for at, call in own if call == "flush_directory")
            inside = [at for at, (_, other) in enumerate(before) if other.startswith(f"{path}/")]
            assert max(inside) < flushed, f"{path} was flushed before what it holds"  # bottom-up


@each_layout
@fresh_or_not
def test_data_is_flushed_before_it_is_published(tmp_path: Path, layout: str, overwrite: bool) -> None:
    path = tmp_path / "model.ckpt"
    if overwrite:
        ckptfmt.save(path, OLD, layout=layout)
    calls = record(path, NEW, layout=layout, overwrite=overwrite)
    check_order(calls, str(tmp_path))
    temporary = calls[0][1]
    assert temporary.endswith(".ckptfmt-tmp")  # [PUB-001]
    assert Path(temporary).parent == tmp_path
    written = {other for name, other in calls if name not in PUBLISHING and os.path.isabs(other)} - {str(tmp_path)}
    assert all(other == temporary or other.startswith(f"{temporary}/") for other in written)
    made = [other for name, other in calls if name in ("create", "make_directory")]
    flushed = [other for name, other in calls if name in ("flush", "flush_directory")]
    assert sorted(flushed) == sorted([*made, str(tmp_path)]), "each is flushed once"


def test_the_calls_of_a_small_save(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    written = ["create", "allocate", "write", "truncate", "flush", "close"]
    fresh = [name for name, _ in record(path, {"x": np.arange(3)})]
    assert fresh == [*written, "link", "flush_directory", "unlink"]
    replacing = [name for name, _ in record(path, {"x": np.arange(3)}, overwrite=True)]
    assert replacing == [*written, "replace", "flush_directory"]
    path.unlink()
    for layout in LAYOUTS:
        calls = record(tmp_path / layout, {"x": np.arange(3)}, layout=layout, durable=False)
        assert not {"flush", "flush_directory"} & {name for name, _ in calls}
    replacing = [name for name, _ in record(tmp_path / "loose", NEW, layout="loose", overwrite=True, durable=False)]
    assert set(replacing[replacing.index("exchange") + 1 :]) == set(REMOVING)  # [PUB-004]
