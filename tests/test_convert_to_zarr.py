"""Zarr groups that conversions write: zarr-python and TensorStore read them, and so does this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from conversions import CORE, exported, imported, in_order, one_of_each
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.conversion.formats.zarr import OF_TENSORSTORE
from ckptfmt.testing import assert_same_tree, strategies

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_zarr_python_reads_it(tmp_path: Path) -> None:
    tree = {"params": {"w": MATRIX, "scalar": np.array(3.0)}, "step": 3, "config": {"lr": 0.5, "betas": [1, [2, None]]}}
    assert exported(tree, tmp_path / "x.zarr").losses == ()
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert group["params/w"].chunks == (2, 3)
    assert_same_tree({"w": group["params/w"][:]}, {"w": MATRIX})
    assert group["params/scalar"][()] == 3.0
    assert (group.attrs["step"], group["config"].attrs["lr"], group["config"].attrs["betas"]) == (
        3,
        0.5,
        [1, [2, None]],
    )
    assert sorted(path.name for path in (tmp_path / "x.zarr").iterdir()) == ["config", "params", "zarr.json"]
    assert_same_tree(in_order(imported(tmp_path / "x.zarr")[0], tree), tree)


def test_elements_of_every_kind(tmp_path: Path) -> None:
    names = [*CORE, "complex64", "complex128"]
    tree = one_of_each(names)
    assert exported(tree, tmp_path / "x.zarr").losses == ()
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    for name, array in tree.items():
        assert_same_tree({name: np.asarray(group[name][...])}, {name: array})
    assert_same_tree(in_order(imported(tmp_path / "x.zarr")[0], tree), tree)


def test_elements_that_zarr_python_lacks_are_those_of_tensorstore(tmp_path: Path) -> None:
    ts = pytest.importorskip("tensorstore")
    tree = {name: np.array([[1, 0], [1, 1]]).astype(getattr(ml_dtypes, name)) for name in sorted(OF_TENSORSTORE)}
    assert exported(tree, tmp_path / "x.zarr").losses == ()
    for name, array in tree.items():
        store = {"driver": "file", "path": f"{tmp_path}/x.zarr/{name}/"}
        found = ts.open({"driver": "zarr3", "kvstore": store}).result().read().result()
        assert_same_tree({name: np.ascontiguousarray(found)}, {name: array})
    assert_same_tree(imported(tmp_path / "x.zarr")[0], tree)
    report = exported({"w": MATRIX.astype(ml_dtypes.uint4)}, tmp_path / "y.zarr", allow_loss=True)
    assert [loss.kind for loss in report.losses] == ["dtype"]


def test_parts_of_a_tensor_are_its_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that none is written twice, and memory holds one."""
    monkeypatch.setattr("ckptfmt.conversion.source.SLAB", 64)
    tree = {"rows": np.arange(70, dtype="f4").reshape(14, 5), "wide": np.arange(96, dtype="f8").reshape(2, 3, 16)}
    tree["none"] = np.zeros((3, 0, 2))
    assert exported(tree, tmp_path / "x.zarr").losses == ()
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert {name: group[name].chunks for name in tree} == {"rows": (3, 5), "wide": (1, 1, 8), "none": (3, 1, 2)}
    for name, array in tree.items():
        assert_same_tree({name: group[name][...]}, {name: array})


def test_zeros_are_written(tmp_path: Path) -> None:
    """A chunk that is not there is then one that was lost."""
    exported({"w": np.zeros(4)}, tmp_path / "x.zarr")
    assert (tmp_path / "x.zarr/w/c/0").exists()


def test_attributes_and_names_of_axes_go_back(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"title": "x", "n": [1, {"a": None}]})
    group.create_array("w", data=MATRIX, attributes={"unit": "m"}, dimension_names=["row", None])
    assert ckptfmt.convert(tmp_path / "a.zarr", tmp_path / "b.ckpt").losses == ()
    assert ckptfmt.convert(tmp_path / "b.ckpt", tmp_path / "c.zarr").losses == ()
    again = zarr.open_group(tmp_path / "c.zarr", mode="r")
    assert again.attrs.asdict() == group.attrs.asdict()
    assert again["w"].attrs.asdict() == {"unit": "m"}
    assert again["w"].metadata.dimension_names == ("row", None)


