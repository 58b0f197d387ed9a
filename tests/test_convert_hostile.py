"""Sources that are damaged, or made to harm: refused with a stable code, and nothing is run or written."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import zarr
from fuzz.wire import SMALL_MODEL
from hostile import MARKER, MATRIX, Call, refused, storage_pickle, torch_zip
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.conversion import FORMATS, gate, open_source
from ckptfmt.conversion.claims import EXPANSION, allowing
from ckptfmt.conversion.source import mapped_arrays
from ckptfmt.conversion.table import reader_of

# ---- archives


def test_a_member_whose_bytes_changed(tmp_path: Path) -> None:
    """torch itself loads such a file."""
    torch_zip(tmp_path / "x.pt", storage_pickle("I4\n", "I1\n"), **{"0": b"0123456789abcdef"})
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[data.index(b"0123456789abcdef") + 3] ^= 1
    (tmp_path / "x.pt").write_bytes(data)
    refused(tmp_path / "x.pt", "bad-source", "CRC-32")


def npz(path: Path, compress: int = zipfile.ZIP_DEFLATED, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def npy(shape: tuple[int, ...], data: bytes, dtype: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


def test_zip_bombs(tmp_path: Path) -> None:
    """Compressed zeros that are what they say, but far too many; and a member that says more than it has."""
    from ckptfmt.conversion import gate

    small = bytes(4 << 20)
    npz(tmp_path / "x.npz", a=npy((1 << 20,), small))
    ckptfmt.convert(tmp_path / "x.npz", tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "SMALL", 1 << 20)
        refused(tmp_path / "x.npz", "limit-exceeded", max_expansion=500)
        ckptfmt.convert(tmp_path / "x.npz", tmp_path / "x.ckpt", max_expansion=2000)
        (tmp_path / "x.ckpt").unlink()

    data = (tmp_path / "x.npz").read_bytes()
    size = struct.pack("<I", len(npy((1 << 20,), small)))
    npz(tmp_path / "y.npz", a=npy((1 << 34,), b""))
    said = struct.pack("<I", len(npy((1 << 34,), b"")))
    assert data.count(size) >= 2
    (tmp_path / "y.npz").write_bytes((tmp_path / "y.npz").read_bytes().replace(said, size))
    refused(tmp_path / "y.npz", "bad-source")


def test_members_that_overlap(tmp_path: Path) -> None:
    """The directory names one member twice, under two names: Fifield's bomb."""
    payload = npy((4,), bytes(16))
    npz(tmp_path / "x.npz", zipfile.ZIP_STORED, a=payload)
    data = (tmp_path / "x.npz").read_bytes()
    at = data.index(b"PK\1\2")
    entry, end = data[at : data.index(b"PK\5\6")], data[data.index(b"PK\5\6") :]
    counts = struct.pack("<HHI", 2, 2, 2 * len(entry))
    other = entry.replace(b"a.npy", b"b.npy")
    (tmp_path / "x.npz").write_bytes(data[:at] + entry + other + end[:8] + counts + end[16:])
    refused(tmp_path / "x.npz", "bad-source")
    (tmp_path / "x.npz").write_bytes(data[:at] + entry + entry + end[:8] + counts + end[16:])
    refused(tmp_path / "x.npz", "bad-source", "same name")


def test_arrays_of_objects(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([Call(os.system, f"touch {MARKER}")], object))
    refused(tmp_path / "x.npz", "unsafe-source")
    assert not Path(MARKER).exists()


