"""Saves in the background that another process writes: the same checkpoints as of the thread, the same errors, and
nothing harmed or left, whichever process ends, and however."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import s3
from damage import LAYOUTS, leftovers, varied_tree
from stores import endpoint  # noqa: F401

import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.manager import Background, Best, CheckpointManager, FlaxCheckpointManager, Last, snapshot, steps
from ckptfmt.manager import writer_process as processes
from ckptfmt.parallel.coordinator import Alone
from ckptfmt.testing import equal_trees
from stress import writers

ROOT = Path(__file__).parents[1]


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


def process_of(manager: CheckpointManager) -> int:
    """The number of the process that writes for a manager."""
    found = manager._saver._process
    assert found is not None
    assert found._process is not None
    return found._process.pid


def kill(manager: CheckpointManager) -> None:
    """Kill that process, and wait until it is gone."""
    os.kill(process_of(manager), signal.SIGKILL)
    os.waitid(os.P_PID, process_of(manager), os.WEXITED | os.WNOWAIT)


def is_there(process: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked about, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(holds: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.005)


def save(manager: CheckpointManager, step: int, **options: Any) -> None:
    """In the background; and wait."""
    manager.save(step, {"step": step, "w": np.full(50, step)}, block=False, **options)
    manager.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """The directory of a run; after the test no process of it is there."""
    yield tmp_path / "run"
    mine = [one for one in map(str, children()) if processes.PROGRAM in Path(f"/proc/{one}/cmdline").read_text()]
    assert mine == []


def children() -> list[int]:
    return [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


# ---- the same as the thread


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": {"zipped": {"name": "zstd", "level": 3}, "raw": "gzip"}, "digest": "sha256"},
        {"schema": ("model", "1"), "extra": {"of": ["x", 1]}, "skip": ["plain/text", "tied"], "durable": False},
        {"schema": ckptfmt.Schema("model", "2"), "max_bytes_in_flight": 1 << 20},
    ],
)
def test_the_same_bytes_as_by_the_thread(run: Path, layout: str, options: dict[str, Any]) -> None:
    base = np.arange(24.0).reshape(2, 3, 4)
    tree = varied_tree() | {
        "views": [base, base[1:]],
        "transposed": base.transpose(1, 0, 2),
        "fortran": np.asfortranarray(base),
        "strided": base[:, ::2, ::-1],
        "swapped": base.astype(">f4"),
        "broadcast": np.broadcast_to(np.arange(3), (2, 3)),
        "odict": OrderedDict(a=1, b=[base]),
        "sharded": Sharded(
            (4, 3), base.dtype, (Shard((0, 0), base[0].T[:2, :].copy()), Shard((2, 0), np.ones((2, 3))))
        ),
    }
    reports: list[Any] = []
    for by in ("thread", "process"):
        with CheckpointManager(
            run / by, layout=layout, background=by, on_commit=lambda _, report: reports.append(report), **options
        ) as manager:
            for step in range(3):  # the first snapshot is another than those after it
                base[:] = step
                manager.save(step, tree, metrics={"loss": step}, metadata={"by": [1, (2,)]}, block=False)
                manager.wait()
    for thread, process in zip(reports[:3], reports[3:], strict=True):
        assert type(process) is ckptfmt.SaveReport
        assert process.path == thread.path.replace("thread", "process")
        for name in ("layout", "bytes", "tensors", "manifest_sha256", "copied_views"):
            assert getattr(process, name) == getattr(thread, name), name
    names = sorted(path.relative_to(run / "thread") for path in (run / "thread").rglob("*"))
    assert names == sorted(path.relative_to(run / "process") for path in (run / "process").rglob("*"))
    for name in names:
        if (run / "thread" / name).is_file() and name.suffix != ".json":
            assert (run / "thread" / name).read_bytes() == (run / "process" / name).read_bytes(), name


def test_deep_trees_and_many_values(run: Path) -> None:
    deep: Any = np.arange(3)
    for _ in range(250):
        deep = [deep]
    tree = {"deep": deep, "many": list(range(100_000)), "small": [np.full(2, n) for n in range(3000)]}
    with CheckpointManager(run, background="process") as manager:
        for step in (1, 2):
            tree["small"][0][:] = -step
            manager.save(step, tree, block=False)
        manager.wait()
        assert equal_trees(manager.restore(), tree)
        assert manager.restore(1)["small"][0][0] == -1


def test_order_retention_and_reports(run: Path) -> None:
    commits: list[Any] = []

    def committed(step: Any, report: ckptfmt.SaveReport) -> None:
        assert threading.current_thread().name == "ckptfmt-save"
        commits.append((step, report.tensors))

    with CheckpointManager(
        run,
        background=Background(by="process", max_in_flight=3),
        keep=[Last(1), Best("loss"), lambda_policy()],
        on_commit=committed,
    ) as manager:
        for step, loss in enumerate([3, 1, 2, 5, 4]):
            manager.save(step, {"w": np.zeros(5)}, metrics={"loss": loss}, block=False)
        manager.save(5, {"w": np.zeros(5)}, metrics={"loss": 9})
        assert [step for step, _ in commits] == [0, 1, 2, 3, 4, 5], "one that blocks comes after those in flight"
        assert numbers(manager) == [1, 3, 5]
        manager.save(2, {"w": np.ones(5)}, overwrite="later", block=False)
        with pytest.raises(ckptfmt.ExistsError):
            manager.save(2, {}, block=False)
        manager.wait()
        assert numbers(manager) == [1, 2]


def test_policies_do_not_open_what_was_just_saved(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program would read a manifest, in Python."""
    opened: list[Any] = []
    monkeypatch.setattr(steps, "as_stored", lambda step: opened.append(step) or 1 / 0)
    with CheckpointManager(run, keep=Best("loss", 2), background="process") as manager:
        for step, loss in enumerate([3, 1, 2, 1.5]):
            save(manager, step, metrics={"loss": loss})
        assert numbers(manager) == [1, 3]
        assert [step.metrics["loss"] for step in manager.steps()] == [1, 1.5]
        assert opened == []
    again = CheckpointManager(run)
    with pytest.raises(ZeroDivisionError):
        again.steps()[0].metrics["loss"]


