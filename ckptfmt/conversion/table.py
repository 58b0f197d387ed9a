"""The table of formats: their names, what they look like, and the modules that read and write them.

Each format is a module of the room `formats` with `looks_like(probe)` and `read(path)`, which takes the options of
reading that the row names; one that can be written has `HOLDS` and `write(path, tree, metadata, advance)`, which fills
the empty file or folder at `path`, too. One of `shards` has `write_shards(staging, tree, metadata, advance)`, and one
that takes a `template` has `follow(source, template)`, which gives a source in the form of a model. Errors of a
module that are no `CkptError` mean that the bytes it reads break its format.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from ..errors import fault
from ..format.tree import Tree
from ..storage import is_url
from .fit import Holds
from .probe import Probe
from .sharding import INDEX, Shards, Staging
from .source import Advance, OpenedSource


class Format(NamedTuple):
    """A format: its `name`, a `title` for people, its `module`, the `suffixes` of its files, the `extra` that its
    libraries come with (None: none needed; that of torch is for writing alone, that of GGUF for computing with blocks),
    whether it is `writable`, whether it always is a `folder`, whether it can be written as several files, `shards`,
    with an index, whether a model can be its `template`, and the `options` of reading that not every format has."""

    name: str
    title: str
    module: str
    suffixes: tuple[str, ...] = ()
    extra: str | None = None
    writable: bool = False
    folder: bool = False
    shards: bool = False
    template: bool = False
    options: tuple[str, ...] = ()


OWN = "ckptfmt"
FORMATS: dict[str, Format] = {
    format.name: format
    for format in [
        Format(OWN, "a checkpoint of this format, in any layout", "own", (".ckpt",), None, True),
        Format(
            "safetensors", "safetensors, also with an index", "safetensors", (".safetensors",), None, True, shards=True
        ),
        Format("torchscript", "TorchScript, of torch.jit.save", "torchscript", (".jit", ".ptl", ".torchscript")),
        Format("torch-export", "exported program of torch.export.save", "torch_export", (".pt2",)),
        Format("stable-baselines3", "archive of Stable-Baselines3", "stable_baselines3", (".zip",)),
        Format("torch", "torch.save, also with an index", "torch_file", (".pt", ".pth", ".bin"), "torch", True),
        Format("paddle", "paddle.save", "paddle", (".pdparams", ".pdopt", ".pdtensor")),
        Format("pickle", "pickle of Python, also of joblib", "pickled", (".pkl", ".pickle", ".joblib")),
        Format("skops", "skops, of scikit-learn", "skops", (".skops",)),
        Format("torch-dcp", "directory of torch.distributed.checkpoint", "torch_dcp", (), "torch", True, True),
        Format("deepspeed", "DeepSpeed: ZeRO 1 to 3, universal", "deepspeed", folder=True),
        Format("npz", "NumPy .npz", "npz", (".npz",), None, True),
        Format("npy", "NumPy .npy, also several in a row (Equinox)", "npy", (".npy", ".eqx")),
        Format("flax", "flax msgpack", "flax", (".msgpack",), None, True),
        Format("orbax", "directory of Orbax", "orbax", (), "orbax", True, True),
        Format("tar", "tar archive with a checkpoint, also NeMo's", "tar", (".tar", ".nemo")),
        Format("compressed", "any of these, compressed", "compressed", (".gz", ".tgz", ".zst", ".xz", ".bz2", ".lz4")),
        Format("keras", "Keras model, or weights in shards", "keras", (".keras", ".weights.json"), "hdf5"),
        Format("hdf5", "HDF5, also Keras .weights.h5", "hdf5", (".h5", ".hdf5"), "hdf5", True),
        Format("gguf", "GGUF", "gguf", (".gguf",), "gguf", True, template=True, options=("dequantize",)),
        Format("tensorflow", "TensorFlow checkpoint or SavedModel", "tensorflow", (".index",), "tensorflow"),
        Format("onnx", "ONNX, also with external data", "onnx", (".onnx",), template=True),
        Format("tflite", "TensorFlow Lite (LiteRT)", "tflite", (".tflite",), template=True),
        Format("coreml", "Core ML, a model or a package of one", "coreml", (".mlmodel", ".mlpackage"), template=True),
        Format("diffusers", "folder of a diffusers pipeline", "diffusers", folder=True),
        Format("zarr", "Zarr 2 or 3 group in a directory", "zarr", (".zarr",), "zarr", True, True),
    ]
}


class Reader(Protocol):
    """A module of a format."""

    def looks_like(self, probe: Probe) -> bool: ...

    def read(self, path: str, **options: Any) -> OpenedSource: ...


class Writer(Reader, Protocol):
    """A module of a format that can be written."""

    HOLDS: Holds

    def write(self, path: str, tree: Tree, metadata: Tree, advance: Advance) -> None: ...

    def follow(self, source: OpenedSource, template: OpenedSource) -> OpenedSource: ...


class ShardsWriter(Writer, Protocol):
    """A module of a format that can be written as several files."""

    def write_shards(self, staging: Staging, tree: Tree, metadata: Tree, advance: Advance) -> str: ...


def reader_of(format: Format) -> Reader:
    module: Reader = import_module(f".formats.{format.module}", __package__)
    return module


def writer_of(format: Format) -> Writer:
    module: Writer = import_module(f".formats.{format.module}", __package__)
    return module


def shards_writer_of(format: Format) -> ShardsWriter:
    module: ShardsWriter = import_module(f".formats.{format.module}", __package__)
    return module


def shards_at(path: str, format: Format, size: int | str | None) -> Shards | None:
    """The several files that a target means, each with tensors of `size` bytes at most; None where it is one file.
    Raises `bad-option`."""
    if type(path) is not str:  # what stands for an open file
        if size is not None:
            raise fault("bad-option", "max_shard_size= is for files at paths", path=path, found="an open file")
        return None
    if format.shards:
        return Shards.at(path, format.suffixes[0], size)
    if size is not None or path.endswith(INDEX):
        names = ", ".join(other.name for other in FORMATS.values() if other.shards)
        message = f"{format.name} is not written as several files with an index, as {names} is"
        raise fault("bad-option", message, path=path, expected=f"target_format={names!r}")
    return None


def title_of(source: OpenedSource) -> str:
    """What a source is, in words: an archive or a compressed file with what lies in it."""
    title = FORMATS[source.place.format].title
    return title if source.inner is None else f"{title}: {FORMATS[source.inner].title}"


def has_tags(name: str) -> bool:
    """Whether a source of that format says what its plain values and tensors were, as far as it knows."""
    format = FORMATS[name]
    return name == OWN or not format.writable or bool(writer_of(format).HOLDS.tags)


def format_named(name: str) -> Format:
    """The format of that name; raises `unknown-format`."""
    if name not in FORMATS:
        raise fault("unknown-format", f"there is no format {name!r}", found=name, expected=" or ".join(FORMATS))
    return FORMATS[name]


def target_format(path: str, name: str | None, template: str | None = None) -> Format:
    """The format to write at a path: the one named, else the one of its suffix, else that of the `template`, a copy of
    which it is to be, else this format itself."""
    format = format_named(name) if name is not None else _by_suffix(path)
    if template is not None:
        if name is None and format.name == OWN and not path.endswith(format.suffixes):
            format = FORMATS[template]
        if format.name != template or not format.template:
            into = ", ".join(other.name for other in FORMATS.values() if other.template)
            message = f"a target of {format.name} is no copy of a template of {template}"
            raise fault("bad-option", message, path=path, expected=f"both of one of {into}")
    elif not format.writable:
        written = ", ".join(format.name for format in FORMATS.values() if format.writable)
        hint = "; template= names a model whose tensors are replaced" if format.template else ""
        raise fault("unknown-format", f"{format.name} can be read only, {written} also written{hint}", path=path)
    return format


def has_option(format: Format, option: str, path: str) -> None:
    """Refuse an option of reading or writing that a format does not have; raises `bad-option`."""
    if option not in format.options:
        having = " or ".join(name for name, other in FORMATS.items() if option in other.options)
        message = f"{option}= can be said of {having} only, and not of {format.name}"
        raise fault("bad-option", message, path=path, found=format.name, expected=having, advice=f"Leave out {option}=")


def on_disks(format: Format, path: str) -> None:
    """Refuse a URL of another format; raises `bad-option`."""
    if format.name != OWN and is_url(path):
        message = f"{format.name} is read and written on disks alone; only checkpoints of this format lie on stores"
        raise fault("bad-option", message, path=path, found="a URL", expected="a path")


def _by_suffix(path: str) -> Format:
    name = os.path.basename(os.path.normpath(path)).lower().removesuffix(INDEX)
    fits = (format for format in FORMATS.values() if name.endswith(format.suffixes or ("\0",)))
    return next(fits, FORMATS[OWN])
