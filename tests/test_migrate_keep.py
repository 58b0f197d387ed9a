"""Tensors that a migration merely moves stay as they are stored, and are not read: files are shared, payloads of packs
copied by the system. [MIG-020]"""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, save_varied, use_disk
from inside import inside
from migrations import W, X, document, refusal, saved

import ckptfmt
from ckptfmt.reading.blocks import BlockReader
from ckptfmt.testing.equality import assert_same_tree

LARGE = np.arange(1 << 19, dtype=np.int32).reshape(512, 1024)  # 2 MiB: copied by the system
MOVED = document({"from": "{name}", "to": "moved.{name}"}, {"from": "0", "to": "zero"}, rest="keep")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def unread(patch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> ckptfmt.MigrationReport:
    """A migration that reads no tensor."""
    with patch.context() as forbidden:
        forbidden.setattr(BlockReader, "read", None)
        return ckptfmt.migrate(*arguments, **options, durable=False)


def chunks(checkpoint: ckptfmt.Checkpoint) -> Any:
    """Where all chunks lie, and their digests."""
    tables = [inside(checkpoint).blocks.index.table(part) for part in range(len(inside(checkpoint).manifest.parts))]
    return [(table.offsets, table.lengths, table.digest) for table in tables]


@each_layout
def test_everything_that_moves_is_kept_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    path = tmp_path / "src"
    tree = save_varied(path, layout, schema=("s", "1"))
    report = unread(monkeypatch, path, tmp_path / "kept", MOVED, schema="2")
    ckptfmt.migrate(path, tmp_path / "read", MOVED, schema="2", verify=True, compression={"moved.zipped": "zstd"})
    assert report.plan.is_rename
    assert ckptfmt.verify(tmp_path / "kept").ok
    found = ckptfmt.load(tmp_path / "kept")
    assert_same_tree(found, ckptfmt.load(tmp_path / "read"))
    assert found["tied"][0] is found["tied"][1][0]
    assert found["moved.when"].tolist() == tree["when"].tolist()
    with ckptfmt.open(tmp_path / "kept") as kept, ckptfmt.open(tmp_path / "read") as read:
        assert kept["moved.zipped"].codec == "zstd"
        assert inside(kept).manifest.tree == inside(read).manifest.tree
        assert chunks(kept) == chunks(read), "copied bytes lie where written ones do, with their digests"
    if layout == "file":
        with zipfile.ZipFile(tmp_path / "kept") as archive:
            assert archive.testzip() is None  # the crc32 came along


@each_layout
def test_large_tensors_are_copied_by_the_system_or_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    path = saved(tmp_path, {"a": LARGE, "b": X}, layout=layout)
    calls: list[tuple[str, tuple[Any, ...]]] = []
    patch = use_disk(before=lambda name, arguments: calls.append((name, arguments)))
    try:
        unread(monkeypatch, path, tmp_path / "dst", document({"from": "a", "to": "c"}, rest="keep"), schema="2")
    finally:
        patch.undo()
    copied = [arguments[-1] for name, arguments in calls if name == "copy"]
    assert copied == ([] if layout == "loose" else [LARGE.nbytes])
    assert all(len(arguments[1]) < LARGE.nbytes for name, arguments in calls if name == "write")
    if layout == "loose":
        assert (tmp_path / "dst/tensors/c/c/0/0").samefile(path / "tensors/a/c/0/0")
    assert_same_tree(ckptfmt.load(tmp_path / "dst"), {"c": LARGE, "b": X})
    ckptfmt.migrate(path, tmp_path / "read", document({"from": "a", "to": "c"}, rest="keep"), schema="2", verify=True)
    if layout == "loose":
        assert not (tmp_path / "read/tensors/c/c/0/0").samefile(path / "tensors/a/c/0/0")


@pytest.mark.parametrize(("before", "after"), [("file", "packed"), ("packed", "file")])
def test_packs_of_one_layout_become_packs_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    monkeypatch.setattr("ckptfmt.layouts.packed.PACK_BYTES", 3 << 20)  # several packs
    path = saved(tmp_path, {"a": LARGE, "b": X, "c": LARGE + 1}, layout=before)
    unread(
        monkeypatch, path, tmp_path / "dst", document({"from": "a", "to": "z"}, rest="keep"), schema="2", layout=after
    )
    assert ckptfmt.verify(tmp_path / "dst").ok
    assert_same_tree(ckptfmt.load(tmp_path / "dst"), {"z": LARGE, "b": X, "c": LARGE + 1})


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({"verify": True}, True),
        ({"compression": "zstd"}, True),
        ({"digest": "blake3"}, True),
        ({"layout": "loose"}, True),
        ({"layout": "packed"}, False),
        ({"digest": "xxh3-128"}, False),
    ],
)
def test_what_makes_tensors_be_read(tmp_path: Path, options: Any, reads: bool) -> None:
    path = saved(tmp_path, {"a": LARGE})
    counted: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        read = BlockReader.read
        patch.setattr(BlockReader, "read", lambda self, *rest: (counted.append(1), read(self, *rest)))
        ckptfmt.migrate(
            path, tmp_path / "dst", document({"from": "a", "to": "b"}), schema="2", durable=False, **options
        )
    assert bool(counted) == reads
    assert_same_tree(ckptfmt.load(tmp_path / "dst"), {"b": LARGE})


