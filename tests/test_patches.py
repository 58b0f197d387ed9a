"""Patches: made, read, applied, folded; what they are refused for."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.format.arrays import SAME, WHOLE, XOR
from ckptfmt.format.manifest import BLOCK
from ckptfmt.patching import difference, runs, stream
from ckptfmt.reading.checkpoint import StoredCheckpoint
from ckptfmt.testing import assert_same_tree

RANDOM = np.random.default_rng(0)
FAST = {"name": "blosc", "clevel": 1}


def nudged(array: Any, every: int = 7) -> Any:
    """The same array with one bit of some elements changed."""
    found = array.copy()
    found.reshape(-1).view(np.uint8)[:: every * array.itemsize] ^= 1
    return found


def apart(path: Path) -> Path:
    """The same checkpoint where nothing lies beside it."""
    other = path.parent / "apart" / path.name
    other.parent.mkdir(exist_ok=True)
    return Path(shutil.copy(path, other))


def trees() -> tuple[dict[str, Any], dict[str, Any]]:
    """A base and what became of it: tensors of many kinds, some renamed, removed and added."""
    base: dict[str, Any] = {
        "w": RANDOM.standard_normal((300, 200), np.float32).astype(ml_dtypes.bfloat16),
        "kept": np.arange(500),
        "old": RANDOM.standard_normal(4000),
        "flags": np.arange(90) % 3 == 0,
        "q": (np.arange(90) % 16 - 8).astype(ml_dtypes.int4).reshape(9, 10),
        "narrow": RANDOM.integers(0, 64, 700, np.uint8).view(ml_dtypes.float6_e2m3fn),
        "complex": RANDOM.standard_normal(2000) + 1j,
        "half": (RANDOM.standard_normal((2, 3, 400)) + 1j).astype(np.complex64),
        "scalar": np.array(3, np.float32),
        "empty": np.zeros((0, 4)),
        "list": [np.ones(3000, np.float16), {"x": np.full(2000, 7, np.int8)}],
        "gone": np.zeros(3),
        "step": 1,
    }
    new = copy.deepcopy(base)
    for name in ("w", "complex", "half", "narrow"):
        new[name] = nudged(base[name])
    new["renamed"], new["step"], new["added"] = new.pop("old"), 2, RANDOM.integers(0, 255, 5000, np.uint8)
    new["flags"] = ~base["flags"]
    new["scalar"] = base["scalar"]  # of which a deep copy is no array
    new["q"] = np.roll(base["q"], 1)
    new["list"][0] = nudged(base["list"][0], 100)
    new["tied"] = new["w"]
    del new["gone"]
    return base, new


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Any]:
    """A base, a patch, and the tree that comes of both."""
    base, new = trees()
    ckptfmt.save(tmp_path / "base.ckpt", base)
    ckptfmt.save(tmp_path / "new.ckpt", new, metadata={"loss": 0.5}, schema=("net", "1"))
    ckptfmt.patch(tmp_path / "base.ckpt", tmp_path / "new.ckpt", tmp_path / "patch.ckpt")
    return tmp_path / "base.ckpt", tmp_path / "patch.ckpt", new


def forms(path: Path) -> dict[str, int]:
    with StoredCheckpoint(path) as stored:
        return {stored.describe(number): spec.form for number, spec in enumerate(stored.manifest.specs)}


def refused(code: str, call: Callable[[], Any]) -> ckptfmt.CkptError:
    with pytest.raises(ckptfmt.CkptError) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def flip_last_block(path: Path) -> None:
    """Damage a tensor of a file."""
    with StoredCheckpoint(path) as stored:
        number = max(range(len(stored.manifest.specs)), key=lambda n: stored.manifest.specs[n].nbytes)
        at = stored.blocks.place(number, 0).extent.offset
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# ---- reading


def test_a_patch_is_read_through_its_base(pair: Any) -> None:
    base, patch, new = pair
    with ckptfmt.open(patch, base=base) as checkpoint:
        assert checkpoint.is_patch
        assert checkpoint.metadata == {"loss": 0.5}
        assert checkpoint.schema == ("net", "1")
        assert_same_tree(checkpoint.load(), new)
        assert checkpoint["tied"] is checkpoint["w"]
    assert_same_tree(ckptfmt.load(patch, base=base, verify=False), new)
    assert_same_tree(ckptfmt.load(patch, base=base, mmap=True), new)
    assert_same_tree(ckptfmt.load(patch, base=base, mmap=True, verify=True), new)
    assert_same_tree(ckptfmt.load(patch, base=base, select="list/**"), {"list": new["list"]})


def test_each_tensor_has_the_form_that_is_smallest(pair: Any) -> None:
    found = forms(pair[1])
    assert {name for name, form in found.items() if form == SAME} == {"kept", "renamed", "scalar", "empty", "list/1/x"}
    assert {found[name] for name in ("w", "complex", "half", "list/0")} == {XOR}
    assert found["added"] == WHOLE


def test_slices_are_those_of_the_result(pair: Any) -> None:
    base, patch, new = pair
    with ckptfmt.open(patch, base=base) as checkpoint:
        for path, index in (
            ("w", np.s_[10:200:7, ::-3]),
            ("w", np.s_[-1]),
            ("q", np.s_[2:5, 1:8:3]),
            ("q", np.s_[..., 9]),
            ("flags", np.s_[5:80:11]),
            ("narrow", np.s_[::9]),
            ("complex", np.s_[1000:3:-4]),
            ("half", np.s_[1, :, 5:9]),
            ("renamed", np.s_[7:11]),
            ("scalar", np.s_[...]),
            ("empty", np.s_[0:0, 1]),
        ):
            assert_same_tree(np.asarray(checkpoint[path][index]), np.asarray(new[path][index]))
        region = (slice(3, 50), slice(20, 200))
        assert_same_tree(checkpoint["w"].read(region=region), np.ascontiguousarray(new["w"][region]))
        assert_same_tree(checkpoint["w"].astype(np.dtype(np.float32)).read(), new["w"].astype(np.float32))


def test_targets_and_templates_are_filled(pair: Any) -> None:
    base, patch, new = pair
    target = {name: np.zeros_like(new[name]) for name in ("w", "complex", "kept", "renamed", "q", "flags")}
    ckptfmt.load(patch, base=base, into=target, strict=False)
    assert_same_tree(target, {name: new[name] for name in target})
    like = {"w": np.zeros((300, 200), np.float32), "step": 0}
    found = ckptfmt.load(patch, base=base, like=like, strict=False, cast=True)
    assert_same_tree(found, {"w": new["w"].astype(np.float32), "step": 2})


def test_memory_is_not_shared(tmp_path: Path) -> None:
    """Tensors of one source are apart, mapped ones too."""
    array = np.arange(20_000)
    ckptfmt.save(tmp_path / "base", {"a": array})
    ckptfmt.save(tmp_path / "new", [array.copy(), array.copy(), nudged(array)])
    ckptfmt.patch(tmp_path / "base", tmp_path / "new", tmp_path / "patch")
    assert list(forms(tmp_path / "patch").values()) == [SAME, SAME, WHOLE]
    for mmap in (False, True):
        first, second, _ = ckptfmt.load(tmp_path / "patch", base=tmp_path / "base", mmap=mmap)
        first[:] = -1
        assert_same_tree(second, array)


def test_a_slice_reads_a_block_of_each_side(tmp_path: Path) -> None:
    array = RANDOM.integers(0, 1 << 16, (4096, 4096), np.uint16)
    ckptfmt.save(tmp_path / "base", {"w": array}, durable=False)
    ckptfmt.save(tmp_path / "new", {"w": nudged(array, 999)}, durable=False)
    ckptfmt.patch(tmp_path / "base", tmp_path / "new", tmp_path / "patch", compression=FAST, durable=False)
    with ckptfmt.open(tmp_path / "base") as base, ckptfmt.open(tmp_path / "patch", base=base) as patch:
        patch["w"][2000:2004]
        assert 0 < patch.bytes_read <= 2 * BLOCK
        assert 0 < base.bytes_read <= 2 * BLOCK


def test_progress_is_told_of_both_sides(pair: Any) -> None:
    told: list[tuple[int, int]] = []
    ckptfmt.load(pair[1], base=pair[0], progress=lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


def test_the_base_may_be_open_or_lie_among_others(pair: Any, tmp_path: Path) -> None:
    base, patch, new = pair
    data = base.read_bytes()
    with ckptfmt.open(base) as opened:
        for given in (opened, [opened], [patch, base], tmp_path, [tmp_path / "new.ckpt", tmp_path], data):
            assert_same_tree(ckptfmt.load(patch, base=given)["w"], new["w"])
        assert_same_tree(opened["kept"].read(), new["kept"])  # which was not closed


def test_another_schema_is_read_through_a_patch(pair: Any) -> None:
    base, patch, new = pair
    document = {"ckptfmt_migration": 1, "schema": "net", "from": "1", "to": "2", "rest": "keep"}
    document["rules"] = [{"from": "w", "to": "v"}, {"from": "kept", "to": "held"}]
    with ckptfmt.open(patch, base=base, schema="2", migrations=[document]) as checkpoint:
        assert_same_tree(checkpoint["v"][3:5], new["w"][3:5])
        assert_same_tree(checkpoint.load()["held"], new["kept"])


def test_what_a_patch_says_needs_no_base(pair: Any) -> None:
    _, patch, new = pair
    with ckptfmt.open(patch) as checkpoint:
        assert checkpoint["w"].shape == (300, 200)
        assert checkpoint["step"] == 2
        assert_same_tree(checkpoint["added"].read(), new["added"])
        assert_same_tree(checkpoint["w"].read(), new["w"])
        refused("bad-option", lambda: checkpoint.zarr)
    with ckptfmt.open(apart(patch)) as checkpoint:
        error = refused("missing-base", checkpoint["w"].read)
        refused("missing-base", lambda: checkpoint["renamed"][0])
        assert_same_tree(checkpoint["added"].read(), new["added"])
    with ckptfmt.open(pair[0]) as base:
        assert base.manifest_sha256 in str(error)
        assert ckptfmt.verify(patch).base == base.manifest_sha256
    assert ckptfmt.verify(patch).ok
    assert ckptfmt.verify(pair[0]).base is None


def test_differences_are_taken_for_elements_by_nobody(pair: Any, tmp_path: Path) -> None:
    """What reads chunks by itself, to copy or to look at them, asks for the base as others do."""
    base, patch, _ = pair
    patch = apart(patch)
    refused("missing-base", lambda: ckptfmt.stats(patch))
    refused("missing-base", lambda: ckptfmt.convert(patch, tmp_path / "x.npz", allow_loss=True, select="renamed"))
    refused("missing-base", lambda: ckptfmt.convert(patch, tmp_path / "x.ckpt"))
    refused("missing-base", lambda: ckptfmt.diff(patch, base))
    document = {"ckptfmt_migration": 1, "schema": "net", "from": "1", "to": "2", "rest": "keep", "rules": []}
    refused("missing-base", lambda: ckptfmt.migrate(patch, tmp_path / "x.ckpt", [document], schema="2"))
    assert sorted(os.listdir(tmp_path)) == ["apart", "base.ckpt", "new.ckpt", "patch.ckpt"]


# ---- bases that lie beside


def test_a_base_beside_is_found(tmp_path: Path) -> None:
    """Of a chain each, among whatever else lies there; for all that reads, and for what is not asked for nothing."""
    paths, found = links(tmp_path, 3)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "broken").write_bytes(b"PK\3\4")
    assert_same_tree(ckptfmt.load(paths[3]), found[3])
    with ckptfmt.open(paths[3]) as checkpoint:
        assert_same_tree(checkpoint["w"][10:20], found[3]["w"][10:20])
    assert ckptfmt.diff(paths[3], tmp_path / "new").equal
    ckptfmt.convert(paths[3], tmp_path / "x.npz", allow_loss=True)
    assert np.array_equal(np.load(tmp_path / "x.npz")["w"], found[3]["w"])
    report = ckptfmt.verify(paths[3])
    assert (report.ok, report.base_report) == (True, None)
    refused("wrong-base", lambda: ckptfmt.load(paths[3], base=tmp_path / "new"))
    refused("limit-exceeded", lambda: ckptfmt.load(paths[3], limits=ckptfmt.Limits(patches=2)))


def test_a_base_beside_that_is_gone_or_damaged_is_missing(tmp_path: Path) -> None:
    paths, found = links(tmp_path, 2)
    raw = paths[0].read_bytes()
    paths[0].write_bytes(raw[:-200])
    with ckptfmt.open(paths[2]) as checkpoint:
        assert checkpoint.metadata is None
        refused("missing-base", checkpoint["w"].read)
    paths[0].unlink()
    refused("missing-base", lambda: ckptfmt.load(paths[1]))
    paths[0].write_bytes(raw)
    assert_same_tree(ckptfmt.load(paths[2]), found[2])


# ---- bases that are none


def test_another_base_is_refused(pair: Any, tmp_path: Path) -> None:
    base, patch, _ = pair
    for wrong in (tmp_path / "new.ckpt", patch, [tmp_path / "new.ckpt", patch]):
        assert "sha256" in str(refused("wrong-base", lambda wrong=wrong: ckptfmt.open(patch, base=wrong)))
    refused("not-found", lambda: ckptfmt.open(patch, base=tmp_path / "nothing"))
    ckptfmt.save(base, trees()[0], overwrite=True, metadata="newer")
    refused("wrong-base", lambda: ckptfmt.load(patch, base=base))
    (tmp_path / "empty").mkdir()
    refused("wrong-base", lambda: ckptfmt.load(patch, base=tmp_path / "empty"))
    data = bytearray((tmp_path / "new.ckpt").read_bytes())
    at = data.rindex(b"ckptfmt/1.0 ")
    data[at : at + 12] = b"ckptfmt/2.0 "
    (tmp_path / "later.ckpt").write_bytes(data)
    refused("newer-format", lambda: ckptfmt.load(patch, base=tmp_path / "later.ckpt"))


def test_what_only_applying_gives_is_said(pair: Any, tmp_path: Path) -> None:
    """A patch of a result is not one of the patch that gives it; what helps stands in the error."""
    base, patch, new = pair
    ckptfmt.save(tmp_path / "third.ckpt", {**new, "w": nudged(new["w"], 5)})
    ckptfmt.patch(tmp_path / "new.ckpt", tmp_path / "third.ckpt", tmp_path / "second.ckpt")
    error = refused("wrong-base", lambda: ckptfmt.open(tmp_path / "second.ckpt", base=[patch, base]))
    assert "ckptfmt apply" in error.advice
    ckptfmt.apply(base, patch, tmp_path / "applied.ckpt")
    assert_same_tree(ckptfmt.load(tmp_path / "second.ckpt", base=tmp_path / "applied.ckpt")["kept"], new["kept"])


def test_damage_of_the_base_is_of_what_is_made_of_it(pair: Any, tmp_path: Path) -> None:
    base, patch, new = pair
    with StoredCheckpoint(base) as stored:
        place = stored.blocks.place(stored["w"].index, 0)
    data = bytearray(base.read_bytes())
    data[place.extent.offset + 11] ^= 4
    base.write_bytes(data)
    with ckptfmt.open(patch, base=base) as checkpoint:
        error = refused("block-digest", checkpoint["w"].read)
        assert (error.tensor, error.path) == ("w", str(base))
        assert_same_tree(checkpoint["kept"].read(), new["kept"])
        assert_same_tree(checkpoint["complex"].read(), new["complex"])
    refused("block-digest", lambda: ckptfmt.apply(base, patch, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", range(0, 2000, 97))
def test_no_flipped_bit_of_a_patch_goes_unseen(pair: Any, at: int) -> None:
    """It is an error, or the values are right as the byte belongs to no value."""
    base, patch, new = pair
    data = bytearray(patch.read_bytes())
    data[len(data) * at // 2000] ^= 16
    patch.write_bytes(data)
    with contextlib.suppress(ckptfmt.CorruptError):
        assert_same_tree(ckptfmt.load(patch, base=base), new)
    assert not ckptfmt.verify(patch).ok


def test_many_tensors_of_one_source_are_bounded(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "base", {"a": np.zeros(1 << 20)})
    ckptfmt.save(tmp_path / "new", {str(i): np.zeros(1 << 20) for i in range(64)}, compression="zstd")
    ckptfmt.patch(tmp_path / "base", tmp_path / "new", tmp_path / "patch")
    limits = ckptfmt.Limits(expansion=1 << 20)
    refused("limit-exceeded", lambda: ckptfmt.load(tmp_path / "patch", base=tmp_path / "base", limits=limits))


# ---- chains


def links(folder: Path, count: int) -> tuple[list[Path], list[Any]]:
    """A base and patches, each of the one before; and the trees that they give."""
    tree: Any = {"w": RANDOM.standard_normal(5000, np.float32), "kept": np.arange(3), "step": 0}
    ckptfmt.save(folder / "0", tree, durable=False)
    paths, found = [folder / "0"], [tree]
    for step in range(1, count + 1):
        tree = {"w": nudged(tree["w"], step + 1), "kept": tree["kept"], "step": step}
        ckptfmt.save(folder / "new", tree, durable=False, overwrite=True)
        bases = paths[:-1] or None
        ckptfmt.patch(paths[-1], folder / "new", folder / str(step), bases=bases, durable=False, compression=FAST)
        paths.append(folder / str(step))
        found.append(tree)
    return paths, found


def test_a_chain_is_read_up_to_a_length(tmp_path: Path) -> None:
    paths, found = links(tmp_path, 8)
    assert_same_tree(ckptfmt.load(paths[8], base=paths[:8]), found[8])
    assert_same_tree(ckptfmt.load(paths[8], base=tmp_path), found[8])
    with ckptfmt.open(paths[7], base=paths[:7]) as last:
        assert_same_tree(ckptfmt.load(paths[8], base=last), found[8])
        refused("limit-exceeded", lambda: ckptfmt.open(paths[8], base=last, limits=ckptfmt.Limits(patches=7)))
    few = ckptfmt.Limits(patches=3)
    refused("limit-exceeded", lambda: ckptfmt.load(paths[4], base=tmp_path, limits=few))
    assert_same_tree(ckptfmt.load(paths[3], base=tmp_path, limits=few), found[3])
    refused("wrong-base", lambda: ckptfmt.load(paths[8], base=paths[2:8]))
    error = refused("missing-base", lambda: ckptfmt.apply(ckptfmt.open(apart(paths[1])), paths[2], tmp_path / "out"))
    assert str(tmp_path / "apart" / "1") in str(error)


def test_a_chain_is_folded(tmp_path: Path) -> None:
    paths, found = links(tmp_path, 4)
    report = ckptfmt.fold(paths[0], paths[1:], tmp_path / "folded", durable=False)
    assert (report.same.tensors, report.xor.tensors) == (1, 1)
    assert_same_tree(ckptfmt.load(tmp_path / "folded", base=paths[0]), found[4])
    middle = ckptfmt.fold(paths[:2], paths[2:4], tmp_path / "middle", durable=False)
    assert middle.base == ckptfmt.open(paths[1]).manifest_sha256
    assert_same_tree(ckptfmt.load(tmp_path / "middle", base=paths[:2]), found[3])
    assert ckptfmt.apply(paths[0], tmp_path / "folded", tmp_path / "out").identical
    assert (tmp_path / "out").read_bytes() == (tmp_path / "new").read_bytes()
    refused("bad-option", lambda: ckptfmt.fold(paths[0], [], tmp_path / "none"))
    refused("wrong-base", lambda: ckptfmt.fold(paths[0], paths[2:], tmp_path / "none"))


# ---- applying


def test_applying_gives_the_very_file(pair: Any, tmp_path: Path) -> None:
    base, patch, new = pair
    for verify in (False, True):
        report = ckptfmt.apply(base, patch, tmp_path / "out", verify=verify, overwrite=True)
        assert report.identical
        assert (tmp_path / "out").read_bytes() == (tmp_path / "new.ckpt").read_bytes()
    for layout in ("packed", "loose"):
        report = ckptfmt.apply(base, patch, tmp_path / layout, layout=layout, compression="zstd", digest="sha256")
        assert report.identical is False
        assert_same_tree(ckptfmt.load(tmp_path / layout), new)
        assert ckptfmt.verify(tmp_path / layout).ok
    refused("exists", lambda: ckptfmt.apply(base, patch, tmp_path / "out"))
    refused("bad-option", lambda: ckptfmt.apply(base, base, tmp_path / "other"))
    refused("missing-base", lambda: ckptfmt.apply(None, patch, tmp_path / "other"))
    assert sorted(os.listdir(tmp_path)) == ["base.ckpt", "loose", "new.ckpt", "out", "packed", "patch.ckpt"]


@pytest.mark.parametrize("how", ["loose", "zstd", "sha256", "extra", "paged", "tags"])
def test_what_was_saved_otherwise_comes_back(tmp_path: Path, how: str) -> None:
    base, new = ({"a": RANDOM.standard_normal(9000), "b": np.arange(5)} for _ in range(2))
    new["a"] = nudged(base["a"])
    options: Any = {
        "loose": {"layout": "loose"},
        "zstd": {"compression": "zstd"},
        "sha256": {"digest": "sha256"},
        "extra": {"extra": {"example.org/key": [1, {"a": None}]}},
        "paged": {"paged": True},
        "tags": {},
    }[how]
    if how == "tags":
        new["when"] = np.array(["2026-11-30"], "datetime64[D]")
        new["path"] = Path("a")
    ckptfmt.save(tmp_path / "base", base, **options)
    ckptfmt.save(tmp_path / "new", new, **options)
    ckptfmt.patch(tmp_path / "base", tmp_path / "new", tmp_path / "patch")
    assert_same_tree(ckptfmt.load(tmp_path / "patch", base=tmp_path / "base"), new)
    again: Any = {"loose": {"layout": "loose"}, "zstd": {"compression": "zstd"}}.get(how, {})
    report = ckptfmt.apply(tmp_path / "base", tmp_path / "patch", tmp_path / "out", **again)
    assert report.identical is (how != "paged")  # which a canonical writer would not page
    assert_same_tree(ckptfmt.load(tmp_path / "out"), new)


def test_runs_of_large_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several runs of several chunks, on both ways."""
    monkeypatch.setattr(difference, "CHUNK", 1000)
    monkeypatch.setattr(runs, "RUN", 5000)
    monkeypatch.setattr(stream, "RUN", 5000)
    monkeypatch.setattr(stream, "SMALL", 500)
    monkeypatch.setattr(stream, "TOGETHER", 800)
    shapes = [(7, 11, 13), (3, 2, 900), (40, 100), (5000,), (2, 3, 4, 50), (3,), (1, 1), (130,), (100,)]
    base = {str(i): RANDOM.standard_normal(shape, np.float32) for i, shape in enumerate(shapes)}
    new = {name: array if name == "2" else nudged(array, 9) for name, array in base.items()}
    ckptfmt.save(tmp_path / "base", base, compression={"1": "zstd"})
    ckptfmt.save(tmp_path / "new", new, compression={"3": "gzip"})
    report = ckptfmt.patch(tmp_path / "base", tmp_path / "new", tmp_path / "patch")
    assert report.xor.tensors > 3
    assert_same_tree(ckptfmt.load(tmp_path / "patch", base=tmp_path / "base"), new)
    with ckptfmt.open(tmp_path / "patch", base=tmp_path / "base") as patch:
        assert_same_tree(patch["0"][::2, 3:9:2, ::-5], np.ascontiguousarray(new["0"][::2, 3:9:2, ::-5]))
    for verify in (False, True):
        ckptfmt.apply(tmp_path / "base", tmp_path / "patch", tmp_path / "out", verify=verify, overwrite=True)
        assert_same_tree(ckptfmt.load(tmp_path / "out"), new)
        assert ckptfmt.verify(tmp_path / "out").ok


