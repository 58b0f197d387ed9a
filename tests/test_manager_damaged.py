"""Steps that cannot be read, or are none: listed, passed over, told, never counted, never deleted, and no reason for a
run to stop."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import LAYOUTS, WatchedDisk, use_disk, zones

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import Best, CheckpointManager, FallbackWarning, run_on_disk
from ckptfmt.storage import disk
from ckptfmt.testing import equal_trees

ROOT = Path(__file__).parents[1]


def tree(step: int) -> dict[str, Any]:
    return {"step": step, "w": np.full(100, step)}


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


@pytest.fixture(params=LAYOUTS)
def run(tmp_path: Path, request: pytest.FixtureRequest) -> CheckpointManager:
    """Steps 1, 2 and 3, and a manager that has not looked yet."""
    options: dict[str, Any] = {"layout": request.param, "durable": False}
    with CheckpointManager(tmp_path / "run", **options) as manager:
        for step in (1, 2, 3):
            manager.save(step, tree(step), metrics={"loss": step})
    return CheckpointManager(tmp_path / "run", keep=2, **options)


@contextmanager
def unreadable(step: int, number: int = errno.EIO) -> Iterator[None]:
    """The end of a step's file, or its `COMMIT`, cannot be read."""
    name = f"step-{step:010d}.ckpt"

    class System:
        def __getattr__(self, call: str) -> Any:
            return getattr(os, call)

        def pread(self, fd: int, length: int, offset: int) -> bytes:
            if name in os.readlink(f"/proc/self/fd/{fd}"):
                raise OSError(number, os.strerror(number))
            return os.pread(fd, length, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_on_disk, "os", System())
        yield


def no_record(run: CheckpointManager, step: int) -> Path:
    """Damage the commit record of a step, or take it away; gives what is damaged."""
    path = Path(run._run.path_of(step))
    if path.is_dir():
        (path / "COMMIT").unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, "io"), (errno.EACCES, "permission")])
def test_one_that_cannot_be_read(run: CheckpointManager, number: int, code: str) -> None:
    with unreadable(3, number):
        with pytest.warns(FallbackWarning, match=r"passed over: .*step-0000000003"):
            assert run.latest().step == 2  # type: ignore[union-attr]
        assert numbers(run) == [1, 2], "it is told once"
        (damaged,) = run.damaged()
        assert (damaged.step, damaged.error.code) == (3, code)
        assert equal_trees(run.restore(fallback=True), tree(2))
        with pytest.raises(ckptfmt.StorageError) as caught:
            run.restore(3)
        assert caught.value.code == code
        assert equal_trees(run.restore(3, fallback=True), tree(2))
        run.prune()
        assert numbers(run) == [1, 2], "it does not count as one of the two that are kept"
        for step in (4, 5):
            assert run.save(step, tree(step))
        assert numbers(run) == [4, 5]
    assert numbers(run) == [3, 4, 5], "and it is not deleted: that it could not be read may have passed"
    assert equal_trees(run.restore(3), tree(3))


def test_one_without_a_record(run: CheckpointManager) -> None:
    """The run goes back, and on over the place of the damaged one, which stays for those who can mend it."""
    path = no_record(run, 3)
    with pytest.warns(FallbackWarning, match="no commit record|no COMMIT"):
        assert equal_trees(run.restore(fallback=True), tree(2))
    assert [found[:2] for found in run.damaged()] == [(3, str(path))]
    with pytest.raises(ckptfmt.CorruptError):
        run.restore(3)
    run.prune()
    assert numbers(run) == [1, 2]
    assert run.save(3, tree(30), block=False)
    run.wait()
    assert numbers(run) == [2, 3]
    assert equal_trees(run.restore(), tree(30))
    assert run.damaged() == []
    (aside,) = path.parent.glob("*.damaged")
    assert aside.name.startswith(path.name)
    assert aside.is_dir() == path.is_dir()


def flip(path: str) -> None:
    """Damage a tensor: the commit record stays sound."""
    zone = next(zone for zone in zones(Path(path)) if zone.where == "block")
    data = bytearray(zone.file.read_bytes())
    data[zone.start] ^= 1
    zone.file.write_bytes(data)


