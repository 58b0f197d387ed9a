"""Many processes save one checkpoint, and others load it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import flipped, zones
from inside import inside
from ranks import SIZES, cut, run, save_varied, shard, tree_of, whole_tree

import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.layouts import packed
from ckptfmt.parallel import plan as plans
from ckptfmt.testing import assert_same_tree, equal_trees


@pytest.mark.parametrize("size", SIZES)
def test_what_all_save_is_what_is_loaded(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.ckpt"
    reports = run(save_varied, tmp_path, size)
    assert_same_tree(ckptfmt.load(path), whole_tree(size))
    assert equal_trees(ckptfmt.load(path, mmap=True), whole_tree(size))
    assert ckptfmt.verify(path).ok
    with ckptfmt.open(path) as checkpoint:
        assert equal_trees(checkpoint.metadata, {"step": 7, "nan": float("nan")})
        assert checkpoint.schema == ckptfmt.Schema("model", "1")
        assert checkpoint["zipped"].codec == "zstd"
        assert checkpoint["rows"].chunks == size
        numbers = [node[1] for node in tensor_nodes(inside(checkpoint).manifest.tree)]
        assert [n for at, n in enumerate(numbers) if n not in numbers[:at]] == [*range(len(checkpoint))]  # [TREE-016]
    files = [file for file in path.rglob("*") if file.is_file()]
    for report in reports:
        assert (report.path, report.layout, report.tensors) == (str(path), "packed", 12 + size)
        assert report.bytes == sum(file.stat().st_size for file in files)
        assert report.manifest_sha256 in (path / "COMMIT").read_text()
    assert {file.parent.name for file in files} == {"x.ckpt", "packs", "parts"}
    assert set(tmp_path.iterdir()) == {path, tmp_path / "mail"}
    assert list((tmp_path / "mail").iterdir()) == []


def tensor_nodes(node: Any) -> Iterator[Any]:
    if type(node) is list:
        if node[0] == "tensor":
            yield node
        for item in node:
            yield from tensor_nodes(item)


def test_the_bytes_are_the_same_again(tmp_path: Path) -> None:  # [MAN-009]
    found = []
    for name in ("one", "two"):
        run(save_varied, tmp_path / name, 3)
        path = tmp_path / name / "x.ckpt"
        found.append({file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()})
    assert found[0] == found[1]


def test_one_process_without_a_coordinator_gives_the_same_values(tmp_path: Path) -> None:
    """And one rank with a coordinator the same bytes as none."""
    tree = whole_tree(1)
    with ckptfmt.FileCoordinator(tmp_path, 0, 1) as coordinator:
        together = ckptfmt.save(tmp_path / "a", tree, coordinator=coordinator)
    alone = ckptfmt.save(tmp_path / "b", tree, layout="packed")
    assert (together.bytes, together.manifest_sha256) == (alone.bytes, alone.manifest_sha256)
    for file in (tmp_path / "a").rglob("*"):
        other = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert file.is_dir() or file.read_bytes() == other.read_bytes()


def save_mesh(folder: Path, coordinator: Any) -> Any:
    """A 2 × 2 mesh: sharded over both axes, over one and replicated over the other, and many packs for each rank."""
    packed.PACK_BYTES, plans.COMPRESSED_CHUNK = 500, 100
    row, column = divmod(coordinator.rank, 2)
    array = mesh_array()
    rows, columns = cut(13, row, 2), cut(9, column, 2)
    tree = {
        "both": Sharded(array.shape, array.dtype, (Shard((rows.start, columns.start), array[rows, columns]),)),
        "one": shard(array, row, 2),
        "other": shard(array, column, 2, axis=1),
        "zipped": shard(array, coordinator.rank, 4),
        "none": array,
    }
    return ckptfmt.save(folder / "x.ckpt", tree, compression={"zipped": "zstd"}, coordinator=coordinator)


def mesh_array() -> Any:
    return np.arange(13 * 9, dtype=np.float32).reshape(13, 9)


def test_a_mesh(tmp_path: Path) -> None:
    run(save_mesh, tmp_path, 4)
    tree = ckptfmt.load(tmp_path / "x.ckpt")
    assert_same_tree(tree, {name: mesh_array() for name in ("both", "one", "other", "zipped", "none")})
    assert ckptfmt.verify(tmp_path / "x.ckpt").ok
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert [checkpoint[name].chunks for name in ("both", "one", "other", "none")] == [4, 2, 2, 1]
        assert checkpoint["zipped"].chunks > 4
        assert len(inside(checkpoint).manifest.parts) > 4
        assert np.array_equal(checkpoint["both"][5:9, 3:6], mesh_array()[5:9, 3:6])


def save_twice(folder: Path, coordinator: Any) -> Any:
    """One save after another, the second of another tree; and a failed one between."""
    first = ckptfmt.save(folder / "x.ckpt", tree_of(coordinator.rank, coordinator.size), coordinator=coordinator)
    with pytest.raises(ckptfmt.ExistsError) as caught:
        ckptfmt.save(folder / "x.ckpt", {"step": 2}, coordinator=coordinator)
    assert caught.value.code == "exists"
    second = {"step": 2, "x": shard(np.arange(8), coordinator.rank, coordinator.size)}
    ckptfmt.save(folder / "x.ckpt", second, coordinator=coordinator, overwrite=True)
    ckptfmt.save(folder / "y.ckpt", second, coordinator=coordinator, durable=False)
    return first.tensors


def test_saves_one_after_another(tmp_path: Path) -> None:
    assert run(save_twice, tmp_path, 3) == [15, 15, 15]
    for name in ("x.ckpt", "y.ckpt"):
        assert_same_tree(ckptfmt.load(tmp_path / name), {"step": 2, "x": np.arange(8)})
        assert ckptfmt.verify(tmp_path / name).ok
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mail", "x.ckpt", "y.ckpt"]


def test_damage_is_of_one_rank_s_tensors(tmp_path: Path) -> None:
    """A lost pack loses what its rank wrote. [READ-005]"""
    run(save_varied, tmp_path, 3)
    path = tmp_path / "x.ckpt"
    lost = [zone.tensor for zone in zones(path) if zone.object == "packs/00002.zip" and zone.tensor]
    (path / "packs" / "00002.zip").unlink()
    with ckptfmt.open(path) as checkpoint:
        assert ("own", "rank 2", "x") in checkpoint.tensors
        for keys, tensor in checkpoint.tensors.items():
            if tensor.path in lost:
                with pytest.raises(ckptfmt.CorruptError) as caught:
                    tensor.read()
                assert caught.value.code == "missing-object"
            else:
                expected = whole_tree(3)
                for key in keys:
                    expected = expected[key]
                assert equal_trees(tensor.read(), expected)
        assert np.array_equal(checkpoint["rows"][:8], whole_tree(3)["rows"][:8]), "what the others wrote of a tensor"


def test_a_flipped_bit_in_any_rank_s_pack_or_part(tmp_path: Path) -> None:
    run(save_varied, tmp_path, 2)
    path = tmp_path / "x.ckpt"
    for zone in zones(path):
        for offset in range(zone.start, zone.stop, 23):
            with flipped(zone.file, offset, offset % 8):
                assert not ckptfmt.verify(path).ok


# ---- loading at another world size


SHARED = np.random.default_rng(0).integers(0, 1 << 30, (48, 1000), np.int32)


def save_shared(folder: Path, coordinator: Any) -> Any:
    tree = {"x": shard(SHARED, coordinator.rank, coordinator.size)}
    ckptfmt.save(folder / "x.ckpt", tree, coordinator=coordinator, durable=False)


@pytest.mark.parametrize("size", SIZES)
def test_only_what_is_needed_is_read(tmp_path: Path, size: int) -> None:
    """Each of M processes gets its rows; what it reads is the chunks that they lie in, or exactly them, unverified."""
    run(save_shared, tmp_path, size)
    path, row = tmp_path / "x.ckpt", 4 * 1000
    chunk = -(-48 // size)
    for others in SIZES:
        for rank in range(others):
            mine = cut(48, rank, others)
            with ckptfmt.open(path) as checkpoint:
                assert np.array_equal(checkpoint["x"][mine], SHARED[mine])
                touched = -(-mine.stop // chunk) - mine.start // chunk
                assert checkpoint.bytes_read == touched * chunk * row
            with ckptfmt.open(path, verify=False) as checkpoint:
                assert np.array_equal(checkpoint["x"][mine], SHARED[mine])
                assert checkpoint.bytes_read == (mine.stop - mine.start) * row
            if others == size:
                assert touched == 1, "at the same size each reads what one wrote"


# ---- progress


def test_progress_is_of_what_a_rank_writes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with ckptfmt.FileCoordinator(tmp_path, 0, 1) as coordinator:
        tree = {"x": np.zeros(1000, np.uint8), "y": np.zeros(500, np.uint8)}
        ckptfmt.save(tmp_path / "x.ckpt", tree, coordinator=coordinator, progress=lambda *done: seen.append(done))
    assert seen[-1] == (1500, 1500)


# ---- the page for users


def test_the_program_of_the_documentation(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "parallel.md"
    program, reading, *_ = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ranks = [
        subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"RANK": r, "WORLD_SIZE": "4"})
        for r in "0123"
    ]
    assert [process.wait(60) for process in ranks] == [0] * 4
    table = np.repeat(np.arange(4, dtype=np.float32), 256)[:, None] * np.ones(64, np.float32)
    assert_same_tree(ckptfmt.load(tmp_path / "model.ckpt"), {"step": 1000, "table": table})
    found: dict[str, Any] = {"ckptfmt": ckptfmt}
    exec(reading.replace('"model.ckpt"', repr(str(tmp_path / "model.ckpt"))), found)
    assert np.array_equal(found["mine"], table[128:256])
    assert found["checkpoint"].bytes_read == 256 * 64 * 4