@each_layout
def test_moved_beside_computed(tmp_path: Path, layout: str) -> None:
    turn = {"op": "rearrange", "pattern": "a b -> b a"}
    path = saved(tmp_path, {"a": LARGE, "w": W, "n": 1, "twice": X}, layout=layout, digest="sha256")
    made = document(
        {"from": "w", "with": [turn], "to": "w"},
        {"from": "a", "to": "b"},
        {"from": "twice", "with": [{"op": "copy"}], "to": "copied"},
        {"from": "twice", "with": [{"op": "alias"}], "to": "tied"},
        rest="keep",
    )
    ckptfmt.migrate(path, tmp_path / "dst", made, schema="2")
    found = ckptfmt.load(tmp_path / "dst")
    assert_same_tree(found["b"], LARGE)
    np.testing.assert_array_equal(found["w"], W.T)
    assert found["tied"] is found["twice"]
    assert found["copied"] is not found["twice"]
    assert found["copied"].tolist() == X.tolist()
    with ckptfmt.open(tmp_path / "dst") as checkpoint:
        assert inside(checkpoint).manifest.digest == "sha256", "that of the source"
    assert ckptfmt.verify(tmp_path / "dst").ok


@each_layout
def test_damage_stays_damage(tmp_path: Path, layout: str) -> None:
    """What is not read is not verified, and its digests come along."""
    path = saved(tmp_path, {"old": LARGE, "fine": X}, layout=layout)
    needle = LARGE[300].tobytes()
    (place,) = [file for file in [path, *path.rglob("*")] if file.is_file() and needle in file.read_bytes()]
    raw = bytearray(place.read_bytes())
    raw[raw.index(needle)] ^= 1
    place.write_bytes(raw)
    made = document({"from": "old", "to": "new"}, rest="keep")
    assert refusal("block-digest", ckptfmt.migrate, path, tmp_path / "x", made, schema="2", verify=True).tensor == "old"
    ckptfmt.migrate(path, tmp_path / "dst", made, schema="2")
    (damage,) = ckptfmt.verify(tmp_path / "dst").damage
    assert (damage.code, damage.tensor) == ("block-digest", "new")
    assert ckptfmt.load(tmp_path / "dst", select="fine")["fine"].tolist() == X.tolist()


