"""Files of Paddle, as tests/data/make_paddle.py made them with the library itself."""

from __future__ import annotations

import pickle
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.testing.equality import assert_same_tree
from tests.conversions import imported

DATA = Path(__file__).parent / "data/paddle"
STATE = {
    "linear.weight": np.arange(6, dtype="f4").reshape(3, 2),
    "linear.bias": np.array([1, 2], "f4"),
    "norm.weight": np.array([2, 3], "f4"),
    "norm.bias": np.array([3, 4], "f4"),
    "norm._mean": np.array([4.3, 5.6000004], "f4"),
    "norm._variance": np.array([4.5, 5.3999996], "f4"),
}
NAMES = {
    "linear.weight": "linear_0.w_0",
    "linear.bias": "linear_0.b_0",
    "norm.weight": "batch_norm1d_0.w_0",
    "norm.bias": "batch_norm1d_0.b_0",
    "norm._mean": "batch_norm1d_0.w_1",
    "norm._variance": "batch_norm1d_0.w_2",
}


def read(name: str, tmp_path: Path) -> tuple[Any, Any]:
    shutil.copy(DATA / name, tmp_path)
    return imported(tmp_path / name)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_of_each_protocol(tmp_path: Path, protocol: int) -> None:
    tree, metadata = read(f"protocol{protocol}.pdparams", tmp_path)
    assert_same_tree(tree, STATE)
    assert metadata == {"paddle.names": NAMES}
    (tmp_path / f"protocol{protocol}.pdparams").rename(tmp_path / "weights")  # a state dict is told by its table
    assert_same_tree(imported(tmp_path / "weights")[0], STATE)


def test_tensors_of_every_dtype(tmp_path: Path) -> None:
    """Also bfloat16, which Paddle writes as uint16."""
    names = ("bfloat16", "float16", "float64")
    expected: dict[str, Any] = {name: np.arange(4).reshape(2, 2).astype(name) for name in names}
    expected |= {name: np.arange(4).astype(name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64")}
    expected |= {"complex64": np.array([1 + 2j], "c8"), "scalar": np.array(7.5, "f4"), "empty": np.ones((0, 3), "f4")}
    tree, _ = read("kinds.pdparams", tmp_path)
    assert_same_tree(tree, expected)
    assert tree["bfloat16"].dtype == ml_dtypes.bfloat16


def test_tensors_in_containers_and_alone(tmp_path: Path) -> None:
    tree, metadata = read("nested.pdparams", tmp_path)
    expected = {"model": OrderedDict(STATE), "epoch": 3, "list": [np.ones(2, "f4"), 1.5, "x"], "tuple": (1, None, True)}
    assert_same_tree(tree, expected)
    assert metadata["paddle.names"]["model/linear.bias"] == "linear_0.b_0"
    assert_same_tree(read("one.pdtensor", tmp_path)[0], np.ones((2, 2), "f4"))


def test_the_state_of_an_optimizer(tmp_path: Path) -> None:
    tree, metadata = read("adam.pdopt", tmp_path)
    assert tree["LR_Scheduler"] == {"last_epoch": 0, "last_lr": 0.5}
    assert {name.partition("_moment1")[0] for name in tree if "_moment1" in name} == set(NAMES.values()) - {
        "batch_norm1d_0.w_1",
        "batch_norm1d_0.w_2",
    }
    assert_same_tree(tree["batch_norm1d_0.b_0_moment1_0"], np.array([0.4000001] * 2, "f4"))
    assert metadata is None


def test_a_tensor_in_slices(tmp_path: Path) -> None:
    tree, _ = read("sliced.pdparams", tmp_path)
    assert_same_tree(tree, {"b": np.ones(2, "f4"), "w": np.arange(6, dtype="f4").reshape(3, 2)})
    with open_source(str(DATA / "sliced.pdparams")) as source:
        assert_same_tree(source.tree["w"][slice(1, 3), slice(0, 1)], np.array([[2], [4]], "f4"))


def test_large_tensors_stay_in_the_file(tmp_path: Path) -> None:
    large = {"w": np.arange(1 << 16, dtype="u2"), "StructuredToParameterName@@": {"w": "w_0"}}
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(large, 4))
    with open_source(str(tmp_path / "x.pdparams")) as source:
        assert not source.tree["w"].flags.owndata
        assert not source.tree["w"].flags.writeable
        assert_same_tree(source.tree["w"], large["w"].view(ml_dtypes.bfloat16))


def test_a_folder_of_paddle(tmp_path: Path) -> None:
    shutil.copy(DATA / "protocol4.pdparams", tmp_path / "model_state.pdparams")
    shutil.copy(DATA / "adam.pdopt", tmp_path / "model_state.pdopt")
    report = ckptfmt.convert(tmp_path, tmp_path / "x.ckpt", durable=False)
    assert (report.source_format, report.passed_over) == ("paddle", ("model_state.pdopt",))


# ---- hostile files


def refused(path: Path, *codes: str) -> None:
    try:
        with open_source(str(path)) as source:
            for leaf in source.tree.values() if isinstance(source.tree, dict) else ():
                np.asarray(leaf[()]) if hasattr(leaf, "dtype") else leaf
    except ckptfmt.CkptError as error:
        assert error.code in codes


CODES = ("bad-source", "unsafe-source", "unsupported-source", "limit-exceeded", "unknown-format", "unsupported-key")


@pytest.mark.parametrize("name", ["protocol2.pdparams", "protocol4.pdparams", "sliced.pdparams"])
def test_what_is_cut_off_or_flipped_is_an_error_or_read(tmp_path: Path, name: str) -> None:
    data = (DATA / name).read_bytes()
    path = tmp_path / name
    for length in range(2, len(data)):  # one byte is an empty dict of flax
        path.write_bytes(data[:length])
        with pytest.raises(ckptfmt.CkptError), open_source(str(path)):
            pytest.fail(f"{length} bytes are a file")
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        refused(path, *CODES, "name-collision", "too-deep")


class _Evaluated:
    def __reduce__(self) -> Any:
        return eval, ("data", {"data": np.ones(2)})


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"w": _Evaluated()}, "unsafe-source"),  # a DenseTensor, which Paddle pickles as a call of eval
        ({"a": np.ones(2), "UnpackBigParamInfor@@": {"w": {"slices": ["a", "a"], "OriginShape": (2,)}}}, "bad-source"),
        ({"a": np.ones(2), "UnpackBigParamInfor@@": {"w": {"slices": ["a"], "OriginShape": (1 << 40,)}}}, "bad-source"),
        ({"a": np.ones(2), "UnpackBigParamInfor@@": {"w": {"slices": [], "OriginShape": ()}}}, "bad-source"),
        ({"a": 1.5, "UnpackBigParamInfor@@": {"w": {"slices": ["a"], "OriginShape": (1,)}}}, "bad-source"),
        (
            {"a": np.ones(2), "w": 1, "UnpackBigParamInfor@@": {"w": {"slices": ["a"], "OriginShape": (2,)}}},
            "bad-source",
        ),
        ({"UnpackBigParamInfor@@": 3}, "bad-source"),
        ({"StructuredToParameterName@@": [1]}, "bad-source"),
    ],
    ids=map(str, range(8)),
)
def test_hostile_values(tmp_path: Path, value: Any, code: str) -> None:
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(value, 2))
    with pytest.raises(ckptfmt.CkptError) as raised, open_source(str(tmp_path / "x.pdparams")):
        pytest.fail("it was opened")
    assert raised.value.code == code
