"""Sources that are compressed as a whole, and archives of tar, as Python's own modules and numcodecs write them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import joblib
import lz4.frame
import numpy as np
import pytest
import safetensors.numpy
from conversions import imported
from hostile import MATRIX, refused
from mangling import only_errors
from numcodecs.zstd import Zstd

import ckptfmt
from ckptfmt.conversion import claims, open_source, pickles, unpacking

ARRAYS = {"w": MATRIX, "b": np.arange(5000.0)}
RAW = safetensors.numpy.save(ARRAYS)
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zst": lambda data: bytes(Zstd().encode(data)),
    "z": zlib.compress,
    "lz4": lz4.frame.compress,
}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A place for temporary files, in which nothing may be left."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def same(tree: Any) -> bool:
    return set(tree) == set(ARRAYS) and all(np.array_equal(tree[name], array) for name, array in ARRAYS.items())


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_what_is_compressed_is_read_as_what_it_is(tmp_path: Path, suffix: str, temporary: Path) -> None:
    path = tmp_path / f"model.safetensors.{suffix}"
    path.write_bytes(COMPRESSED[suffix](RAW))
    with open_source(str(path)) as source:
        assert (source.place.format, source.format) == ("compressed", "safetensors")
        assert len(list(temporary.rglob("*.safetensors"))) == 1
    assert list(temporary.iterdir()) == []
    tree, _ = imported(path)
    assert same(tree)
    path.write_bytes(COMPRESSED[suffix](b"Entry not found"))
    refused(path, "unknown-format", "in 'model.safetensors' of it: this is text, which begins 'Entry not found'")


@pytest.mark.parametrize("how", ["zlib", "gzip", "bz2", "lzma", "xz", "lz4"])
def test_joblib_compresses_so(tmp_path: Path, how: str) -> None:
    joblib.dump(ARRAYS, tmp_path / "a.joblib", compress=(how, 3))
    assert same(imported(tmp_path / "a.joblib")[0])


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "lz4"])
def test_several_streams_and_padding(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESSED[suffix]
    path = tmp_path / "a"
    path.write_bytes(compress(RAW[:100]) + compress(b"") + compress(RAW[100:]) + bytes(1024))
    assert same(imported(path)[0])
    path.write_bytes(compress(RAW) + b"more")
    refused(path, "bad-source", "other bytes follow")


def test_large_ones_are_decompressed_in_pieces(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).integers(0, 2, 12 << 20, np.uint8)
    (tmp_path / "a.gz").write_bytes(gzip.compress(safetensors.numpy.save({"w": rows}), 1))
    tracemalloc.start()
    with open_source(str(tmp_path / "a.gz")) as source:
        assert np.array_equal(source.tree["w"][-9:], rows[-9:])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def archive(path: Path, files: dict[str, bytes], mode: Any = "w", format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=format) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return path


def hdf5() -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.update(ARRAYS)
    return out.getvalue()


NEMO = {"./model_config.yaml": b"name: \xc3\xa9", "./model_weights.ckpt": RAW, "./vocab.txt": b"a"}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_the_only_weights_of_an_archive_are_read_where_they_lie(tmp_path: Path, format: int, temporary: Path) -> None:
    path = archive(tmp_path / "model.nemo", NEMO, format=format)
    with open_source(str(path)) as source:
        assert (source.place.format, source.format) == ("tar", "safetensors")
        assert list(temporary.iterdir()) == []
        assert source.metadata == {"nemo.model_config": "name: é"}
    report = ckptfmt.convert(path, tmp_path / "a.ckpt")
    assert (report.source_format, report.passed_over) == ("safetensors", ("model_config.yaml", "vocab.txt"))
    assert same(ckptfmt.load(tmp_path / "a.ckpt"))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_archives(tmp_path: Path, mode: str) -> None:
    path = archive(tmp_path / "model.nemo", NEMO, mode)
    tree, metadata = imported(path)
    assert same(tree)
    assert metadata == {"nemo.model_config": "name: é"}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_checkpoint_of_this_format_in_an_archive(tmp_path: Path, mode: str) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", ARRAYS, schema=("a", "1"))
    path = archive(tmp_path / "a.tar", {"a.ckpt": (tmp_path / "a.ckpt").read_bytes()}, mode)
    report = ckptfmt.convert(path, tmp_path / "b.ckpt")
    assert (report.source_format, report.losses) == ("ckptfmt", ())
    assert same(ckptfmt.load(tmp_path / "b.ckpt"))
    assert ckptfmt.diff(path, tmp_path / "b.ckpt").equal
    with ckptfmt.open(tmp_path / "a.ckpt") as before, ckptfmt.open(tmp_path / "b.ckpt") as after:
        record = after.provenance[-1]
        assert (record["format"], record["source"].hex()) == ("ckptfmt", before.manifest_sha256)
    assert ": a checkpoint of this format" in ckptfmt.report(path).html


def test_a_checkpoint_that_needs_a_folder_is_unpacked(tmp_path: Path, temporary: Path) -> None:
    index = b'{"weight_map": {"w": "a-00001-of-00002.safetensors", "b": "a-00002-of-00002.safetensors"}}'
    files = {"m/a.safetensors.index.json": index, "m/config.json": b"{}"}
    for number, name in enumerate(ARRAYS, 1):
        files[f"m/a-0000{number}-of-00002.safetensors"] = safetensors.numpy.save({name: ARRAYS[name]})
    path = archive(tmp_path / "model.tar", files)
    with open_source(str(path)):
        assert len(list(temporary.rglob("*.safetensors"))) == 2
    assert same(imported(path)[0])
    path = archive(tmp_path / "model.tar", {"x.h5": hdf5()})
    assert sorted(imported(path)[0]) == ["b", "w"]


def test_several_checkpoints_in_an_archive_are_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.tar", {"a.safetensors": RAW, "b.safetensors": RAW})
    refused(path, "ambiguous-source", "this archive has 2 checkpoints")
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(path, tmp_path / "x.ckpt")
    assert raised.value.advice == "Unpack it, and give the path of one"
    refused(archive(path, {"a.txt": b"x"}), "unknown-format", "this archive has no checkpoint of a known format")
    refused(archive(path, {}), "unknown-format")


def test_a_folder_with_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.safetensors.gz").write_bytes(gzip.compress(RAW))
    (tmp_path / "m/config.json").write_text("{}")
    assert same(imported(tmp_path / "m")[0])


# ---- made to harm


def linked(path: Path, **more: Any) -> Path:
    with tarfile.open(path, "w") as made:
        member = tarfile.TarInfo("x.pt")
        for name, value in more.items():
            setattr(member, name, value)
        made.addfile(member)
    return path


def test_archives_that_lead_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        refused(linked(path, type=kind, linkname="/etc/passwd"), "unsafe-source", "a link")
    for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
        refused(linked(path, type=kind), "unsafe-source", "neither a file nor a folder")
    for name in ("/etc/x.pt", "../x.pt", "a/../../x.pt", "a/.."):
        refused(archive(path, {name: RAW}), "unsafe-source", "leads out of it")
    with tarfile.open(path, "w") as made:
        for _ in range(2):
            member = tarfile.TarInfo("x.safetensors")
            member.size = len(RAW)
            made.addfile(member, io.BytesIO(RAW))
    refused(path, "bad-source", "stands twice")
    refused(archive(path, {"a": b"x", "a/b.npz": b"y", "c.npz": b"z"}), "bad-source", "file and folder")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "SMALL", 1 << 20)
    zeros = safetensors.numpy.save({"w": np.zeros(4 << 20, np.uint8)})
    for suffix in ("gz", "bz2", "xz"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(COMPRESSED[suffix](zeros))
        refused(path, "limit-exceeded", "far more than the source has", max_expansion=100)
    assert imported(tmp_path / "a.gz", max_expansion=2000)[0]["w"].size == 4 << 20
    (tmp_path / "imported.ckpt").unlink()
    twice = tmp_path / "b.gz"  # what is within counts against the whole
    twice.write_bytes(gzip.compress(gzip.compress(bytes(64 << 20))))
    refused(twice, "limit-exceeded", max_expansion=1000)
    nested = RAW
    for _ in range(3):
        nested = gzip.compress(nested)
    path.write_bytes(nested)
    assert same(imported(path)[0])
    path.write_bytes(gzip.compress(nested))
    refused(path, "limit-exceeded", "archives within each other")
    path.write_bytes(COMPRESSED["zst"](bytes(64 << 20)))
    refused(path, "limit-exceeded")


def test_what_was_unpacked_allows_no_more_memory_than_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pickles, claims):
        monkeypatch.setattr(module, "VALUES", 1 << 16)
    header = b'{"__metadata__":{' + b",".join(b'"%05d":"xxxxxxxx"' % i for i in range(20_000)) + b"}}"
    programs = (b"\x80\x04](" + b"N" * 50_000 + b"e.", len(header).to_bytes(8, "little") + header)
    for data in programs:
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(data))
        refused(path, "limit-exceeded", "far more memory" if data is programs[0] else "too much memory")
        path.write_bytes(data)
        with open_source(str(path)):
            pass


def test_xz_that_asks_for_a_large_dictionary(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    (tmp_path / "a.xz").write_bytes(lzma.compress(RAW, filters=filters))
    refused(tmp_path / "a.xz", "bad-source", "Memory usage limit")


def frame(content: bytes, size: int | None = None) -> bytes:
    """A frame of zstd whose blocks are not compressed, with a window where it does not say its size."""
    head = b"\0\x50" if size is None else b"\xe0" + size.to_bytes(8, "little")
    blocks = [content[at : at + (1 << 16)] for at in range(0, len(content), 1 << 16)] or [b""]
    for i, block in enumerate(blocks):
        head += (len(block) << 3 | (i == len(blocks) - 1)).to_bytes(3, "little") + block
    return b"\x28\xb5\x2f\xfd" + head


@pytest.mark.parametrize("streamed", [True, False])
def test_frames_of_zstd(tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not streamed:
        monkeypatch.setattr(unpacking, "streaming_zstd", lambda: None)
    elif unpacking.streaming_zstd() is None:
        pytest.skip("there is no package that decodes zstd piece by piece")
    path = tmp_path / "a.zst"
    skipped = b"\x52\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"xxxxx"
    forms = [COMPRESSED["zst"](RAW), frame(RAW), frame(RAW, len(RAW))]
    forms += [COMPRESSED["zst"](RAW[:99]) + skipped + frame(b"") + frame(RAW[99:])]
    for data in forms:
        path.write_bytes(data)
        assert same(imported(path)[0])
    (tmp_path / "imported.ckpt").unlink()
    for data in (
        frame(RAW, len(RAW) + 1),
        frame(RAW, 1 << 60),
        frame(RAW)[:-1],
        frame(RAW)[:9],
        skipped,
        frame(RAW) + b"x",
    ):
        path.write_bytes(data)
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(path, tmp_path / "a.ckpt")
        assert raised.value.code in ("bad-source", "limit-exceeded", "unknown-format")
    repeated = b"\x28\xb5\x2f\xfd\0\x50" + b"".join([b"\x02\0\x10\0"] * 2000 + [b"\x03\0\x10\0"])
    path.write_bytes(repeated)  # 2,001 blocks of a byte that stand for 128 KiB each
    refused(path, "limit-exceeded")


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_damage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(COMPRESSED[suffix](RAW))
    only_errors(path, "compressed")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_cut_is_told(tmp_path: Path, suffix: str) -> None:
    path, data = tmp_path / f"a.{suffix}", COMPRESSED[suffix](RAW)
    for size in (200, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refused(path, "bad-source", f"is cut off: it holds {size:,} of at least")


@pytest.mark.parametrize("name", ["safetensors", "h5"])
def test_damage_of_archives(tmp_path: Path, name: str) -> None:
    only_errors(
        archive(tmp_path / "a.tar", {f"x.{name}": RAW if name == "safetensors" else hdf5(), "a.txt": b"x"}), "tar"
    )


def test_a_cut_archive_is_told(tmp_path: Path) -> None:
    data = archive(tmp_path / "a.tar", NEMO).read_bytes()
    for size in (3000, 20_000):
        (tmp_path / "a.tar").write_bytes(data[:size])
        refused(tmp_path / "a.tar", "bad-source", "cut off")


def test_no_disk_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(RAW))
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none" if os.path.isdir("/proc") else str(tmp_path / "none"))
    refused(tmp_path / "a.gz", "not-found")
