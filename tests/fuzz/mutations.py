"""Mutations that know the forms: msgpack documents, columns of numbers, commit records, texts, and any bytes.

Each takes a `random.Random`, so the same run is made by atheris (which gives seeds), hypothesis and a plain loop.
"""

from __future__ import annotations

import contextlib
import copy
import re
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack

from .bundles import LAYOUTS, PAGES, Bundle, repaged

NUMBERS = [0, 1, 2, 3, 7, 16, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 20, 1 << 24, (1 << 31) - 1]
NUMBERS += [1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 48, (1 << 53) + 1, 1 << 61, (1 << 61) - 1, 1 << 62]
NUMBERS += [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -2, -128, -(1 << 31), -(1 << 63)]
TEXTS = [
    "",
    ".",
    "..",
    "/",
    "a/b",
    "../a",
    "~",
    "0",
    "-1",
    "c",
    "zarr.json",
    "__a",
    "a" * 300,
    "a/" * 200 + "a",
    "\0",
    "C:",
]
TEXTS += ["raw", "zstd", "gzip", "blosc", "bytes", "sha256", "xxh3-128", "blake3", "file", "packed", "loose", "bool"]
TEXTS += [
    "int4",
    "uint1",
    "float32",
    "bfloat16",
    "float64",
    "complex128",
    "numpy.datetime64",
    "jax.key",
    "\u202e",
    "path",
]
TEXTS += ["dict", "list", "tuple", "tag", "tensor", "int", "complex", "scalar", "little", "big", "snappy", "bitshuffle"]
VALUES: list[Any] = [None, True, False, 0.0, -0.0, float("nan"), float("inf"), b"", b"\0", bytes(8), bytes(16), [], {}]
VALUES += [
    ["tensor", 0],
    ["tensor", 1 << 31],
    ["dict", [], []],
    ["list", []],
    ["int", b"\xff" * 40],
    ["tag", "x", None, 1],
    ["page", 0],
    ["page", 3],
    ["joined", [["page", 2], ["list", [1]]], [3, 1]],
    ["joined", [], []],
]
VALUES += [["dict", ["a", "a"], [1, 2]], ["dict", [["int", b"\5"], 5], [1, 2]], ["scalar", "bool", b"\2"], [[], []]]
VALUES += [["tag", "numpy.datetime64", "2147483648s", ["scalar", "int64", bytes(8)]], {"path": "parts/0", "length": 1}]


def value(rng: Random) -> Any:
    """Some value of msgpack."""
    pool: list[Any] = rng.choice([NUMBERS, NUMBERS, TEXTS, VALUES])
    return copy.deepcopy(rng.choice(pool))  # as it may be changed in its turn


# ---- msgpack


def document(raw: bytes, rng: Random) -> bytes:
    """One msgpack document, changed in a few places, or in its bytes."""
    try:
        found = msgpack.unpackb(raw, strict_map_key=False)
    except Exception:
        return any_bytes(raw, rng)
    if rng.random() < 0.1:
        return any_bytes(raw, rng)
    if rng.random() < 0.1:
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            _resize(found, rng)
    holder = [found]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(holder, rng)
    try:
        return bytes(msgpack.packb(holder[0]))
    except Exception:  # an int that msgpack lacks, say
        return any_bytes(raw, rng)


