"""Plain Zarr groups and arrays of format 2 and 3, in a directory, read and written through zarr-python.

The hierarchy is walked here, node by node, so that one array that zarr-python cannot read is named and does not hide
the others. Elements that it lacks (bfloat16, float8 …) it reads as the unsigned integers of their width. A chunk that
is not there is the fill value, as the format says. Groups of format 3 are written.
"""

from __future__ import annotations

import base64
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np

from ...errors import CkptError, fault
from ...format.dtypes import DTYPES, DType, dtype_of
from ...format.names import Path, path_label, path_text
from ...format.tree import MAX_DEPTH, Tree
from ...packages import package
from ...storage import COMMIT
from ..claims import at_once
from ..entries import check_folder, folder_size, read_json
from ..fit import CORE, Holds
from ..losses import LeftOut
from ..orbax_trees import DTYPES as OF_TENSORSTORE
from ..probe import Probe
from ..source import Advance, LazyArray, Loss, OpenedSource, check_strings, parsing
from ..zarr_claims import check_array
from ..zarr_groups import ATTRIBUTES, DIMENSIONS, GroupWriter, check_name, fits, kept, values_of

# those that keep elements as they are, and those that compute with numbers; among the others is pickle, which runs code
KEEPING = {"bytes", "transpose", "sharding_indexed", "blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd", "shuffle"}
KEEPING |= {"adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"}
COMPUTING = {"astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize"}
COMPUTING |= {"vlen-utf8", "vlen-bytes"}

NODES, NODE = 1024, 32  # folders that there may be in any case, and bytes of the source for each further one