def lambda_policy() -> Any:
    """Code that no other process could be told."""
    return ckptfmt.manager.Where(lambda step: step.step == 3)


def test_what_changes_meanwhile_is_not_in_it(run: Path) -> None:
    weights = np.zeros(1 << 18)
    with CheckpointManager(run, background=Background(by="process", max_in_flight=2)) as manager:
        for step in range(6):
            weights[:] = step
            manager.save(step, {"w": weights}, block=False)
            weights[:] = -1
        manager.wait()
        for step in range(6):
            assert (manager.restore(step)["w"] == step).all()
        memories = [buffers._shared.memory for buffers in manager._saver._buffers if buffers._shared]
        assert len(memories) <= 2, "one for each save in flight"


def test_a_key_that_is_equal_and_of_another_type_is_refused() -> None:
    buffers = snapshot.SnapshotBuffers()
    assert buffers.take({1: 2}).tree == {1: 2}
    with pytest.raises(ckptfmt.InputError):
        buffers.take({True: 2})


def test_the_process_imports_no_framework(run: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    with CheckpointManager(run, background="process") as manager:
        save(manager, 1)
        mapped = Path(f"/proc/{process_of(manager)}/maps").read_text()
    assert "numpy" in mapped
    assert not [name for name in ("libtorch", "jaxlib") if name in mapped]


# ---- frameworks


def test_tensors_of_torch(run: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ckptfmt_torch")
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 2)).bfloat16()
    model.register_buffer("shared", torch.arange(6).share_memory_())
    optimizer = torch.optim.AdamW(model.parameters())
    with CheckpointManager(run, background="process") as manager:
        for step in range(3):
            model(torch.ones(1, 8).bfloat16()).sum().backward()
            optimizer.step()
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "whole": model}
            manager.save(2 * step, state, block=False)
            manager.save(2 * step + 1, state, block=True)
            for name in ("file", "tree"):
                one, other = (manager.restore(number) for number in (2 * step, 2 * step + 1))
                assert equal_trees(one, other), name


def test_arrays_of_jax_are_copied_beside_training(run: Path) -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("ckptfmt_jax")
    tree = {"w": jax.numpy.arange(1000.0), "b": jax.numpy.ones(7, "bfloat16"), "n": np.arange(3)}
    buffers = snapshot.SnapshotBuffers(is_shared=True)
    taken = buffers.take(tree)
    assert len(taken.shared._later if taken.shared else ()) == 2
    with CheckpointManager(run, background="process") as manager:
        for step in (1, 2):
            manager.save(step, tree, block=False)
            manager.wait()
            assert equal_trees(manager.restore(), {name: np.asarray(value) for name, value in tree.items()})


