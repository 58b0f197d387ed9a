"""Renames without a copy: in layout `loose` every chunk is a file, so a checkpoint whose tensors are merely moved can
be made of links to the files of its source (SPEC.md section 20, MIG-020).

Files of checkpoints are never changed in place [PUB-004], so two checkpoints can share them. Digests come with the
manifest; nothing is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..chunk_table import ChunkTable
from ..layouts import chunk_object, directory
from ..manifest import Part
from ..names import Path
from ..progress import nothing
from ..request import request
from ..storage import attempt_for
from ..storage.local import LocalAttempt, LocalStorage
from ..writer import SaveReport, drafted
from ..zarr_nodes import node_documents
from .nodes import Leaf
from .view import MigratedCheckpoint, MigratedTensor


def can_link(view: MigratedCheckpoint, layout: str, compression: Any, digest: str) -> bool:
    """Whether the result can be made of the source's files."""
    manifest = view.checkpoint.manifest
    return (
        manifest.layout == layout == "loose"
        and isinstance(view.checkpoint.blocks.storage, LocalStorage)
        and view.plan.is_rename
        and compression is None
        and digest == manifest.digest
        and all(tensor.dtype.kind not in "mM" for tensor in view.tensors.values())
    )


def save_linked(
    view: MigratedCheckpoint, dst: str, *, overwrite: bool, durable: bool, extra: Mapping[str, Any]
) -> SaveReport | None:
    """Save a view that `can_link`; None, and nothing at `dst`, if the file system cannot link."""
    manifest, blocks = view.checkpoint.manifest, view.checkpoint.blocks
    made = request(view.tree, compression=None, schema=view.schema, metadata=view.metadata, digest=manifest.digest)
    tensors = [_index(view, leaf.source) for leaf in made.encoded.tensors]
    specs = tuple(manifest.specs[tensor] for tensor in tensors)
    draft = drafted(made, specs, block=manifest.block, report=nothing, extra=extra)
    attempt = attempt_for(dst, directory=True, overwrite=overwrite, durable=durable)
    storage = view.checkpoint.blocks.storage
    assert isinstance(attempt, LocalAttempt)
    assert isinstance(storage, LocalStorage)
    rows = [(number, chunk) for number, spec in enumerate(specs) for chunk in range(spec.chunks)]
    places = [blocks.place(tensors[number], chunk) for number, chunk in rows]
    try:
        documents = sorted(("tensors/" + key, text) for key, text in node_documents(draft.names, specs))
        total = sum(directory.put(attempt, name, text) for name, text in documents)
        for (number, chunk), place in zip(rows, places, strict=True):
            try:
                attempt.link(chunk_object(draft.names[number], specs[number], chunk), storage, place.object)
            except OSError:
                attempt.abort()
                return None
        lengths = np.array([place.extent.length for place in places], np.uint64)
        digests = b"".join(place.extent.digests for place in places)
        table = ChunkTable(None, lengths, digests, draft.digest.size, draft.block)
        frame = draft.digest.of(b"".join(text for _, text in documents))
        written = directory.commit(attempt, draft.manifest("loose", (Part(None, table),)), frame)
        attempt.publish()
    except BaseException:
        attempt.abort()  # [PUB-007]
        raise
    size = total + int(lengths.sum()) + written.bytes
    return SaveReport(dst, "loose", size, len(specs), written.record.sha256.hex(), made.encoded.copied_views)


def _index(view: MigratedCheckpoint, source: Any) -> int:
    """Which tensor of the source a tensor of the result is."""
    assert isinstance(source, MigratedTensor)
    assert isinstance(source.node, Leaf)
    path: Path = source.node.key  # type: ignore[assignment]
    return view.checkpoint.tensors[path].index
