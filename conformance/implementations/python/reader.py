"""A reader of ckptfmt checkpoints in plain Python: the companion of SPEC.md, to be read beside it.

    from reader import Checkpoint
    checkpoint = Checkpoint("model.ckpt")
    checkpoint.tree                                    # plain values, and a `Tensor` where a tensor stands
    checkpoint.read(checkpoint.tree["w"])              # its bytes: C order, little-endian, packed as in section 3
    checkpoint.read(checkpoint.tree["w"], [slice(2)])  # reads the blocks that hold these rows, and no others

`python reader.py FILE` prints the tree. Every byte that is given has been checked against its digest.
"""

import hashlib
import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

from chunks import Parts
from faults import Fault, Unsupported, need
from manifest import DTYPES, Tensor, check_body, check_head, check_schema, decode, tensors_of
from storage import Storage
from stored import Chunk
from tree import Path, Tree

LIMIT = 1 << 30  # bytes of a manifest [LIM-001]


class Checkpoint:
    """An open checkpoint. Raises `Fault`, or `Unsupported` for what this reader lacks."""

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        # [READ-001] record, version, manifest and its sha256, what it requires, the rest; no chunk [READ-002]
        self.storage = Storage(path)
        record, name = self.storage.record, "manifest.msgpack" if self.storage.is_folder else ""
        whole = not self.storage.is_folder or self.storage.size(name) == record.length
        need(whole, "COM-003", f"{name} has another length", "manifest-digest")
        need(record.length <= limit, "LIM-001", f"a manifest of {record.length} bytes", "limit-exceeded")
        data = self.storage.read(name, record.offset, record.length)
        right = hashlib.sha256(data).digest() == record.sha256
        need(right, "COM-003", "the manifest has another sha256", "manifest-digest")
        manifest = decode(data)
        check_head(manifest, record.version, record.layout)
        check_body(manifest, record.frame)
        self.digest: str = manifest["digest"]
        self.schema: dict[str, Any] | None = manifest["schema"]
        self.tensors = tensors_of(manifest)
        check_schema(self.schema, self.tensors)
        tree = Tree(self.tensors)
        self.tree, self.metadata = tree.value(manifest["tree"]), tree.plain(manifest["metadata"])
        self.paths, self.unknown_tags = tree.paths, tree.tags  # path of each tensor; tags whose child is given
        need(len(self.paths) == len(self.tensors), "TREE-009", "a tensor stands nowhere in the tree")
        self.parts = Parts(self.storage, manifest, self.tensors)

    def close(self) -> None:
        self.storage.close()

    def at(self, path: Path) -> Any:
        """The value at a typed path: str and int keys, int positions."""
        value = self.tree
        for key in path:
            position = isinstance(value, list | tuple) and isinstance(key, int) and 0 <= key < len(value)
            found = position or (isinstance(value, dict) and key in value)
            need(found, "section 2", f"the tree has no {path_text(path)!r}", "no-such-path")
            value = value[key]
        return value

    def read(self, tensor: Tensor, slices: Sequence[slice] | None = None, verify: bool = True) -> bytes:
        """The elements of `tensor[slices]`, as one raw chunk without padding would hold them; unused bits are 0.

        There is one slice for each axis, with a step of 1 or more. `verify=False` skips the digests [BLK-006].
        """
        dtype = DTYPES[tensor.dtype]
        box = [range(side) for side in tensor.shape]
        if slices is not None:
            forward = all(one.step is None or one.step > 0 for one in slices)
            need(len(slices) == len(tensor.shape) and forward, "section 12", f"slices {slices}", "bad-index")
            box = [axis[one] for axis, one in zip(box, slices, strict=True)]
        box = box or [range(1)]  # 0-d
        if dtype.packed == 1 or not box[-1]:
            stored, picked = box, slice(None)
        else:  # whole storage elements, of which the wanted ones are picked
            first, last = box[-1][0], box[-1][-1]
            stored = [*box[:-1], range(first // dtype.packed, last // dtype.packed + 1)]
            picked = slice(first % dtype.packed, None, box[-1].step)
        data = self.gather(tensor, stored, verify)
        if dtype.bits == 8 * dtype.size or not data:
            return data
        row = len(stored[-1])
        rows = (data[start : start + row] for start in range(0, len(data), row))
        return b"".join(repack(one, dtype.bits, picked, len(box[-1])) for one in rows)

    def gather(self, tensor: Tensor, box: list[range], verify: bool) -> bytes:
        """Storage elements at the positions that `box` gives for each axis, by arithmetic [READ-003]."""
        size, grid, lengths = DTYPES[tensor.dtype].size, tensor.grid or [1], [len(axis) for axis in box]
        out = bytearray(math.prod(lengths) * size)
        touched = []  # chunks along each axis
        for axis, side in zip(box, grid, strict=True):
            touched.append(range(axis[0] // side, axis[-1] // side + 1) if axis else axis)
        for at in itertools.product(*touched):
            corner = [number * side for number, side in zip(at, grid, strict=True)]
            inner = [cut(axis, low, low + side) for axis, low, side in zip(box, corner, grid, strict=True)]
            if not all(inner):  # a step passes over this chunk
                continue
            chunk = Chunk(self.storage, self.parts, self.digest, tensor, at if tensor.shape else (), verify)
            *outer, run = inner
            step, first = box[-1].step, box[-1][run[0]] - corner[-1]
            span = (len(run) - 1) * step + 1
            for row in itertools.product(*outer):  # rows along the last axis: one run of bytes each
                source = target = 0
                for i, position in enumerate(row):
                    source = source * grid[i] + box[i][position] - corner[i]
                    target = target * lengths[i] + position
                begin = (source * grid[-1] + first) * size
                piece = chunk.read(begin, begin + span * size)
                if tensor.dtype == "bool" and piece.translate(None, b"\0\1"):
                    raise chunk.fault("bad-chunk", "a bool is neither 0 nor 1 [DTYPE-005]")
                if step > 1:
                    piece = b"".join(piece[i : i + size] for i in range(0, len(piece), step * size))
                begin = (target * lengths[-1] + run[0]) * size
                out[begin : begin + len(piece)] = piece
        return bytes(out)


def cut(axis: range, low: int, high: int) -> range:
    """The indices of `axis` at which it lies in [low, high)."""
    first, last = (-(-(bound - axis.start) // axis.step) for bound in (low, high))
    return range(max(first, 0), min(last, len(axis)))


def repack(row: bytes, bits: int, picked: slice, count: int) -> bytes:
    """Pick elements of fewer than 8 bits from a row, and pack them from the lowest bits on [DTYPE-004]."""
    packed, mask = max(1, 8 // bits), (1 << bits) - 1
    shifts = range(0, packed * bits, bits)
    elements = [byte >> shift & mask for byte in row for shift in shifts][picked][:count]
    groups = (elements[start : start + packed] for start in range(0, count, packed))
    return bytes(sum(element << shift for element, shift in zip(group, shifts, strict=False)) for group in groups)


def path_text(path: Path) -> str:
    return "/".join(map(str, path))


def show(value: Any, name: str = "", indent: str = "") -> None:
    """Print a tree for people; what is no printable ASCII is escaped [SEC-005]."""
    if isinstance(value, dict | list | tuple):
        print(f"{indent}{name}{type(value).__name__}")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            show(item, f"{key!a}: ", indent + "  ")
    elif isinstance(value, Tensor):
        print(f"{indent}{name}tensor {value.index}: {value.dtype} {value.shape}")
    else:
        print(f"{indent}{name}{value!a}")


if __name__ == "__main__":
    try:
        show(Checkpoint(sys.argv[1]).tree)
    except (Fault, Unsupported) as refusal:
        sys.exit(ascii(str(refusal)))
