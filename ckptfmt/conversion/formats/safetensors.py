"""safetensors: one file, or several with `model.safetensors.index.json`. Read and written here, without the library.

    file    := u64 length of the header, header, data
    header  := a JSON object, padded with spaces: name -> {"dtype", "shape", "data_offsets": [begin, end]}, and
               "__metadata__" -> {str: str}
    data    := the tensors, little-endian in C order, one after another without holes

Read as strictly as the format is meant: no name twice, offsets without holes or overlaps up to the end of the file.

torch's `HuggingFaceStorageWriter` puts parts of tensors into files `shard-00001-model-00001-of-00001.safetensors`, and
says in the metadata of each where its parts begin: `DCP_SHARDING_INFO`. All of a directory make the tensors.

A tensor that stands at several places is written once, under the first of its names. The others are metadata, as
`safetensors.torch.save_model` has them: the name that was left out, and the one that was written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ...errors import CkptError, fault
from ...format.dtypes import DTYPES, Array, unpack
from ...format.manifest import Schema
from ...format.names import path_text
from ...format.tree import Tree
from .. import shards
from ..claims import count, json_document, shape_of, shown
from ..copying import write_tensors
from ..equality import same_plain
from ..fit import Holds, KeptMetadata, dtype_name
from ..pairs import packed, unpacked
from ..parts import TensorPart, joined
from ..probe import Probe
from ..sharding import Staging
from ..source import (
    Advance,
    LazyArray,
    Loss,
    OpenedSource,
    Ours,
    SourceTensor,
    array_over,
    cut_off,
    mapped_file,
    nbytes,
)

INDEX = ".safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes
METADATA = "__metadata__"
FORMAT, PT = "format", "pt"  # of the strings: what transformers writes
AS_JSON = "ckptfmt.json"  # of the strings: which are JSON, which were added, and which are aliases, as JSON
SCHEMA = "ckptfmt.schema"  # of these: the id and version of a checkpoint's schema
ALIGNMENT = 8  # of the data
MOST_SHARDS = 1 << 16

NAMES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "BF16": "bfloat16",
    "C64": "complex64",
    **{
        f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_WRITTEN = {name: code for code, name in NAMES.items()}
_PAIRS = frozenset(name for name in _WRITTEN if DTYPES[name].per > 1)

SHARDING = "DCP_SHARDING_INFO"  # metadata of torch's writer: name -> {"saved_offsets": [...]}, as JSON
_OF_TORCH = {SHARDING, "DCP_VERSION"}
_is_shard = re.compile(r"shard-[0-9]{5,}-model-[0-9]{5,}-of-[0-9]{5,}\.safetensors").fullmatch


_TAKEN = {AS_JSON, SCHEMA}


def _is_strings(metadata: Tree) -> bool:
    """Whether metadata are a map of strings, or none."""
    if metadata is None:
        return True
    return type(metadata) is dict and all(type(text) is str for pair in metadata.items() for text in pair)


def _kept(metadata: Tree, tree: Tree = None) -> KeptMetadata:
    """What of metadata strings can say, JSON for what is no string."""
    aliases = _aliases(tree or {})
    if not aliases and (metadata is None or (_is_strings(metadata) and not metadata.keys() & _TAKEN)):
        return KeptMetadata(metadata)
    if metadata is not None and not isinstance(metadata, dict):
        found = _kept({"metadata": metadata}, tree)
        return KeptMetadata(found.value, ("they become the value of 'metadata'", *found.lost))
    kept: dict[str, Any] = {}
    lost: list[str] = []
    for key, value in (metadata or {}).items():
        name = path_text((key,))
        if name in kept or name in _TAKEN or name in aliases:
            lost.append(f"{key!r} is left out: its name is taken")
            continue
        try:
            kept[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError, RecursionError):
            lost.append(f"{key!r} is left out: JSON cannot hold it")
            continue
        if name != key or not same_plain(kept[name], value):
            lost.append(f"{key!r} is kept as JSON, which has fewer types")
    return KeptMetadata(kept or None, tuple(lost))


def _aliases(tree: Tree) -> dict[str, str]:
    """The names that are left out, each with the one that is written in its place; raises `unsupported-key`."""
    first: dict[int, str] = {}
    names = [(name, first.setdefault(id(tensor), name)) for name, tensor in tree.items()]
    aliases = {name: written for name, written in names if name != written}
    if odd := aliases.keys() & {FORMAT, *_TAKEN}:
        message = f"a tensor that has another name, too, cannot be called {min(odd)!r}"
        raise fault("unsupported-key", message, tensor=min(odd))
    return aliases


def _with_schema(metadata: Tree, schema: Schema) -> Tree:
    """Metadata that were kept, with a schema."""
    return {**(metadata or {}), SCHEMA: list(schema)}


def _as_strings(metadata: Tree, aliases: Mapping[str, str], *, has_format: bool = False) -> dict[str, str]:
    """Metadata and aliases as the strings of a file, with `format`, for which transformers asks, where `has_format` or
    where strings are added anyway."""
    metadata = metadata or {}
    lacks_format = has_format and FORMAT not in metadata
    if not aliases and _is_strings(metadata) and not (metadata and lacks_format):
        return {**({FORMAT: PT} if lacks_format else {}), **metadata}
    strings = {key: value if type(value) is str else json.dumps(value) for key, value in metadata.items()}
    as_json = [key for key, value in metadata.items() if type(value) is not str]
    added = {} if FORMAT in metadata else {FORMAT: PT}
    about: dict[str, Any] = {"keys": as_json, "added": list(added)}
    if aliases:
        about["aliases"] = list(aliases)
    return {**added, **aliases, **strings, AS_JSON: json.dumps(about)}


def _understood(source: OpenedSource, strings: dict[str, str]) -> OpenedSource:
    """A source with metadata and aliases that the strings of its file stand for; with the strings as they are where
    that is not said, or not true."""
    try:
        told = json_document(strings[AS_JSON].encode())
        values = {key: json_document(strings[key].encode()) for key in told["keys"]}
        aliases = {name: source.tree[strings[name]] for name in told.get("aliases", [])}
        left = {AS_JSON, *told["added"], *aliases} - set(told["keys"])
        if aliases.keys() & source.tree.keys():
            return replace(source, metadata=strings)
    except (AttributeError, KeyError, TypeError, ValueError, CkptError):
        return replace(source, metadata=strings)
    metadata = {key: values.get(key, text) for key, text in strings.items() if key not in left}
    return replace(source, tree={**source.tree, **aliases}, metadata=metadata or None)


def _of_whole(source: OpenedSource) -> OpenedSource:
    """What several files hold, with the strings that their index has for all of them, if it was written here."""
    others = dict(source.metadata or {})
    try:
        strings = json_document(others.pop(shards.INDEX_METADATA).encode())
    except KeyError:
        return source
    if not _is_strings(strings) or AS_JSON not in strings:
        return source
    others.pop(FORMAT, None)
    found = _understood(source, strings)
    return replace(found, metadata={**others, **(found.metadata or {})} or None)


def _told(source: OpenedSource) -> OpenedSource:
    """The same, with the schema that its metadata tell as that."""
    told = (source.metadata or {}).get(SCHEMA)
    if type(told) is not list or len(told) != 2 or not all(map(_is_name, told)):
        return source
    others = {key: value for key, value in source.metadata.items() if key != SCHEMA}
    return replace(source, metadata=others or None, ours=Ours(Schema(*told), {}, {}))


def _is_name(value: Any) -> bool:
    """Whether a value can name a schema: some text, of which JSON can have halves of characters."""
    return type(value) is str and value != "" and value.encode(errors="replace").decode() == value


HOLDS = Holds(
    dtypes=frozenset(_WRITTEN) - _PAIRS,
    pairs=_PAIRS,
    reserved=frozenset({METADATA}),
    metadata=_kept,
    aliases=True,
    schema=_with_schema,
)


def looks_like(probe: Probe) -> bool:
    if probe.is_directory:
        return any(map(_is_shard, probe.entries))
    length = int.from_bytes(probe.head[:8], "little")
    return probe.path.endswith(INDEX) or (probe.head[8:9] == b"{" and 2 <= length <= min(probe.size - 8, MAX_HEADER))


def read(path: str) -> OpenedSource:
    probe = Probe.of(path)
    if path.endswith(INDEX):
        source = _of_whole(shards.read(path, _of_index))
    elif probe.is_directory:
        source = _of_parts([os.path.join(path, name) for name in sorted(filter(_is_shard, probe.entries))])
    else:
        source = _read_file(path)
        source.losses = (*shards.alone(path), *_parts_alone(source))
    return _told(source)


def _read_file(path: str) -> OpenedSource:
    data = mapped_file(path)
    length = int.from_bytes(bytes(data[:8]), "little")
    if length > min(MAX_HEADER, data.size - 8):
        raise ValueError(f"the header would have {length:,} bytes; the file has {data.size:,}")
    raw = bytes(data[8 : 8 + length])
    if not raw.startswith(b"{"):
        raise ValueError("the header does not begin with {")
    header = json_document(raw, shards.distinct)
    metadata = header.pop(METADATA, None)
    if metadata is not None and not _is_strings(metadata):
        raise ValueError(f"{METADATA} is not a map of strings")
    source = OpenedSource(_tensors(header, data, 8 + length))
    return source if metadata is None else _understood(source, metadata)


def _of_index(path: str) -> OpenedSource:
    """One file of several, of whole tensors."""
    source = _read_file(path)
    odd = next((name for name, offsets in _offsets(source).items() if any(offsets)), None)
    if odd is not None:
        raise ValueError(f"{os.path.basename(path)} has a part of {odd!r} alone, where the index means all of it")
    return _without_offsets(source)


def _of_parts(paths: list[str]) -> OpenedSource:
    """All files of a directory that torch's writer made for parts of tensors."""
    parts: dict[str, list[TensorPart]] = {}
    metadata = shards.Metadata()
    with ExitStack() as stack:
        for path in paths:
            source = stack.enter_context(_read_file(path))
            offsets = _offsets(source)
            if offsets.keys() != source.tree.keys():
                raise ValueError(f"{os.path.basename(path)} does not say where its parts of tensors begin")
            for name, tensor in source.tree.items():
                parts.setdefault(name, []).append((offsets[name], tensor))
            metadata.add(os.path.basename(path), _without_offsets(source).metadata)
        tree = {name: _whole(name, found) for name, found in parts.items()}
        losses = (*_gaps([os.path.basename(path) for path in paths]), *metadata.losses)
        return OpenedSource(tree, metadata.value, losses, resources=stack.pop_all())


