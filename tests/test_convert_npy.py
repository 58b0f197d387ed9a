"""NumPy's .npy, one record and several in a row, as NumPy and Equinox write them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import ckptfmt_jax
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conversions import CORE, imported
from hostile import MARKER, MATRIX, Call, refused
from mangling import only_errors

import ckptfmt
from ckptfmt.conversion import open_source

ARRAYS = [
    MATRIX,
    np.asfortranarray(MATRIX),
    np.array(7.5),
    np.zeros((0, 3), np.int8),
    np.arange(3, dtype=">i4"),
    np.array(["2024-01-01"], "M8[D]"),
    np.array([1.5, -2], ml_dtypes.bfloat16),
    np.array([1.5 + 2j, -1j]).astype(ml_dtypes.complex32),
    np.array([1.5 + 2j, -1j]).astype(ml_dtypes.bcomplex32),
    *((np.arange(6) % 2).astype(name).reshape(2, 3) for name in CORE),
]


def saved(path: Path, *arrays: Any) -> Path:
    with path.open("wb") as file:
        for array in arrays:
            np.save(file, array)
    return path


def same(one: Any, other: Any) -> bool:
    native = other.astype(other.dtype.newbyteorder("="))
    return one.shape == native.shape and one.dtype == native.dtype and one.tobytes() == native.tobytes()


@pytest.mark.parametrize("number", range(len(ARRAYS)))
def test_one_array_is_the_tree(tmp_path: Path, number: int) -> None:
    tree, metadata = imported(saved(tmp_path / "a.npy", ARRAYS[number]))
    assert metadata is None
    assert same(tree, ARRAYS[number])


def test_several_in_a_row_are_a_list(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.eqx", *ARRAYS)
    tree, _ = imported(path)
    assert [same(*pair) for pair in zip(tree, ARRAYS, strict=True)] == [True] * len(ARRAYS)
    with open_source(str(path)) as source:  # mapped
        assert not any(array.flags.writeable for array in source.tree if array.size)


def test_text(tmp_path: Path) -> None:
    assert imported(saved(tmp_path / "a.npy", np.array([["a", "é"]]), MATRIX))[0][0] == [["a", "é"]]


def maker(eqx: Any) -> Any:
    class Model(eqx.Module):  # type: ignore[misc]
        mlp: Any
        dropout: Any
        half: Any
        host: Any
        step: int
        rate: float
        flag: bool
        number: complex
        nothing: None = None

    def make(seed: int) -> Model:
        mlp, half = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.PRNGKey(seed)), jnp.arange(3, dtype=jnp.bfloat16) * seed
        plain = (seed, 0.5 * seed, bool(seed), 1j * seed)
        return Model(mlp, eqx.nn.Dropout(0.1 * seed), half, np.arange(4.0) * seed, *plain)

    return make


def test_a_model_of_equinox_and_back_into_one(tmp_path: Path) -> None:
    eqx = pytest.importorskip("equinox")
    trained, other = map(maker(eqx), (1, 0))
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", trained)
    assert ckptfmt.convert(tmp_path / "model.eqx", tmp_path / "model.ckpt").losses == ()
    arrays, rest = eqx.partition(other, eqx.is_array_like)
    leaves, structure = jax.tree.flatten(arrays)
    leaves = ckptfmt_jax.load(tmp_path / "model.ckpt", like=leaves)
    loaded = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
    read = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", other)
    assert eqx.tree_equal(loaded, trained)
    assert eqx.tree_equal(loaded, read)


def test_the_hyperparameters_before_it(tmp_path: Path) -> None:
    """As Equinox's documents write a model that is to be built again."""
    hyperparameters = {"width": 4, "note": "é" * 3000, "deep": [1, {"a": None}]}
    path = tmp_path / "model.eqx"
    path.write_bytes(json.dumps(hyperparameters, ensure_ascii=False).encode() + b"\n")
    with path.open("ab") as file:
        np.save(file, MATRIX)
        np.save(file, MATRIX[0])
    tree, metadata = imported(path)
    assert metadata == {"equinox.hyperparameters": hyperparameters}
    assert len(tree) == 2
    only_errors(path)


def test_what_numpy_kept_the_bits_of_alone(tmp_path: Path) -> None:
    """findings/equinox-writes-float8-and-cannot-read-it.sh"""
    path = saved(tmp_path / "a.eqx", MATRIX, np.ones(2, ml_dtypes.float8_e4m3fn))
    refused(path, "unsupported-source", "array 1 has the dtype |V1: NumPy kept the bits alone")


def test_what_is_no_row_of_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.array([Call(os.system, f"touch {MARKER}")], object))
    refused(path, "unsafe-source", "array of objects")
    assert not Path(MARKER).exists()
    whole = saved(path, *ARRAYS[:2]).read_bytes()
    path.write_bytes(whole + b"more")
    refused(path, "bad-source", "is cut off")
    path.write_bytes(whole + b"more" * 10)
    refused(path, "bad-source")
    for size in (len(whole) - 1, 200, 130):
        path.write_bytes(whole[:size])
        refused(path, "bad-source", f"is cut off: it holds {size:,} of at least")
    head = io.BytesIO()
    np.lib.format.write_array_header_2_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    path.write_bytes(head.getvalue())
    refused(path, "bad-source", "is cut off")
    path.write_bytes(b"\x93NUMPY\2\0\xff\xff\xff\x7f")
    refused(path, "bad-source", "is cut off")
    path.write_bytes(b'{"a": 1}\n')
    refused(path, "unknown-format")
    refused(path, "bad-source", source_format="npy")
    path.write_bytes(b'{"a": ' + b"[" * 5000 + b"\n" + whole)
    refused(path, "bad-source")


def test_very_many_small_arrays(tmp_path: Path) -> None:
    record = saved(tmp_path / "a.npy", np.zeros(0)).read_bytes()
    (tmp_path / "a.npy").write_bytes(record * 3000)
    assert len(imported(tmp_path / "a.npy")[0]) == 3000


def test_damage(tmp_path: Path) -> None:
    only_errors(saved(tmp_path / "a.eqx", *ARRAYS[:6]))