@pytest.mark.parametrize(
    "member", [npy((5,), bytes(16)), npy((3,), bytes(16)), npy((-4,), bytes(16)), b"\x93NUMPY\x09\0", b"", bytes(40)]
)
@pytest.mark.parametrize("compress", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_broken_members(tmp_path: Path, member: bytes, compress: int) -> None:
    npz(tmp_path / "x.npz", compress, a=member)
    refused(tmp_path / "x.npz", "bad-source")


# ---- safetensors


def header(path: Path, text: str, data: bytes = bytes(16), length: int | None = None) -> Path:
    raw = text.encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(begin: int, end: int, shape: str = "[2]", dtype: str = "F32") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


HEADERS = {
    "a name twice": f'{{"a":{entry(0, 8)},"a":{entry(8, 16)}}}',
    "a key twice in an entry": '{"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    "an overlap": f'{{"a":{entry(0, 8)},"b":{entry(4, 12)},"c":{entry(12, 16, "[1]")}}}',
    "a hole": f'{{"a":{entry(0, 8)},"b":{entry(12, 16, "[1]")}}}',
    "a hole at the start": f'{{"a":{entry(8, 16)}}}',
    "bytes after the end": f'{{"a":{entry(0, 8)}}}',
    "an end beyond the file": f'{{"a":{entry(0, 32, "[8]")}}}',
    "offsets backwards": f'{{"a":{entry(16, 0)}}}',
    "a wrong size": f'{{"a":{entry(0, 16, "[3]")}}}',
    "a negative length": f'{{"a":{entry(0, 16, "[-2,-2]")}}}',
    "a length that is a float": f'{{"a":{entry(0, 16, "[4.0]")}}}',
    "a length that is true": f'{{"a":{entry(0, 16, "[4,true]")}}}',
    "more in an entry": '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1}}',
    "less in an entry": '{"a":{"dtype":"F32","data_offsets":[0,16]}}',
    "an entry that is a list": '{"a":[1]}',
    "metadata that are no strings": f'{{"__metadata__":{{"a":1}},"a":{entry(0, 16, "[4]")}}}',
    "no object": '{"a":',
    "deep": '{"a":' + "[" * 100_000,
}


@pytest.mark.parametrize("what", HEADERS)
def test_safetensors_headers(tmp_path: Path, what: str) -> None:
    refused(header(tmp_path / "x.safetensors", HEADERS[what]), "bad-source")


def test_safetensors_whose_metadata_are_null(tmp_path: Path) -> None:
    """As mlx writes it where there are none (findings/mlx-safetensors-null-metadata.sh)."""
    path = header(tmp_path / "x.safetensors", f'{{"__metadata__":null,"a":{entry(0, 16, "[4]")}}}')
    ckptfmt.convert(path, tmp_path / "c")
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert (list(checkpoint), checkpoint.metadata) == (["a"], None)


@pytest.mark.parametrize("length", [1 << 20, 100_000_001, (1 << 64) - 1])
def test_safetensors_headers_that_are_too_long(tmp_path: Path, length: int) -> None:
    path = header(tmp_path / "x.safetensors", "{}", length=length)
    refused(path, "bad-source", source_format="safetensors")
    refused(path, "unknown-format")


def test_safetensors_of_an_unknown_dtype(tmp_path: Path) -> None:
    path = header(tmp_path / "x.safetensors", f'{{"a":{entry(0, 12, "[16]", "F6_E2M3")}}}', bytes(12))
    refused(path, "unsupported-source", "F6_E2M3")


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_an_index_that_leads_elsewhere(tmp_path: Path, shard: str) -> None:
    safetensors.numpy.save_file({"a": MATRIX}, tmp_path / "x.safetensors")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(tmp_path / "m", "unsafe-source", inside="model.safetensors.index.json")


def test_an_index_that_differs_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    safetensors.numpy.save_file({"a": MATRIX, "b": MATRIX}, tmp_path / "m/x.safetensors")
    (tmp_path / "m/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    refused(tmp_path / "m", "bad-source", "'b'", inside="model.safetensors.index.json")


# ---- others


def test_hdf5_that_reaches_outside(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = MATRIX
    for name, fill in {
        "link": lambda f: f.__setitem__("a", h5py.ExternalLink("other.h5", "/a")),
        "raw": lambda f: f.create_dataset("a", (4,), "u1", external=[(str(tmp_path / "secret"), 0, 4)]),
        "virtual": lambda f: f.create_virtual_dataset("a", virtual_layout()),
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            fill(file)
        refused(tmp_path / f"{name}.h5", "unsafe-source")


def virtual_layout() -> Any:
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[...] = h5py.VirtualSource("other.h5", "a", (3, 4))
    return layout


def test_hdf5_that_goes_in_circles_or_is_vast(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        group = file.create_group("a")
        group["again"] = file["/"]
    refused(tmp_path / "circle.h5", "too-deep")
    with h5py.File(tmp_path / "vast.h5", "w") as file:
        file.create_dataset("a", (1 << 40,), "f4", chunks=(1024,))
    refused(tmp_path / "vast.h5", "limit-exceeded")


def test_hdf5_with_a_damaged_chunk(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset(
            "a", data=np.arange(100_000), chunks=(100_000,), compression="gzip", fletcher32=True
        )
        at = dataset.id.get_chunk_info(0).byte_offset
    data = bytearray((tmp_path / "x.h5").read_bytes())
    data[at + 100] ^= 0xFF
    (tmp_path / "x.h5").write_bytes(data)
    refused(tmp_path / "x.h5", "bad-source")


@pytest.mark.parametrize("where", ["filters", "compressor"])
@pytest.mark.parametrize("codec", ["pickle", "base64"])
def test_zarr_with_codecs_that_numbers_do_not_need(
    tmp_path: Path, where: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = zarr.create_array(tmp_path / "x", shape=(4,), dtype="u1", zarr_format=2, compressors=None)
    array[...] = 1
    document = json.loads((tmp_path / "x/.zarray").read_text())
    document[where] = [{"id": codec}] if where == "filters" else {"id": codec}
    (tmp_path / "x/.zarray").write_text(json.dumps(document))
    (tmp_path / "x/0").write_bytes(pickle.dumps(Call(os.system, f"touch {MARKER}")))
    refused(tmp_path / "x", "unsafe-source" if codec == "pickle" else "unsupported-source", codec)
    assert not (tmp_path / MARKER).exists()


def ext(code: int, payload: bytes) -> bytes:
    return msgpack.packb(msgpack.ExtType(code, payload))


def array(shape: Any, dtype: str, data: bytes) -> bytes:
    return ext(1, msgpack.packb((shape, dtype, data)))


FLAX = {
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "a count beyond the file": b"\xdf\xff\xff\xff\xff\xa1a\x01",
    "a string beyond the file": b"\x81\xa1a\xdb\xff\xff\xff\xff",
    "bytes after the end": b"\x81\xa1a\x01\x00",
    "no msgpack": b"\x81\xa1a\xc1",
    "a wrong size": b"\x81\xa1a" + array((5,), "float32", bytes(16)),
    "a negative length": b"\x81\xa1a" + array((-2, -2), "float32", bytes(16)),
    "two fields": b"\x81\xa1a" + ext(1, msgpack.packb(((4,), "float32"))),
    "a chunk that is missing": b"\x81\xa1a" + msgpack.packb({"__msgpack_chunked_array__": True, "shape": {"0": 4}}),
    "chunks that are too short": b"\x81\xa1a\x83"
    + b"".join(map(msgpack.packb, ("__msgpack_chunked_array__", True, "shape", {"0": 5}, "chunks")))
    + b"\x81\xa10"
    + array((4,), "float32", bytes(16)),
}


@pytest.mark.parametrize("what", FLAX)
def test_flax(tmp_path: Path, what: str) -> None:
    (tmp_path / "x.msgpack").write_bytes(FLAX[what])
    refused(tmp_path / "x.msgpack", "bad-source")


@pytest.mark.parametrize("verify", [True, False])
def test_empty_arrays_that_nothing_can_hold(tmp_path: Path, verify: bool) -> None:
    """Without elements, and of sides whose product no array can have: a checkpoint of them could not be read."""
    chunked = map(msgpack.packb, ("__msgpack_chunked_array__", True, "shape", {"0": 0, "1": (1 << 63) - 1}, "chunks"))
    data = b"\x81\xa1a\x83" + b"".join(chunked) + b"\x81\xa10" + array((0,), "float32", b"")
    (tmp_path / "x.msgpack").write_bytes(data)
    refused(tmp_path / "x.msgpack", "bad-source", "too large together", verify=verify)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 32, 0, 1 << 32], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(tmp_path / "x.safetensors", "bad-source", verify=verify)


def test_flax_of_kinds_that_are_unknown(tmp_path: Path) -> None:
    for data in (ext(9, b""), array((1,), "object", bytes(8))):
        (tmp_path / "x.msgpack").write_bytes(b"\x81\xa1a" + data)
        refused(tmp_path / "x.msgpack", "unsupported-source")
    (tmp_path / "x.msgpack").write_bytes(b"\x81\xa1a" * 400 + b"\x01")
    refused(tmp_path / "x.msgpack", "too-deep")


def gguf(
    *infos: tuple[bytes, tuple[int, ...], int, int], version: int = 3, pairs: bytes = b"", count: int = 0
) -> bytes:
    def info(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
        fields = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
        return fields + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)

    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), count) + pairs + b"".join(info(*i) for i in infos)
    return head + bytes(-len(head) % 32) + bytes(64)


GGUF = {
    "two tensors of one name": gguf((b"a", (4,), 0, 0), (b"a", (4,), 0, 32)),
    "an overlap": gguf((b"a", (4,), 0, 0), (b"b", (4,), 0, 8)),
    "a tensor beyond the file": gguf((b"a", (1 << 40,), 0, 0)),
    "an offset beyond the file": gguf((b"a", (4,), 0, 1 << 60)),
    "half a block": gguf((b"a", (16,), 8, 0)),
    "too many axes": gguf((b"a", (1,) * 5, 0, 0)),
    "a count beyond the file": gguf(count=1 << 60),
    "a string beyond the file": gguf(pairs=struct.pack("<Q", 1 << 60), count=1),
    "a type of value that is unknown": gguf(pairs=struct.pack("<QcI", 1, b"k", 99), count=1),
    "a key twice": gguf(pairs=struct.pack("<QcIB", 1, b"k", 0, 1) * 2, count=2),
}


@pytest.mark.parametrize("what", GGUF)
def test_gguf(tmp_path: Path, what: str) -> None:
    (tmp_path / "x.gguf").write_bytes(GGUF[what])
    refused(tmp_path / "x.gguf", "bad-source")


def test_gguf_of_kinds_that_are_unknown(tmp_path: Path) -> None:
    for data in (gguf((b"a", (4,), 77, 0)), gguf(version=1), gguf(version=3 << 24)):
        (tmp_path / "x.gguf").write_bytes(data)
        refused(tmp_path / "x.gguf", "unsupported-source")


def test_dcp_that_leads_elsewhere(tmp_path: Path) -> None:
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    import torch

    (tmp_path / "secret").write_bytes(b"x" * 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"a": torch.ones(2)}, checkpoint_id=tmp_path / "x", no_dist=True)
    metadata = (tmp_path / "x/.metadata").read_bytes()
    assert metadata.count(b"__0_0.distcp") == 1
    (tmp_path / "x/.metadata").write_bytes(metadata.replace(b"__0_0.distcp", b"../../secret"))
    refused(tmp_path / "x", "unsafe-source")
    (tmp_path / "x/.metadata").write_bytes(metadata.replace(b"__0_0.distcp", b"__0_1.distcp"))
    refused(tmp_path / "x", "not-found")


def test_orbax_that_leads_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    (tmp_path / "x").mkdir()
    entry = {"key_metadata": [{"key": "../../etc", "key_type": 2}], "value_metadata": {"value_type": "jax.Array"}}
    document = {"tree_metadata": {"('a',)": entry}, "use_ocdbt": False}
    (tmp_path / "x/_METADATA").write_text(json.dumps(document))
    refused(tmp_path / "x", "unsafe-source")


# ---- what is no file, or lies elsewhere


def test_what_is_no_file(tmp_path: Path) -> None:
    """Nothing waits for a pipe, and no device is read."""
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "unsafe-source", "pipe")
    refused(tmp_path / "pipe", "unsafe-source", source_format="hdf5")
    with pytest.raises(ckptfmt.CkptError, match="unsafe-source"):
        ckptfmt.convert("/dev/zero", tmp_path / "never.ckpt")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    refused(tmp_path / "self", "io")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", ".metadata", "zarr.json"])
def test_pipes_in_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / name)
    refused(tmp_path / "x", "unsafe-source", "pipe", inside=name if name.startswith("model") else "")


def test_links_that_lead_out(tmp_path: Path) -> None:
    """But for those of a Hugging Face cache."""
    for folder in ("models--a/snapshots/1", "models--a/blobs", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    snapshot = tmp_path / "models--a/snapshots/1"
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    for place, is_fine in (("models--a/blobs/7", True), ("elsewhere/7", False)):
        safetensors.numpy.save_file({"a": MATRIX}, tmp_path / place)
        (snapshot / "x.safetensors").unlink(missing_ok=True)
        (snapshot / "x.safetensors").symlink_to(tmp_path / place)
        if is_fine:
            ckptfmt.convert(snapshot, tmp_path / "x.ckpt")
        else:
            refused(snapshot, "unsafe-source", "leads out")
    group = zarr.open_group(tmp_path / "z", mode="w")
    group.create_array("a", data=MATRIX)
    shutil.move(tmp_path / "z/a", tmp_path / "elsewhere/a")
    (tmp_path / "z/a").symlink_to(tmp_path / "elsewhere/a")
    refused(tmp_path / "z", "unsafe-source", "leads out")


def test_zarr_chunks_that_claim_more_than_there_is(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "x", shape=(8,), dtype="u1", chunks=(2,), shards=(4,), compressors=None)
    array[...] = 1
    shard = bytearray((tmp_path / "x/c/0").read_bytes())
    index = len(shard) - 4 - 32  # two pairs of offset and length, and a CRC-32C
    struct.pack_into("<Q", shard, index + 8, 1 << 40)
    shard[-4:] = struct.pack("<I", crc32c(bytes(shard[index:-4])))
    (tmp_path / "x/c/0").write_bytes(shard)
    refused(tmp_path / "x", "bad-source")


def crc32c(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))


# ---- any bytes

DATA = Path(__file__).with_name("data")
SEEDS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda path: safetensors.numpy.save_file({"a": MATRIX, "b": MATRIX[0]}, path),
    "npz": lambda path: npz(path, zipfile.ZIP_STORED, a=npy((4,), bytes(16))),
    "torch": lambda path: torch_zip(path, storage_pickle("I4\n", "I1\n"), **{"0": bytes(16)}),
    "flax": lambda path: path.write_bytes(b"\x81\xa1a" + array((4,), "float32", bytes(16))) and None,
    "gguf": lambda path: path.write_bytes(gguf((b"a", (4,), 0, 0), (b"b", (32,), 8, 32))) and None,
    "onnx": lambda path: path.write_bytes(SMALL_MODEL) and None,
    "tflite": lambda path: shutil.copyfile(DATA / "tflite/small.tflite", path) and None,
    "coreml": lambda path: shutil.copyfile(DATA / "coreml/pipeline.mlmodel", path) and None,
    "paddle": lambda path: shutil.copyfile(DATA / "paddle/sliced.pdparams", path) and None,
}


