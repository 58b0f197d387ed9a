"""Sound Zarr is read, or what is not read is named: elements that zarr-python lacks, chunks that are the fill value,
and metadata that say more than there is. Against arrays that zarr-python and TensorStore wrote and read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from conversions import imported
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.testing.equality import assert_same_tree

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
GROUPS = {2: (".zgroup", {"zarr_format": 2}), 3: ("zarr.json", {"zarr_format": 3, "node_type": "group"})}


def group(path: Path, zarr_format: int) -> Path:
    path.mkdir()
    name, document = GROUPS[zarr_format]
    (path / name).write_text(json.dumps(document))
    return path


def refused(path: Path, code: str, *words: str) -> None:
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(path, path.parent / "target.ckpt", allow_loss=True)
    assert raised.value.code == code, raised.value
    assert all(word in str(raised.value) for word in words), raised.value
    assert not (path.parent / "target.ckpt").exists()


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


# ---- elements that zarr-python lacks

LACKING = ["bfloat16", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"]
LACKING += ["float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "int4", "int2"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_elements_that_zarr_python_lacks(tmp_path: Path, zarr_format: int) -> None:
    """As TensorStore writes and reads them, with fill values where chunks were never written."""
    ts = pytest.importorskip("tensorstore")
    folder, expected = group(tmp_path / "x", zarr_format), {}
    driver = "zarr" if zarr_format == 2 else "zarr3"
    for name in LACKING:
        dtype = np.dtype(getattr(ml_dtypes, name))
        for number, fill in enumerate([None, np.array(1, dtype), np.array(-1, dtype)]):
            key = f"{name}-{number}"
            spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/{key}/"}}
            options = {} if fill is None else {"fill_value": fill}
            layout = ts.ChunkLayout(chunk_shape=[2, 3], inner_order=[1, 0] if number == 1 else [0, 1])
            array = ts.open(
                spec, create=True, dtype=ts.dtype(name), shape=[4, 5], chunk_layout=layout, **options
            ).result()
            rows = 4 if name == "float8_e8m0fnu" else 2
            array[:rows].write(np.array([[0, 1, 2, 1, 0]] * rows).astype(dtype)).result()
            expected[key] = array.read().result()
    tree, _ = imported(folder, allow_loss=zarr_format == 2)  # whose arrays may have no fill value
    assert set(tree) == set(expected)
    for key, array in expected.items():
        assert_same_tree({key: tree[key]}, {key: np.ascontiguousarray(array)})


def test_a_fill_value_that_its_writer_says_wrongly(tmp_path: Path) -> None:
    """TensorStore says 2^64 for 1 of float8_e8m0fnu, and reads that as 1."""
    ts = pytest.importorskip("tensorstore")
    folder = group(tmp_path / "x", 3)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/w/"}}
    one = np.array(1, ml_dtypes.float8_e8m0fnu)
    array = ts.open(spec, create=True, dtype=ts.float8_e8m0fnu, shape=[2], fill_value=one).result()
    refused(folder, "unsupported-source", "'w'", "float8_e8m0fnu")
    array.write(np.array([2, 4], one.dtype)).result()
    assert imported(folder)[0]["w"].astype("f4").tolist() == [2, 4]


def test_fill_values_by_their_bits(tmp_path: Path) -> None:
    """NaNs of every kind, where no chunk was written: as Zarr 3 says them in words or in digits."""
    ts = pytest.importorskip("tensorstore")
    folder = group(tmp_path / "x", 3)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/w/"}}
    ts.open(spec, create=True, dtype=ts.bfloat16, shape=[2]).result()
    for fill, bits in (("NaN", None), ("-Infinity", 0xFF80), ("0x7f81", 0x7F81), ("0xffff", 0xFFFF), (-0.0, 0x8000)):
        changed(folder / "w/zarr.json", fill_value=fill)
        found = imported(folder)[0]["w"]
        if bits is None:
            assert np.isnan(found.astype("f4")).all()
        else:
            assert found.view(np.uint16).tolist() == [bits] * 2


def _changed(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: changed(folder / "w/zarr.json", **fields)


def _records(folder: Path) -> None:
    shutil.rmtree(folder / "w")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(folder / "w", shape=(2,), dtype=[("a", "f4")], zarr_format=3)


CHUNK_SHAPES = {"kind": "inline", "chunk_shapes": [[3], [1, 3]]}
UNREADABLE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a struct": ("struct", _records),
    "a struct of newer versions": ("struct", _changed(data_type={"name": "struct", "configuration": {"fields": []}})),
    "a data type of nobody": ("float3", _changed(data_type="float3")),
    "chunks of many shapes": (
        "rectilinear",
        _changed(chunk_grid={"name": "rectilinear", "configuration": CHUNK_SHAPES}),
    ),
    "a codec of nobody": ("squeeze", _changed(codecs=[{"name": "bytes"}, {"name": "squeeze", "configuration": {}}])),
    "a codec without configuration": ("squeeze", _changed(codecs=["bytes", "squeeze"])),
    "other names of chunks": ("names", _changed(chunk_key_encoding={"name": "hashed"})),
    "what must be understood": ("secret", _changed(secret={"name": "x"})),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_is_not_read_is_named(tmp_path: Path, what: str) -> None:
    word, change = UNREADABLE[what]
    zarr.open_group(tmp_path / "x", mode="w").create_array("w", data=MATRIX)
    change(tmp_path / "x")
    refused(tmp_path / "x", "unsupported-source", "'w'", word)


def test_codecs_that_compute_with_numbers_do_not_take_integers_for_them(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "x", mode="w", zarr_format=2).create_array("w", data=MATRIX.astype("u2"))
    changed(tmp_path / "x/w/.zarray", dtype="bfloat16", filters=[{"id": "delta", "dtype": "<u2"}])
    refused(tmp_path / "x", "unsupported-source", "delta", "bfloat16")


def test_no_traceback_is_printed(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "x", mode="w").create_array("w", data=np.arange(100), chunks=(10,), compressors=None)
    for chunk in (tmp_path / "x/w/c").iterdir():
        chunk.write_bytes(chunk.read_bytes()[:-3])
    for _ in range(2):
        command = [sys.executable, "-m", "ckptfmt", "convert", str(tmp_path / "x"), str(tmp_path / "y.ckpt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode
        assert done.stderr.count("\n") == 1, done.stderr
        assert "bad-source" in done.stderr
        changed(
            tmp_path / "x/w/zarr.json",
            data_type="bfloat16",
            codecs=[{"name": "bytes", "configuration": {"endian": "little"}}],
        )


SLOW = """
import asyncio, sys
from zarr.storage import LocalStore
get = LocalStore.get
async def slow(store, key, prototype=None, byte_range=None):
    if key.endswith("/1"):
        await asyncio.sleep(30)
    return await get(store, key, prototype, byte_range)
