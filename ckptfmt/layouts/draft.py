"""What a save hands to a layout to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..format.arrays import ArraySpec
from ..format.digests import Digest
from ..format.earliest import earliest_format
from ..format.manifest import FORMAT, PAGED_FORMAT, PATCH, PATCH_FORMAT, Manifest, Part, Schema
from ..format.node import Node
from ..format.placement import Placement
from ..frameworks.sources import KeptTensor, Source
from ..progress import Report

if TYPE_CHECKING:
    from ..format.patch import Patch
    from ..format.summary import Summary
    from .sharing import Base
    from .watch import ElementWatch


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
    watch: ElementWatch | None = None  # what looks at the elements as they are written

    def look(self, tensor: int, chunk: int) -> None:
        """Look at a chunk that is not written, as an earlier checkpoint has the same bytes."""
        if self.watch is not None and not isinstance(self.sources[tensor], KeptTensor):
            self.watch.look(self.names[tensor], self.specs[tensor], self.sources[tensor], chunk)

    def statistics(self) -> list[Summary | None] | None:
        """What was seen of each tensor, if that is to be stored."""
        if self.watch is None or not self.watch.all_figures:
            return None
        return list(map(self.watch.summary, self.names, self.specs))

    def with_statistics(self, manifest: Manifest) -> Manifest:
        """The same manifest, without pages, with what was seen of each tensor. [STAT-001]"""
        found = self.statistics()
        if found is None:
            return manifest
        from ..format.stored_statistics import binding_of, encode_statistics  # here, as they are seldom asked for

        return manifest._replace(statistics=encode_statistics(found, self.specs, binding_of(manifest)))

    patch: Patch | None = None  # of what base the tensors are made, whose `specs` say how

    since: tuple[int, int] | None = None  # the version that has its dtypes, which is looked for once

    def __post_init__(self) -> None:
        if self.since is None:
            object.__setattr__(self, "since", earliest_format(self.specs, self.tree, self.metadata))

    @property
    def format(self) -> tuple[int, int]:
        """(major, minor) of what is written. [FMT-001]"""
        least = PATCH_FORMAT if self.patch is not None else PAGED_FORMAT if self.paged else FORMAT
        return max(least, self.since or FORMAT)

    @property
    def documents(self) -> tuple[tuple[str, ...], tuple[ArraySpec, ...], tuple[int, int]]:
        """What node documents are made of."""
        return self.names, self.specs, self.format

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
            requires=() if self.patch is None else (PATCH,),
            format=self.format,
            patch=self.patch,
        )