def _gaps(names: list[str]) -> list[Loss]:
    """What may be missing of shards, as far as their names count them: a process that has nothing writes none."""
    found = [tuple(map(int, re.findall(r"[0-9]+", name))) for name in names]
    shard_numbers, model_numbers = {shard for shard, _, _ in found}, {model for _, model, _ in found}
    if max(shard_numbers) > MOST_SHARDS:
        raise ValueError(f"{names[-1]!r} would be one of more than {MOST_SHARDS:,} shards")
    gaps = [f"shard {number}" for number in range(1, max(shard_numbers)) if number not in shard_numbers]
    count = max(count for _, _, count in found)
    if count <= len(names):
        gaps += [f"file {n} of {count}" for n in range(1, count + 1) if n not in model_numbers]
    else:
        gaps.append(f"some of {count} files")
    return [Loss("missing", "", f"{gap} is not there: empty when it was saved, or lost since") for gap in gaps]


def _whole(name: str, parts: list[TensorPart]) -> SourceTensor:
    first = parts[0][1]
    if any(part.dtype != first.dtype or part.ndim != first.ndim for _, part in parts):
        raise ValueError(f"the parts of {name!r} have different dtypes or axes")
    ends = [[a + n for a, n in zip(at, part.shape, strict=True)] for at, part in parts]
    return joined(name, tuple(map(max, zip(*ends, strict=True))), first.dtype, parts)


