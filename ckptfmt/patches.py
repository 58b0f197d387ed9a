"""The public calls about patches: what is different between two checkpoints, written out, applied, and joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Unpack

from .calls import takes
from .checkpoint import Checkpoint
from .errors import fault
from .format.renaming import Renaming
from .patching.applying import applied
from .patching.making import made
from .patching.options import ApplyOptions, PatchOptions
from .reading.bases import bases_given
from .reading.checkpoint import StoredCheckpoint
from .reading.view import CheckpointView
from .storage import options_at, place_of

if TYPE_CHECKING:
    from .patching.applying import ApplyReport
    from .patching.making import PatchReport
    from .reading.bases import PatchBase
    from .storage import Place


@takes(PatchOptions)
def patch(
    base: Place | Checkpoint,
    new: Place | Checkpoint,
    target: Place,
    *,
    bases: PatchBase = None,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[PatchOptions],
) -> PatchReport:
    """Save at `target` what makes the checkpoint `new` of the checkpoint `base`: a patch, which is a checkpoint itself,
    and read with `ckptfmt.open(target, base=base)`.

    A tensor that is in the base under any name is not stored; others are stored as the bits that differ from the tensor
    at their path, or whole, whichever is smaller once it is compressed. Everything else (tree, metadata, schema) is
    that of `new`. The base is known by the sha256 of its manifest, and cannot be another.

    - `base`, `new`: paths, URLs, or open checkpoints. A base that is open at another version of its schema is compared
      by the names that it has there. Both may be patches, whose own bases are among `bases`.
    - `compression`: as in `ckptfmt.save`, but for rules and None; blosc with zstd, level 5, and shuffled bytes by
      default. A lower `clevel` is faster, and larger.
    - `verify`: read and compare also tensors of which digests say that they are the same; False takes their word.
    - `overwrite`, `durable`, `before_commit` and `max_bytes_in_flight` are those of `ckptfmt.save`; `storage_options`
      are for whichever place is a URL, and `follow_links` is as in `ckptfmt.open`. `progress(done, total)` is told
      bytes of tensors that were compared.

    Returns a `PatchReport`. Raises what `ckptfmt.open` and `ckptfmt.save` raise, `wrong-base` and `missing-base`.
    """
    reading: Any = {"storage_options": storage_options, "follow_links": follow_links, "base": bases}
    with ExitStack() as stack:
        old = stack.enter_context(_viewed(base, **reading))
        found = stack.enter_context(_viewed(new, **reading))
        if not isinstance(found, StoredCheckpoint) or found.renaming != Renaming():
            advice = "Write it out first, with ckptfmt.migrate"
            raise fault("bad-option", "what a patch is made from is taken as stored", path=found.path, advice=advice)
        place = place_of(target)
        return made(old, found, place, storage_options=options_at(place, storage_options), **options)


@takes(ApplyOptions)
def apply(
    base: PatchBase,
    patch: Place,
    target: Place,
    *,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[ApplyOptions],
) -> ApplyReport:
    """Save at `target` what a patch makes of its base: a checkpoint that needs neither.

    By default it is a file as `ckptfmt.save` writes it without options: where the patch was made from such a file, that
    very file again, byte for byte, so that signatures of it stay valid; the report says whether it is.

    - `base`: the base, and those of a chain of patches, as `base=` of `ckptfmt.open`.
    - `layout`, `compression`, `digest` (that of the patch by default), `overwrite`, `durable`, `before_commit` and
      `max_bytes_in_flight` are those of `ckptfmt.save`, `storage_options` and `follow_links` as in `ckptfmt.patch`.
    - What differs is read and verified on both sides. Tensors that are stored as the result has them are copied by the
      system with their digests, so that damage of them stays damage, which any later read finds; `verify=True` reads
      and verifies these, too.
    - `progress(done, total)` is told bytes of tensors that were written.

    Returns an `ApplyReport`. Raises what `ckptfmt.open` and `ckptfmt.save` raise, `wrong-base`, `missing-base`, and
    `bad-option` for a checkpoint that is no patch.
    """
    place, found = place_of(patch), place_of(target)
    reading: Any = {"storage_options": options_at(place, storage_options), "follow_links": follow_links}
    with StoredCheckpoint(place, base=base, **reading) as opened:
        return applied(opened, found, storage_options=options_at(found, storage_options), **options)


@takes(PatchOptions)
def fold(
    base: PatchBase,
    patches: Sequence[Place],
    target: Place,
    *,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[PatchOptions],
) -> PatchReport:
    """Save at `target` one patch that makes of the base what a chain of `patches` makes of it, the first of which is of
    that base. Options, report and errors are those of `ckptfmt.patch`; nothing is held in memory but parts of tensors.
    """
    places = [place_of(patch) for patch in patches]
    if not places:
        raise fault("bad-option", "there is no patch to be folded", path=place_of(target))
    others = [*bases_given(base), *places[:-1]]
    reading: Any = {"storage_options": options_at(places[-1], storage_options), "follow_links": follow_links}
    with StoredCheckpoint(places[-1], base=others, **reading) as last:
        bottom: StoredCheckpoint | None = last
        for _ in places:
            bottom = None if bottom is None else bottom.base
        if bottom is None:
            message = "these are no chain of patches, each of which is of the one before"
            raise fault("bad-option", message, path=last.path)
        place = place_of(target)
        return made(bottom, last, place, storage_options=options_at(place, storage_options), **options)


@contextmanager
def _viewed(found: Place | Checkpoint, **reading: Any) -> Iterator[CheckpointView[Any]]:
    """A checkpoint at a place, or one that is open, and stays so."""
    if isinstance(found, Checkpoint):
        yield found._view
        return
    place = place_of(found)
    reading["storage_options"] = options_at(place, reading["storage_options"])
    with StoredCheckpoint(place, **reading) as stored:
        yield stored
