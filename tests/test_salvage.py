"""Repair: what is whole is taken over bit for bit, what is not is left out or filled, and the source stays as it was.
[REP-001] [REP-002]"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from click.testing import CliRunner
from damage import LAYOUTS, flipped, leftovers, rewrite_manifest, save_varied, small_chunks, zones
from inside import inside

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.testing import assert_same_tree

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def state(path: Path) -> dict[str, str]:
    """The digest of every file."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def repaired(path: Path, **options: Any) -> tuple[ckptfmt.RepairReport, Any]:
    """Repair into a new place: the report, and the tree that is there."""
    target = path.parent / "salvaged.ckpt"
    before = state(path)
    report = ckptfmt.repair(path, target, overwrite=True, durable=False, **options)
    assert state(path) == before, "the source is only read"
    assert leftovers(path.parent) == []
    assert ckptfmt.verify(target).ok
    return report, ckptfmt.load(target)


def zone_of(path: Path, *tensor: Any) -> Any:
    return next(zone for zone in zones(path) if zone.where == "block" and zone.tensor == tensor)


# ---- what is lost


@each_layout
def test_nothing_is_lost_of_what_is_whole(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout, schema=("model", "3"))
    report, found = repaired(path)
    assert_same_tree(found, tree)
    assert (report.ok, report.proof, report.lost, report.damage) == (True, "record", (), ())
    with ckptfmt.open(path) as before, ckptfmt.open(tmp_path / "salvaged.ckpt") as after:
        assert report.tensors == len(before) == len(after)
        assert (after.metadata, after.schema, after.layout) == (before.metadata, before.schema, layout)
        assert [tensor.codec for tensor in inside(after).handles] == [tensor.codec for tensor in inside(before).handles]
        (record,) = inside(after).manifest.unknown["provenance"]
        assert record["operation"] == "repair"
        assert record["source"].hex() == before.manifest_sha256
        assert record["lost"] == []


@each_layout
@pytest.mark.parametrize("damaged", [("raw",), ("zipped",), ("int4",), ("tied", 0), (0,), ("0",), ("when",)])
def test_a_damaged_tensor_is_left_out(tmp_path: Path, layout: str, damaged: tuple[Any, ...]) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout)
    zone = zone_of(path, *damaged)
    with flipped(zone.file, zone.start, 3):
        report, found = repaired(path)
    assert [lost.path for lost in report.lost] == [damaged]
    assert not report.lost[0].filled
    assert {damage.code for damage in report.damage} == {"block-digest"}
    if damaged == ("tied", 0):
        tree["tied"] = [None, (None, None)]  # both aliases; items of lists and tuples keep their places
    else:
        del tree[damaged[0]]
    assert_same_tree(found, tree)


@each_layout
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_damaged_blocks_are_filled(tmp_path: Path, layout: str, fill: float) -> None:
    """Raw tensors lose the elements of the damaged block alone, compressed and sub-byte ones those of the chunk."""
    path = tmp_path / "model.ckpt"
    tree = {
        "raw": np.arange(40_000, dtype=np.int32).reshape(100, 400) + 5,
        "zipped": np.arange(40_000, dtype=np.float64).reshape(200, 200) + 5,
        "half": np.full(9000, 5, ml_dtypes.bfloat16),
        "packed": np.full((3, 9000), 5, ml_dtypes.int4),
        "other": np.arange(3),
    }
    with small_chunks():
        ckptfmt.save(path, tree, layout=layout, compression={"zipped": "zstd"}, durable=False)
    places = {name: zone_of(path, name) for name in tree}
    at = {"raw": 3 * 4096 + 17, "zipped": 40, "half": 4096, "packed": 1}
    for name, offset in at.items():
        with flipped(places[name].file, places[name].start + offset, 0):
            report, found = repaired(path, fill=fill)
        assert [(lost.path, lost.filled) for lost in report.lost] == [((name,), True)]
        changed = found[name] != tree[name]
        assert (found[name][changed].astype(np.float64) == fill).all()
        flat = changed.reshape(-1)
        if name == "raw":
            assert np.flatnonzero(flat).tolist() == list(range(3 * 1024, 4 * 1024))
        if name == "half":
            assert np.flatnonzero(flat).tolist() == list(range(2048, 4096))
        if name == "zipped":
            rows = np.flatnonzero(changed.any(axis=1))
            assert changed[rows].all()
            assert 0 < len(rows) < 200
        if name == "packed":
            assert flat.all()
        assert_same_tree({**found, name: 0}, {**tree, name: 0})
        with ckptfmt.open(tmp_path / "salvaged.ckpt") as checkpoint:
            (record,) = inside(checkpoint).manifest.unknown["provenance"]
        assert record["fill"] == fill
        assert [lost["name"] for lost in record["lost"]] == [name]


