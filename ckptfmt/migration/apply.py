"""Writing a migrated checkpoint: a new one beside the old, published at once, that says where it comes from
(docs/spec/migrations.md)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from .._version import __version__
from ..brief import Brief
from ..format.manifest import Schema
from ..format.names import Key, Path
from ..format.renaming import Renaming
from ..format.tree import Tree
from ..frameworks.overflows import Overflow, Tally
from ..progress import Progress
from ..reading.checkpoint import Checkpoint
from ..reading.reader import open_checkpoint
from ..storage import options_at
from ..writing import writer
from .containers import with_leaves
from .keep import Keeper, keeper
from .options import ChainOptions
from .plan import Plain, Plan
from .view import MigratedCheckpoint, MigratedTensor

PROVENANCE = "provenance"  # the key of the manifest [MIG-017]


@dataclass(frozen=True, slots=True, repr=False)
class MigrationReport(Brief):
    """What `migrate` did, or would do: the plan, the versions, and what was saved (None if nothing was).

    `overflows`: the tensors that are rounded to a dtype which may not hold all their numbers, with the number of
    elements beyond its range; None if nothing was saved, as they have not been read."""

    plan: Plan
    start: Schema
    end: Schema
    saved: writer.SaveReport | None
    overflows: tuple[Overflow, ...] = ()


def migrate(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    migrations: Any = (),
    *,
    to: str,
    prefix: Key | Path | None = None,
    strip_prefix: str | Iterable[str] | None = None,
    add_prefix: str | None = None,
    plan_only: bool = False,
    verify: bool = False,
    layout: str | None = None,
    overwrite: bool = False,
    compression: Any = None,
    durable: bool = True,
    digest: str | None = None,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[ChainOptions],
) -> MigrationReport:
    """Save the checkpoint at `src` as it is at version `to` of its schema to `dst`: all of it, or nothing.

    `migrations`, `source_schema`, `down`, `lossy`, `parameters`, `externs`, and `prefix`, `strip_prefix` and
    `add_prefix`, by which names change before, are those of `ckptfmt.open`; `layout` and `digest` (those of the source
    by default), `overwrite`, `compression` and `durable` those of `ckptfmt.save`;
    `storage_options` are for whichever of `src` and `dst` is a URL. `dst` may be `src`, with `overwrite=True`.
    `plan_only` plans and writes nothing.
    `progress(done, total)` is told the bytes written.

    What is computed is read and verified, piece by piece. What is merely moved is not read: it stays stored as it is,
    its files are shared (layout "loose") or its bytes copied by the system, and its digests come along, so that damage
    of the source stays damage, which any later read finds. `verify=True` reads and verifies that too, and shares
    nothing; so does a `compression`, a `digest` or a kind of layout that is not the source's.

    Raises what `ckptfmt.open` and `ckptfmt.save` raise; all faults of the plan come before any tensor is read.
    """
    read_options = options_at(src, storage_options)
    names = Renaming.of(prefix, strip_prefix, add_prefix)
    with open_checkpoint(
        src,
        schema=to,
        migrations=migrations,
        prefix=prefix,
        strip_prefix=names.strip,
        add_prefix=add_prefix,
        storage_options=read_options,
        **options,
    ) as view:
        start = Schema(view.schema.id, view.plan.chain[0].start if view.plan.chain else to)
        if plan_only:
            return MigrationReport(view.plan, start, view.schema, None, view.plan.overflows)
        layout, digest = layout or view.checkpoint.layout, digest or view.checkpoint.manifest.digest
        keeps = None if verify or compression is not None else keeper(view.checkpoint, layout, digest)
        tally = Tally()
        saved = writer.save(
            dst,
            _saved(view, keeps, tally),
            layout=layout,
            overwrite=overwrite,
            compression=compression,
            schema=view.schema,
            metadata=view.metadata,
            durable=durable,
            digest=digest,
            progress=progress,
            storage_options=options_at(dst, storage_options),
            extra=further_keys(view.checkpoint, _provenance(view, names)),
        )
        met = tuple(kind.overflow(tally.count(kind)) for kind, beyond in view.plan.roundings().items() if beyond != 0)
        return MigrationReport(view.plan, start, view.schema, saved, met)


def _saved(view: MigratedCheckpoint, keeps: Keeper | None, tally: Tally) -> Tree:
    """The tree of a view as it is saved: with its tags [MIG-021], and with tensors that are merely moved kept as they
    are stored."""

    def leaf(path: Path, entry: Any) -> Any:
        if isinstance(entry, Plain):
            return entry.value
        found = view.leaves[path]
        if not isinstance(found, MigratedTensor):
            return found
        moved = None if keeps is None else view.moved(found)
        kept = None if moved is None or keeps is None else keeps.keep(moved, found.identity)
        return kept or found.counted(tally)

    return with_leaves(view.plan.tree, leaf)


def provenance(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The records of how a checkpoint came to be, the oldest first. [MIG-017]"""
    found = checkpoint.manifest.unknown.get(PROVENANCE)
    return list(found) if isinstance(found, list) else []


def further_keys(checkpoint: Checkpoint, record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the source's manifest that are to be kept, and its provenance with one more record. [MAN-003]"""
    return {**checkpoint.manifest.unknown, PROVENANCE: [*provenance(checkpoint), dict(record)]}


def _provenance(view: MigratedCheckpoint, names: Renaming) -> dict[str, Any]:
    edges = zip(view.plan.chain, view.plan.parameters, strict=True)
    before = list(names.prefix) if isinstance(names.prefix, tuple) else [names.prefix]
    renamed = {"prefix": before, "strip": list(names.strip), "add": names.add}
    return {
        **({} if names == Renaming() else {"renamed": renamed}),
        "operation": "migrate",
        "generator": f"ckptfmt {__version__}",
        "source": bytes.fromhex(view.checkpoint.manifest_sha256),
        "schema": view.schema.id,
        "chain": [
            {
                "from": edge.start,
                "to": edge.end,
                "document": edge.digest,
                "inverse": edge.backwards,
                "class": str(edge.loss),
                "parameters": parameters,
            }
            for edge, parameters in edges
        ],
    }
