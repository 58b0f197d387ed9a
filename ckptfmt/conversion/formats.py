"""The table of formats: their names, what they look like, and the modules that read and write them.

Each format is a module of this package with `looks_like(probe)` and `read(path)`; one that can be written has `HOLDS`
and `write(path, tree, metadata, advance)`, which fills the empty file at `path`, too. Errors of a module that are no
`CkptError` mean that the bytes it reads break its format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from ..errors import CkptError, fault
from ..format.tree import Tree
from ..layouts import foreign
from ..storage import is_url
from . import folders, own
from .claims import allowing
from .entries import folder_size
from .fit import Holds
from .gate import admit
from .probe import CheckpointPlace, Probe
from .source import EXPANSION, Advance, OpenedSource, parsing


class Format(NamedTuple):
    """A format: its `name`, a `title` for people, its `module`, the `suffixes` of its files, the `extra` that its
    libraries come with (None: none needed; that of torch is for writing alone), whether it is `writable`, and whether
    it always is a `folder`."""

    name: str
    title: str
    module: str
    suffixes: tuple[str, ...] = ()
    extra: str | None = None
    writable: bool = False
    folder: bool = False


OWN = "ckptfmt"
FORMATS: dict[str, Format] = {
    format.name: format
    for format in [
        Format(OWN, "a checkpoint of this format, in any layout", "own", (".ckpt",), None, True),
        Format("safetensors", "safetensors, also with an index", "safetensors", (".safetensors",), None, True),
        Format("torch", "torch.save, also with an index", "torch_file", (".pt", ".pth", ".bin"), "torch", True),
        Format("torch-dcp", "directory of torch.distributed.checkpoint", "torch_dcp", folder=True),
        Format("npz", "NumPy .npz", "npz", (".npz",), None, True),
        Format("flax", "flax msgpack", "flax", (".msgpack",), None, True),
        Format("orbax", "directory of Orbax", "orbax", (), "orbax", folder=True),
        Format("hdf5", "HDF5, also Keras .weights.h5", "hdf5", (".h5", ".hdf5"), "hdf5", True),
        Format("gguf", "GGUF", "gguf", (".gguf",)),
        Format("zarr", "Zarr 2 or 3 group in a directory", "zarr", (".zarr",), "zarr", folder=True),
    ]
}


class Reader(Protocol):
    """A module of a format."""

    def looks_like(self, probe: Probe) -> bool: ...

    def read(self, path: str) -> OpenedSource: ...


class Writer(Reader, Protocol):
    """A module of a format that can be written."""

    HOLDS: Holds

    def write(self, path: str, tree: Tree, metadata: Tree, advance: Advance) -> None: ...


def reader_of(format: Format) -> Reader:
    module: Reader = import_module(f".{format.module}", __package__)
    return module


def writer_of(format: Format) -> Writer:
    module: Writer = import_module(f".{format.module}", __package__)
    return module


def has_tags(name: str) -> bool:
    """Whether a source of that format says what its plain values and tensors were, as far as it knows."""
    format = FORMATS[name]
    return name == OWN or not format.writable or bool(writer_of(format).HOLDS.tags)


def format_named(name: str) -> Format:
    """The format of that name; raises `unknown-format`."""
    if name not in FORMATS:
        raise fault("unknown-format", f"there is no format {name!r}", found=name, expected=" or ".join(FORMATS))
    return FORMATS[name]


def place_of(path: str, name: str | None = None) -> CheckpointPlace:
    """The checkpoint at a path, or the one in the folder there: of any format, or of the one named. Raises
    `unknown-format`, `ambiguous-source`, `not-found`, and what reading its first bytes can show."""
    asked = None if name is None else format_named(name)

    def format_of(place: str) -> str:
        return _format_of(Probe.of(place), [asked] if asked else list(FORMATS.values())).name

    if asked is not None and (asked.folder or not os.path.isdir(path)):
        return CheckpointPlace(path, asked.name)  # whatever it looks like
    if not os.path.isdir(path):
        return CheckpointPlace(path, format_of(path))
    with parsing(path):
        return folders.place_in(path, format_of)


def _format_of(probe: Probe, formats: list[Format]) -> Format:
    """The format of what is at a path, by its bytes; raises `unknown-format`."""
    try:
        with parsing(probe.path):
            for format in formats:
                if reader_of(format).looks_like(probe):
                    return format
    except CkptError as error:
        raise _told(error, probe) from error
    raise _told(fault("unknown-format", "this looks like no format that can be read", path=probe.path), probe)


_NOT_READ = ("bad-source", "unsupported-source")


def _told(error: CkptError, probe: Probe) -> CkptError:
    """What is wrong with a file that breaks its format, or has none: if it is something else, that."""
    if error.code not in ("unknown-format", *_NOT_READ) or probe.is_directory or error.path != probe.path:
        return error
    kind = foreign.kind_of(probe.head[: foreign.HEAD], probe.size, probe.read)
    is_index = error.code in _NOT_READ and probe.path.endswith(".json")
    if kind is None or kind.advice is None or is_index:
        return error
    return fault(error.code, f"this is {kind.words}", path=probe.path, advice=kind.advice)


def _misnamed(error: CkptError, place: CheckpointPlace, probe: Probe) -> CkptError | None:
    """What is wrong with a source that is of another format than the one that the caller named."""
    if error.code not in ("not-a-checkpoint", *_NOT_READ):
        return None
    try:
        found = _format_of(probe, list(FORMATS.values()))
    except CkptError:
        return None
    if found.name == place.format:
        return None
    message = f"this looks like {found.title}, not like {FORMATS[place.format].title}"
    return fault("bad-source", message, path=probe.path, advice="Leave out source_format=, or name that one")


def target_format(path: str, name: str | None) -> Format:
    """The format to write at a path: the one named, else the one of its suffix, else this format itself."""
    format = format_named(name) if name is not None else _by_suffix(path)
    if not format.writable:
        hint = "; layout='loose' has a plain Zarr group in tensors/" if format.name == "zarr" else ""
        written = ", ".join(format.name for format in FORMATS.values() if format.writable)
        raise fault("unknown-format", f"{format.name} can be read only, {written} also written{hint}", path=path)
    return format


def on_disks(format: Format, path: str) -> None:
    """Refuse a URL of another format; raises `bad-option`."""
    if format.name != OWN and is_url(path):
        message = f"{format.name} is read and written on disks alone; only checkpoints of this format lie on stores"
        raise fault("bad-option", message, path=path, found="a URL", expected="a path")


def _by_suffix(path: str) -> Format:
    name = os.path.basename(os.path.normpath(path)).lower()
    fits = (format for format in FORMATS.values() if name.endswith(format.suffixes or ("\0",)))
    return next(fits, FORMATS[OWN])


def open_source(
    path: str,
    name: str | None = None,
    *,
    max_expansion: int = EXPANSION,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> OpenedSource:
    """Open what is at a path as the format named, or the one that it looks like, or the checkpoint of this format at a
    URL, with `storage_options`; in a folder that is no checkpoint itself, the only one that lies in it. Its tensors may
    have `max_expansion` times the bytes of the source, and 64 MiB in any case. `follow_links`: as in `ckptfmt.open`, of
    checkpoints of this format.

    Raises `bad-option` for other formats at a URL, `not-found`, `unknown-format`, `ambiguous-source`,
    `missing-package`, `bad-source`, `unsafe-source`, `unsupported-source`, `limit-exceeded`, `too-deep`, and for
    checkpoints what `ckptfmt.open` raises.
    """
    if is_url(path):
        place = CheckpointPlace(path, format_named(name or OWN).name)
        on_disks(FORMATS[place.format], path)
        read = partial(own.on_store, path, storage_options)
    else:
        place = place_of(path, name)
        read = partial(_on_disk, place, follow_links)
    with parsing(place.path), allowing(max_expansion):
        source, size = read()
        try:
            admit(source, size, place.path, max_expansion)
        except BaseException:
            source.resources.close()
            raise
    source.place = place
    return source


def _on_disk(place: CheckpointPlace, follow_links: bool) -> tuple[OpenedSource, int]:
    probe = Probe.of(place.path)  # which also refuses what is no file, before a library waits for it
    try:
        with parsing(place.path):
            if place.format == OWN:
                source = own.read(place.path, follow_links=follow_links)
            else:
                source = reader_of(FORMATS[place.format]).read(place.path)
    except CkptError as error:
        raise _misnamed(error, place, probe) or _told(error, probe) from error
    if source.size is not None:
        return source, source.size
    return source, folder_size(place.path) if probe.is_directory else probe.size