LocalStore.get = slow
from ckptfmt.cli import main
sys.exit(main(["convert", sys.argv[1], sys.argv[2]]))
"""


def test_no_chunk_is_left_at_work_where_another_one_fails(tmp_path: Path) -> None:
    """The first of two is damaged, and the other one is slow: the error is all that is said, and nothing waits."""
    source = tmp_path / "source"
    zarr.create_array(source, data=np.ones((4, 4)), chunks=(4, 2), compressors=zarr.codecs.GzipCodec())
    (source / "c/0/0").write_bytes(b"no gzip")
    command = [sys.executable, "-c", SLOW, str(source), str(tmp_path / "target.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "bad-source" in done.stderr


# ---- what is not there


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_are_not_there_are_the_fill_value(tmp_path: Path, zarr_format: Any) -> None:
    """zarr-python leaves out what equals the fill value; what it reads then is what the format says."""
    root = zarr.open_group(tmp_path / "x", mode="w", zarr_format=zarr_format)
    values = np.array([0, 0, 1, 2, 0, 0], np.float32)
    root.create_array("w", data=values, chunks=(2,))
    array = root.create_array("n", shape=(4,), chunks=(2,), dtype="f8", fill_value=np.nan)
    array[:1] = 1
    root.create_array("none", shape=(4,), chunks=(2,), dtype="i4", fill_value=-7)
    assert len(list((tmp_path / "x/w").rglob("[0-9]*"))) == 1
    tree, _ = imported(tmp_path / "x")
    assert_same_tree(tree["w"], values)
    assert_same_tree(tree["none"], np.full(4, -7, np.int32))
    assert tree["n"].tobytes() == np.asarray(root["n"][:]).tobytes()


def test_chunks_that_are_not_there_without_a_fill_value(tmp_path: Path) -> None:
    """zarr-python leaves out zeros here, too, and reads them; the format says nothing of these chunks."""
    root = zarr.open_group(tmp_path / "x", mode="w", zarr_format=2)
    array = root.create_array("w", shape=(2, 4), chunks=(1, 2), dtype="f4", fill_value=None)
    root.create_array("whole", data=MATRIX, chunks=(2, 2), fill_value=None)[0, 0] = 5
    root.create_array("scalar", data=np.array(3.0), fill_value=None)
    array[...] = np.array([[0, 0, 1, 2], [0, 0, 0, 0]])
    with open_source(str(tmp_path / "x")) as source:
        assert [(loss.kind, loss.path, loss.message[:6]) for loss in source.losses] == [("missing", "w", "3 of 4")]
    assert_same_tree(imported(tmp_path / "x", allow_loss=True)[0]["w"], array[...])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_consolidated_metadata_that_say_more(tmp_path: Path, zarr_format: Any) -> None:
    root = zarr.open_group(tmp_path / "x", mode="w", zarr_format=zarr_format)
    root.create_array("a/w", data=MATRIX)
    root.create_array("v", data=MATRIX[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(tmp_path / "x")
    assert_same_tree(imported(tmp_path / "x")[0], {"a": {"w": MATRIX}, "v": MATRIX[0].copy()})
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    changed(tmp_path / "y/v" / (".zarray" if zarr_format == 2 else "zarr.json"), shape=[3])
    refused(tmp_path / "y", "bad-source", "'v'", "shape")
    shutil.rmtree(tmp_path / "x/a/w")
    refused(tmp_path / "x", "bad-source", "'a/w'", "not there")


def test_arrays_below_directories_that_are_no_groups(tmp_path: Path) -> None:
    folder = group(tmp_path / "x", 2)
    (folder / "notes").mkdir()
    (folder / "notes/readme").write_text("x")
    zarr.create_array(folder / "a/b/w", data=MATRIX, zarr_format=2)
    assert_same_tree(imported(folder)[0], {"a": {"b": {"w": MATRIX}}})


def test_attributes_names_of_axes_and_further_fields(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "x", mode="w")
    root.create_array("w", data=MATRIX, dimension_names=["in", None], attributes={"unit": "m"})
    changed(tmp_path / "x/w/zarr.json", hint={"name": "x", "must_understand": False})
    tree, metadata = imported(tmp_path / "x", allow_loss=True)
    assert_same_tree(tree, {"w": MATRIX})
    assert metadata == {"zarr.attributes": {"w": {"unit": "m"}}, "zarr.dimension_names": {"w": ["in", None]}}
    with open_source(str(tmp_path / "x")) as source:
        assert [(loss.kind, loss.path) for loss in source.losses] == [("metadata", "w")]


def test_text(tmp_path: Path) -> None:
    for zarr_format in (2, 3):
        path = tmp_path / f"x{zarr_format}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
            root.create_array("words", data=np.array([["a"], ["bé"]], np.dtypes.StringDType()))
            root.create_array("fixed", data=np.array(["a", "bé"]))
            root.create_array("bytes", data=np.array([b"a", b"bc"]))
            root.create_array("day", data=np.array(["2020-02-29", "NaT"], "M8[D]"))
            tree, _ = imported(path)
        assert (tree["words"], tree["fixed"], tree["bytes"]) == ([["a"], ["bé"]], ["a", "bé"], [b"a", b"bc"])
        assert_same_tree(tree["day"], np.array(["2020-02-29", "NaT"], "M8[D]"))


# ---- any array

COMPRESSORS: dict[int, list[Any]] = {
    2: [None, "auto"],
    3: [None, "auto", [zarr.codecs.GzipCodec()], [zarr.codecs.BloscCodec()], [zarr.codecs.Crc32cCodec()]],
}


@given(data=st.data(), zarr_format=st.sampled_from([2, 3]))
def test_any_zarr_is_what_zarr_python_reads(scratch: Callable[[], Any], data: st.DataObject, zarr_format: Any) -> None:
    array = data.draw(
        hnp.arrays(
            hnp.integer_dtypes()
            | hnp.floating_dtypes(sizes=(16, 32, 64))
            | hnp.complex_number_dtypes(sizes=(64, 128))
            | hnp.boolean_dtypes(),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        )
    )
    chunks = tuple(data.draw(st.integers(1, max(n, 1))) for n in array.shape)
    options: dict[str, Any] = {"order": data.draw(st.sampled_from("CF"))} if zarr_format == 2 else {}
    if zarr_format == 3 and array.ndim and data.draw(st.booleans()):
        options["shards"] = tuple(side * data.draw(st.integers(1, 3)) for side in chunks)
    if zarr_format == 3 and array.ndim:
        options["filters"] = [zarr.codecs.TransposeCodec(order=tuple(reversed(range(array.ndim))))]
    with scratch() as folder:
        zarr.create_array(
            f"{folder}/x/w",
            data=array,
            chunks=chunks,
            zarr_format=zarr_format,
            compressors=data.draw(st.sampled_from(COMPRESSORS[zarr_format])),
            config={"write_empty_chunks": data.draw(st.booleans())},
            **options,
        )
        with open_source(f"{folder}/x", "zarr") as source:
            found = np.asarray(source.tree["w"][()])
            assert not source.losses
        truth = np.asarray(zarr.open_array(f"{folder}/x/w", mode="r")[...])
        assert_same_tree(found.astype(found.dtype.newbyteorder("=")), truth.astype(truth.dtype.newbyteorder("=")))
