"""Checkpoints that need ZIP64: more members than 16 bits count, payloads and offsets past 4 GiB. [PACK-003]"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

import ckptfmt

COUNT = 33_000  # tensors, of two members each
LARGE = (4 << 30) + 12_345


def end_record(path: Path) -> tuple[int, bool]:
    """The count of members in the plain end record, and whether a ZIP64 locator stands before it."""
    with path.open("rb") as file:
        file.seek(-2000, 2)
        tail = file.read()
    at = tail.rindex(b"PK\5\6")
    (count,) = struct.unpack_from("<H", tail, at + 10)
    return count, tail[at - 20 : at - 16] == b"PK\6\7"


def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "many.ckpt"
    values = np.arange(COUNT, dtype=np.uint16)
    report = ckptfmt.save(path, {f"t{i}": values[i : i + 1].copy() for i in range(COUNT)}, durable=False, paged=False)
    assert report.tensors == COUNT
    assert end_record(path) == (0xFFFF, True)
    loaded = ckptfmt.load(path)
    assert np.array_equal(np.concatenate(list(loaded.values())), values)
    assert list(loaded) == [f"t{i}" for i in range(COUNT)]
    assert ckptfmt.verify(path).ok
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 2 * COUNT + 2
        assert archive.read(f"tensors/t{COUNT - 1}/c/0") == values[-1:].tobytes()
        assert all(member.extract_version == 20 for member in archive.infolist()), "no member needs ZIP64 itself"
    with ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, path="tensors", mode="r")
        for i in (0, 1, 32_768, COUNT - 1):
            assert np.asarray(group[f"t{i}"][...]).tolist() == [i]  # type: ignore[index]


@pytest.mark.parametrize("members", [65_534, 65_535, 65_536])
def test_around_the_border(tmp_path: Path, members: int) -> None:
    """A root group and a manifest, and for each tensor its document and, unless it is empty, its chunk."""
    path = tmp_path / "border.ckpt"
    tensors = (members - 2) // 2
    tree = {str(i): np.zeros(1, np.uint8) for i in range(tensors)}
    if members % 2:
        tree["empty"] = np.zeros(0, np.uint8)
    ckptfmt.save(path, tree, durable=False, paged=False)
    assert end_record(path) == (min(members, 0xFFFF), members >= 0xFFFF)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == members
    with ckptfmt.open(path) as checkpoint:
        assert len(checkpoint) == len(tree)
        assert checkpoint[f"{tensors - 1}"].read().tolist() == [0]


@pytest.mark.slow
def test_a_payload_past_4_gib(tmp_path: Path) -> None:
    """The large tensor's size and the small one's offset do not fit 32 bits."""
    path = tmp_path / "large.ckpt"
    large = np.zeros(LARGE, np.uint8)
    large[-3:] = 1, 2, 3
    ckptfmt.save(path, {"large": large, "small": np.arange(5)}, durable=False)
    assert end_record(path) == (6, True)
    mapped = ckptfmt.load(path, mmap=True)
    assert mapped["large"].shape == (LARGE,)
    assert mapped["large"][-5:].tolist() == [0, 0, 1, 2, 3]
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint["large"][LARGE - 4 :].tolist() == [0, 1, 2, 3]
        assert checkpoint["small"].read().tolist() == list(range(5))
    assert ckptfmt.verify(path).ok
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        member = archive.getinfo("tensors/large/c/0")
        assert (member.file_size, member.extract_version) == (LARGE, 45)
        assert archive.getinfo("tensors/small/c/0").header_offset > LARGE
    with ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, path="tensors", mode="r")
        assert np.asarray(group["small"][...]).tolist() == list(range(5))  # type: ignore[index]
        assert np.asarray(group["large"][-4:]).tolist() == [0, 1, 2, 3]  # type: ignore[index]
    path.unlink()
