"""msgpack of msgpack-numpy, and a model of thinc that is written so (tests/data/make_msgpack_numpy.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from conversions import imported
from hostile import refused
from mangling import only_errors

from ckptfmt.conversion import open_source

DATA = Path(__file__).parent / "data/msgpack_numpy"
KINDS = ("bool", "int8", ">i2", "int64", "uint32", "float16", "float64", ">c8", "complex128")


def test_arrays_and_numbers(tmp_path: Path) -> None:
    tree, _ = imported(Path(shutil.copy(DATA / "kinds.msgpack", tmp_path)))
    for name in KINDS:
        dtype = np.dtype(name).newbyteorder("=")
        assert (tree[name].dtype, tree[name].tolist()) == (dtype, np.arange(6).astype(dtype).reshape(2, 3).tolist())
    assert (tree["scalar"], tree["scalar"].dtype, tree["complex"]) == (1.5, np.dtype("f4"), 1.5 - 2j)
    assert (tree["no axes"].tolist(), tree["empty"].shape, tree["empty"].dtype) == (3, (0, 3), np.dtype("f8"))


def test_a_model_of_thinc(tmp_path: Path) -> None:
    path = Path(shutil.copy(DATA / "thinc.msgpack", tmp_path))
    with open_source(str(path)) as source:
        assert (source.format, source.losses) == ("flax", ())
        assert all(isinstance(item, np.memmap | np.ndarray) for item in source.tree["params"][1].values())
    tree, _ = imported(path)
    found = [layer[name] for layer in tree["params"] for name in sorted(layer)]
    with np.load(DATA / "thinc.npz") as expected:
        assert [array.tolist() for array in found] == [expected[name].tolist() for name in expected.files]


def array(**changed: Any) -> bytes:
    """An array whose map has other values, or lacks those of None."""
    made = {"nd": True, "type": "<f4", "kind": b"", "shape": [2], "data": bytes(8)} | changed
    named = {key.encode(): value for key, value in made.items() if value is not None}
    return msgpack.packb({"w": named})


REFUSED = {
    "too few bytes": ("bad-source", array(data=bytes(7))),
    "a side below zero": ("bad-source", array(shape=[-2])),
    "text for bytes": ("bad-source", array(data="abcdefgh")),
    "an unknown dtype": ("unsupported-source", array(type="<f5")),
    "times": ("unsupported-source", array(type="<M8[s]")),
    "objects": ("unsupported-source", array(kind=b"O", type="|O")),
    "fields": ("unsupported-source", array(kind=b"V", type=[["a", "<f4"]])),
    "no shape": ("unsupported-source", array(shape=None)),
    "a key more": ("unsupported-source", array(complex=True)),
    "no number": ("bad-source", msgpack.packb({"w": {b"complex": True, b"data": "one"}})),
    "bytes before": ("unsupported-source", msgpack.packb({"w": {b"data": bytes(4), b"nd": False, b"type": "<f4"}})),
    "another key of bytes": ("unsupported-source", msgpack.packb({"w": {b"x": 1}})),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_array(tmp_path: Path, what: str) -> None:
    code, data = REFUSED[what]
    (tmp_path / "x.msgpack").write_bytes(data)
    refused(tmp_path / "x.msgpack", code)


def test_damage(tmp_path: Path) -> None:
    for name in ("kinds", "thinc"):
        only_errors(Path(shutil.copy(DATA / f"{name}.msgpack", tmp_path)), "flax")
