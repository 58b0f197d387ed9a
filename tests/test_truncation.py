"""Files that are too short or too long: every length of a file, every length of every file of a directory, missing and
added files. Never a wrong value. [COM-004] [COM-005] [READ-005] [LAY-003]"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import METADATA, Zone, save_varied, zones

import ckptfmt
from ckptfmt.format.names import path_label
from ckptfmt.layouts import packed
from ckptfmt.testing import equal_trees


def code_of(path: Path) -> str:
    """The code with which loading fails; opening first, as a load does no more than that until it reads chunks."""
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.load(path)
    assert caught.value.path == str(path)
    return caught.value.code


def test_every_length_of_a_file(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.ckpt", tmp_path / "cut.ckpt"
    save_varied(whole, "file")
    record = zones(whole)[-1].start
    data = whole.read_bytes()
    for length in reversed(range(len(data))):
        path.write_bytes(data[:length])
        if length > record + len(b"ckptfmt/"):
            expected = "bad-record"
        elif length >= 38:  # past `tensors/`, with which the name of the first member begins
            expected = "truncated"
        else:
            expected = "not-a-checkpoint"
        assert code_of(path) == expected, length
        if expected == "not-a-checkpoint":
            with pytest.raises(ckptfmt.NotACheckpointError):
                ckptfmt.verify(path)
        else:
            assert [damage.code for damage in ckptfmt.verify(path).damage] == [expected]


def test_a_checkpoint_within_a_checkpoint(tmp_path: Path) -> None:
    """A tensor that holds a checkpoint's bytes, commit record included: cutting there uncovers no other checkpoint."""
    inner, outer, path = tmp_path / "inner.ckpt", tmp_path / "outer.ckpt", tmp_path / "cut.ckpt"
    ckptfmt.save(inner, {"x": np.arange(3)}, durable=False)
    tree = {"file": np.frombuffer(inner.read_bytes(), np.uint8), "record": inner.read_bytes()[-255:]}
    ckptfmt.save(outer, tree, durable=False)
    data = outer.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert code_of(path) in ("not-a-checkpoint", "truncated", "bad-record", "manifest-digest")
    assert equal_trees(ckptfmt.load(outer), tree)


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"x" * 47, b"\0" * 255, b"\0" * 10_000, b"ckptfmt/1.0 file"])
def test_bytes_after_the_end(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "model.ckpt"
    save_varied(path, "file")
    with path.open("ab") as file:
        file.write(tail)
    assert code_of(path) in ("bad-record", "truncated")
    assert not ckptfmt.verify(path).ok


def test_two_checkpoints_in_one_file(tmp_path: Path) -> None:
    """Concatenated, neither is found with wrong values: the manifest of the last record lies elsewhere."""
    one, two, both = tmp_path / "one.ckpt", tmp_path / "two.ckpt", tmp_path / "both.ckpt"
    ckptfmt.save(one, {"x": np.arange(3)}, durable=False)
    ckptfmt.save(two, {"x": np.arange(4)}, durable=False)
    both.write_bytes(one.read_bytes() + two.read_bytes())
    assert code_of(both) == "manifest-digest"
    twice = tmp_path / "twice.ckpt"
    twice.write_bytes(one.read_bytes() * 2)  # here the manifest lies in the first copy, and all values with it
    assert equal_trees(ckptfmt.load(twice), {"x": np.arange(3)})
    assert [damage.code for damage in ckptfmt.verify(twice).damage] == ["frame-digest"]


def test_a_byte_lost_in_between(tmp_path: Path) -> None:
    """It moves all bytes behind it, so the manifest is not where the record says, unless it was lost behind that."""
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "file")
    data, places = path.read_bytes(), zones(path)
    manifest = next(zone for zone in places if zone.where == "manifest")
    for zone in places:
        path.write_bytes(data[: zone.start] + data[zone.start + 1 :])
        if manifest.stop <= zone.start < places[-1].start:
            assert equal_trees(ckptfmt.load(path), tree)
        else:
            assert code_of(path) in ("manifest-digest", "truncated")
        assert not ckptfmt.verify(path).ok


# ---- layout loose


def check_short(path: Path, zone: Zone, tree: object) -> None:
    if zone.where == "block":
        with ckptfmt.open(path) as checkpoint:
            with pytest.raises(ckptfmt.CorruptError) as caught:
                checkpoint[zone.tensor or ()].read()
            assert caught.value.code == ("short-object" if zone.file.exists() else "missing-object")
            assert caught.value.tensor == path_label(zone.tensor or ())
            others = [keys for keys, tensor in checkpoint.tensors.items() if tensor.path != zone.tensor]
            assert all(checkpoint[keys].read() is not None for keys in others)
            (damage,) = checkpoint.verify().damage
            assert (damage.code, damage.object) == (caught.value.code, zone.object)
    elif zone.where == "frame":
        assert equal_trees(ckptfmt.load(path), tree)
        (damage,) = ckptfmt.verify(path).damage
        assert (damage.code, damage.object) == ("frame-digest", zone.object)
    else:
        assert code_of(path) in ("bad-record", "manifest-digest", "missing-object", "not-a-checkpoint")


def test_every_length_of_every_file_of_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "loose")
    for zone in zones(path):
        data = zone.file.read_bytes()
        step = 1 if zone.where in ("block", "commit") else 37
        for length in range(0, zone.stop, step):
            zone.file.write_bytes(data[:length])
            check_short(path, zone, tree)
        zone.file.write_bytes(data)
    assert ckptfmt.verify(path).ok