def test_a_part_of_a_tensor_is_refused_as_by_the_thread(run: Path) -> None:
    part = Sharded((4,), np.dtype(float), (Shard((0,), np.zeros(2)),))
    codes = []
    for by in ("thread", "process"):
        with CheckpointManager(run, background=by) as manager:
            manager.save(1, {"w": part}, block=False)
            with pytest.raises(ckptfmt.InputError) as caught:
                manager.wait()
            codes.append((caught.value.code, caught.value.tensor, str(caught.value)))
    assert codes[0] == codes[1]
    assert codes[0][:2] == ("shards-missing", "w")


# ---- stores, and other managers


@pytest.mark.parametrize("engine", s3.ENGINES)
def test_on_a_store(
    endpoint: str,  # noqa: F811
    run: Path,
    engine: str,
) -> None:
    place, options = f"s3://bucket/process-{engine}/run", s3.options(engine, endpoint)
    with CheckpointManager(place, storage_options=options, keep=2, background="process") as manager:
        for step in range(3):
            save(manager, step)
        assert numbers(manager) == [1, 2]
        assert manager.restore()["w"][0] == 2
        manager._run.delete(manager.steps())


def test_with_the_rules_of_flax(run: Path) -> None:
    with FlaxCheckpointManager(run, prefix="at_", keep=2, background="process") as manager:
        for step in (1, 2.5, 10):
            manager.save(step, {"w": np.ones(3)}, block=False)
        manager.wait()
        assert numbers(manager) == [2.5, 10]
        assert sorted(path.name for path in run.glob("at_*")) == ["at_10", "at_2.5"]


def test_what_is_damaged_is_moved_out_of_the_way(run: Path) -> None:
    run.mkdir()
    (run / "step-0000000001.ckpt").write_bytes(b"torn")
    with pytest.warns(ckptfmt.manager.FallbackWarning), CheckpointManager(run, background="process") as manager:
        save(manager, 1)
    assert [path.read_bytes() for path in run.glob("*.damaged")] == [b"torn"]


# ---- options


class Together(Alone):
    size = 2

    def exchange(self, message: bytes, answer: Any) -> bytes:
        return answer([message, message])[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"coordinator": Together()}, "per_process=True"),
        ({"check": print}, "check="),
        ({"storage_options": {"session": object()}, "directory": "s3://bucket/run"}, "storage_options="),
        ({"directory": "memory://run"}, "no other process sees this store"),
        ({"background": "fork"}, "thread"),
        ({"background": Background}, "process"),
    ],
)
def test_what_another_process_cannot_do_is_refused(run: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ckptfmt.InputError, match=text) as caught:
        CheckpointManager(**{"directory": run, "background": "process", **options})
    assert caught.value.code == "bad-option"


@pytest.mark.parametrize("option", [{"by": "fork"}, {"nice": -1}, {"nice": True}])
def test_options_of_background(option: dict[str, Any]) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        Background(**option)
    assert caught.value.code == "bad-option"


def test_each_process_of_many_has_one_of_its_own(run: Path) -> None:
    with CheckpointManager(run, background="process", coordinator=Together(), per_process=True) as manager:
        manager._saver._process.write  # type: ignore[union-attr]  # noqa: B018  it has one
        assert manager.directory == str(run / "process-00000")


def test_it_gives_way_to_others(run: Path) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with CheckpointManager(run, background=Background(by="process", nice=3)) as manager:
        save(manager, 1)
        assert os.getpriority(os.PRIO_PROCESS, process_of(manager)) == min(before + 3, 19)  # the system has no more
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


# ---- failures


@pytest.mark.parametrize("call", ["save", "should_save", "wait", "close"])
def test_a_failure_is_raised_at_the_next_call_and_once(run: Path, call: str) -> None:
    run.write_text("a file")
    errors: list[Any] = []
    manager = CheckpointManager(run, background="process", on_error=lambda *failed: errors.append(failed))
    manager.save(1, {}, block=False)
    manager._worker.wait()
    calls = {
        "save": lambda: manager.save(3, {}, block=False),
        "should_save": lambda: manager.should_save(3),
        "wait": manager.wait,
        "close": manager.close,
    }
    with pytest.raises(ckptfmt.ExistsError) as caught:
        calls[call]()
    assert (caught.value.code, caught.value.path) == ("exists", str(run))
    assert caught.value.__notes__ == ["raised while step 1 was saved in the background"]
    assert errors == [(1, caught.value)]
    run.unlink()
    save(manager, 3)
    manager.close()


