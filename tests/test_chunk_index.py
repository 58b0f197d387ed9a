"""Finding chunks through part manifests, which are read when one of their chunks is needed and checked then. [CHK-004]
to [CHK-008]"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from damage import rewrite_manifest
from inside import inside

import ckptfmt
from ckptfmt.layouts import packed
from ckptfmt.layouts.chunk_index import ChunkIndex
from ckptfmt.storage.local import LocalStorage
from ckptfmt.testing import assert_same_tree

TREE = {str(i): np.full(100, i, np.uint8) for i in range(8)}  # two in each of four packs
PARTS = [f"parts/{number:05d}.msgpack" for number in range(4)]


class RecordingStorage(LocalStorage):
    """A disk that remembers which objects were read."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        self.seen: list[str] = []

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        self.seen.append(name)
        super().read_into(name, offset, out)

    def map(self, name: str) -> memoryview:
        self.seen.append(name)
        return super().map(name)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packed, "PACK_BYTES", 200)
    ckptfmt.save(tmp_path / "x.ckpt", TREE, layout="packed", durable=False)
    return tmp_path / "x.ckpt"


@pytest.fixture
def seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ckptfmt.Checkpoint, list[str]]]:
    """The open checkpoint, and the objects that are read from then on."""
    monkeypatch.setattr("ckptfmt.storage.local.LocalStorage", RecordingStorage)
    with ckptfmt.open(path) as checkpoint:
        storage = inside(checkpoint)._storage
        assert isinstance(storage, RecordingStorage)
        assert storage.seen == ["COMMIT", "COMMIT", "manifest.msgpack"], "opening reads no part [READ-002]"
        storage.seen.clear()
        yield checkpoint, storage.seen


# ---- what is read


def test_a_part_is_read_when_it_is_needed(seen: tuple[ckptfmt.Checkpoint, list[str]]) -> None:
    checkpoint, reads = seen
    assert checkpoint.tensors[("5",)].shape == (100,)
    assert reads == []
    assert checkpoint["5"][3] == 5
    assert reads == [PARTS[2], "packs/00002.zip"]
    assert checkpoint["4"].read().sum() == 400
    assert reads == [PARTS[2], "packs/00002.zip", "packs/00002.zip"], "once"


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"verify": False}], ids=["verified", "mapped", "unverified"])
def test_a_part_of_the_tree_needs_its_parts_alone(
    seen: tuple[ckptfmt.Checkpoint, list[str]], options: dict[str, bool]
) -> None:
    checkpoint, reads = seen
    assert_same_tree(checkpoint.load(select=["0", "7"], **options), {name: TREE[name] for name in "07"})
    assert set(reads) == {PARTS[0], PARTS[3], "packs/00000.zip", "packs/00003.zip"}
    assert_same_tree(checkpoint.load(**options), TREE)
    assert [reads.count(part) for part in PARTS] == [1] * 4


def test_many_threads_read_a_part_once(seen: tuple[ckptfmt.Checkpoint, list[str]]) -> None:
    checkpoint, reads = seen
    barrier = threading.Barrier(8)

    def read() -> None:
        barrier.wait()
        checkpoint["2"].read()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads.count(PARTS[1]) == 1


