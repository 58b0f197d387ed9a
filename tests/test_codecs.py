"""Codec chains: what they are called, and that decoding is bounded (SPEC.md section 5)."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import InputError, UnsupportedError
from ckptfmt.format.codecs import RAW, Codec, codec_asked, codec_of

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
BLOSC = {"blocksize": 0, "clevel": 5, "cname": "zstd", "shuffle": "shuffle", "typesize": 1}
ASKED = [
    "zstd",
    {"name": "zstd", "level": -5, "checksum": True},
    "gzip",
    {"name": "gzip", "level": 9},
    "blosc",
    *(
        {"name": "blosc", "cname": cname, "shuffle": "bitshuffle"}
        for cname in ("zstd", "lz4", "lz4hc", "blosclz", "zlib")
    ),
    {"name": "blosc", "shuffle": "noshuffle", "clevel": 0},
]
COMPRESSORS = st.sampled_from(ASKED).map(codec_asked)


def numbers(count: int) -> Any:
    return np.arange(count, dtype=np.uint8)


@given(COMPRESSORS, st.sampled_from([1, 2, 4, 8, 16]), st.binary(min_size=1, max_size=3000), st.integers(0, 1000))
def test_decoding_is_the_inverse_of_encoding(codec: Codec, itemsize: int, data: bytes, repeat: int) -> None:
    codec = codec.for_itemsize(itemsize)
    array = np.frombuffer(data + data[:1] * repeat, np.uint8)
    encoded = codec.encode(array)
    assert codec.encode(array) == encoded  # [MAN-009]
    assert codec.decode(memoryview(encoded), array.size).tobytes() == array.tobytes()


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_chains_give_the_codec_back(asked: Any) -> None:
    codec = codec_asked(asked)
    assert codec_of(codec.chain) == codec
    assert [item["name"] for item in codec.chain] == ["bytes", codec.name]


def test_chains() -> None:  # [ZARR-006]
    assert RAW.chain == [BYTES]
    assert codec_asked(None) == codec_of([BYTES]) == RAW
    assert codec_asked("zstd").chain == [BYTES, {"name": "zstd", "configuration": {"checksum": False, "level": 3}}]
    assert codec_asked("gzip").chain == [BYTES, {"name": "gzip", "configuration": {"level": 5}}]
    blosc = {"name": "blosc", "configuration": {**BLOSC, "typesize": 4}}
    assert codec_asked("blosc").for_itemsize(4).chain == [BYTES, blosc]
    assert codec_asked("zstd").for_itemsize(4) == codec_asked("zstd")


def chain(name: str, **configuration: Any) -> list[Any]:
    return [BYTES, {"name": name, "configuration": configuration}]


UNKNOWN = [
    [],
    None,
    "zstd",
    5,
    [BYTES, BYTES],
    ["bytes"],
    [{"name": "bytes"}],
    [{"name": "bytes", "configuration": {"endian": "big"}}],
    [{"name": "bytes", "configuration": {"endian": "little", "more": 1}}, {"name": "zstd"}],
    chain("zstd", level=3),
    chain("zstd", level=3, checksum=False, dictionary=1),
    chain("zstd", level=3.0, checksum=False),
    chain("zstd", level=True, checksum=False),
    chain("zstd", level=3, checksum=0),
    chain("gzip"),
    chain("blosc", clevel=5),
    chain("blosc", **{**BLOSC, "shuffle": 1}),
    chain("lzma", level=1),
    chain("crc32c"),
    chain("sharding_indexed", chunk_shape=[1]),
    [*chain("gzip", level=5), {"name": "crc32c"}],
    [{"name": "transpose", "configuration": {"order": [1, 0]}}, BYTES],
]


@pytest.mark.parametrize("document", UNKNOWN, ids=str)
def test_other_chains_are_refused_by_name(document: Any) -> None:  # [ZARR-006]
    with pytest.raises(UnsupportedError) as raised:
        codec_of(document)
    assert raised.value.code == "unknown-codec"
    if isinstance(document, list) and document and isinstance(document[-1], dict):
        assert document[-1]["name"] in str(raised.value)


BAD_OPTIONS = [
    "lzma",
    "",
    "raw",
    {},
    {"name": None},
    {"level": 3},
    {"name": "zstd", "clevel": 3},
    {"name": "zstd", "level": "3"},
    {"name": "zstd", "level": 3.0},
    {"name": "zstd", "checksum": 1},
    {"name": "gzip", "level": 10},
    {"name": "blosc", "clevel": 10},
    {"name": "blosc", "cname": "brotli"},
    {"name": "blosc", "shuffle": "mix"},
    {"name": "blosc", "typesize": 0},
    {"name": "zstd", "level": 1 << 40},
    5,
    True,
]


@pytest.mark.parametrize("option", BAD_OPTIONS, ids=str)
def test_options_that_no_codec_takes_are_refused(option: Any) -> None:
    with pytest.raises(InputError) as raised:
        codec_asked(option)
    assert raised.value.code == "bad-option"


# ---- decoding what was not encoded so [ZARR-011]

NAMES = ("zstd", "gzip", "blosc")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("nbytes", [0, 99, 101, 10_000_000])
def test_data_of_another_size_is_refused(name: str, nbytes: int) -> None:
    codec = codec_asked(name)
    with pytest.raises(ValueError, match=str(nbytes)):
        codec.decode(memoryview(codec.encode(numbers(100))), nbytes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", [b"", b"x", b"garbage" * 10, bytes(40), b"\x28\xb5\x2f\xfd" + bytes(30)], ids=len)
def test_garbage_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the words are the libraries' own)
        codec_asked(name).decode(memoryview(data), 100)


@pytest.mark.parametrize("name", NAMES)
def test_data_that_is_cut_short_is_refused(name: str) -> None:
    """Wherever it is cut; a decoder that trusts its header would read beyond the end."""
    codec = codec_asked(name)
    data = codec.encode(numbers(100))
    for length in range(len(data)):
        with pytest.raises(ValueError):  # noqa: PT011
            codec.decode(memoryview(data[:length]), 100)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trailer", [b"\x00", b"more", "again"], ids=str)
def test_data_that_goes_on_is_refused(name: str, trailer: Any) -> None:
    codec = codec_asked(name)
    data = codec.encode(numbers(100))
    with pytest.raises(ValueError):  # noqa: PT011
        codec.decode(memoryview(data + (data if trailer == "again" else trailer)), 100)


def test_decoding_stops_at_the_size_of_the_chunk() -> None:
    bomb = gzip.compress(bytes(50 << 20), mtime=0)
    with pytest.raises(ValueError, match="another size"):
        codec_asked("gzip").decode(memoryview(bomb), 100)
    codec = codec_asked("zstd")
    with pytest.raises(ValueError, match="declares"):
        codec.decode(memoryview(codec.encode(np.zeros(50 << 20, np.uint8))), 100)


@pytest.mark.parametrize(
    "configuration", [{"shuffle": "mix"}, {"cname": "brotli"}, {"typesize": 0}, {"typesize": 1 << 70}]
)
def test_configurations_out_of_range_are_refused_or_without_effect(configuration: dict[str, Any]) -> None:
    """They come from a manifest, so they must not surface as an error of another kind."""
    data = codec_asked("blosc").encode(numbers(100))
    try:
        found = codec_of(chain("blosc", **{**BLOSC, **configuration})).decode(memoryview(data), 100)
    except (UnsupportedError, ValueError):
        return
    assert (found == numbers(100)).all()


@pytest.mark.parametrize("name", NAMES)
def test_large_chunks_are_encoded_the_same_each_time(name: str) -> None:  # [MAN-009]
    """On any number of threads."""
    codec = codec_asked(name).for_itemsize(8)
    chunk = np.random.default_rng(0).standard_normal(1 << 19).view(np.uint8)
    assert len({codec.encode(chunk) for _ in range(10)}) == 1


def test_no_clock_is_in_gzip_data() -> None:  # [MAN-009]
    data = codec_asked("gzip").encode(numbers(100))
    assert data[4:8] == bytes(4)
    assert zlib.decompress(data, 31) == numbers(100).tobytes()
