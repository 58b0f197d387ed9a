"""What a save hands to a layout to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..format.arrays import ArraySpec
from ..format.digests import Digest
from ..format.manifest import Manifest, Part, Schema
from ..format.node import Node
from ..format.placement import Placement
from ..frameworks.sources import Source
from ..progress import Report

if TYPE_CHECKING:
    from .sharing import Base


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be written: everything of a manifest but the chunk table, and the tensors."""

    sources: list[Source]
    names: tuple[str, ...]
    specs: tuple[ArraySpec, ...]
    tree: Node
    metadata: Node
    schema: Schema | None
    digest: Digest
    block: int
    generator: str
    report: Report
    extra: dict[str, Any] = field(default_factory=dict)  # further keys of the manifest
    base: Base | None = None  # an earlier checkpoint, with which it shares what has not changed
    paged: bool | None = None  # whether the manifest is paged; None: if it is large

    def manifest(self, layout: str, parts: tuple[Part, ...], placement: Placement | None = None) -> Manifest:
        return Manifest(
            layout=layout,
            digest=self.digest.name,
            block=self.block,
            root=self.tree,
            metadata=self.metadata,
            names=self.names,
            specs=self.specs,
            parts=parts,
            placement=placement,
            generator=self.generator,
            schema=self.schema,
            unknown=self.extra,
        )