def test_what_was_found(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        index = ChunkIndex(inside(checkpoint)._storage, inside(checkpoint).manifest)
        part, table, row = index.find(3, 0)
        assert (part.object, row) == ("packs/00001.zip", 1)
        assert table.lengths == [100, 100]
        found = list(index.find_all(np.array([7, 0, 6, 2])))
        assert [f.part.object for f in found] == [f"packs/{n:05d}.zip" for n in (0, 1, 3)]
        assert [(f.rows.tolist(), f.positions.tolist()) for f in found] == [([0], [1]), ([0], [3]), ([1, 0], [0, 2])]


# ---- what is refused


def change_part(path: Path, number: int, change: Callable[[dict[str, Any]], Any], *, seal: bool = True) -> None:
    """Change a part manifest; `seal`: and commit it anew, as a writer with a fault would."""
    file = path / PARTS[number]
    document = msgpack.unpackb(file.read_bytes())
    changed = change(document)
    raw = changed if isinstance(changed, bytes) else msgpack.packb(document)
    file.write_bytes(raw)
    if seal:
        fields = {"length": len(raw), "sha256": hashlib.sha256(raw).digest()}
        rewrite_manifest(path, lambda manifest: manifest["parts"][number]["chunks"].update(fields))


REFUSED = (ckptfmt.CorruptError, ckptfmt.LinkedError)  # a link is no damage


def check_part_refused(path: Path, number: int, code: str, words: str) -> None:
    """The tensors of this part are refused, by name; all others are there; verification says what is wrong."""
    with ckptfmt.open(path) as checkpoint:
        for name, array in TREE.items():
            if int(name) // 2 != number:
                assert_same_tree(checkpoint[name].read(), array)
                continue
            with pytest.raises(REFUSED, match=words) as caught:
                checkpoint[name].read()
            assert (caught.value.code, caught.value.tensor, caught.value.path) == (code, repr(name), str(path))
        damage = [(found.code, found.object) for found in checkpoint.verify().damage]
    assert damage == [(code, PARTS[number])]
    with pytest.raises(REFUSED, match=words) as caught:
        ckptfmt.load(path)
    assert (caught.value.code, caught.value.tensor) == (code, repr(str(2 * number)))


def u32(*values: int) -> bytes:
    return np.array(values, "<u4").tobytes()


def u64(*values: int) -> bytes:
    return np.array(values, "<u8").tobytes()


def only_first_row(document: dict[str, Any]) -> None:
    document.update({name: column[: len(column) // 2] for name, column in document.items()})


SEALED: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any]]] = {
    "no map": ("bad-manifest", "MAN-001", lambda document: msgpack.packb([1])),
    "no msgpack": ("bad-manifest", "MAN-001", lambda document: b"\xc1"),
    "bytes after it": ("bad-manifest", "MAN-001", lambda document: msgpack.packb(document) + b"\0"),
    "a column missing": ("bad-manifest", "MAN-002", lambda document: document.pop("length") and None),
    "no tensors": ("bad-manifest", "CHK-00", lambda document: document.update(tensor=None, chunk=None)),
    "no offsets": ("bad-manifest", "CHK-011", lambda document: document.update(offset=None)),
    "rows of other lengths": ("bad-manifest", "CHK-001", lambda document: document.update(chunk=u64(0))),
    "too few digests": ("bad-manifest", "CHK-001", lambda document: document.update(digest=bytes(16))),
    "not sorted": ("bad-manifest", "CHK-003", lambda document: document.update(tensor=u32(3, 2))),
    "a chunk twice": ("bad-manifest", "CHK-003", lambda document: document.update(tensor=u32(2, 2))),
    "no such tensor": ("bad-manifest", "CHK-003", lambda document: document.update(tensor=u32(2, 8))),
    "no such chunk": ("bad-manifest", "CHK-003", lambda document: document.update(chunk=u64(0, 1))),
    "a chunk of another part": ("bad-manifest", "CHK-008", lambda document: document.update(tensor=u32(2, 4))),
    "a chunk too few": ("bad-manifest", "CHK-008", only_first_row),
    "a wrong length": ("bad-extent", "CHK-005", lambda document: document.update(length=u64(100, 99))),
    "beyond the pack": ("bad-extent", "CHK-005", lambda document: document.update(offset=u64(64, 1 << 40))),
    "overlapping": ("bad-extent", "CHK-005", lambda document: document.update(offset=u64(64, 65))),
}


@pytest.mark.parametrize("case", SEALED)
def test_part_manifests_that_break_the_specification(path: Path, case: str) -> None:
    code, statement, change = SEALED[case]
    change_part(path, 1, change)
    check_part_refused(path, 1, code, statement)


def test_part_manifests_that_are_not_the_committed_ones(path: Path) -> None:  # [CHK-006]
    good = (path / PARTS[2]).read_bytes()
    for other in (good[:-1], good + b"\0", good[:-1] + b"!", (path / PARTS[1]).read_bytes(), b""):
        (path / PARTS[2]).write_bytes(other)
        check_part_refused(path, 2, "manifest-digest", "CHK-006")
    (path / PARTS[2]).unlink()
    check_part_refused(path, 2, "missing-object", "missing")
    (path / PARTS[2]).symlink_to(path / PARTS[1])
    check_part_refused(path, 2, "linked-object", "CHK-007")
    (path / PARTS[2]).unlink()
    (path / PARTS[2]).write_bytes(good)
    assert ckptfmt.verify(path).ok


def test_unknown_keys_of_a_part_manifest_are_ignored(path: Path) -> None:  # [MAN-003]
    change_part(path, 1, lambda document: document.update(later="version"))
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), TREE)


# ---- tables that stand in the manifest


