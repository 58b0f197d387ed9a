"""The suite's own parts beside well-kept counterparts: digests, msgpack, the writer, crash states."""

from __future__ import annotations

import ast
import os
import zipfile
from pathlib import Path
from typing import Any

import msgpack
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from conformance import judge, mutants, packing, spec, xxh3
from conformance.build import Checkpoint
from conformance.cases import flatten, write_files
from conformance.crash import states_of
from conformance.model import Tensor, tensor
from conformance.recipes import Mutation

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=300),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary(max_size=3000))
def test_xxh3_is_xxh3(data: bytes) -> None:
    assert xxh3.digest(data) == xxhash.xxh3_128_digest(data)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 1024, 1025, 1088, 4096, 9000])
def test_xxh3_at_the_edges_of_its_cases(size: int) -> None:
    data = os.urandom(size)
    assert xxh3.digest(data) == xxhash.xxh3_128_digest(data)


@given(PLAIN)
def test_packing_is_msgpack(item: Any) -> None:
    assert packing.pack(item) == msgpack.packb(item)
    assert msgpack.unpackb(packing.pack_long(item)) == item
    assert packing.unpack(packing.pack(item)) == packing.unpack(packing.pack_long(item)) == item


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x92\x01", b"\xa2a", b"\x80\x80", b"\xd4\x05\0", b"\x82\xa1a\1\xa1a\2"]
)
def test_unpacking_refuses(raw: bytes) -> None:
    with pytest.raises(packing.Bad):
        packing.unpack(raw)


@pytest.mark.parametrize("layout", ["file", "loose"])
@pytest.mark.parametrize("digest", ["sha256", "xxh3-128", "blake3"])
def test_both_writers_give_the_same_bytes(tmp_path: Path, layout: str, digest: str) -> None:
    """Two writers, made apart from each other from one text, agree to the byte. [MAN-004] [PACK-004] [PACK-005]"""
    import numpy as np

    words = tensor("int16", (300, 50), "x")
    array = np.frombuffer(words.data, "<i2").reshape(300, 50)
    ckptfmt.save(tmp_path / "theirs", {"a/b": array, "n": 1}, layout=layout, digest=digest, schema=("s", "1"))
    described = Checkpoint(
        {"a/b": words, "n": 1},
        layout=layout,
        digest=digest,
        block=4 << 20,
        schema=("s", "1"),
        generator=f"ckptfmt {ckptfmt.__version__}",
    )
    write_files(described.build(), tmp_path / "ours")
    if layout == "file":
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
        return
    theirs = {
        path.relative_to(tmp_path / "theirs"): path for path in (tmp_path / "theirs").rglob("*") if path.is_file()
    }
    for name, path in theirs.items():
        assert (tmp_path / "ours" / name).read_bytes() == path.read_bytes(), name
    assert len(theirs) == sum(path.is_file() for path in (tmp_path / "ours").rglob("*"))


def test_an_empty_tensor_that_numpy_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    huge = Tensor("float64", (2**50, 0, 2**50), b"", grid=(1, 1, 1))
    write_files(Checkpoint({"x": huge, "y": tensor("int8", (3,))}).build(), tmp_path / "x.ckpt")
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint["x"].shape == huge.shape
        assert checkpoint["y"].read().shape == (3,)
        for read in (checkpoint.load, checkpoint["x"].read):
            with pytest.raises(ckptfmt.UnsupportedError) as raised:
                read()
            assert raised.value.code == "limit-exceeded"


def test_resealing_what_was_not_changed_changes_nothing() -> None:
    for layout in ("file", "loose"):
        files = flatten(Checkpoint({"x": tensor("int8", (5,)), "n": 1}, layout=layout).build())
        mutation = Mutation(files)
        mutation.apply([{"do": "reseal", "digests": True}])
        assert mutation.files == files


def test_a_resealed_file_is_a_whole_zip(tmp_path: Path) -> None:
    mutation = Mutation(flatten(Checkpoint({"x": tensor("int8", (5,)), "n": 1}).build()))
    step = {"do": "edit_manifest", "pointer": "/generator", "msgpack": packing.pack("another one, and longer").hex()}
    mutation.apply([step, {"do": "reseal"}])
    (tmp_path / "x.ckpt").write_bytes(mutation.files[""])
    with zipfile.ZipFile(tmp_path / "x.ckpt") as archive:
        assert archive.testzip() is None
    assert ckptfmt.verify(tmp_path / "x.ckpt").ok
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint.generator == "another one, and longer"


def test_crash_states_lose_what_was_not_flushed() -> None:
    write = {"call": "write", "path": "t", "offset": 0, "hex": "aabb"}
    calls = [{"call": "create", "path": "t"}, write, {"call": "link", "path": "t", "to": "x"}]
    at_the_end = [state for number, state in states_of(calls, "x", None) if number == 3]
    assert {(state or {}).get("") for state in at_the_end} == {None, b"", b"\xaa", b"\xaa\xbb"}
    flushed = [*calls[:2], {"call": "flush", "path": "t"}, calls[2], {"call": "flush", "path": "."}]
    found = list(states_of(flushed, "x", None))
    assert {(state or {}).get("") for number, state in found if number == 5} == {b"\xaa\xbb"}
    assert {(state or {}).get("") for number, state in found if number == 4} == {None, b"\xaa\xbb"}


def test_the_text_of_the_specification_is_understood() -> None:
    assert spec.codes()["block-digest"] == "chunk"
    assert "READ-004" not in spec.binding()
    assert {"TREE-001", "FRM-002", "SEC-001"} <= spec.binding() <= spec.statements().keys()


@pytest.mark.parametrize("place", ["chunk", "header", "directory", "manifest", "part"])
def test_a_written_pack_is_judged(tmp_path: Path, place: str) -> None:
    import numpy as np

    array = np.arange(5, dtype=np.int32)
    ckptfmt.save(tmp_path / "x", {"a": array, "b": np.ones((3, 3))}, layout="packed", digest="sha256")
    assert judge.judge(tmp_path / "x", canonical=True).violations == []
    parts = sorted((tmp_path / "x" / "parts").iterdir())
    path = {
        "manifest": tmp_path / "x" / "manifest.msgpack",
        "part": parts[0] if parts else tmp_path / "x" / "COMMIT",
    }.get(place, tmp_path / "x" / "packs" / "00000.zip")
    data = bytearray(path.read_bytes())
    at = {"chunk": data.find(array.tobytes()), "header": 10, "directory": data.find(b"PK\1\2") + 12}.get(place, 20)
    data[at] ^= 1
    path.write_bytes(data)
    assert judge.judge(tmp_path / "x", canonical=True).violations != []


def test_what_mutants_leave_out_is_there() -> None:
    """A function that was renamed would be mutated again, or hide another."""
    names: set[str] = set()
    for module in mutants.MODULES:
        for node in ast.walk(ast.parse((mutants.PACKAGE / module).read_text())):
            if isinstance(node, ast.FunctionDef):
                names |= {node.name.strip("_"), f"{module}:{node.name.strip('_')}"}
            elif isinstance(node, ast.ClassDef):
                names.add(node.name)
    assert names >= mutants.OUT_OF_REACH | mutants.OUT_OF_REACH_CLASSES
    assert len({mutant.change for mutant in mutants.mutants("format/commit.py")}) > 5
