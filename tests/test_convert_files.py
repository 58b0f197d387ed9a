"""Conversion from file to file: what lies on a disk as it does in memory is read from its file, verified
and compared; what must be decoded is streamed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import ckptfmt
from ckptfmt.conversion import converter, open_source
from ckptfmt.conversion.source import LazyArray, Rows, in_file
from ckptfmt.frameworks.sources import Buffers, InFile
from ckptfmt.layouts import pack_writer
from ckptfmt.storage.disk import Disk
from ckptfmt.testing.equality import assert_same_tree

LARGE = np.arange(1 << 19, dtype=np.float32).reshape(512, 1024)  # 2 MiB
TREE = {"large": LARGE, "half": (LARGE / 7).astype(ml_dtypes.bfloat16).repeat(2, 0), "small": LARGE[0]}


def test_large_tensors_go_from_file_to_file(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TREE, tmp_path / "x.safetensors")
    for layout in ("file", "packed", "loose"):
        source, back = tmp_path / layout, tmp_path / f"{layout}.safetensors"
        ckptfmt.convert(tmp_path / "x.safetensors", source, layout=layout)
        assert ckptfmt.verify(source).ok
        assert_same_tree(ckptfmt.load(source), {name: TREE[name] for name in ckptfmt.load(source)})
        ckptfmt.convert(source, back)
        assert back.read_bytes()[-TREE["half"].nbytes :] == TREE["half"].tobytes()
        assert not ckptfmt.diff(tmp_path / "x.safetensors", back).changed
    ckptfmt.convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert_same_tree(safetensors.numpy.load_file(tmp_path / "y.safetensors")["large"], LARGE)


@pytest.mark.parametrize(
    "array", [LARGE.astype(">f4"), LARGE.astype(bool), LARGE.astype(complex)], ids=["big", "bool", "complex"]
)
def test_what_lies_otherwise_is_converted(tmp_path: Path, array: Any) -> None:
    np.savez(tmp_path / "x.npz", a=array)
    assert ckptfmt.convert(tmp_path / "x.npz", tmp_path / "y.ckpt").verified
    assert np.array_equal(ckptfmt.load(tmp_path / "y.ckpt")["a"], array)


@pytest.mark.parametrize("target", ["x.ckpt", "y.safetensors"])
def test_a_disk_that_writes_wrongly_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    source = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TREE, source)
    if target != "x.ckpt":
        source = tmp_path / "sound.ckpt"
        ckptfmt.save(source, TREE)
    honest = Disk.write

    def flip(self: Disk, fd: int, data: memoryview, offset: int) -> int:
        count = honest(self, fd, data, offset)
        if len(data) > 1 << 20 or (target != "x.ckpt" and len(data) == 1 << 20):
            os.pwrite(fd, bytes([data[999] ^ 1]), offset + 999)
        return count

    monkeypatch.setattr(Disk, "write", flip)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.convert(source, tmp_path / target)
    assert raised.value.code == ("block-digest" if target == "x.ckpt" else "not-equal")
    assert raised.value.tensor in ("large", "half")


@pytest.mark.parametrize("digest", ["xxh3-128", "sha256"])
def test_a_source_is_read_once_and_what_was_written_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    source, reads = tmp_path / "x.safetensors", []
    safetensors.numpy.save_file(TREE, source)
    honest = InFile.pieces

    def counted(self: InFile) -> Any:
        reads.append(self.array.nbytes)
        return honest(self)

    monkeypatch.setattr(InFile, "pieces", counted)
    assert ckptfmt.convert(source, tmp_path / "x.ckpt", digest=digest).verified
    assert sorted(reads) == sorted(TREE[name].nbytes for name in ("large", "half"))


def test_damage_between_writing_and_comparing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "x.safetensors", tmp_path / "x.ckpt"
    safetensors.numpy.save_file(TREE, source)
    honest = converter.compare

    def late(*arguments: Any) -> None:
        (temporary,) = tmp_path.glob(".x.ckpt.*")
        raw = bytearray(temporary.read_bytes())
        raw[raw.index(LARGE.tobytes()) + 12_345] ^= 1
        temporary.write_bytes(raw)
        honest(*arguments)

    monkeypatch.setattr(converter, "compare", late)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.convert(source, target)
    assert (raised.value.code, raised.value.tensor) == ("block-digest", "large")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_writer_that_digests_other_bytes_than_it_was_given_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it writes has the digests that it says, and is not what was read."""
    source = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TREE, source)
    honest = pack_writer.stored_parts

    def turned(*arguments: Any) -> Any:
        return (part[::-1].copy() for part in honest(*arguments))

    monkeypatch.setattr(pack_writer, "stored_parts", turned)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.convert(source, tmp_path / "x.ckpt")
    assert raised.value.code == "not-equal"


def test_buffers_are_used_again_when_nobody_looks_at_them() -> None:
    buffers = Buffers(64)
    first, second = buffers.take(10), buffers.take(64)
    place, view = first.__array_interface__["data"][0], memoryview(first.reshape(2, 5).view(np.int8).reshape(-1)[3:])
    del first
    third = buffers.take(8)
    assert third.__array_interface__["data"][0] != place, "a view of it is in use"
    del view
    assert buffers.take(8).__array_interface__["data"][0] == place
    assert (second.size, third.size) == (64, 8)


def test_a_source_that_is_replaced_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TREE, path)
    with open_source(str(path)) as source:
        leaf = in_file(source.tree["large"], Buffers(1 << 22))
        assert isinstance(leaf, InFile)
        shutil.copyfile(path, tmp_path / "other")
        (tmp_path / "other").replace(path)
        with pytest.raises(ckptfmt.CkptError, match="replaced") as raised:
            ckptfmt.save(tmp_path / "y.ckpt", {"a": leaf})
    assert raised.value.code == "bad-source"
    assert not (tmp_path / "y.ckpt").exists()


def test_aliases_and_times_of_lazy_tensors(tmp_path: Path) -> None:
    days = np.arange(300_000).astype("M8[D]")
    tree = {"a": days, "b": [days], "c": LARGE, "d": LARGE}
    ckptfmt.save(tmp_path / "x.ckpt", tree, compression="gzip")
    ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "y.ckpt", compression={"c": "zstd"})
    found = ckptfmt.load(tmp_path / "y.ckpt")
    assert_same_tree(found, tree)
    assert found["a"] is found["b"][0]
    assert found["c"] is found["d"]


@pytest.mark.parametrize(("slab", "height"), [(1, 100), (LARGE[:200].nbytes, 200), (1 << 30, 512)])
def test_rows_are_decoded_once(monkeypatch: pytest.MonkeyPatch, slab: int, height: int) -> None:
    """As many groups together as a slab has room for."""
    monkeypatch.setattr(ckptfmt.conversion.source, "SLAB", slab)
    decoded: list[tuple[int, int]] = []

    def read(index: Any) -> Any:
        decoded.append((index[0].start, index[0].stop))
        return LARGE[index]

    lazy = LazyArray(LARGE.shape, LARGE.dtype, read, rows=100)
    source = Rows().source(lazy)
    parts = [source[(slice(start, min(start + 64, 512)), slice(0, 1024))] for start in range(0, 512, 64)]
    assert_same_tree(np.concatenate(parts), LARGE)
    assert decoded == [(start, min(start + height, 512)) for start in range(0, 512, height)]
    assert_same_tree(source[(slice(7, 9), slice(3, 5))], np.ascontiguousarray(LARGE[7:9, 3:5]))
