"""A reader of ckptfmt checkpoints in plain Python: the companion of SPEC.md, file by file in the order of its sections:
tree.py (2), manifest.py (3 to 7), pages.py (7.1), patch.py (7.4), and this (8, 10, 12).

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
import zlib
from collections.abc import Sequence
from typing import Any

import msgpack

from .faults import Fault, need
from .manifest import (
    DIGEST_SIZES,
    DTYPES,
    HEAD,
    MANIFEST,
    PAGED,
    Chunk,
    Tensor,
    chunks_of,
    codec_of,
    decode,
    fits,
    required,
    tensors_of,
)
from .pages import PagedTree, TensorPages, label_of
from .patch import SAME, WHOLE, Patch
from .tree import Path, Tree, label

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

    def __init__(self, path: str, limit: int = 1 << 30, bases: Sequence[str] = (), patches: int = 8) -> None:
        # [READ-001] record, version, manifest and its sha256, what it requires, the rest; no chunk [READ-002]
        self.storage = storage = Storage(path)
        need(storage.layout != "packed", "layout `packed`, which this reader lacks", "unknown-feature")
        name = "manifest.msgpack" if storage.is_folder else ""
        need(storage.length <= limit, f"a manifest of {storage.length} bytes [LIM-001]", "limit-exceeded")
        data = storage.read(name, storage.start, storage.length + storage.is_folder)
        good = len(data) == storage.length and hashlib.sha256(data).hexdigest() == storage.sha256
        need(good, "the manifest has another length or sha256 [COM-003]", "manifest-digest")
        unknown = set(required(data)) - {"pages", "patch"}
        need(not unknown, f"it requires {unknown} [MAN-006]", "unknown-feature")
        manifest = decode(data)
        need(fits(manifest, HEAD), "format, layout or requires are missing or of another type [MAN-002]")
        same = (manifest["format"], manifest["layout"]) == (storage.version, storage.layout)
        need(same, "not the version and layout of the commit record [MAN-005] [LAY-006]")
        is_paged = "pages" in manifest["requires"]
        fine = fits(manifest, PAGED if is_paged else MANIFEST) and "placement" not in manifest
        need(fine, "keys are missing or of other types [MAN-002] [PAGE-001]")
        digest, block, self.schema = manifest["digest"], manifest["block"], manifest["schema"]
        need(digest in DIGEST_SIZES, f"digest {digest!r} [BLK-002]", "unknown-digest")
        need(len(storage.frame) == 2 * DIGEST_SIZES[digest], "a frame digest of another size [COM-001]")
        need(4096 <= block <= 1 << 30 and block % 4096 == 0, f"block {block} [BLK-003]")
        codecs = list(map(codec_of, manifest["codecs"]))
        if self.schema is not None:
            need(self.schema["id"] and self.schema["version"], "the schema's id or version is empty [SCH-001]")
        self.pages = TensorPages(storage, manifest, codecs) if is_paged else None
        is_patch, self.patch = "patch" in manifest["requires"], None
        need(not is_patch or manifest["requires"] == ["patch"], "a patch with another feature [PATCH-001]")
        self.tensors: Sequence[Tensor] = (
            self.pages if self.pages is not None else tensors_of(manifest["tensors"], codecs)
        )
        if is_patch:
            self.patch = Patch(manifest, list(self.tensors))
            self.tensors = self.patch.tensors
        tree = Tree(self.tensors)
        self.metadata, self.unknown_tags = tree.value(manifest["metadata"], None), tree.tags
        self.root, self.paths = manifest["tree"], tree.paths
        if self.pages is not None:  # whose tree is looked at when something in it is asked for [PAGE-009]
            self.chunks: Sequence[Sequence[Chunk]] = self.pages.chunks
            return
        if self.schema is not None:
            rows = sorted([tensor.name, tensor.dtype, tensor.shape] for tensor in self.tensors)
            good = hashlib.sha256(msgpack.packb(rows)).digest() == self.schema["fingerprint"]
            need(good, "the schema's fingerprint is another [SCH-002]")
        self.tree = tree.value(self.root)
        need(len(self.paths) == len(self.tensors), "a tensor stands nowhere in the tree [TREE-009]")
        self.chunks = chunks_of(storage, manifest, list(self.tensors))
        if self.patch is not None and bases:
            need(patches > 0, "a chain of more patches than 8 [PATCH-009]", "limit-exceeded")
            found = [base for base in bases if Storage(base).sha256 == self.patch.base]
            need(found, f"the base {self.patch.base} is not there [PATCH-004]", "wrong-base")
            self.patch.take(Checkpoint(found[0], limit, bases, patches - 1))

    @functools.cached_property
    def tree(self) -> Any:
        """That of a paged checkpoint is made when all of it is asked for."""
        assert self.pages is not None
        return PagedTree(self.pages, self.root, self.unknown_tags).whole()

    def at(self, path: Path) -> Any:
        """The value at a path."""
        if self.pages is not None and path:
            return PagedTree(self.pages, self.root, self.unknown_tags).at(path)
        value = self.tree
        for key in path:
            position = type(value) in (list, tuple) and key in range(len(value))
            need(position or (type(value) is dict and key in value), f"the tree has no {path}", "no-such-path")
            value = value[key]
        return value

    def label(self, tensor: str) -> str:
        """That of the path at which a tensor stands first, by its name [BLK-009]."""
        if self.pages is not None:
            return label_of(tensor)
        number = next(found.number for found in self.tensors if found.name == tensor)
        return "/".join(map(label, self.paths[number]))

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
        """Storage elements at the positions that `box` gives for each axis, of a patch through its base [PATCH-006]."""
        if self.patch is None or self.patch.forms[tensor.number] == WHOLE:
            return self.gathered(tensor, box, verify)
        data = self.patch.of_base(tensor, box, verify)
        if self.patch.forms[tensor.number] == SAME:
            return data
        data = bytes(a ^ b for a, b in zip(data, self.gathered(tensor, box, verify), strict=True))
        if tensor.dtype == "bool" and not {0, 1}.issuperset(data):
            raise Fault("bad-chunk", "a bool that is neither 0 nor 1 [DTYPE-005]", tensor=tensor.name)
        return data

    def gathered(self, tensor: Tensor, box: list[range], verify: bool) -> bytes:
        """The same of what is stored here, found by arithmetic [READ-003]."""
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
