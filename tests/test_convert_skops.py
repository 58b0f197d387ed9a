"""Archives of skops, as skops writes them, and of the same form."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conversions import imported
from hostile import MATRIX, refused
from mangling import only_errors
from peers import peer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ckptfmt.conversion import open_source

ROWS = np.random.default_rng(1).normal(size=(40, 3))
CLASSES = np.where(ROWS[:, 0] > 0, "a", "b")
COMPRESSED = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 6}


@pytest.fixture(scope="module")
def skops() -> Any:
    """Imported here, as that takes seconds: not by processes that only collect these tests."""
    return peer("skops.io")


@pytest.mark.parametrize("how", [{}, COMPRESSED], ids=["stored", "compressed"])
def test_an_estimator_is_its_attributes(tmp_path: Path, how: Any, skops: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, CLASSES)
    skops.dump(pipeline, tmp_path / "a.skops", **how)
    refused(tmp_path / "a.skops", "lossy", "a sklearn.pipeline.Pipeline becomes a dict of its attributes")
    tree, _ = imported(tmp_path / "a.skops", allow_loss="value")
    (_, scaler), (_, model) = tree["steps"]
    assert np.array_equal(scaler["mean_"], pipeline[0].mean_)
    assert np.array_equal(model["coef_"], pipeline[1].coef_)
    assert model["classes_"] == ["a", "b"]
    assert model["max_iter"] == 100


@pytest.mark.parametrize("how", [{}, COMPRESSED], ids=["stored", "compressed"])
def test_the_trees_of_a_forest(tmp_path: Path, how: Any, skops: Any) -> None:
    forest = RandomForestClassifier(2, random_state=1).fit(ROWS, CLASSES)
    skops.dump(forest, tmp_path / "a.skops", **how)
    tree, _ = imported(tmp_path / "a.skops", allow_loss="value")
    for found, grown in zip(tree["estimators_"], forest.estimators_, strict=True):
        kept = grown.tree_.__getstate__()
        for name, array in found["tree_"]["nodes"].items():
            assert np.array_equal(array, kept["nodes"][name])
        assert np.array_equal(found["tree_"]["values"], kept["values"])
        assert found["tree_"]["arguments"][0] == 3


def test_values(tmp_path: Path, skops: Any) -> None:
    values = {
        "array": MATRIX,
        "same": MATRIX,
        "turned": np.asfortranarray(MATRIX),
        3: np.float32(2),
        "plain": [1, (2.5, None, True), "é"],
        "bytes": b"\0\xff",
        "objects": np.array(["x", None], object),
        "dtype": np.dtype("f4"),
        "set": {1},
        "slice": slice(1, 3),
        "sparse": scipy.sparse.csr_matrix(np.eye(3)),
        "masked": np.ma.masked_array([1, 2], [0, 1]),
        "function": np.log1p,
        "kinds": [int, 1],
    }
    skops.dump(values, tmp_path / "a.skops")
    tree, _ = imported(tmp_path / "a.skops", allow_loss="value")
    plain = {"plain": values["plain"], "bytes": b"\0\xff", "objects": ["x", None], "dtype": "float32", "set": [1]}
    plain |= {"slice": {"start": 1, "stop": 3, "step": None}, "kinds": [None, 1]}
    assert {name: tree[name] for name in plain} == plain
    assert tree["array"] is tree["same"] or np.array_equal(tree["array"], tree["same"])
    assert np.array_equal(tree["turned"], MATRIX)
    assert tree[3] == 2
    assert np.array_equal(tree["sparse"]["data"], [1, 1, 1])
    assert np.array_equal(tree["masked"]["mask"], [0, 1])
    assert "function" not in tree
    with open_source(str(tmp_path / "a.skops")) as source:
        assert source.format == "skops"
        assert source.tree["array"] is source.tree["same"]


def test_two_keys_of_one_text(tmp_path: Path, skops: Any) -> None:
    """findings/skops-keys-of-one-text.sh"""
    skops.dump({1: "int", "1": "text"}, tmp_path / "a.skops")
    refused(tmp_path / "a.skops", "bad-source", "the name '1' stands twice")


# ---- of the same form


def node(loader: str, **more: Any) -> dict[str, Any]:
    return {"__class__": "A", "__module__": "os", "__loader__": loader, "__id__": 1, **more}


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def archive(path: Path, schema: Any, compress: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("schema.json", schema if isinstance(schema, bytes) else json.dumps(schema))
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


ARRAY = node("NdArrayNode", type="numpy", file="a.npy")


def listed(*nodes: Any) -> dict[str, Any]:
    return node("ListNode", content=list(nodes))


def test_the_form_alone(tmp_path: Path) -> None:
    """Also where skops is not installed."""
    records = np.array([(1, 2.5)], "i4,f8")
    other = node("NdArrayNode", type="numpy", file="b.npy")
    text = node("JsonNode", content='"x"')
    for compress in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        schema = listed(ARRAY, other, text, node("ObjectNode", content=None), node("FunctionNode"))
        path = archive(tmp_path / "a.skops", schema, compress, a=npy(MATRIX), b=npy(records))
        tree, _ = imported(path, allow_loss="value")
        assert np.array_equal(tree[0], MATRIX)
        assert {name: array.tolist() for name, array in tree[1].items()} == {"f0": [1], "f1": [2.5]}
        assert tree[2:] == ["x", {}, None]
        with open_source(str(path)) as source:
            assert (source.tree[0].mapped is None) is (compress == zipfile.ZIP_DEFLATED)


def test_schemas_that_were_made_to_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.skops"
    refused(archive(path, listed(ARRAY), a=npy(np.array([None]))), "unsafe-source", "array of objects")
    refused(archive(path, listed(ARRAY)), "bad-source")
    refused(archive(path, listed(ARRAY), a=b"nothing"), "bad-source")
    refused(archive(path, node("ObjectNode", content=3)), "unsupported-source", "os.A is left out")
    refused(archive(path, node("OperatorFuncNode", attrs=[])), "unsupported-source")
    refused(archive(path, listed(node("ObjectNode"))), "lossy", "a os.A becomes")
    deep = json.dumps(node("JsonNode", content="1"))
    for _ in range(300):
        deep = json.dumps(node("ListNode", content=["HERE"])).replace('"HERE"', deep)
    refused(archive(path, deep.encode()), "too-deep")
    refused(archive(path, b'{"__loader__": ' + b"[" * 100_000), "bad-source")
    keys = listed(node("TypeNode", __class__="int"))
    inner = {"content": {"a": ARRAY}, "key_types": keys}
    refused(archive(path, node("DictNode", **inner), a=npy(MATRIX)), "bad-source")
    refused(
        archive(path, b'{"__loader__": "JsonNode", "__loader__": "JsonNode", "content": "1"}'), "bad-source", "twice"
    )
    refused(archive(path, node("JsonNode", content="[" * 100_000)), "bad-source")
    several = listed(*[ARRAY] * 100)
    assert len(imported(archive(path, several, a=npy(MATRIX)))[0]) == 100


def test_a_schema_that_is_a_bomb(tmp_path: Path) -> None:
    schema = b'{"__loader__": "JsonNode", "content": "' + b" " * (40 << 20) + b'1"}'
    refused(archive(tmp_path / "a.skops", schema, zipfile.ZIP_DEFLATED), "limit-exceeded")


def test_damage(tmp_path: Path) -> None:
    schema = listed(ARRAY, node("DictNode", content={"a": ARRAY}, key_types=listed(node("TypeNode", __class__="str"))))
    for compress in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        only_errors(archive(tmp_path / "a.skops", schema, compress, a=npy(MATRIX)), "skops")
