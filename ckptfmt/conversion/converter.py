"""`convert`: open the source, make it fit, write, compare, publish."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

import numpy as np

from .._version import __version__
from ..brief import Brief
from ..calls import takes
from ..errors import CkptError, fault, os_fault
from ..format.digests import DIGEST, digest_named
from ..format.dtypes import dtype_of
from ..format.manifest import BLOCK, OF_RUN
from ..format.names import Path, path_label
from ..format.tree import Tree
from ..frameworks.target import rebuild
from ..patterns import Patterns
from ..progress import Progress
from ..reading.checkpoint import StoredCheckpoint
from ..storage import Storage, options_at, path_of, place_of
from ..storage.attempt import LocalAttempt
from ..storage.held import HeldPlace
from ..threads import Pool
from ..writing.encoder import encode
from ..writing.writer import save
from . import table
from .checked import with_arrays
from .equality import ABSENT, Pair, lies_plain, same_leaf, same_plain, unlike
from .fit import Fitted, Holds, fit, with_more
from .fit import nest as nested
from .formats import own
from .losses import AllowLoss, allowed_kinds, refusal
from .opening import open_source
from .options import OwnOptions
from .probe import Probe
from .selection import reduce
from .sharding import Shards, staged
from .shards import STATE_DICT
from .source import (
    EXPANSION,
    PROVENANCE,
    Advance,
    DigestedPart,
    Loss,
    OpenedSource,
    Ours,
    Rows,
    is_tensor,
    mapped_arrays,
    nbytes,
    said,
    walk,
)
from .table import OWN, Format, Writer
from .template import ModelTemplate, format_of

if TYPE_CHECKING:
    from ..reading.bases import PatchBase
    from ..storage import Place

THREADS = 2  # that compare
UNBOUNDED = 1 << 62  # times: what was written here is as large as it was asked to be


@dataclass(frozen=True, slots=True, repr=False)
class ConvertReport(Brief):
    """What `convert` did: number of `tensors` (aliases counted at each place) and their `bytes` in memory, what was
    lost, and whether every tensor was read back and compared. `target` is what is to be read, as the index of several
    files. `source` is what was read, and `source_format` the format of it, or of what lies in an archive or a
    compressed file; of a folder, `passed_over` are the names of what else lies in it: other weights and the state of a
    run, then configurations, tokenizers and all the rest, but for hidden files."""

    source: str
    target: str
    source_format: str
    target_format: str
    tensors: int
    bytes: int
    losses: tuple[Loss, ...]
    verified: bool
    passed_over: tuple[str, ...] = ()


@takes(OwnOptions)
def convert(
    source: Place,
    target: Place,
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    select: Patterns = None,
    root: str | None = None,
    nest: bool = False,
    allow_loss: AllowLoss = False,
    overwrite: bool = False,
    durable: bool = True,
    verify: bool = True,
    max_expansion: int = EXPANSION,
    max_shard_size: int | str | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    dequantize: str | None = None,
    base: PatchBase = None,
    template: str | os.PathLike[str] | None = None,
    **options: Unpack[OwnOptions],
) -> ConvertReport:
    """Convert a checkpoint at `source` into another format at `target`, tensor by tensor, with bounded memory.

    `source_format`, `target_format`: names of `conversion.FORMATS`; by default what the source looks like, and the
    suffix of the target. Of a folder that is no checkpoint itself, the only checkpoint in it is read. `select`: globs
    over path texts, of what is converted. `root`: the path text of what becomes the whole ("model", or what flat names
    begin with). `nest`: make dicts of flat names, which are split at ".". `allow_loss`: write although something cannot
    be kept, of any kind (True) or of those named (`conversion.KINDS`); the report says what. `overwrite`, `durable`: as
    in `ckptfmt.save`. `verify`: read every tensor back and compare it bit by bit with the source; for other formats
    than this before anything is at `target`. `max_expansion`: how many times larger than the source its tensors may be,
    as a few bytes can stand for any number of zeros. `max_shard_size`: the most bytes of tensors in one file (5000,
    "5GB", "512MiB") of a safetensors target that may be several with an index, as `save_pretrained` writes them: a
    folder, or an index (`model.safetensors.index.json`), for which it is "5GB" if it is not given, or a file. `source`
    may be bytes, and both may be open binary files: of what is no file but a folder, none. `dequantize`: "float16",
    "bfloat16" or "float32", which the elements of quantised blocks of GGUF become, rounded from float32; else the
    blocks stay. `template`: a model of a format that holds more than tensors. Of ONNX, TensorFlow Lite and Core ML the
    target becomes a copy of it, with these tensors in place of those of the same name, dtype and shape (a folder, where
    it has several files); one of GGUF gets its names, order, shapes, types and metadata. `progress(done, total)` is
    told bytes of tensors, written and compared. Checkpoints of this format may be at URLs, with `storage_options` as in
    `ckptfmt.save`, and are read with `follow_links`, and through the `base` of a patch, as in `ckptfmt.open`. All other
    options (layout, compression, schema, digest, metadata …) are those of `ckptfmt.save`: `metadata` and `extra` are
    added to those of the source key by key, `schema` takes the place of its own.

    Raises `lossy`, `no-match`, `no-such-path`, `unknown-format`, `ambiguous-source`, `missing-package`, `bad-source`,
    `unsafe-source`, `unsupported-source`, `name-collision`, `limit-exceeded`, `not-equal`, and what `ckptfmt.open` and
    `ckptfmt.save` raise; and what `progress` raises, as it is.
    """
    here, there, allowed = place_of(source), place_of(target), allowed_kinds(allow_loss)
    save_options: dict[str, Any] = dict(options)
    model = None if template is None else path_of(template)
    format = table.target_format(there, target_format, None if model is None else format_of(model))
    table.on_disks(format, there)
    shards = table.shards_at(there, format, max_shard_size)
    if format.name != OWN and save_options:
        raise fault("bad-option", f"{', '.join(save_options)} can be said of a checkpoint only", path=there)
    reading: Any = {"max_expansion": max_expansion, "storage_options": storage_options, "follow_links": follow_links}
    reading |= {"dequantize": dequantize, "base": base}
    with ExitStack() as stack:
        counter = stack.enter_context(_Counter(progress))
        opened = stack.enter_context(open_source(here, source_format, **reading))
        writer: Writer | ModelTemplate | None = None if format.name == OWN else table.writer_of(format)
        if model is not None and not format.writable:
            writer = ModelTemplate(model, format.name, stack, max_expansion=max_expansion)
        _take(opened, writer, select, root, nest)
        if model is not None and format.writable:
            _follow(opened, format, model)
        made = _made(opened, format, writer, save_options.pop("metadata", None), allowed, has_names=not nest)
        counter.total = made.bytes * (1 + verify)
        writing: Any = {"overwrite": overwrite, "durable": durable, "verify": verify}
        if writer is None:
            writing |= {"storage_options": options_at(there, storage_options), **save_options}
            _save(there, opened, made, counter, **writing)
        else:
            there = _write(there, format, writer, shards, made, counter, **writing)
    return _report(opened, there, format, made, verify)


def _report(source: OpenedSource, target: str, format: Format, made: _Made, verified: bool) -> ConvertReport:
    names = (source.place.path, target, source.format, format.name)
    return ConvertReport(*names, made.tensors, made.bytes, made.losses, verified, source.place.passed_over)


def _take(
    source: OpenedSource, writer: Writer | ModelTemplate | None, select: Patterns, root: str | None, nest: bool
) -> None:
    """Leave of an open source what is asked for, in containers and arrays as the target takes them: without a writer
    one of this format."""
    if select is not None or root is not None:
        has_lists = writer is None or list in writer.HOLDS.containers
        reduce(source, select, root, source.place.path, has_lists=has_lists)
        if writer is not None:
            source.metadata = _of_part(source.metadata, writer.HOLDS)
    if nest:
        with _naming(source, "Rename one, or leave out nest="):
            source.tree, source.mapped = nested(source.tree, "."), None
    if writer is not None and writer.HOLDS.arrays and source.mapped is not None:
        source.tree = source.mapped()
    source.tree = with_arrays(source.tree)


def _of_part(metadata: Tree, holds: Holds) -> Tree:
    """Metadata for a part of a source: what a manager says of a step is kept only where a format can hold it."""
    if not isinstance(metadata, dict) or OF_RUN not in metadata:
        return metadata
    if not holds.metadata({OF_RUN: metadata[OF_RUN]}, {}).lost:
        return metadata
    return {key: value for key, value in metadata.items() if key != OF_RUN} or None


def _follow(source: OpenedSource, format: Format, template: str) -> None:
    """Give an open source the form of a template."""
    found = source.resources.enter_context(open_source(template, format.name))
    followed = table.writer_of(format).follow(source, found)
    source.tree, source.metadata, source.losses = followed.tree, followed.metadata, followed.losses
    source.mapped = None


class _Made(NamedTuple):
    """What a target gets: a tree and metadata that it can hold, and what of a checkpoint comes along beside them. Of
    the whole conversion the `losses`, and the number of `tensors` and their `bytes`."""

    tree: Tree
    metadata: Tree
    ours: Ours | None
    losses: tuple[Loss, ...]
    tensors: int
    bytes: int


def _made(
    source: OpenedSource,
    format: Format,
    writer: Writer | ModelTemplate | None,
    metadata: Tree,
    allowed: frozenset[str],
    *,
    has_names: bool,
) -> _Made:
    """What a target gets of a source, with more `metadata`; unless it `has_names` as in the source, without its schema
    and tags. Raises `lossy`."""
    if writer is None:
        kept = with_more(source.metadata, metadata)
        fitted = Fitted(source.tree, kept.value, tuple(Loss("metadata", "", message) for message in kept.lost))
        ours, left = (source.ours, None) if has_names or source.ours is None else source.ours.without_names()
        of_weights = False
    else:
        holds = writer.HOLDS
        with _naming(source, "Rename it, take a part (root=, select=), or choose another target"):
            fitted = fit(source.tree, source.metadata, holds)
            fitted = writer.filled(fitted) if isinstance(writer, ModelTemplate) else fitted
        ours, left = None, source.ours
        if source.ours is not None and has_names:
            ours, left = source.ours.divided(holds.tags, has_schema=holds.schema is not None)
            ours = ours.moved(fitted.place)
        of_weights = STATE_DICT not in holds.tags
    beside = () if left is None else left.losses(of_weights=of_weights)
    writing = (*_overlaps(source.tree), *fitted.losses, *beside)
    losses = (*source.losses, *writing)
    if any(loss.kind not in allowed for loss in losses):
        raise refusal(source.losses, writing, allowed, source.place.path, format.name)
    tensors = [leaf for _, leaf in walk(fitted.tree) if is_tensor(leaf)]
    return _Made(fitted.tree, fitted.metadata, ours, losses, len(tensors), sum(map(nbytes, tensors)))


@contextmanager
def _naming(source: OpenedSource, advice: str) -> Iterator[None]:
    """What is said where names of a source cannot be those of the target."""
    try:
        yield
    except CkptError as error:
        error.path = error.path or source.place.path
        if error.code in ("name-collision", "unsupported-key"):
            error.advice = advice
        raise


def _save(target: str, source: OpenedSource, made: _Made, counter: _Counter, *, verify: bool, **options: Any) -> None:
    """A checkpoint of this format, which is compared before it is committed."""
    arrays = made.tree if source.mapped is None else source.mapped()
    rows = Rows(digest_named(options.get("digest", DIGEST)), BLOCK) if verify else Rows()
    sources = rebuild(arrays, lambda _, leaf: rows.source(leaf))
    ours = made.ours
    further = {} if ours is None else ours.further
    options["extra"] = {**further, **_lineage(source, further), **(options.get("extra") or {})}
    if ours is not None:
        sources = ours.tagged(sources)
        if options.get("schema") is not None:  # that of the caller counts
            ours = ours._replace(schema=None)
        else:
            options["schema"] = ours.schema

    def check(storage: Storage) -> None:
        written = own.source_of(StoredCheckpoint.within(storage))
        compare(written, target, made.tree, counter.add, rows.seen, ours)

    options |= {"progress": counter.within(made.bytes), "check": check if verify else None}
    save(target, sources, metadata=made.metadata, **options)


def _lineage(source: OpenedSource, further: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of what is converted: that of its source, with one more record. [LIN-001]"""
    before = further.get(PROVENANCE)
    record = {
        "operation": "convert",
        "generator": f"ckptfmt {__version__}",
        "format": source.format,
        "source": source.manifest_sha256,
    }
    return {PROVENANCE: [*(before if isinstance(before, list) else ()), record]}