def test_errors_come_with_all_that_they_say() -> None:
    import errno

    from ckptfmt.manager.channel import failure, raised

    told = ckptfmt.errors.fault(
        "disk-full", "no", path="p", tensor="t", errno=errno.ENOSPC, found=Path("x"), expected=[1, None], ranks=[2]
    )
    told.add_note("a note")
    found = raised(*failure(told))
    assert type(found) is ckptfmt.StorageError
    assert str(found) == str(told)
    assert found.__notes__ == ["a note"]
    assert (found.errno, found.path, found.tensor, found.ranks) == (errno.ENOSPC, "p", "t", [2])
    for error, kind in ((MemoryError(), MemoryError), (KeyError("x"), RuntimeError), (SystemExit(3), RuntimeError)):
        assert type(raised(*failure(error))) is kind


def test_progress_is_called_here_and_may_end_a_save(run: Path) -> None:
    seen: list[Any] = []
    ends = threading.Event()

    def progress(done: int, total: int) -> None:
        seen.append((os.getpid(), done, total))
        if ends.is_set():
            raise ZeroDivisionError

    with CheckpointManager(run, background="process", progress=progress) as manager:
        save(manager, 1)
        assert {process for process, *_ in seen} == {os.getpid()}
        assert seen[-1][1:] == (400, 400)
        ends.set()
        with pytest.raises(ZeroDivisionError):
            save(manager, 2)
        ends.clear()
        process = process_of(manager)
        save(manager, 3)
        assert process_of(manager) == process
        assert numbers(manager) == [1, 3]
        assert leftovers(run) == []


# ---- the process that writes ends


def test_it_is_killed_in_the_middle_of_a_save(run: Path) -> None:
    kills = threading.Event()
    errors: list[Any] = []
    manager = CheckpointManager(
        run,
        background=Background(by="process", max_in_flight=2),
        progress=lambda *_: kills.is_set() and os.kill(process_of(manager), signal.SIGKILL),
        on_error=lambda step, error: errors.append((step, error.code)),
    )
    save(manager, 1)
    kills.set()
    manager.save(2, {"w": np.zeros(9)}, block=False)
    with pytest.raises(ckptfmt.StorageError, match="SIGKILL") as caught:
        manager.wait()
    assert caught.value.code == "writer-lost"
    assert caught.value.path == manager._run.path_of(2)
    assert errors == [(2, "writer-lost")]
    assert numbers(manager) == [1]
    kills.clear()
    save(manager, 2)
    assert numbers(manager) == [1, 2]
    assert leftovers(run) == [], "what it left is swept"
    manager.close()


def test_it_is_killed_while_nothing_is_saved(run: Path) -> None:
    """Then nothing was lost."""
    with CheckpointManager(run, background="process") as manager:
        for step in range(3):
            save(manager, step)
            kill(manager)
        save(manager, 3)
        assert numbers(manager) == [0, 1, 2, 3]


def test_it_is_killed_at_any_moment(tmp_path: Path) -> None:
    """The long run is `python -m stress writers`."""
    result = writers.run(tmp_path, seed=3, count=12)
    assert result.bad == []


def test_it_does_not_start(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CheckpointManager(run, background="process") as manager:
        save(manager, 1)
        kill(manager)
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ckptfmt.StorageError) as caught:
            save(manager, 2)
        assert caught.value.code == "writer-lost"
        with pytest.raises(ckptfmt.StorageError):
            CheckpointManager(run, background="process")
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(ckptfmt.StorageError, match="exit code 1") as caught:
            save(manager, 2)
        monkeypatch.setattr(sys, "executable", "")
        with pytest.raises(ckptfmt.InputError):
            CheckpointManager(run, background="process")
        monkeypatch.undo()
        save(manager, 2)


def test_signals_for_all_are_for_the_program(run: Path) -> None:
    with CheckpointManager(run, background="process") as manager:
        process = process_of(manager)
        for number in processes.SIGNALS:  # at once, while it starts
            os.kill(process, number)
        save(manager, 1)
        for number in processes.SIGNALS:
            os.kill(process, number)
        save(manager, 2)
        assert process_of(manager) == process
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & processes.SIGNALS


