"""A checkpoint of an earlier format version, saved again in that of today (FMT-004)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

from .._version import __version__
from ..calls import takes
from ..errors import fault
from ..format import tree as trees
from ..format.tags import NATIVE
from ..format.tree import Tree
from ..frameworks.adapter import kept
from ..reading.checkpoint import StoredCheckpoint
from ..reading.tensor import Tensor
from ..storage import options_at
from ..writing.writer import SaveReport, save
from .apply import further_keys
from .keep import Keeper, keeper
from .options import UpgradeOptions


class UpgradeReport(NamedTuple):
    """What `upgrade` did: the (major, minor) `format` that the source has, and what was `saved`."""

    format: tuple[int, int]
    saved: SaveReport


@takes(UpgradeOptions, former={"src": "source", "dst": "target"})
def upgrade(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **publishing: Unpack[UpgradeOptions],
) -> UpgradeReport:
    """Save the checkpoint at `source` to `target` in the format version of today. [FMT-004]

    Tree, schema, metadata, layout and stored chunks stay, and no chunk is read where `ckptfmt.migrate` would not
    either. `target` may be `source`, with `overwrite=True`; that and the other options are those of `ckptfmt.save`.
    `storage_options` are for whichever of them is a URL, `follow_links` is as in `ckptfmt.open`. Raises what
    `ckptfmt.open` and `ckptfmt.save` raise.
    """
    read_options = options_at(source, storage_options)
    with StoredCheckpoint(source, storage_options=read_options, follow_links=follow_links) as checkpoint:
        manifest = checkpoint.manifest
        if manifest.patch is not None:
            message, advice = "a patch is of the format of today", "Write out what it makes with ckptfmt apply"
            raise fault("bad-option", message, path=checkpoint.path, advice=advice)
        record = {
            "operation": "upgrade",
            "generator": f"ckptfmt {__version__}",
            "source": bytes.fromhex(checkpoint.manifest_sha256),
            "format": list(checkpoint.format),
        }
        keeps = keeper(checkpoint, checkpoint.layout, manifest.digest)
        tensors = [_kept(keeps, tensor) for tensor in checkpoint.handles]
        saved = save(
            target,
            _as_it_is(manifest.tree, tensors),
            layout=checkpoint.layout,
            schema=checkpoint.schema,
            metadata=_as_it_is(manifest.metadata, []),
            digest=manifest.digest,
            storage_options=options_at(target, storage_options),
            extra=further_keys(checkpoint, record),
            **publishing,
        )
        return UpgradeReport(checkpoint.format, saved)


def _kept(keeps: Keeper | None, tensor: Tensor) -> Any:
    """A tensor to save: as it is stored, where that can be."""
    return (keeps and keeps.keep(tensor, tensor.index)) or tensor


def _as_it_is(node: Any, tensors: list[Any]) -> Tree:
    """The tree of a node to be saved again: all tags stay, whether this program knows them or not."""
    names = {name for _, name, _ in trees.tags(node)} - NATIVE
    return trees.decode(node, tensors.__getitem__, restores={name: kept(name) for name in names})