def _write(
    target: str,
    format: Format,
    writer: Writer | ModelTemplate,
    shards: Shards | None,
    made: _Made,
    counter: _Counter,
    *,
    overwrite: bool,
    durable: bool,
    verify: bool,
) -> str:
    """A file or folder of another format, or several files, which are compared before they take their names; gives the
    path of what is to be read."""
    with _writing(target, format), ExitStack() as stack:
        folder, metadata = _folder_of(target), made.metadata
        tree = mapped_arrays(made.tree, folder) if writer.HOLDS.arrays else made.tree
        if made.ours is not None:
            tree = made.ours.tagged(tree, writer.HOLDS.tags)
            if made.ours.schema is not None and writer.HOLDS.schema is not None:
                metadata = writer.HOLDS.schema(metadata, made.ours.schema)
        place = target
        if shards is None:
            path = stack.enter_context(_published(target, format, writer, overwrite, durable))
            writer.write(path, tree, metadata, counter.add)
            path = writer.main(path) if isinstance(writer, ModelTemplate) else path
        else:
            staging = stack.enter_context(staged(shards, target, overwrite, durable))
            name = table.shards_writer_of(format).write_shards(staging, tree, metadata, counter.add)
            path, place = os.path.join(staging.folder, name), os.path.join(shards.folder, name)
        if verify:
            with open_source(path, format.name, max_expansion=UNBOUNDED) as written:
                compare(written, target, made.tree, counter.add, ours=made.ours, metadata=made.metadata or None)
    return place