def test_closing_ends_it_and_saving_begins_another(run: Path) -> None:
    manager = CheckpointManager(run, background="process")
    save(manager, 1)
    process = process_of(manager)
    manager.close()
    assert not is_there(process)
    save(manager, 2)
    process = process_of(manager)
    del manager
    gc.collect()
    assert not is_there(process)


# ---- memory


def files() -> int:
    """How many files of shared memory this process has open."""
    names = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum("memfd:ckptfmt" in name for name in names)


def held_by(process: int) -> tuple[int, int]:
    """Files that a process has open, and bytes of ours that it has mapped."""
    maps = [line.split() for line in Path(f"/proc/{process}/maps").read_text().splitlines() if "memfd:ckptfmt" in line]
    ends = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    return len(os.listdir(f"/proc/{process}/fd")), sum(high - low for low, high in ends)


def test_memory_is_used_again_and_leaves_nothing(run: Path) -> None:
    gc.collect()
    before = files()
    tree = {"w": np.zeros(1 << 20), "b": np.zeros(3)}
    with CheckpointManager(run, background="process", keep=1) as manager:
        save(manager, 0)
        found = set()
        for step in range(1, 8):
            manager.save(step, tree, block=False)
            manager.wait()
            (buffers,) = manager._saver._buffers
            assert buffers._shared is not None
            found.add(id(buffers._shared.memory))
            memory = held_by(os.getpid())[1]
            assert 8 << 20 < memory < 9 << 20, "one copy"
            assert held_by(process_of(manager))[1] <= memory, "the same"
        assert len(found) == 1
        assert files() == before + 2, "the file, and what maps it"
        manager.save(8, {"w": np.zeros(3)}, block=False)
        manager.wait()
        assert held_by(os.getpid())[1] < 1 << 20, "a smaller tree takes less"
        held = held_by(process_of(manager))[0]
        for step in range(9, 20):
            save(manager, step)
        assert held_by(process_of(manager))[0] == held
        for pid in (os.getpid(), process_of(manager)):
            assert "/dev/shm/ckptfmt" not in Path(f"/proc/{pid}/maps").read_text(), "nothing there would outlive them"
    del buffers
    assert files() == before


