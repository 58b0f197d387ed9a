"""Migrated checkpoints that are written: provenance, replacing, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
from inside import inside
from migrations import W, document, refusal, saved

import ckptfmt
from ckptfmt import Migration


def test_provenance_grows_and_the_rest_stays(tmp_path: Path) -> None:  # [MIG-017] [MAN-003]
    path = saved(tmp_path, {"a": W}, metadata={"k": (1,)}, extra={"later": [1]}, layout="loose")
    chain = [document({"from": "a", "to": "b"}), document({"from": "b", "to": "c"}, start="2", end="3")]
    first = ckptfmt.migrate(path, tmp_path / "2", chain, schema="2")
    ckptfmt.migrate(tmp_path / "2", tmp_path / "1", chain, schema="1", down=True, layout="file")
    with ckptfmt.open(path) as source, ckptfmt.open(tmp_path / "1") as result:
        one, two = result.provenance
        assert result.schema == source.schema
        assert result.metadata == {"k": (1,)}
        assert inside(result).manifest.unknown["later"] == [1]
        assert result.layout == "file"
        assert one["source"].hex() == source.manifest_sha256
        assert two["source"].hex() == first.saved.manifest_sha256
        assert [step["inverse"] for record in (one, two) for step in record["chain"]] == [False, True]
        assert {step["document"] for record in (one, two) for step in record["chain"]} == {
            Migration.parse(chain[0]).digest
        }
        assert source.provenance == []
    with ckptfmt.open(tmp_path / "2") as between:
        assert between.layout == "loose"
    assert ckptfmt.verify(tmp_path / "1").ok


def test_in_place_and_planned_only(tmp_path: Path) -> None:  # [MIG-019]
    path = saved(tmp_path, {"a": W})
    before = path.read_bytes()
    made = document({"from": "a", "to": "b"})
    assert ckptfmt.migrate(path, path, made, schema="2", plan_only=True).saved is None
    refusal("exists", ckptfmt.migrate, path, path, made, schema="2")
    assert path.read_bytes() == before
    seen: list[tuple[int, int]] = []
    report = ckptfmt.migrate(
        path, path, made, schema="2", overwrite=True, progress=lambda done, total: seen.append((done, total))
    )
    assert report.plan.is_rename
    assert seen[-1] == (24, 24)
    assert [*ckptfmt.load(path)] == ["b"]
    assert ckptfmt.migrate(path, tmp_path / "same", made, schema="2").plan.chain == ()


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Tensors are written piece by piece: joined, turned and rearranged ones too."""
    w = np.arange(4096 * 2048, dtype=np.int32).reshape(4096, 2048)  # 32 MiB
    path = saved(tmp_path, {"q": w, "k": w + 1, "t": w + 2})
    halves = {"op": "rearrange", "pattern": "(h two d) e -> (h d two) e", "axes": {"h": 8, "two": 2}, "on": [0]}
    made = document(
        {"from": ["q", "k"], "with": [halves, {"op": "concat", "axis": 0, "sizes": [4096, 4096]}], "to": "qk"},
        {"from": "t", "with": [{"op": "rearrange", "pattern": "a b -> b a"}], "to": "t"},
    )
    tracemalloc.start()
    try:
        ckptfmt.migrate(path, tmp_path / "dst", made, schema="2", durable=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 << 20  # the trees have 96 MiB each
    found = ckptfmt.load(tmp_path / "dst")
    np.testing.assert_array_equal(found["t"], (w + 2).T)
    np.testing.assert_array_equal(found["qk"][4096:], w + 1)
