"""Pickles that are damaged, or made to harm: refused with a stable code, and nothing is run or written."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import MARKER, Call, refused, storage_pickle, torch_zip

import ckptfmt
from ckptfmt.conversion import torch_pickle


def legacy(pickled: bytes) -> bytes:
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(head, 2) for head in heads) + pickled + pickle.dumps([], 2)


ATTACKS = {
    "os.system": Call(os.system, f"touch {MARKER}"),
    "eval": Call(eval, f"open({MARKER!r}, 'w')"),
    "open": Call(open, MARKER, "w"),
    "getattr": Call(getattr, OrderedDict(), "update"),
    "nested": {"a": [1, (Call(os.system, f"touch {MARKER}"),)]},
    "bytearray of a size": Call(bytearray, 1 << 40),
}


@pytest.mark.parametrize("form", ["zip", "legacy", "dcp"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, form: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(ATTACKS[attack], protocol)
    path = tmp_path / "source"
    if form == "zip":
        torch_zip(path, pickled)
    elif form == "legacy":
        path.write_bytes(legacy(pickled))
    else:
        path.mkdir()
        (path / ".metadata").write_bytes(pickled)
    refused(path, "unsafe-source")
    assert not (tmp_path / MARKER).exists()


GLOBAL_CALLS = {
    "a dtype": b"ctorch\nfloat32\n(tR.",
    "a class": b"ctorch\nFloatStorage\n(tR.",
    "what it built": b"\x80\x02]\x85]R.",
    "the state of a function": b"ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "the state of a list": b"]}b.",
    "an instance by name": b"(cos\nsystem\nS'x'\no.",
    "an old instance": b"(S'x'\nios\nsystem\n.",
    "an extension": b"\x82\x01.",
    "a persistent id that is no storage": b"U\x03abcQ.",
    "a constructor with keywords": b"ctorch\nSize\n)}\x92.",
    "an encoding that runs code": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
}


@pytest.mark.parametrize("what", GLOBAL_CALLS)
def test_pickles_that_ask_for_more_than_values(tmp_path: Path, what: str) -> None:
    torch_zip(tmp_path / "x.pt", GLOBAL_CALLS[what])
    refused(tmp_path / "x.pt", "unsafe-source")


BROKEN = {
    "no end": b"]",
    "nothing on the stack": b".",
    "an unknown memo": b"h\x05.",
    "a string beyond the end": b"X\xff\xff\xff\x7fa.",
    "a mark that is missing": b"t.",
    "a list as a key": b"}]Ns.",
    "no pickle": b"\xff\xff\xff",
    "a value for a list": b"N]a.",
    "a long that is too long": b"\x8b\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_pickles(tmp_path: Path, what: str) -> None:
    torch_zip(tmp_path / "x.pt", BROKEN[what])
    refused(tmp_path / "x.pt", "bad-source")


def test_pickles_whose_containers_hold_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in itself, and lists that stand for 2^60 leaves in a few bytes."""
    torch_zip(tmp_path / "x.pt", b"]q\x00h\x00a.")
    refused(tmp_path / "x.pt", "too-deep")
    doubled: Any = []
    for _ in range(60):
        doubled = (doubled, doubled)
    torch_zip(tmp_path / "x.pt", pickle.dumps(doubled, 2))
    monkeypatch.setattr(torch_pickle, "LEAVES", 10_000)
    refused(tmp_path / "x.pt", "limit-exceeded")


TENSORS = {
    "beyond its storage": storage_pickle("I5\n", "I1\n"),
    "an offset beyond its storage": storage_pickle("I4\n", "I1\n", offset=1),
    "a negative stride": storage_pickle("I4\n", "I-1\n"),
    "a negative offset": storage_pickle("I1\n", "I1\n", offset=-1),
    "a stride beyond": storage_pickle("I2\nI2\n", "I1000000\nI1\n"),
    "sizes without strides": storage_pickle("I2\nI2\n", "I1\n"),
    "a storage shorter than it says": storage_pickle("I4\n", "I1\n", count=5),
}


def test_a_tensor_of_a_storage(tmp_path: Path) -> None:
    torch_zip(tmp_path / "x.pt", storage_pickle("I2\nI2\n", "I2\nI1\n"), **{"0": np.arange(4, dtype="f4").tobytes()})
    ckptfmt.convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    assert ckptfmt.load(tmp_path / "x.ckpt").tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_outside_their_storage(tmp_path: Path, what: str) -> None:
    torch_zip(tmp_path / "x.pt", TENSORS[what], **{"0": bytes(16)})
    refused(tmp_path / "x.pt", "bad-source")


def test_a_tensor_without_a_storage(tmp_path: Path) -> None:
    torch_zip(tmp_path / "x.pt", storage_pickle("I4\n", "I1\n"))
    refused(tmp_path / "x.pt", "bad-source")


def test_expanded_tensors_that_would_fill_any_disk(tmp_path: Path) -> None:
    torch_zip(tmp_path / "x.pt", storage_pickle("I1000000\nI1000000\n", "I0\nI0\n"), **{"0": bytes(16)})
    refused(tmp_path / "x.pt", "limit-exceeded")


PRIME = (1 << 61) - 1  # modulo which Python hashes ints


def test_pickles_that_take_far_more_than_their_bytes(tmp_path: Path) -> None:
    """Tuples that stand for 2^60, whoever hashes or prints them, and keys that collide."""
    doubled: Any = ()
    for _ in range(60):
        doubled = (doubled, doubled)
    shared = pickle.dumps(doubled, 2)[2:-1]
    for program in (b"}" + shared + b"Ns.", shared + b"Q.", b"ctorch\ndevice\n" + shared + b"\x85R."):
        torch_zip(tmp_path / "x.pt", b"\x80\x02" + program)
        refused(tmp_path / "x.pt", "limit-exceeded")
    torch_zip(tmp_path / "x.pt", pickle.dumps({7 + number * PRIME: None for number in range(100)}, 2))
    refused(tmp_path / "x.pt", "limit-exceeded", "collide")
    torch_zip(tmp_path / "x.pt", pickle.dumps({7 + number * PRIME: None for number in range(8)}, 2))
    ckptfmt.convert(tmp_path / "x.pt", tmp_path / "x.ckpt")


def test_int_keys_that_nobody_could_print(tmp_path: Path) -> None:
    torch_zip(tmp_path / "x.pt", pickle.dumps({1 << 20_000: 1}, 2))
    refused(tmp_path / "x.pt", "unsupported-key")


def test_honest_tuples_and_keys_pass(tmp_path: Path) -> None:
    """As many as a checkpoint may have: of sizes, of ids with 64 bits, of shared containers."""
    size = (3, 4)
    ids = {(1 << 63) + 977 * number: size for number in range(20_000)}
    torch_zip(tmp_path / "x.pt", pickle.dumps({"ids": ids, "sizes": [size] * 20_000, "many": tuple(range(50_000))}, 2))
    ckptfmt.convert(tmp_path / "x.pt", tmp_path / "x.ckpt")
    assert len(ckptfmt.load(tmp_path / "x.ckpt")["ids"]) == 20_000
