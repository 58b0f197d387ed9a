"""`diff`: what differs between two checkpoints, of any format that can be converted. Tensors are read in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xxhash

from ..brief import Brief
from ..calls import formerly, takes
from ..format.dtypes import Array, dtype_of
from ..format.names import Path, path_label
from ..frameworks.target import flatten
from ..reading.bases import bases_given
from ..storage import place_of
from .equality import bits, coarser, plain_bits
from .opening import dequantizes, open_source
from .options import SourceOptions
from .source import Loss, OpenedSource, SourceTensor, is_tensor, slabs
from .table import has_tags

if TYPE_CHECKING:
    from ..storage import Place

PARAM = 120  # characters of a tag's param, or of an entry of the metadata, that are shown


@dataclass(frozen=True, slots=True)
class Change:
    """One leaf that stands in both and differs. `kind`: "type" (a tensor against a plain value, or plain values of two
    types), "shape", "dtype", "values" (of tensors) or "value" (plain), and between checkpoints of this format "tag" and
    "schema" (at the empty path). What of the metadata stands in one alone is "added" or "removed". `before` and `after`
    are types, shapes, dtypes or plain values as text; None for "values", and where there is nothing.

    For tensors of one shape, also of two dtypes: how many of the `elements` are `different` in value or in bits, and
    how many of these are `nan` on either side. Of the others, the greatest absolute difference, and the greatest one
    relative to the greater of the two magnitudes; 0 where there is none, None for dtypes that are no numbers. `norm` is
    the l2 norm of what was before, and `moved` that of the differences, of elements that are finite on both sides.
    """

    path: str
    kind: str
    before: str | None = None
    after: str | None = None
    elements: int | None = None
    different: int | None = None
    max_difference: float | None = None
    max_relative: float | None = None
    nan: int = 0
    norm: float | None = None
    moved: float | None = None

    @property
    def relative_change(self) -> float | None:
        """`moved` over `norm`: how far all of a tensor has gone, of its size; infinite where that was 0."""
        if self.norm is None or self.moved is None:
            return None
        return self.moved / self.norm if self.norm else math.inf if self.moved else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class DiffReport(Brief):
    """How `target` differs from `source`, by labels of paths. `renamed` tensors are the same, bit by bit, at another
    path; they are not in `added` and `removed`. `metadata` says whether the metadata differ, `metadata_changes` in
    what; `same` counts leaves that do not. `not_compared`: what reading either leaves out, such as objects of classes.
    """

    source: str
    target: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    changed: tuple[Change, ...]
    metadata: bool
    same: int
    metadata_changes: tuple[Change, ...] = ()
    not_compared: tuple[Loss, ...] = ()

    @property
    @formerly("source")
    def a(self) -> str:
        """The former name of `source`."""
        return self.source

    @property
    @formerly("target")
    def b(self) -> str:
        """The former name of `target`."""
        return self.target

    @property
    def equal(self) -> bool:
        """Whether nothing differs of what can be read of both."""
        return not (self.added or self.removed or self.renamed or self.changed or self.metadata)


UNREAD = ("value", "missing", "metadata")  # kinds of losses by which something is not compared
FORMER = {"a": "source", "b": "target", "a_format": "source_format", "b_format": "target_format"}


@takes(SourceOptions, former=FORMER)
def diff(
    source: Place,
    target: Place,
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    **options: Unpack[SourceOptions],
) -> DiffReport:
    """Compare two checkpoints leaf by leaf, by their typed paths. Order and kinds of containers do not count.

    `source_format`, `target_format`: names of `conversion.FORMATS`, by default what they look like. `max_expansion`,
    `storage_options` and `follow_links`: as in `convert`; `dequantize`, of whichever has blocks, and `base`, of
    whichever is a patch, or those of both. Raises what `ckptfmt.conversion.open_source` raises.
    """
    one, other = place_of(source), place_of(target)
    asked = {**options, "base": bases_given(options.get("base")) or None}
    opened = _opening(asked, (one, source_format), (other, target_format))
    with opened(one, source_format) as first, opened(other, target_format) as second:
        before, after = dict(flatten(first.tree)), dict(flatten(second.tree))
        removed = [path for path in before if path not in after]
        added = [path for path in after if path not in before]
        renamed = _renamed({path: before[path] for path in removed}, {path: after[path] for path in added})
        both = [path for path in before if path in after]
        found = [_change(path_label(path), before[path], after[path]) for path in both]
        changed = [change for change in found if change is not None]
        same = len(both) - len(changed)
        changed += _beside(first, second, renamed)
        metadata = tuple(_metadata_changes(dict(flatten(first.metadata)), dict(flatten(second.metadata))))
        return DiffReport(
            one,
            other,
            tuple(path_label(path) for path in added if path not in renamed.values()),
            tuple(path_label(path) for path in removed if path not in renamed),
            tuple((path_label(old), path_label(new)) for old, new in renamed.items()),
            tuple(changed),
            bool(metadata),
            same,
            metadata,
            tuple(dict.fromkeys(loss for loss in (*first.losses, *second.losses) if loss.kind in UNREAD)),
        )


def _opening(options: Any, *places: tuple[str, str | None]) -> Callable[[str, str | None], OpenedSource]:
    """What opens two sources, of which `dequantize` is said of those that may have blocks, if either has."""
    dtype = options.pop("dequantize", None)
    having = [place for place in places if dtype is not None and dequantizes(*place)]

    def opened(path: str, name: str | None) -> OpenedSource:
        is_said = (path, name) in having or not having
        return open_source(path, name, dequantize=dtype if is_said else None, **options)

    return opened


def _metadata_changes(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> Iterator[Change]:
    """What differs in metadata, in the order of the first ones and then the others."""
    for path in dict.fromkeys([*before, *after]):
        label = path_label(path)
        if path not in after:
            yield Change(label, "removed", _text(before[path]), None)
        elif path not in before:
            yield Change(label, "added", None, _text(after[path]))
        else:
            found = _change(label, before[path], after[path])
            if found is not None:
                yield found


def _text(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= PARAM else f"{text[:PARAM]}…"


def _beside(a: OpenedSource, b: OpenedSource, renamed: Mapping[Path, Path]) -> Iterator[Change]:
    """How the schema and the tags of two checkpoints differ, of a path that both have, or one alone; where both formats
    have any."""
    if a.ours is None or b.ours is None:
        return
    first, second = a.ours, b.ours
    if first.schema != second.schema:
        before, after = (" ".join(one.schema) if one.schema else "none" for one in (first, second))
        yield Change("", "schema", before, after)
    there = {renamed.get(path, path): list(tags) for path, tags in first.tags.items()}
    for path in dict.fromkeys([*there, *second.tags]) if has_tags(a.format) and has_tags(b.format) else ():
        before_it, after_it = there.get(path, []), list(second.tags.get(path, ()))
        if before_it != after_it:
            yield Change(path_label(path), "tag", _tags(before_it, after_it), _tags(after_it, before_it))


def _tags(tags: list[tuple[str, Any]], others: list[tuple[str, Any]]) -> str:
    """Tags in words, with their params where others of the same name have another one."""
    known, words = dict(others), []
    for name, param in tags:
        if name in known and known[name] != param:
            other = known[name]
            if isinstance(param, dict) and isinstance(other, dict):
                param = {key: item for key, item in param.items() if key not in other or other[key] != item}
            name = f"{name} {shorten(repr(param), PARAM)}"
        words.append(name)
    return " ".join(words) or "none"


def _renamed(removed: dict[Path, Any], added: dict[Path, Any]) -> dict[Path, Path]:
    """Tensors of `removed` that stand in `added` elsewhere. Only those that have their like are read."""
    likes: dict[Any, list[Path]] = {}
    for path, leaf in added.items():
        if is_tensor(leaf):
            likes.setdefault(_kind(leaf), []).append(path)
    digests: dict[Path, bytes] = {}
    renamed: dict[Path, Path] = {}
    for path, leaf in removed.items():
        candidates = likes.get(_kind(leaf), []) if is_tensor(leaf) else []
        if not candidates:
            continue
        wanted = _digest(leaf)
        for candidate in candidates:
            if candidate not in digests:
                digests[candidate] = _digest(added[candidate])
        match = next((candidate for candidate in candidates if digests[candidate] == wanted), None)
        if match is not None:
            candidates.remove(match)
            renamed[path] = match
    return renamed


def _kind(tensor: SourceTensor) -> Any:
    return tensor.shape, tensor.dtype.newbyteorder("=")


def _digest(tensor: SourceTensor) -> bytes:
    hasher = xxhash.xxh3_128()
    for index in slabs(tensor):
        hasher.update(bits(tensor[index]).data)
    return hasher.digest()


def _change(path: str, before: Any, after: Any) -> Change | None:
    if is_tensor(before) and is_tensor(after):
        if before.shape != after.shape:
            return Change(path, "shape", str(list(before.shape)), str(list(after.shape)))
        return _tensor_change(path, before, after)
    if is_tensor(before) or is_tensor(after) or (type(before) is not type(after) and not _empty_dicts(before, after)):
        return Change(path, "type", _type(before), _type(after))
    return None if plain_bits(before) == plain_bits(after) else Change(path, "value", repr(before), repr(after))


def _empty_dicts(before: Any, after: Any) -> bool:
    """Whether both leaves are dicts, one of which may be ordered."""
    return isinstance(before, dict) and isinstance(after, dict)


def _type(leaf: Any) -> str:
    return f"tensor {leaf.dtype.name} {list(leaf.shape)}" if is_tensor(leaf) else type(leaf).__name__


def _tensor_change(path: str, before: SourceTensor, after: SourceTensor) -> Change | None:
    """Compare two tensors of one shape, part by part."""
    is_cast = _kind(before) != _kind(after)
    numbers = _wide(before.dtype), _wide(after.dtype)
    sums, alike = _Sums(), []
    for index in slabs(coarser(before, after)):
        first, second = before[index], after[index]
        sums.elements += first.size
        if not first.size or (not is_cast and np.array_equal(bits(first), bits(second))):
            alike.append(index)
            continue
        if None in numbers:
            sums.different += int(np.count_nonzero(_unequal(first, second)))
            continue
        x, y = (array.reshape(-1).astype(wide) for array, wide in zip((first, second), numbers, strict=True))
        sums.add(x, y, (x != y) & ~(np.isnan(x) & np.isnan(y)) if is_cast else _unequal(first, second))
    if not is_cast and not sums.different:
        return None
    one, other = (before.dtype.name, after.dtype.name) if is_cast else (None, None)
    found = Change(path, "dtype" if is_cast else "values", one, other, sums.elements, sums.different)
    if None in numbers:
        return found
    for index in alike:  # only now, as most tensors that have any are alike as a whole
        sums.add_norm(before[index].reshape(-1).astype(numbers[0]))
    return replace(found, **sums.measured())


def _unequal(one: Array, other: Array) -> Array:
    """Which elements differ in their bits."""
    found: Array = (bits(one) != bits(other)).reshape(one.size, -1).any(axis=-1)
    return found


@dataclass(slots=True)
class _Sums:
    """What is known of two tensors after some of their parts."""

    elements: int = 0
    different: int = 0
    nan: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    norm: float = 0.0
    moved: float = 0.0

    def measured(self) -> dict[str, Any]:
        """The fields of a `Change` of numbers."""
        figures = {"max_difference": self.absolute, "max_relative": self.relative}
        return {**figures, "nan": self.nan, "norm": self.norm, "moved": self.moved}

    def add(self, x: Array, y: Array, unequal: Array) -> None:
        self.different += int(np.count_nonzero(unequal))
        self.add_norm(x, y)
        x, y = x[unequal], y[unequal]
        nans = np.isnan(x) | np.isnan(y)
        self.nan += int(np.count_nonzero(nans))
        absolute, relative = _distances(x[~nans], y[~nans])
        self.absolute = float(absolute.max(initial=self.absolute))
        self.relative = float(relative.max(initial=self.relative))
        self.moved = math.hypot(self.moved, _norm(absolute[np.isfinite(absolute)]))

    def add_norm(self, x: Array, y: Array | None = None) -> None:
        is_finite = np.isfinite(x) if y is None else np.isfinite(x) & np.isfinite(y)
        self.norm = math.hypot(self.norm, _norm(np.abs(x[is_finite]).astype(np.float64)))


def _norm(sizes: Array) -> float:
    """The l2 norm of magnitudes whose squares may have no place in a float64."""
    greatest = float(sizes.max(initial=0.0))
    if 1e-100 < greatest < 1e100:
        return math.sqrt(float(np.dot(sizes, sizes)))
    return greatest * math.sqrt(float(np.sum((sizes / greatest) ** 2))) if greatest else 0.0


def _distances(x: Array, y: Array) -> tuple[Array, Array]:
    """Absolute and relative distances of unequal numbers; 0 for zeros of different sign."""
    with np.errstate(all="ignore"):
        size = np.maximum(*(np.abs(side.astype(np.result_type(side, np.float64))) for side in (x, y)))
        if x.dtype.kind in "iu" and x.dtype == y.dtype:  # float64 lacks digits
            one, other = x.astype(np.uint64), y.astype(np.uint64)
            distance = np.where(x > y, one - other, other - one).astype(np.float64)
        else:
            distance = np.where(x == y, 0.0, np.abs(x - y))
        return distance, np.where(distance == 0, 0.0, np.where(np.isinf(distance), np.inf, distance / size))


def _wide(dtype: np.dtype[Any]) -> Any:
    """The dtype in which elements are subtracted, or None for what is no number."""
    row = dtype_of(dtype)
    if row is None or row.name in ("int64", "uint64"):
        return None if row is None else row.numpy
    return np.complex128 if row.part is not None else np.float64