def test_every_file_of_a_directory_missing(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "loose")
    for zone in zones(path):
        data = zone.file.read_bytes()
        zone.file.unlink()
        check_short(path, zone, tree)
        if zone.where == "commit":
            with pytest.raises(ckptfmt.NotACheckpointError):
                ckptfmt.open(path)
        zone.file.write_bytes(data)
    shutil.rmtree(path / "tensors")
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.metadata == METADATA
        damaged = [damage.tensor for damage in checkpoint.verify().damage if damage.where == "block"]
        assert len(damaged) == sum(tensor.chunks for tensor in set(checkpoint.tensors.values()))


def test_every_file_of_a_directory_too_long(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "loose")
    for zone in zones(path):
        data = zone.file.read_bytes()
        zone.file.write_bytes(data + b"\0")
        if zone.where in ("commit", "manifest"):
            assert code_of(path) == {"commit": "bad-record", "manifest": "manifest-digest"}[zone.where]
        else:
            assert equal_trees(ckptfmt.load(path), tree)  # what lies beyond a chunk is not read
        report = ckptfmt.verify(path)
        assert [damage.object for damage in report.damage] == [
            zone.object if zone.where in ("block", "frame") else "",
        ]
        zone.file.write_bytes(data)


# ---- layout packed


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of several packs, and its tree."""
    path = tmp_path / "model.ckpt"
    tree = {str(i): np.full(100, i, np.uint8) for i in range(8)}
    monkeypatch.setattr(packed, "PACK_BYTES", 200)
    ckptfmt.save(path, tree, layout="packed", metadata=METADATA, durable=False)
    assert len(list((path / "packs").iterdir())) == len(list((path / "parts").iterdir())) == 4
    return path, tree


def check_rest(path: Path, tree: dict[str, Any], lost: dict[str, str]) -> None:
    """All tensors load but those in `lost`, which fail with these codes and say who they are."""
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.metadata == METADATA
        for name, array in tree.items():
            try:
                assert equal_trees(checkpoint[name].read(), array)
                assert name not in lost
            except ckptfmt.CorruptError as error:
                assert (error.code, error.tensor, error.path) == (lost.get(name), repr(name), str(path))


def in_pack(path: Path, number: int) -> list[Zone]:
    """The chunks in a pack."""
    return [zone for zone in zones(path) if zone.object == f"packs/{number:05d}.zip" and zone.tensor]


@pytest.mark.parametrize("number", range(4))
def test_packs_cut_short(packs: tuple[Path, dict[str, Any]], number: int) -> None:
    path, tree = packs
    chunks, file = in_pack(path, number), path / "packs" / f"{number:05d}.zip"
    data = file.read_bytes()
    lengths = {*range(0, len(data), 13), *(zone.stop - cut for zone in chunks for cut in (0, 1, 99, 100))}
    for length in sorted(lengths):
        file.write_bytes(data[:length])
        lost = {str(zone.tensor[0]): "short-object" for zone in chunks if zone.tensor and length < zone.stop}
        check_rest(path, tree, lost)
        report = ckptfmt.verify(path)
        assert {damage.tensor for damage in report.damage} == {*map(repr, lost), None}
        assert {damage.object for damage in report.damage} == {f"packs/{number:05d}.zip"}
        assert [damage.code for damage in report.damage if damage.where == "frame"] == ["bad-extent"]  # [LAY-007]
    file.write_bytes(data)
    assert ckptfmt.verify(path).ok


def test_missing_and_longer_files_of_packs(packs: tuple[Path, dict[str, Any]]) -> None:
    """[READ-005] [CHK-006] What is lost is what lies in them."""
    path, tree = packs
    for number in range(4):
        names = [str(zone.tensor[0]) for zone in in_pack(path, number) if zone.tensor]
        assert len(names) == 2
        for name in (f"packs/{number:05d}.zip", f"parts/{number:05d}.msgpack"):
            file = path / name
            data = file.read_bytes()
            file.unlink()
            check_rest(path, tree, dict.fromkeys(names, "missing-object"))
            report = ckptfmt.verify(path)
            assert {damage.code for damage in report.damage} == {"missing-object"}
            assert {damage.object for damage in report.damage} == {name}
            file.write_bytes(data + b"\0")
            is_pack = name.startswith("packs")
            check_rest(path, tree, {} if is_pack else dict.fromkeys(names, "manifest-digest"))
            (damage,) = ckptfmt.verify(path).damage
            assert (damage.code, damage.object) == ("bad-extent" if is_pack else "manifest-digest", name)
            file.write_bytes(data)
    assert ckptfmt.verify(path).ok


def test_every_length_of_a_part_manifest(packs: tuple[Path, dict[str, Any]]) -> None:
    path, tree = packs
    lost = {str(zone.tensor[0]): "manifest-digest" for zone in in_pack(path, 1) if zone.tensor}
    file = path / "parts" / "00001.msgpack"
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        check_rest(path, tree, lost)
        (damage,) = ckptfmt.verify(path).damage
        assert (damage.code, damage.where, damage.object) == ("manifest-digest", "manifest", "parts/00001.msgpack")


def test_the_other_files_of_packed(packs: tuple[Path, dict[str, Any]]) -> None:
    path, _ = packs
    for name, code in (("COMMIT", "bad-record"), ("manifest.msgpack", "manifest-digest")):
        data = (path / name).read_bytes()
        for length in (*range(len(data)), None):
            (path / name).write_bytes(data + b"\n" if length is None else data[:length])
            assert code_of(path) == code
        (path / name).unlink()
        assert code_of(path) == {"COMMIT": "not-a-checkpoint", "manifest.msgpack": "missing-object"}[name]
        (path / name).write_bytes(data)


def test_a_large_file_that_lost_its_tail(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.zeros(3_000_000)}, durable=False)
    size = path.stat().st_size
    for length in (size - 1, size - 4096, size // 2, 65536, 1000):
        os.truncate(path, length)
        assert code_of(path) in ("truncated", "bad-record")