@pytest.mark.parametrize("block", [True, False])
def test_the_run_goes_on_from_what_it_fell_back_to(run: CheckpointManager, block: bool) -> None:
    """Over what was passed over with a sound record, too: steps after the whole one are new again."""
    for step in (2, 3):
        flip(run._run.path_of(step))
    assert numbers(run) == [1, 2, 3], "nobody has read all of them yet"
    assert not run.should_save(2)
    with pytest.warns(FallbackWarning) as said:
        assert equal_trees(run.restore(fallback=True), tree(1))
    assert len(said) == 2
    assert numbers(run) == [1], "and it is told once"
    assert [(found.step, type(found.error)) for found in run.damaged()] == [(n, ckptfmt.CorruptError) for n in (2, 3)]
    with pytest.raises(ckptfmt.CorruptError):
        run.restore(3)
    run.prune()
    assert run.should_save(2)
    for step in (2, 3):
        assert run.save(step, tree(10 * step), block=block)
    run.wait()
    assert numbers(run) == [2, 3]
    assert equal_trees(run.restore(fallback=True), tree(30))
    assert len(list(Path(run.directory).glob("*.damaged"))) == 2, "which can be mended"
    again = CheckpointManager(run.directory)
    assert [found.step for found in again.steps()] == [2, 3]
    assert again.damaged() == []


def test_what_was_passed_over_counts_again_once_it_is_another(run: CheckpointManager) -> None:
    path = Path(run._run.path_of(3))
    whole = path.with_name("whole")
    (shutil.copytree if path.is_dir() else shutil.copy)(path, whole)
    flip(str(path))
    with pytest.warns(FallbackWarning):
        run.restore(fallback=True)
    assert numbers(run) == [1, 2]
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    whole.rename(path)
    (path / "COMMIT" if path.is_dir() else path).touch()
    assert numbers(run) == [1, 2, 3]
    assert equal_trees(run.restore(fallback=True), tree(3))


def test_where_none_is_whole_none_is_passed_over(run: CheckpointManager) -> None:
    """Then nothing says where to go on, and no step is free to be written anew."""
    for step in (1, 2, 3):
        flip(run._run.path_of(step))
    with pytest.warns(FallbackWarning), pytest.raises(ckptfmt.MissingError, match="no whole checkpoint"):
        run.restore(fallback=True)
    assert numbers(run) == [1, 2, 3]
    with pytest.raises(ckptfmt.ExistsError):
        run.save(3, tree(3))


def test_where_none_can_be_read_nothing_begins_anew(run: CheckpointManager) -> None:
    with unreadable(1), unreadable(2):
        for step in (1, 2):
            shutil.rmtree(run._run.path_of(step), ignore_errors=True)
            Path(run._run.path_of(step)).unlink(missing_ok=True)
    with unreadable(3), pytest.raises(ckptfmt.StorageError):
        run.latest()
    assert run.latest().step == 3  # type: ignore[union-attr]


