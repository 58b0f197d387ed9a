"""Torch's adapter: tensors, modules and optimizers to and from checkpoints; torch.distributed.checkpoint in `dcp`."""

from __future__ import annotations

from ckptfmt.frameworks.adapter import register
from ckptfmt.packages import needed_by

with needed_by("ckptfmt_torch"):
    from .adapter import ADAPTER, Saved, TorchAdapter
    from .checkpoint import load, load_into, open, save
    from .coordinator import TorchCoordinator

register(ADAPTER)

__all__ = ["ADAPTER", "Saved", "TorchAdapter", "TorchCoordinator", "load", "load_into", "open", "save"]