def test_a_fill_that_a_dtype_lacks(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"a": np.arange(4, dtype=np.uint8), "b": np.arange(4.0)}, durable=False)
    zone = zone_of(path, "a")
    with flipped(zone.file, zone.start, 0):
        for fill in (300.0, -1.0, float("nan"), 0.5):
            with pytest.raises(ckptfmt.InputError, match="fill="):
                ckptfmt.repair(path, tmp_path / "new.ckpt", fill=fill)
            assert not (tmp_path / "new.ckpt").exists()
        assert repaired(path, fill=255)[1]["a"].tolist() == [255] * 4
    zone = zone_of(path, "b")
    with flipped(zone.file, zone.start, 0):
        assert np.isnan(repaired(path, fill=float("nan"))[1]["b"]).all()


def test_missing_and_short_objects(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = {"a": np.arange(4), "b": [np.arange(5), np.arange(6)], "c": np.arange(7)}
    ckptfmt.save(path, tree, layout="loose", durable=False)
    (path / "tensors" / "a" / "c" / "0").unlink()
    (path / "tensors" / "b" / "0" / "c" / "0").write_bytes(bytes(3))
    (path / "tensors" / "c" / "zarr.json").unlink()  # which is in no value
    report, found = repaired(path)
    assert_same_tree(found, {"b": [None, tree["b"][1]], "c": tree["c"]})  # type: ignore[index]
    assert {damage.code for damage in report.damage} == {"missing-object", "short-object"}
    report, found = repaired(path, fill=7)
    assert found["a"].tolist() == [7] * 4
    assert found["b"][0].tolist() == [7] * 5


@pytest.mark.parametrize("what", ["packs/00000.zip", "parts/00000.msgpack"])
def test_a_pack_without_its_bytes_or_its_table(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.ckpt"
    monkeypatch.setattr("ckptfmt.layouts.packed.PACK_BYTES", 1000)
    tree = {"a": np.arange(100), "b": np.arange(200), "c": np.arange(300), "d": 5}
    ckptfmt.save(path, tree, layout="packed", durable=False)
    assert len(list((path / "packs").iterdir())) > 1
    (path / what).unlink()
    report, found = repaired(path)
    assert [lost.path for lost in report.lost] == [("a",), ("b",)]
    assert_same_tree(found, {"c": tree["c"], "d": 5})
    report, found = repaired(path, fill=1)
    assert found["a"].tolist() == [1] * 100


def test_tags_stay_what_they_are(tmp_path: Path) -> None:
    """Also those whose framework is not here: nodes are taken over, not what they stand for."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"a": np.arange(3), "b": np.arange(4), "n": 1}, durable=False)

    def tag(document: dict[str, Any]) -> None:
        mine = ["tag", "mine", ["dict", ["p"], [1]], ["list", [["tensor", 1]]]]
        items = [["tag", "torch.Parameter", True, ["tensor", 0]], mine]
        document["tree"] = ["dict", ["a", ["int", b"\x01" * 20]], items]

    rewrite_manifest(path, tag)
    with flipped(path, zone_of_file(path, 1), 0):
        report = ckptfmt.repair(path, tmp_path / "new.ckpt", durable=False)
    assert len(report.lost) == 1
    with ckptfmt.open(tmp_path / "new.ckpt") as checkpoint:
        assert inside(checkpoint).manifest.tree == [
            "dict",
            ["a", ["int", b"\x01" * 20]],
            [["tag", "torch.Parameter", True, ["tensor", 0]], ["tag", "mine", ["dict", ["p"], [1]], ["list", [None]]]],
        ]


def zone_of_file(path: Path, tensor: int) -> int:
    with ckptfmt.open(path) as checkpoint:
        return inside(checkpoint).blocks.place(tensor, 0).extent.offset


def test_a_tree_that_is_one_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, np.arange(9.0), durable=False)
    with flipped(path, zone_of(path).start, 0):
        report, found = repaired(path)
        assert found is None
        assert repaired(path, fill=2)[1].tolist() == [2.0] * 9
    assert report.tensors == 0


@pytest.mark.parametrize("target", LAYOUTS)
@each_layout
def test_into_another_layout(tmp_path: Path, layout: str, target: str) -> None:
    path = tmp_path / "model.ckpt"
    with small_chunks():
        tree = save_varied(path, layout)
        report, found = repaired(path, layout=target)
    assert report.saved.layout == target
    assert_same_tree(found, tree)


# ---- commit records


def test_a_file_without_its_end(tmp_path: Path) -> None:
    """As long as the manifest is there, by its ZIP header and CRC-32, or by what is left of the record."""
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "file")
    data = path.read_bytes()
    with ckptfmt.open(path) as checkpoint:
        record = inside(checkpoint).located.record
    end = record.offset + record.length
    for left, proof in ((1, "sha256"), (9, "sha256"), (150, "crc32"), (len(data) - end, "crc32")):
        path.write_bytes(data[:-left])
        report, found = repaired(path)
        assert (report.proof, report.ok) == (proof, True)
        assert_same_tree(found, tree)
    path.write_bytes(data[: end - 1])
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.repair(path, tmp_path / "new.ckpt")
    assert caught.value.code == "truncated"
    path.write_bytes(data[: end - 9] + b"?" + data[end - 8 :])  # a damaged manifest is nothing to build on
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.repair(path, tmp_path / "new.ckpt")
    assert caught.value.code == "manifest-digest"
    assert not (tmp_path / "new.ckpt").exists()


def test_a_file_whose_record_and_directory_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "file")
    data = bytearray(path.read_bytes())
    with ckptfmt.open(path) as checkpoint:
        record = inside(checkpoint).located.record
    data[record.offset + record.length :] = b"#" * (len(data) - record.offset - record.length)
    path.write_bytes(data)
    zone = data.index(np.arange(6, dtype=np.int16).tobytes())
    with flipped(path, zone, 0):
        report, found = repaired(path)
    assert report.proof == "crc32"
    assert [lost.path for lost in report.lost] == [("raw",)]
    del tree["raw"]
    assert_same_tree(found, tree)


@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_a_directory_without_its_record(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, layout)
    commit = path / "COMMIT"
    line = commit.read_bytes()
    for damaged in (line[:-1], line.replace(b"crc32", b"crc23"), line[:40] + b"\0" + line[41:]):
        commit.write_bytes(damaged)
        proven = damaged.count(b"sha256=") and hashlib.sha256((path / "manifest.msgpack").read_bytes()).hexdigest()
        if proven and proven.encode() in damaged:
            report, found = repaired(path)
            assert report.proof == "sha256"
            assert_same_tree(found, tree)
        else:
            with pytest.raises(ckptfmt.CorruptError):
                ckptfmt.repair(path, tmp_path / "new.ckpt")
    for damage in (lambda: commit.write_bytes(b"?"), commit.unlink):
        damage()
        with pytest.raises(ckptfmt.CkptError) as caught:
            ckptfmt.repair(path, tmp_path / "new.ckpt")
        assert caught.value.code in ("bad-record", "not-a-checkpoint")
        assert not (tmp_path / "new.ckpt").exists()
        report, found = repaired(path, uncommitted=True)
        assert report.proof == "none"
        assert_same_tree(found, tree)
    shutil.rmtree(path / ("tensors" if layout == "loose" else "packs"))  # a save that had just begun
    report, found = repaired(path, uncommitted=True)
    assert report.tensors == 1, "the one without elements"
    (path / "manifest.msgpack").write_bytes(msgpack.packb({"format": [1, 0]}))
    with pytest.raises(ckptfmt.CkptError):
        ckptfmt.repair(path, tmp_path / "new.ckpt", uncommitted=True)


# ---- calls


def test_what_is_no_checkpoint_raises_as_open_does(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / ".x.0123456789ab.ckptfmt-tmp").mkdir()
    for name, code in (
        ("text", "not-a-checkpoint"),
        ("folder", "not-a-checkpoint"),
        ("nothing", "not-found"),
        (".x.0123456789ab.ckptfmt-tmp", "temporary"),
    ):
        with pytest.raises(ckptfmt.CkptError) as caught:
            ckptfmt.repair(tmp_path / name, tmp_path / "new.ckpt", uncommitted=True)
        assert caught.value.code == code


def test_the_source_is_no_target(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    save_varied(path, "file")
    os.symlink(path, tmp_path / "link")
    for target in (path, tmp_path / "link", tmp_path / "." / "model.ckpt"):
        with pytest.raises(ckptfmt.InputError) as caught:
            ckptfmt.repair(path, target, overwrite=True)
        assert caught.value.code == "bad-option"
    with pytest.raises(ckptfmt.ExistsError):
        ckptfmt.repair(path, tmp_path)


def test_progress(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {f"t{i}": np.zeros(5 << 20, np.uint8) for i in range(4)}, durable=False)
    seen: list[tuple[int, int]] = []
    ckptfmt.repair(path, tmp_path / "new.ckpt", progress=lambda done, total: seen.append((done, total)), durable=False)
    assert seen == sorted(seen)
    assert seen[-1] == (40 << 20, 40 << 20)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["repair", *map(str, arguments)])


def test_the_command(tmp_path: Path) -> None:
    path, target = tmp_path / "model.ckpt", tmp_path / "new.ckpt"
    ckptfmt.save(path, {0: np.arange(4), "0": np.arange(5), "x": np.arange(6)}, durable=False)
    result = run(path, target)
    assert (result.exit_code, "whole" in result.output) == (0, True)
    result = run(path, target)
    assert result.exit_code == 2
    assert "[exists]" in result.stderr
    with flipped(path, zone_of(path, "0").start, 0):
        result = run("-f", path, target)
        assert result.exit_code == 1
        assert "  left out: tensor '0', int64 [5], 40 B damaged\n" in result.stdout
        result = run("-f", "--fill", "0", "--layout", "loose", "--json", path, tmp_path / "other.ckpt")
        assert result.exit_code == 1
        found = json.loads(result.stdout)
        assert found["lost"] == [
            {"path": ["0"], "name": "~30", "dtype": "int64", "shape": [5], "bytes": 40, "filled": True}
        ]
        assert [damage["path"] for damage in found["damage"]] == [["0"]]
        assert (found["ok"], found["proof"], found["tensors"], found["layout"]) == (False, "record", 2, "loose")
        assert run("-q", "-f", path, target).output == ""
    os.truncate(path, path.stat().st_size - 3)
    assert "what is left of it proves the manifest" in run("-f", path, target).stdout
    os.truncate(path, 300)
    result = run("-f", path, target)
    assert (result.exit_code, "[truncated]" in result.stderr) == (1, True)
