"""Node documents (SPEC.md section 5): their exact text, their order, and what stock readers need in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.arrays import ArraySpec
from ckptfmt.format.codecs import RAW, codec_asked
from ckptfmt.format.dtypes import DTYPES, DType
from ckptfmt.format.names import escape
from ckptfmt.format.zarr_nodes import node_documents
from ckptfmt.testing.strategies import keys

GROUP = b'{"zarr_format":3,"node_type":"group","attributes":{}}'
ROOT = b'{"zarr_format":3,"node_type":"group","attributes":{"ckptfmt":{"format":[1,0]}}}'
BFLOAT16 = (
    b'{"zarr_format":3,"node_type":"array","shape":[4,2],"data_type":"uint16","chunk_grid":{"name":"regular",'
    b'"configuration":{"chunk_shape":[4,2]}},"chunk_key_encoding":{"name":"default","configuration":{"separator":"/"}},'
    b'"fill_value":0,"codecs":[{"name":"bytes","configuration":{"endian":"little"}}],'
    b'"attributes":{"ckptfmt":{"dtype":"bfloat16","shape":[4,2]}}}'
)


def spec(dtype: str, shape: tuple[int, ...], grid: tuple[int, ...] | None = None, codec: Any = RAW) -> ArraySpec:
    return ArraySpec(DTYPES[dtype], shape, DTYPES[dtype].storage_shape(shape) if grid is None else grid, codec)


def documents(tensors: dict[str, ArraySpec]) -> dict[str, bytes]:
    found = list(node_documents(tuple(tensors), tuple(tensors.values())))
    assert len(dict(found)) == len(found)
    return dict(found)


def test_documents_are_canonical() -> None:  # [ZARR-012] [ZARR-013] [ZARR-014]
    found = documents({"model/w": spec("bfloat16", (4, 2)), "step": spec("int64", ())})
    assert list(found) == ["zarr.json", "model/w/zarr.json", "model/zarr.json", "step/zarr.json"]
    assert found["zarr.json"] == ROOT
    assert found["model/zarr.json"] == GROUP
    assert found["model/w/zarr.json"] == BFLOAT16
    step = json.loads(found["step/zarr.json"])
    assert (step["shape"], step["data_type"], step["fill_value"], step["attributes"]) == ([], "int64", 0, {})


def test_a_tree_without_tensors_has_the_root_only() -> None:  # [ZARR-001]
    assert documents({}) == {"zarr.json": ROOT}


def test_the_root_may_be_an_array() -> None:  # [NAME-005] [ZARR-014]
    plain = documents({"": spec("float32", (3,))})
    assert list(plain) == ["zarr.json"]
    assert json.loads(plain["zarr.json"])["attributes"] == {"ckptfmt": {"format": [1, 0]}}
    extended = json.loads(documents({"": spec("int4", (3,))})["zarr.json"])
    assert extended["shape"] == [2]
    assert extended["attributes"] == {"ckptfmt": {"format": [1, 0], "dtype": "int4", "shape": [3]}}


@pytest.mark.parametrize("row", DTYPES.values(), ids=DTYPES)
def test_every_dtype(row: DType) -> None:  # [ZARR-012] [ZARR-013]
    document = json.loads(documents({"a": spec(row.name, (3, 9))})["a/zarr.json"])
    assert document["data_type"] == row.storage
    assert document["shape"] == [3, -(-9 // row.per)]
    zero: Any = {"b": False, "f": 0.0, "c": [0.0, 0.0]}.get(row.stored.kind, 0)
    assert json.dumps(document["fill_value"]) == json.dumps(zero)
    assert document["attributes"] == ({} if row.is_core else {"ckptfmt": {"dtype": row.name, "shape": [3, 9]}})


def test_grid_and_codecs_are_those_of_the_tensor() -> None:  # [ZARR-002] [ZARR-006]
    codec = codec_asked({"name": "zstd", "level": 7})
    document = json.loads(documents({"a": spec("float32", (10, 4), (3, 4), codec)})["a/zarr.json"])
    assert document["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": [3, 4]}}
    assert document["codecs"] == codec.chain


@given(st.lists(st.lists(keys(), min_size=1, max_size=4).map(tuple), max_size=8, unique=True))
def test_a_group_for_each_container_and_an_array_for_each_tensor(paths: list[Any]) -> None:  # [ZARR-001]
    typed = [tuple((type(key), key) for key in path) for path in paths]
    leaves = [
        path
        for path, exact in zip(paths, typed, strict=True)
        if not any(other[: len(exact)] == exact for other in typed if other != exact)
    ]
    names = ["/".join(map(escape, path)) for path in leaves]
    found = documents(dict.fromkeys(names, spec("int8", (1,))))
    groups = {"/".join(map(escape, path[:depth])) for path in leaves for depth in range(1, len(path))}
    assert {key.removesuffix("zarr.json").rstrip("/") for key in found} == {"", *groups, *names}
    kinds = {key.removesuffix("/zarr.json"): json.loads(text)["node_type"] for key, text in found.items() if "/" in key}
    assert kinds == dict.fromkeys(groups, "group") | dict.fromkeys(names, "array")
    first, *others = found
    assert first == "zarr.json"  # [PACK-004]
    assert others == sorted(others, key=str.encode)