@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_changed_bytes_give_a_code_or_tensors(scratch: Callable[[], Any], name: str, data: st.DataObject) -> None:
    """No change of a file makes anything but an error of this library, or a tree that can be read."""
    with scratch() as folder:
        path = Path(folder) / "x"
        SEEDS[name](path)
        raw = bytearray(path.read_bytes())
        for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
            raw[at] = data.draw(st.integers(0, 255))
        path.write_bytes(raw[: data.draw(st.integers(1, len(raw)) | st.just(len(raw)))])
        try:
            with open_source(str(path), name) as source:
                mapped_arrays(source.tree, folder)
        except ckptfmt.CkptError as error:
            assert error.path == str(path)


FILES = [name for name, format in FORMATS.items() if not format.folder and name != "ckptfmt"]


@given(st.binary(max_size=200), st.sampled_from(FILES))
def test_any_bytes_give_a_code(scratch: Callable[[], Any], raw: bytes, name: str) -> None:
    with scratch() as folder:
        path = Path(folder) / "x"
        for data in (raw, reader_seed(name) + raw):
            path.write_bytes(data)
            try:
                with open_source(str(path), name):
                    pass
            except ckptfmt.CkptError as error:
                assert error.code in ("bad-source", "unsafe-source", "unsupported-source", "limit-exceeded", "too-deep")