# ---- making


def test_names_and_encodings_are_followed(tmp_path: Path) -> None:
    array, other = RANDOM.standard_normal(3000), RANDOM.standard_normal(3000)
    ckptfmt.save(tmp_path / "base", {"a": array, "b": other}, compression="zstd", digest="sha256")
    ckptfmt.save(tmp_path / "new", {"x": other, "y": array})
    for verify in (False, True):
        report = ckptfmt.patch(
            tmp_path / "base", tmp_path / "new", tmp_path / "patch", verify=verify, overwrite=True, durable=False
        )
        assert report.same.tensors == 2
        assert_same_tree(ckptfmt.load(tmp_path / "patch", base=tmp_path / "base"), {"x": other, "y": array})


def test_a_base_is_compared_at_another_version(tmp_path: Path) -> None:
    array = RANDOM.standard_normal(3000)
    ckptfmt.save(tmp_path / "base", {"old": array, "a": array + 1}, schema=("net", "1"))
    ckptfmt.save(tmp_path / "new", {"name": nudged(array), "a": array + 1}, schema=("net", "2"))
    document = {"ckptfmt_migration": 1, "schema": "net", "from": "1", "to": "2", "rest": "keep"}
    document["rules"] = [{"from": "old", "to": "name"}]
    with ckptfmt.open(tmp_path / "base", schema="2", migrations=[document]) as base:
        report = ckptfmt.patch(base, tmp_path / "new", tmp_path / "patch")
        assert (report.same.tensors, report.xor.tensors) == (1, 1)
        refused("bad-option", lambda: ckptfmt.patch(tmp_path / "new", base, tmp_path / "other"))
    assert_same_tree(ckptfmt.load(tmp_path / "patch", base=tmp_path / "base")["name"], nudged(array))