def put_inline(path: Path, number: int, **change: Any) -> None:
    table = msgpack.unpackb((path / PARTS[number]).read_bytes())
    rewrite_manifest(path, lambda manifest: manifest["parts"][number].update(chunks=table | change))
    (path / PARTS[number]).unlink()


def test_tables_may_stand_inline(path: Path) -> None:  # [LAY-005]
    for number in (0, 1, 3):
        put_inline(path, number)
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), TREE)
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint["7"][5] == 7


@pytest.mark.parametrize("case", ["a chunk of another part", "beyond the pack", "not sorted", "no offsets"])
def test_inline_tables_are_checked_when_opening(path: Path, case: str) -> None:
    code, statement, change = SEALED[case]
    table = msgpack.unpackb((path / PARTS[1]).read_bytes())
    change(table)
    put_inline(path, 1, **table)
    with pytest.raises(ckptfmt.CorruptError, match=statement) as caught:
        ckptfmt.open(path)
    assert caught.value.code == code


ROOT: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any]]] = {
    "an object twice": ("bad-manifest", "LAY-004", lambda m: m["parts"][1].update(object="packs/00000.zip")),
    "an object outside": ("bad-manifest", "CHK-007", lambda m: m["parts"][1].update(object="../x.zip")),
    "an absolute object": ("bad-manifest", "CHK-007", lambda m: m["parts"][1].update(object="/etc/passwd")),
    "an empty object": ("bad-manifest", "CHK-007", lambda m: m["parts"][1].update(object="")),
    "no object": ("bad-manifest", "MAN-002", lambda m: m["parts"][1].update(object=None)),
    "a reference outside": ("bad-manifest", "CHK-007", lambda m: m["parts"][1]["chunks"].update(path="../parts/x")),
    "no size": ("bad-manifest", "MAN-002", lambda m: m["parts"][1].update(size=None)),
    "a negative size": ("bad-manifest", "MAN-002", lambda m: m["parts"][1].update(size=-1)),
    "no frame": ("bad-manifest", "MAN-002", lambda m: m["parts"][1].update(frame=None)),
    "a frame of another algorithm": ("bad-manifest", "MAN-002", lambda m: m["parts"][1].update(frame=bytes(32))),
    "a short sha256": ("bad-manifest", "MAN-002", lambda m: m["parts"][1]["chunks"].update(sha256=bytes(16))),
    "a negative length": ("bad-manifest", "MAN-011", lambda m: m["parts"][1]["chunks"].update(length=-1)),
    "no placement": ("bad-manifest", "MAN-002", lambda m: m.pop("placement") and None),
    "no parts": ("bad-manifest", "LAY-004", lambda m: m["parts"].clear()),
    "a part too few": ("bad-manifest", "CHK-008", lambda m: m["parts"].pop() and None),
}


@pytest.mark.parametrize("case", ROOT)
def test_manifests_that_break_the_specification(path: Path, case: str) -> None:
    code, statement, change = ROOT[case]
    rewrite_manifest(path, change)
    with pytest.raises(ckptfmt.CorruptError, match=statement) as caught:
        ckptfmt.open(path)
    assert caught.value.code == code


def test_parts_that_changed_places(path: Path) -> None:
    """Every part manifest is whole and in its place by number, but `placement` puts its chunks elsewhere. [CHK-008]"""
    rewrite_manifest(path, lambda manifest: manifest["parts"].reverse())
    with ckptfmt.open(path) as checkpoint:
        for tensor in checkpoint.tensors.values():
            with pytest.raises(ckptfmt.CorruptError, match="CHK-008") as caught:
                tensor.read()
            assert caught.value.code == "bad-manifest"
    assert not ckptfmt.verify(path).ok


def test_a_part_without_chunks(path: Path) -> None:
    """A rank that had nothing to write may leave an empty pack."""
    empty: dict[str, Any] = {"tensor": b"", "chunk": b"", "offset": b"", "length": b"", "digest": b""}
    pack = b"PK\5\6" + bytes(18)
    (path / "packs" / "00004.zip").write_bytes(pack)

    def add(manifest: dict[str, Any]) -> None:
        frame = manifest_digest(manifest, pack)
        manifest["parts"].append({"object": "packs/00004.zip", "size": len(pack), "frame": frame, "chunks": empty})

    rewrite_manifest(path, add)
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), TREE)


def manifest_digest(manifest: dict[str, Any], data: bytes) -> bytes:
    import xxhash

    assert manifest["digest"] == "xxh3-128"
    return xxhash.xxh3_128_digest(data)