METADATA = {
    "no place": {"zarr.attributes": {"gone": {"a": 1}}},
    "no JSON": {"zarr.attributes": {"w": {"a": b"x"}}},
    "a value's name": {"zarr.attributes": {"": {"step": 1}}},
    "no dict": {"zarr.attributes": 3},
    "too few axes": {"zarr.dimension_names": {"w": ["row"]}},
    "axes of a group": {"zarr.dimension_names": {"": ["row"]}},
    "of others": {"hdf5.attributes": {"w": {"a": 1}}},
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_that_a_group_lacks(tmp_path: Path, what: str) -> None:
    tree = {"w": MATRIX, "step": 3}
    with pytest.raises(ckptfmt.InputError) as raised:
        exported(tree, tmp_path / "x.zarr", METADATA[what])
    assert raised.value.code == "lossy"
    report = exported(tree, tmp_path / "x.zarr", METADATA[what], allow_loss=True)
    assert [loss.kind for loss in report.losses] == ["metadata"]
    assert imported(tmp_path / "x.zarr")[1] is None


LOST = {
    "a list of tensors": ({"a": [MATRIX]}, "nesting", "a"),
    "a tuple": ({"a": (1, 2)}, "nesting", "a"),
    "int keys": ({"a": {1: MATRIX}}, "nesting", "a/1"),
    "no number": ({"a": float("nan")}, "value", "a"),
    "bytes": ({"a": b"x"}, "value", "a"),
    "bytes in a list": ({"a": [b"x"]}, "value", "a/0"),
    "a leaf": (MATRIX, "nesting", ""),
}


@pytest.mark.parametrize("what", LOST)
def test_what_is_lost_is_named_first(tmp_path: Path, what: str) -> None:
    tree, kind, path = LOST[what]
    with pytest.raises(ckptfmt.InputError) as raised:
        exported(tree, tmp_path / "x.zarr")
    assert raised.value.code == "lossy"
    assert not (tmp_path / "x.zarr").exists()
    report = exported(tree, tmp_path / "x.zarr", allow_loss=True)
    assert (kind, path) in [(loss.kind, loss.path) for loss in report.losses]


@pytest.mark.parametrize(("tree", "expected"), [([3, [None]], {"0": 3, "1": [None]}), ([], {})])
def test_a_list_of_values_that_is_the_whole_tree_becomes_a_group(tmp_path: Path, tree: Any, expected: Any) -> None:
    report = exported(tree, tmp_path / "x.zarr", allow_loss=True)
    assert [str(loss) for loss in report.losses] == ["nesting of '': list becomes dict"]
    assert imported(tmp_path / "x.zarr")[0] == expected


@pytest.mark.parametrize("name", ["", ".", "..", "...", "a/b", "a\0b", "__x", "zarr.json", "COMMIT", "x" * 256])
@pytest.mark.parametrize("item", [MATRIX, 5, {"w": MATRIX}], ids=["array", "value", "group"])
def test_names_that_nodes_lack(tmp_path: Path, name: str, item: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as raised:
        exported({"g": {name: item}}, tmp_path / "x.zarr", allow_loss=True)
    assert raised.value.code == "unsupported-key"
    assert not (tmp_path / "x.zarr").exists()


def test_a_value_is_what_the_group_says(tmp_path: Path) -> None:
    """Whatever the attribute that names them says."""
    exported({"w": MATRIX, "step": 3}, tmp_path / "x.zarr")
    file = tmp_path / "x.zarr/zarr.json"
    document = json.loads(file.read_text())
    for names, is_value in (
        (["gone"], False),
        ("step", False),
        ([1], False),
        ([[]], False),
        (None, False),
        (["step"], True),
    ):
        document["attributes"]["ckptfmt.values"] = names
        file.write_text(json.dumps(document))
        tree, metadata = imported(tmp_path / "x.zarr")
        assert ("step" in tree) is is_value
        assert (metadata is None) is is_value
    document["attributes"] = {"w": 3, "ckptfmt.values": ["w"]}
    file.write_text(json.dumps(document))
    with pytest.raises(ckptfmt.CorruptError, match="'w' stands twice"):
        imported(tmp_path / "x.zarr")


def test_a_group_takes_the_place_of_its_like(tmp_path: Path) -> None:
    exported({"w": MATRIX}, tmp_path / "x.zarr")
    exported({"v": MATRIX}, tmp_path / "x.zarr", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "x.zarr").iterdir()) == ["v", "zarr.json"]
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr/mine").write_text("precious")
    with pytest.raises(ckptfmt.CkptError) as raised:
        exported({"w": MATRIX}, tmp_path / "y.zarr", overwrite=True)
    assert raised.value.code == "not-replaceable"


def test_any_tree_comes_back_or_its_losses_are_named(scratch: Callable[[], Any]) -> None:
    @settings(max_examples=max(10, settings().max_examples // 5))
    @given(tree=strategies.trees(max_leaves=6), verify=st.booleans())
    def check(tree: Any, verify: bool) -> None:
        with scratch() as folder:
            target = Path(folder) / "y.zarr"
            try:
                report = exported(tree, target, allow_loss=True, verify=verify)
            except ckptfmt.InputError as error:
                assert error.code in ("name-collision", "unsupported-key")
                return
            found = ckptfmt.diff(f"{folder}/exported.ckpt", target)
            assert report.losses or not (found.changed or found.added or found.removed)

    check()
