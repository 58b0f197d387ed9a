"""Empty objects beside the checkpoints of a run on a store, which stand for what locks and renames are on disks."""

from __future__ import annotations

TOMBSTONE, LEASE = ".ckptfmt-deleted", ".ckptfmt-lease"
LIFETIME = 600.0  # seconds that a lease counts after it was last renewed