@pytest.mark.parametrize("layout", ["file", "packed"])
def test_a_crc32_that_is_not_sure_is_not_taken_over(tmp_path: Path, layout: str) -> None:
    """A pack whose frame is damaged has its tensors read, which are sound."""
    path = saved(tmp_path, {"a": LARGE, "b": X}, layout=layout)
    pack = path if layout == "file" else path / "packs" / "00000.zip"
    with zipfile.ZipFile(pack) as archive:
        start, crc32 = archive.start_dir, archive.getinfo("tensors/a/c/0/0").CRC
    raw = bytearray(pack.read_bytes())
    raw[raw.index(crc32.to_bytes(4, "little"), start)] ^= 1
    pack.write_bytes(raw)
    ckptfmt.migrate(path, tmp_path / "dst", document({"from": "a", "to": "c"}, rest="keep"), schema="2")
    assert ckptfmt.verify(tmp_path / "dst").ok
    assert_same_tree(ckptfmt.load(tmp_path / "dst"), {"c": LARGE, "b": X})


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP, None])
def test_where_the_system_cannot_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    path = saved(tmp_path, {"a": LARGE})

    def refuse(*_: Any) -> int:
        raise OSError(code, "not here")

    if code is None:
        monkeypatch.delattr(os, "copy_file_range")
    else:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    unread(monkeypatch, path, tmp_path / "dst", document({"from": "a", "to": "b"}), schema="2")
    assert_same_tree(ckptfmt.load(tmp_path / "dst"), {"b": LARGE})


def test_where_copying_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = saved(tmp_path, {"a": LARGE}), document({"from": "a", "to": "b"})

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "copy_file_range", full)
        refusal("disk-full", ckptfmt.migrate, path, tmp_path / "dst", made, schema="2")
    with monkeypatch.context() as patch:
        patch.setattr(os, "copy_file_range", lambda *_: 0)
        refusal("io", ckptfmt.migrate, path, tmp_path / "dst", made, schema="2")
    assert {entry.name for entry in tmp_path.iterdir()} == {"src"}


def test_a_pack_that_became_shorter(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": LARGE, "b": LARGE + 1}, layout="packed")
    os.truncate(path / "packs" / "00000.zip", LARGE.nbytes)
    error = refusal("short-object", ckptfmt.migrate, path, tmp_path / "dst", document(rest="keep"), schema="2")
    assert error.tensor in ("a", "b")


def test_where_links_cannot_be_made_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    path = saved(tmp_path, {"a": LARGE}, layout="loose")
    monkeypatch.setattr("ckptfmt.storage.disk.Disk.link_open", refuse)
    unread(monkeypatch, path, tmp_path / "dst", document({"from": "a", "to": "b"}), schema="2")
    assert ckptfmt.verify(tmp_path / "dst").ok
    assert_same_tree(ckptfmt.load(tmp_path / "dst"), {"b": LARGE})
    assert {entry.name for entry in tmp_path.iterdir()} == {"src", "dst"}


def test_to_and_from_object_stores(tmp_path: Path) -> None:
    path, made = saved(tmp_path, {"a": LARGE, "b": W}), document({"from": "a", "to": "c"}, rest="keep")
    ckptfmt.migrate(path, "memory://bucket/kept.ckpt", made, schema="2")
    assert ckptfmt.verify("memory://bucket/kept.ckpt").ok
    ckptfmt.migrate("memory://bucket/kept.ckpt", tmp_path / "back", made, schema="1", down=True)
    assert_same_tree(ckptfmt.load(tmp_path / "back"), ckptfmt.load(path))


@each_layout
def test_there_and_back_gives_the_first_bytes(tmp_path: Path, layout: str) -> None:
    """But for the manifest, which says where it comes from."""
    path, made = saved(tmp_path, {"a": LARGE, "b": W}, layout=layout), document({"from": "a", "to": "c"}, rest="keep")
    ckptfmt.migrate(path, tmp_path / "there", made, schema="2")
    ckptfmt.migrate(tmp_path / "there", tmp_path / "back", made, schema="1", down=True)
    with ckptfmt.open(path) as first, ckptfmt.open(tmp_path / "back") as back:
        assert chunks(first) == chunks(back)
    assert ckptfmt.verify(tmp_path / "back").ok
