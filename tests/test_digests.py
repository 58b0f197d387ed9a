"""Digest algorithms and block digests (SPEC.md section 6)."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import UnsupportedError
from ckptfmt.format.digests import FEW, digest_named, sha256

NAMES = ("xxh3-128", "sha256", "blake3")
KNOWN = [
    ("xxh3-128", b"", "99aa06d3014798d86001c324468d497f"),
    ("xxh3-128", b"abc", "06b05ab6733a618578af5f94892f3950"),
    ("sha256", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("blake3", b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    ("blake3", b"abc", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
]


@pytest.mark.parametrize(("name", "data", "expected"), KNOWN)
def test_published_digests(name: str, data: bytes, expected: str) -> None:  # [BLK-002]
    digest = digest_named(name)
    assert digest.of(data).hex() == expected
    assert digest.size == len(expected) // 2


@given(st.sampled_from(NAMES), st.lists(st.binary(max_size=300), max_size=5))
def test_streams_give_the_digest_of_the_whole(name: str, parts: list[bytes]) -> None:
    digest = digest_named(name)
    hasher = digest.stream()
    for part in parts:
        hasher.update(part)
    assert hasher.digest() == digest.of(b"".join(parts))


@pytest.mark.parametrize("size", [0, 55, 56, 64, 1000, FEW, FEW + 1])
@pytest.mark.parametrize(
    "without", [(), ("hashlib",), ("hashlib", "_sha2", "_sha256")], ids=["openssl", "own", "built"]
)
def test_sha256_is_one_whatever_gives_it(monkeypatch: pytest.MonkeyPatch, size: int, without: tuple[str, ...]) -> None:
    """Whether a program has imported OpenSSL already, has not, or has a Python without a sha256 of its own."""
    data = bytes(range(250)) * (size // 250) + bytes(size % 250)
    expected = hashlib.sha256(data).digest()
    if "hashlib" in without:
        monkeypatch.delitem(sys.modules, "hashlib")
    for name in without[1:]:
        monkeypatch.setitem(sys.modules, name, None)
    assert sha256(memoryview(data)) == expected == sha256(data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 9, 10, 11, 20, 25])
def test_blocks(name: str, length: int) -> None:  # [BLK-001]
    digest, data = digest_named(name), bytes(range(length))
    expected = [digest.of(data[start : start + 10]) for start in range(0, length, 10)]
    assert digest.of_blocks(memoryview(data), 10) == b"".join(expected)


@pytest.mark.parametrize("name", ["md5", "", "XXH3-128", "sha-256"])
def test_other_algorithms_are_refused_by_name(name: Any) -> None:  # [BLK-002]
    with pytest.raises(UnsupportedError, match=repr(name)) as raised:
        digest_named(name)
    assert raised.value.code == "unknown-digest"
