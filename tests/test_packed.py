"""Layout `packed` as one process writes it: packs that are ZIPs of their own, cut where they grow too large. [LAY-004]
[LAY-005] [FRM-003]"""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import xxhash
from damage import METADATA, rewrite_manifest, save_varied, small_chunks, zones
from hypothesis import given
from hypothesis import strategies as st
from inside import inside

import ckptfmt
from ckptfmt.frameworks.sources import Lazy, Region
from ckptfmt.layouts import packed, part_writer
from ckptfmt.layouts.part_writer import part_numbers
from ckptfmt.storage.local import LocalStorage
from ckptfmt.testing import assert_same_tree, equal_trees
from ckptfmt.testing.strategies import trees

TREE = {name: np.full(100, ord(name), np.uint8) for name in "abcdefgh"}
DOCUMENTS = ["tensors/zarr.json", *(f"tensors/{name}/zarr.json" for name in TREE)]

Scratch = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def packs_of_200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PACK_BYTES", 200)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_chunks_fill_pack_after_pack(sizes: list[int], limit: int) -> None:
    numbers = part_numbers(np.array(sizes, np.int64), limit).tolist()
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(set(numbers))))
    for number in set(numbers):
        inside = [size for size, where in zip(sizes, numbers, strict=True) if where == number]
        assert sum(inside[:-1]) < limit, "a pack ends once it has this many bytes"


@given(tree=trees(), limit=st.sampled_from([1, 40, 1000]), compression=st.sampled_from([None, "zstd"]))
def test_trees_over_many_packs(scratch: Scratch, tree: Any, limit: int, compression: str | None) -> None:
    with scratch() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "PACK_BYTES", limit)
        path = Path(folder, "x.ckpt")
        ckptfmt.save(path, tree, layout="packed", compression=compression, durable=False)
        assert_same_tree(ckptfmt.load(path), tree)
        assert equal_trees(ckptfmt.load(path, mmap=True), tree)
        assert ckptfmt.verify(path).ok


def test_what_lies_where(tmp_path: Path, packs_of_200: None) -> None:
    path = tmp_path / "x.ckpt"
    report = ckptfmt.save(path, TREE, layout="packed", metadata=METADATA, durable=False)
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    parts = [f"parts/{n:05d}.msgpack" for n in range(4)]
    packs = [f"packs/{n:05d}.zip" for n in range(4)]
    assert files == ["COMMIT", "manifest.msgpack", *packs, *parts]
    assert report.bytes == sum((path / file).stat().st_size for file in files)
    assert (report.layout, report.tensors) == ("packed", 8)
    assert re.fullmatch(rb"ckptfmt/1\.0 packed manifest=0\+.*\n", (path / "COMMIT").read_bytes())
    document = msgpack.unpackb((path / "manifest.msgpack").read_bytes())
    assert [part["object"] for part in document["parts"]] == packs
    assert [part["chunks"]["path"] for part in document["parts"]] == parts
    assert [part["size"] for part in document["parts"]] == [(path / pack).stat().st_size for pack in packs]