def test_stock_readers_take_no_difference_for_weights(pair: Any) -> None:
    base, patch, new = pair
    with zipfile.ZipFile(patch) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        text = json.loads(archive.read("xor/w/zarr.json"))
    assert {name.split("/")[1] for name in names if name.startswith("tensors/")} == {"zarr.json"} | {
        name for name, form in forms(patch).items() if form == WHOLE
    }
    assert (text["data_type"], text["attributes"]["ckptfmt"]["dtype"]) == ("uint16", "bfloat16")
    with zarr.storage.ZipStore(patch, mode="r") as store:
        group = zarr.open_group(store, path="xor", mode="r")
        differences = np.asarray(group["w"][...])
        assert "w" not in zarr.open_group(store, path="tensors", mode="r")
    before = ckptfmt.load(base)["w"].view(np.uint16)
    assert (before ^ differences).tobytes() == new["w"].tobytes()


def test_the_report_says_what_was_stored(pair: Any, tmp_path: Path) -> None:
    base, patch, _ = pair
    report = ckptfmt.patch(base, tmp_path / "new.ckpt", tmp_path / "again.ckpt")
    assert (tmp_path / "again.ckpt").read_bytes() == patch.read_bytes()
    assert report.bytes == patch.stat().st_size
    assert report.same.stored == 0 < report.xor.stored < report.xor.bytes
    assert report.tensors == report.same.tensors + report.xor.tensors + report.whole.tensors
    assert report.result == ckptfmt.open(tmp_path / "new.ckpt").manifest_sha256
    assert 0 < report.ratio < 1


