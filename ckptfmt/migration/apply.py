"""Writing a migrated checkpoint: a new one beside the old, published at once, that says where it comes from (SPEC.md
section 20)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import writer
from .._version import __version__
from ..manifest import Schema
from ..names import Path
from ..progress import Progress
from ..reader import Checkpoint
from ..target import rebuild
from ..tensor import Tensor
from ..tree import Tree
from .link import can_link, save_linked
from .operators import Extern
from .plan import Plan
from .view import MigratedCheckpoint, MigratedTensor, open_at

PROVENANCE = "provenance"  # the key of the manifest [MIG-017]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What `migrate` did, or would do: the plan, the versions, and what was saved (None if nothing was)."""

    plan: Plan
    start: Schema
    end: Schema
    saved: writer.SaveReport | None


def migrate(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    migrations: Any,
    *,
    to: str,
    plan_only: bool = False,
    down: bool = False,
    lossy: bool = False,
    schema: Schema | tuple[str, str] | None = None,
    parameters: Mapping[str, int] | None = None,
    externs: Mapping[str, Extern] | None = None,
    layout: str | None = None,
    overwrite: bool = False,
    compression: Any = None,
    durable: bool = True,
    digest: str = "xxh3-128",
    link: bool = True,
    progress: Progress | None = None,
) -> MigrationReport:
    """Save the checkpoint at `src` as it is at version `to` of its schema to `dst`: all of it, or nothing.

    What `open_at` takes says what is migrated; `layout` (that of the source by default), `overwrite`, `compression`,
    `durable` and `digest` are those of `ckptfmt.save`. `dst` may be `src`, with `overwrite=True`. `plan_only` plans
    and writes nothing. `link`: where tensors of layout "loose" are merely renamed, share their files with the source,
    which takes no time and no space. `progress(done, total)` is told the bytes written.

    Raises what `open_at` and `ckptfmt.save` raise; all faults of the plan come before any tensor is read.
    """
    view = open_at(
        src, to, migrations, schema=schema, down=down, lossy=lossy, parameters=parameters, externs=externs
    )  # fmt: skip
    with view:
        start = Schema(view.schema.id, view.plan.chain[0].start if view.plan.chain else to)
        if plan_only:
            return MigrationReport(view.plan, start, view.schema, None)
        layout = layout or view.checkpoint.layout
        extra = further_keys(view.checkpoint, _provenance(view))
        saved = None
        if link and can_link(view, layout, compression, digest):
            saved = save_linked(view, os.fspath(dst), overwrite=overwrite, durable=durable, extra=extra)
        if saved is None:
            saved = writer.save(
                dst,
                sources(view.tree),
                layout=layout,
                overwrite=overwrite,
                compression=compression,
                schema=view.schema,
                metadata=view.metadata,
                durable=durable,
                digest=digest,
                progress=progress,
                extra=extra,
            )
        return MigrationReport(view.plan, start, view.schema, saved)


def provenance(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The records of how a checkpoint came to be, the oldest first. [MIG-017]"""
    found = checkpoint.manifest.unknown.get(PROVENANCE)
    return list(found) if isinstance(found, list) else []


def further_keys(checkpoint: Checkpoint, record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the source's manifest that are to be kept, and its provenance with one more record. [MAN-003]"""
    return {**checkpoint.manifest.unknown, PROVENANCE: [*provenance(checkpoint), dict(record)]}


def _provenance(view: MigratedCheckpoint) -> dict[str, Any]:
    edges = zip(view.plan.chain, view.plan.parameters, strict=True)
    return {
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


def sources(tree: Tree) -> Tree:
    """A tree of lazy tensors as one to save: they are read piece by piece, but for times, which are arrays there."""

    def source(_: Path, leaf: Any) -> Any:
        is_time = isinstance(leaf, Tensor | MigratedTensor) and leaf.dtype.kind in "mM"
        return leaf.read() if is_time else leaf

    return rebuild(tree, source)
