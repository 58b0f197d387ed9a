"""What formats of torch share that are ZIP archives, or have such archives in them: `read_archive` reads what
`torch.save` wrote, `Together` makes one source of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..errors import fault
from ..format.dtypes import Array
from ..format.names import Path
from ..format.tree import Tree
from .archive import Archive, Window
from .checked import BytesCheck
from .pickles import Unknown
from .source import Loss, OpenedSource, Ours, cut_off
from .torch_pickle import LEFT, FindStorage, TensorPickle

MAGIC = 0x1950A86A20F9469CFC6C  # of files of before torch 1.6
PROTOCOL = 1001
BYTEORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
ATTRIBUTES = "torch.attributes"  # metadata: of OrderedDicts that are no state dicts, and tensors, by path text
MAIN, CONSTANTS = "data.pkl", "constants.pkl"
TEXTS = 1 << 20  # most bytes of what becomes metadata


def read_archive(data: Array, root: Path = ()) -> OpenedSource:
    """What a file of `torch.save` in the ZIP form holds, in all of `data`, whose value stands at the path `root` of a
    tree."""
    archive = Archive(data)
    (main,) = [name for name in archive.members if name.endswith(f"/{MAIN}")]
    folder = main.removesuffix(MAIN)
    if f"{folder}{CONSTANTS}" in archive.members:
        raise fault("unsupported-source", "this is a TorchScript program, not a file of weights")
    reader = TensorPickle(storages_of(archive, f"{folder}data/"), byteorder_of(archive, folder), root)
    return source_of(reader, reader.load(Window(archive.stored(main))), root)


def storages_of(archive: Archive, folder: str) -> FindStorage:
    """The storages that are members of a folder."""

    def find(key: str) -> tuple[Array, BytesCheck]:
        octets = archive.unchecked(f"{folder}{key}")
        return octets.data, octets.check

    return find


def byteorder_of(archive: Archive, folder: str) -> Literal["<", ">"]:
    """That of all numbers in an archive."""
    name = f"{folder}byteorder"
    return BYTEORDERS[bytes(archive.stored(name)).decode("ascii")] if name in archive.members else "<"


def source_of(reader: TensorPickle, value: Any, root: Path = ()) -> OpenedSource:
    """What a reader makes of the value that it loaded."""
    tree = reader.tree(value)
    left_out = reader.left_out()
    if tree is LEFT and not root:
        message = f"the file is one object, not a dict of values: {reader.losses[-1].message}"
        within = f"; in it lie {left_out[0]:,} tensors of {left_out[1]:,} bytes" if left_out[0] else ""
        is_module = isinstance(value, Unknown) and value.is_module
        advice = "In the program that wrote it: torch.save(module.state_dict(), path)" if is_module else None
        raise fault("unsupported-source", message + within, advice=advice)
    metadata = {ATTRIBUTES: reader.attributes} if reader.attributes else None
    return OpenedSource(tree, metadata, tuple(reader.losses), ours=Ours(None, reader.tags, {}), left_out=left_out)


def read_in_a_row(data: Array) -> tuple[TensorPickle, Any]:
    """The value of a file in the form of before torch 1.6, and what read it: pickles in a row, then for each storage
    its number of elements and its bytes, which are little-endian whatever the pickles say."""
    try:
        return _read_in_a_row(Window(data), data)
    except EOFError as error:
        raise cut_off(data.size, data.size + 1, or_more=True) from error


def _read_in_a_row(file: Window, data: Array) -> tuple[TensorPickle, Any]:
    listing = TensorPickle(None)
    if listing.load(file) != MAGIC or listing.load(file) != PROTOCOL:
        raise ValueError("this is no file of torch.save")
    listing.load(file)  # the byte order and sizes of the machine
    start = file.tell()
    listing.load(file)
    storages: dict[str, Array] = {}
    for key in listing.load(file):
        counted = file.read(8)
        at, size = file.tell(), int.from_bytes(counted, "little") * listing.itemsizes[key]
        if len(counted) < 8 or at + size > data.size:
            raise cut_off(data.size, at + max(size, 8 - len(counted)), or_more=True)
        storages[key] = data[at : at + size]
        file.seek(at + size)
    file.seek(start)
    reader = TensorPickle(lambda key: (storages[key], None))
    return reader, reader.load(file)


class Together:
    """Several sources, each for a part of one tree, as one."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self.tags: dict[Path, Sequence[tuple[str, Any]]] = {}
        self.metadata: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        self._left_out = (0, 0)
        self._room = TEXTS

    def add(self, source: OpenedSource) -> Tree:
        """The tree of a source, whose losses, tags and attributes are kept."""
        self.losses += source.losses
        self.tags |= source.ours.tags if source.ours is not None else {}
        self._attributes |= (source.metadata or {}).get(ATTRIBUTES, {})
        self._left_out = (self._left_out[0] + source.left_out[0], self._left_out[1] + source.left_out[1])
        return source.tree

    def text(self, archive: Archive, member: str) -> str | bytes | None:
        """A member of an archive that is to be metadata: text where it is UTF-8; None, and a loss, if it is large."""
        self._room -= archive.members[member].file_size
        if self._room < 0:
            self.losses.append(Loss("metadata", "", f"{member!r} is left out, as it is too large for metadata"))
            return None
        raw = b"".join(archive.pieces(member))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw

    def texts(self, archive: Archive, folder: str) -> dict[str, str | bytes]:
        """What lies in a folder of an archive, as metadata."""
        found = {name[len(folder) :]: self.text(archive, name) for name in archive.members if name.startswith(folder)}
        return {name: text for name, text in found.items() if text is not None}

    def source(self, tree: Tree) -> OpenedSource:
        metadata = {key: said for key, said in self.metadata.items() if said}
        if self._attributes:
            metadata[ATTRIBUTES] = self._attributes
        ours = Ours(None, self.tags, {})
        return OpenedSource(tree, metadata or None, tuple(self.losses), ours=ours, left_out=self._left_out)
