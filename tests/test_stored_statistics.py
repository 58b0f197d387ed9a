"""`save(statistics=True)`: what is stored is what reading all gives, costs no read, and is never that of others."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.format.manifest import Manifest
from ckptfmt.format.stored_statistics import binding_of, decode_statistics, encode_statistics
from ckptfmt.reading.checkpoint import StoredCheckpoint

LAYOUTS = [("file", None, None), ("file", "zstd", None), ("file", None, True), ("file", "zstd", True)]
LAYOUTS += [(layout, compression, None) for layout in ("packed", "loose") for compression in (None, "blosc")]


def tree() -> dict[str, Any]:
    """A tensor of each dtype, with odd numbers where there can be some, and large, empty and strided ones."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, row in DTYPES.items():
        raw = rng.integers(0, 2 if name == "bool" else 1 << min(row.bits, 8), 7 * 9 * row.numpy.itemsize, np.uint8)
        found[name] = raw.view(row.numpy).reshape(7, 9)
    found["large"] = rng.standard_normal((1100, 1000)).astype(np.float32)
    found["strided"] = rng.standard_normal((300, 200))[::2, ::3].T
    found["big-endian"] = np.arange(9, dtype=">i4")
    found["half"] = rng.standard_normal(5000).astype(ml_dtypes.bfloat16)
    return found | {"empty": np.zeros((0, 3)), "0-d": np.array(2.5), "nan": np.full(3, np.nan)}


def save(path: Path, values: Any, **options: Any) -> Path:
    ckptfmt.save(path, values, durable=False, statistics=True, **options)
    return path


def stored_manifest(path: Path) -> Manifest:
    with StoredCheckpoint(path) as checkpoint:
        return checkpoint.manifest


@pytest.mark.parametrize(("layout", "compression", "paged"), LAYOUTS)
def test_what_is_stored_is_what_reading_gives(tmp_path: Path, layout: str, compression: Any, paged: Any) -> None:
    path = save(tmp_path / "x", tree(), layout=layout, compression=compression, paged=paged)
    found = ckptfmt.stats(path, stored=True)
    assert all(one.stored for one in found.tensors)
    for one, read in zip(found.tensors, ckptfmt.stats(path, stored="check").tensors, strict=True):
        assert (one.name, one.elements, one.min, one.max, one.zeros) == (
            *(read.name, read.elements, read.min, read.max, read.zeros),
        )
        assert (one.nan, one.inf, one.saturated, one.subnormals) == (
            read.nan,
            read.inf,
            read.saturated,
            read.subnormals,
        )
        assert one.effective_bits == read.effective_bits
        for mine, theirs in ((one.mean, read.mean), (one.std, read.std), (one.norm, read.norm)):
            assert mine == theirs or mine == pytest.approx(theirs, rel=1e-9)
    assert ckptfmt.verify(path).ok


def test_they_cost_no_read(tmp_path: Path) -> None:
    """The chunks may be gone."""
    path = save(tmp_path / "x", {"a": np.ones(9), "b": np.arange(9)}, layout="loose")
    for chunk in (path / "tensors").rglob("c/*"):
        os.remove(chunk)
    report = ckptfmt.stats(path, stored=True, select="b")
    assert [(one.name, one.max, one.stored) for one in report.tensors] == [("b", 8, True)]
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt.stats(path)


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:  # [MAN-009]
    """Also where it lies in memory in another way, and whatever else there is."""
    values = np.random.default_rng(0).standard_normal((700, 901))
    one = save(tmp_path / "one.ckpt", {"a": values, "b": values[0].copy()}).read_bytes()
    other = {"a": np.asfortranarray(values), "b": values[0].astype(">f8")}
    assert save(tmp_path / "other.ckpt", other).read_bytes() == one
    plain = ckptfmt.save(tmp_path / "plain.ckpt", {"a": values, "b": values[0].copy()}, durable=False)
    assert plain.bytes < len(one)


def test_without_the_option_nothing_is_stored(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"a": np.ones(3)}, durable=False)
    assert stored_manifest(tmp_path / "x.ckpt").statistics is None
    assert not ckptfmt.stats(tmp_path / "x.ckpt", stored=True).tensors[0].stored


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_they_are_not_kept_with_other_tensors(tmp_path: Path, layout: str) -> None:  # [STAT-002] [STAT-003]
    """By none of the calls that write a checkpoint from another, nor by a program that keeps keys it does not know."""
    path = save(tmp_path / "x", {"a": np.ones(3000), "b": np.arange(5)}, layout=layout)
    ckptfmt.convert(path, tmp_path / "y.ckpt", durable=False)
    assert stored_manifest(tmp_path / "y.ckpt").statistics is None
    assert not ckptfmt.stats(tmp_path / "y.ckpt", stored=True).tensors[0].stored
    ckptfmt.repair(path, tmp_path / "z", durable=False)
    assert not ckptfmt.stats(tmp_path / "z", stored=True).tensors[0].stored
    kept = stored_manifest(path).statistics
    save(tmp_path / "w", {"a": np.full(3000, 2.0), "b": np.arange(5)}, layout=layout)
    others = stored_manifest(tmp_path / "w")
    assert decode_statistics(kept, others.specs, binding_of(others)) is None
    mine = stored_manifest(path)
    assert decode_statistics(kept, mine.specs, binding_of(mine)) is not None