def test_what_is_made_of_a_base_is_refused_without_it(pair: Any, tmp_path: Path) -> None:
    base, patch, _ = pair
    patch = apart(patch)
    there = sorted(tmp_path.iterdir())
    refused("missing-base", lambda: ckptfmt.diff(base, patch))
    for name in ("x.npz", "x.ckpt"):
        refused("missing-base", lambda name=name: ckptfmt.convert(patch, tmp_path / name, allow_loss=True))
    assert sorted(tmp_path.iterdir()) == there


def test_verifying_with_the_base(pair: Any, tmp_path: Path) -> None:  # [PATCH-016]
    base, patch, _ = pair
    chained = tmp_path / "chained.ckpt"
    ckptfmt.patch(patch, base, chained, bases=base)
    told: list[tuple[int, int]] = []
    report = ckptfmt.verify(chained, base=tmp_path, progress=lambda *done: told.append(done))
    alone = [ckptfmt.verify(path) for path in (chained, patch, base)]
    middle = report.base_report
    assert middle is not None
    assert middle.base_report is not None
    assert report.ok
    assert [report.base, middle.base, middle.base_report.base] == [one.base for one in alone]
    assert [one.bytes for one in (report, middle, middle.base_report)] == [one.bytes for one in alone]
    assert told[-1] == (sum(one.bytes for one in alone),) * 2
    assert told == sorted(told)
    with ckptfmt.open(patch, base=base) as opened:
        assert opened.verify() == middle
        refused("bad-option", lambda: opened.verify(resume=tmp_path / "state"))
    assert ckptfmt.verify(patch).base_report is None
    refused("wrong-base", lambda: ckptfmt.verify(patch, base=tmp_path / "new.ckpt"))

    flip_last_block(base)
    assert ckptfmt.verify(patch).ok
    report = ckptfmt.verify(patch, base=base)
    assert report.base_report is not None
    assert (report.ok, report.damage, report.base_report.damage) == (False, (), ckptfmt.verify(base).damage)
    base.write_bytes(base.read_bytes()[:-1])  # without the end of its commit record
    report = ckptfmt.verify(patch, base=base)
    assert (report.ok, report.path) == (False, str(base))