FIELDS = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}  # of nodes of format 3
FIELDS |= {"shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "dimension_names"}
FIELDS |= {"storage_transformers"}


HOLDS = Holds(
    dtypes=CORE | {"complex64", "complex128"} | OF_TENSORSTORE,
    containers=(dict,),
    check_name=check_name,
    values=(type(None), bool, int, float, str, list),
    fits=fits,
    metadata=kept,
)


def looks_like(probe: Probe) -> bool:
    return bool(probe.entries & {"zarr.json", ".zgroup", ".zarray"}) and COMMIT not in probe.entries


def read(path: str) -> OpenedSource:
    walker = _ZarrWalker(path)
    with ExitStack() as stack:
        stack.callback(walker.store.end)
        tree = walker.tree("", ())
        walker.left_out.check(tree)
        if tree is None:
            raise ValueError("there is no zarr.json, .zgroup or .zarray here or below")
        for folder, nodes in walker.listed.items():
            walker.check_listed(folder, nodes)
        metadata = {ATTRIBUTES: walker.attributes, DIMENSIONS: walker.dimensions}
        kept = {key: found for key, found in metadata.items() if found} or None
        return OpenedSource(tree, kept, tuple(walker.losses), resources=stack.pop_all())


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write with zarr-python, one part of a tensor after another."""
    GroupWriter(metadata, advance).group(path, tree, ())


class _ZarrNode(NamedTuple):
    """A group or an array: its metadata document, its attributes, and those of them that are `values` of the tree."""

    format: int
    is_array: bool
    document: dict[str, Any]
    attributes: dict[str, Any]
    values: dict[str, Any]

    @classmethod
    def of(cls, format: int, is_array: bool, document: dict[str, Any], attributes: dict[str, Any] | None) -> Self:
        values, rest = ({}, attributes) if is_array else values_of(attributes or {})
        return cls(format, is_array, document, rest or {}, values)


class _ZarrWalker:
    """Walks a hierarchy. `nodes` are by folder below the root, "" for the root itself; `listed` what the consolidated
    metadata of a folder say there is."""

    def __init__(self, path: str) -> None:
        check_folder(path)
        package("zarr", "this format")
        from ..zarr_chunks import Chunks

        self.path, self.size, self.visited = os.path.abspath(path), folder_size(path), 0
        self.store = Chunks(self.path)
        self.nodes: dict[str, _ZarrNode] = {}
        self.listed: dict[str, dict[str, dict[str, Any]]] = {}
        self.attributes: dict[str, Tree] = {}
        self.dimensions: dict[str, Tree] = {}
        self.losses: list[Loss] = []
        self.left_out = LeftOut(self.losses)

    def tree(self, folder: str, path: Path) -> Tree:
        """A node and what is below it; None for a directory without any node."""
        if len(path) > MAX_DEPTH:
            raise fault("too-deep", f"groups nested deeper than {MAX_DEPTH}")
        node = self.node(folder, path)
        if node is not None and node.is_array:
            return self.array_if_known(node, folder, path)
        children: dict[str, Any] = {} if node is None else dict(node.values)
        self.visited += 1
        if self.visited > NODES + self.size // NODE:  # each takes files, which have bytes
            raise fault("limit-exceeded", f"more than {self.visited:,} folders in {self.size:,} bytes")
        for entry in sorted(os.scandir(os.path.join(self.path, folder)), key=lambda entry: entry.name):
            if entry.is_dir():
                below = os.path.join(folder, entry.name)
                child = self.tree(below, (*path, _name(entry.name, path)))
                if child is not None and entry.name in children:
                    raise ValueError(
                        f"{entry.name!r} stands twice, as a node and as a value, in {folder or 'the root'}"
                    )
                if child is not None:
                    children[entry.name] = child
        return children if children or node is not None else None

    def node(self, folder: str, path: Path) -> _ZarrNode | None:
        node = self._version_3(folder) or self._version_2(folder)
        if node is None:
            return None
        self.nodes[folder] = node
        if node.attributes:
            self.attributes[path_text(path)] = node.attributes
        for field in sorted(set(node.document) - FIELDS) if node.format == 3 else ():
            value = node.document[field]
            if not isinstance(value, dict) or value.get("must_understand") is not False:
                raise _unsupported(path, f"the field {field!r}, which readers must understand")
            self.losses.append(Loss("metadata", path_label(path), f"the field {field!r} is left out"))
        return node

    def _version_3(self, folder: str) -> _ZarrNode | None:
        document = self.document(folder, "zarr.json")
        if document is None:
            return None
        if document["zarr_format"] != 3 or document["node_type"] not in ("array", "group"):
            raise ValueError(f"{os.path.join(folder, 'zarr.json')} is of no node of Zarr 3")
        consolidated = document.get("consolidated_metadata")
        if consolidated is not None:
            self.listed[folder] = dict(consolidated["metadata"])
        return _ZarrNode.of(3, document["node_type"] == "array", document, document.get("attributes"))

    def _version_2(self, folder: str) -> _ZarrNode | None:
        document = self.document(folder, ".zarray")
        is_array = document is not None
        document = document if is_array else self.document(folder, ".zgroup")
        if document is None:
            return None
        if document["zarr_format"] != 2:
            raise ValueError(f"{folder or 'the root'} is no node of Zarr 2")
        consolidated = self.document(folder, ".zmetadata")
        if consolidated is not None:
            found = consolidated["metadata"].items()
            files = (".zarray", ".zgroup")
            self.listed[folder] = {os.path.dirname(key): value for key, value in found if key.endswith(files)}
        return _ZarrNode.of(2, is_array, document, self.document(folder, ".zattrs"))

    def document(self, folder: str, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = read_json(os.path.join(self.path, folder, name), folder=self.path)
        except FileNotFoundError:
            return None
        return found

    def check_listed(self, folder: str, nodes: dict[str, dict[str, Any]]) -> None:
        """Hold a group to its consolidated metadata; raises ValueError."""
        for name, said in nodes.items():
            node = self.nodes.get(os.path.normpath(os.path.join(folder, name)) if name else folder)
            if node is None:
                raise ValueError(f"the consolidated metadata name {name!r}, which is not there")
            for field in ("shape", "dtype", "data_type"):
                if said.get(field) != node.document.get(field):
                    raise ValueError(f"{name!r} and the consolidated metadata differ about its {field}")

    def array_if_known(self, node: _ZarrNode, folder: str, path: Path) -> Any:
        """An array; None, and a loss, where zarr-python cannot read it."""
        try:
            return self.array(node, folder, path)
        except CkptError as error:
            self.left_out.add(error)
            self.attributes.pop(path_text(path), None)
            return None

    def array(self, node: _ZarrNode, folder: str, path: Path) -> Any:
        import zarr
        from zarr.storage import StorePath

        row = _lacking(node)
        _check(node, row, path)
        unit = check_array(node.document, self.size, path_label(path))
        document = {**node.document, "attributes": {}}
        if row is not None:
            document |= _as_integers(node, row)
        if node.format == 3 and any(node.document.get("dimension_names") or ()):
            self.dimensions[path_text(path)] = list(node.document["dimension_names"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of data types that Zarr 3 has no specification for
            array = zarr.Array.from_dict(StorePath(self.store, folder), document)
        if node.format == 2 and document.get("fill_value") is None and array.nchunks_initialized < array.nchunks:
            absent = array.nchunks - array.nchunks_initialized
            message = f"{absent:,} of {array.nchunks:,} chunks are not there, without a fill value: they become zeros"
            self.losses.append(Loss("missing", path_label(path), message))
        # TensorStore 0.1.86 says 2^64 for 1 and -2^65 for 2 of float8_e8m0fnu, and reads them back as it says them
        is_doubtful = row is not None and row.name == "float8_e8m0fnu" and document["fill_value"] is not None
        if is_doubtful and array.nchunks_initialized < array.nchunks:
            raise _unsupported(path, "chunks that are a fill value of float8_e8m0fnu, which writers say differently")
        is_text = array.dtype.kind in "SUTO"
        self.store.expect(folder, node.document, at_once(self.size) // 4 if is_text else unit)
        if is_text:
            return self.text(array, path)
        dtype = array.dtype if row is None else row.numpy
        if dtype.kind not in "mM" and dtype_of(dtype) is None:
            raise _unsupported(path, f"the data type {_type(node)!r}")

        def part(index: tuple[slice, ...]) -> Any:
            with parsing(self.path):
                found = np.asarray(self.store.selected(array, index if array.shape else ()))
                return found if row is None else np.ascontiguousarray(found).view(row.numpy).reshape(found.shape)

        return LazyArray(array.shape, dtype, part, array.chunks[0] if array.chunks else 1, unit=unit)

    def text(self, array: Any, path: Path) -> Tree:
        """Strings as nested lists."""
        check_strings(array.shape, array.dtype, path_label(path))
        found = np.asarray(self.store.selected(array, (slice(None),) * array.ndim)).tolist()
        if not _is_text(found):
            raise _unsupported(path, "elements that are no strings")
        return found


def _unsupported(path: Path, what: str) -> Exception:
    label = path_label(path)
    return fault("unsupported-source", f"{label or 'the root'!r} has {what}", tensor=label)


def _name(name: str, path: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _unsupported(path, f"a node whose name {os.fsencode(name)!r} is not UTF-8") from None
    return name


def _is_text(found: Any) -> bool:
    return all(map(_is_text, found)) if isinstance(found, list) else isinstance(found, str | bytes)


def _type(node: _ZarrNode) -> Any:
    """What an array says about its elements."""
    return node.document["data_type" if node.format == 3 else "dtype"]


def _lacking(node: _ZarrNode) -> DType | None:
    """The dtype of elements that zarr-python cannot read and an unsigned integer of their width can stand for."""
    name = _type(node)
    row = DTYPES.get(name) if isinstance(name, str) else None
    return row if row is not None and not row.is_core and "complex" not in row.name else None


def _check(node: _ZarrNode, row: DType | None, path: Path) -> None:
    """Refuse arrays that zarr-python cannot read, by what they say of themselves; raises `unsupported-source`, and
    `unsafe-source` for codecs that run code."""
    import zarr.dtype

    document = node.document
    for codec in _codecs({**document, "attributes": None}):
        name = codec.removeprefix("numcodecs.")
        if name == "pickle":
            label = path_label(path)
            raise fault("unsafe-source", f"{label!r} has the codec 'pickle', which runs code", tensor=label)
        if name not in KEEPING and (name not in COMPUTING or row is not None):
            raise _unsupported(path, f"the codec {codec!r}" + (f" of {row.name}" if row is not None else ""))
    if node.format == 3:
        if document["chunk_grid"]["name"] != "regular":
            raise _unsupported(path, f"the chunk grid {document['chunk_grid']['name']!r}")
        if document["chunk_key_encoding"]["name"] not in ("default", "v2") or document.get("storage_transformers"):
            raise _unsupported(path, "chunks under other names than readers know")
    if row is None and _type(node) != "|O":  # of which codecs say what it is
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zarr.dtype.parse_dtype(_type(node), zarr_format=2 if node.format == 2 else 3)
        except (TypeError, ValueError) as error:
            raise _unsupported(path, f"the data type {_type(node)!r}") from error


def _codecs(document: Any) -> Iterator[str]:
    """The names of all codecs in the metadata of an array, of shards and their indices too."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("codecs", "index_codecs", "filters", "compressor"):
                for codec in value if isinstance(value, list | tuple) else (value,):
                    if codec is not None:
                        yield codec if isinstance(codec, str) else str(codec.get("id", codec.get("name")))
            yield from _codecs(value)
    elif isinstance(document, list | tuple):
        for item in document:
            yield from _codecs(item)


def _as_integers(node: _ZarrNode, row: DType) -> dict[str, Any]:
    """The part of an array's metadata that makes its elements unsigned integers of their width."""
    unsigned = np.dtype(f"uint{8 * row.numpy.itemsize}")
    fill = _fill_bits(node.document.get("fill_value"), row, unsigned)
    if node.format == 3:
        return {"data_type": unsigned.name, "fill_value": fill or 0}
    return {"dtype": unsigned.newbyteorder("<").str, "fill_value": fill}


def _fill_bits(fill: Any, row: DType, unsigned: np.dtype[Any]) -> int | None:
    """The bits of a fill value: a number, a word for one, or its bits as hexadecimal digits (3) or base64 (2)."""
    if fill is None:
        return None
    if isinstance(fill, str) and fill.startswith("0x"):
        return int(fill, 16)
    if isinstance(fill, str) and fill not in ("NaN", "Infinity", "-Infinity"):
        return int.from_bytes(base64.b64decode(fill), "little")
    number = float(fill) if isinstance(fill, str) else fill
    return int(np.asarray(number).astype(row.numpy).view(unsigned))
