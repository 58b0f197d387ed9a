"""Whole verification: what the report says, every digest algorithm, every place of damage, and what it forgives.
[BLK-002] [BLK-004] [FRM-001] [FRM-002] [FRM-004] [ZARR-011]"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from damage import KINDS, LAYOUTS, flipped, rewrite_manifest, save_varied, small_chunks, zones
from inside import inside

import ckptfmt
from ckptfmt.maintenance import verification
from ckptfmt.testing import assert_same_tree, using_disk
from stress.faults import FaultyDisk, failing

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def damage_of(path: Path) -> ckptfmt.Damage:
    """The one place of damage."""
    report = ckptfmt.verify(path)
    assert not report.ok
    (damage,) = report.damage
    return damage


# ---- what is whole


@each_layout
def test_the_report(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = {"large": np.zeros(9 << 20, np.uint8), "small": np.arange(3), "empty": np.zeros(0), "plain": 1}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    report = ckptfmt.verify(path)
    assert report.ok
    assert report == ckptfmt.VerifyReport(str(path), (), tensors=3, blocks=3 + 1, bytes=(9 << 20) + 24)
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.verify() == report


@each_layout
def test_a_checkpoint_without_tensors(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    for tree in ({}, None, [], 5, {"a": np.zeros((3, 0))}):
        ckptfmt.save(path, tree, layout=layout, overwrite=True, durable=False)
        report = ckptfmt.verify(path, progress=lambda done, total: pytest.fail("there is nothing to wait for"))
        assert (report.ok, report.blocks, report.bytes) == (True, 0, 0)


@each_layout
@pytest.mark.parametrize("compression", [None, "blosc"])
def test_progress_grows_to_the_total(tmp_path: Path, layout: str, compression: str | None) -> None:
    path = tmp_path / "model.ckpt"
    tree = {str(i): np.random.default_rng(i).integers(0, 99, (1 << 20) * i, np.uint8) for i in range(8)}
    with small_chunks(chunk=3 << 20):
        ckptfmt.save(path, tree, layout=layout, compression=compression, durable=False)
    seen: list[tuple[int, int]] = []
    report = ckptfmt.verify(path, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 2
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {report.bytes}
    assert seen[-1] == (report.bytes, report.bytes)


@each_layout
def test_verifying_changes_nothing(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    save_varied(path, layout)

    def state() -> list[Any]:
        files = sorted(tmp_path.rglob("*"))
        return [(file, file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in files]

    before = state()
    with flipped(zones(path)[0].file, 5, 1):
        ckptfmt.verify(path)
    os.utime(zones(path)[0].file, ns=(0, {file: time for file, time, _ in before}[zones(path)[0].file]))
    assert ckptfmt.verify(path).ok
    assert state() == before


# ---- digests


@each_layout
@pytest.mark.parametrize("digest", ["xxh3-128", "sha256", "blake3"])
def test_digests(tmp_path: Path, layout: str, digest: str) -> None:
    if digest == "blake3":
        pytest.importorskip("blake3", reason="blake3 is an optional package")
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout, digest=digest)
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), tree)
    for zone in zones(path):
        if zone.where in ("block", "frame"):
            with flipped(zone.file, zone.stop - 1, 7):
                assert damage_of(path).where == zone.where


# ---- places


def test_the_frame_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.arange(3), "y": np.zeros(70_000, np.uint8)}, durable=False)
    frames = [zone for zone in zones(path) if zone.where == "frame"]
    expected = {
        0: "a node document",
        frames[1].start: "the ZIP header of tensors/y/c/0",
        frames[2].start: "the ZIP header of manifest.msgpack",
        frames[3].start: "the ZIP directory",
        frames[3].stop - 1: "the ZIP directory",
    }
    for offset, words in expected.items():
        with flipped(path, offset, 2):
            damage = damage_of(path)
            assert words in damage.message
            assert (damage.code, damage.offset, damage.tensor) == ("frame-digest", offset, None)
            assert_same_tree(ckptfmt.load(path)["x"], np.arange(3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_place_of_whatever_changes_in_a_frame(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, kind)
    frames = [zone for zone in zones(path) if zone.where == "frame"]
    assert len(frames) > 5
    for zone in frames:
        for at in {zone.start, zone.stop - 1}:
            with flipped(zone.file, at, 3):
                damage = damage_of(path)
                assert (damage.code, damage.object, damage.offset) == ("frame-digest", zone.object, at)
                assert "changed at byte" in damage.message
                assert_same_tree(ckptfmt.load(path), tree)


@pytest.mark.parametrize("kind", ["file", "packed", "paged", "packed paged"])
def test_the_place_in_a_frame_beside_damaged_chunks(tmp_path: Path, kind: str) -> None:
    """Whose crc32 nobody can compute."""
    path = tmp_path / "model.ckpt"
    save_varied(path, kind)
    chunks = [zone for zone in zones(path) if zone.where == "block"]
    frame = [zone for zone in zones(path) if zone.where == "frame"][-1]
    with flipped(chunks[0].file, chunks[0].start, 1), flipped(chunks[-1].file, chunks[-1].stop - 1, 1):
        assert {damage.code for damage in ckptfmt.verify(path).damage} == {"block-digest"}
        with flipped(frame.file, frame.stop - 1, 3):
            (found,) = [damage for damage in ckptfmt.verify(path).damage if damage.code == "frame-digest"]
            assert (found.object, found.offset) == (frame.object, frame.stop - 1)


@pytest.mark.parametrize("kind", ["packed", "packed paged"])
@pytest.mark.parametrize("change", ["longer", "missing"])
def test_a_pack_of_which_nobody_knows_the_table_has_its_size(tmp_path: Path, kind: str, change: str) -> None:
    path = tmp_path / "model.ckpt"
    save_varied(path, kind)
    pack = path / "packs/00000.zip"
    raw, table = pack.read_bytes(), path / ("pages.bin" if "paged" in kind else "parts/00000.msgpack")
    with flipped(table, 9, 3):
        assert [damage.code for damage in ckptfmt.verify(path).damage] == ["manifest-digest"]
        if change == "longer":
            pack.write_bytes(raw + b"x")
        else:
            pack.unlink()
        codes = {(damage.code, damage.where, damage.object) for damage in ckptfmt.verify(path).damage}
    code = {"longer": "bad-extent", "missing": "missing-object"}[change]  # [LAY-007]
    assert (code, "frame", "packs/00000.zip") in codes


def test_a_frame_written_in_another_way_has_no_place(tmp_path: Path) -> None:
    """Where the canonical frame is unknown, damage is still found."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.arange(3)}, durable=False)
    rewrite_manifest(path, lambda document: None)  # without the ZIP directory
    assert damage_of(path).code == "frame-digest"
    assert_same_tree(ckptfmt.load(path), {"x": np.arange(3)})