def _offsets(source: OpenedSource) -> dict[str, tuple[int, ...]]:
    """Where the tensors of a file begin in the whole, as torch's writer says it; nothing in other files."""
    told = (source.metadata or {}).get(SHARDING)
    if told is None:
        return {}
    info = json_document(told.encode(), shards.distinct)
    offsets = {name: tuple(entry["saved_offsets"]) for name, entry in info.items() if name in source.tree}
    for name, at in offsets.items():
        if len(at) != source.tree[name].ndim or any(type(n) is not int or n < 0 for n in at):
            raise ValueError(f"the part of {name!r} begins at {shown(at)}, which does not fit its axes")
    return offsets


def _without_offsets(source: OpenedSource) -> OpenedSource:
    """The same, without what says how whole tensors were divided into files."""
    kept = {key: value for key, value in (source.metadata or {}).items() if key not in _OF_TORCH}
    return replace(source, metadata=kept or None)


def _parts_alone(source: OpenedSource) -> list[Loss]:
    """What is missing where one file of several has parts of tensors."""
    parts = [(name, at) for name, at in _offsets(source).items() if any(at)]
    return [
        Loss("missing", name, f"this is the part of it that begins at {list(at)}; convert the folder of all parts")
        for name, at in parts
    ]


def _tensors(header: dict[str, Any], data: Array, start: int) -> dict[str, SourceTensor]:
    """The tensors in the order of the header; where they lie is checked in the order of the file."""
    whole = start + max((count(entry["data_offsets"][1]) for entry in header.values()), default=0)
    if whole > data.size:
        raise cut_off(data.size, whole)
    end = 0
    tensors: dict[str, SourceTensor] = {}
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        if entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r} is described by {shown(sorted(entry))}")
        first, last = entry["data_offsets"]
        shape, _ = shape_of(entry["shape"]), (count(first), count(last))
        if first != end:
            raise ValueError(f"tensor {name!r} begins at {first}, where {end} is due: a hole or an overlap")
        tensors[name] = _tensor(name, entry["dtype"], shape, last - first, data, start + first)
        end = last
    if start + end != data.size:
        raise ValueError(f"the tensors end at byte {start + end:,}, the file at {data.size:,}")
    return {name: tensors[name] for name in header}


