"""Which tensor of the base each tensor of another checkpoint may be made of: one of the same bytes, which digests say,
or else the one at its path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from ..format.arrays import SAME, WHOLE, ArraySpec
from ..format.digests import DIGEST, digest_named
from ..format.dtypes import bytes_of
from ..frameworks.overflows import Tally
from ..reading.checkpoint import StoredCheckpoint
from ..reading.supply import Reads
from ..reading.view import CheckpointView
from .runs import RUN, cells_of, in_pieces, runs_of


class Match(NamedTuple):
    """A tensor of the base, by its number there; whether digests say that it has the same bytes."""

    source: int
    is_same: bool = False


def matches(base: CheckpointView[Any], new: StoredCheckpoint) -> dict[int, Match]:
    """By the numbers of the tensors of `new`; of those that are like none of the base there is nothing."""
    stored, found = base.stored, _by_digest(base.stored, new)
    specs, others = new.manifest.specs, stored.manifest.specs
    at_paths = _by_path(base)
    for number in range(len(specs)):
        source = at_paths.get(new.path_of(number))
        if number not in found and source is not None and _are_alike(specs[number], others[source]):
            found[number] = Match(source)
    taken = {match.source for match in found.values()}
    left = [number for number in range(len(specs)) if number not in found]
    return found | _by_content(stored, set(range(len(others))) - taken, new, left)


def _are_alike(one: ArraySpec, other: ArraySpec) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape)


def _by_path(base: CheckpointView[Any]) -> dict[Any, int]:
    """The stored tensors of the base by the paths at which they are seen."""
    supply = base.supply(Reads(base.stored.fetcher, True, Tally()))
    origins = ((path, supply.origin(tensor)) for path, tensor in base.tensors.items())
    return {path: tensor.index for path, tensor in origins if tensor is not None}


def _by_digest(base: StoredCheckpoint, new: StoredCheckpoint) -> dict[int, Match]:
    """Those that are stored alike, wherever they stand: a name that changed costs nothing."""
    sources: dict[Hashable, int] = {}
    for number in range(len(base.manifest.specs)):
        if (key := stored_key(base, number)) is not None:
            sources.setdefault(key, number)
    keys = ((number, stored_key(new, number)) for number in range(len(new.manifest.specs)))
    return {number: Match(sources[key], True) for number, key in keys if key is not None and key in sources}


def stored_key(checkpoint: StoredCheckpoint, number: int) -> Hashable:
    """Equal for tensors of the same bytes that are stored alike; None for one that is stored as a difference."""
    found = whole_one(checkpoint, number)
    if found is None:
        return None
    holder, tensor = found
    manifest, place = holder.manifest, holder.blocks.place
    spec = manifest.specs[tensor]
    extents = (place(tensor, chunk).extent for chunk in range(spec.chunks))
    digests = b"".join(extent.digests for extent in extents)
    return manifest.digest, manifest.block, spec, digests


def whole_one(checkpoint: StoredCheckpoint, number: int) -> tuple[StoredCheckpoint, int] | None:
    """Where the bytes of a tensor are stored whole, and its number there; None if they are not."""
    while (spec := checkpoint.manifest.specs[number]).form == SAME:
        if checkpoint.base is None or checkpoint.manifest.patch is None:
            return None
        number, checkpoint = int(checkpoint.manifest.patch.sources[number]), checkpoint.base
    return (checkpoint, number) if spec.form == WHOLE else None


def _by_content(
    base: StoredCheckpoint, sources: Iterable[int], new: StoredCheckpoint, numbers: list[int]
) -> dict[int, Match]:
    """Those with another name that are stored in another way: compressed, or with other digests. Only where a tensor of
    that dtype and shape has gone is anything read."""
    gone: dict[Hashable, list[int]] = defaultdict(list)
    for source in sources:
        spec = base.manifest.specs[source]
        gone[spec.dtype.name, spec.shape].append(source)
    contents: dict[Hashable, dict[bytes, int]] = {}
    found = {}
    for number in numbers:
        spec = new.manifest.specs[number]
        kind = spec.dtype.name, spec.shape
        if kind not in gone:
            continue
        if kind not in contents:
            contents[kind] = {_content(base, source): source for source in reversed(gone[kind])}
        source = contents[kind].get(_content(new, number), -1)
        if source >= 0:
            found[number] = Match(source)
    return found


def _content(checkpoint: StoredCheckpoint, number: int) -> bytes:
    """The digest of all storage elements of a tensor, in C order, which are read and verified."""
    spec, hasher = in_pieces(checkpoint.manifest.specs[number], RUN), digest_named(DIGEST).stream()
    for run in runs_of(spec):
        hasher.update(bytes_of(cells_of(checkpoint.fetcher, number, run.axes)))
    return hasher.digest()
