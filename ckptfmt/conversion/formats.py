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

from ..errors import fault
from ..format.tree import Tree
from ..storage import is_url
from . import own
from .claims import allowing
from .fit import Holds
from .gate import admit
from .probe import Probe
from .source import EXPANSION, Advance, Source, parsing


class Format(NamedTuple):
    """A format: its `name`, a `title` for people, its `module`, the `suffixes` of its files, the `extra` that its
    libraries come with (None: none needed; that of torch is for writing alone), and whether it is `writable`."""

    name: str
    title: str
    module: str
    suffixes: tuple[str, ...] = ()
    extra: str | None = None
    writable: bool = False


OWN = "ckptfmt"
FORMATS: dict[str, Format] = {
    format.name: format
    for format in [
        Format(OWN, "a checkpoint of this format, in any layout", "own", (".ckpt",), None, True),
        Format("safetensors", "safetensors, also with an index", "safetensors", (".safetensors",), None, True),
        Format("torch", "torch.save, also with an index", "torch_file", (".pt", ".pth", ".bin"), "torch", True),
        Format("torch-dcp", "directory of torch.distributed.checkpoint", "torch_dcp"),
        Format("npz", "NumPy .npz", "npz", (".npz",), None, True),
        Format("flax", "flax msgpack", "flax", (".msgpack",), None, True),
        Format("orbax", "directory of Orbax", "orbax", (), "orbax"),
        Format("hdf5", "HDF5, also Keras .weights.h5", "hdf5", (".h5", ".hdf5"), "hdf5", True),
        Format("gguf", "GGUF", "gguf", (".gguf",)),
        Format("zarr", "Zarr 2 or 3 group in a directory", "zarr", (".zarr",), "zarr"),
    ]
}


class Reader(Protocol):
    """A module of a format."""

    def looks_like(self, probe: Probe) -> bool: ...

    def read(self, path: str) -> Source: ...


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


def format_named(name: str) -> Format:
    """The format of that name; raises `unknown-format`."""
    if name not in FORMATS:
        raise fault("unknown-format", f"there is no format {name!r}", found=name, expected=" or ".join(FORMATS))
    return FORMATS[name]


def format_of(path: str) -> Format:
    """The format of what is at a path, by its bytes; raises `unknown-format` and `not-found`."""
    probe = Probe.of(path)
    with parsing(path):
        for format in FORMATS.values():
            if reader_of(format).looks_like(probe):
                return format
    raise fault("unknown-format", "this looks like no format that can be read", path=path)


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
) -> Source:
    """Open what is at a path as the format named, or the one that it looks like, or the checkpoint of this format at a
    URL, with `storage_options`. Its tensors may have `max_expansion` times the bytes of the source, and 64 MiB in any
    case.

    Raises `bad-option` for other formats at a URL, `not-found`, `unknown-format`, `missing-package`, `bad-source`,
    `unsafe-source`, `unsupported-source`, `limit-exceeded`, `too-deep`, and for checkpoints what `ckptfmt.open` raises.
    """
    if is_url(path):
        format = format_named(name or OWN)
        on_disks(format, path)
        read = partial(own.on_store, path, storage_options)
    else:
        format = format_named(name) if name is not None else format_of(path)
        read = partial(_on_disk, path, format)
    with parsing(path), allowing(max_expansion):
        source, size = read()
        try:
            admit(source, size, path, max_expansion)
        except BaseException:
            source.resources.close()
            raise
    source.format = format.name
    return source


def _on_disk(path: str, format: Format) -> tuple[Source, int]:
    size = Probe.of(path).size  # which also refuses what is no file, before a library waits for it
    source = reader_of(format).read(path)
    return source, size if source.size is None else source.size
