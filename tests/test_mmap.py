"""Mapped loads: no copy, private, aligned, alive as long as the array; what cannot be mapped is read. [PACK-002]
[BLK-006]"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from damage import LAYOUTS, child, flipped, save_varied, zones

import ckptfmt
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import assert_same_tree, equal_trees

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def mapping_of(array: Any) -> mmap.mmap | None:
    """The mapping of a file that an array's memory lies in, if it does."""
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) and is_of_file(base) else None


def is_of_file(mapping: mmap.mmap) -> bool:
    """Whether it maps a file, and not memory of its own."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(text, 16) for text in line.split(maxsplit=1)[0].split("-"))
        if start <= address < end:
            return "/" in line
    raise AssertionError("the memory is not there any more")


@each_layout
def test_mapped_equals_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout)
    assert_same_tree(ckptfmt.load(path, mmap=True), tree)
    assert_same_tree(ckptfmt.load(path, mmap=True, verify=True), tree)
    assert_same_tree(ckptfmt.load(path, mmap=True, select="tied"), {"tied": tree["tied"]})


@each_layout
def test_raw_tensors_are_mapped_and_others_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    save_varied(path, layout)
    with ckptfmt.open(path) as checkpoint:
        loaded = checkpoint.load(mmap=True)
        for path_, tensor in checkpoint.tensors.items():
            array = loaded
            for key in path_:
                array = array[key]
            mapped = tensor.codec == "raw" and tensor.dtype_name != "int4" and tensor.size > 0
            assert (mapping_of(array) is not None) == mapped, path_
        zipped, int4 = checkpoint["zipped"], checkpoint["int4"]
        assert checkpoint.bytes_read == zipped.stored_bytes + int4.stored_bytes


def test_one_mapping_serves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, [np.arange(i + 1) for i in range(20)], durable=False)
    loaded = ckptfmt.load(path, mmap=True)
    assert len({id(mapping_of(array)) for array in loaded}) == 1


@each_layout
def test_changes_are_private(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout)
    one, two = (ckptfmt.load(path, mmap=True) for _ in range(2))
    assert one["raw"].flags.writeable
    one["raw"][...] = 77
    one["tied"][0][0] = 5
    assert one["tied"][1][0][0] == 5, "aliases are one array"
    assert_same_tree(two, tree)
    assert_same_tree(ckptfmt.load(path), tree)
    assert ckptfmt.verify(path).ok


@each_layout
def test_alignment(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    sizes = [1, 7, 63, 64, 65, 4095, 65_535, 65_536, 65_537, 300_001, 2_000_003, 3]
    tree = {f"k{'x' * (i * 17)}": np.full(size, i, np.uint8) for i, size in enumerate(sizes)}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    loaded = ckptfmt.load(path, mmap=True)
    assert_same_tree(loaded, tree)
    for array in loaded.values():
        assert array.ctypes.data % (4096 if array.size >= 65_536 else 64) == 0
    if layout == "file":
        starts = {zone.tensor: zone.start for zone in zones(path) if zone.where == "block"}
        assert all(start % (4096 if tree[name[0]].size >= 65_536 else 64) == 0 for name, start in starts.items())


@each_layout
def test_mapped_arrays_outlive_everything(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout)
    with ckptfmt.open(path) as checkpoint:
        loaded = checkpoint.load(mmap=True)
    del checkpoint
    gc.collect()
    ckptfmt.save(path, {"raw": np.zeros(100)}, layout=layout, overwrite=True, durable=False)
    assert_same_tree(loaded, tree)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_same_tree(loaded, tree)


@each_layout
def test_tensors_of_many_chunks_are_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    array = np.arange(20_000_000, dtype=np.float32)  # 80 MB: two chunks in layout loose, one in a file
    ckptfmt.save(path, array, layout=layout, durable=False)
    loaded = ckptfmt.load(path, mmap=True)
    assert (mapping_of(loaded) is None) == (layout == "loose")
    assert equal_trees(loaded, array)


def test_a_root_tensor_and_one_without_elements(tmp_path: Path) -> None:
    for number, array in enumerate([np.arange(3), np.array(1.5), np.zeros((0, 4)), np.array(3, ml_dtypes.int4)]):
        path = tmp_path / f"{number}.ckpt"
        ckptfmt.save(path, array, durable=False)
        assert_same_tree(ckptfmt.load(path, mmap=True), array)


@each_layout
def test_verifying_a_mapping_finds_damage(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = {"a": np.zeros(10), "large": np.zeros(5 << 20, np.uint8), "flags": np.array([True, False])}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    for zone in [zone for zone in zones(path) if zone.where == "block"]:
        with flipped(zone.file, zone.stop - 1, 3):
            loaded = ckptfmt.load(path, mmap=True)  # [BLK-006]: nothing is verified unless asked for
            assert not equal_trees(loaded, tree)
            del loaded
            with pytest.raises(ckptfmt.CorruptError) as caught:
                ckptfmt.load(path, mmap=True, verify=True)
            error = caught.value
            assert (error.code, error.tensor) == ("block-digest", zone.tensor[0] if zone.tensor else None)
            assert error.block == (1 if error.tensor == "large" else 0)


@each_layout
def test_a_shortened_object_is_refused(tmp_path: Path, layout: str) -> None:
    """A mapping past the end of a file would end the process with SIGBUS."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.zeros(100_000)}, layout="loose", durable=False)
    chunk = path / "tensors" / "x" / "c" / "0"
    for size, code in ((799_999, "short-object"), (1, "short-object"), (0, "short-object"), (None, "missing-object")):
        chunk.write_bytes(bytes(size)) if size is not None else chunk.unlink()
        with pytest.raises(ckptfmt.CorruptError) as caught:
            ckptfmt.load(path, mmap=True)
        assert (caught.value.code, caught.value.tensor) == (code, "x")


def sum_and_exit(path: Path) -> None:
    loaded = ckptfmt.load(path, mmap=True)
    raise SystemExit(int(loaded["x"].sum()))


def test_a_mapping_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.ones(42)}, durable=False)
    process = child(sum_and_exit, path)
    process.join(60)
    assert process.exitcode == 42


def test_more_objects_than_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    tree = {str(i): np.full(3, i) for i in range(200)}
    ckptfmt.save(path, tree, layout="loose", durable=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, limits[1]))
    try:
        found = ckptfmt.load(path, mmap=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert_same_tree(found, tree)


def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    """As pages are read when they are touched, and copied when they are written."""
    size = 4 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with open(tmp_path / "x", "wb+") as file:
        file.truncate(size)
        file.seek(size - 4)
        file.write(b"last")
        mapping = Disk().map(file.fileno())
    assert len(mapping) == size
    assert (mapping[:4], mapping[-4:]) == (bytes(4), b"last")
    mapping[:4] = b"mine"
    with open(tmp_path / "x", "rb") as file:
        assert file.read(4) == bytes(4)
