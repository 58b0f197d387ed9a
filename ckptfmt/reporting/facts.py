"""What is said of a checkpoint at the head of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..checkpoint import Checkpoint
from ..conversion.source import OpenedSource
from ..conversion.table import OWN, title_of
from .words import cut, entries

Facts = list[tuple[str, str]]


def facts_of(source: OpenedSource, options: Mapping[str, Any]) -> Facts:
    """What it is, and of a checkpoint of this format how it is stored; `options` are those of opening one."""
    found: Facts = [("Format", title_of(source))]
    if source.place.format != OWN:
        found += [("Left out", cut(str(loss))) for loss in source.losses]
        return found
    with Checkpoint(source.place.path, **options) as checkpoint:
        version, schema = ".".join(map(str, checkpoint.format)), checkpoint.schema
        found = [("Format", f"ckptfmt {version}, layout {checkpoint.layout}")]
        found += [("Written by", cut(checkpoint.generator))]
        found += [] if schema is None else [("Schema", cut(f"{schema.id}, version {schema.version}"))]
        return [*found, ("Manifest", f"sha256 {checkpoint.manifest_sha256}")]


def metadata_of(source: OpenedSource) -> Sequence[tuple[str, str]]:
    """The entries of its metadata."""
    return [] if source.metadata is None else entries(source.metadata)