def test_there_is_no_memory(run: Path) -> None:
    tree = {"w": np.zeros(1 << 20)}
    with CheckpointManager(run, background="process") as manager:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(ckptfmt.StorageError) as caught:
                manager.save(1, tree, block=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (caught.value.code, caught.value.path) == ("no-memory", manager._run.path_of(1))
        for step in (1, 2):
            manager.save(step, tree, block=False)
        manager.wait()
        assert numbers(manager) == [1, 2]


def test_without_memory_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system has none."""
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr("tempfile.tempdir", str(run.parent))
    with CheckpointManager(run, background="process") as manager:
        for step in (1, 2):
            save(manager, step)
        assert [path.name for path in run.parent.iterdir()] == ["run"]
        assert manager.restore()["w"][0] == 2


# ---- the program ends

HEAD = """
import os, signal, sys, threading, time
import numpy as np
from ckptfmt.manager import Background, CheckpointManager

def pid(manager):
    return manager._saver._process._process.pid

tree = {"w": np.arange(1 << 20)}
"""


def program(text: str, run: Path) -> subprocess.Popen[str]:
    """A script without a guard around what it does."""
    script = run.parent / "script.py"
    script.write_text(HEAD + textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", str(script), str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def whole(run: Path) -> list[Any]:
    """The steps of a run, all of which are whole; and what died there goes."""
    manager = CheckpointManager(run)
    assert all(ckptfmt.verify(found.path).ok for found in manager.steps())
    wait_for(lambda: (manager.gc(), leftovers(run))[1] == [])
    return numbers(manager)


@pytest.mark.parametrize(
    ("end", "code", "steps"),
    [
        ("", 0, [1, 2]),
        ("1 / 0", 1, [1, 2]),
        ("sys.exit(3)", 3, [1, 2]),
        ("import atexit; atexit.register(lambda: manager.save(3, tree, block=False))", 0, [1, 2, 3]),
        ("manager.close()", 0, [1, 2]),
        ("os._exit(4)", 4, None),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, None),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, None),
    ],
)
def test_the_program_ends(run: Path, end: str, code: int, steps: list[int] | None) -> None:
    text = f"""
        manager = CheckpointManager(sys.argv[1], background=Background(by="process", max_in_flight=2))
        manager.save(1, tree, block=False)
        manager.save(2, tree, block=False)
        print(pid(manager), flush=True)
        {end}
    """
    with program(text, run) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    wait_for(lambda: not is_there(int(out)), 20)
    found = whole(run)
    assert found == steps if steps is not None else found in ([], [1], [1, 2])
    assert ("Error" in err) == ("1 / 0" in end)


@pytest.mark.parametrize("how", ["SIGKILL", "abort"])
def test_the_program_ends_in_the_middle_of_a_save(run: Path, how: str) -> None:
    text = """
        reached = threading.Event()

        def progress(done, total):
            if manager.latest() is not None:
                reached.set()
                time.sleep(600)

        options = Background(by="process", at_exit="abort")
        manager = CheckpointManager(sys.argv[1], background=options, progress=progress)
        manager.save(1, tree, block=False)
        manager.wait()
        manager.save(2, tree, block=False)
        reached.wait()
        print(pid(manager), flush=True)
    """
    text += "    time.sleep(600)\n" if how == "SIGKILL" else ""
    with program(text, run) as process:
        assert process.stdout is not None
        writer = int(process.stdout.readline())
        if how == "SIGKILL":
            assert is_there(writer)
            process.kill()
        process.communicate(timeout=60)
    assert process.returncode == (-9 if how == "SIGKILL" else 0)
    wait_for(lambda: not is_there(writer), 20)
    assert whole(run) == [1]


def test_a_fork_that_has_its_socket_does_not_keep_it(run: Path) -> None:
    """One that Python does not know of."""
    text = """
        import ctypes

        manager = CheckpointManager(sys.argv[1], background="process")
        manager.save(1, tree, block=False)
        manager.wait()
        child = ctypes.CDLL(None).fork()
        if not child:
            time.sleep(600)
        print(pid(manager), child, flush=True)
        time.sleep(600)
    """
    with program(text, run) as process:
        assert process.stdout is not None
        writer, child = map(int, process.stdout.readline().split())
        process.kill()
        try:
            wait_for(lambda: not is_there(writer), 20)
        finally:
            os.kill(child, signal.SIGKILL)
    assert whole(run) == [1]


def test_in_a_fork(run: Path) -> None:
    """The saves in flight are the parent's, and so are its memory and its process; the child has its own."""
    text = """
        manager = CheckpointManager(sys.argv[1], background="process")
        for step in (1, 2):
            manager.save(step, tree, block=False)
            manager.wait()
        manager.save(3, tree, block=False)
        child = os.fork()
        if not child:
            manager.wait()
            tree["w"][:] = -1
            manager.save(10, tree, block=False, overwrite=True)
            manager.wait()
            print(pid(manager), flush=True)
            manager.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        manager.wait()
        manager.save(11, tree, block=False)
        manager.wait()
        print(pid(manager), flush=True)
    """
    with program(text, run) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    one, other = map(int, out.split())
    assert one != other
    assert whole(run) == [1, 2, 3, 10, 11]
    manager = CheckpointManager(run)
    assert [int(manager.restore(step)["w"][1]) for step in (3, 10, 11)] == [1, -1, 1]


def test_interrupts_of_a_terminal(run: Path) -> None:
    """Ctrl-C comes to all processes of a terminal; the save is whole."""
    text = """
        manager = CheckpointManager(sys.argv[1], background="process")
        try:
            print(pid(manager), flush=True)
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            manager.save(1, tree, block=False)
            os.kill(pid(manager), signal.SIGINT)
            manager.close()
            print(len(manager.steps()))
    """
    with program(text, run) as process:
        assert process.stdout is not None
        writer = int(process.stdout.readline())
        for one in (writer, process.pid):
            os.kill(one, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("1\n", "", 0)


def test_dtypes_of_few_bits(run: Path) -> None:
    tree = {name: np.arange(6).astype(getattr(ml_dtypes, name)) for name in ("int4", "uint2", "float8_e4m3fn")}
    with CheckpointManager(run, background="process") as manager:
        manager.save(1, tree, block=False)
        manager.wait()
        assert equal_trees(manager.restore(), tree)
