"""Versions of the format: the frozen checkpoint of 0.9 is read, verified and upgraded; what only claims to be one is
refused."""

from __future__ import annotations

import hashlib
import shutil
from argparse import Namespace
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from inside import inside

import ckptfmt
from ckptfmt import CkptError
from ckptfmt.format.commit import CommitRecord, decode
from ckptfmt.frameworks.adapter import kept
from ckptfmt.testing.equality import assert_same_tree

DATA = Path(__file__).parent.parent / "conformance" / "golden" / "0.9.0"
FILES = ["file.ckpt", "loose.ckpt"]
every_file = pytest.mark.parametrize("name", FILES)


def tree() -> Any:
    w = np.array([[1, 2], [3, -0.0]], ml_dtypes.bfloat16)
    layers = [{"b": np.arange(300, dtype=np.int32)}, {"b": np.zeros((0, 3))}]
    return {
        "model": {"w": w, "tied": w, "layers": layers, 7: (None, True, 2**70, -0.5, 1j, b"\0", "ü")},
        "step": np.int64(7),
        "seen": np.array(["2024-02-29"], "M8[D]"),
        "order": OrderedDict(z=1, a=2),
        "packed": np.array([1, -2, 3], ml_dtypes.int4),
    }


@every_file
def test_it_is_read_as_it_was_written(name: str) -> None:  # [FMT-003] [FMT-005]
    assert_same_tree(ckptfmt.load(DATA / name), tree())
    assert ckptfmt.verify(DATA / name).ok
    with ckptfmt.open(DATA / name) as checkpoint:
        assert checkpoint.format == (0, 9)
        assert checkpoint.generator == "ckptfmt 0.9.0"
        assert checkpoint.schema == ckptfmt.Schema("demo", "3")
        assert checkpoint.metadata == {"loss": 2.5, "tags": [1, (2,)]}
        assert checkpoint["model/layers/0/b"].codec == "gzip"


@every_file
def test_it_is_upgraded(name: str, tmp_path: Path) -> None:  # [FMT-004]
    version, report = ckptfmt.upgrade(DATA / name, tmp_path / "new")
    assert version == (0, 9)
    assert report.layout == name.partition(".")[0]
    with ckptfmt.open(DATA / name) as old, ckptfmt.open(tmp_path / "new") as new:
        assert new.format == (1, 0)
        assert_same_tree(new.load(), old.load())
        assert (new.schema, new.metadata) == (old.schema, old.metadata)
        (record,) = new.provenance
        assert record["source"].hex() == old.manifest_sha256
        assert record["format"] == [0, 9]
    assert ckptfmt.verify(tmp_path / "new").ok
    assert ckptfmt.upgrade(tmp_path / "new", tmp_path / "new", overwrite=True)[0] == (1, 0)


def rewritten(folder: Path, change: Any, version: tuple[int, int] = (0, 9)) -> Path:
    """The loose one with another manifest, and a commit record that fits it."""
    path = folder / "old.ckpt"
    shutil.copytree(DATA / "loose.ckpt", path)
    document = msgpack.unpackb((path / "manifest.msgpack").read_bytes(), strict_map_key=False)
    raw = msgpack.packb(change(document))
    frame = decode((path / "COMMIT").read_bytes(), 1).frame
    (path / "manifest.msgpack").write_bytes(raw)
    record = CommitRecord(version, "loose", 0, len(raw), hashlib.sha256(raw).digest(), frame)
    (path / "COMMIT").write_bytes(record.encode())
    return path


def refused(path: Path) -> str:
    with pytest.raises(CkptError) as raised:
        ckptfmt.open(path)
    return raised.value.code


def test_all_tags_stay(tmp_path: Path) -> None:
    """Those of frameworks that nobody has imported, and those that nobody knows."""
    pair = {"w": np.ones(2), "more": [np.zeros(3), {5}]}
    tagged = [kept(name)(param, pair) for name, param in (("jax.pytree", "a.B"), ("of.others", {"x": 1}))]
    tagged += [Namespace(a=np.ones(1)), deque([np.ones(1)], 3), kept("torch.Parameter")(True, np.ones(2))]
    ckptfmt.save(tmp_path / "a.ckpt", tagged, metadata={"seen": {1, 2}})
    ckptfmt.upgrade(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    nodes = []
    for name in "ab":
        with ckptfmt.open(tmp_path / f"{name}.ckpt") as checkpoint:
            nodes.append((inside(checkpoint).manifest.tree, inside(checkpoint).manifest.metadata))
    assert nodes[0] == nodes[1]


def test_other_old_versions_are_refused_by_name(tmp_path: Path) -> None:  # [FMT-003]
    assert refused(rewritten(tmp_path, lambda document: document, (0, 3))) == "older-format"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: {},
        lambda document: [],
        lambda document: document | {"tensors": 3},
        lambda document: document | {"tensors": [{}]},
        lambda document: document | {"tree": ["dict", [["a"]]]},
        lambda document: document | {"tree": ["dict", ["a"], [1]]},
        lambda document: document | {"schema": "demo"},
        lambda document: document | {"schema": ["", "1"]},
        lambda document: document | {"block": 5},
        lambda document: document | {"layout": "packed"},
        lambda document: document | {"tensors": document["tensors"][:1]},
        lambda document: document | {"tensors": [{**row, "chunks": []} for row in document["tensors"]]},
        lambda document: document | {"tensors": [{**row, "chunks": [[None, -1, b""]]} for row in document["tensors"]]},
        lambda document: document | {"tensors": [{**row, "name": [1]} for row in document["tensors"]]},
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, change: Any) -> None:
    assert refused(rewritten(tmp_path, change)) in ("bad-manifest", "unknown-feature", "bad-extent")


def test_damage_is_found(tmp_path: Path) -> None:
    raw = bytearray((DATA / "file.ckpt").read_bytes())
    raw[raw.index(b"\x80\x3f\x00\x40")] ^= 1
    (tmp_path / "x").write_bytes(raw)
    (damage,) = ckptfmt.verify(tmp_path / "x").damage
    assert damage.tensor == "model/w"
    raw[-30] ^= 1
    (tmp_path / "x").write_bytes(raw)
    assert refused(tmp_path / "x") == "bad-record"