def _resize(found: Any, rng: Random) -> None:
    """Give a tensor of a manifest another shape and a grid that fits it."""
    shapes, grids = found["tensors"]["shape"], found["tensors"]["grid"]
    at = rng.randrange(len(shapes))
    shape = rng.choice([shapes[at], [rng.choice(NUMBERS) for _ in range(rng.choice((1, 1, 2, 3, 64)))]])
    shape = [n if rng.random() < 0.7 else rng.choice(NUMBERS) for n in shape]
    shapes[at] = [abs(n) for n in shape]
    grids[at] = [rng.choice([1, max(1, n), max(1, n // 2), 7]) for n in shapes[at]]
    if rng.random() < 0.5:
        found["tensors"]["codec"][at] = rng.randrange(len(found["codecs"]))


def _change(container: Any, rng: Random) -> None:
    """Change one item somewhere below."""
    while True:
        keys = list(container) if type(container) is dict else list(range(len(container)))
        if not keys:
            return
        key = rng.choice(keys)
        item = container[key]
        if type(item) not in (list, dict) or not item or rng.random() < 0.15:
            break
        container = item
    kind = rng.randrange(8)
    if kind == 0 and type(container) is dict:
        del container[key]
    elif kind == 0:
        container.pop(key)
    elif kind == 1 and type(container) is list:
        container.insert(key, rng.choice([item, value(rng)]))
    elif kind == 1:
        container[rng.choice(TEXTS)] = item
    elif kind == 2 and type(container) is list:
        rng.shuffle(container)
    elif kind == 3:
        for _ in range(rng.choice((1, 2, 40, 255))):
            item = rng.choice(([item], ["list", [item]], ["dict", ["k"], [item]]))
        container[key] = item
    elif kind == 4:
        container[key] = value(rng)
    elif type(item) is bytes:
        container[key] = column(item, rng) if rng.random() < 0.7 else any_bytes(item, rng)
    elif type(item) is int and type(item) is not bool:
        container[key] = rng.choice([item + 1, item - 1, item * 2, item << 8, -item, rng.choice(NUMBERS)])
    elif type(item) is str:
        container[key] = rng.choice([item + "x", item[:-1], item[::-1], rng.choice(TEXTS), f"{item}/{item}"])
    else:
        container[key] = value(rng)


def column(raw: bytes, rng: Random) -> bytes:
    """A column of numbers of 4 or 8 bytes with one of them changed."""
    width = rng.choice((4, 8, 8))
    if len(raw) < width:
        return any_bytes(raw, rng)
    at = rng.randrange(len(raw) // width) * width
    old = int.from_bytes(raw[at : at + width], "little")
    new = rng.choice([old + 1, old - 1, old * 2, rng.choice(NUMBERS), rng.randrange(1 << 12)])
    changed = raw[:at] + (new % (1 << 8 * width)).to_bytes(width, "little") + raw[at + width :]
    return rng.choice([changed, changed, changed, raw[:at] + raw[at + width :], raw + raw[at : at + width]])


# ---- bytes


def any_bytes(raw: bytes, rng: Random) -> bytes:
    """Bytes, changed anywhere."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del data[at : at + rng.choice((1, 2, 4, 8, 64))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
            case 4:
                width = rng.choice((1, 2, 4, 8))
                data[at : at + width] = (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(
                    width, rng.choice(("little", "big"))
                )
            case 5:
                data[at:at] = data[rng.randrange(len(data) + 1) :][: rng.choice((4, 16, 64))]
            case _:
                del data[at:]
    return bytes(data)


def text(raw: bytes, rng: Random) -> bytes:
    """JSON, pickles of protocol 0 and other texts: words and numbers are exchanged."""
    words = list(re.finditer(rb"-?[0-9]+|\"[^\"]*\"|true|false|null|[a-z_.]+", raw))
    if not words or rng.random() < 0.3:
        return any_bytes(raw, rng)
    word = rng.choice(words)
    pool = [
        str(rng.choice(NUMBERS)),
        '""',
        "[]",
        "{}",
        "null",
        "1e400",
        "NaN",
        "true",
        rng.choice(words)[0].decode("latin1"),
    ]
    pool += ["[" * 300, '{"a":' * 300, '"\\ud800"', "9" * 5000]
    return raw[: word.start()] + rng.choice(pool).encode("latin1") + raw[word.end() :]


# ---- commit records


def record(bundle: Bundle, rng: Random) -> bytes:
    """The commit record with another field, and a crc32 that fits unless that is what is changed."""
    storage = bundle._replace(record=b"").storage()
    whole: bytes = storage.objects.get("COMMIT") or storage.objects[""]
    line = whole[whole.rindex(b"ckptfmt/") :]
    fields = line.rstrip(b"\n").split(b" ")
    at = rng.randrange(len(fields))
    number = str(rng.choice(NUMBERS)).encode()
    choices = [text(fields[at], rng), any_bytes(fields[at], rng), fields[at] + b" ", b""]
    choices += [b"manifest=%s+%s" % (number, fields[2].rpartition(b"+")[2]) if len(fields) > 2 else b""]
    choices += [re.sub(rb"\+[0-9]+$", b"+" + number, fields[at])]
    fields[at] = rng.choice(choices)
    if rng.random() < 0.8:
        body = b" ".join(fields[:-1]) + b" "
        return body + b"crc32=%08x\n" % zlib.crc32(body)
    return b" ".join(fields) + b"\n"


# ---- bundles


def bundle(data: bytes, rng: Random) -> bytes:
    """A bundle with one part changed; any other bytes with any bytes changed."""
    found = Bundle.decode(data)
    if found is None:
        return any_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2))):
        found = _bundle(found, rng)
    if found.layout == "file" and rng.random() < 0.05:  # a file whose ZIP records, manifest and record are as they are
        return any_bytes(found.storage().objects[""], rng)
    return found.encode()


def _bundle(found: Bundle, rng: Random) -> Bundle:
    chance = rng.random()
    if chance < 0.6 or (chance < 0.9 and not found.objects):
        return found._replace(manifest=document(found.manifest, rng))
    if chance < 0.9:
        name = rng.choice(sorted(found.objects))
        raw = found.objects[name]
        change: Callable[[bytes, Random], bytes] = any_bytes
        if name.startswith(("parts/", PAGES)):
            change = document
        elif name.endswith("zarr.json"):
            change = text
        objects = dict(found.objects)
        if rng.random() < 0.1:
            del objects[name]
        else:
            objects[name] = change(raw, rng)
        return found._replace(objects=objects, manifest=repaged(found.manifest, objects))
    if chance < 0.93:
        return found._replace(tail=any_bytes(found.tail, rng))
    if chance < 0.98:
        return found._replace(record=record(found, rng))
    return found._replace(layout=rng.choice(LAYOUTS))


def header(raw: bytes, rng: Random) -> bytes:
    """A safetensors file: its JSON header is changed, and its length made to fit."""
    length = int.from_bytes(raw[:8], "little")
    if not 0 < length <= len(raw) - 8 or rng.random() < 0.15:
        return any_bytes(raw, rng)
    changed = text(raw[8 : 8 + length], rng)
    return len(changed).to_bytes(8, "little") + changed + raw[8 + length :]


FOREIGN: dict[str, Callable[[bytes, Random], bytes]] = {"safetensors": header, "flax": document, "torch": any_bytes}
