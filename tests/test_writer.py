"""What a save writes, read back by the standard library, msgpack and the digest functions alone; its options; and that
what it refuses leaves no trace."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import blake3
import ml_dtypes
import msgpack
import numpy as np
import pytest
import xxhash
from damage import small_chunks
from inside import inside

import ckptfmt
from ckptfmt.format.names import escape

DIGESTS: dict[str, Any] = {
    "xxh3-128": lambda data: xxhash.xxh3_128(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "blake3": lambda data: bytes(blake3.blake3(data).digest()),
}
RECORD = re.compile(
    r"ckptfmt/1\.0 (?P<layout>\w+) manifest=(?P<offset>\d+)\+(?P<length>\d+) sha256=(?P<sha256>[0-9a-f]{64}) "
    r"frame=(?P<frame>[0-9a-f]+) crc32=(?P<crc32>[0-9a-f]{8})\n"
)


def tree() -> dict[str, Any]:
    """Small and large tensors (joined and streamed writes), of one and many blocks and chunks."""
    rng = np.random.default_rng(5)
    tied = np.arange(5, dtype=np.int32)
    return {
        "small": [np.array(1.5), np.zeros((0, 3)), np.array([True, False])],
        "tied": (tied, tied),
        "large": rng.standard_normal((300, 600)).astype(">f4"),
        "zipped": np.zeros((200, 300), np.float64),
        "larger": rng.integers(0, 255, (9 << 20) + 5, np.uint8),
        "int4": rng.integers(-8, 8, (70, 501)).astype(ml_dtypes.int4),
        "odd key.": {"": np.ones(3, ml_dtypes.bfloat16)},
        "plain": {"step": 7},
    }


class Parts(NamedTuple):
    """A checkpoint taken apart: record, manifest, node documents and stored chunks by member name, and the frame."""

    record: dict[str, str]
    manifest: dict[str, Any]
    documents: dict[str, bytes]
    chunks: dict[str, bytes]
    frame: bytes


def parsed_record(line: bytes, manifest: bytes) -> dict[str, str]:
    match = RECORD.fullmatch(line.decode("ascii"))  # [COM-001]
    assert match is not None
    assert int(match["crc32"], 16) == zlib.crc32(line[: match.start("crc32") - len("crc32=")])
    assert match["sha256"] == hashlib.sha256(manifest).hexdigest()  # [COM-003]
    assert int(match["length"]) == len(manifest)
    return match.groupdict()


def take_apart_file(path: Path) -> Parts:
    data, members, places = path.read_bytes(), {}, {}
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment
        for info in archive.infolist():
            members[info.filename] = archive.read(info)  # checks the crc32
            header = data[info.header_offset : info.header_offset + 30]
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            places[info.filename] = (info.header_offset, info.header_offset + 30 + lengths)
    names = list(members)
    documents = {name: members[name] for name in names if name.endswith("zarr.json")}
    chunks = {name: members[name] for name in names if name not in documents and name != "manifest.msgpack"}
    order = ["tensors/zarr.json", *sorted(documents.keys() - {"tensors/zarr.json"})]
    assert names == [*order, *chunks, "manifest.msgpack"]  # [PACK-004]
    ends = [0, *(places[name][1] + len(members[name]) for name in names)]
    assert [places[name][0] for name in names] == ends[:-1]  # without gaps
    raw = members["manifest.msgpack"]
    record = parsed_record(comment, raw)
    assert data.endswith(comment)  # [COM-002]
    assert int(record["offset"]) == places["manifest.msgpack"][1]
    frame, position = b"", 0
    for name in (*chunks, "manifest.msgpack"):  # [FRM-001]
        start = places[name][1]
        if name in chunks:
            assert start % (4096 if len(members[name]) >= 65_536 else 64) == 0  # [PACK-002]
        frame, position = frame + data[position:start], start + len(members[name])
    frame += data[position : -len(comment)]
    manifest = msgpack.unpackb(raw)
    offsets = np.frombuffer(manifest["parts"][0]["chunks"]["offset"], "<u8").tolist()
    assert offsets == [places[name][1] for name in chunks]
    return Parts(record, manifest, documents, chunks, frame)


def take_apart_loose(path: Path) -> Parts:
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    record = parsed_record(files.pop("COMMIT"), files["manifest.msgpack"])  # [LAY-002]
    assert record["offset"] == "0"
    manifest = msgpack.unpackb(files.pop("manifest.msgpack"))
    assert manifest["parts"][0]["chunks"]["offset"] is None
    documents = {name: files[name] for name in sorted(files) if name.endswith("zarr.json")}
    assert all(name.startswith("tensors/") for name in files)
    chunks = {name: data for name, data in files.items() if name not in documents}
    return Parts(record, manifest, documents, chunks, b"".join(documents.values()))  # [FRM-002]


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("layout", ["file", "loose"])
def test_every_byte_of_a_checkpoint(tmp_path: Path, layout: str, digest: str) -> None:
    path, saved = tmp_path / "model.ckpt", tree()
    with small_chunks(block=8192):
        rules = {"zipped": "zstd", "int4": "gzip"}
        report = ckptfmt.save(path, saved, layout=layout, digest=digest, compression=rules, durable=False)
    parts = take_apart_file(path) if layout == "file" else take_apart_loose(path)
    manifest = parts.manifest
    assert (parts.record["layout"], manifest["layout"], manifest["digest"]) == (layout, layout, digest)
    assert parts.record["frame"] == DIGESTS[digest](parts.frame).hex()  # [FRM-004]
    assert (report.manifest_sha256, report.tensors) == (parts.record["sha256"], len(manifest["tensors"]["name"]))

    names = manifest["tensors"]["name"]
    expected = [("small", 0), ("small", 1), ("small", 2), ("tied", 0), ("large",), ("zipped",), ("larger",), ("int4",)]
    assert names == ["/".join(map(escape, path)) for path in [*expected, ("odd key.", "")]]  # [TREE-016]
    table = manifest["parts"][0]["chunks"]
    lengths = np.frombuffer(table["length"], "<u8").tolist()
    digests, rows = b"", 0
    for number, name in enumerate(names):
        document = json.loads(parts.documents[f"tensors/{name}/zarr.json"])
        shape, grid = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
        assert grid == manifest["tensors"]["grid"][number]  # [ZARR-012]
        assert document["codecs"] == manifest["codecs"][manifest["tensors"]["codec"][number]]
        for index in np.ndindex(*(-(-n // side) for n, side in zip(shape, grid, strict=True))):  # [CHK-002]
            stored = parts.chunks["/".join([f"tensors/{name}/c", *map(str, index)])]
            assert lengths[rows] == len(stored)
            digests += b"".join(
                DIGESTS[digest](stored[at : at + 8192]) for at in range(0, len(stored), 8192)
            )  # [BLK-001]
            rows += 1
    assert rows == len(lengths) == len(parts.chunks)  # [ZARR-005]
    assert table["digest"] == digests
    assert parts.chunks["tensors/large/c/0/0"][:4] == saved["large"].astype("<f4").tobytes()[:4]
    size = path.stat().st_size if layout == "file" else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert report.bytes == size


def grid_of(path: Path, name: str) -> tuple[int, ...]:
    with ckptfmt.open(path) as checkpoint:
        return inside(checkpoint).manifest.specs[inside(checkpoint).manifest.names.index(name)].grid


def test_chunks_of_each_layout(tmp_path: Path) -> None:  # [ZARR-008] [ZARR-009] [ZARR-010]
    large = np.zeros((9, 1 << 20), np.float64)  # 72 MiB
    ckptfmt.save(tmp_path / "raw", {"a": large}, durable=False)
    ckptfmt.save(tmp_path / "loose", {"a": large}, layout="loose", durable=False)
    ckptfmt.save(tmp_path / "zipped", {"a": large}, compression="zstd", durable=False)
    assert grid_of(tmp_path / "raw", "a") == (9, 1 << 20)
    assert grid_of(tmp_path / "loose", "a") == (5, 1 << 20)
    assert grid_of(tmp_path / "zipped", "a") == (2, 1 << 20)


# ---- report and options


def test_the_report(tmp_path: Path) -> None:
    whole = np.arange(6.0)
    report = ckptfmt.save(tmp_path / "a", {"whole": whole, "part": whole[1:3], "again": whole}, durable=False)
    assert report.path == str(tmp_path / "a")
    assert (report.layout, report.tensors) == ("file", 2)
    assert [set(group) for group in report.copied_views] == [{"whole", "part"}]  # [TREE-011]


def test_the_first_rule_that_matches_counts(tmp_path: Path) -> None:
    saved = {"a": {"w": np.zeros(9), "b": np.zeros(9)}, "c": np.zeros(9), "d": np.zeros(9)}
    rules = {"a/w": None, "a": "zstd", "c": {"name": "gzip", "level": 1}}
    ckptfmt.save(tmp_path / "a", saved, compression=rules, durable=False)
    with ckptfmt.open(tmp_path / "a") as checkpoint:
        codecs = {name: tensor.codec for name, tensor in zip(checkpoint, checkpoint.tensors.values(), strict=True)}
    assert codecs == {"a/w": "raw", "a/b": "zstd", "c": "gzip", "d": "raw"}


def test_schema_and_metadata(tmp_path: Path) -> None:  # [SCH-001]
    for number, schema in enumerate([("gpt", "3"), ckptfmt.Schema("gpt", "3")]):
        path = tmp_path / str(number)
        ckptfmt.save(path, {"a": np.zeros(1)}, schema=schema, metadata={"loss": 0.5, "tags": ("x",)}, durable=False)
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.schema == ckptfmt.Schema("gpt", "3")
            assert checkpoint.metadata == {"loss": 0.5, "tags": ("x",)}
            assert checkpoint.generator == f"ckptfmt {ckptfmt.__version__}"


BAD_OPTIONS: list[dict[str, Any]] = [
    {"layout": "zip"},
    {"layout": "zip"},
    {"digest": "md5"},
    {"digest": None},
    {"compression": "lzma"},
    {"compression": {"**": "lzma"}},
    {"compression": {"**": {"name": "zstd", "depth": 3}}},
    {"compression": {"**": 5}},
    {"compression": 5},
    {"schema": "gpt"},
    {"schema": ("gpt",)},
    {"schema": ("gpt", 3)},
    {"schema": ("", "3")},
    {"schema": ckptfmt.Schema("", "3")},
    {"schema": ckptfmt.Schema("gpt", 3)},  # type: ignore[arg-type]
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(tmp_path / "a", {"a": np.zeros(3)}, **options)
    assert raised.value.code == "bad-option"
    assert not list(tmp_path.iterdir())


# ---- what is refused leaves nothing behind [TREE-013]

cycle: list[Any] = []
cycle.append(cycle)
REFUSED = [
    ("unsupported-leaf", "x/0", {"x": [object()]}),
    ("unsupported-leaf", "x", {"x": "\ud800"}),
    ("unsupported-dtype", "x", {"x": np.array([None])}),
    ("unsupported-key", "x", {"x": {1.5: 0}}),
    ("too-deep", None, cycle),
    ("name-too-long", None, {"k" * 70_000: np.zeros(1)}),
]


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize(("code", "where", "bad"), REFUSED, ids=[code for code, _, _ in REFUSED])
def test_refused_trees_leave_nothing(tmp_path: Path, layout: str, code: str, where: str | None, bad: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(
            tmp_path / "a", {"good": np.zeros(1000), "more": bad} if code != "too-deep" else bad, layout=layout
        )
    error = raised.value
    assert (error.code, error.path) == (code, str(tmp_path / "a"))
    if where is not None:
        assert error.tensor == f"more/{where}"
        assert f"'more/{where}'" in str(error)
    assert not list(tmp_path.iterdir())


def test_refused_trees_leave_what_was_there(tmp_path: Path) -> None:  # [PUB-007]
    ckptfmt.save(tmp_path / "a", {"x": 1}, durable=False)
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(ckptfmt.InputError):
        ckptfmt.save(tmp_path / "a", {"x": object()}, overwrite=True)
    assert (tmp_path / "a").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_refused_metadata_leaves_nothing(tmp_path: Path, layout: str) -> None:  # [TREE-014]
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(tmp_path / "a", {"x": 1}, metadata={"m": [np.zeros(1)]}, layout=layout)
    assert (raised.value.code, raised.value.tensor) == ("unsupported-leaf", "m/0")
    assert not list(tmp_path.iterdir())


OPTIONS: list[dict[str, Any]] = [
    {"layout": "zip"},
    {"digest": "md5"},
    {"schema": ("a", "")},
    {"schema": ("a", "\ud800")},
    {"compression": "lz4"},
    {"compression": {5: "zstd"}},
    {"compression": {"**": {"level": 3}}},
    {"extra": {"tree": 1}},
    {"extra": {"placement": None}},
    {"extra": {5: 1}},
    {"extra": {"x": {1: 2}}},
    {"extra": {"x": Ellipsis}},
    {"extra": {"x": 1 << 64}},
    {"extra": {"x": "\ud800"}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_refused_options_leave_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(tmp_path / "a", {"x": np.zeros(1)}, **options)
    assert (raised.value.code, raised.value.path) == ("bad-option", str(tmp_path / "a"))
    assert not list(tmp_path.iterdir())


def test_no_rules_compress_nothing(tmp_path: Path) -> None:
    for compression in ({}, {"y": "zstd"}):
        ckptfmt.save(tmp_path / "a", {"x": np.zeros(9)}, compression=compression, overwrite=True, durable=False)
        with ckptfmt.open(tmp_path / "a") as checkpoint:
            assert checkpoint["x"].codec == "raw"


def test_a_key_that_the_file_system_cannot_hold(tmp_path: Path) -> None:  # [NAME-007]
    saved = {"k" * 300: np.zeros(1)}
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.save(tmp_path / "a", saved, layout="loose")
    assert raised.value.code == "name-too-long"
    assert not list(tmp_path.iterdir())
    ckptfmt.save(tmp_path / "a", saved, durable=False)  # a ZIP can


def test_there_is_no_folder_to_save_into(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.MissingError) as raised:
        ckptfmt.save(tmp_path / "none" / "a", {"x": 1})
    assert raised.value.code == "not-found"


def test_nothing_is_at_the_path(tmp_path: Path) -> None:
    for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify):
        with pytest.raises(FileNotFoundError) as raised:
            call(tmp_path / "none")
        assert raised.value.code == "not-found"  # type: ignore[attr-defined]
