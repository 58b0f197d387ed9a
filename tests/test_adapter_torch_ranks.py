"""Many ranks over gloo: DTensors and FSDP2 state, through DCP and through `ckptfmt_torch.save`, at one number of ranks
and read at another. Each rank is a process of its own: a fork of one that runs this file and has imported torch."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import inside
from torch_ranks import launch, main

import ckptfmt

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

SIZES = (1, 2, 3, 4)
BLOCK = 4 << 20
BIG = (1024, 4096)  # float32: 16 MiB, cut into four of the blocks that are read at least


def expected(name: str, shape: tuple[int, ...]) -> Any:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) + len(name)


SHAPES = {
    "even": (8, 3),
    "uneven": (10, 3),
    "few": (2, 3),
    "columns": (3, 8),
    "copied": (5,),
    "mesh": (6, 7),
    "nested": (9, 2),
    "mixed": (10, 3),
    "strided": (13, 2),
    "big": BIG,
}


def test_saved_at_any_number_of_ranks_and_read_at_any_other(tmp_path: Path) -> None:
    results = launch(__file__, "matrix", 4, tmp_path)
    assert [status for status, _ in results] == [0] * 4, results
    for size in SIZES:
        assert ckptfmt.verify(tmp_path / f"dcp-{size}").ok
        found = ckptfmt.load(tmp_path / f"dcp-{size}")
        for name, shape in SHAPES.items():
            assert np.array_equal(found["tensors"][name], expected(name, shape)), (size, name)
        assert found["plain"].tolist() == [1, 2, 3]
        assert found["lr"] == 0.5
        with np.load(tmp_path / f"model-{size}.npz") as model:
            assert set(model) == set(found["model"])
            assert all(np.array_equal(array, found["model"][name]) for name, array in model.items())
        assert found["optimizer"]["state"]["0.weight"]["exp_avg"].shape == (7, 5)
    own = ckptfmt.load(tmp_path / "own-4")
    for name, shape in SHAPES.items():
        assert np.array_equal(own["tensors"][name], expected(name, shape)), name
    with ckptfmt.open(tmp_path / "dcp-4") as checkpoint:
        assert checkpoint["tensors/big"].chunks == 4
        assert len(inside(checkpoint).manifest.parts) == 4
    assert not [path for path in tmp_path.iterdir() if "ckptfmt-tmp" in path.name]


def test_a_rank_that_fails_fails_all_and_nothing_is_committed(tmp_path: Path) -> None:
    results = launch(__file__, "failure", 2, tmp_path)
    assert [status for status, _ in results] == [0] * 2, results
    assert ckptfmt.load(tmp_path / "c")["w"].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == ["c"]


def test_a_rank_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    results = launch(__file__, "killed", 2, tmp_path)
    assert results[1][0] == -signal.SIGKILL
    assert results[0][0] == 0, results[0][1]
    assert ckptfmt.load(tmp_path / "c")["w"].tolist() == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == ["c"]


def test_a_coordinator_needs_a_process_group() -> None:
    import ckptfmt_torch
    from ckptfmt_torch.coordinator import coordinator

    with pytest.raises(ckptfmt.InputError, match="init_process_group") as caught:
        ckptfmt_torch.TorchCoordinator()
    assert caught.value.code == "bad-option"
    assert coordinator() is None


# ---- what a rank does


def tensors(mesh_of: Any, size: int, blank: bool, other: bool) -> dict[str, Any]:
    """DTensors over `size` ranks; with `other`, in other placements than those that are saved."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.placement_types import _StridedShard

    rows, columns, copies = Shard(0), Shard(1), Replicate()
    flat, square = mesh_of((size,)), mesh_of((2, 2) if size == 4 else (1, size))
    saved: dict[str, Any] = {
        "even": (flat, [rows]),
        "uneven": (flat, [rows]),
        "few": (flat, [rows]),
        "columns": (flat, [columns]),
        "copied": (flat, [copies]),
        "mesh": (square, [rows, columns]),
        "nested": (square, [rows, rows]),
        "mixed": (square, [copies, rows]),
        "strided": (square, [_StridedShard(0, split_factor=square.size(1)), rows]),
        "big": (flat, [rows]),
    }
    loaded = {**saved, "even": (flat, [columns]), "copied": (flat, [rows]), "mesh": (square, [columns, copies])}
    loaded |= {"mixed": (square, [columns, rows]), "columns": (flat, [copies])}
    made = {}
    for name, (mesh, placements) in (loaded if other else saved).items():
        value = torch.from_numpy(expected(name, SHAPES[name]))
        made[name] = distribute_tensor(
            torch.zeros_like(value) if blank else value, mesh, placements, src_data_rank=None
        )
    return made


def check_local(found: dict[str, Any]) -> None:
    from ckptfmt_torch.dtensor import local_parts

    for name, value in found.items():
        whole = torch.from_numpy(expected(name, SHAPES[name]))
        for start, part in local_parts(value):
            region = tuple(slice(low, low + n) for low, n in zip(start, part.shape, strict=True))
            assert torch.equal(part, whole[region]), (name, value.placements)


def training(mesh: Any, seed: int) -> tuple[Any, Any]:
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    return model, optimizer


