"""Stored types that are not the ones in memory: what HDF5 and NumPy make of them is what a conversion gives, or it is
named. Against files that h5py and NumPy wrote and read in the same test."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from conversions import imported
from h5py import h5d, h5s, h5t
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.testing.equality import assert_same_tree

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def losses(path: Path) -> set[tuple[str, str]]:
    with open_source(str(path)) as source:
        return {(loss.kind, loss.path) for loss in source.losses}


def refused(path: Path, code: str, *words: str) -> None:
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(path, path.parent / "target.ckpt", allow_loss=True)
    assert raised.value.code == code
    assert all(word in str(raised.value) for word in words), raised.value
    assert not (path.parent / "target.ckpt").exists()


# ---- HDF5


def float_type(fields: tuple[int, ...], size: int, bias: int) -> Any:
    """A float type: sign, exponent (position, bits) and mantissa (position, bits)."""
    kind = h5t.IEEE_F64LE.copy() if size > 4 else h5t.IEEE_F32LE.copy()
    kind.set_fields(*fields)
    kind.set_precision(fields[0] + 1)
    kind.set_size(size)
    kind.set_ebias(bias)
    return kind


def int_type(base: Any, precision: int, offset: int) -> Any:
    kind = base.copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    return kind


def complex_type(part: Any, size: int, *offsets: int) -> Any:
    kind = h5t.create(h5t.COMPOUND, size)
    kind.insert(b"r", offsets[0], part)
    kind.insert(b"i", offsets[1], part)
    return kind


bfloat16 = float_type((15, 7, 8, 0, 7), 2, 127)
big_bfloat16 = bfloat16.copy()
big_bfloat16.set_order(h5t.ORDER_BE)
STORED: dict[str, tuple[Any, Any]] = {
    "bfloat16": (bfloat16, np.array([1, -2, 3.5, 0.25], "<f4")),
    "bfloat16, big-endian": (big_bfloat16, np.array([1, -2, 3.5, 0.25], "<f4")),
    "float16 in 4 bytes": (float_type((15, 10, 5, 0, 10), 4, 15), np.array([1, -2, 3.5, 0.25], "<f4")),
    "float of 8 bits": (float_type((7, 3, 4, 0, 3), 1, 7), np.array([1, -2, 3.5, 0.25], "<f4")),
    "int12 at bit 4": (int_type(h5t.STD_I16LE, 12, 4), np.array([1, -2, 3, 2000], "<i2")),
    "uint24 in 4 bytes": (int_type(h5t.STD_U32LE, 24, 8), np.array([1, 2, 3, 1 << 20], "<u4")),
    "int32, big-endian": (h5t.STD_I32BE, np.array([1, -2, 3, 2000], "<i4")),
    "complex with a hole": (complex_type(h5t.IEEE_F32LE, 16, 0, 8), np.array([1, 2j, 3, -4], "<c8")),
    "complex, big-endian": (complex_type(h5t.IEEE_F64BE, 16, 0, 8), np.array([1, 2j, 3, -4], "<c16")),
    "complex of HDF5 2.0": (getattr(h5t, "COMPLEX_IEEE_F32LE", None), np.array([1, 2j, 3, -4], "<c8")),
    "bits": (h5t.STD_B16LE, np.array([1, 2, 3, 65535], "<u2")),
    "bool": (h5t.py_create(np.dtype(bool)), np.array([True, False, True, True])),
}


@pytest.mark.parametrize("chunks", [None, (3,)], ids=["contiguous", "chunked"])
@pytest.mark.parametrize("what", STORED)
def test_types_that_hdf5_converts(tmp_path: Path, what: str, chunks: Any) -> None:
    stored, values = STORED[what]
    if stored is None:
        pytest.skip("this h5py is built for an earlier HDF5")
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        layout.set_chunk(chunks)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = h5d.create(file.id, b"w", stored, h5s.create_simple((4,)), layout)
        dataset.write(h5s.ALL, h5s.ALL, values)
        file["one"] = file["w"][:1].reshape(())
        file["after"] = "x" * 100
    with h5py.File(tmp_path / "x.h5") as file:
        truth = file["w"][()]
    tree, _ = imported(tmp_path / "x.h5")
    assert truth.tolist() == values.tolist()
    assert tree["w"].tolist() == values.tolist()
    if what.startswith("bfloat16"):
        assert tree["w"].dtype == ml_dtypes.bfloat16
        assert tree["w"].tobytes() == values.astype(ml_dtypes.bfloat16).tobytes()
    else:
        assert_same_tree(tree["w"], truth.astype(truth.dtype.newbyteorder("=")))


def test_a_payload_of_bfloat16_is_kept(tmp_path: Path) -> None:
    """HDF5 gives float32, in which other NaNs come out."""
    bits = np.array([[0x7F81, 0xFFC1], [0x8000, 1]], "<u2")
    for chunks in (None, (1, 2)):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if chunks:
                layout.set_chunk(chunks)
            dataset = h5d.create(file.id, b"w", bfloat16, h5s.create_simple((2, 2)), layout)
            dataset.write(h5s.ALL, h5s.ALL, bits, bfloat16)
        assert imported(tmp_path / "x.h5")[0]["w"].view(np.uint16).tolist() == bits.tolist()


def _records(file: Any) -> None:
    file["a"] = np.zeros(2, [("x", "f4")])


def _int24(file: Any) -> None:
    kind = h5t.STD_I32LE.copy()
    kind.set_precision(24)
    kind.set_size(3)
    h5d.create(file.id, b"a", kind, h5s.create_simple((2,)))


UNREADABLE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "records": ("x", _records),
    "complex of two ints": ("r", lambda f: f.create_dataset("a", (2,), [("r", "i4"), ("i", "i4")])),
    "an array in each element": ("f4", lambda f: f.create_dataset("a", (2,), np.dtype(("f4", (3,))))),
    "arrays of any length": ("object", lambda f: f.create_dataset("a", (2,), h5py.vlen_dtype("i4"))),
    "references": ("object", lambda f: f.create_dataset("a", (2,), h5py.ref_dtype)),
    "opaque bytes": ("V2", lambda f: f.create_dataset("a", data=np.zeros(2, "V2"))),
    "long doubles": ("float128", lambda f: f.create_dataset("a", data=np.ones(2, np.longdouble))),
    "integers of 3 bytes": ("i3", _int24),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_types_that_no_checkpoint_has_are_named(tmp_path: Path, what: str) -> None:
    word, fill = UNREADABLE[what]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        fill(file)
    refused(tmp_path / "x.h5", "unsupported-source", "'a'", word)


def test_a_filter_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The chunk went through LZF, and the file says that it was another filter (Zstandard's number)."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.arange(100), chunks=(100,), compression="lzf")
    raw = (tmp_path / "x.h5").read_bytes()
    at = raw.rindex((32000).to_bytes(2, "little"), 0, raw.index(b"lzf\0"))
    (tmp_path / "x.h5").write_bytes(raw[:at] + (32015).to_bytes(2, "little") + raw[at + 2 :])
    refused(tmp_path / "x.h5", "unsupported-source", "'a'", "32015")


def test_text_links_and_what_is_empty(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=512) as file:
        file["text"] = np.array([b"a", b"\xffb"])
        file["words"] = np.array([["a"], ["bé"]], dtype=h5py.string_dtype())
        file["word"] = "w"
        file["nothing"] = h5py.Empty("f4")
        file["never written"] = np.zeros((0, 3), np.int8)
        file.create_dataset("filled", (2, 2), "f4", fillvalue=7)
        file.create_dataset("half", (4,), "f4", chunks=(2,), fillvalue=-1)[:2] = [1, 2]
        file["kinds"] = np.array([1, 2], h5py.enum_dtype({"A": 1, "B": 2}, "i1"))
        file["nowhere"] = h5py.SoftLink("/absent")
        file["day"] = np.array(["2020-02-29"], "M8[D]").astype(h5py.opaque_dtype("M8[D]"))
        file["type"] = np.dtype("f4")
        file.attrs["reference"] = file["half"].ref
        file.attrs["empty"] = h5py.Empty("f4")
    lost = {("value", "nothing"), ("metadata", "kinds"), ("value", "nowhere"), ("value", "type"), ("metadata", "")}
    assert losses(tmp_path / "x.h5") == lost
    tree, _ = imported(tmp_path / "x.h5", allow_loss=True)
    assert (tree["text"], tree["words"], tree["word"]) == (["a", b"\xffb"], [["a"], ["bé"]], "w")
    assert tree["nothing"] is None
    with h5py.File(tmp_path / "x.h5") as file:
        for name in ("filled", "half", "kinds", "never written"):
            assert_same_tree(tree[name], file[name][()])
    assert_same_tree(tree["day"], np.array(["2020-02-29"], "M8[D]"))


def test_names_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group(b"\xff\xfe")
    refused(tmp_path / "x.h5", "unsupported-source", r"\xff\xfe")


def test_a_link_over_a_link_into_another_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = MATRIX
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = h5py.SoftLink("/z/a")
        file["z"] = h5py.ExternalLink("other.h5", "/")
    refused(tmp_path / "x.h5", "unsafe-source", "'a'")


def test_keras_models(tmp_path: Path) -> None:
    """bfloat16 as Keras 3 stores it: opaque, with an attribute, and without one in its older form."""
    values = np.array([1, -2.5, 3], ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for name, chunks in (("0", None), ("1", (2,))):
            file.create_dataset(f"layers/dense/vars/{name}", data=values.view("V2"), chunks=chunks)
            file[f"layers/dense/vars/{name}"].attrs["dtype"] = "bfloat16"
    tree, _ = imported(tmp_path / "m.weights.h5")
    assert_same_tree(tree["layers"]["dense"]["vars"], {"0": values, "1": values.copy()})
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["model_weights/dense/kernel"] = values.view("V2")
    refused(tmp_path / "m.h5", "unsupported-source", "V2")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = "3.15.1"
        file["odd"] = np.zeros(2, "V3")
    with pytest.raises(ckptfmt.InputError, match="V3"):
        imported(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        del file["odd"]
    assert_same_tree(imported(tmp_path / "m.h5")[0]["model_weights"]["dense"]["kernel"], values)


def as_keras_reads(value: Any) -> Any:
    """What Keras 3.15 makes of a dataset (saving_lib.H5IOStore.__getitem__)."""
    if value.attrs.get("dtype") == "bfloat16":
        return np.array(value, dtype=ml_dtypes.bfloat16)
    return np.array(value)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (700, 5001)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_bfloat16_is_written_as_keras_reads_it(tmp_path: Path, shape: tuple[int, ...], order: str) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 16, shape, np.uint16).view(ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = bfloat16 if order == "<" else big_bfloat16
        space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
        raw = np.asarray(values).view(np.uint16).astype(f"{order}u2")
        h5d.create(file.id, b"w", stored, space).write(h5s.ALL, h5s.ALL, raw, stored)
    assert ckptfmt.convert(tmp_path / "a.h5", tmp_path / "a.ckpt").losses == ()
    assert ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.h5").losses == ()
    with h5py.File(tmp_path / "b.h5") as file:
        assert_same_tree(as_keras_reads(file["w"]), values)
    assert ckptfmt.convert(tmp_path / "b.h5", tmp_path / "b.ckpt").losses == ()
    assert ckptfmt.open(tmp_path / "b.ckpt").metadata is None  # what says the type is no attribute
    assert ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "b.ckpt").equal


def test_attributes_come_back(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update(
            {"keras_version": "3.15", "backend": "jax", "nothing": "", "of old": np.bytes_(b"tensorflow")}
        )
        group = file.create_group("layers/dense/vars")
        group.attrs["names"] = ["kernel", "bias", "ü"]
        group.attrs["old names"] = np.array([b"kernel", b"b"])
        group["0"] = MATRIX
        group["0"].attrs.update({"trainable": True, "scale": 0.5, "axes": [0, 1], "c": 1j, "none": [], "n": 2**63})
        group.create_dataset("1", data=np.ones(3, ml_dtypes.bfloat16).view("V2")).attrs["dtype"] = "bfloat16"
        group["1"].attrs["grid"] = [[1.5, 2], [3, 4]]
        file["tied"] = group["0"]
        file.create_group("empty").attrs["why"] = "kept"
    assert ckptfmt.convert(tmp_path / "a.h5", tmp_path / "a.ckpt").losses == ()
    assert ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.h5").losses == ()
    with h5py.File(tmp_path / "a.h5") as before, h5py.File(tmp_path / "b.h5") as after:
        for name in ("/", "layers/dense/vars", "layers/dense/vars/0", "layers/dense/vars/1", "tied", "empty"):
            assert after[name].attrs.keys() == before[name].attrs.keys()
            for key, value in before[name].attrs.items():
                np.testing.assert_array_equal(after[name].attrs[key], value)
                assert type(after[name].attrs[key]) is type(value)
    ckptfmt.convert(tmp_path / "b.h5", tmp_path / "b.ckpt")
    assert ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "b.ckpt").equal


UNHELD = {
    "mixed": [1, 2.5],
    "ragged": [[1], [2, 3]],
    "none": None,
    "dict": {"a": 1},
    "zero": "a\0b",
    "zero bytes": b"a\0",
    "empty bytes": b"",
    "too large": list(range(9000)),
    "many texts": ["a"] * 5000,
    "a large int": 1 << 70,
    "a bool among ints": [1, True],
}


def test_attributes_that_hdf5_cannot_have_are_named(tmp_path: Path) -> None:
    attributes = {"w": {**UNHELD, "kept": 1}, "gone": {"unit": "m"}, "b": {"dtype": "float32"}, "": {"at": "the root"}}
    tree = {"w": MATRIX, "b": np.ones(2, ml_dtypes.bfloat16)}
    ckptfmt.save(tmp_path / "a.ckpt", tree, metadata={"hdf5.attributes": attributes, "step": 1})
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.h5")
    told = {loss.message for loss in raised.value.report}
    assert told == {
        *(f"the attribute {name!r} of 'w' is left out: HDF5 has no such values" for name in UNHELD),
        "the attribute 'unit' of 'gone' is left out: nothing stands there",
        "the attribute 'dtype' of 'b' is left out: the values are bfloat16",
        "'step' is left out",
    }
    ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.h5", allow_loss="metadata")
    with h5py.File(tmp_path / "a.h5") as file:
        assert dict(file["w"].attrs) == {"kept": 1}
        assert dict(file["b"].attrs) == {"dtype": "bfloat16"}
        assert dict(file.attrs) == {"at": "the root"}
    for odd in ([1], {"w": 3}):
        ckptfmt.save(
            tmp_path / "b.ckpt", tree, metadata={"hdf5.attributes": odd, "torch.attributes": odd}, overwrite=True
        )
        for suffix in ("h5", "pt"):
            with pytest.raises(ckptfmt.InputError, match="attributes' is left out: it is no dict of dicts"):
                ckptfmt.convert(tmp_path / "b.ckpt", tmp_path / f"b.{suffix}")


integers = [stored for stored, _ in STORED.values() if isinstance(stored, h5t.TypeIntegerID)]
floats = [bfloat16, big_bfloat16, h5t.IEEE_F16LE, h5t.IEEE_F32BE, float_type((30, 20, 10, 0, 20), 4, 511)]
hdf5_types = st.sampled_from([*integers, *floats, h5t.STD_I64LE, h5t.STD_U8LE])


@given(stored=hdf5_types, shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4), data=st.data())
def test_any_hdf5_is_what_h5py_reads(scratch: Callable[[], Any], stored: Any, shape: Any, data: st.DataObject) -> None:
    size = int(np.prod(shape)) * stored.get_size()
    raw = data.draw(st.binary(min_size=size, max_size=size))
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if data.draw(st.booleans()):
        layout.set_chunk(tuple(data.draw(st.integers(1, n)) for n in shape))
        layout.set_deflate(1) if data.draw(st.booleans()) else None
    with scratch() as folder:
        with h5py.File(f"{folder}/x.h5", "w") as file:
            dataset = h5d.create(file.id, b"w", stored, h5s.create_simple(shape), layout)
            dataset.write(h5s.ALL, h5s.ALL, np.frombuffer(raw, f"V{stored.get_size()}").reshape(shape), stored)
        with h5py.File(f"{folder}/x.h5") as file:
            truth = file["w"][()]
        with open_source(f"{folder}/x.h5") as source:
            found = np.asarray(source.tree["w"][()])
        assert not source.losses
        if found.dtype == truth.dtype:
            assert found.tobytes() == truth.tobytes()
        else:
            np.testing.assert_array_equal(found.astype(truth.dtype), truth)


# ---- NumPy


def test_npz_of_other_libraries_dtypes(tmp_path: Path) -> None:
    kept = {"b": np.array([1, -2.5], ml_dtypes.bfloat16), "e": np.array([[1], [0.25]], ml_dtypes.float8_e5m2)}
    kept |= {"fortran": np.asfortranarray(MATRIX.astype(ml_dtypes.bfloat16)), "scalar": np.array(3, ml_dtypes.bfloat16)}
    kept |= {"c": np.array([1, -2.5j], ml_dtypes.complex32), "bc": np.array([[1], [0.25j]], ml_dtypes.bcomplex32)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **kept)
        assert_same_tree(imported(tmp_path / "x.npz")[0], kept)
    odd = {
        "float8_e4m3fn": np.ones(2, ml_dtypes.float8_e4m3fn),
        "raw": np.zeros(2, "V2"),
        "records": np.zeros(2, [("x", "f4")]),
        "long": np.ones(2, np.longdouble),
    }
    for name, array in odd.items():
        np.savez(tmp_path / "x.npz", **{name: array})
        refused(tmp_path / "x.npz", "unsupported-source", name)


def test_npz_of_text_times_and_nothing(tmp_path: Path) -> None:
    arrays = {"s": np.array([["a"], ["bé"]]), "b": np.array([b"a"]), "one": np.array("x")}
    arrays |= {"day": np.array(["2020-02-29"], "M8[D]"), "none": np.zeros((0, 3)), "big": np.array([1], ">i2")}
    np.savez(tmp_path / "x.npz", **arrays)
    tree, _ = imported(tmp_path / "x.npz")
    assert (tree["s"], tree["b"], tree["one"]) == ([["a"], ["bé"]], [b"a"], "x")
    assert_same_tree((tree["day"], tree["none"]), (arrays["day"], arrays["none"]))
    assert tree["big"].tolist() == [1]
    np.savez(tmp_path / "x.npz")
    assert imported(tmp_path / "x.npz")[0] == {}


def test_more_strings_than_a_tree_has(tmp_path: Path) -> None:
    """A few bytes can claim any number of them."""
    head = {"descr": "<U0", "fortran_order": False, "shape": (1 << 40,)}
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive, archive.open("w.npy", "w") as member:
        np.lib.format.write_array_header_2_0(member, head)
    refused(tmp_path / "y.npz", "limit-exceeded", "'w'")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", (1 << 30,), "S1", chunks=(1024,))
    refused(tmp_path / "x.h5", "limit-exceeded", "'w'")


def test_npz_of_names_that_numpy_mixes_up(tmp_path: Path) -> None:
    """`np.load` gives the array of "w" for "w.npy"."""
    np.savez(tmp_path / "x.npz", **{"w": MATRIX, "w.npy": MATRIX + 1})
    tree, _ = imported(tmp_path / "x.npz")
    assert_same_tree(tree, {"w": MATRIX, "w.npy": MATRIX + 1})
    for verify in (True, False):
        with pytest.raises(ckptfmt.InputError) as raised:
            ckptfmt.convert(tmp_path / "x.npz", tmp_path / "y.npz", verify=verify)
        assert (raised.value.code, raised.value.tensor) == ("name-collision", "w")
        assert not (tmp_path / "y.npz").exists()


@given(
    hnp.arrays(
        hnp.scalar_dtypes() | hnp.byte_string_dtypes(max_len=3) | hnp.unicode_string_dtypes(max_len=3),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.sampled_from("CF"),
)
def test_any_npz_is_what_numpy_reads(scratch: Callable[[], Any], array: Any, order: Any) -> None:
    with scratch() as folder:
        np.savez(f"{folder}/x.npz", w=np.asarray(array, order=order))
        try:
            with open_source(f"{folder}/x.npz", "npz") as source:
                found = source.tree["w"]
        except ckptfmt.CkptError as error:
            assert error.code == "unsupported-source"
            assert array.dtype.itemsize > 16 or array.dtype.name in ("float128", "longdouble")
            return
        if isinstance(found, list | str | bytes):
            assert found == np.load(f"{folder}/x.npz")["w"].tolist()
        else:
            assert_same_tree(np.asarray(found[()]), np.load(f"{folder}/x.npz")["w"])
