"""Writing a migrated checkpoint: a new one beside the old, published at once, that says where it comes from
(docs/spec/migrations.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from .._version import __version__
from ..brief import Brief
from ..calls import takes
from ..errors import CkptError
from ..format.manifest import Schema
from ..format.names import Path
from ..format.renaming import Renaming
from ..format.tree import Tree
from ..frameworks.adapter import kept
from ..frameworks.overflows import Overflow, Tally
from ..reading.checkpoint import StoredCheckpoint
from ..reading.options import taken_names
from ..storage import options_at, path_of
from ..writing.request import Compression
from ..writing.writer import SaveReport, save
from .containers import with_leaves
from .graph import Documents
from .keep import Keeper, keeper
from .options import ChainOptions, MigrateOptions
from .plan import MigrationPlan, PlainLeaf
from .tags import tagged
from .view import MigratedTensor, MigratedView, migrated

if TYPE_CHECKING:
    from ..reading.bases import PatchBase

PROVENANCE = "provenance"  # the key of the manifest [MIG-017]


@dataclass(frozen=True, slots=True, repr=False)
class MigrationReport(Brief):
    """What `migrate` did, or would do: the plan, the versions, and what was saved (None if nothing was).

    `overflows`: the tensors that are rounded to a dtype which may not hold all their numbers, with the number of
    elements beyond its range; None if nothing was saved, as they have not been read."""

    plan: MigrationPlan
    start: Schema
    end: Schema
    saved: SaveReport | None
    overflows: tuple[Overflow, ...] = ()


@takes(MigrateOptions, former={"src": "source", "dst": "target", "to": "schema"})
def migrate(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    migrations: Documents = (),
    *,
    schema: Schema | tuple[str, str] | str,
    plan_only: bool = False,
    verify: bool = False,
    layout: str | None = None,
    compression: Compression | Mapping[str, Compression] = None,
    digest: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    base: PatchBase = None,
    **options: Unpack[MigrateOptions],
) -> MigrationReport:
    """Save the checkpoint at `source` as it is at the version `schema` of its parameter layout to `target`: all of it,
    or nothing.

    `schema`, `migrations`, `source_schema`, `down`, `lossy`, `parameters`, `externs`, and `prefix`, `strip_prefix` and
    `add_prefix`, by which names change before, are those of `ckptfmt.open`; `layout` and `digest` (those of the source
    by default), `overwrite`, `compression`, `durable`, `before_commit` and `max_bytes_in_flight` those of
    `ckptfmt.save`; `storage_options` are for whichever of both is a URL; `follow_links`, and the `base`
    of a patch, are as in `ckptfmt.open`. `target` may be `source`, with `overwrite=True`. `plan_only` plans and writes
    nothing. `progress(done, total)` is told the bytes written.

    What is computed is read and verified, piece by piece. What is merely moved is not read: it stays stored as it is,
    its files are shared (layout "loose") or its bytes copied by the system, and its digests come along, so that damage
    of the source stays damage, which any later read finds. `verify=True` reads and verifies that too, and shares
    nothing; so does a `compression`, a `digest` or a kind of layout that is not the source's.

    Raises what `ckptfmt.open` and `ckptfmt.save` raise; all faults of the plan come before any tensor is read.
    """
    asked: dict[str, Any] = dict(options)
    renaming = taken_names(asked, path_of(source))
    chain = {name: asked.pop(name) for name in ChainOptions.__annotations__ if name in asked}
    opening: Any = {"storage_options": options_at(source, storage_options), "follow_links": follow_links, "base": base}
    with StoredCheckpoint(source, beside=True, **opening) as stored:
        view = _viewed(stored, renaming, schema, migrations=migrations, **chain)
        if plan_only:
            return _report(view, None, view.plan.overflows)
        layout, digest, tally = layout or stored.layout, digest or stored.manifest.digest, Tally()
        keeps = None if verify or compression is not None else keeper(stored, layout, digest)
        saved = save(
            target,
            _saved(view, keeps, tally),
            layout=layout,
            compression=compression,
            schema=view.schema,
            metadata=view.metadata,
            digest=digest,
            storage_options=options_at(target, storage_options),
            extra=further_keys(stored, _provenance(view, renaming)),
            **asked,
        )
        met = tuple(kind.overflow(tally.count(kind)) for kind, beyond in view.plan.roundings().items() if beyond != 0)
        return _report(view, saved, met)


def _viewed(stored: StoredCheckpoint, renaming: Renaming, schema: Any, **chain: Any) -> MigratedView:
    """A checkpoint at a version; errors say where it is."""
    try:
        return migrated(stored.renamed(renaming), schema, **chain)
    except CkptError as error:
        error.path = error.path or stored.path
        raise


def _report(view: MigratedView, saved: SaveReport | None, overflows: tuple[Overflow, ...]) -> MigrationReport:
    start = Schema(view.schema.id, view.plan.chain[0].start if view.plan.chain else view.schema.version)
    return MigrationReport(view.plan, start, view.schema, saved, overflows)


def _saved(view: MigratedView, keeps: Keeper | None, tally: Tally) -> Tree:
    """The tree of a view as it is saved: with its tags [MIG-021], and with tensors that are merely moved kept as they
    are stored."""

    def leaf(path: Path, entry: Any) -> Any:
        if isinstance(entry, PlainLeaf):
            return entry.value
        found = view.leaves[path]
        if not isinstance(found, MigratedTensor):
            return found
        moved = None if keeps is None else view.moved(found)
        stored = None if moved is None or keeps is None else keeps.keep(moved, found.identity)
        return stored or found.within(tally)

    names = {name for over in view.tag_nodes.values() for name, _ in over}
    return tagged(with_leaves(view.plan.tree, leaf), view.tag_nodes, {name: kept(name) for name in names})


def provenance(checkpoint: StoredCheckpoint) -> list[dict[str, Any]]:
    """The records of how a checkpoint came to be, the oldest first. [MIG-017]"""
    found = checkpoint.manifest.unknown.get(PROVENANCE)
    return list(found) if isinstance(found, list) else []


def further_keys(checkpoint: StoredCheckpoint, record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the source's manifest that are to be kept, and its provenance with one more record. [MAN-003]"""
    return {**checkpoint.manifest.unknown, PROVENANCE: [*provenance(checkpoint), dict(record)]}


def _provenance(view: MigratedView, names: Renaming) -> dict[str, Any]:
    edges = zip(view.plan.chain, view.plan.parameters, strict=True)
    before = list(names.prefix) if isinstance(names.prefix, tuple) else [names.prefix]
    renamed = {"prefix": before, "strip": list(names.strip), "add": names.add}
    return {
        **({} if names == Renaming() else {"renamed": renamed}),
        "operation": "migrate",
        "generator": f"ckptfmt {__version__}",
        "source": bytes.fromhex(view.stored.manifest_sha256),
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