def test_metrics_that_cannot_be_read_now_delete_nothing(run: CheckpointManager, monkeypatch: Any) -> None:
    run._saver.policies = (Best("loss"),)

    def before(name: str, arguments: Any) -> None:
        if name == "open" and arguments[0].endswith("02.ckpt"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    watched = use_disk(before, reads=True)
    try:
        run.save(4, tree(4), metrics={"loss": 4})
    finally:
        watched.undo()
    assert numbers(run) == [1, 2, 4]
    run.prune()
    assert numbers(run) == [1, 4]


def test_a_copy_is_taken(run: CheckpointManager, tmp_path: Path) -> None:
    with CheckpointManager(run.directory, copy_to=tmp_path / "second", durable=False) as both:
        assert both.wait_for_copies(60)
        no_record(run, 3)
        with pytest.warns(FallbackWarning):
            assert both.latest().step == 3  # type: ignore[union-attr]
        assert equal_trees(both.restore(3, fallback=True), tree(3))
        assert equal_trees(both.restore(), tree(3))


def test_the_table_shows_them(run: CheckpointManager) -> None:
    path = no_record(run, 2)
    shown = CliRunner().invoke(cli, ["ls", run.directory]).stdout.splitlines()
    assert shown[2].split() == [path.name, "2", "bad-record"]
    assert shown[-1].startswith(f"{run.directory}: 2 checkpoints, 1 damaged or not readable, ")
    found = json.loads(CliRunner().invoke(cli, ["ls", run.directory, "--json"]).stdout)["steps"]
    assert [step["error"] for step in found] == [None, "bad-record", None]
    nothing = {"format": None, "time": None, "size": None, "metrics": {}, "reasons": []}
    nothing |= {"manifest_sha256": None, "base": None}
    assert found[1] == {**nothing, "name": path.name, "step": 2, "path": str(path), "error": "bad-record"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make itself somebody else")
def test_no_permission(tmp_path: Path) -> None:
    """As somebody else, really."""
    code = """
import os, shutil, sys, warnings, ckptfmt
from ckptfmt import CheckpointManager
warnings.simplefilter("ignore")
with CheckpointManager(sys.argv[1] + "-before", keep=1, durable=False) as one:  # imports all, which nobody else may
    one.save(1, {})
    one.save(2, {})
    one.restore(fallback=True)
os.setresuid(65534, 65534, 65534)
one = CheckpointManager(sys.argv[1], keep=2, durable=False)
assert one.restore(fallback=True)["s"] == 2
assert [found.error.code for found in one.damaged()] == ["permission"]
for step in (4, 5):
    one.save(step, {"s": step})
assert [step.step for step in one.steps()] == [4, 5]
"""
    run = tmp_path / "run"
    with CheckpointManager(run, durable=False) as manager:
        for step in (1, 2, 3):
            manager.save(step, {"s": step})
    for path in (tmp_path, *tmp_path.parents[:3]):  # one more where tests run side by side
        path.chmod(0o755)
    run.chmod(0o777)
    (run / "step-0000000003.ckpt").chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", code, run], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- overlayfs: a directory in a lower layer can be removed, and not renamed


class Overlay(WatchedDisk):
    """Like overlayfs, for what lies there already."""

    def __init__(self, folder: Path) -> None:
        super().__init__(self._check)
        self._lower = {str(path) for path in folder.iterdir() if path.is_dir()}

    def _check(self, name: str, arguments: Any) -> None:
        if name == "remove_directory":
            self._lower.discard(arguments[0])
        if name in ("replace", "exchange", "rename_exclusive") and self._lower & set(arguments):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def _changes(run: CheckpointManager) -> None:
    """What pruning, going back and replacing do to steps 1, 2 and 3 in a lower layer."""
    if os.path.isdir(run._run.path_of(3)):
        with pytest.raises(ckptfmt.ExistsError) as caught:
            run.save(3, tree(30), overwrite=True)
        assert caught.value.code == "not-replaceable"
        assert equal_trees(run.restore(3), tree(3))
    assert run.save(4, tree(4))
    assert numbers(run) == [3, 4]
    assert run.save(2, tree(20), overwrite="later")
    assert numbers(run) == [2]
    assert equal_trees(run.restore(), tree(20))
    assert [name for name in sorted(os.listdir(run.directory)) if name != "kept.json"] == ["step-0000000002.ckpt"]


def test_steps_that_cannot_be_renamed(run: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_disk", Overlay(Path(run.directory)))
    _changes(run)


def test_on_a_real_overlay(run: CheckpointManager, tmp_path: Path) -> None:
    for name in ("layers", "merged"):
        (tmp_path / name).mkdir()
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_manager_damaged as tests
from ckptfmt import CheckpointManager
run = CheckpointManager({str(tmp_path / "merged")!r}, keep=2, durable=False, layout={run._saver._options["layout"]!r})
tests._changes(run)
"""
    mount = f"""
mount -t tmpfs none {tmp_path}/layers && mkdir {tmp_path}/layers/upper {tmp_path}/layers/work &&
mount -t overlay overlay -o lowerdir={run.directory},upperdir={tmp_path}/layers/upper,workdir={tmp_path}/layers/work \
{tmp_path}/merged || exit 77
exec {sys.executable} -c "$CODE"
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CODE": code}
    try:
        done = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this system lets nobody mount an overlay")
    assert (done.returncode, done.stderr) == (0, "")
