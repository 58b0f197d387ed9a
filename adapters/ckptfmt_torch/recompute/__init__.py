"""Gradient checkpointing in torch: `chain` recomputes the steps of a part of a model, `offload` puts what a forward
pass saves for the backward one on a disk."""

from __future__ import annotations

from ckptfmt.packages import required_by

with required_by("ckptfmt_torch"):
    from .chains import chain
    from .offloading import OffloadTraffic, offload

__all__ = ["OffloadTraffic", "chain", "offload"]
