"""Lineage: what a checkpoint says of how it came to be, and those of its sources that are at hand
(docs/spec/signatures.md, section 4)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..brief import Brief
from ..calls import takes
from ..errors import CkptError
from ..format.manifest import Manifest
from ..migration.apply import provenance
from ..reading.checkpoint import StoredCheckpoint
from ..storage import is_url, path_of
from .candidates import candidates_in

NEARBY = 1000  # most checkpoints of a folder in which sources are looked for


@dataclass(frozen=True, slots=True, repr=False)
class LineageStep(Brief):
    """One thing that was done: the `operation` ("migrate", "convert", "repair" …) by a `generator`, as the `record`
    says. `source`: the sha256 (hexadecimal) of the manifest that it was done to, None if that is not said; `path`:
    where this is, None if it is not at hand; `agrees`: whether what is there says the same of what was done before,
    None if it is not at hand. Of a patch the last is "patch", from its base, of which no record is asked."""

    operation: str
    generator: str
    source: str | None
    record: Mapping[str, Any]
    path: str | None = None
    agrees: bool | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Lineage(Brief):
    """How the checkpoint at `path` came to be: `steps`, the oldest first, as it says itself."""

    path: str
    manifest_sha256: str
    steps: tuple[LineageStep, ...]

    @property
    def ok(self) -> bool:
        """Whether no source that is at hand says otherwise."""
        return all(step.agrees is not False for step in self.steps)


@takes()
def lineage(
    path: str | os.PathLike[str],
    *,
    among: Iterable[str | os.PathLike[str]] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> Lineage:
    """Tell what made the checkpoint at `path` from what, as its manifest says; its sources are looked for `among`
    paths, by default those in its folder, and compared: the records of a source are those before its own. Reads
    manifests only.

    A record is what was written into the checkpoint, and no proof: whoever wrote it could write anything. Where the
    checkpoint is signed, the signer vouches for its records, too. [LIN-002] Raises what `ckptfmt.open` raises.
    """
    place = path_of(path)
    options = {"storage_options": storage_options, "follow_links": follow_links}
    with StoredCheckpoint(place, **options) as stored:  # type: ignore[arg-type]
        records, sha256, patch = list(provenance(stored)), stored.manifest_sha256, _of_patch(stored.manifest)
    steps = [*map(_step, records), *map(_step, patch)]
    wanted = {step.source for step in steps if step.source is not None}
    at_hand = _found(_places(place, among), wanted, options) if wanted else {}
    before = [records[:n] for n in range(len(records))] + [None] * len(patch)
    return Lineage(place, sha256, tuple(_compared(*one, at_hand) for one in zip(steps, before, strict=True)))


def _of_patch(manifest: Manifest) -> list[dict[str, Any]]:
    """What a patch says of its base, as a record. Its records are those of its result: the base may have others."""
    if manifest.patch is None:
        return []
    base, result = manifest.patch.base, manifest.patch.result
    return [{"operation": "patch", "generator": manifest.generator, "source": base, "result": result}]


def _step(record: Any) -> LineageStep:
    """What a record says, whatever it is."""
    said = record if isinstance(record, dict) else {}
    operation, generator, source = (said.get(name) for name in ("operation", "generator", "source"))
    return LineageStep(
        operation if isinstance(operation, str) else "?",
        generator if isinstance(generator, str) else "?",
        source.hex() if isinstance(source, bytes) and len(source) == 32 else None,
        said,
    )


def _compared(
    step: LineageStep, before: Sequence[Any] | None, at_hand: Mapping[str, tuple[str, list[Any]]]
) -> LineageStep:
    """A step with its source, if that is at hand. `before`: the records that this must have; None: any."""
    if step.source is None or step.source not in at_hand:
        return step
    path, records = at_hand[step.source]
    return LineageStep(step.operation, step.generator, step.source, step.record, path, before in (None, records))


def _places(place: str, among: Iterable[str | os.PathLike[str]] | None) -> Iterator[str]:
    if among is not None:
        return map(path_of, among)
    if is_url(place):
        return iter(())
    folder = os.path.dirname(os.path.abspath(place.rstrip("/")))
    prefix = "" if os.path.dirname(place.rstrip("/")) == "" else folder
    return (os.path.join(prefix, os.path.basename(one.path)) for one in candidates_in(folder))


def _found(places: Iterator[str], wanted: set[str], options: Mapping[str, Any]) -> dict[str, tuple[str, list[Any]]]:
    """Where the checkpoints with these manifests are, and their records."""
    found: dict[str, tuple[str, list[Any]]] = {}
    for place, _ in zip(places, range(NEARBY), strict=False):
        with suppress(CkptError), StoredCheckpoint(place, **options) as stored:
            if stored.manifest_sha256 in wanted:
                found.setdefault(stored.manifest_sha256, (place, list(provenance(stored))))
        if len(found) == len(wanted):
            break
    return found