def test_the_command_verifies_with_the_base(pair: Any, tmp_path: Path) -> None:
    base, patch, _ = pair

    def verified(*more: str) -> Any:
        return CliRunner().invoke(cli, ["verify", *more, str(patch)])

    assert "was not looked at" in verified().output
    done = verified("--base", str(base))
    assert (done.exit_code, done.output.count(": whole: ")) == (0, 2)
    assert "was not looked at" not in done.output
    flip_last_block(base)
    assert verified().exit_code == 0
    done = verified("--base", str(base))
    assert (done.exit_code, done.output.count("whole: "), done.output.count("base.ckpt: damaged")) == (1, 1, 1)
    said = json.loads(verified("--base", str(base), "--json").output)
    assert (said["ok"], said["damage"], said["base_report"]["ok"]) == (False, [], False)
    assert CliRunner().invoke(cli, ["verify", "--base", str(base), str(tmp_path)]).exit_code == 2


KILLED = """
import os, sys, ckptfmt
base, new, target = sys.argv[1:]
ckptfmt.patch(base, new, target, progress=lambda done, total: os.kill(os.getpid(), 9))
"""


def test_what_a_killed_one_leaves_is_collected(pair: Any, tmp_path: Path) -> None:
    """And not while it lives. [PUB-018] [PUB-020]"""
    base, patch, _ = pair
    paths = [base, tmp_path / "new.ckpt", tmp_path / "other.ckpt"]
    there = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(tmp_path.iterdir()) - set(there)
    assert os.listdir(left) == ["chunks"]
    assert [found.path for found in ckptfmt.gc(tmp_path, delete=True, grace=0).found] == [str(left)]
    assert sorted(tmp_path.iterdir()) == there

    ckptfmt.patch(*paths, progress=lambda done, total: ckptfmt.gc(tmp_path, delete=True, grace=0) and None)
    assert paths[-1].read_bytes() == patch.read_bytes()