def test_the_key_is_the_formats_own(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="extra= has keys that every manifest has: statistics"):
        ckptfmt.save(tmp_path / "x.ckpt", {}, extra={"statistics": 1})
    with pytest.raises(ckptfmt.InputError, match="statistics="):
        ckptfmt.save(tmp_path / "x.ckpt", {}, statistics=1)
    with pytest.raises(ckptfmt.InputError, match="stored="):
        ckptfmt.stats(tmp_path / "x.ckpt", stored="yes")


# ---- claims that are wrong


def rewritten(path: Path, edit: Any) -> Path:
    """A checkpoint whose writer claims something else of its elements."""
    with StoredCheckpoint(path) as checkpoint:
        manifest = checkpoint.manifest
    document = edit(dict(manifest.statistics))
    raw = manifest._replace(statistics=document).encode()
    from ckptfmt.format import commit
    from ckptfmt.format.digests import sha256

    line = (path / "COMMIT").read_bytes()
    record = commit.decode(line, 1)._replace(length=len(raw), sha256=sha256(raw))
    (path / "manifest.msgpack").write_bytes(raw)
    (path / "COMMIT").write_bytes(record.encode())
    return path


@pytest.mark.parametrize("column", ["nan", "zeros", "bits", "min", "max", "mean", "std"])
def test_a_claim_that_is_possible_and_wrong(tmp_path: Path, column: str) -> None:
    """Is taken where claims are asked for, and found where they are to be checked."""
    wrong = {
        "nan": np.array([1, 0], "<u8").tobytes(),
        "zeros": np.array([2, 1], "<u8").tobytes(),
        "bits": bytes([9, 3]),
        "min": np.array([-9.0]).tobytes() + np.array([0]).tobytes(),
        "max": np.array([9.0]).tobytes() + np.array([4]).tobytes(),
        "mean": np.array([0.1, 2.0]).tobytes(),
        "std": np.array([0.5, math.sqrt(2)]).tobytes(),
    }[column]
    path = save(tmp_path / "x", {"a": np.array([-1.0, 0.0, 1.0]), "b": np.arange(5)}, layout="loose")
    rewritten(path, lambda document: {**document, column: wrong})
    assert ckptfmt.stats(path, stored=True).tensors[0].stored
    assert ckptfmt.verify(path).ok, "a whole verification looks at no claims"
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.stats(path, stored="check")
    assert (raised.value.code, raised.value.tensor) == ("bad-statistics", "a")


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=40),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=4,
)


@settings(max_examples=200)
@given(data=st.data())
def test_hostile_claims_are_none(data: st.DataObject) -> None:
    """Whatever stands there, of any type and length, it gives nothing, or figures that such elements can have."""
    specs = SPECS.specs
    right = encode_statistics(FOUND, specs, bytes(32))
    columns = list(right)
    changed = data.draw(
        st.dictionaries(st.sampled_from(columns), ANY | st.binary(min_size=24, max_size=24), max_size=3)
    )
    document = data.draw(st.one_of(ANY, st.just({**right, **changed})))
    found = decode_statistics(msgpack.unpackb(msgpack.packb(document), strict_map_key=False), specs, bytes(32))
    for spec, one in zip(specs, found or (), strict=False):
        if one is not None and one.finite:
            assert 0 < one.finite <= math.prod(spec.shape) == one.elements
            assert one.least is not None
            assert one.greatest is not None
            assert one.least <= one.greatest
            assert one.std >= 0
            assert all(map(math.isfinite, (one.least, one.greatest, one.mean, one.std)))


@pytest.fixture(scope="module", autouse=True)
def _made(tmp_path_factory: pytest.TempPathFactory) -> None:
    global SPECS, FOUND
    path = save(tmp_path_factory.mktemp("made") / "x.ckpt", {"a": np.ones(3), "b": np.arange(5), "c": np.zeros(0)})
    SPECS = stored_manifest(path)
    FOUND = decode_statistics(SPECS.statistics, SPECS.specs, binding_of(SPECS)) or []


SPECS: Any = None
FOUND: Any = None
