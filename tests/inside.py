"""What tests look at inside an open checkpoint."""

from __future__ import annotations

import ckptfmt
from ckptfmt.reading.checkpoint import StoredCheckpoint


def inside(checkpoint: ckptfmt.Checkpoint) -> StoredCheckpoint:
    """What is stored, with all that the package knows of it."""
    return checkpoint._view.stored