def test_what_cannot_be_made_is_refused(pair: Any, tmp_path: Path) -> None:
    base, patch, _ = pair
    new = tmp_path / "new.ckpt"
    refused("exists", lambda: ckptfmt.patch(base, new, patch))
    refused("bad-option", lambda: ckptfmt.patch(base, new, tmp_path / "x", compression=None))  # type: ignore[arg-type]
    refused("missing-base", lambda: ckptfmt.patch(patch, new, tmp_path / "x"))
    refused("not-found", lambda: ckptfmt.patch(base, tmp_path / "no", tmp_path / "x"))
    refused("bad-option", lambda: ckptfmt.repair(patch, tmp_path / "x"))
    assert ckptfmt.patch(patch, new, tmp_path / "x", bases=base).same.tensors == 13
    assert not any(name.endswith(".ckptfmt-tmp") for name in os.listdir(tmp_path))


# ---- any sequence

ARRAYS = st.sampled_from(["float32", "bfloat16", "bool", "int4", "complex128", "float8_e4m3fn", "uint64"])
SHAPES = st.sampled_from([(), (0, 2), (5,), (3, 4), (700,)])


def made(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype == "int4":
        return random.integers(-8, 8, shape).astype(ml_dtypes.int4)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    count = int(np.prod(shape)) * kind.itemsize
    return np.frombuffer(random.bytes(count), kind).reshape(shape).copy()


TREES = st.dictionaries(st.sampled_from("abcde"), st.tuples(ARRAYS, SHAPES, st.integers(0, 3)), max_size=4)


@given(st.lists(TREES, min_size=2, max_size=5), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_any_sequence_of_patches_gives_every_tensor(
    tmp_path_factory: pytest.TempPathFactory, described: list[Any], data: st.DataObject
) -> None:
    """Patched, folded, applied, in any order: equal to the bit."""
    folder, numbers = tmp_path_factory.mktemp("any"), itertools.count()
    steps = [{name: made(*one) for name, one in tree.items()} for tree in described]
    chain = [folder / "0"]
    ckptfmt.save(chain[0], steps[0], durable=False)
    for tree in steps[1:]:
        new, patch = (folder / f"{next(numbers)}-{what}" for what in ("new", "patch"))
        ckptfmt.save(new, tree, durable=False)
        ckptfmt.patch(chain[-1], new, patch, bases=chain[:-1] or None, durable=False, compression=FAST)
        chain.append(patch)
        what = data.draw(st.sampled_from(["nothing", "fold", "apply"]))
        if what == "fold" and len(chain) > 2:
            folded = folder / f"{next(numbers)}-folded"
            ckptfmt.fold(chain[0], chain[1:], folded, durable=False, compression=FAST)
            chain = [chain[0], folded]
        elif what == "apply":
            applied = folder / f"{next(numbers)}-applied"
            assert ckptfmt.apply(chain[:-1], chain[-1], applied, durable=False).identical
            assert applied.read_bytes() == new.read_bytes()
            chain = [applied]
        assert_same_tree(ckptfmt.load(chain[-1], base=chain[:-1] or None), tree)
