"""The manifest that a commit record points at, read and checked (SPEC.md section 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import fault
from ..format import manifest as manifests
from ..format.digests import digest_named, sha256
from ..format.limits import Limits
from ..format.manifest import Manifest
from ..layouts import Located

if TYPE_CHECKING:
    from ..format.pages import ReadBytes


def read_manifest(located: Located, limits: Limits, read: ReadBytes) -> Manifest:
    """Raises `manifest-digest`, `bad-manifest` and what decoding it raises."""
    record, raw = located.record, located.manifest
    memory = limits.values(max(located.size, len(raw)))
    if sha256(raw) != record.sha256:  # [COM-003]
        raise fault("manifest-digest", "the manifest's bytes do not match their sha256 [COM-003]", offset=record.offset)
    if record.format[0] == manifests.FORMAT[0]:
        manifest = manifests.decode(raw, memory, read, limits.manifest)
    else:  # an earlier one: commit.decode refuses later ones
        from ..format.older import decode_older  # here, as it is seldom met

        manifest = decode_older(raw, record.format, memory)
    if manifest.format != record.format or manifest.layout != record.layout:  # [MAN-005] [LAY-006]
        raise fault("bad-manifest", "format or layout differ from those of the commit record [MAN-005] [LAY-006]")
    if len(record.frame) != digest_named(manifest.digest).size:  # [COM-001]
        raise fault("bad-manifest", "the commit record's frame digest is not of the manifest's algorithm [COM-001]")
    if manifest.layout == "file":
        manifest.check_extents(record.offset)
    return manifest