def _tensor(name: str, code: str, shape: tuple[int, ...], size: int, data: Array, at: int) -> SourceTensor:
    if code not in NAMES:
        raise fault("unsupported-source", f"tensor {name!r} has the dtype {code}", tensor=name)
    row = DTYPES[NAMES[code]]
    if 8 * size != prod(shape) * row.bits:
        raise ValueError(f"tensor {name!r} has {size} bytes, which is wrong for {code} of shape {list(shape)}")
    if row.per == 1:
        return array_over(data, at, row.numpy.newbyteorder("<"), shape)
    if shape and shape[-1] % row.per == 0:
        return unpacked(array_over(data, at, np.dtype(np.uint8), (*shape[:-1], shape[-1] // row.per)), row)
    octets = array_over(data, at, np.dtype(np.uint8), (size,))
    return LazyArray(shape, row.numpy, lambda index: unpack(octets, row, prod(shape)).reshape(shape)[index], shape[0])


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write a flat dict of tensors."""
    aliases = _aliases(tree)
    strings = _as_strings(metadata, aliases) if metadata is not None or aliases else None
    _write_file(path, _without(tree, aliases), strings, advance)
    advance(sum(nbytes(tree[name]) for name in aliases))


def write_shards(staging: Staging, tree: Tree, metadata: Tree, advance: Advance) -> str:
    """Write a flat dict of tensors into one file or several with an index, as `save_pretrained` of transformers does;
    gives the name of what is to be read."""
    aliases = _aliases(tree)
    once = _without(tree, aliases)
    files = staging.shards.divided({name: shards.stored_bytes(tensor) for name, tensor in once.items()})
    strings = _as_strings(metadata, aliases, has_format=True)
    is_indexed = len(files) > 1 or staging.shards.has_index
    for file, names in files.items():
        with staging.file(file) as path:
            about = {FORMAT: strings[FORMAT]} if is_indexed else strings
            _write_file(path, {name: once[name] for name in names}, about, advance)
    advance(sum(nbytes(tree[name]) for name in aliases))
    if not is_indexed:
        return next(iter(files))
    of_all = {AS_JSON: json.dumps({"keys": [], "added": []}), **strings} if strings.keys() - {FORMAT} else {}
    total = sum(map(shards.stored_bytes, once.values()))
    weight_map = {name: file for file, names in files.items() for name in names}
    index = {"metadata": {"total_size": total, **of_all}, "weight_map": weight_map}
    with staging.file(staging.shards.index) as path, open(path, "w", encoding="utf-8") as document:
        document.write(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return staging.shards.index


def _without(tree: Tree, aliases: Mapping[str, str]) -> dict[str, SourceTensor]:
    return {name: tensor for name, tensor in tree.items() if name not in aliases}


def _write_file(path: str, tree: Mapping[str, SourceTensor], strings: dict[str, str] | None, advance: Advance) -> None:
    """Write one file. Tensors of wider elements come first, so that all are aligned."""
    header: dict[str, Any] = {} if strings is None else {METADATA: strings}
    order = sorted(tree, key=lambda name: (-tree[name].dtype.itemsize, name))
    stored = {name: _stored(tree[name]) for name in order}
    end = 0
    for name in order:
        size = nbytes(stored[name])
        code = _WRITTEN[dtype_name(tree[name].dtype)]
        header[name] = {"dtype": code, "shape": list(tree[name].shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % ALIGNMENT)
    if len(raw) > MAX_HEADER:
        raise fault("limit-exceeded", f"the header would have {len(raw):,} bytes, more than safetensors allows")
    with open(path, "r+b") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        write_tensors(file, list(stored.values()), advance)
    advance(sum(nbytes(tree[name]) - nbytes(stored[name]) for name in order))


def _stored(tensor: SourceTensor) -> SourceTensor:
    row = DTYPES[dtype_name(tensor.dtype)]
    return tensor if row.per == 1 else packed(tensor, row)
