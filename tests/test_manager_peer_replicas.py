"""Replicas that a group holds together: each rank its part, and those of others; brought together after any one
machine was lost, and never wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
from damage import leftovers, use_disk

import ckptfmt
from ckptfmt.manager import CheckpointManager, Memory, Peers, ReplicaWarning, open_run
from ckptfmt.manager.peer_replicas import keepers_of, pieces_of
from ckptfmt.manager.replica_folder import MARK
from ckptfmt.parallel.courier import PIECE, Parcel, courier_of, pieces
from ckptfmt.parallel.mail import StoreCourier
from ckptfmt.testing import equal_trees

pytestmark = pytest.mark.filterwarnings("default::ckptfmt.manager.ReplicaWarning")  # also in threads
Outcome = tuple[int, bool, str]  # the step, whether it is what was saved, and from where


def together(path: Path, size: int, work: Callable[[Any], Any]) -> list[Any]:
    """What `work` gives on each rank, a thread each; raises what one raised."""
    mail = path / "mail"
    mail.mkdir(exist_ok=True)
    found: list[Any] = [None] * size
    failures: list[BaseException] = []

    def rank(number: int) -> None:
        try:
            with ckptfmt.FileCoordinator(mail, number, size, timeout=60) as coordinator:
                found[number] = work(coordinator)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found


def tree(step: int) -> dict[str, Any]:
    return {"step": step, "w": np.arange(600, dtype=np.float32) + step, "v": np.full((6, 50), step, np.int16)}


def held(step: int, coordinator: Any) -> dict[str, Any]:
    """What a rank holds of a tree."""
    whole = tree(step)
    return {**whole, "w": ranks.shard(whole["w"], coordinator.rank, coordinator.size)}


def manager(path: Path, coordinator: Any, *, copies: int = 1, machines: Any = None, **options: Any) -> Any:
    """Each rank is a machine, or shares that of others."""
    machine = coordinator.rank if machines is None else machines[coordinator.rank]
    there = Peers(path / f"memory-{machine}", copies=copies, at_close="keep")
    return CheckpointManager(path / "run", replicas=there, coordinator=coordinator, durable=False, **options)


def save(path: Path, size: int, *steps: int, **options: Any) -> None:
    def work(coordinator: Any) -> None:
        with manager(path, coordinator, **options) as run:
            for step in steps:
                run.save(step, held(step, coordinator), block=step % 2 == 0)

    together(path, size, work)


def restore(path: Path, size: int, **options: Any) -> list[Outcome]:
    def work(coordinator: Any) -> Outcome:
        run = manager(path, coordinator, **options)
        found = run.restore()
        return found["step"], equal_trees(found, tree(found["step"])), Path(run.restored_from).parent.name

    return together(path, size, work)


def lose(path: Path, *machines: int) -> None:
    for machine in machines:
        shutil.rmtree(path / f"memory-{machine}")


def forget(path: Path, step: int) -> None:
    """As if the process had ended before the step was committed."""
    shutil.rmtree(path / "run" / f"step-{step:010d}.ckpt")


def packs(path: Path, machine: int, step: int) -> list[Path]:
    return sorted((path / f"memory-{machine}").glob(f"rank-*/step-{step:010d}.ckpt/packs/*"))


def from_memory(size: int, step: int) -> list[Outcome]:
    return [(step, True, f"memory-{machine}") for machine in range(size)]


# ---- whole, and after a loss


@pytest.mark.parametrize("paged", [None, True])
def test_each_keeps_its_part_and_that_of_another(tmp_path: Path, paged: bool | None) -> None:
    save(tmp_path, 3, 1, 2, paged=paged)
    whole = {entry.name for entry in (tmp_path / "run" / "step-0000000002.ckpt" / "packs").iterdir()}
    names = [{pack.name for pack in packs(tmp_path, machine, 2)} for machine in range(3)]
    assert len(whole) == 3
    assert sorted(map(len, names)) == [2, 2, 2]
    assert set.union(*names) == whole
    for machine in range(3):
        (folder,) = [entry for entry in (tmp_path / f"memory-{machine}").iterdir() if entry.is_dir()]
        assert sorted(entry.name for entry in folder.iterdir()) == [MARK, "step-0000000002.ckpt"]
        record = (folder / "step-0000000002.ckpt" / "COMMIT").read_bytes()
        assert record == (tmp_path / "run" / "step-0000000002.ckpt" / "COMMIT").read_bytes()
        assert leftovers(folder) == []
    forget(tmp_path, 2)
    lose(tmp_path, 1)
    assert restore(tmp_path, 3) == from_memory(3, 2)


@pytest.mark.parametrize("lost", [(), (0,), (1,), (2,)])
@pytest.mark.parametrize("size", [2, 3])
def test_any_one_machine_is_lost(tmp_path: Path, lost: tuple[int, ...], size: int) -> None:
    """The newest step, which only memory has, is restored on the same number of machines, whole and from memory; and
    what the group does next is saved as ever."""
    save(tmp_path, 3, 1, 2)
    forget(tmp_path, 2)
    lose(tmp_path, *lost)
    if size == 2 and 2 not in lost:
        shutil.move(tmp_path / "memory-2", tmp_path / "away")  # the third machine is not there: as good as lost
        if lost:
            assert {step for step, *_ in restore(tmp_path, size)} == {1}
            return
    assert restore(tmp_path, size) == from_memory(size, 2)
    save(tmp_path, size, 3, 4)
    assert restore(tmp_path, size) == from_memory(size, 4)


def test_what_the_disk_has_comes_from_memory(tmp_path: Path) -> None:
    save(tmp_path, 2, 1)
    lose(tmp_path, 0)
    assert restore(tmp_path, 2) == from_memory(2, 1)
    reader = open_run(tmp_path / "run")
    assert reader.restore()["step"] == 1


def test_ranks_that_share_machines(tmp_path: Path) -> None:
    """A machine brings a step together once, for all of its ranks; after the loss of a machine, too."""
    machines = [0, 0, 1, 1]
    save(tmp_path, 4, 1, 2, machines=machines)
    assert [len(packs(tmp_path, machine, 2)) for machine in (0, 1)] == [4, 4]
    forget(tmp_path, 2)
    lose(tmp_path, 1)
    found = restore(tmp_path, 4, machines=machines)
    assert found == [(2, True, f"memory-{machine}") for machine in machines]
    save(tmp_path, 3, 3, machines=machines)
    assert not (tmp_path / "memory-1" / "rank-00003").exists(), "of a rank that is no more"


def test_a_rank_that_has_another_step_of_that_number(tmp_path: Path) -> None:
    """As if the process had ended between two ranks' replicas of a step that is saved anew: what is of the former one
    is not mixed in."""
    machines = [0, 0, 1, 1]
    save(tmp_path, 4, 1, 2, machines=machines)
    former = tmp_path / "memory-0" / "rank-00001"
    shutil.copytree(former, tmp_path / "former")
    forget(tmp_path, 2)

    def anew(coordinator: Any) -> None:
        with manager(tmp_path, coordinator, machines=machines) as run:
            run.save(2, {**held(2, coordinator), "v": np.ones((6, 50), np.int16)})

    together(tmp_path, 4, anew)
    shutil.rmtree(former)
    shutil.move(tmp_path / "former", former)
    forget(tmp_path, 2)

    def load(coordinator: Any) -> Any:
        run = manager(tmp_path, coordinator, machines=machines)
        return run.restore(), Path(run.restored_from).parent.name

    for (found, place), machine in zip(together(tmp_path, 4, load), machines, strict=True):
        assert equal_trees(found, {**tree(2), "v": np.ones((6, 50), np.int16)})
        assert place == f"memory-{machine}"


def test_more_copies(tmp_path: Path) -> None:
    save(tmp_path, 3, 1, 2, copies=2)
    forget(tmp_path, 2)
    lose(tmp_path, 0, 2)
    assert restore(tmp_path, 3) == from_memory(3, 2)


def test_too_much_is_lost(tmp_path: Path) -> None:
    """The step before, which the disk has, is taken."""
    save(tmp_path, 3, 1, 2)
    forget(tmp_path, 2)
    lose(tmp_path, 0, 1)
    assert restore(tmp_path, 3) == [(1, True, "run")] * 3


def test_one_machine_keeps_nothing_twice(tmp_path: Path) -> None:
    save(tmp_path, 2, 1, machines=[0, 0])
    assert len(packs(tmp_path, 0, 1)) == 2
    assert restore(tmp_path, 2, machines=[0, 0]) == [(1, True, "memory-0")] * 2


# ---- damage


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_damaged_part(tmp_path: Path) -> None:
    """The other copy of it is taken; where both are damaged, the disk."""
    save(tmp_path, 2, 1)
    name = packs(tmp_path, 0, 1)[0].name
    one, other = (next(pack for pack in packs(tmp_path, machine, 1) if pack.name == name) for machine in (0, 1))
    flip(one)
    assert restore(tmp_path, 2) == from_memory(2, 1)
    for machine in (0, 1):
        shutil.rmtree(tmp_path / f"memory-{machine}" / "step-0000000001.ckpt")
    flip(other)
    assert restore(tmp_path, 2) == [(1, True, "run")] * 2


@pytest.mark.parametrize("name", ["manifest.msgpack", "COMMIT", "parts/00000.msgpack", "pages.bin"])
def test_damage_beside_the_packs(tmp_path: Path, name: str) -> None:
    save(tmp_path, 2, 1, paged=name == "pages.bin")
    (file,) = (tmp_path / "memory-0").glob(f"rank-*/*/{name}")
    flip(file)
    assert {(step, is_right) for step, is_right, _ in restore(tmp_path, 2)} == {(1, True)}


@pytest.mark.parametrize("name", ["manifest.msgpack", "pages.bin"])
@pytest.mark.parametrize("machine", range(3))
def test_what_is_damaged_of_any_machine_is_as_good_as_lost(tmp_path: Path, machine: int, name: str) -> None:
    """Also if nothing of a step can be told on the machine that speaks last."""
    save(tmp_path, 3, 1, 2, paged=True)
    forget(tmp_path, 2)
    (file,) = (tmp_path / f"memory-{machine}").glob(f"rank-*/step-0000000002.ckpt/{name}")
    file.write_bytes(file.read_bytes()[:-1])
    assert restore(tmp_path, 3) == from_memory(3, 2)


def test_damage_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is checked as it arrives: such a step has no replica, and is saved all the same."""
    real = StoreCourier.carry

    def carry(self: StoreCourier, sent: Sequence[Parcel], received: Sequence[Parcel]) -> None:
        real(self, sent, received)
        for parcel in received:
            parcel.data[len(parcel.data) // 2] ^= 1

    save(tmp_path, 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(StoreCourier, "carry", carry)
        with pytest.warns(ReplicaWarning, match=r"step 2 has no replica.*not come whole.*\[block-digest\]"):
            save(tmp_path, 2, 2)
        assert restore(tmp_path, 2) == [(2, True, "run")] * 2
    save(tmp_path, 2, 3)
    assert restore(tmp_path, 2) == from_memory(2, 3)


def test_a_full_memory_of_one(tmp_path: Path) -> None:
    """All go without a replica, and save."""

    def refuse(call: str, arguments: Any) -> None:
        if call == "allocate" and "/memory-1/" in os.readlink(f"/proc/self/fd/{arguments[0]}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path, 2, 1)
    patch = use_disk(refuse)
    try:
        with pytest.warns(ReplicaWarning, match=r"step 2 has no replica"):
            save(tmp_path, 2, 2)
    finally:
        patch.undo()
    assert restore(tmp_path, 2) == [(2, True, "run")] * 2
    save(tmp_path, 2, 3)
    assert restore(tmp_path, 2) == from_memory(2, 3)
    assert all(leftovers(folder) == [] for folder in tmp_path.glob("memory-*/rank-*"))


# ---- processes that are killed, over other engines

PROGRAM = """
import os, signal, sys
import numpy as np
import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.manager import CheckpointManager, Peers

engine, folder, act = sys.argv[1:4]
if engine == "mpi":
    from mpi4py import MPI
    coordinator = ckptfmt.MPICoordinator(MPI.COMM_WORLD)
else:
    import torch.distributed as dist
    from ckptfmt_torch import TorchCoordinator
    rank, size = map(int, sys.argv[4:])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{act}", rank=rank, world_size=size)
    coordinator = TorchCoordinator(timeout=60)
rank = coordinator.rank


def tree(step):
    whole = np.arange(2_000_000, dtype=np.float32) + step  # more than gloo sends at once without waiting
    mine = slice(rank * 1_000_000, (rank + 1) * 1_000_000)
    return {"step": step, "w": Sharded(whole.shape, whole.dtype, (Shard((mine.start,), whole[mine]),))}, whole


replicas = Peers(f"{folder}/memory-{rank}", at_close="keep")
run = CheckpointManager(f"{folder}/run", replicas=replicas, coordinator=coordinator)
if act == "save":
    run.save(1, tree(1)[0], block=False)
    run.wait()
    real = run._replicas.write

    def write(*arguments):
        real(*arguments)
        if rank == 1 and engine != "mpi":
            os.kill(os.getpid(), signal.SIGKILL)

    run._replicas.write = write
    run.save(2, tree(2)[0])
    run.close()
else:
    found = run.restore()
    assert np.array_equal(found["w"], tree(found["step"])[1])
    sys.stdout.write(f"{found['step']} {os.path.basename(os.path.dirname(run.restored_from))}\\n")
    run.close()
"""


def test_killed_over_gloo(tmp_path: Path) -> None:
    """One of two processes is killed when the replica of a step is there, and the step is not; its memory is lost."""
    pytest.importorskip("torch")

    def begun(act: str) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-c", PROGRAM, "torch", str(tmp_path), act]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return [subprocess.Popen([*command, str(rank), "2"], **pipes) for rank in range(2)]

    saving = begun("save")
    ended = [process.communicate(timeout=120) for process in saving]
    assert saving[1].returncode == -signal.SIGKILL, ended
    assert "rank-lost" in ended[0][1]
    assert not (tmp_path / "run" / "step-0000000002.ckpt").exists()
    lose(tmp_path, 1)
    ended = [process.communicate(timeout=120) for process in begun("restore")]
    assert [out.split() for out, _ in ended] == [["2", "memory-0"], ["2", "memory-1"]], ended


def test_over_mpi(tmp_path: Path) -> None:
    """MPI ends with the first process that does, so a machine is lost in between."""
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    check = subprocess.run([sys.executable, "-c", "from mpi4py import MPI"], capture_output=True, text=True)
    if mpiexec is None or check.returncode:
        pytest.skip("no mpiexec, or no MPI that mpi4py finds")
    command = [mpiexec, "-n", "2", sys.executable, "-c", PROGRAM, "mpi", str(tmp_path)]
    done = subprocess.run([*command, "save"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    forget(tmp_path, 2)
    lose(tmp_path, 0)
    done = subprocess.run([*command, "restore"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["2 memory-0", "2 memory-1"]


def test_jax_carries_none() -> None:
    pytest.importorskip("jax")
    from ckptfmt_jax.coordinator import JaxCoordinator

    assert not hasattr(JaxCoordinator, "courier"), "which `courier_of` refuses by name"


# ---- of another run or time


def test_of_another_run(tmp_path: Path) -> None:
    save(tmp_path, 2, 1)
    shutil.move(tmp_path / "run", tmp_path / "other")
    assert together(tmp_path, 2, lambda coordinator: manager(tmp_path, coordinator).latest()) == [None, None]

    def other(coordinator: Any) -> str:
        there = Peers(tmp_path / f"memory-{coordinator.rank}")
        try:
            CheckpointManager(tmp_path / "other", replicas=there, coordinator=coordinator)
        except ckptfmt.InputError as error:
            return error.code
        return ""

    assert together(tmp_path, 2, other) == ["bad-option"] * 2


def test_a_stale_step(tmp_path: Path) -> None:
    """The group went on elsewhere."""
    save(tmp_path, 2, 1, 5)
    forget(tmp_path, 5)

    def elsewhere(coordinator: Any) -> None:
        with CheckpointManager(tmp_path / "run", coordinator=coordinator, durable=False) as run:
            run.save(2, held(2, coordinator))

    together(tmp_path, 2, elsewhere)
    assert restore(tmp_path, 2) == [(2, True, "run")] * 2


# ---- the ends


def test_what_stays(tmp_path: Path) -> None:
    def work(coordinator: Any) -> None:
        there = Peers(tmp_path / f"memory-{coordinator.rank}")
        with CheckpointManager(tmp_path / "run", replicas=there, coordinator=coordinator, durable=False) as run:
            run.save(1, held(1, coordinator))

    together(tmp_path, 2, work)
    assert not list(tmp_path.glob("memory-*"))


def test_who_has_no_peers(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="for processes that save together"):
        CheckpointManager(tmp_path / "run", replicas=Peers(tmp_path / "memory"))
    for options in ({"copies": 0}, {"keep": 0}, {"copies": True}, {"at_close": "leave"}):
        with pytest.raises(ckptfmt.InputError) as caught:
            Peers(**options)  # type: ignore[arg-type]
        assert caught.value.code == "bad-option"


def test_an_engine_without_room(tmp_path: Path) -> None:
    class Small:
        rank, size = 0, 2

    with pytest.raises(ckptfmt.InputError, match="Small has only short messages"):
        courier_of(Small())  # type: ignore[arg-type]


def test_memory_of_several_machines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptfmt.manager import replicas

    monkeypatch.setattr(replicas, "this_memory", lambda: [threading.get_ident(), 0])

    def work(coordinator: Any) -> str:
        try:
            CheckpointManager(tmp_path / "run", replicas=Memory(tmp_path / "memory"), coordinator=coordinator)
        except ckptfmt.InputError as error:
            return error.code
        return ""

    assert together(tmp_path, 2, work) == ["bad-option"] * 2


# ---- who keeps what, and what carries it


@pytest.mark.parametrize(
    ("machines", "copies", "kept"),
    [
        ("ab", 1, [[1], [0]]),
        ("abc", 1, [[1], [2], [0]]),
        ("abc", 2, [[1, 2], [2, 0], [0, 1]]),
        ("abc", 9, [[1, 2], [2, 0], [0, 1]]),
        ("aabb", 1, [[2], [3], [0], [1]]),
        ("aab", 1, [[2], [2], [0]]),
        ("abab", 1, [[1], [0], [3], [2]]),
        ("aaa", 1, [[], [], []]),
    ],
)
def test_who_keeps_what(machines: str, copies: int, kept: list[list[int]]) -> None:
    assert keepers_of(list(machines), copies) == kept


def test_a_courier_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parcels of any size, in the order in which they were given, both ways at once."""
    monkeypatch.setattr("ckptfmt.parallel.courier.PIECE", 1000)
    data = [[os.urandom(size) for size in (0, 1, 999, 1000, 1001, 5000)] for _ in range(3)]

    def work(coordinator: Any) -> bool:
        courier, own = courier_of(coordinator), coordinator.rank
        right, left = (own + 1) % 3, (own - 1) % 3
        for _ in range(2):
            buffers = [bytearray(len(one)) for one in data[left]]
            courier.carry(
                [Parcel(right, memoryview(one)) for one in data[own]],
                [Parcel(left, memoryview(one)) for one in buffers],
            )
            if buffers != data[left]:
                return False
        return True

    assert together(tmp_path, 3, work) == [True] * 3


def test_pieces() -> None:
    assert PIECE < 1 << 31, "which MPI counts in"
    parcel = Parcel(1, memoryview(bytes(range(10))))
    assert pieces([parcel, Parcel(2, memoryview(b""))]) == [parcel]


def test_pieces_of_a_part(tmp_path: Path) -> None:
    save(tmp_path, 2, 1)
    (path,) = (tmp_path / "memory-0").glob("rank-*/*.ckpt")
    found = pieces_of(str(path))
    assert found.needed >= {"manifest.msgpack", "COMMIT", "packs/00000.zip", "parts/00000.msgpack"}
    assert found.needed == set(found.places)
    (path / "packs" / "00000.zip").unlink()
    assert found.needed - set(pieces_of(str(path)).places) == {"packs/00000.zip"}
    assert pieces_of(str(tmp_path)) == ({}, set())