def test_no_error_is_its_own_cause(tmp_path: Path) -> None:
    """Which is what walks through causes would take for ever to find out."""
    for name, raw in (("x.gguf", b"GGUF\3\0\0\0"), ("x", b"\xf0\1"), ("x.npz", b"PK\3\4")):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ckptfmt.CkptError) as raised:
            open_source(str(tmp_path / name))
        assert raised.value.__cause__ is not raised.value


def reader_seed(name: str) -> bytes:
    assert reader_of(FORMATS[name])
    return {
        "gguf": b"GGUF\3\0\0\0",
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "torch": b"\x80\x02",
        "onnx": b"\x08\x08:\x7f",
        "tflite": b"\x1c\0\0\0TFL3",
    }.get(name, b"\x81\xa1a")


def test_crc_is_zlib_s(tmp_path: Path) -> None:
    """The CRC-32 that is checked is that of ZIP."""
    from ckptfmt.conversion.archive import Archive
    from ckptfmt.conversion.source import mapped_file

    npz(tmp_path / "x.npz", zipfile.ZIP_STORED, a=b"payload")
    archive = Archive(mapped_file(str(tmp_path / "x.npz")))
    assert zlib.crc32(b"payload") == archive.members["a.npy"].CRC
    assert archive.stored("a.npy").tobytes() == b"payload"


def test_who_trusts_a_source_of_very_many_values_can_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FEW", 10)
    with pytest.raises(ckptfmt.CkptError, match="max_expansion=16384 allows it") as raised:
        gate.check_tree([0] * 50, 10, "x.pt", EXPANSION)
    assert raised.value.code == "limit-exceeded"
    with allowing(16384):
        gate.check_tree([0] * 50, 10, "x.pt", 16384)