def test_every_pack_is_a_zip(tmp_path: Path, packs_of_200: None) -> None:
    """Each stock tool reads every pack; the node documents stand in the first, before all chunks."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="packed", durable=False)
    document = msgpack.unpackb((path / "manifest.msgpack").read_bytes())
    chunks: list[str] = []
    for number, part in enumerate(document["parts"]):
        with zipfile.ZipFile(path / part["object"]) as archive:
            assert archive.testzip() is None
            assert archive.comment == b""
            names = archive.namelist()
        documents = [name for name in names if name.endswith("zarr.json")]
        assert documents == (DOCUMENTS if number == 0 else [])
        assert names[: len(documents)] == documents
        chunks += names[len(documents) :]
        table = msgpack.unpackb((path / part["chunks"]["path"]).read_bytes())
        data = (path / part["object"]).read_bytes()
        frame, position = b"", 0
        extents = zip(np.frombuffer(table["offset"], "<u8"), np.frombuffer(table["length"], "<u8"), strict=True)
        for offset, length in [*extents, (len(data), 0)]:
            frame, position = frame + data[position : int(offset)], int(offset + length)
            assert offset % 64 == 0 or not length  # [PACK-002]
        assert part["frame"] == xxhash.xxh3_128_digest(frame)  # [FRM-003]
    assert chunks == [f"tensors/{name}/c/0" for name in TREE]
    line = (path / "COMMIT").read_text()
    assert f"frame={xxhash.xxh3_128_hexdigest(b'')} " in line


def test_a_tensor_whose_chunks_lie_in_several_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    array = np.random.default_rng(1).integers(0, 99, (1000, 100), np.int32)
    monkeypatch.setattr(packed, "PACK_BYTES", 100_000)
    with small_chunks():
        ckptfmt.save(path, {"x": array}, layout="packed", compression="zstd", durable=False)
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint["x"].chunks == 7
        assert len(inside(checkpoint).manifest.parts) == 4
        assert equal_trees(checkpoint["x"].read(), array)
        assert np.array_equal(checkpoint["x"][150:820:7, 3], array[150:820:7, 3])
        assert checkpoint["x"].stored_bytes == sum(zone.stop - zone.start for zone in zones(path) if zone.tensor)
        assert equal_trees(checkpoint.load(mmap=True), {"x": array})
    target = np.zeros_like(array)
    ckptfmt.load(path, into={"x": target})
    assert equal_trees(target, array)


def test_much_data_fills_two_packs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "STREAM_BYTES", 400)
    for name, count in (("little", 7), ("much", 8)):
        tree = {str(n): np.full(100, n, np.uint8) for n in range(count)}
        ckptfmt.save(tmp_path / name, tree, layout="packed", durable=False)
        assert_same_tree(ckptfmt.load(tmp_path / name), tree)
    assert os.listdir(tmp_path / "little/packs") == ["00000.zip"]
    with ckptfmt.open(tmp_path / "much") as checkpoint:
        first, second = inside(checkpoint).manifest.parts
        assert {inside(checkpoint).blocks.place(tensor, 0).object for tensor in range(4)} == {first.object}
        assert {inside(checkpoint).blocks.place(tensor, 0).object for tensor in range(4, 8)} == {second.object}


class Waiting(Lazy):
    """Elements that come only once those of another tensor were asked for, or fail."""

    shape, dtype = (100,), np.dtype(np.uint8)

    def __init__(self, own: threading.Event, other: threading.Event, fails: bool) -> None:
        self.own, self.other, self.fails = own, other, fails

    def __getitem__(self, region: Region) -> Any:
        self.own.set()
        assert self.other.wait(60), "two packs are written at a time"
        if self.fails:
            raise RuntimeError("elements are lost")
        return np.zeros(region[0].stop - region[0].start, np.uint8)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_pack_that_fails_ends_the_save(tmp_path: Path, packs_of_200: None, lost: int) -> None:
    events = threading.Event(), threading.Event()
    waiting = [Waiting(events[n], events[1 - n], n == lost) for n in range(2)]
    tree = {"a": waiting[0], "b": TREE["b"], "c": waiting[1], **{str(n): np.ones(100, np.uint8) for n in range(1000)}}
    with pytest.raises(RuntimeError, match="elements are lost"):
        ckptfmt.save(tmp_path / "x", tree, layout="packed", durable=False)
    assert os.listdir(tmp_path) == []


def test_no_tensors(tmp_path: Path) -> None:
    for number, tree in enumerate([{}, None, {"a": [1, "b"]}, np.zeros((0, 3))]):
        path = tmp_path / str(number)
        ckptfmt.save(path, tree, layout="packed", durable=False)
        assert_same_tree(ckptfmt.load(path), tree)
        assert ckptfmt.verify(path).ok
        assert os.listdir(path / "packs") == ["00000.zip"]  # [LAY-004]: there is at least one


@pytest.mark.parametrize("name", ["packs", "parts", "packs/00000.zip", "parts/00000.msgpack"])
def test_no_link_inside_is_followed(tmp_path: Path, name: str) -> None:  # [CHK-007]
    path = tmp_path / "x.ckpt"
    save_varied(path, "packed")
    (path / name).rename(path / "elsewhere")
    (path / name).symlink_to(path / "elsewhere")
    with pytest.raises(ckptfmt.LinkedError) as caught:
        ckptfmt.load(path)
    assert caught.value.code == "linked-object"


def test_objects_may_have_other_names(tmp_path: Path, packs_of_200: None) -> None:
    """[LAY-005] Names are the writer's choice."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, TREE, layout="packed", durable=False)
    (path / "packs" / "00002.zip").rename(path / "third")

    def rename(manifest: dict[str, Any]) -> None:
        manifest["parts"][2]["object"] = "third"

    rewrite_manifest(path, rename)
    assert_same_tree(ckptfmt.load(path), TREE)
    assert ckptfmt.verify(path).ok


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="packed") as caught:
        ckptfmt.save(tmp_path / "x.ckpt", TREE, layout="heap")
    assert caught.value.code == "bad-option"


def test_of_many_small_tensors_each_pack_is_asked_for_its_size_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[READ-005]"""
    tree = {f"t{n}": np.full(1024, n, np.int32) for n in range(6000)}  # more than are read without that question
    ckptfmt.save(tmp_path / "c", tree, layout="packed", durable=False)
    asked: list[str] = []
    size = LocalStorage.size

    def counted(storage: LocalStorage, name: str) -> int:
        asked.append(name)
        return size(storage, name)

    with ckptfmt.open(tmp_path / "c") as checkpoint:
        monkeypatch.setattr(LocalStorage, "size", counted)
        assert_same_tree(checkpoint.load(), tree)
    assert asked.count("packs/00000.zip") == 1
