"""Opening what is at a path, as the format that it has: told by its first bytes, never by its name."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import CkptError, fault
from ..layouts import foreign
from ..storage import is_url
from ..storage.held import HeldPlace
from . import folders
from .claims import allowing
from .entries import folder_size
from .formats import own
from .gate import admit
from .ggml import FLOATS
from .probe import CheckpointPlace, Probe
from .shards import numbered
from .source import EXPANSION, OpenedSource, parsing
from .table import FORMATS, OWN, Format, format_named, has_option, on_disks, reader_of

if TYPE_CHECKING:
    from ..reading.bases import PatchBase

# codes of a path that leads to no one checkpoint: also of what is not known, and of a folder of several
NO_CHECKPOINT = ("not-a-checkpoint", "unknown-format", "ambiguous-source")


def place_of(path: str, name: str | None = None) -> CheckpointPlace:
    """The checkpoint at a path, or the one in the folder there: of any format, or of the one named. Raises
    `unknown-format`, `ambiguous-source`, `not-found`, and what reading its first bytes can show."""
    asked = None if name is None else format_named(name)
    path = folders.completed(path)

    def format_of(place: str) -> str:
        return _format_of(Probe.of(place), [asked] if asked else list(FORMATS.values())).name

    if asked is not None and (asked.folder or not os.path.isdir(path)):
        return CheckpointPlace(path, asked.name)  # whatever it looks like
    if not os.path.isdir(path):
        return CheckpointPlace(path, format_of(path))
    with parsing(path):
        return folders.place_in(path, format_of)


def place_for(path: str, *, recursive: bool) -> CheckpointPlace:
    """The one checkpoint, of any format, at a path. In a folder that is the model in several files, as Hugging Face has
    them, or what lies in the folders below; other files there are checkpoints of their own: then `not-a-checkpoint`.
    Raises what finding it raises."""
    place = place_of(path)
    if place.path == path or not os.path.isdir(path):
        return place
    is_here = os.path.dirname(place.path) == path.rstrip("/")
    is_several = place.path.endswith(folders.INDEX) or numbered(place.path) is not None
    has_ours = any(name.endswith(FORMATS[OWN].suffixes) for name in place.passed_over)
    if place.format == OWN or (recursive and not is_here) or (is_here and (not is_several or has_ours)):
        raise fault("not-a-checkpoint", "this is a folder, and no checkpoint itself", path=path)
    return place


def _format_of(probe: Probe, formats: list[Format]) -> Format:
    """The format of what is at a path, by its bytes; raises `unknown-format`."""
    try:
        with parsing(probe.path):
            for format in formats:
                if reader_of(format).looks_like(probe):
                    return format
    except CkptError as error:
        if (told := _told(error, probe)) is error:  # which cannot be its own cause
            raise
        raise told from error
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


def open_source(
    path: str,
    name: str | None = None,
    *,
    max_expansion: int = EXPANSION,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    dequantize: str | None = None,
    base: PatchBase = None,
) -> OpenedSource:
    """Open what is at a path as the format named, or the one that it looks like, or the checkpoint of this format at a
    URL, with `storage_options`, or what bytes or an open file hold (`storage.place_of`); in a folder that is no
    checkpoint itself, the only one that lies in it. Its tensors may have `max_expansion` times the bytes of the source,
    and 64 MiB in any case. `follow_links` and `base`: as in `ckptfmt.open`, of checkpoints of this format.
    `dequantize`: the dtype that elements of quantised blocks get, of GGUF.

    Raises `bad-option` for other formats at a URL and options that a format does not have, `not-found`,
    `unknown-format`, `ambiguous-source`, `missing-package`, `bad-source`, `unsafe-source`, `unsupported-source`,
    `limit-exceeded`, `too-deep`, and for checkpoints what `ckptfmt.open` raises.
    """
    if isinstance(path, HeldPlace):
        return _of_held(path, name, max_expansion=max_expansion, dequantize=dequantize, base=base)
    if is_url(path):
        place = CheckpointPlace(path, format_named(name or OWN).name)
        on_disks(FORMATS[place.format], path)
        read = partial(own.on_store, path, storage_options, base)
    else:
        place = place_of(path, name)
        of_own = {"follow_links": follow_links, "base": base}
        read = partial(_on_disk, place, of_own, {} if dequantize is None else {"dequantize": dequantize})
    if dequantize is not None:
        _check_dtype(dequantize)
        has_option(FORMATS[place.format], "dequantize", place.path)
    with parsing(place.path), allowing(max_expansion):
        source, size = read()
        try:
            admit(source, size, place.path, max_expansion)
        except BaseException:
            source.resources.close()
            raise
    source.place = place._replace(passed_over=place.passed_over or source.place.passed_over)
    return source


def open_inner(path: str, formats: Collection[str] = ()) -> OpenedSource:
    """Open what lies within a source that is being opened, as one of some formats, or of all: with what is wrong with
    it, and not yet through the gate."""
    if formats:
        asked = [format for name, format in FORMATS.items() if name in formats]
        place = CheckpointPlace(path, _format_of(Probe.of(path), asked).name)
    else:
        place = place_of(path)
    source, _ = _on_disk(place, {}, {})
    source.inner, source.place, source.size = source.inner or place.format, place, None
    return source


def _of_held(held: HeldPlace, name: str | None, **options: Any) -> OpenedSource:
    """What bytes or an open file hold, which are put into a temporary file, as that of a source is mapped."""
    with ExitStack() as stack:
        path = stack.enter_context(held.at_path())
        try:
            source = open_source(path, name, **options)
        except CkptError as error:
            error.path = held if error.path == path else error.path
            raise
        source.place = source.place._replace(path=held)
        stack.push(source.resources)
        source.resources = stack.pop_all()
    return source


def dequantizes(path: str, name: str | None = None) -> bool:
    """Whether what is at a path may have quantised blocks, which `dequantize` is said of."""
    return (
        not isinstance(path, HeldPlace)
        and not is_url(path)
        and "dequantize" in FORMATS[place_of(path, name).format].options
    )


def _check_dtype(dtype: str) -> None:
    if dtype not in FLOATS:
        raise fault("bad-option", f"dequantize={dtype!r} is no dtype for it", found=dtype, expected=" or ".join(FLOATS))


def _on_disk(place: CheckpointPlace, of_own: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[OpenedSource, int]:
    """A source on this machine, and its bytes; options for checkpoints of this format, and for those of others."""
    probe = Probe.of(place.path)  # which also refuses what is no file, before a library waits for it
    try:
        with parsing(place.path):
            if place.format == OWN:
                source = own.read(place.path, **of_own)
            else:
                source = reader_of(FORMATS[place.format]).read(place.path, **options)
    except CkptError as error:
        if (told := _misnamed(error, place, probe) or _told(error, probe)) is error:
            raise
        raise told from error
    if source.size is not None:
        return source, source.size
    return source, folder_size(place.path) if probe.is_directory else probe.size
