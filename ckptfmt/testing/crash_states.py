"""What a power loss may leave: every state of a disk that POSIX allows at any moment of a record.

The disk is the one that POSIX promises and no better. What was flushed is there. Of what was not, each change may have
happened or not, whatever came before or after it: bytes, by sectors of 512; the size of a file; and names, apart from
the bytes of what they lead to. Only the names that one call changed in one directory go together. Space that a file
was given, and whose bytes did not come, reads as zeros or as what was on the disk before.

All subsets cannot be had. Nearly all bugs of this kind need at most three lost changes (ALICE, OSDI 2014; CrashMonkey,
OSDI 2018), so at each moment these states are made: nothing lost, all lost, each change lost alone, in each way that it
can be; each kept alone; each two lost; three lost at random; and any at random.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .recording import DiskChange, DiskRecord, Flush, Inode, NameChange, Resize, Write

SECTOR = 512
Image = bytes | dict[str, "Image"]


class Fate(NamedTuple):
    """What became of a change that was not flushed. Of a write that is neither kept nor lost the file's size is as if
    it were kept, or, if it is `cut`, that of the last sector that came; of its sectors those in `mask` came."""

    how: Literal["kept", "lost", "zeros", "stale", "cut"]
    mask: int = 0


KEPT, LOST = Fate("kept"), Fate("lost")
Fates = tuple[Fate, ...]


@dataclass(frozen=True, slots=True)
class CrashState:
    """A directory as a power loss leaves it. `calls`: how many had been made. `lost`: which of them are not there, or
    only in part, in words."""

    calls: int
    lost: tuple[str, ...]
    image: dict[str, Image]

    @property
    def digest(self) -> bytes:
        """Equal for equal directories."""
        return _digest(self.image)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Make the directory, which must not exist."""
        _write_image(os.fspath(folder), self.image)


def crash_states(record: DiskRecord, *, most: int = 64, seed: int = 0) -> Iterator[CrashState]:
    """States that a power loss may leave, at most `most` for each moment; `seed` chooses where there are more. A state
    comes once, and once more if it is also one of the end, when everything has been done."""
    rng = random.Random(seed)
    disk = _DurableState(record)
    seen: set[tuple[bytes, bool]] = set()
    for calls in range(len(record.calls) + 1):
        if calls:
            disk.do(record.calls[calls - 1])
        for fates in _choices(disk.pending, most, rng):
            lost = tuple(f"{_words(c)}: {f.how}" for c, f in zip(disk.pending, fates, strict=True) if f != KEPT)
            state = CrashState(calls, lost, disk.image(fates))
            key = state.digest, calls == len(record.calls)
            if key not in seen:
                seen.add(key)
                yield state


# ---- the disk


class _DurableState:
    """What is safe of a record's files and directories, and the changes since."""

    def __init__(self, record: DiskRecord) -> None:
        self.root = record.root
        self.files, self.folders = dict(record.files), {node: dict(names) for node, names in record.folders.items()}
        self.pending: list[DiskChange] = []

    def do(self, call: DiskChange | Flush) -> None:
        if not isinstance(call, Flush):
            self.pending.append(call)
            return
        self._apply([(change, KEPT) for change in self.pending if change.node == call.node], self.files, self.folders)
        self.pending = [change for change in self.pending if change.node != call.node]

    def image(self, fates: Fates) -> dict[str, Image]:
        """The whole directory, if the changes that are pending fare so."""
        files, folders = dict(self.files), {node: dict(names) for node, names in self.folders.items()}
        self._apply(list(zip(self.pending, fates, strict=True)), files, folders)

        def of(node: Inode) -> Image:
            return {name: of(below) for name, below in folders[node].items()} if node in folders else files[node]

        return {name: of(node) for name, node in folders[self.root].items()}

    def _apply(
        self,
        changes: Sequence[tuple[DiskChange, Fate]],
        files: dict[Inode, bytes],
        folders: dict[Inode, dict[str, Inode]],
    ) -> None:
        for change, fate in changes:
            if fate == LOST:
                continue
            if isinstance(change, NameChange):
                for name, node in change.changes:
                    if node is None:
                        folders[change.node].pop(name, None)
                    else:
                        folders[change.node][name] = node
            elif isinstance(change, Resize):
                files[change.node] = files[change.node][: change.size].ljust(change.size, b"\0")
            else:
                fresh = len(self.files[change.node])  # space from here on is new: nothing of it is safe
                files[change.node] = _written(files[change.node], change, fate, fresh)