def matrix(folder: Path, rank: int) -> None:
    import ckptfmt_torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from ckptfmt_torch.coordinator import coordinator
    from ckptfmt_torch.dcp import StorageReader, StorageWriter
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.device_mesh import DeviceMesh

    def mesh_of(shape: tuple[int, ...]) -> Any:
        return DeviceMesh("cpu", torch.arange(int(np.prod(shape))).reshape(shape))

    groups = {size: dist.new_group(list(range(size))) for size in SIZES}
    saved, blank = ({n: tensors(mesh_of, n, blank=b, other=b) for n in SIZES} for b in (False, True))
    meshes = {size: mesh_of((size,)) for size in SIZES}
    for size in SIZES:
        if rank < size:
            model, optimizer = get_state_dict(*training(meshes[size], seed=1))
            full = {name: value.full_tensor().numpy() for name, value in model.items()}
            if rank == 0:
                np.savez(folder / f"model-{size}.npz", **full)
            state = {"tensors": saved[size], "model": model, "optimizer": optimizer, "lr": 0.5}
            state["plain"] = torch.tensor([1, 2, 3])
            writer = StorageWriter(folder / f"dcp-{size}", durable=False)
            dcp.save(state, storage_writer=writer, process_group=groups[size])
        dist.barrier()
    for size in SIZES:  # that read
        for count in SIZES if rank < size else ():  # that saved
            model, optimizer = get_state_dict(*training(meshes[size], seed=2))
            target = {"tensors": blank[size], "model": model, "optimizer": optimizer, "lr": 0.0}
            reader = StorageReader(folder / f"dcp-{count}")
            for value in blank[size].values():
                value.to_local().zero_()
            dcp.load(target, storage_reader=reader, process_group=groups[size])
            check_local(target["tensors"])
            assert target["lr"] == 0.5
            arrays = ckptfmt.load(folder / f"dcp-{count}")
            for name, value in model.items():
                assert np.array_equal(value.full_tensor().numpy(), arrays["model"][name])
            # of the big tensor, which is most, just the blocks that lie here, and the padding of an uneven grid
            blocks = -(-4 // size) if count != 3 else 4
            assert reader.bytes_read < blocks * BLOCK + 50_000, (reader.bytes_read, size, count)
        dist.barrier()

    # which all ranks do by themselves
    ckptfmt_torch.save(folder / "own-4", {"tensors": saved[4]}, durable=False, paged=True)
    for value in blank[4].values():
        value.to_local().zero_()
    found = ckptfmt_torch.load(folder / "own-4", into={"tensors": blank[4]})
    assert all(found["tensors"][name] is value for name, value in blank[4].items())
    check_local(found["tensors"])
    check_local(ckptfmt.load(folder / "own-4", like={"tensors": blank[4]})["tensors"])
    other = tensors(mesh_of, 4, blank=True, other=False)
    check_local(ckptfmt.load(folder / "dcp-3", into={"tensors": other}, select="tensors/**")["tensors"])

    if rank < 2:  # a coordinator of a smaller group, made by hand
        with ckptfmt_torch.TorchCoordinator(process_group=groups[2], timeout=60) as pair:
            assert (pair.rank, pair.size, pair.timeout) == (rank, 2, 60)
            ckptfmt_torch.save(
                folder / "pair", {str(rank): torch.ones(rank)}, coordinator=pair, durable=False, paged=True
            )
        assert list(ckptfmt.load(folder / "pair")) == ["0", "1"]
        assert (folder / "pair/pages.bin").exists()
    else:
        with pytest.raises(ckptfmt.InputError, match="not of the process group"):
            ckptfmt_torch.TorchCoordinator(process_group=groups[2])
    assert coordinator() is coordinator(), "those that are made by themselves are one"

    partial = torch.distributed.tensor.DTensor.from_local(
        torch.ones(2), meshes[4], [torch.distributed.tensor.Partial()], run_check=False
    )
    with pytest.raises(ckptfmt.InputError, match="partial sums"):
        ckptfmt_torch.save(folder / "partial", {"sum": partial}, coordinator=None)
    with pytest.raises(ckptfmt.InputError, match="shards-missing"):
        ckptfmt_torch.save(folder / "alone", saved[4]["even"], coordinator=None)


def _attempt(folder: Path, rank: int, fail: Any) -> None:
    """Save well, then again with a planner that fails on rank 1."""
    import torch.distributed.checkpoint as dcp
    from ckptfmt_torch.dcp import StorageWriter
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    class Planner(dcp.DefaultSavePlanner):  # type: ignore[misc,name-defined]
        def resolve_data(self, item: Any) -> Any:
            if rank == 1:
                fail()
            return super().resolve_data(item)

    value = distribute_tensor(torch.arange(4.0), init_device_mesh("cpu", (2,)), [Shard(0)], src_data_rank=None)
    dcp.save({"w": value}, storage_writer=StorageWriter(folder / "c", durable=False))
    writer = StorageWriter(folder / "c", overwrite=True, durable=False)
    with pytest.raises((dcp.CheckpointException, RuntimeError), match=r"rank 1 is gone|\[RANK 1\]|closed|reset|Socket"):
        dcp.save({"w": value * 2}, storage_writer=writer, planner=Planner())


def failure(folder: Path, rank: int) -> None:
    def fail() -> None:
        raise OSError("the disk of rank 1 is gone")

    _attempt(folder, rank, fail)


def killed(folder: Path, rank: int) -> None:
    _attempt(folder, rank, lambda: os.kill(os.getpid(), signal.SIGKILL))


IMPORTED = ("torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor", "ckptfmt_torch.dcp")


CASES = {"matrix": matrix, "failure": failure, "killed": killed}

if __name__ == "__main__":
    main(CASES, IMPORTED, alone={"killed"})
