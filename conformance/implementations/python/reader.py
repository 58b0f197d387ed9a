"""A reader of ckptfmt checkpoints in plain Python: the companion of SPEC.md, in the order of its sections.

    checkpoint = Checkpoint("model.ckpt")
    checkpoint.tree                                    # plain values, and a `Tensor` where a tensor stands
    checkpoint.read(checkpoint.tree["w"])              # its bytes: C order, little-endian, packed as in section 3
    checkpoint.read(checkpoint.tree["w"], [range(2)])  # reads the blocks that hold these rows, and no others

Every byte that is given has been checked against its digest. Layout `packed`, digest `blake3` and the codecs but `gzip`
are refused by name; the JavaScript reader beside this one knows more, and verifies whole checkpoints.
"""

import functools
import hashlib
import io
import itertools
import math
import os
import re
import stat
import struct
import zlib
from typing import Any, NamedTuple

import msgpack
import xxhash

Path = tuple[str | int, ...]


class Fault(Exception):
    """A refusal with a `code` of section 16; `where` holds tensor, chunk, block, offset and object as they apply."""

    def __init__(self, code: str, message: str, **where: int | str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.where = code, where


def need(holds: object, what: str, code: str = "bad-manifest") -> None:
    if not holds:
        raise Fault(code, what)


# ---- section 2: the tree


class Scalar(NamedTuple):
    dtype: str
    data: bytes  # one storage element


class Tree:
    """Turns nodes into values. `paths` has for each tensor met where it stands first, `tags` each tag met: its child is
    given [TAG-001]. Nodes of one index give one and the same `Tensor` [TREE-010]."""

    def __init__(self, tensors: list["Tensor"]) -> None:
        self.tensors, self.paths, self.tags = tensors, dict[int, Path](), list[str]()

    def value(self, node: Any, path: Path | None = (), depth: int = 0) -> Any:
        """The value of the node at `path`, which is None where there may be no tensors [TREE-014]."""

        def item(key: str | int, child: Any) -> Any:
            return self.value(child, None if path is None else (*path, key), depth + 1)

        match node:
            case None | bool() | int() | float() | str() | bytes():
                return node
            case ["int", bytes(data)]:
                need(data, "an int without bytes [TREE-003]")
                return int.from_bytes(data, "big", signed=True)
            case ["complex", bytes(data)]:
                need(len(data) == 16, f"a complex of {len(data)} bytes [TREE-005]")
                return complex(*struct.unpack("<2d", data))
            case ["scalar", str(dtype), bytes(data)]:
                need(dtype in DTYPES, f"dtype {dtype!r} [DTYPE-001]", "unknown-dtype")
                need(len(data) == DTYPES[dtype].size, f"a scalar {dtype} of {len(data)} bytes [TREE-005]")
                need(dtype != "bool" or data[0] < 2, f"a scalar bool {data[0]} [TREE-005]")
                return Scalar(dtype, data)
            case ["tensor", int(index)] if type(index) is int:
                need(path is not None, "a tensor in metadata or in the param of a tag [TREE-014]")
                need(0 <= index < len(self.tensors), f"tensor {index} of {len(self.tensors)} [TREE-009]")
                self.paths.setdefault(index, path or ())
                return self.tensors[index]
        need(depth < 256, "containers are nested too deeply [TREE-012]")
        match node:
            case ["dict", list(keys), list(nodes)]:
                need(len(keys) == len(nodes), f"{len(keys)} keys and {len(nodes)} values [TREE-006]")
                fine = all(type(key) in (str, int) or (type(key) is list and key[:1] == ["int"]) for key in keys)
                need(fine, "a key is neither str nor int [TREE-007]")
                names = [self.value(key) for key in keys]
                need(len(set(names)) == len(names), "a dict repeats a key [TREE-006]")
                return dict(zip(names, map(item, names, nodes), strict=True))
            case ["list", list(nodes)]:
                return list(map(item, itertools.count(), nodes))
            case ["tuple", list(nodes)]:
                return tuple(map(item, itertools.count(), nodes))
            case ["tag", str(name), param, child]:
                self.value(param, None, depth + 1)
                self.tags += [] if name in self.tags else [name]
                return self.value(child, path, depth + 1)
        raise Fault("bad-manifest", "a map, or an array of another form, is no node [TREE-001]")


# ---- section 3: dtypes


class Dtype(NamedTuple):
    size: int  # bytes of a storage element
    per: int  # elements in it
    bits: int  # of an element


WIDTHS = {
    Dtype(1, 1, 8): "bool int8 uint8 float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz"
    " float8_e5m2 float8_e5m2fnuz float8_e8m0fnu",
    Dtype(2, 1, 16): "int16 uint16 float16 bfloat16",
    Dtype(4, 1, 32): "int32 uint32 float32 complex32 bcomplex32",
    Dtype(8, 1, 64): "int64 uint64 float64 complex64",
    Dtype(16, 1, 128): "complex128",
    Dtype(1, 1, 6): "float6_e2m3fn float6_e3m2fn",
    Dtype(1, 2, 4): "float4_e2m1fn int4 uint4",
    Dtype(1, 4, 2): "int2 uint2",
    Dtype(1, 8, 1): "int1 uint1",
}
DTYPES = {name: dtype for dtype, names in WIDTHS.items() for name in names.split()}

# ---- sections 4 and 5: names and tensors

SEGMENT = r"(?!\.+(/|\Z))(?!zarr\.json(/|\Z))(?!__)[A-Za-z0-9_.~-]+"  # [NAME-006]
BLOSC, SHUFFLES = {"zstd", "lz4", "lz4hc", "blosclz", "zlib", "snappy"}, {"noshuffle", "shuffle", "bitshuffle"}
CODECS: dict[str, dict[str, Any]] = {  # [ZARR-006], as forms of section 7
    "zstd": {"checksum": bool, "level": int},
    "gzip": {"level": range(10)},
    "blosc": {"blocksize": int, "clevel": range(10), "cname": BLOSC, "shuffle": SHUFFLES, "typesize": int},
}


class Tensor(NamedTuple):
    number: int  # in the columns of the manifest
    name: str
    dtype: str
    shape: list[int]
    stored: list[int]  # its shape in storage elements [DTYPE-003]
    grid: list[int]  # that of a chunk
    counts: list[int]  # of chunks along each axis; an axis of length 0 has none [ZARR-003]
    codec: str | None

    @property
    def chunk_size(self) -> int:  # bytes of a raw chunk [ZARR-007]
        return math.prod(self.grid) * DTYPES[self.dtype].size


def codec_of(chain: Any) -> str | None:
    """The codec of a chain after `bytes`, None if there is none."""
    items: list[Any] = chain if type(chain) is list and chain else [None]
    first, *rest = items
    good = first == {"name": "bytes", "configuration": {"endian": "little"}} and len(rest) <= 1
    for codec in rest:
        good = good and fits(codec, {"name": set(CODECS), "configuration": dict}) and len(codec) == 2
        form, found = (CODECS[codec["name"]], codec["configuration"]) if good else ({}, {})
        good = good and fits(found, form) and len(found) == len(form)
    need(good, f"codec chain {chain!r} [ZARR-006]", "unknown-codec")
    return rest[0]["name"] if rest else None


def tensors_of(columns: dict[str, list[Any]], chains: list[Any]) -> list[Tensor]:
    codecs, tensors = list(map(codec_of, chains)), []
    rows = [columns[key] for key in ("name", "dtype", "shape", "grid", "codec")]
    need(len(set(map(len, rows))) == 1, "columns of other lengths [MAN-007]")
    names = set(rows[0])
    need(len(names) == len(rows[0]) and ("" not in names or len(names) == 1), "a name is repeated [NAME-006]")
    for index, (name, dtype, shape, grid, codec) in enumerate(zip(*rows, strict=True)):
        fine = name == "" or (len(name) <= 65_000 and re.fullmatch(f"{SEGMENT}(/{SEGMENT})*", name))
        need(fine, f"the name {name[:100]!r} [NAME-006]")
        above = itertools.accumulate(name.split("/")[:-1], "{}/{}".format)
        need(names.isdisjoint(above), f"{name!r} lies beneath another name [NAME-006]")
        need(dtype in DTYPES, f"dtype {dtype!r} [DTYPE-001]", "unknown-dtype")
        need(len(shape) <= 64, f"{name!r} has rank {len(shape)} [LIM-002]", "limit-exceeded")
        need(len(grid) == len(shape), f"{name!r} has rank {len(shape)} and a grid of rank {len(grid)} [MAN-008]")
        need(all(side < 1 << 63 for side in shape), f"{name!r} has a side of 2⁶³ or more [LIM-002]")
        need(codec < len(codecs), f"{name!r} has codec {codec} of {len(codecs)} [MAN-002]")
        stored = [*shape[:-1], *(-(-side // DTYPES[dtype].per) for side in shape[-1:])]
        fine = all(1 <= step <= max(1, side) for step, side in zip(grid, stored, strict=True))
        need(fine, f"{name!r} has the grid {grid} [ZARR-002]")
        size = max(math.prod(grid), math.prod(stored)) * DTYPES[dtype].size
        need(0 in shape or size < 1 << 62, f"{name!r} has 2⁶² bytes or more [LIM-004]")
        counts = [-(-side // step) for side, step in zip(stored, grid, strict=True)]
        tensors.append(Tensor(index, name, dtype, shape, stored, grid, counts, codecs[codec]))
    return tensors


# ---- section 6: blocks and digests

DIGEST_SIZES = {"xxh3-128": 16, "sha256": 32, "blake3": 32}  # [BLK-002]
DIGESTS = {"xxh3-128": xxhash.xxh3_128_digest, "sha256": lambda data: hashlib.sha256(data).digest()}


class Chunk(NamedTuple):
    """A chunk's place, from a checkpoint of that `digest` and `block` size."""

    storage: "Storage"
    tensor: Tensor
    number: int  # in C order of the grid
    object: str
    offset: int
    length: int
    digests: bytes  # of its blocks, one after another
    digest: str
    block: int

    def checked(self, number: int) -> bytes:
        """A block whose digest is right [BLK-001] [BLK-004]."""
        need(self.digest in DIGESTS, f"digest {self.digest!r}, which this reader lacks", "unknown-digest")
        begin, size = number * self.block, DIGEST_SIZES[self.digest]
        data = self.fetch(begin, min(begin + self.block, self.length))
        if DIGESTS[self.digest](data) != self.digests[number * size : (number + 1) * size]:
            message = f"block {number} of {self.object!r} has another digest"
            raise self.fault("block-digest", message, block=number, offset=self.offset + begin)
        return data

    def fetch(self, begin: int, end: int) -> bytes:
        """Stored bytes as they are."""
        try:
            data = self.storage.read(self.object, self.offset + begin, end - begin)
        except Fault as fault:
            raise self.fault(fault.code, str(fault)) from fault
        if len(data) != end - begin:
            raise self.fault("short-object", f"{self.object!r} ends before the chunk does [READ-005]")
        return data

    def decoded(self, data: bytes) -> bytes:
        """The raw chunk that all stored bytes decode to."""
        need(self.tensor.codec == "gzip", f"codec {self.tensor.codec!r}, which this reader lacks", "unknown-codec")
        stream, size = zlib.decompressobj(wbits=31), self.tensor.chunk_size
        try:
            data = stream.decompress(data, size + 1)  # and no more [ZARR-011]
        except zlib.error as error:
            raise self.fault("bad-chunk", str(error)) from error
        if not stream.eof or stream.unused_data or len(data) != size:
            raise self.fault("bad-chunk", f"not one gzip member of {size} bytes [ZARR-016]")
        return data

    def fault(self, code: str, message: str, **where: int) -> Fault:
        named: dict[str, int | str] = {"tensor": self.tensor.name, "chunk": self.number, "object": self.object}
        return Fault(code, f"tensor {self.tensor.name!r}, chunk {self.number}: {message}", **named, **where)


# ---- section 7: the manifest. A form is a type, UINT, ANY, a set or range of values, a tuple of alternatives, [form of
# every item] or {key: form}; further keys of maps are ignored [MAN-003]

UINT, ANY = range(1 << 64), object()
TABLE = {"tensor": None, "chunk": None, "offset": (bytes, None), "length": bytes, "digest": bytes}
HEAD = {"format": [UINT], "layout": str, "requires": [str]}
MANIFEST = {
    **{"generator": str, "digest": str, "block": UINT, "metadata": ANY, "tree": ANY, "codecs": [ANY]},
    "schema": (None, {"id": str, "version": str, "fingerprint": bytes}),
    "tensors": {"name": [str], "dtype": [str], "shape": [[UINT]], "grid": [[UINT]], "codec": [UINT]},
    "parts": [{"object": (str, None), "size": None, "frame": None, "chunks": TABLE}],
}


def fits(value: Any, form: Any) -> bool:
    match form:
        case tuple():
            return any(fits(value, alternative) for alternative in form)
        case list():
            return type(value) is list and all(fits(item, form[0]) for item in value)
        case dict():
            return type(value) is dict and all(key in value and fits(value[key], form[key]) for key in form)
        case range() | set():
            return type(value) is (int if type(form) is range else str) and value in form
    return form is ANY or value is form or type(value) is form


def required(data: bytes) -> list[str]:
    """What a manifest requires, whatever rules its other keys break [MAN-006]."""
    try:
        found = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError):
        return []
    return list(found["requires"]) if fits(found, {"requires": [str]}) else []


def decode(data: bytes) -> dict[str, Any]:
    """One msgpack map with nothing after it, no repeated key and no extension type anywhere [MAN-001]."""

    def items(values: list[Any]) -> list[Any]:
        need({msgpack.Timestamp, msgpack.ExtType}.isdisjoint(map(type, values)), "an extension type [MAN-001]")
        return values

    def pairs(entries: list[tuple[Any, Any]]) -> dict[str, Any]:
        items([value for _, value in entries])
        need(all(type(key) is str for key, _ in entries), "a map has a key that is no string [MAN-001]")
        need(len(dict(entries)) == len(entries), "a map repeats a key [MAN-001]")
        return dict(entries)

    try:
        value = msgpack.unpackb(data, strict_map_key=False, object_pairs_hook=pairs, list_hook=items)
    except ValueError as error:  # also of strings that are no UTF-8
        raise Fault("bad-manifest", f"not one msgpack map: {error!r} [MAN-001]") from error
    need(type(value) is dict, "not a map [MAN-001]")
    return dict(value)


def chunks_of(storage: "Storage", manifest: dict[str, Any], tensors: list[Tensor]) -> list[list[Chunk]]:
    """The chunks of each tensor, from the one table that lists all of them in order [CHK-002]."""
    need(len(manifest["parts"]) == 1, "not one part [CHK-002]")
    part, digest, block = manifest["parts"][0], manifest["digest"], manifest["block"]
    table = part["chunks"]
    need("path" not in table, "a reference to a part manifest [CHK-009]")
    is_file, count = manifest["layout"] == "file", sum(math.prod(tensor.counts) for tensor in tensors)
    fine = part["object"] == ("" if is_file else None) and (table["offset"] is not None) == is_file
    need(fine, "`object` or `offset` do not fit the layout [MAN-002]")
    columns = [table["length"], table["offset"] if is_file else bytes(len(table["length"]))]
    need(all(len(column) == 8 * count for column in columns), f"not {count} rows [CHK-001] [CHK-002]")
    lengths, offsets = (struct.unpack(f"<{count}Q", column) for column in columns)
    ends = [0, *itertools.accumulate(-(-length // block) * DIGEST_SIZES[digest] for length in lengths)]
    need(ends[-1] == len(table["digest"]), "not one digest for each block [CHK-001]")
    found, rows = [list[Chunk]() for _ in tensors], zip(offsets, lengths, itertools.pairwise(ends), strict=True)
    for tensor in (tensor for tensor in tensors if 0 not in tensor.counts):
        for number, at in enumerate(itertools.product(*map(range, tensor.counts))):
            offset, length, blocks = next(rows)
            inside = length and (not is_file or offset + length <= storage.start)
            need(inside, f"a chunk of {tensor.name!r} lies outside its object [CHK-005]", "bad-extent")
            fine = tensor.codec or length == tensor.chunk_size
            need(fine, f"a raw chunk of {tensor.name!r} has {length} bytes [ZARR-007]", "bad-extent")
            key = "/".join(["tensors", *filter(None, [tensor.name]), "c", *map(str, at)])  # [ZARR-003] [LAY-003]
            place = storage, tensor, number, "" if is_file else key, offset, length
            found[tensor.number].append(Chunk(*place, table["digest"][slice(*blocks)], digest, block))
    extents = sorted(zip(offsets, lengths, strict=True)) if is_file else []
    apart = all(offset + length <= after for (offset, length), (after, _) in itertools.pairwise(extents))
    need(apart, "two chunks overlap [CHK-005]", "bad-extent")
    return found


# ---- sections 8 and 10: layouts and the commit record

NUMBER = r"(0|[1-9][0-9]{0,18})"
RECORD = re.compile(
    rf"ckptfmt/(1)\.(0|[1-9][0-9]{{0,2}}) (file|packed|loose) manifest={NUMBER}\+{NUMBER} sha256=([0-9a-f]{{64}}) "
    r"frame=([0-9a-f]{32}|[0-9a-f]{64}) crc32=([0-9a-f]{8})\n".encode()
)


class Storage:
    """The objects of the checkpoint at `path`, whose commit record has been found and is valid."""

    def __init__(self, path: str) -> None:
        need(not os.path.normpath(path).endswith(".ckptfmt-tmp"), f"{path} [PUB-001]", "temporary")
        need(os.path.lexists(path), path, "not-found")
        self.path, self.is_folder = path, os.path.isdir(path)
        self.size = os.path.getsize(path) if os.path.isfile(path) else 0
        is_there = any(look(os.path.join(path, "COMMIT")) for look in (os.path.isfile, os.path.islink))
        need(is_there or not self.is_folder, "the directory has no COMMIT [COM-004]", "not-a-checkpoint")
        line = self.read("COMMIT", 0, 256) if self.is_folder else self.record_of_file()
        version = re.match(rb"ckptfmt/(0|[1-9][0-9]*)\.", line)
        need(not version or version[1] != b"0", "a version of the format before 1.0 [FMT-003]", "older-format")
        need(not version or version[1] == b"1", f"version {line[:20]!r}; 1 is known [VER-002]", "newer-format")
        match = RECORD.fullmatch(line)
        good = match and len(line) <= 255 and zlib.crc32(line[: line.index(b"crc32=")]) == int(match[8], 16)
        need(good, "the commit record has another form or crc32 [COM-001]", "bad-record")
        assert match
        self.version, self.start, self.length = [1, int(match[2])], int(match[4]), int(match[5])
        self.layout, self.sha256, self.frame = match[3].decode(), match[6].decode(), match[7].decode()
        need((self.layout != "file") == self.is_folder, f"layout {self.layout!r} here [LAY-006]", "bad-record")
        inside = self.start == 0 if self.is_folder else self.start + self.length <= self.size - len(line)
        need(inside and self.length < 1 << 63, "the manifest's extent does not fit [COM-002]", "bad-record")

    def record_of_file(self) -> bytes:
        tail = self.read("", max(0, self.size - 255), 255)
        begun = re.fullmatch(rb"PK\x03\x04.{26}tensors/", self.read("", 0, 38), re.DOTALL)
        starts = [match.start() for match in re.finditer(rb"ckptfmt/[0-9]", tail)]
        need(starts, "there is no commit record [COM-004]", "truncated" if begun else "not-a-checkpoint")
        return tail[starts[-1] :]

    def open(self, name: str) -> io.FileIO:
        """An object, "" being the file itself. No link may lie on the way [CHK-007]."""
        path = os.path.join(self.path, name) if name else self.path
        try:
            way = itertools.accumulate(name.split("/") if name else (), os.path.join, initial=self.path)
            linked = any(map(os.path.islink, itertools.islice(way, 1, None)))
            need(not linked, f"{name} is or lies behind a symbolic link", "linked-object")
            regular = stat.S_ISREG(os.stat(path).st_mode)  # a pipe would never open
            need(regular, f"{path} is no file", "missing-object" if name else "not-a-checkpoint")
            return open(path, "rb", buffering=0)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            code = "missing-object" if gone else "permission" if isinstance(error, PermissionError) else "io"
            raise Fault(code, f"{path}: {error.strerror}", object=name) from error

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of an object; fewer than `length` only where it ends [LIM-003]."""
        with self.open(name) as file, io.BufferedReader(file) as buffered:
            length = max(0, min(length, file.seek(0, os.SEEK_END) - offset))
            buffered.seek(offset)
            return buffered.read(length)


# ---- section 12: reading


class Checkpoint:
    """An open checkpoint. Raises `Fault`, also for what this reader lacks."""

    def __init__(self, path: str, limit: int = 1 << 30) -> None:
        # [READ-001] record, version, manifest and its sha256, what it requires, the rest; no chunk [READ-002]
        self.storage = storage = Storage(path)
        need(storage.layout != "packed", "layout `packed`, which this reader lacks", "unknown-feature")
        name = "manifest.msgpack" if storage.is_folder else ""
        need(storage.length <= limit, f"a manifest of {storage.length} bytes [LIM-001]", "limit-exceeded")
        data = storage.read(name, storage.start, storage.length + storage.is_folder)
        good = len(data) == storage.length and hashlib.sha256(data).hexdigest() == storage.sha256
        need(good, "the manifest has another length or sha256 [COM-003]", "manifest-digest")
        need(not required(data), f"it requires {required(data)} [MAN-006]", "unknown-feature")
        manifest = decode(data)
        need(fits(manifest, HEAD), "format, layout or requires are missing or of another type [MAN-002]")
        same = (manifest["format"], manifest["layout"]) == (storage.version, storage.layout)
        need(same, "not the version and layout of the commit record [MAN-005] [LAY-006]")
        need(fits(manifest, MANIFEST) and "placement" not in manifest, "keys are missing or of other types [MAN-002]")
        digest, block, self.schema = manifest["digest"], manifest["block"], manifest["schema"]
        need(digest in DIGEST_SIZES, f"digest {digest!r} [BLK-002]", "unknown-digest")
        need(len(storage.frame) == 2 * DIGEST_SIZES[digest], "a frame digest of another size [COM-001]")
        need(4096 <= block <= 1 << 30 and block % 4096 == 0, f"block {block} [BLK-003]")
        self.tensors = tensors_of(manifest["tensors"], manifest["codecs"])
        if self.schema is not None:
            need(self.schema["id"] and self.schema["version"], "the schema's id or version is empty [SCH-001]")
            rows = sorted([tensor.name, tensor.dtype, tensor.shape] for tensor in self.tensors)
            good = hashlib.sha256(msgpack.packb(rows)).digest() == self.schema["fingerprint"]
            need(good, "the schema's fingerprint is another [SCH-002]")
        tree = Tree(self.tensors)
        self.tree, self.metadata = tree.value(manifest["tree"]), tree.value(manifest["metadata"], None)
        self.paths, self.unknown_tags = tree.paths, tree.tags
        need(len(self.paths) == len(self.tensors), "a tensor stands nowhere in the tree [TREE-009]")
        self.chunks = chunks_of(storage, manifest, self.tensors)

    def read(self, tensor: Tensor, box: list[range] | None = None, verify: bool = True) -> bytes:
        """The elements at the positions that `box` gives for each axis (all of them by default), as one raw chunk
        without padding would hold them; unused bits are 0. `verify=False` skips the digests [BLK-006]."""
        size, per, bits = DTYPES[tensor.dtype]
        *outer, last = (list(map(range, tensor.shape)) if box is None else box) or [range(1)]  # 0-d: like shape [1]
        if bits == 8 * size or not last:
            return self.gather(tensor, [*outer, last], verify)
        stored = range(last[0] // per, last[-1] // per + 1)  # whole storage elements, of which some are picked
        data, picked = self.gather(tensor, [*outer, stored], verify), slice(last[0] % per, None, last.step)
        rows = (data[start : start + len(stored)] for start in range(0, len(data), len(stored)))
        return b"".join(repack(row, bits, picked, len(last)) for row in rows)

    def gather(self, tensor: Tensor, box: list[range], verify: bool) -> bytes:
        """Storage elements at the positions that `box` gives for each axis, found by arithmetic [READ-003]."""
        size, grid, counts = DTYPES[tensor.dtype].size, tensor.grid or [1], tensor.counts or [1]
        lengths, step = [len(axis) for axis in box], box[-1].step
        out = bytearray(math.prod(lengths) * size)
        touched = [range(axis[0] // side, axis[-1] // side + 1) for axis, side in zip(box, grid, strict=True) if axis]
        for at in itertools.product(*touched) if out else ():
            corner = [number * side for number, side in zip(at, grid, strict=True)]
            inner = [cut(axis, low, low + side) for axis, low, side in zip(box, corner, grid, strict=True)]
            if not all(inner):
                continue  # a step passes over this chunk
            chunk = self.chunks[tensor.number][c_order(at, counts)]
            checked = functools.lru_cache(1)(chunk.checked)  # rows are read in order: no other block is wanted again
            stored = functools.partial(verified, checked, chunk.block) if verify else chunk.fetch
            whole = chunk.decoded(stored(0, chunk.length)) if tensor.codec else None
            *outer, run = inner
            span = ((len(run) - 1) * step + 1) * size
            for row in itertools.product(*outer):  # along the last axis there is one run of bytes for each
                place = [axis[i] - low for axis, i, low in zip(box, (*row, run[0]), corner, strict=True)]
                begin = c_order(place, grid) * size
                piece = stored(begin, begin + span) if whole is None else whole[begin : begin + span]
                if step > 1:
                    piece = b"".join(piece[i : i + size] for i in range(0, span, step * size))
                if tensor.dtype == "bool" and piece.translate(None, b"\0\1"):
                    raise chunk.fault("bad-chunk", "a bool is neither 0 nor 1 [DTYPE-005]")
                begin = c_order((*row, run[0]), lengths) * size
                out[begin : begin + len(piece)] = piece
        return bytes(out)


def verified(checked: Any, block: int, begin: int, end: int) -> bytes:
    """Stored bytes out of checked blocks."""
    first = begin // block
    data = b"".join(map(checked, range(first, (end - 1) // block + 1)))
    return data[begin - first * block : end - first * block]


def c_order(at: Any, shape: list[int]) -> int:
    """The number of a position in C order."""
    return functools.reduce(lambda number, axis: number * axis[1] + axis[0], zip(at, shape, strict=True), 0)


def cut(axis: range, low: int, high: int) -> range:
    """The indices of `axis` at which it lies in [low, high)."""
    first, last = (-(-(bound - axis.start) // axis.step) for bound in (low, high))
    return range(max(first, 0), min(last, len(axis)))


def repack(row: bytes, bits: int, picked: slice, count: int) -> bytes:
    """Pick elements of fewer than 8 bits from a row, and pack them from the lowest bits on [DTYPE-004]."""
    shifts, mask = range(0, 8 - 8 % bits, bits), (1 << bits) - 1
    elements = [byte >> shift & mask for byte in row for shift in shifts][picked][:count]
    groups = (elements[start : start + len(shifts)] for start in range(0, count, len(shifts)))
    return bytes(sum(element << shift for element, shift in zip(group, shifts, strict=False)) for group in groups)