def _written(before: bytes, write: Write, fate: Fate, fresh: int) -> bytes:
    """A file after a write of which not all may have come."""
    end = write.offset + len(write.data)
    content = bytearray(before.ljust(end, b"\0"))
    if fate.how == "kept":
        content[write.offset : end] = write.data
        return bytes(content)
    if fate.how == "stale":
        for at in range(max(write.offset, fresh), end):
            content[at] = (at * 131 + 89) & 0xFF
    last = len(before)
    for number, (start, stop) in enumerate(_sectors(write)):
        if fate.mask >> number & 1:
            content[start:stop] = write.data[start - write.offset : stop - write.offset]
            last = max(last, stop)
    return bytes(content[:last] if fate.how == "cut" else content)


def _sectors(write: Write) -> list[tuple[int, int]]:
    """The parts (start, end in the file) of a write that lie in one sector each."""
    end = write.offset + len(write.data)
    bounds = [write.offset, *range(write.offset - write.offset % SECTOR + SECTOR, end, SECTOR), end]
    return list(itertools.pairwise(bounds))


# ---- what may be lost


def _choices(changes: Sequence[DiskChange], most: int, rng: random.Random) -> Iterator[Fates]:
    """Fates of all changes: nothing lost, all lost, and at most `most` - 2 others."""
    count = len(changes)
    yield (KEPT,) * count
    yield (LOST,) * count
    some = [(KEPT, {at: fate}) for at, change in enumerate(changes) for fate in _ways(change, rng)]
    some += [(LOST, {at: KEPT}) for at in range(count)]
    some += [(KEPT, dict.fromkeys(pair, LOST)) for pair in itertools.combinations(range(count), 2)]
    for _ in range(most // 4 if count > 2 else 0):
        some.append((KEPT, dict.fromkeys(rng.sample(range(count), 3), LOST)))
        some.append((KEPT, {at: rng.choice([KEPT, *_ways(change, rng)]) for at, change in enumerate(changes)}))
    for rest, odd in some if len(some) <= most - 2 else rng.sample(some, most - 2):
        yield tuple(odd.get(at, rest) for at in range(count))


def _ways(change: DiskChange, rng: random.Random) -> list[Fate]:
    """The ways in which a change can be lost."""
    if not isinstance(change, Write):
        return [LOST]
    sectors = len(_sectors(change))
    some, first = rng.getrandbits(sectors), (1 << rng.randrange(sectors)) - 1
    return [
        *(LOST, Fate("zeros"), Fate("stale")),
        *(Fate("zeros", some), Fate("stale", some), Fate("cut", some), Fate("cut", first), Fate("zeros", first)),
    ]


def _words(change: DiskChange) -> str:
    match change:
        case Write(node, offset, data):
            return f"write of {len(data)} bytes at {offset} of file {node}"
        case Resize(node, size):
            return f"size {size} of file {node}"
        case NameChange(node, changes):
            return f"names in directory {node}: " + ", ".join(f"{name} -> {to}" for name, to in changes)


# ---- images


def _digest(image: Image) -> bytes:
    if isinstance(image, bytes):
        return hashlib.blake2b(b"f" + image, digest_size=16).digest()
    parts = (name.encode() + b"\0" + _digest(below) for name, below in sorted(image.items()))
    return hashlib.blake2b(b"d" + b"".join(parts), digest_size=16).digest()


def _write_image(path: str, image: Image) -> None:
    if isinstance(image, bytes):
        with open(path, "xb") as file:
            file.write(image)
        return
    os.mkdir(path)
    for name, below in image.items():
        _write_image(os.path.join(path, name), below)
