"""Pickles of a few bytes that stand for far more, in each of the forms that torch has. `--all`: every mutant.

Tuples that share their items, keys that collide, instructions whose values take a hundred times their bytes.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attack import AS_SOURCE, attempt, folder
from hash_collisions import PRIME
from hostile import storage_pickle
from mutants import asked

MANY = 1_000_000


def doubled(depth: int) -> bytes:
    """The instructions of a tuple that stands for 2^depth empty ones."""
    return b")" + b"2\x86".replace(b"2", b"q\0h\0") * depth


def long(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw if len(raw) < 256 else b"\x8b" + struct.pack("<I", len(raw)) + raw


def programs() -> Iterator[tuple[str, bytes]]:
    """Titles, and pickles of protocol 2 without their head."""
    for depth in (20, 60, 2000):
        yield f"2^{depth} tuples", doubled(depth) + b"."
        yield f"2^{depth} tuples as a key", b"}" + doubled(depth) + b"Ns."
        yield f"2^{depth} tuples in a set", b"\x8f(" + doubled(depth) + b"\x90."
        yield f"2^{depth} tuples in a list", b"](" + doubled(depth) + b"Ke."
        yield f"2^{depth} tuples as a storage", doubled(depth) + b"Q."
        yield f"2^{depth} tuples of a device", b"ctorch\ndevice\n" + doubled(depth) + b"\x85R."
        yield f"2^{depth} tuples as a size", b"ctorch\nSize\n" + doubled(depth) + b"\x85R."
        yield f"2^{depth} tuples for a set", b"cbuiltins\nset\n](" + doubled(depth) + b"e\x85R."
        yield f"2^{depth} tuples for a dict", b"ccollections\nOrderedDict\n](]" + doubled(depth) + b"aNaee\x85R."
        lists = b"]q\0" + b"](h\0h\0eq\0" * depth
        yield f"2^{depth} lists", lists + b"."
        yield f"2^{depth} lists of a device", b"ctorch\ndevice\n" + lists + b"\x85R."
        yield f"2^{depth} lists as the state of one", b"ctorch\ndevice\n(X\x03\x00\x00\x00cputR" + lists + b"b."
        yield f"2^{depth} lists as a storage", lists + b"Q."
    for count in (1000, 100_000):
        keys = b"".join(long(7 + number * PRIME) + b"N" for number in range(1, count))
        yield f"{count:,} colliding keys", b"}(" + keys + b"u."
        yield f"{count:,} colliding keys one by one", b"}" + keys.replace(b"N\x8a", b"Ns\x8a") + b"s."
        yield f"{count:,} colliding items", b"\x8f(" + keys.replace(b"N\x8a", b"\x8a")[:-1] + b"\x90."
        yield (
            f"{count:,} colliding places of the memo",
            b"N" + b"".join(b"p%d\n" % (n * PRIME) for n in range(count)) + b".",
        )
    for name, code in {
        "lists": b"]",
        "dicts": b"}",
        "sets": b"\x8f",
        "tuples": b")\x85",
        "marks": b"(",
        "Nones": b"N",
    }.items():
        yield f"{MANY:,} {name}", b"(" + code * MANY + b"l."
    yield f"{MANY:,} places of the memo", b"N" + b"\x94" * MANY + b"."
    yield f"{MANY:,} tuples in each other", b")" + b"\x85" * MANY + b"."
    yield "a list 100,000 deep", b"]" * 100_000 + b"a" * 99_999 + b"."
    for bits in (100, 8_000, 20_000, 1_000_000):
        yield f"an int of {bits:,} bits", long(1 << bits) + b"."
        yield f"an int key of {bits:,} bits", b"}" + long(1 << bits) + b"Ns."
        yield f"a set of ints of {bits:,} bits", b"\x8f(" + long(1 << bits) + long(3 << bits) + b"\x90."
        again = b"}" + long(1 << bits) + b"q\0Ns" + b"h\0Ns" * 20_000
        yield f"20,000 times a key of {bits:,} bits", again + b"."
    for key in (
        b"G\x3f\xf8\0\0\0\0\0\0",
        b"N",
        b"\x88",
        b"C\x01a",
        b")",
        b"X\x03\0\0\0\xed\xa0\x80",
        b"K\x01K\x02\x86",
    ):
        yield f"the key {key!r}", b"}" + key + b"Ns."
    yield "a lone surrogate", b"X\x03\0\0\0\xed\xa0\x80."
    for value in (
        "I-1\n",
        "I01\n",
        "F1.5\n",
        "L99999999999999999999999L\n",
        "N",
        "]",
        "}",
        "X\1\0\0\0004",
        "(t",
        "(I2\nt",
    ):
        yield f"a size of {value!r}", storage_pickle(value, "I1\n")
        yield f"a stride of {value!r}", storage_pickle("I4\n", value)
    yield "a size of 3,000 axes", storage_pickle("I1\n" * 3000, "I1\n" * 3000)
    for number in (-1, 1 << 31, 1 << 62, 1 << 70):
        yield f"an offset of {number}", storage_pickle("I4\n", "I1\n", offset=number)
        yield f"a storage of {number}", storage_pickle("I4\n", "I1\n", count=number)


def archive(pickled: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02" + pickled)
        file.writestr("x/data/0", bytes(16))
    return out.getvalue()


def legacy(pickled: bytes) -> bytes:
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(head, 2) for head in heads) + b"\x80\x02" + pickled + pickle.dumps([], 2)


def write(here: Path, form: str, pickled: bytes) -> Path:
    path = here / "source"
    if form == "zip":
        path.write_bytes(archive(pickled))
    elif form == "legacy":
        path.write_bytes(legacy(pickled))
    else:
        path.mkdir(exist_ok=True)
        (path / ".metadata").write_bytes(b"\x80\x02" + pickled)
    return path


def main() -> None:
    for form in ("zip", "legacy", "dcp"):
        with folder() as here:
            made: Iterator[tuple[str, Any]] = programs()
            for title, pickled in asked(made, 11):
                attempt(f"{title}, {form}", write(here, form, pickled), actions=AS_SOURCE)


if __name__ == "__main__":
    main()