def test_node_documents_of_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "loose")
    for zone in [zone for zone in zones(path) if zone.where == "frame"]:
        data = zone.file.read_bytes()
        zone.file.write_bytes(data.replace(b"3", b"2", 1))
        damage = damage_of(path)
        assert (damage.code, damage.object, damage.offset) == ("frame-digest", zone.object, data.index(b"3"))
        zone.file.unlink()
        damage = damage_of(path)
        assert (damage.code, damage.object) == ("frame-digest", zone.object)
        assert "missing" in damage.message
        assert_same_tree(ckptfmt.load(path), tree)
        zone.file.write_bytes(data)


def test_files_that_are_no_part_of_a_directory_are_ignored(tmp_path: Path) -> None:
    """[ZARR-001]"""
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "loose")
    for name in ("README.md", "tensors/.DS_Store", "tensors/raw/c/9/9", "tensors/extra/zarr.json", "COMMIT~"):
        file = path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(b"no part of it")
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), tree)


@each_layout
def test_all_damage_is_listed(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = {name: np.zeros(5 << 20, np.uint8) for name in "abc"}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    chunks = {zone.tensor[0]: zone for zone in zones(path) if zone.tensor}
    frame = next(zone for zone in zones(path) if zone.where == "frame")
    with (
        flipped(chunks["a"].file, chunks["a"].start, 0),
        flipped(chunks["a"].file, chunks["a"].stop - 1, 0),
        flipped(chunks["c"].file, chunks["c"].start + (4 << 20), 0),
        flipped(frame.file, frame.start, 0),
    ):
        report = ckptfmt.verify(path)
    found = [(damage.tensor, damage.block, damage.length) for damage in report.damage]
    assert found == [("a", 0, 4 << 20), ("a", 1, 1 << 20), ("c", 1, 1 << 20), (None, None, None)]
    assert [damage.object for damage in report.damage[:3]] == [chunks[name].object for name in "aac"]
    assert report.tensors == 3
    assert report.bytes == 3 * (5 << 20)


@each_layout
def test_damage_of_the_manifest_and_the_record(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    save_varied(path, layout)
    places = {zone.where: zone for zone in zones(path)}
    for where, code in (("manifest", "manifest-digest"), ("commit", "bad-record")):
        with flipped(places[where].file, places[where].stop - 1, 1):
            damage = damage_of(path)
            assert (damage.code, damage.where, damage.tensor) == (code, where, None)


# ---- what digests cannot find


def forge(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace the only chunk of a directory, with a digest that fits."""
    (chunk,) = path.glob("tensors/c/*")
    data = change(chunk.read_bytes())
    chunk.write_bytes(data)

    def claim(document: dict[str, Any]) -> None:
        table = document["parts"][0]["chunks"]
        table["length"] = len(data).to_bytes(8, "little")
        table["digest"] = xxhash.xxh3_128_digest(data)

    rewrite_manifest(path, claim)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "blosc"])
@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"\0" * len(data), lambda data: data * 2],
    ids=["cut", "longer", "zeros", "twice"],
)
def test_a_chunk_that_does_not_decode(tmp_path: Path, compression: str, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, np.arange(1000), layout="loose", compression=compression, durable=False)
    forge(path, change)
    damage = damage_of(path)
    assert (damage.code, damage.where, damage.chunk) == ("bad-chunk", "block", 0)
    with ckptfmt.open(path) as checkpoint:
        for read in (checkpoint.load, checkpoint.tree.read, lambda: checkpoint.tree[3]):
            with pytest.raises(ckptfmt.CorruptError) as caught:
                read()
            assert (caught.value.code, caught.value.tensor, caught.value.chunk) == ("bad-chunk", "", 0)


def test_a_bool_that_is_neither(tmp_path: Path) -> None:
    """[DTYPE-005]"""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, np.array([True, False, True]), layout="loose", durable=False)
    forge(path, lambda data: b"\1\0\2")
    assert damage_of(path).code == "bad-chunk"
    for options in ({}, {"mmap": True, "verify": True}, {"into": np.zeros(3, bool)}):
        with pytest.raises(ckptfmt.CorruptError) as caught:
            ckptfmt.load(path, **options)
        assert caught.value.code == "bad-chunk"
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.tree[:2].tolist() == [True, False]


# ---- what cannot be verified


def test_what_is_no_checkpoint_raises(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    (tmp_path / "x.ckptfmt-tmp").write_bytes(b"")
    for name, code in (("nothing", "not-found"), ("text", "not-a-checkpoint"), ("x.ckptfmt-tmp", "temporary")):
        with pytest.raises(ckptfmt.CkptError) as caught:
            ckptfmt.verify(tmp_path / name)
        assert caught.value.code == code


# ---- going on where it was


class Interrupted(Exception):
    """Stands for a process that ends in the middle."""


def interrupted(path: Path, state: Path, after: int) -> None:
    """Verify until `after` bytes are done."""

    def progress(done: int, total: int) -> None:
        if done >= after:
            raise Interrupted

    with pytest.raises(Interrupted):
        ckptfmt.verify(path, progress=progress, resume=state)


def save_many(path: Path, layout: str) -> int:
    """Twelve tensors of 5 MiB; gives the bytes."""
    tree = {f"t{i:02}": np.full(5 << 20, i, np.uint8) for i in range(12)}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    return 60 << 20


@pytest.fixture(params=[None, 1], ids=["chunk by chunk", "block by block"])
def jobs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What of a large chunk one job checks: all, or a block."""
    if request.param is not None:
        monkeypatch.setattr(verification, "STRETCH", request.param)


@each_layout
@pytest.mark.usefixtures("jobs")
def test_a_verification_goes_on_where_it_was(tmp_path: Path, layout: str) -> None:
    path, state = tmp_path / "model.ckpt", tmp_path / "state"
    total = save_many(path, layout)
    whole = ckptfmt.verify(path)
    interrupted(path, state, total // 2)
    kept = state.read_bytes()
    assert 0 < len(kept) < 300
    seen: list[int] = []
    report = ckptfmt.verify(path, progress=lambda done, _: seen.append(done), resume=state)
    assert report == whole
    assert total // 3 < seen[0] < total
    assert seen[-1] == total
    assert not state.exists(), "it is removed when the verification has ended"


@each_layout
@pytest.mark.usefixtures("jobs")
def test_damage_found_before_an_interruption_is_found_again(tmp_path: Path, layout: str) -> None:
    path, state = tmp_path / "model.ckpt", tmp_path / "state"
    total = save_many(path, layout)
    places = {zone.tensor: zone for zone in zones(path) if zone.where == "block"}
    first, last = places[("t01",)], places[("t11",)]
    with flipped(first.file, first.start + 5_000_000, 0), flipped(last.file, last.start, 0):
        whole = ckptfmt.verify(path)
        assert [damage.path for damage in whole.damage] == [("t01",), ("t11",)]
        interrupted(path, state, total // 2)
        interrupted(path, state, total // 2 + (10 << 20))
        report = ckptfmt.verify(path, resume=state)
        assert report == whole
    interrupted(path, state, total // 2)
    with flipped(first.file, first.start, 0):  # after it was checked: trusted, as the file says
        assert ckptfmt.verify(path, resume=state).damage == ()


@each_layout
@pytest.mark.usefixtures("jobs")
def test_damage_in_a_chunk_that_was_not_done_is_found_once(tmp_path: Path, layout: str) -> None:
    path, state = tmp_path / "model.ckpt", tmp_path / "state"
    save_many(path, layout)
    (zone,) = (zone for zone in zones(path) if zone.where == "block" and zone.tensor == ("t00",))
    with flipped(zone.file, zone.start, 0):
        interrupted(path, state, 1)
        report = ckptfmt.verify(path, resume=state)
        assert [(damage.path, damage.block) for damage in report.damage if damage.where == "block"] == [(("t00",), 0)]


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_a_large_chunk_is_checked_by_many_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    path = tmp_path / "model.ckpt"
    monkeypatch.setattr(verification, "STRETCH", 8 << 20)
    ckptfmt.save(path, {"x": np.zeros((20 << 20) + 7, dtype)}, durable=False)
    seen: list[int] = []
    report = ckptfmt.verify(path, progress=lambda done, _: seen.append(done))
    assert (report.damage, report.blocks, report.bytes) == ((), 6, (20 << 20) + 7)
    assert seen[-3:] == [8 << 20, 16 << 20, (20 << 20) + 7]
    (zone,) = (zone for zone in zones(path) if zone.where == "block")
    places = [zone.start, zone.start + (13 << 20), zone.stop - 1]
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(flipped(zone.file, place, 0))
        assert [damage.block for damage in ckptfmt.verify(path).damage] == [0, 3, 5]


def test_the_state_of_another_verification_is_refused(tmp_path: Path) -> None:
    path, other, state = tmp_path / "model.ckpt", tmp_path / "other.ckpt", tmp_path / "state"
    total = save_many(path, "file")
    ckptfmt.save(other, {"x": np.zeros(3)}, durable=False)
    interrupted(path, state, total // 2)
    before = state.read_bytes()
    with pytest.raises(ckptfmt.InputError, match="another checkpoint"):
        ckptfmt.verify(other, resume=state)
    assert state.read_bytes() == before
    for text in ("", "[]", "{}", '{"ckptfmt_verify": 2}'):
        state.write_text(text)
        with pytest.raises(ckptfmt.InputError, match="no file of a verification"):
            ckptfmt.verify(path, resume=state)
        assert state.read_text() == text
    with pytest.raises(ckptfmt.MissingError):
        ckptfmt.verify(path, resume=tmp_path / "no" / "folder")


def test_bools_of_a_large_chunk_are_looked_at_in_pieces(tmp_path: Path) -> None:  # [DTYPE-005]
    """A byte that is neither 0 nor 1 under a digest that is right, in the last piece."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.ones(9 << 20, bool)}, durable=False)
    with ckptfmt.open(path) as checkpoint:
        extent = inside(checkpoint).blocks.place(0, 0).extent
    data = bytearray(path.read_bytes())
    data[extent.offset + extent.length - 1] = 2
    block = bytes(data[extent.offset + (8 << 20) : extent.offset + extent.length])
    path.write_bytes(data)

    def change(document: dict[str, Any]) -> None:
        table = document["parts"][0]["chunks"]
        table["digest"] = table["digest"][:-16] + xxhash.xxh3_128_digest(block)

    rewrite_manifest(path, change)
    assert [damage.code for damage in ckptfmt.verify(path).damage if damage.where == "block"] == ["bad-chunk"]


# ---- a disk that fails


@each_layout
def test_what_cannot_be_read_is_damage_beside_the_rest(tmp_path: Path, layout: str) -> None:
    """Each read after opening fails in turn: what was found before is told all the same."""
    path = tmp_path / "model.ckpt"
    tree = {"good": np.arange(9.0), "bad": np.arange(70.0), "flag": np.array([True, False])}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    (zone,) = [zone for zone in zones(path) if zone.tensor == ("bad",)]
    with flipped(zone.file, zone.start, 2):
        with using_disk(opening := FaultyDisk(-1, failing(0), reads=True)):
            ckptfmt.open(path).close()
        with using_disk(calm := FaultyDisk(-1, failing(0), reads=True)):
            before = set(ckptfmt.verify(path).damage)
        codes = []
        for at in range(len(opening.called), len(calm.called)):
            with using_disk(disk := FaultyDisk(at, failing(errno.EIO), reads=True)):
                report = ckptfmt.verify(path)
            if at >= len(disk.called):
                continue  # threads do not always make as many calls
            found = {(damage.path, damage.code) for damage in report.damage}
            lost = any(damage.where == "manifest" for damage in report.damage)  # a part manifest, and what lies in it
            assert lost or (("bad",), "block-digest") in found or (("bad",), "io") in found
            codes += [damage.code for damage in report.damage if damage.where != "block" and damage not in before]
        assert "io" in codes