def _folder_of(target: str) -> str:
    """Where temporary files go that are as large as a target."""
    return tempfile.gettempdir() if isinstance(target, HeldPlace) else os.path.dirname(os.path.abspath(target))


def _overlaps(tree: Tree) -> list[Loss]:
    """Tensors that share memory in another way than as aliases: they become copies everywhere. [TREE-011]"""

    def array(_: Path, leaf: Any) -> Any:
        return leaf if isinstance(leaf, np.ndarray) and dtype_of(leaf.dtype) is not None else None

    groups = encode(rebuild(tree, array)).copied_views
    return [
        Loss("alias", group[0], f"shares memory with {', '.join(group[1:4])}; all become copies") for group in groups
    ]


class _Counter:
    """Counts bytes, from any thread, and tells the caller. What the caller's `progress` raises leaves the block as it
    is, whatever was made of it on its way."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.total, self.done = progress, 0, 0
        self._counting = threading.Lock()
        self._raised: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._raised is not None and error is not self._raised:
            raise self._raised

    def add(self, count: int) -> None:
        with self._counting:
            self.done += count
            if self.progress is not None:
                try:
                    self.progress(self.done, self.total)
                except BaseException as error:
                    self._raised = error
                    raise

    def within(self, share: int) -> Progress:
        """What a part of the work, which counts bytes of its own, tells of its progress: it is `share` bytes here."""
        begin = self.done

        def progress(done: int, total: int) -> None:
            self.add(begin + (share * done // total if total else share) - self.done)

        return progress


@contextmanager
def _writing(target: str, format: Format) -> Iterator[None]:
    """Whatever goes wrong in a library that writes is told as what it is for the caller: an error with a code."""
    try:
        yield
    except CkptError:
        raise
    except OSError as error:
        raise os_fault(error, "cannot write the target", target) from error
    except MemoryError as error:
        raise fault("limit-exceeded", "writing it takes more memory than there is", path=target) from error
    except Exception as error:
        message = f"{format.title} could not be written: {type(error).__name__}: {said(error)}"
        raise fault("unsupported-leaf", message, path=target) from error


@contextmanager
def _published(
    target: str, format: Format, writer: Writer | ModelTemplate, overwrite: bool, durable: bool
) -> Iterator[str]:
    """The path of an empty temporary file or folder that takes the place of the target at the end, as checkpoints do,
    or goes into the open file that the target is. A folder takes that of one of its own format, too, or of another copy
    of the same template."""
    is_folder = writer.is_folder if isinstance(writer, ModelTemplate) else format.folder
    may_replace = writer.is_copy if isinstance(writer, ModelTemplate) else partial(_is_one, format)
    if isinstance(target, HeldPlace):
        if is_folder:
            raise fault("bad-option", f"{format.title} is no file, and an open file holds nothing else", path=target)
        with target.filled(durable=durable) as place:
            yield place
        return
    options: Any = {"directory": is_folder, "overwrite": overwrite, "durable": durable}
    attempt = LocalAttempt(target, may_replace=may_replace, **options)
    try:
        if is_folder:
            attempt.make_folder()
            yield attempt.temporary
            attempt.adopt()
        else:
            file = attempt.create("")
            yield attempt.temporary
            file.finish(os.path.getsize(attempt.temporary))
        attempt.publish()
    except BaseException as error:
        told = attempt.fault(error, "cannot write the target") if isinstance(error, OSError | CkptError) else error
        attempt.abort()
        if isinstance(told, CkptError) and told.path == attempt.temporary:
            told.path = target
        if told is error:
            raise
        raise told from error


def _is_one(format: Format, folder: str) -> bool:
    """Whether a folder looks like one of a format."""
    try:
        return table.reader_of(format).looks_like(Probe.of(folder))
    except (CkptError, OSError):
        return False


def compare(
    written: OpenedSource,
    target: str,
    expected: Tree,
    advance: Advance,
    seen: Mapping[int, DigestedPart] = MappingProxyType({}),
    ours: Ours | None = None,
    metadata: Tree = None,
) -> None:
    """Read what was written, which is to be at `target`, and compare every leaf and container, tags, a schema and
    metadata with what was to be written; raises `not-equal`. What was `seen` when it was written, by the identity of
    its array, is known by the digests of then, and not read again."""
    pairs = list(unlike(written.tree, expected))
    odd = [pair.path for pair in pairs if pair.one is ABSENT or pair.other is ABSENT]
    if metadata is not None and not same_plain(written.metadata, metadata):
        odd.append(())
    if ours is not None:
        found = written.ours or Ours(None, {}, {})
        odd += [()] if ours.schema not in (None, found.schema) else []
        odd += [place for place in ours.tags if list(ours.tags[place]) != list(found.tags.get(place, ()))]
    if not odd:
        odd = list(_different(pairs, advance, seen))
    if odd:
        text = path_label(odd[0])
        message = f"{len(odd)} leaves or containers differ from the source, {text!r} first"
        raise fault("not-equal", message, path=target, tensor=text)


def _different(pairs: list[Pair], advance: Advance, seen: Mapping[int, DigestedPart]) -> Iterator[Path]:
    """The paths of leaves that are not the same. What lies on a disk as it is in memory is compared by several threads;
    what must be decoded one after another, as that takes memory."""

    def same(pair: Pair) -> bool:
        return same_leaf(pair.one, pair.other, advance, seen.get(id(pair.other)))

    direct = [pair for pair in pairs if lies_plain(pair.one) and lies_plain(pair.other)]
    with Pool(THREADS, "ckptfmt-compare") as pool:
        known = {pair.path: found for pair, found in zip(direct, pool.map(same, direct), strict=True)}
    for pair in pairs:
        if not (known[pair.path] if pair.path in known else same(pair)):
            yield pair.path
